//! How often something is measured, and what of many times is said.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// How often something is measured: often where it is short, and a few times at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeats {
    /// At least so many times.
    pub(crate) least: usize,
    /// At most so many times.
    pub(crate) most: usize,
    /// No more often than fits in so many seconds.
    pub(crate) seconds: f64,
}

impl Repeats {
    /// Calls something over and over, with how often it was called before. The first call does not count: it is to take its
    /// measure nowhere.
    pub(crate) fn run(self, mut once: impl FnMut(usize) -> Result<()>) -> Result<()> {
        once(0)?;
        let started = Instant::now();
        for run in 1..=self.most {
            if run > self.least && started.elapsed().as_secs_f64() > self.seconds {
                break;
            }
            once(run)?;
        }
        Ok(())
    }

    /// Seconds of something that waits for the device itself.
    pub(crate) fn time(self, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        self.run(|run| {
            let started = Instant::now();
            work()?;
            if run > 0 {
                times.push(started.elapsed().as_secs_f64());
            }
            Ok(())
        })?;
        Ok(times)
    }

    /// Times without and with commitments, in turn, so that both see the same of the machine.
    pub(crate) fn both(self, mut times: impl FnMut(bool) -> Result<Vec<f64>>) -> Result<[Vec<f64>; 2]> {
        let mut found = [Vec::new(), Vec::new()];
        self.run(|run| {
            for commit in [false, true] {
                let times = times(commit)?;
                if run > 0 {
                    found[usize::from(commit)].extend(times);
                }
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// The middle one of several times.
///
/// # Errors
/// There are no times.
pub(crate) fn median(times: &[f64]) -> Result<f64> {
    ensure!(!times.is_empty(), "nothing was measured");
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    Ok(sorted[sorted.len() / 2])
}

/// A row of the table: the median of the times is what counts; least and mean say how they spread.
pub(crate) fn row(shape: &str, by: &str, (what, size): (&str, usize), times: &[f64]) -> Result<Value> {
    Ok(json!({
        "shape": shape, "by": by, "what": what, "size": size, "seconds": median(times)?,
        "least_seconds": times.iter().copied().fold(f64::INFINITY, f64::min),
        "mean_seconds": times.iter().sum::<f64>() / times.len() as f64,
        "times": times.len(),
    }))
}

/// A row of ours, of times without and with commitments; those with count.
pub(crate) fn row_of_both(
    shape: &str,
    by: &str,
    what: (&str, usize),
    [bare, committed]: &[Vec<f64>; 2],
) -> Result<Value> {
    let mut row = row(shape, by, what, committed)?;
    let (bare, committed) = (median(bare)?, median(committed)?);
    row["seconds_without_commitments"] = json!(bare);
    row["commitments"] = json!(committed / bare - 1.0);
    Ok(row)
}
