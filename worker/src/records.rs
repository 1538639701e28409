//! What a worker must not forget: its leases, and the exact bytes of every claim that it has signed.
//!
//! One JSON file a lease, replaced atomically. A record is first written when the lease is taken, again when the claim
//! is signed and before it is sent, and removed when the claim is decided or the lease is lost. Two different signed
//! claims for one lease would convict an honest worker; so a claim that is on disk is never signed anew.

use gainsay_api::client::ClientError;
use gainsay_api::client::files::{Privacy, write_atomically};
use gainsay_api::wire::{Base64, integer, text};
use gainsay_commitment::{ClaimId, ModelId, PartyId, Signed};
use gainsay_engine::Fault;
use gainsay_program::Sampling;
use gainsay_protocol::{Claim, JobId, LeaseId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// One lease, and what has come of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The lease.
    #[serde(with = "text")]
    pub lease: LeaseId,
    /// Its job.
    #[serde(with = "text")]
    pub job_id: JobId,
    /// The model.
    pub model: ModelId,
    /// The canonical job.
    pub job: Base64,
    /// Whether tokens are to be sent as they are drawn.
    #[serde(default)]
    pub stream: bool,
    /// The claim, once it is signed.
    pub claim: Option<SignedClaim>,
}

/// A claim as it was signed, and how it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedClaim {
    /// Its id.
    pub id: ClaimId,
    /// `Signed<Claim>`: the only bytes ever sent for this lease.
    pub signed: Base64,
    /// Where the run left the program, if it did.
    pub divergence: Option<Divergence>,
    /// Whether disputes on it go unanswered.
    pub silent: bool,
}

/// How a run left the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Divergence {
    /// One bit of one element of an op's output was flipped, and the rest computed from there.
    Flip {
        /// The layer.
        layer: u32,
        /// The op.
        op: u32,
        /// The element.
        #[serde(with = "integer")]
        element: u64,
        /// The bit.
        bit: u8,
    },
    /// A layer was skipped.
    SkipLayer {
        /// The layer.
        layer: u32,
    },
    /// The weights were others.
    OtherWeights {
        /// What they were drawn from.
        #[serde(with = "integer")]
        seed: u64,
    },
    /// One token of an answer was another than was drawn, and the rest drawn from there.
    Token {
        /// Its index in the answer.
        answer: u32,
        /// What it was instead.
        token: u32,
    },
    /// The tokens of an answer, but for the last, were those of a model with other weights.
    OtherTokens {
        /// What they were drawn from.
        #[serde(with = "integer")]
        seed: u64,
    },
    /// The tokens were drawn with another seed, and with a temperature where none was asked for.
    OtherSampling {
        /// The seed.
        #[serde(with = "integer")]
        seed: u64,
    },
    /// The answer ended elsewhere than its job says.
    Length,
    /// What was streamed was not the answer.
    Stream,
}

impl Divergence {
    /// The engine's fault that gives this divergence; none where something else than the run gives it.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match *self {
            Self::Flip { layer, op, element, bit } => Some(Fault::FlipBit { layer, op, element, bit }),
            Self::SkipLayer { layer } => Some(Fault::SkipLayer { layer }),
            Self::Token { answer, token } => Some(Fault::Token { answer, token }),
            Self::OtherTokens { .. } => Some(Fault::TokensAsGiven),
            Self::OtherWeights { .. } | Self::OtherSampling { .. } | Self::Length | Self::Stream => None,
        }
    }

    /// The parameters that tokens were drawn by, where a job asks for `asked`.
    #[must_use]
    pub fn sampling(&self, asked: &Sampling) -> Sampling {
        match *self {
            Self::OtherSampling { seed } => {
                let temperature = if asked.temperature == 0.0 { 1.0 } else { asked.temperature };
                Sampling { seed, temperature, ..asked.clone() }
            }
            _ => asked.clone(),
        }
    }
}

