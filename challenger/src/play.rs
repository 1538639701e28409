//! Making the challenger's moves.

use crate::{Challenger, ChallengerError, Seat};
use gainsay_api::disputes::{DisputeSummary, Side};
use gainsay_api::events::EventKind;
use gainsay_commitment::PartyId;
use gainsay_participant::dossier::Dossier;
use gainsay_participant::news::{News, follow};
use gainsay_participant::player::Hand;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Plays every dispute of this challenger until stopped, those of a former run included.
pub(crate) async fn play(challenger: Arc<Challenger>, stop: CancellationToken) {
    let Some(seat) = &challenger.player else { return };
    let me = seat.key.id();
    let wanted = move |event: &EventKind| concerns(event, me);
    let mut news = follow(&challenger.client, wanted, challenger.config.party.look_every, stop.clone());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = challenger.opened.notified() => {}
            piece = news.recv() => {
                let Some(piece) = piece else { return };
                challenger.note(&piece);
            }
        }
        // What has piled up is answered by one look.
        while let Ok(piece) = news.try_recv() {
            challenger.note(&piece);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = challenger.look(seat) => {}
        }
    }
}

fn concerns(event: &EventKind, me: PartyId) -> bool {
    match event {
        EventKind::DisputeMoved { turn, .. } => *turn == Some(Side::Challenger),
        EventKind::DisputeOpened { challenger, .. } | EventKind::DisputeDecided { challenger, .. } => {
            challenger.id == me
        }
        _ => false,
    }
}

impl Challenger {
    fn note(&self, news: &News) {
        let News::Event(event) = news else { return };
        if let EventKind::DisputeDecided { dispute, decision, .. } = &**event {
            self.tally.decided(*dispute, decision.verdict);
            self.tally.tell();
        }
    }

    async fn look(&self, seat: &Seat) {
        match seat.player.on_turn().await {
            Ok(disputes) => {
                for dispute in disputes {
                    match self.play_one(seat, &dispute).await {
                        Err(error) if !error.is_transient() => {
                            tracing::warn!(dispute = %dispute.id, claim = %dispute.claim, %error, "no move in a dispute");
                        }
                        _ => {}
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "disputes cannot be listed"),
        }
    }

    async fn play_one(&self, seat: &Seat, dispute: &DisputeSummary) -> Result<(), ChallengerError> {
        let held = self.hands.lock().expect("no holder of the hands panics").get(dispute.claim);
        let hand = match held {
            Some(hand) => hand,
            None => {
                let (dossier, _) = Dossier::fetch(&self.client, &self.models, dispute.claim).await?;
                let hand = Hand::honest(dossier);
                self.hands.lock().expect("no holder of the hands panics").put(hand.clone());
                hand
            }
        };
        let played = seat.player.play(&hand, dispute.id).await?;
        self.tally.moves.add(played.moves.into());
        if let Some(verdict) = played.verdict {
            self.tally.decided(dispute.id, verdict);
        }
        self.tally.tell();
        Ok(())
    }
}
