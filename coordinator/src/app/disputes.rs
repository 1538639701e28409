//! Disputes: each move is one transaction over the worker, the job, the claim and the dispute, in that order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use gainsay_commitment::{Canonical, DisputeId, PartyId, Signed};
use gainsay_protocol::ledger as rules;
use gainsay_protocol::lifecycle::ClaimState;
use gainsay_protocol::{
    Authentic, Case, Dispute, DisputeTerms, Entry, EvidenceBundle, EvidenceEntry, JobId, MoveKind, Record,
    Refusal, Reveals, SignedMove,
};
use serde_json::json;

use super::jobs::{decode_claim, decode_job};
use super::money::require_free;
use super::work::{About, Each, Work, retrying};
use super::{App, AppError, AppResult, DisputeView, EntryView};
use crate::bus::Topic;
use crate::store::bonds::{self, StoredBond};
use crate::store::claims::{self, StoredClaim};
use crate::store::disputes::{self, DisputeState, StoredDispute, StoredEntry};
use crate::store::jobs::{self, StoredJob};
use crate::store::parties::{self, Agent};
use crate::store::{self, Connection, StoreError, clock};

/// The locked records that a dispute is decided over.
struct Records {
    job: StoredJob,
    claim: StoredClaim,
    decoded: Decoded,
}

struct Decoded {
    model: std::sync::Arc<gainsay_program::ValidatedModel>,
    job: gainsay_protocol::Job,
    claim: gainsay_protocol::Claim,
}

impl Decoded {
    fn case(&self) -> Case<'_> {
        Case::new(&self.model, &self.job, &self.claim).expect("a claim on record fits its job and model")
    }
}

/// A move that the rules accepted, with what it led to.
struct Played<'a> {
    made: &'a Authentic,
    reveals: Reveals,
    entries: Vec<Entry>,
    referee_us: Option<u64>,
}

