//! The two clocks of a dispute: one allowance per party, running only on its turn.

use crate::{ids::Role, time::ServiceTime};

/// What both parties have left, and since when the clock of the one on turn has been running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Clock {
    pub(crate) worker_left_ms: u64,
    pub(crate) challenger_left_ms: u64,
    /// The last moment up to which time has been charged.
    pub(crate) since: ServiceTime,
    pub(crate) paused: bool,
}

impl Clock {
    /// What `role` had left at the last charge.
    pub(crate) fn left_at_last_charge(&self, role: Role) -> u64 {
        match role {
            Role::Worker => self.worker_left_ms,
            Role::Challenger => self.challenger_left_ms,
        }
    }

    /// What `role` has left at `now`, if it is on turn.
    pub(crate) fn left_on_turn(&self, role: Role, now: ServiceTime) -> u64 {
        let running = if self.paused { 0 } else { now.since(self.since) };
        self.left_at_last_charge(role).saturating_sub(running)
    }

    /// The first moment at which `role`, being on turn, has nothing left; `None` while clocks stand.
    pub(crate) fn deadline(&self, role: Role) -> Option<ServiceTime> {
        (!self.paused).then(|| self.since.plus(self.left_at_last_charge(role)))
    }

    /// This clock after `role` has used the time up to `now`.
    pub(crate) fn charged(self, role: Role, now: ServiceTime) -> Self {
        let left = self.left_on_turn(role, now);
        let mut clock = Self { since: now, ..self };
        match role {
            Role::Worker => clock.worker_left_ms = left,
            Role::Challenger => clock.challenger_left_ms = left,
        }
        clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock =
        Clock { worker_left_ms: 100, challenger_left_ms: 50, since: ServiceTime(1_000), paused: false };

    #[test]
    fn only_the_party_on_turn_is_charged() {
        let after = CLOCK.charged(Role::Worker, ServiceTime(1_030));
        assert_eq!((after.worker_left_ms, after.challenger_left_ms), (70, 50));
        assert_eq!(after.since, ServiceTime(1_030));
        assert_eq!(after.deadline(Role::Challenger), Some(ServiceTime(1_080)));
    }

    #[test]
    fn a_standing_clock_costs_nothing_and_has_no_deadline() {
        let standing = Clock { paused: true, ..CLOCK };
        assert_eq!(standing.left_on_turn(Role::Worker, ServiceTime(i64::MAX)), 100);
        assert_eq!(standing.deadline(Role::Worker), None);
    }

    #[test]
    fn the_deadline_is_the_first_moment_without_time_left() {
        let deadline = CLOCK.deadline(Role::Worker).unwrap();
        assert_eq!(CLOCK.left_on_turn(Role::Worker, deadline), 0);
        assert_eq!(CLOCK.left_on_turn(Role::Worker, ServiceTime(deadline.0 - 1)), 1);
    }
}
