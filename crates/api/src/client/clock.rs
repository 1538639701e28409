//! An estimate of service time between two answers of the coordinator.

use std::sync::Mutex;
use std::time::Instant;

/// Service time, extrapolated by the machine's monotonic clock from the last reading.
///
/// Service time never runs faster than real time and stands still in an outage, so the estimate can only run ahead; a
/// request that is refused as stale makes the client read it anew.
pub(super) struct ServiceClock {
    last: Mutex<(i64, Instant)>,
}

impl ServiceClock {
    pub(super) fn starting_at(service_time_ms: i64) -> Self {
        Self { last: Mutex::new((service_time_ms, Instant::now())) }
    }

    pub(super) fn now_ms(&self) -> i64 {
        let (read, at) = *self.last.lock().expect("no holder of the clock panics");
        read.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    pub(super) fn set(&self, service_time_ms: i64) {
        *self.last.lock().expect("no holder of the clock panics") = (service_time_ms, Instant::now());
    }
}
