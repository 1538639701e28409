//! Idempotent tasks without input, on a timer and on signal: leases, clocks, finalization, payouts.
