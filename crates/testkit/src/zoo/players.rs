//! Both sides of disputes over HTTP, from whatever run they have.

use std::sync::Arc;

use gainsay_api::client::ClientError;
use gainsay_api::disputes::DisputeView;
use gainsay_api::leases::Lease;
use gainsay_commitment::{Canonical, ClaimId, DisputeId, SecretKey, Signed, TensorCommitment};
use gainsay_protocol::strategy::{
    ChallengerStep, WorkerStep, challenger_next, first_difference, worker_next,
};
use gainsay_protocol::{Case, Claim, Dispute, Open, SignedMove};

use super::answers::Answer;
use super::stage::Stage;
use crate::{ToyModel, ToyRun, input_of, job_of};

/// A claim on record, with the run that it is defended with.
#[derive(Debug)]
pub struct Claimed {
    /// Its id.
    pub id: ClaimId,
    /// The lease under which it was made.
    pub lease: Lease,
    /// As it was signed.
    pub signed: Signed<Claim>,
    /// What stands behind it.
    pub answer: Answer,
    /// The key of its worker.
    pub worker: SecretKey,
}

/// Who moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The worker.
    Worker,
    /// The challenger.
    Challenger,
}

impl Claimed {
    /// The run as it should have been.
    #[must_use]
    pub fn right_run(&self, model: &Arc<ToyModel>) -> ToyRun {
        ToyRun::new(model, &input_of(&self.lease), |_, _| {})
    }

    /// An opening with this commitment.
    #[must_use]
    pub fn opening(&self, challenger: &SecretKey, layer: u32, commitment: TensorCommitment) -> SignedMove {
        let open = Open { claim: self.id, challenger: challenger.id(), layer, commitment };
        SignedMove::Open(Signed::sign(open, challenger))
    }

    /// What an honest challenger opens; none where the claim is right.
    ///
    /// # Panics
    /// If the claim is about another model.
    #[must_use]
    pub fn honest_opening(&self, model: &Arc<ToyModel>, challenger: &SecretKey) -> Option<SignedMove> {
        let own = self.right_run(model).layers();
        let layer = first_difference(&self.signed.body, &own).expect("it is about this model")?;
        Some(self.opening(challenger, layer, own[layer as usize]))
    }
}

impl Stage {
    /// Opens a dispute.
    ///
    /// # Errors
    /// The coordinator refuses.
    pub async fn open(
        &self,
        challenger: &SecretKey,
        opening: &SignedMove,
    ) -> Result<DisputeView, ClientError> {
        self.client.open_dispute(challenger, opening.to_bytes()).await
    }

    /// Opens the dispute that an honest challenger opens.
    ///
    /// # Panics
    /// If the claim is right, or the dispute is refused.
    pub async fn object(&self, claimed: &Claimed, challenger: &SecretKey) -> DisputeView {
        let opening = claimed.honest_opening(&self.model, challenger).expect("the claim is false");
        self.open(challenger, &opening).await.expect("a dispute opens")
    }

    /// A dispute as it stands.
    ///
    /// # Panics
    /// If it is unknown.
    pub async fn dispute(&self, id: DisputeId) -> DisputeView {
        self.client.dispute(id).await.expect("a dispute is public")
    }

    /// The next move by whoever is on turn; none where nobody has one.
    ///
    /// # Panics
    /// If the dispute does not decode.
    pub fn next_move(
        &self,
        claimed: &mut Claimed,
        view: &DisputeView,
        challenger: &SecretKey,
    ) -> Option<(Side, SignedMove)> {
        let mut own = claimed.right_run(&self.model);
        let job = job_of(&claimed.lease);
        let case =
            Case::new(&self.model.toy.model, &job, &claimed.signed.body).expect("they belong together");
        let dispute = Dispute::from_bytes(&view.encoded.0).expect("the fold decodes");
        match worker_next(&dispute, &case, &mut *claimed.answer.run) {
            Ok(WorkerStep::Reveal(reveal)) => {
                return Some((Side::Worker, SignedMove::Reveal(Signed::sign(reveal, &claimed.worker))));
            }
            Ok(WorkerStep::Over(_)) | Err(_) => return None,
            Ok(WorkerStep::Wait) => {}
        }
        match challenger_next(&dispute, &case, &mut own) {
            Ok(ChallengerStep::Choose(choice)) => {
                Some((Side::Challenger, SignedMove::Choice(Signed::sign(choice, challenger))))
            }
            _ => None,
        }
    }

    /// Sends a move.
    ///
    /// # Errors
    /// The coordinator refuses it.
    pub async fn play_move(
        &self,
        key: &SecretKey,
        dispute: DisputeId,
        made: &SignedMove,
    ) -> Result<DisputeView, ClientError> {
        self.client.post_move(key, dispute, made.to_bytes()).await
    }

    /// Sends the next move, which is refused; with which code.
    ///
    /// # Panics
    /// If there is none, or it is taken.
    pub async fn play_refused(
        &self,
        claimed: &mut Claimed,
        view: &DisputeView,
        key: &SecretKey,
    ) -> gainsay_api::ErrorCode {
        let (_, made) = self.next_move(claimed, view, key).expect("there is a move");
        let refused = self.play_move(key, view.summary.id, &made).await.expect_err("it is refused");
        refused.code().expect("with a code")
    }

    /// Plays a dispute by both sides' strategies until it has ended or nobody has a move.
    ///
    /// # Panics
    /// If a move is refused, or there is no end.
    pub async fn play(
        &self,
        claimed: &mut Claimed,
        opened: DisputeView,
        challenger: &SecretKey,
    ) -> DisputeView {
        let mut view = opened;
        for _ in 0..100 {
            let Some((side, made)) = self.next_move(claimed, &view, challenger) else { return view };
            let key = match side {
                Side::Worker => claimed.worker.clone(),
                Side::Challenger => challenger.clone(),
            };
            view = self.play_move(&key, view.summary.id, &made).await.expect("a legal move");
        }
        panic!("the dispute does not end");
    }
}
