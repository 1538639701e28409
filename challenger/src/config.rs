//! What a challenger is told.

use crate::Summary;
use gainsay_participant::settings::PartyConfig;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::watch;

/// How far a challenger goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Checks and reports. Needs no key and stakes nothing.
    Watch,
    /// Checks and reports, and goes on with the disputes that it has opened before, but opens none.
    Defend,
    /// Checks, and disputes what is false.
    #[default]
    Challenge,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Watch => "watch",
            Self::Defend => "defend",
            Self::Challenge => "challenge",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Self as clap::ValueEnum>::from_str(text, false)
    }
}

/// Which part of the claims is checked: from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRate(f64);

/// A number that is no sample rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no sample rate: expected a number from 0 to 1")]
pub struct SampleRateError(String);

impl SampleRate {
    /// Every claim.
    pub const ALL: Self = Self(1.0);

    /// This part of the claims.
    ///
    /// # Errors
    /// Outside 0 to 1.
    pub fn new(rate: f64) -> Result<Self, SampleRateError> {
        if (0.0..=1.0).contains(&rate) { Ok(Self(rate)) } else { Err(SampleRateError(rate.to_string())) }
    }

    /// Whether a claim is checked that drew `draw`, uniform over all 64-bit numbers.
    pub(crate) fn takes(self, draw: u64) -> bool {
        // The upper 53 bits are exact in an f64.
        ((draw >> 11) as f64) < self.0 * (1_u64 << 53) as f64
    }
}

impl FromStr for SampleRate {
    type Err = SampleRateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rate: f64 = text.parse().map_err(|_| SampleRateError(text.to_owned()))?;
        Self::new(rate)
    }
}

impl fmt::Display for SampleRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a challenger is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What every party is told.
    pub party: PartyConfig,
    /// How far it goes.
    pub mode: Mode,
    /// Which part of the claims it checks.
    pub sample: SampleRate,
    /// Most claims that it runs at once.
    pub batch: usize,
    /// How often it lists the open claims, for those whose events it missed.
    pub list_every: Duration,
    /// Where to say what was done, while it is done.
    pub progress: Option<watch::Sender<Summary>>,
}

impl Config {
    /// A challenger for the coordinator at this address, with its files under `home`.
    #[must_use]
    pub fn new(coordinator: impl Into<String>, name: impl Into<String>, home: impl Into<PathBuf>) -> Self {
        Self::of(PartyConfig::new("challenger", coordinator, name, home))
    }

    /// A challenger that is this party, and else as usual.
    pub(crate) fn of(party: PartyConfig) -> Self {
        Self {
            party,
            mode: Mode::default(),
            sample: SampleRate::ALL,
            batch: 8,
            list_every: Duration::from_secs(60),
            progress: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_takes_its_part_of_the_draws() {
        let part = |rate: &str| {
            let rate: SampleRate = rate.parse().unwrap();
            (0..1_000_u64).filter(|draw| rate.takes((2 * draw + 1) * (u64::MAX / 2_000))).count()
        };
        assert_eq!(part("0"), 0);
        assert_eq!(part("0.25"), 250);
        assert_eq!(part("1"), 1_000);
        assert!(SampleRate::ALL.takes(u64::MAX));
        assert!(!SampleRate(0.0).takes(0));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "2", "-0.1", "NaN", "inf", "half"] {
            assert!(text.parse::<SampleRate>().unwrap_err().to_string().contains("from 0 to 1"), "{text}");
        }
    }
}
