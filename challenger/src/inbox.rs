//! Learning of claims, and drawing which of them to check.

use crate::lanes::Sighting;
use crate::{Challenger, SampleRate};
use gainsay_api::claims::{ClaimFilter, ClaimState};
use gainsay_api::client::ClientError;
use gainsay_api::disputes::{DisputeFilter, DisputeState};
use gainsay_api::events::EventKind;
use gainsay_commitment::{ClaimId, SecretKey, tensor::tensor_commitment};
use gainsay_participant::news::{News, follow};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long after its window has closed a claim is still remembered as seen.
const REMEMBERED_MS: i64 = 600_000;

/// Draws which claims are checked.
///
/// A worker that could foresee the draw would cheat on the rest; so it depends on a secret. Under a key it is the same
/// after a restart, which gives nobody a second chance.
pub(crate) struct Sampler {
    rate: SampleRate,
    secret: [u8; 32],
}

impl Sampler {
    pub(crate) fn new(rate: SampleRate, key: Option<&SecretKey>) -> Self {
        let secret = match key {
            Some(key) => {
                tensor_commitment(&[b"gainsay sample of claims", key.expose().as_slice()].concat()).to_bytes()
            }
            None => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).expect("the operating system provides random bytes");
                secret
            }
        };
        Self { rate, secret }
    }

    fn takes(&self, claim: ClaimId) -> bool {
        let hash = tensor_commitment(&[self.secret, claim.to_bytes()].concat());
        let draw = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
        self.rate.takes(u64::from_le_bytes(*draw))
    }
}

/// Passes claims on to be checked, each once: by event as they come, and by listing what is open, at first and now and
/// then.
pub(crate) async fn watch(
    challenger: Arc<Challenger>,
    sampler: Sampler,
    queue: mpsc::Sender<Sighting>,
    stop: CancellationToken,
) {
    let wanted = |event: &EventKind| matches!(event, EventKind::JobClaimed { .. });
    let mut news = follow(&challenger.client, wanted, challenger.config.party.look_every, stop.clone());
    let mut inbox = Inbox { challenger, sampler, queue, seen: HashMap::new() };
    // None where a listing is due at the next look.
    let mut listed: Option<Instant> = None;
    let every = inbox.challenger.config.list_every;
    while let Some(piece) = news.recv().await {
        match piece {
            News::Event(event) => {
                if let EventKind::JobClaimed { claim, model, window_closes_at_ms, .. } = *event {
                    inbox.take(Sighting { due_ms: window_closes_at_ms, claim, model });
                }
            }
            News::Look if listed.is_some_and(|listed| listed.elapsed() < every) => {}
            News::Look | News::Missed => {
                let done = tokio::select! {
                    () = stop.cancelled() => return,
                    done = inbox.list() => done,
                };
                match done {
                    Ok(()) => listed = Some(Instant::now()),
                    Err(error) => {
                        tracing::debug!(%error, "open claims cannot be listed");
                        listed = None;
                    }
                }
            }
        }
    }
}

struct Inbox {
    challenger: Arc<Challenger>,
    sampler: Sampler,
    queue: mpsc::Sender<Sighting>,
    /// Claims drawn or passed over, with the closing time of their windows.
    seen: HashMap<ClaimId, i64>,
}

impl Inbox {
    fn take(&mut self, sighting: Sighting) {
        let Sighting { claim, due_ms: window_closes_at_ms, .. } = sighting;
        if self.seen.contains_key(&claim) {
            return;
        }
        if self.sampler.takes(claim) && self.queue.try_send(sighting).is_err() {
            tracing::warn!(%claim, "too many claims wait to be checked; this one is left for the next listing");
            return;
        }
        self.seen.insert(claim, window_closes_at_ms);
    }

    async fn list(&mut self) -> Result<(), ClientError> {
        let client = self.challenger.client.clone();
        let now = client.service_time_ms();
        self.seen.retain(|_, closes| closes.saturating_add(REMEMBERED_MS) > now);
        let disputed = self.disputed().await?;
        let mut filter = ClaimFilter { state: Some(ClaimState::Open), ..ClaimFilter::default() };
        loop {
            let page = client.claims(&filter).await?;
            filter.after = page.claims.last().map(|claim| claim.id);
            for claim in page.claims {
                if disputed.contains(&claim.id) {
                    self.seen.insert(claim.id, claim.window_closes_at_ms);
                } else {
                    let due_ms = claim.window_closes_at_ms;
                    self.take(Sighting { due_ms, claim: claim.id, model: claim.model });
                }
            }
            if !page.more || filter.after.is_none() {
                return Ok(());
            }
        }
    }

    /// Claims that this challenger disputes already, if only in a former run. To check them once more would keep it
    /// from those whose windows are about to close.
    async fn disputed(&self) -> Result<HashSet<ClaimId>, ClientError> {
        let Some(seat) = &self.challenger.player else { return Ok(HashSet::new()) };
        let mut disputed = HashSet::new();
        let mut filter = DisputeFilter {
            state: Some(DisputeState::Open),
            party: Some(seat.key.id()),
            ..DisputeFilter::default()
        };
        loop {
            let page = self.challenger.client.disputes(&filter).await?;
            filter.after = page.disputes.last().map(|dispute| dispute.id);
            disputed.extend(page.disputes.into_iter().map(|dispute| dispute.claim));
            if !page.more || filter.after.is_none() {
                return Ok(disputed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_draw_is_the_same_for_a_key_and_another_for_another() {
        let claims: Vec<ClaimId> = (0..200_u8).map(|byte| ClaimId::from_bytes([byte; 32])).collect();
        let drawn = |seed: u8| -> Vec<bool> {
            let sampler =
                Sampler::new(SampleRate::new(0.5).unwrap(), Some(&SecretKey::from_bytes(&[seed; 32])));
            claims.iter().map(|claim| sampler.takes(*claim)).collect()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        let taken = drawn(1).into_iter().filter(|taken| *taken).count();
        assert!((60..140).contains(&taken), "{taken} of 200 at a rate of one half");
    }
}
