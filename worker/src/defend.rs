//! Answering disputes, and noticing decisions.

use crate::records::Record;
use crate::{Worker, WorkerError};
use gainsay_api::claims::ClaimState;
use gainsay_api::disputes::Side;
use gainsay_api::error::ErrorCode;
use gainsay_api::events::EventKind;
use gainsay_commitment::{Canonical, ClaimId, PartyId, Signed};
use gainsay_participant::ParticipantError;
use gainsay_participant::dossier::Dossier;
use gainsay_participant::news::{News, follow};
use gainsay_participant::player::{Hand, Hands, Player};
use gainsay_participant::trace::EngineTrace;
use gainsay_protocol::{Claim, Job};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often all open claims are looked up, for decisions whose events were missed.
const SETTLE_EVERY: Duration = Duration::from_secs(60);

/// Defends until stopped.
pub(crate) async fn defend(worker: Arc<Worker>, stop: CancellationToken) {
    let me = worker.identity.id();
    let wanted = move |event: &EventKind| concerns(event, me);
    let mut news = follow(&worker.client, wanted, worker.config.party.look_every, stop.clone());
    let player = Player::new(worker.client.clone(), worker.identity.key.clone(), Side::Worker);
    let hands = Arc::<Mutex<Hands>>::default();
    Hands::let_go_when_short(&hands, &worker.models);
    let mut defender = Defender { worker, player, hands, settled: None };
    while let Some(first) = news.recv().await {
        let mut decided = Vec::new();
        let mut next = Some(first);
        // What has piled up is answered by one look.
        while let Some(piece) = next {
            decided.extend(decided_claim(&piece));
            next = news.try_recv().ok();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = defender.look(decided) => {}
        }
    }
}

/// Whether an event may call for an answer by `me`, or tells of a decision about it.
fn concerns(event: &EventKind, me: PartyId) -> bool {
    match event {
        EventKind::DisputeMoved { turn, .. } => *turn == Some(Side::Worker),
        EventKind::DisputeOpened { worker, .. }
        | EventKind::ClaimFinalized { worker, .. }
        | EventKind::ClaimRejected { worker, .. }
        | EventKind::DisputeDecided { worker, .. } => worker.id == me,
        _ => false,
    }
}

fn decided_claim(news: &News) -> Option<ClaimId> {
    let News::Event(event) = news else { return None };
    match **event {
        EventKind::ClaimFinalized { claim, .. } | EventKind::ClaimRejected { claim, .. } => Some(claim),
        _ => None,
    }
}

struct Defender {
    worker: Arc<Worker>,
    player: Player,
    hands: Arc<Mutex<Hands>>,
    /// When all open claims were last looked up.
    settled: Option<Instant>,
}

impl Defender {
    async fn look(&mut self, decided: Vec<ClaimId>) {
        match self.player.on_turn().await {
            Ok(disputes) => {
                for dispute in disputes {
                    match self.answer(dispute.claim, dispute.id).await {
                        Err(error) if !error.is_transient() => {
                            tracing::warn!(dispute = %dispute.id, claim = %dispute.claim, %error, "no answer in a dispute");
                        }
                        _ => {}
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "disputes cannot be listed"),
        }
        for claim in decided {
            if let Some(record) = self.worker.records.of_claim(claim) {
                self.settle(&record, claim).await;
            }
        }
        if self.settled.is_none_or(|settled| settled.elapsed() >= SETTLE_EVERY) {
            self.settled = Some(Instant::now());
            for record in self.worker.records.all() {
                if let Some(claim) = record.claim.as_ref().map(|claim| claim.id) {
                    self.settle(&record, claim).await;
                }
            }
        }
    }

    async fn answer(
        &mut self,
        claim: ClaimId,
        dispute: gainsay_commitment::DisputeId,
    ) -> Result<(), WorkerError> {
        let record = self.worker.records.of_claim(claim);
        if record.as_ref().and_then(|record| record.claim.as_ref()).is_some_and(|claim| claim.silent) {
            tracing::warn!(%dispute, %claim, "keeping silent in a dispute");
            return Ok(());
        }
        let held = self.hands.lock().expect("no holder of the hands panics").get(claim);
        let hand = match held {
            Some(hand) => hand,
            None => {
                let hand = self.hand(claim, record).await?;
                self.hands.lock().expect("no holder of the hands panics").put(hand.clone());
                hand
            }
        };
        let played = self.player.play(&hand, dispute).await?;
        self.worker.tally.moves.add(played.moves.into());
        self.worker.tally.tell();
        Ok(())
    }

    /// The run behind a claim: as it is on record, or, where the record is lost, honest.
    async fn hand(&self, claim: ClaimId, record: Option<Record>) -> Result<Arc<Hand>, WorkerError> {
        let Some((record, kept)) = record.and_then(|record| record.claim.clone().map(|kept| (record, kept)))
        else {
            let (dossier, _) = Dossier::fetch(&self.worker.client, &self.worker.models, claim).await?;
            return Ok(Hand::honest(dossier));
        };
        let unreadable = |error: gainsay_commitment::DecodeError| ParticipantError::Claim {
            claim,
            reason: format!("the worker's own record cannot be read: {error}"),
        };
        let signed = Signed::<Claim>::from_bytes(&kept.signed.0).map_err(unreadable)?;
        let job = Job::from_bytes(&record.job.0).map_err(unreadable)?;
        let model = self.worker.models.get(record.model).await?;
        let (worker, divergence) = (self.worker.clone(), kept.divergence);
        let equipped = tokio::task::spawn_blocking({
            let model = model.clone();
            move || worker.liar.equip(&model, divergence.as_ref())
        });
        let (equipped, fault) = equipped
            .await
            .expect("loading a model does not panic")
            .map_err(|source| ParticipantError::Load { model: record.model, source: Box::new(source) })?;
        let dossier = Dossier::new(model, job, signed.body)?;
        let input = match kept.divergence.as_ref().zip(dossier.job.generation_request()) {
            Some((divergence, request)) => {
                dossier.input().with_sampling(divergence.sampling(&request.sampling))
            }
            None => dossier.input().clone(),
        };
        let trace = EngineTrace::new(equipped, input, fault);
        Ok(Hand::new(dossier, trace))
    }

    /// Forgets a claim that is decided.
    async fn settle(&self, record: &Record, claim: ClaimId) {
        let state = match self.worker.client.claim(claim).await {
            Ok(view) => view.summary.state,
            // Not posted yet: the working task is about to.
            Err(error) if error.is(ErrorCode::UnknownClaim) => return,
            Err(error) => {
                tracing::debug!(%claim, %error, "the claim cannot be looked up");
                return;
            }
        };
        match state {
            ClaimState::Open => return,
            ClaimState::Finalized => self.worker.tally.finalized.add(1),
            ClaimState::Rejected => self.worker.tally.rejected.add(1),
            // Neither earned nor lost: the stake is back.
            ClaimState::Voided => 0,
        };
        self.worker.tally.tell();
        tracing::info!(%claim, job = %record.job_id, ?state, "decided");
        self.worker.records.forget(record.lease);
    }
}
