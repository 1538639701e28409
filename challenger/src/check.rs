//! Running claims again, and disputing those that are false.

use crate::lanes::{Lanes, Sighting};
use crate::{Challenger, ChallengerError, Mode};
use gainsay_api::claims::{ClaimState, ClaimView};
use gainsay_api::error::ErrorCode;
use gainsay_commitment::{ClaimId, ModelId, Signed, TensorCommitment};
use gainsay_engine::{RunError, Trace};
use gainsay_participant::dossier::Dossier;
use gainsay_participant::player::Hand;
use gainsay_protocol::strategy::{first_difference, rehearse};
use gainsay_protocol::{Open, SignedMove};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Pause after the coordinator did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Claims that may wait for their model, and that may wait for another look; what is beyond can only come of a
/// coordinator that answers nothing for long.
const WAITING_MAX: usize = 10_000;

/// Batches under way at once. Most of them wait for a download; the runs themselves take turns.
const BATCHES: usize = 64;

/// Checks claims from the queue until stopped. What could not be checked yet comes again after a pause, beside what is
/// new: the queue may be full, and must neither lose a claim nor be kept waiting by one. Nor does a model that is being
/// fetched keep the claims on others waiting.
pub(crate) async fn check(
    challenger: Arc<Challenger>,
    mut queue: mpsc::Receiver<Sighting>,
    stop: CancellationToken,
) {
    let batch = challenger.config.batch.max(1);
    let mut lanes = Lanes::default();
    let mut under_way = JoinSet::new();
    let mut batches = HashMap::new();
    let mut postponed = VecDeque::new();
    let mut pause = tokio::time::interval(PAUSE);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while under_way.len() < BATCHES
            && let Some((model, claims)) = lanes.next(batch)
        {
            let task = under_way.spawn(challenger.clone().check_all(claims.clone()));
            batches.insert(task.id(), (model, claims));
        }
        let mut new = Vec::new();
        tokio::select! {
            () = stop.cancelled() => return,
            taken = queue.recv_many(&mut new, batch), if lanes.len() < WAITING_MAX => if taken == 0 { return },
            Some(done) = under_way.join_next_with_id() => {
                let (id, again) = done.map_or_else(|panic| (panic.id(), None), |(id, again)| (id, Some(again)));
                let Some((model, claims)) = batches.remove(&id) else { continue };
                lanes.done(model);
                match again {
                    Some(again) => {
                        let again = claims.into_iter().filter(|sighting| again.contains(&sighting.claim));
                        postponed.extend(again.map(Sighting::put_behind));
                    }
                    None => challenger.let_go(&claims, "checking them has panicked"),
                }
            }
            _ = pause.tick(), if !postponed.is_empty() => new.extend(postponed.drain(..)),
        }
        new.into_iter().for_each(|sighting| lanes.push(sighting));
        let beyond: Vec<_> = postponed.drain(postponed.len().min(WAITING_MAX)..).collect();
        challenger.let_go(&beyond, "too many claims cannot be checked");
    }
}

impl Challenger {
    /// Gives claims up that were not checked.
    fn let_go(&self, claims: &[Sighting], why: &str) {
        for Sighting { claim, .. } in claims {
            tracing::error!(%claim, why, "a claim is let go unchecked");
        }
        self.tally.unchecked.add(claims.len() as u64);
        self.tally.tell();
    }

    /// Checks claims that are said to be on one model; answers those that could not be checked yet. Whatever is wrong with
    /// one of them is told of that one, and the others are checked.
    async fn check_all(self: Arc<Self>, claims: Vec<Sighting>) -> Vec<ClaimId> {
        let mut again = Vec::new();
        let mut by_model = BTreeMap::<ModelId, Vec<Dossier>>::new();
        for Sighting { claim, .. } in claims {
            match self.fetch(claim).await {
                Ok((dossier, view)) if self.can_be_disputed(&view).await => {
                    by_model.entry(dossier.claim.model).or_default().push(dossier);
                }
                Ok(_) => {
                    tracing::debug!(%claim, "decided or closed before it was checked");
                    self.tally.unchecked.add(1);
                }
                Err(error) => self.postpone(claim, &error, &mut again),
            }
        }
        for dossiers in by_model.into_values() {
            let _turn = self.runs.acquire().await.expect("the turns are never closed");
            self.compare(dossiers, &mut again).await;
        }
        self.tally.tell();
        again
    }

    /// A claim with all that belongs to it. Claims are strangers': one that has own code panic is refused.
    async fn fetch(self: &Arc<Self>, claim: ClaimId) -> Result<(Dossier, ClaimView), ChallengerError> {
        let challenger = self.clone();
        let fetched =
            tokio::spawn(async move { Dossier::fetch(&challenger.client, &challenger.models, claim).await });
        fetched.await.map_err(|_| ChallengerError::Panicked("reading a claim"))?
    }