/// Why records cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// A file failed.
    #[error("the worker's state cannot be kept: {0}")]
    File(#[from] ClientError),
    /// The folder cannot be read.
    #[error("the worker's state in {} cannot be read: {source}", path.display())]
    Read {
        /// Which file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file holds no record. It may be the only copy of a signed claim, so the worker does not go on without it.
    #[error("{} is no record of this worker: {reason}; move it away if you know that it is not needed", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A claim is not kept, since its lease was over before.
    #[error("lease {0} was over before its claim was signed")]
    Over(LeaseId),
}

/// The records of one worker at one coordinator, on disk and in memory.
pub struct Records {
    folder: PathBuf,
    held: Mutex<HashMap<LeaseId, Record>>,
}

impl Records {
    /// Reads the records under `state_dir` that belong to this worker at this coordinator.
    ///
    /// # Errors
    /// A folder or file that cannot be read, or holds something else.
    pub fn open(state_dir: &Path, coordinator: PartyId, worker: PartyId) -> Result<Self, RecordsError> {
        let folder = state_dir.join(format!("{coordinator:.16}-{worker:.16}"));
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| RecordsError::Read { path, source }
        };
        std::fs::create_dir_all(&folder).map_err(unreadable(&folder))?;
        let mut held = HashMap::new();
        for entry in std::fs::read_dir(&folder).map_err(unreadable(&folder))? {
            let path = entry.map_err(unreadable(&folder))?.path();
            // What an interrupted write left beside is not yet a record.
            if path.extension().is_some_and(|extension| extension == "json") {
                let bytes = std::fs::read(&path).map_err(unreadable(&path))?;
                let record = read_record(&bytes).map_err(|reason| RecordsError::Content { path, reason })?;
                held.insert(record.lease, record);
            }
        }
        Ok(Self { folder, held: Mutex::new(held) })
    }

    /// Keeps a record: on return it survives a crash. A claim that is kept already is never replaced, and a claim whose
    /// lease was forgotten is not kept: it came too late.
    ///
    /// # Errors
    /// The file cannot be written; [`RecordsError::Over`].
    ///
    /// # Panics
    /// If another claim is kept for the lease: the worker was about to equivocate.
    pub fn keep(&self, record: &Record) -> Result<(), RecordsError> {
        let mut held = self.held();
        if record.claim.is_some() && !held.contains_key(&record.lease) {
            return Err(RecordsError::Over(record.lease));
        }
        if let Some(kept) = held.get(&record.lease).and_then(|kept| kept.claim.as_ref()) {
            assert_eq!(
                Some(kept),
                record.claim.as_ref(),
                "lease {} has a signed claim already",
                record.lease
            );
        }
        let json = serde_json::to_vec_pretty(record).expect("a record has only string keys");
        write_atomically(&self.path(record.lease), &json, Privacy::Secret)?;
        held.insert(record.lease, record.clone());
        Ok(())
    }

    /// Forgets a lease that is lost, or whose claim is decided.
    pub fn forget(&self, lease: LeaseId) {
        if self.held().remove(&lease).is_some() {
            let path = self.path(lease);
            if let Err(error) = std::fs::remove_file(&path) {
                // It is asked about again after the next start, and forgotten then.
                tracing::warn!(%lease, path = %path.display(), %error, "a record cannot be removed");
            }
        }
    }

    /// All records.
    #[must_use]
    pub fn all(&self) -> Vec<Record> {
        self.held().values().cloned().collect()
    }

    /// The record of a lease.
    #[must_use]
    pub fn of_lease(&self, lease: LeaseId) -> Option<Record> {
        self.held().get(&lease).cloned()
    }

    /// The record of a claim.
    #[must_use]
    pub fn of_claim(&self, claim: ClaimId) -> Option<Record> {
        let is_it = |record: &&Record| record.claim.as_ref().is_some_and(|kept| kept.id == claim);
        self.held().values().find(is_it).cloned()
    }

    fn path(&self, lease: LeaseId) -> PathBuf {
        self.folder.join(format!("{lease}.json"))
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<LeaseId, Record>> {
        self.held.lock().expect("no holder of the records panics but to stop the worker")
    }
}

fn read_record(bytes: &[u8]) -> Result<Record, String> {
    let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if let Some(claim) = &record.claim {
        let signed =
            Signed::<Claim>::from_bytes(&claim.signed.0).map_err(|error| format!("its claim: {error}"))?;
        if signed.body.id() != claim.id || signed.body.lease != record.lease {
            return Err("its claim is another one".to_owned());
        }
    }
    Ok(record)
}