/// How long the referee took, where the move called it.
fn referee_us(made: &Authentic, started: Instant) -> Option<u64> {
    is_judged(made.signed()).then(|| u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Whether the referee judges the move.
fn is_judged(made: &SignedMove) -> bool {
    made.kind() == MoveKind::Prove
}

fn authenticated(signed: &[u8]) -> AppResult<Authentic> {
    let malformed = |error: &dyn std::fmt::Display| AppError::MalformedMove(error.to_string());
    let made = SignedMove::from_bytes(signed).map_err(|error| malformed(&error))?;
    made.authenticate().map_err(|error| malformed(&error))
}

pub(super) fn refused(refusal: &Refusal) -> AppError {
    AppError::MoveRefused { code: refusal.code(), message: refusal.to_string() }
}

impl App {
    /// Opens a dispute with a signed `open` move. The same bytes again: the same answer.
    ///
    /// # Errors
    /// Bytes, signature, challenger, claim, window, bond, or the rules.
    pub async fn open_dispute(&self, signed: &[u8]) -> AppResult<DisputeView> {
        let opening = authenticated(signed)?;
        let SignedMove::Open(open) = opening.signed() else {
            let message = "a dispute begins with the move open".to_owned();
            return Err(AppError::MoveRefused { code: "wrong_move", message });
        };
        let id = open.body.id();
        retrying(|| self.open(&opening, open)).await?;
        self.dispute(id).await
    }

    async fn open(&self, opening: &Authentic, open: &Signed<gainsay_protocol::Open>) -> AppResult<()> {
        let (id, claim) = (open.body.id(), open.body.claim);
        let mut work = Work::begin(self).await?;
        let challenger = parties::challenger(&mut work.tx, open.body.challenger).await?;
        let challenger =
            challenger.ok_or(AppError::UnknownParty { party: open.body.challenger, role: "challenger" })?;
        let found = claims::get(&mut work.tx, claim).await?.ok_or(AppError::UnknownClaim(claim))?;
        let records = self.lock_records(&mut work, &found).await?;
        if disputes::get(&mut work.tx, id).await?.is_some() {
            return Ok(());
        }
        let now = work.now().await?;
        if records.claim.state != ClaimState::Pending {
            return Err(AppError::ClaimDecided { claim, state: records.claim.state.name() });
        }
        if now >= records.claim.window_ends {
            return Err(AppError::WindowClosed { claim, closed: records.claim.window_ends });
        }
        if disputes::is_disputing(&mut work.tx, records.job.id, claim, challenger.key).await? {
            let message = "the challenger has an undecided dispute on this claim already".to_owned();
            return Err(AppError::MoveRefused { code: "duplicate_dispute", message });
        }
        // The allowances that the claim's receipt promised, whatever is configured now.
        let terms = DisputeTerms { window_closes: records.claim.window_ends, ..records.claim.terms };
        let mut reveals = disputes::reveals(&mut work.tx, records.job.id, claim).await?;
        let opened = Dispute::open(&records.decoded.case(), &mut reveals, opening, terms, now);
        let (dispute, entries) = opened.map_err(|refusal| refused(&refusal))?;
        let bond = self.require_bond(&mut work, &challenger, &records.claim).await?;
        disputes::insert(&mut work.tx, records.job.id, bond, &dispute, now).await?;
        claims::count_dispute(&mut work.tx, records.job.id, claim, 1).await?;
        self.append(&mut work, records.job.id, &dispute, &entries).await?;
        work.finish().await
    }

    /// The bond that backs the challenger's disputes against the worker, locked now if none is.
    async fn require_bond(
        &self,
        work: &mut Work<'_>,
        challenger: &Agent,
        claim: &StoredClaim,
    ) -> AppResult<[u8; 16]> {
        if let Some(bond) = bonds::lock(&mut work.tx, challenger.key, claim.worker).await? {
            return Ok(bond.id);
        }
        let now = work.now().await?;
        let amount = self.config().parameters.bond;
        let bond = StoredBond { id: store::new_id(), owner: challenger.owner, amount };
        bonds::insert(&mut work.tx, &bond, challenger.key, claim.worker, now).await?;
        require_free(&mut work.tx, challenger.owner, amount).await?;
        let about = About::claim(claim.job, claim.id).party(challenger.key);
        work.post(about, rules::lock_bond(challenger.owner, amount));
        Ok(bond.id)
    }

    /// Plays a signed move. Bytes of a move that was accepted before: the same answer.
    ///
    /// # Errors
    /// Bytes, signature, no such dispute, or the rules. A refused move changes nothing but the count of refusals.
    pub async fn post_move(&self, dispute: DisputeId, signed: &[u8]) -> AppResult<DisputeView> {
        let made = authenticated(signed)?;
        self.require_player(dispute, made.signed().signer()).await?;
        retrying(|| self.play(dispute, &made, signed)).await?;
        self.dispute(dispute).await
    }

    /// Refuses the move of whoever has no part in the dispute, before anything is locked for it.
    async fn require_player(&self, id: DisputeId, mover: PartyId) -> AppResult<()> {
        let mut conn = self.connection().await?;
        let found = disputes::get(&mut conn, id).await?.ok_or(AppError::UnknownDispute(id))?;
        if [found.dispute.worker(), found.dispute.challenger()].contains(&mover) {
            Ok(())
        } else {
            Err(refused(&Refusal::ForeignSigner))
        }
    }

    async fn play(&self, id: DisputeId, made: &Authentic, signed: &[u8]) -> AppResult<()> {
        let mut work = Work::begin(self).await?;
        let (records, mut stored) = self.lock_dispute(&mut work, id).await?;
        if disputes::has_move(&mut work.tx, stored.job, id, signed).await? {
            return Ok(());
        }
        let now = work.now().await?;
        let mut reveals = disputes::reveals(&mut work.tx, stored.job, stored.dispute.claim()).await?;
        let case = records.decoded.case();
        let before = stored.dispute.clone();
        let started = Instant::now();
        let played = catch_unwind(AssertUnwindSafe(|| stored.dispute.apply(&case, &mut reveals, made, now)));
        match played {
            Ok(Ok(entries)) => {
                let played = Played { made, reveals, entries, referee_us: referee_us(made, started) };
                self.record_played(work, &records, &stored, &played).await
            }
            Ok(Err(refusal)) => {
                if stored.dispute.refusals() != before.refusals() {
                    self.record_refused(work, &stored, made, &refusal, signed).await?;
                }
                Err(refused(&refusal))
            }
            Err(_) => {
                stored.dispute = before;
                self.pause(work, &mut stored).await?;
                Err(AppError::RefereeFailed(id))
            }
        }
    }

    async fn record_played(
        &self,
        mut work: Work<'_>,
        records: &Records,
        stored: &StoredDispute,
        played: &Played<'_>,
    ) -> AppResult<()> {
        let now = work.now().await?;
        disputes::update(&mut work.tx, stored.job, &stored.dispute).await?;
        self.append_judged(&mut work, stored.job, &stored.dispute, &played.entries, played.referee_us)
            .await?;
        if let SignedMove::Reveal(reveal) = played.made.signed() {
            disputes::insert_reveal(&mut work.tx, stored.job, reveal, now).await?;
            self.advance_others(&mut work, records, stored, &played.reveals).await?;
        }
        if stored.dispute.outcome().is_some() {
            self.carry_out(&mut work, &records.job, &records.claim, stored).await?;
        }
        work.finish().await
    }

    /// What one dispute brought to light serves the others on the claim, which may have waited for it.
    async fn advance_others(
        &self,
        work: &mut Work<'_>,
        records: &Records,
        stored: &StoredDispute,
        reveals: &Reveals,
    ) -> AppResult<()> {
        let now = work.now().await?;
        let all = disputes::lock_undecided_on_claim(&mut work.tx, stored.job, records.claim.id).await?;
        for mut other in all.into_iter().filter(|other| other.dispute.id() != stored.dispute.id()) {
            let entries = other.dispute.advance(&records.decoded.case(), reveals, now);
            if !entries.is_empty() {
                disputes::update(&mut work.tx, other.job, &other.dispute).await?;
                self.append(work, other.job, &other.dispute, &entries).await?;
            }
        }
        Ok(())
    }

    async fn record_refused(
        &self,
        mut work: Work<'_>,
        stored: &StoredDispute,
        made: &Authentic,
        refusal: &Refusal,
        signed: &[u8],
    ) -> AppResult<()> {
        let now = work.now().await?;
        let (mover, hash) = (made.signed().signer(), blake3::hash(signed).into());
        disputes::update(&mut work.tx, stored.job, &stored.dispute).await?;
        disputes::record_refusal(&mut work.tx, stored, mover, refusal.code(), hash, now).await?;
        let about = About::claim(stored.job, stored.dispute.claim()).dispute(stored.dispute.id());
        let details = json!({ "code": refusal.code(), "message": refusal.to_string() });
        work.event("move_refused", about.party(mover), details);
        work.finish().await
    }

    async fn pause(&self, mut work: Work<'_>, stored: &mut StoredDispute) -> AppResult<()> {
        let now = work.now().await?;
        tracing::error!(dispute = %stored.dispute.id(), "the referee panicked; the dispute is paused");
        let entry = stored.dispute.pause(now).map_err(|refusal| refused(&refusal))?;
        disputes::update(&mut work.tx, stored.job, &stored.dispute).await?;
        self.append(&mut work, stored.job, &stored.dispute, &[entry]).await?;
        work.finish().await
    }

    /// Lets the clocks of a dispute run again that a failing referee had stopped: for an operator.
    ///
    /// # Errors
    /// There is no such dispute, or it is not paused.
    pub async fn resume_dispute(&self, id: DisputeId) -> AppResult<DisputeView> {
        let mut work = Work::begin(self).await?;
        let (records, mut stored) = self.lock_dispute(&mut work, id).await?;
        let now = work.now().await?;
        let mut entries = vec![stored.dispute.resume(now).map_err(|refusal| refused(&refusal))?];
        // Other disputes may have brought to light meanwhile what this one waits for.
        let reveals = disputes::reveals(&mut work.tx, stored.job, stored.dispute.claim()).await?;
        entries.extend(stored.dispute.advance(&records.decoded.case(), &reveals, now));
        disputes::update(&mut work.tx, stored.job, &stored.dispute).await?;
        self.append(&mut work, stored.job, &stored.dispute, &entries).await?;
        work.finish().await?;
        self.dispute(id).await
    }

    /// Ends disputes whose party on turn has spent its allowance. How many were found; as many as a batch holds
    /// means that there may be more.
    ///
    /// # Errors
    /// The database.
    pub async fn expire_disputes(&self) -> AppResult<usize> {
        let mut conn = self.connection().await?;
        let now = clock::now(&mut conn).await?;
        let expired = disputes::expired(&mut conn, now, self.config().limits.reconcile_batch).await?;
        drop(conn);
        let mut each = Each::default();
        for id in &expired {
            each.note(retrying(|| self.expire(*id)).await);
        }
        each.count()
    }

    async fn expire(&self, id: DisputeId) -> AppResult<usize> {
        let mut work = Work::begin(self).await?;
        let (records, mut stored) = self.lock_dispute(&mut work, id).await?;
        let now = work.now().await?;
        // Looked up without locks: a move or another coordinator may have come first.
        let Some(entry) = stored.dispute.timeout(now) else { return Ok(0) };
        disputes::update(&mut work.tx, stored.job, &stored.dispute).await?;
        self.append(&mut work, stored.job, &stored.dispute, &[entry]).await?;
        self.carry_out(&mut work, &records.job, &records.claim, &stored).await?;
        work.finish().await.map(|()| 1)
    }

    /// Locks worker, job and claim, in the order that all transactions keep.
    async fn lock_records(&self, work: &mut Work<'_>, found: &StoredClaim) -> AppResult<Records> {
        let gone = || StoreError::Corrupt { what: "a claim's worker or job" };
        parties::lock_worker(&mut work.tx, found.worker).await?.ok_or_else(gone)?;
        let job = jobs::lock(&mut work.tx, found.job).await?.ok_or_else(gone)?;
        let claim = claims::lock(&mut work.tx, found.job, found.id).await?.ok_or_else(gone)?;
        let decoded = Decoded {
            model: self.validated(&mut work.tx, claim.model).await?,
            job: decode_job(&job)?,
            claim: decode_claim(&claim)?.body,
        };
        Ok(Records { job, claim, decoded })
    }

    async fn lock_dispute(&self, work: &mut Work<'_>, id: DisputeId) -> AppResult<(Records, StoredDispute)> {
        let unknown = || AppError::UnknownDispute(id);
        let found = disputes::get(&mut work.tx, id).await?.ok_or_else(unknown)?;
        let claim = claims::get(&mut work.tx, found.dispute.claim()).await?.ok_or_else(unknown)?;
        let records = self.lock_records(work, &claim).await?;
        let stored = disputes::lock(&mut work.tx, found.job, id).await?.ok_or_else(unknown)?;
        Ok((records, stored))
    }

    /// Signs entries and appends them to a dispute's log.
    pub(super) async fn append(
        &self,
        work: &mut Work<'_>,
        job: JobId,
        dispute: &Dispute,
        entries: &[Entry],
    ) -> AppResult<()> {
        self.append_judged(work, job, dispute, entries, None).await
    }

    async fn append_judged(
        &self,
        work: &mut Work<'_>,
        job: JobId,
        dispute: &Dispute,
        entries: &[Entry],
        referee_us: Option<u64>,
    ) -> AppResult<()> {
        let about = About::claim(job, dispute.claim()).dispute(dispute.id());
        let layer = dispute.opening().layer;
        for entry in entries {
            let signature = self.sign(entry.record).signature;
            // Only the move that was judged took the referee's time: what is taken from other disputes is not judged.
            let judged = referee_us.filter(|_| entry.signed_move.as_ref().is_some_and(is_judged));
            disputes::append(&mut work.tx, job, entry, signature, judged).await?;
            let made = disputes::entry_kind(entry);
            let mover = entry.signed_move.as_ref().map(SignedMove::signer);
            let details = json!({
                "move": made, "seq": entry.record.seq, "layer": layer, "phase": dispute.phase().name(),
                "mover": entry.signed_move.as_ref().map(|made| made.role().name()),
                "referee_us": referee_us,
            });
            let kind = if made == "open" { "dispute_opened" } else { "dispute_moved" };
            work.event(kind, About { party: mover, ..about }, details);
        }
        if let Some(outcome) = dispute.outcome() {
            let details = json!({
                "verdict": outcome.verdict.name(), "reason": outcome.cause.name(), "layer": layer,
                "referee_us": referee_us,
            });
            work.event("dispute_ended", about.party(dispute.challenger()), details);
        }
        work.wake(Topic::Dispute(dispute.id()));
        Ok(())
    }

    /// A dispute with its whole log: public.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn dispute(&self, dispute: DisputeId) -> AppResult<DisputeView> {
        let mut conn = self.connection().await?;
        let stored = disputes::get(&mut conn, dispute).await?;
        dispute_view(&mut conn, stored.ok_or(AppError::UnknownDispute(dispute))?).await
    }

    /// The newest disputes, newest first.
    ///
    /// # Errors
    /// The database.
    pub async fn disputes(&self, undecided_only: bool, limit: u32) -> AppResult<Vec<DisputeView>> {
        let mut conn = self.connection().await?;
        let mut views = Vec::new();
        for stored in disputes::newest(&mut conn, undecided_only, limit.into()).await? {
            views.push(dispute_view(&mut conn, stored).await?);
        }
        Ok(views)
    }

    /// The evidence bundle of an ended dispute, canonical bytes: everything needed to judge it again.
    ///
    /// # Errors
    /// There is none of this id, or it has no verdict yet.
    pub async fn evidence(&self, dispute: DisputeId) -> AppResult<Vec<u8>> {
        let unknown = || AppError::UnknownDispute(dispute);
        let mut conn = self.connection().await?;
        let stored = disputes::get(&mut conn, dispute).await?.ok_or_else(unknown)?;
        let outcome = stored.dispute.outcome().ok_or(AppError::NoVerdict(dispute))?;
        let claim = claims::get(&mut conn, stored.dispute.claim()).await?.ok_or_else(unknown)?;
        let job = jobs::get(&mut conn, stored.job).await?.ok_or_else(unknown)?;
        let model = self.validated(&mut conn, claim.model).await?;
        let log = disputes::log(&mut conn, stored.job, dispute).await?;
        let bundle = EvidenceBundle {
            manifest: model.manifest().clone(),
            job: decode_job(&job)?,
            claim: decode_claim(&claim)?,
            receipt: self.receipt_of(&claim),
            log: log.iter().map(|entry| self.evidence_entry(entry)).collect::<Result<_, _>>()?,
            outcome,
        };
        Ok(bundle.to_bytes())
    }

    fn evidence_entry(&self, entry: &StoredEntry) -> Result<EvidenceEntry, StoreError> {
        let corrupt = |_| StoreError::Corrupt { what: "a dispute's log" };
        let body = Record::from_bytes(&entry.record).map_err(corrupt)?;
        let record = Signed { body, signer: self.coordinator(), signature: entry.countersignature };
        let signed_move =
            entry.signed_move.as_deref().map(SignedMove::from_bytes).transpose().map_err(corrupt)?;
        Ok(EvidenceEntry { record, signed_move })
    }
}

async fn dispute_view(conn: &mut Connection, stored: StoredDispute) -> AppResult<DisputeView> {
    let StoredDispute { job, dispute, state, opened, .. } = stored;
    let entries = disputes::log(conn, job, dispute.id()).await?;
    let outcome = dispute.outcome();
    assert_eq!(matches!(state, DisputeState::Ended(_)), outcome.is_some(), "columns follow the fold");
    Ok(DisputeView {
        id: dispute.id(),
        claim: dispute.claim(),
        job,
        challenger: dispute.challenger(),
        worker: dispute.worker(),
        layer: dispute.opening().layer,
        state,
        phase: dispute.phase().name().to_owned(),
        turn: dispute.turn(),
        deadline: dispute.deadline(),
        fold: dispute.to_bytes(),
        reason: outcome.map(|outcome| outcome.cause.name().to_owned()),
        opened_at: opened,
        ended_at: outcome.map(|outcome| outcome.time),
        entries: entries.into_iter().map(entry_view).collect(),
    })
}

fn entry_view(entry: StoredEntry) -> EntryView {
    let StoredEntry { seq, kind, mover, record, hash, signed_move, countersignature, referee_us, at } = entry;
    EntryView { seq, kind, mover, record, hash, signed_move, countersignature, referee_us, at }
}
