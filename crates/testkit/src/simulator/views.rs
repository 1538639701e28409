//! What parties are shown.

use gainsay_commitment::PartyId;
use gainsay_protocol::lifecycle::ClaimState;
use gainsay_protocol::{Case, Dispute, LeaseId, Role};

use super::network::{OpenClaim, View};
use super::service::Service;

impl Service<'_> {
    pub(super) fn case(&self, claim: usize) -> Case<'_> {
        let record = &self.claims[claim];
        let puzzle = self.pool.puzzle(record.puzzle);
        Case::new(puzzle.model(), puzzle.job(), &record.signed.body).expect("a claim on record fits its job")
    }

    /// The lease under which a claim was made.
    pub(super) fn lease_of(&self, claim: usize) -> LeaseId {
        self.claims[claim].signed.body.lease
    }

    /// Whether there is anything for a party to do in a dispute.
    pub(super) fn is_on_turn(&self, party: PartyId) -> bool {
        self.disputes.iter().any(|record| mover(&record.dispute) == Some(party))
    }

    /// What a party that looks is shown.
    pub(super) fn view(&self, party: PartyId, with_claims: bool) -> View {
        let on_turn = self.disputes.iter().filter(|record| mover(&record.dispute) == Some(party));
        let disputes = on_turn.map(|record| (record.claim, record.dispute.clone())).collect();
        let mut claims = Vec::new();
        if with_claims {
            claims.extend((0..self.claims.len()).filter_map(|claim| self.open_claim(claim, party)));
        }
        View { claims, disputes, now: self.now }
    }

    pub(super) fn open_claim(&self, claim: usize, party: PartyId) -> Option<OpenClaim> {
        let record = &self.claims[claim];
        if record.state != ClaimState::Pending || self.now >= record.closes {
            return None;
        }
        let undecided = || {
            let on_claim = self.disputes.iter().filter(|record| record.claim == claim);
            on_claim.filter(|record| record.dispute.outcome().is_none())
        };
        let mine = undecided().any(|record| record.dispute.challenger() == party);
        let disputed = undecided().next().is_some();
        Some(OpenClaim { claim, id: record.id, closes: record.closes, mine, disputed })
    }
}

/// Who has to move.
fn mover(dispute: &Dispute) -> Option<PartyId> {
    match dispute.turn()? {
        Role::Worker => Some(dispute.worker()),
        Role::Challenger => Some(dispute.challenger()),
    }
}
