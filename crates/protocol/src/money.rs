//! Amounts of money: integer micro-credits, with shares that never create any.

use std::fmt;

/// Parts per million.
pub const PPM: u32 = 1_000_000;

/// An amount or a change of money, in micro-credits (a millionth of a credit).
///
/// Everything a rule takes as input lies in `0..=Amount::MAX`; a posting may be negative. The bound leaves room
/// to add any two amounts a rule handles without overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(pub i64);

impl Amount {
    /// No money.
    pub const ZERO: Self = Self(0);
    /// The most that one balance, price, stake or bond may be: a billion credits. Exact in a JSON number.
    pub const MAX: Self = Self(1_000_000_000_000_000);

    /// Whether this may be a price, stake, bond, fee or deposit.
    #[must_use]
    pub fn is_valid(self) -> bool {
        (Self::ZERO..=Self::MAX).contains(&self)
    }

    /// The sum, unless it leaves the range of an `i64`.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, unless it leaves the range of an `i64`.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// `ppm` parts per million of this amount, rounded down. With `ppm` at most a million and a valid amount,
    /// the share never exceeds the whole, and shares that sum to at most a million never sum to more than it.
    #[must_use]
    pub fn share(self, ppm: u32) -> Self {
        let product = i128::from(self.0) * i128::from(ppm);
        Self(i64::try_from(product.div_euclid(i128::from(PPM))).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micro = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{:06}", micro / 1_000_000, micro % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_rounds_down() {
        assert_eq!(Amount(10).share(333_333), Amount(3));
        assert_eq!(Amount(1).share(999_999), Amount(0));
        assert_eq!(Amount::MAX.share(PPM), Amount::MAX);
        assert_eq!(Amount(7).share(0), Amount::ZERO);
    }

    #[test]
    fn amounts_print_as_credits() {
        assert_eq!(Amount(1_250_000).to_string(), "1.250000");
        assert_eq!(Amount(-5).to_string(), "-0.000005");
        assert_eq!(Amount(i64::MIN).to_string(), "-9223372036854.775808");
    }
}
