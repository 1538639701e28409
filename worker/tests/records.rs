//! What a worker keeps survives a crash at any point, and a claim is never signed twice.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use gainsay_api::wire::Base64;
use gainsay_commitment::{
    InputCommitment, ModelId, PartyId, SecretKey, Signed, TensorCommitment, trace_root,
};
use gainsay_program::ArithmeticProfile;
use gainsay_protocol::{Claim, JobId, LeaseId};
use gainsay_worker::{Divergence, Record, Records, RecordsError, SignedClaim};
use std::path::{Path, PathBuf};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gainsay-worker-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn records(&self) -> Result<Records, RecordsError> {
        Records::open(&self.0, coordinator(), key().id())
    }

    /// The one folder inside that holds the records.
    fn inner(&self) -> PathBuf {
        std::fs::read_dir(&self.0).unwrap().next().unwrap().unwrap().path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn key() -> SecretKey {
    SecretKey::from_bytes(&[2; 32])
}

fn coordinator() -> PartyId {
    SecretKey::from_bytes(&[1; 32]).id()
}

fn leased(lease: u8) -> Record {
    Record {
        lease: LeaseId([lease; 16]),
        job_id: JobId([9; 16]),
        model: ModelId::from_bytes([4; 32]),
        job: Base64(vec![1, 2, 3]),
        stream: false,
        claim: None,
    }
}

fn claimed(lease: u8, output: u8) -> Record {
    let layers = vec![TensorCommitment::from_bytes([output; 32])];
    let claim = Claim {
        coordinator: coordinator(),
        job: JobId([9; 16]),
        lease: LeaseId([lease; 16]),
        model: ModelId::from_bytes([4; 32]),
        arithmetic: ArithmeticProfile::ExactF32V1,
        input: InputCommitment::from_bytes([5; 32]),
        output: vec![output],
        trace: trace_root(&layers).unwrap(),
        layers,
        worker: key().id(),
    };
    let id = claim.id();
    let signed = Base64(Signed::sign(claim, &key()).to_bytes());
    let divergence = Some(Divergence::Flip { layer: 1, op: 2, element: 1 << 60, bit: 3 });
    Record { claim: Some(SignedClaim { id, signed, divergence, silent: true }), ..leased(lease) }
}

/// Leases, and keeps what it gave.
fn claim(records: &Records, output: u8) {
    records.keep(&leased(1)).unwrap();
    records.keep(&claimed(1, output)).unwrap();
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_restart_finds_the_same_bytes() {
    let folder = Folder::new("same-bytes");
    let records = folder.records().unwrap();
    claim(&records, 7);
    records.keep(&leased(2)).unwrap();
    drop(records);
    let again = folder.records().unwrap();
    assert_eq!(again.of_lease(LeaseId([1; 16])), Some(claimed(1, 7)));
    assert_eq!(again.of_lease(LeaseId([2; 16])), Some(leased(2)));
    assert_eq!(again.of_claim(claimed(1, 7).claim.unwrap().id), Some(claimed(1, 7)));
    assert_eq!(again.all().len(), 2);
}

#[test]
#[should_panic(expected = "has a signed claim already")]
fn a_second_claim_for_a_lease_is_never_kept() {
    let folder = Folder::new("equivocation");
    claim(&folder.records().unwrap(), 7);
    let again = folder.records().unwrap();
    again.keep(&claimed(1, 7)).unwrap();
    let _ = again.keep(&claimed(1, 8));
}

#[test]
#[should_panic(expected = "has a signed claim already")]
fn a_signed_claim_is_not_forgotten_by_running_the_lease_again() {
    let folder = Folder::new("unsigned");
    let records = folder.records().unwrap();
    claim(&records, 7);
    let _ = records.keep(&leased(1));
}

#[test]
fn what_an_interrupted_write_left_is_passed_over() {
    let folder = Folder::new("interrupted");
    claim(&folder.records().unwrap(), 7);
    let whole = std::fs::read(folder.inner().join(format!("{}.json", LeaseId([1; 16])))).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        std::fs::write(folder.inner().join(".0123456789abcdef.new"), &whole[..cut]).unwrap();
        assert_eq!(folder.records().unwrap().all(), [claimed(1, 7)]);
    }
}

#[test]
fn a_file_that_is_no_record_stops_the_worker_with_its_name() {
    let folder = Folder::new("rubbish");
    claim(&folder.records().unwrap(), 7);
    let path = folder.inner().join(format!("{}.json", LeaseId([1; 16])));
    let whole = std::fs::read_to_string(&path).unwrap();
    let other_claim = claimed(2, 7).claim.unwrap();
    let wrong_id = whole.replace(&claimed(1, 7).claim.unwrap().id.to_string(), &other_claim.id.to_string());
    for content in [&whole[..whole.len() / 2], "", "{}", wrong_id.as_str()] {
        std::fs::write(&path, content).unwrap();
        let error = folder.records().err().unwrap().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn what_is_decided_is_forgotten_on_disk_too() {
    let folder = Folder::new("forget");
    let records = folder.records().unwrap();
    claim(&records, 7);
    records.keep(&leased(2)).unwrap();
    records.forget(LeaseId([1; 16]));
    records.forget(LeaseId([1; 16]));
    assert_eq!(records.all(), [leased(2)]);
    assert_eq!(files(&folder.inner()), 1);
    assert_eq!(folder.records().unwrap().all(), [leased(2)]);
}

#[test]
fn workers_and_coordinators_have_records_of_their_own() {
    let folder = Folder::new("apart");
    folder.records().unwrap().keep(&leased(1)).unwrap();
    let other = SecretKey::from_bytes(&[3; 32]).id();
    assert!(Records::open(&folder.0, coordinator(), other).unwrap().all().is_empty());
    assert!(Records::open(&folder.0, other, key().id()).unwrap().all().is_empty());
}

/// The run of a lost lease may end after all was forgotten. What it signs then is neither kept nor sent: it would lie there
/// for another claim of the same lease to contradict.
#[test]
fn a_claim_that_comes_after_its_lease_was_lost_is_not_kept() {
    let folder = Folder::new("late");
    let records = folder.records().unwrap();
    records.keep(&leased(1)).unwrap();
    records.forget(LeaseId([1; 16]));
    assert!(matches!(records.keep(&claimed(1, 7)), Err(RecordsError::Over(LeaseId([1, ..])))));
    assert!(records.all().is_empty());
    assert_eq!(files(&folder.inner()), 0);
}
