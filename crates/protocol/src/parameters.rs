//! The numbers that a coordinator publishes and every rule takes as given.

use crate::money::{Amount, PPM};

/// Prices, stakes, fractions, windows and allowances of one coordinator.
///
/// Durations are milliseconds of service time; fractions are parts per million.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// What a worker locks with every lease at least, and loses if the claim is convicted.
    pub stake_per_job: Amount,
    /// How many times the price of its job a worker locks at least: what false claims earn while they are not found must be
    /// less than what one that is found costs.
    pub stake_multiple: u32,
    /// What a challenger locks per worker it disputes, and loses with its first lost dispute against it.
    pub bond: Amount,
    /// What a lost lease costs the worker at least, out of the stake locked with it.
    pub lost_lease_fee: Amount,
    /// Part of a job's price kept by the treasury; it pays for audits.
    pub fee_ppm: u32,
    /// Part of a convicted stake that goes to the treasury whoever proves the fraud.
    pub slash_to_treasury_ppm: u32,
    /// Part of a convicted stake that goes to the submitter whose job it was.
    pub slash_to_submitter_ppm: u32,
    /// The most, of a convicted stake, that refunds to earlier openers may take in sum.
    pub opener_refund_cap_ppm: u32,
    /// The fixed refund to an earlier opener whose commitment the finally accepted claim confirms.
    pub opener_refund: Amount,
    /// Part of a forfeited bond that goes to the worker who was disputed wrongly; the rest to the treasury.
    pub forfeit_to_worker_ppm: u32,
    /// How long after a claim disputes may be opened.
    pub window_ms: u64,
    /// A worker's time for all its turns of one dispute.
    pub worker_allowance_ms: u64,
    /// A challenger's time for all its turns of one dispute.
    pub challenger_allowance_ms: u64,
    /// How long a lease may last, claim included, beside the time that [`lease_ms`](crate::lifecycle::lease_ms) adds for the
    /// tokens of an answer.
    pub lease_ms: u64,
    /// How long a lease survives without a heartbeat.
    pub heartbeat_ms: u64,
    /// How long slashed stake and forfeited bonds are held before they are paid out.
    pub hold_ms: u64,
    /// Rejected claims a job survives before its submitter is refunded.
    pub attempts: u32,
    /// Leases without a claim, lost or handed back, after which a job's submitter is refunded.
    pub lease_attempts: u32,
}

