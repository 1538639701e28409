//! Names of things that the coordinator numbers, and the parties' roles.

use std::{fmt, str::FromStr};

/// A text that is not a hyphenated UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in lower-case hexadecimal")]
pub struct ParseIdError;

/// Positions of the hyphens in a UUID's 36 characters.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

fn write_uuid(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_uuid(text: &str) -> Result<[u8; 16], ParseIdError> {
    let text = text.as_bytes();
    if text.len() != 36 || HYPHENS.iter().any(|&i| text[i] != b'-') {
        return Err(ParseIdError);
    }
    let mut digits = text.iter().enumerate().filter(|(i, _)| !HYPHENS.contains(i)).map(|(_, c)| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(ParseIdError),
    });
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        let (Some(high), Some(low)) = (digits.next(), digits.next()) else { return Err(ParseIdError) };
        *byte = high? << 4 | low?;
    }
    Ok(bytes)
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_uuid(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// A submitted job.
    JobId
}
uuid_id! {
    /// One assignment of a job to a worker.
    LeaseId
}
uuid_id! {
    /// Whoever holds balances: a submitter, or the owner of workers or challengers.
    OwnerId
}

/// A side of a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The party whose claim is disputed.
    Worker,
    /// The party that disputes it.
    Challenger,
}

impl Role {
    /// The other side.
    #[must_use]
    pub fn opponent(self) -> Self {
        match self {
            Self::Worker => Self::Challenger,
            Self::Challenger => Self::Worker,
        }
    }

    /// Stable lower-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Challenger => "challenger",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_prints_and_parses_as_the_same_text() {
        let text = "0192f1a0-7c3e-7b4a-8d21-0123456789ab";
        let id: JobId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.0[..4], [0x01, 0x92, 0xf1, 0xa0]);
    }

    #[test]
    fn other_spellings_of_a_uuid_are_refused() {
        for text in [
            "",
            "0192F1A0-7c3e-7b4a-8d21-0123456789ab",
            "0192f1a07c3e7b4a8d210123456789ab",
            "0192f1a0-7c3e-7b4a-8d21-0123456789a",
            "0192f1a0-7c3e-7b4a-8d21-0123456789ag",
            "0192f1a-07c3e-7b4a-8d21-0123456789ab",
            "0192f1a0-7c3e-7b4a-8d21-012345678\u{e9}b",
        ] {
            assert_eq!(text.parse::<LeaseId>(), Err(ParseIdError), "{text}");
        }
    }
}