    /// Whether there is any use in running a claim again.
    async fn can_be_disputed(&self, view: &ClaimView) -> bool {
        let closes = view.summary.window_closes_at_ms;
        if view.summary.state != ClaimState::Open {
            return false;
        }
        if closes > self.client.service_time_ms() {
            return true;
        }
        // The estimate may run ahead. Where the coordinator does not answer, it will judge.
        self.client.info().await.map_or(true, |info| closes > info.service_time_ms)
    }

    /// Runs the jobs of claims on one model together, and acts on what differs.
    async fn compare(&self, dossiers: Vec<Dossier>, again: &mut Vec<ClaimId>) {
        for (dossier, trace) in run_again(dossiers).await {
            let (claim, worker) = (dossier.id(), dossier.claim.worker);
            let trace = match trace {
                Ok(trace) => trace,
                Err(error) => {
                    tracing::error!(%claim, %error, "the claim cannot be run again");
                    self.tally.unchecked.add(1);
                    continue;
                }
            };
            match first_difference(&dossier.claim, &trace.layers) {
                Ok(None) => {
                    tracing::info!(%claim, "the claim is right");
                    self.tally.agreed.add(1);
                }
                Ok(Some(layer)) => {
                    tracing::warn!(%claim, %worker, layer, "the claim is false");
                    let own = trace.layers[layer as usize];
                    if let Err(error) = self.object(dossier, layer, own).await {
                        if error.is_transient() {
                            self.postpone(claim, &error, again);
                            continue;
                        }
                        tracing::error!(%claim, layer, %error, "a false claim is not disputed");
                        self.tally.passed_over.add(1);
                    }
                    self.tally.differed.add(1);
                }
                Err(error) => {
                    tracing::error!(%claim, %error, "the claim cannot be compared");
                    self.tally.unchecked.add(1);
                }
            }
        }
    }

    /// Disputes a false claim, once the referee has confirmed the own run where the dispute will lead.
    async fn object(
        &self,
        dossier: Dossier,
        layer: u32,
        own: TensorCommitment,
    ) -> Result<(), ChallengerError> {
        let Some(seat) = self.player.as_ref().filter(|_| self.config.mode == Mode::Challenge) else {
            return Ok(());
        };
        let claim = dossier.id();
        let hand = Hand::honest(dossier);
        let rehearsed = hand.compute(move |dossier, trace| rehearse(&dossier.case(), layer, trace)).await?;
        let rehearsal =
            rehearsed.map_err(|source| ChallengerError::Rehearsal { claim, source: Box::new(source) })?;
        tracing::info!(
            %claim, layer, elements = rehearsal.elements, max_witness_bytes = rehearsal.max_witness_bytes,
            "the referee confirms the own run"
        );
        let open = Open { claim, challenger: seat.key.id(), layer, commitment: own };
        let id = open.id();
        let signed = SignedMove::from(Signed::sign(open, &seat.key));
        match self.client.open_dispute(&seat.key, signed.to_bytes()).await {
            Ok(view) => {
                tracing::info!(dispute = %view.summary.id, %claim, layer, "opened a dispute");
                self.tally.opened.add(1);
            }
            // A former run of this challenger opened it.
            Err(error) if error.is(ErrorCode::DuplicateDispute) => {
                tracing::info!(dispute = %id, %claim, "the dispute is open already");
            }
            Err(error) => return Err(error.into()),
        }
        self.hands.lock().expect("no holder of the hands panics").put(hand);
        self.opened.notify_one();
        Ok(())
    }

    /// Puts a claim back after a failure that may pass; lets go of it after any other.
    fn postpone(&self, claim: ClaimId, error: &ChallengerError, again: &mut Vec<ClaimId>) {
        if error.is_transient() {
            tracing::debug!(%claim, %error, "a claim cannot be checked yet");
            again.push(claim);
            return;
        }
        tracing::error!(%claim, %error, "a claim cannot be checked");
        self.tally.unchecked.add(1);
    }
}

/// The claims with what their jobs on this one model give here.
async fn run_again(dossiers: Vec<Dossier>) -> Vec<(Dossier, Result<Trace, RunError>)> {
    let Some(model) = dossiers.first().map(|dossier| dossier.model.clone()) else { return Vec::new() };
    let jobs: Vec<_> = dossiers.iter().map(|dossier| dossier.input().clone()).collect();
    let run = tokio::task::spawn_blocking(move || model.engine().run_each(&jobs));
    let traces = run.await.expect("the engine contains its panics");
    dossiers.into_iter().zip(traces).collect()
}
