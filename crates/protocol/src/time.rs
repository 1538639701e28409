//! Service time: the only clock that rules know.

use std::fmt;

/// A reading of the coordinator's service clock, in milliseconds since it first started.
///
/// The clock stands still while no coordinator accepts moves and never runs backwards, so a deadline on it
/// cannot pass during an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ServiceTime(pub i64);

impl ServiceTime {
    /// This time `ms` later; saturates at the end of time.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ms))
    }

    /// Milliseconds from `earlier` to this time; zero if `earlier` is in fact later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        if self > earlier { self.0.abs_diff(earlier.0) } else { 0 }
    }
}

impl fmt::Display for ServiceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(ServiceTime(i64::MAX).plus(u64::MAX), ServiceTime(i64::MAX));
        assert_eq!(ServiceTime(i64::MAX).since(ServiceTime(i64::MIN)), u64::MAX);
        assert_eq!(ServiceTime(3).since(ServiceTime(5)), 0);
        assert_eq!(ServiceTime(5).since(ServiceTime(3)), 2);
    }
}
