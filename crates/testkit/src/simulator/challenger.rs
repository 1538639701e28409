//! Challengers, honest and not. They keep nothing but their key.

use std::collections::BTreeMap;
use std::sync::Arc;

use gainsay_commitment::{DisputeId, PartyId};
use gainsay_protocol::strategy::first_difference;
use gainsay_protocol::toy::{
    ChallengerTwist, Credentials, HonestChallenger, Play, Player, Random, TwistedChallenger,
};
use gainsay_protocol::{Authentic, Dispute, Open};

use super::network::{OpenClaim, Request, View};
use super::service::Service;
use super::world::Out;

/// What a challenger disputes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opens {
    /// What differs from its own run, where it differs first.
    WhatIsFalse,
    /// What is false, in the last moment of the window, or just after it.
    LastMoment,
    /// What is false, once somebody else has disputed it.
    AfterOthers,
    /// Anything, with commitments out of the air.
    Anything,
    /// The claims of its confederate alone, and without a case.
    Shams(PartyId),
    /// The false claims of its confederate, before anybody else.
    Confederate(PartyId),
}

/// How it plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plays {
    Honestly,
    LastSecond,
    Silently,
    Twisted(ChallengerTwist),
}

#[derive(Debug)]
pub(super) struct Challenger {
    pub(super) opens: Opens,
    pub(super) plays: Plays,
    pub(super) check_ms: u64,
    /// In memory: claims that it knows, with the moment at which it has checked them.
    known: BTreeMap<usize, u64>,
    asked: BTreeMap<DisputeId, u32>,
}

impl Challenger {
    pub(super) fn new(opens: Opens, plays: Plays, check_ms: u64) -> Self {
        Self { opens, plays, check_ms, known: BTreeMap::new(), asked: BTreeMap::new() }
    }

    pub(super) fn crash(&mut self) {
        self.known.clear();
        self.asked.clear();
    }

    /// Whether a look around would find anything to do.
    pub(super) fn wants(&self, me: PartyId, service: &Service<'_>) -> bool {
        let plays = self.plays != Plays::Silently && service.is_on_turn(me);
        plays || (0..service.claims.len()).any(|claim| self.wants_claim(me, claim, service))
    }

    fn wants_claim(&self, me: PartyId, claim: usize, service: &Service<'_>) -> bool {
        let known = self.known.contains_key(&claim);
        let once = !matches!(self.opens, Opens::WhatIsFalse | Opens::AfterOthers);
        if known && once {
            return false;
        }
        let Some(open) = service.open_claim(claim, me) else { return false };
        if self.opens == Opens::AfterOthers && !open.disputed {
            return false;
        }
        !known || (!open.mine && difference(service, claim).is_some())
    }

    /// What it does with what it is shown.
    pub(super) fn act(
        &mut self,
        me: PartyId,
        view: &View,
        real: u64,
        service: &Service<'_>,
        random: &mut Random,
    ) -> Vec<Out> {
        let mut out = Vec::new();
        for open in &view.claims {
            out.extend(self.consider(me, open, view, real, service, random));
        }
        for (claim, dispute) in &view.disputes {
            out.extend(self.play(me, *claim, dispute, view, service, random));
        }
        out
    }

    fn consider(
        &mut self,
        me: PartyId,
        open: &OpenClaim,
        view: &View,
        real: u64,
        service: &Service<'_>,
        random: &mut Random,
    ) -> Option<Out> {
        let first_sight = !self.known.contains_key(&open.claim);
        let checked = *self.known.entry(open.claim).or_insert(real + self.check_ms);
        let worker = service.claims[open.claim].signed.body.worker;
        let difference = difference(service, open.claim);
        let right =
            |layer: u32| service.pool.puzzle(service.claims[open.claim].puzzle).layers()[layer as usize];
        let dispute =
            |layer, commitment| Request::Open(Open { claim: open.id, challenger: me, layer, commitment });
        match self.opens {
            Opens::WhatIsFalse if real >= checked && !open.mine => {
                difference.map(|layer| Out::Send(dispute(layer, right(layer))))
            }
            Opens::AfterOthers if open.disputed && !open.mine => {
                difference.map(|layer| Out::SendAfter(1, dispute(layer, right(layer))))
            }
            Opens::LastMoment if first_sight => {
                let delay = (open.closes.since(view.now) + 500).saturating_sub(random.below(2_500));
                difference.map(|layer| Out::SendAfter(delay, dispute(layer, right(layer))))
            }
            Opens::Confederate(with) if first_sight && worker == with => {
                difference.map(|layer| Out::SendAfter(1, dispute(layer, right(layer))))
            }
            Opens::Shams(with) if first_sight && worker == with => {
                let layer = difference.unwrap_or(0);
                Some(Out::SendAfter(1, dispute(layer, random.bytes().into())))
            }
            Opens::Anything if first_sight && random.happens(60) => {
                let layers = service.claims[open.claim].signed.body.layers.len() as u64;
                Some(Out::Send(dispute(random.below(layers + 1) as u32, random.bytes().into())))
            }
            _ => None,
        }
    }

    fn play(
        &mut self,
        me: PartyId,
        claim: usize,
        dispute: &Dispute,
        view: &View,
        service: &Service<'_>,
        random: &mut Random,
    ) -> Option<Out> {
        let credentials = Credentials::Name(me);
        let trace = service.pool.puzzle(service.claims[claim].puzzle).right_run().clone();
        let case = service.case(claim);
        let play = match self.plays {
            Plays::Silently => return None,
            Plays::Honestly | Plays::LastSecond => {
                HonestChallenger { credentials, trace }.play(dispute, &case, random)
            }
            Plays::Twisted(twist) => {
                let asked = self.asked.entry(dispute.id()).or_default();
                let mut twisted = TwistedChallenger { credentials, trace, twist, asked: *asked };
                let play = twisted.play(dispute, &case, random);
                *asked = twisted.asked;
                play
            }
        };
        let Play::Move(made, delay) = play else { return None };
        let left = dispute.deadline().map_or(0, |deadline| deadline.since(view.now));
        let delay = match self.plays {
            Plays::LastSecond => left.saturating_sub(random.below(2_500)),
            _ => delay,
        };
        Some(Out::SendAfter(delay, Request::Move(dispute.id(), Arc::new(Authentic::trusted(*made)))))
    }
}

/// The first layer in which a claim differs from the right run.
fn difference(service: &Service<'_>, claim: usize) -> Option<u32> {
    let record = &service.claims[claim];
    let own = service.pool.puzzle(record.puzzle).layers();
    first_difference(&record.signed.body, own).expect("claims on record have as many layers as their program")
}