/// A set of parameters that the rules cannot work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParametersError {
    /// An amount is negative or above [`Amount::MAX`].
    #[error("{0} must lie between zero and {max} micro-credits", max = Amount::MAX.0)]
    Amount(&'static str),
    /// Fractions of the same whole exceed it.
    #[error("{0} exceed one million parts per million")]
    Fractions(&'static str),
    /// The lost-lease fee could not be paid from the stake that was locked for it.
    #[error("the lost-lease fee exceeds the stake locked with the lease")]
    FeeAboveStake,
    /// A duration or count that must not be zero.
    #[error("{0} must not be zero")]
    Zero(&'static str),
}

impl Default for Parameters {
    /// A stake of forty times a price of 0.01 credits (deterrence at five per cent detection and a fixed
    /// fraction of one half), a bond that covers what a dispute costs, five-minute windows, and a worker's allowance of
    /// twice that: a worker that is never idle can run all of a window's work again in half of it.
    fn default() -> Self {
        Self {
            stake_per_job: Amount(400_000),
            stake_multiple: 40,
            bond: Amount(200_000),
            lost_lease_fee: Amount(1_000),
            fee_ppm: 50_000,
            slash_to_treasury_ppm: 250_000,
            slash_to_submitter_ppm: 250_000,
            opener_refund_cap_ppm: 200_000,
            opener_refund: Amount(20_000),
            forfeit_to_worker_ppm: 500_000,
            window_ms: 300_000,
            worker_allowance_ms: 600_000,
            challenger_allowance_ms: 300_000,
            lease_ms: 120_000,
            heartbeat_ms: 15_000,
            hold_ms: 600_000,
            attempts: 3,
            lease_attempts: 8,
        }
    }
}

impl Parameters {
    /// What a worker locks with a lease on a job of this price; at most the largest amount, which nobody holds.
    #[must_use]
    pub fn stake(&self, price: Amount) -> Amount {
        let multiple = price.0.saturating_mul(self.stake_multiple.into());
        Amount(multiple).max(self.stake_per_job).min(Amount::MAX)
    }

    /// The highest price of a job for which this much is stake enough; none where it is too little for any.
    #[must_use]
    pub fn highest_price(&self, free: Amount) -> Option<Amount> {
        if free < self.stake_per_job {
            return None;
        }
        Some(free.0.checked_div(self.stake_multiple.into()).map_or(Amount::MAX, Amount))
    }

    /// Checks what the ledger and the clocks rely on.
    ///
    /// # Errors
    /// The first rule that a value breaks.
    pub fn validate(&self) -> Result<(), ParametersError> {
        let amounts = [
            (self.stake_per_job, "stake per job"),
            (self.bond, "bond"),
            (self.lost_lease_fee, "lost-lease fee"),
            (self.opener_refund, "opener refund"),
        ];
        if let Some((_, name)) = amounts.iter().find(|(amount, _)| !amount.is_valid()) {
            return Err(ParametersError::Amount(name));
        }
        let fractions = [
            (vec![self.fee_ppm], "the fee"),
            (vec![self.forfeit_to_worker_ppm], "the worker's part of a forfeited bond"),
            (
                vec![self.slash_to_treasury_ppm, self.slash_to_submitter_ppm, self.opener_refund_cap_ppm],
                "the parts of a convicted stake",
            ),
        ];
        for (parts, name) in fractions {
            if parts.iter().map(|&part| u64::from(part)).sum::<u64>() > u64::from(PPM) {
                return Err(ParametersError::Fractions(name));
            }
        }
        if self.lost_lease_fee > self.stake_per_job {
            return Err(ParametersError::FeeAboveStake);
        }
        let durations = [
            (self.window_ms, "the challenge window"),
            (self.worker_allowance_ms, "the worker's allowance"),
            (self.challenger_allowance_ms, "the challenger's allowance"),
            (self.lease_ms, "the lease"),
            (self.heartbeat_ms, "the heartbeat"),
            (u64::from(self.attempts), "the number of attempts"),
            (u64::from(self.lease_attempts), "the number of leases"),
        ];
        match durations.iter().find(|(value, _)| *value == 0) {
            Some((_, name)) => Err(ParametersError::Zero(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Parameters::default().validate(), Ok(()));
    }

    /// Detected once in twenty times, with half of the stake fixed as lost, a false claim must cost more than it earns.
    #[test]
    fn stake_grows_with_the_price_and_funds_answer_for_the_prices_that_they_cover() {
        let p = Parameters::default();
        assert_eq!(p.stake(Amount(1_000)), p.stake_per_job, "the least");
        for price in [Amount(10_001), Amount(246_000), Amount(Amount::MAX.0 / 40)] {
            let stake = p.stake(price);
            assert!(stake.0 / 2 / 20 >= price.0, "{stake} for {price}");
            assert_eq!(p.highest_price(stake), Some(price), "just enough");
            assert!(
                p.highest_price(Amount(stake.0 - 1)).is_some_and(|highest| highest < price),
                "too little"
            );
        }
        assert_eq!(p.stake(Amount::MAX), Amount::MAX);
        assert_eq!(p.highest_price(Amount(p.stake_per_job.0 - 1)), None);
        let flat = Parameters { stake_multiple: 0, ..p };
        assert_eq!(flat.stake(Amount::MAX), flat.stake_per_job);
        assert_eq!(flat.highest_price(flat.stake_per_job), Some(Amount::MAX));
    }

    #[test]
    fn values_that_would_mint_or_stall_are_refused() {
        let broken = |change: fn(&mut Parameters)| {
            let mut parameters = Parameters::default();
            change(&mut parameters);
            parameters.validate().unwrap_err()
        };
        assert_eq!(broken(|p| p.bond = Amount(-1)), ParametersError::Amount("bond"));
        assert_eq!(broken(|p| p.fee_ppm = PPM + 1), ParametersError::Fractions("the fee"));
        assert_eq!(
            broken(|p| p.slash_to_submitter_ppm = 550_001),
            ParametersError::Fractions("the parts of a convicted stake")
        );
        assert_eq!(broken(|p| p.lost_lease_fee = Amount(400_001)), ParametersError::FeeAboveStake);
        assert_eq!(broken(|p| p.window_ms = 0), ParametersError::Zero("the challenge window"));
    }
}
