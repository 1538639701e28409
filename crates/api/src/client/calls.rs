//! The routes, one method each.

use super::transport::{Auth, Call};
use super::{Client, ClientError};
use crate::accounts::{Accounts, AccountsQuery, Deposit, Withdraw};
use crate::claims::{ClaimAccepted, ClaimFilter, ClaimList, ClaimView, EquivocationConvicted};
use crate::disputes::{DisputeFilter, DisputeList, DisputeView};
use crate::embeddings::{EmbeddingRequest, EmbeddingResponse};
use crate::generation::{Completion, CompletionRequest};
use crate::info::Info;
use crate::jobs::{JobList, JobQuery, JobView, JobsQuery, Receipt, SubmitJob};
use crate::leases::{
    Heartbeat, LeaseQuery, LeaseRequest, LeaseReturned, Leases, ReturnLease, ReturnReason, Streamed,
};
use crate::limits::{MAX_EVIDENCE_BYTES, MAX_MANIFEST_BYTES};
use crate::models::{ModelList, ModelView};
use crate::parties::{
    Enlist, EnlistedRole, Enlistment, RegisterOwner, RegisterSubmitter, Registered, SubmitterRegistered,
};
use crate::routes;
use crate::voids::{VoidList, VoidProfile, VoidView};
use bytes::Bytes;
use gainsay_commitment::signature::SecretKey;
use gainsay_commitment::{ClaimId, DisputeId, ModelId};
use gainsay_protocol::{JobId, LeaseId};
use std::time::Duration;

/// An embedding request may wait for a worker this long before the head of its answer comes.
const EMBEDDING_WAIT: Duration = Duration::from_secs(600);

/// Giving everything back may take this long.
const VOID_WAIT: Duration = Duration::from_secs(600);

/// Every method fails with a [`ClientError`]: [`ClientError::Refused`] carries the coordinator's code.
impl Client {
    /// Who the coordinator is, its time and parameters.
    pub async fn info(&self) -> Result<Info, ClientError> {
        self.read_clock().await
    }

    /// Registers a submitter; the API key is shown this once.
    pub async fn register_submitter(&self, name: &str) -> Result<SubmitterRegistered, ClientError> {
        let body = RegisterSubmitter { name: name.to_owned() };
        self.json(Call::post(routes::SUBMITTERS).json(&body)?).await
    }

    /// Registers an owner's key; the same again changes nothing.
    pub async fn register_owner(&self, owner: &SecretKey, name: &str) -> Result<Registered, ClientError> {
        let body = RegisterOwner { name: name.to_owned() };
        self.json(Call::post(routes::OWNERS).auth(Auth::Key(owner)).idempotent().json(&body)?).await
    }

    /// Enlists a worker's or challenger's key under its owner; the same again changes nothing.
    pub async fn enlist(
        &self,
        owner: &SecretKey,
        key: &SecretKey,
        role: EnlistedRole,
        name: &str,
        device: Option<String>,
    ) -> Result<Registered, ClientError> {
        let statement = Enlistment { coordinator: self.coordinator(), owner: owner.id(), role };
        let path = match role {
            EnlistedRole::Worker => routes::WORKERS,
            EnlistedRole::Challenger => routes::CHALLENGERS,
        };
        let body = Enlist::new(name, device, statement, key);
        self.json(Call::post(path).auth(Auth::Key(owner)).idempotent().json(&body)?).await
    }

    /// Credits a free balance from outside, by the operator: once, however often the call has to be made again.
    pub async fn deposit(&self, operator_token: &str, deposit: &Deposit) -> Result<Accounts, ClientError> {
        let call = Call::post(routes::DEPOSITS).auth(Auth::Bearer(operator_token)).once();
        self.json(call.json(deposit)?).await
    }

    /// Takes money out, by its holder: once, however often the call has to be made again.
    pub async fn withdraw(&self, auth: Auth<'_>, withdraw: &Withdraw) -> Result<Accounts, ClientError> {
        self.json(Call::post(routes::WITHDRAWALS).auth(auth).once().json(withdraw)?).await
    }

    /// The asker's accounts; all of them for the operator who asks so.
    pub async fn accounts(&self, auth: Auth<'_>, query: AccountsQuery) -> Result<Accounts, ClientError> {
        let call = Call::get(routes::ACCOUNTS).auth(auth);
        self.json(if query.all { call.query(&query)? } else { call }).await
    }

    /// Embeds, and waits for the answer.
    pub async fn embeddings(
        &self,
        api_key: &str,
        request: &EmbeddingRequest,
    ) -> Result<EmbeddingResponse, ClientError> {
        let call = Call::post(routes::EMBEDDINGS).auth(Auth::Bearer(api_key)).once().waiting(EMBEDDING_WAIT);
        self.json(call.json(request)?).await
    }

    /// Has a prompt continued, and waits for the whole answer.
    pub async fn completion(
        &self,
        api_key: &str,
        request: &CompletionRequest,
    ) -> Result<Completion, ClientError> {
        let call = Call::post(routes::COMPLETIONS).auth(Auth::Bearer(api_key)).once().waiting(EMBEDDING_WAIT);
        self.json(call.json(request)?).await
    }

    /// Queues a job: once, however often the call has to be made again.
    pub async fn submit_job(&self, api_key: &str, job: &SubmitJob) -> Result<JobView, ClientError> {
        self.json(Call::post(routes::JOBS).auth(Auth::Bearer(api_key)).once().json(job)?).await
    }

    /// A job as it stands, or once it has what the query waits for.
    pub async fn job(&self, api_key: &str, id: JobId, query: JobQuery) -> Result<JobView, ClientError> {
        let wait = Duration::from_millis(query.wait_ms.unwrap_or(0));
        let call = Call::get(routes::job(id)).auth(Auth::Bearer(api_key)).waiting(wait);
        self.json(if query.wait_ms.is_some() { call.query(&query)? } else { call }).await
    }

    /// The submitter's newest jobs.
    pub async fn jobs(&self, api_key: &str, query: JobsQuery) -> Result<JobList, ClientError> {
        self.json(Call::get(routes::JOBS).auth(Auth::Bearer(api_key)).query(&query)?).await
    }

    /// Withdraws a job that no worker has.
    pub async fn cancel_job(&self, api_key: &str, id: JobId) -> Result<JobView, ClientError> {
        let call = Call { method: reqwest::Method::DELETE, ..Call::get(routes::job(id)) };
        self.json(call.auth(Auth::Bearer(api_key))).await
    }

    /// A job's receipt.
    pub async fn receipt(&self, api_key: &str, id: JobId) -> Result<Receipt, ClientError> {
        self.json(Call::get(routes::receipt(id)).auth(Auth::Bearer(api_key))).await
    }

    /// The registered models.
    pub async fn models(&self) -> Result<ModelList, ClientError> {
        self.json(Call::get(routes::MODELS)).await
    }

    /// The canonical bytes of a model's manifest. Whoever decodes them checks that they hash to `id`.
    pub async fn manifest(&self, id: ModelId) -> Result<Bytes, ClientError> {
        self.octets(Call::get(routes::model(id)), MAX_MANIFEST_BYTES).await
    }

    /// Registers a model by its manifest's canonical bytes; answers which blobs are missing.
    pub async fn put_model(
        &self,
        auth: Auth<'_>,
        id: ModelId,
        manifest: impl Into<Bytes>,
    ) -> Result<ModelView, ClientError> {
        self.json(Call::put(routes::model(id)).auth(auth).octets(manifest)).await
    }

    /// Asks for leases, waiting up to `wait` for a job.
    pub async fn lease(
        &self,
        worker: &SecretKey,
        request: &LeaseRequest,
        wait: Duration,
    ) -> Result<Leases, ClientError> {
        let query = LeaseQuery { wait_ms: u64::try_from(wait.as_millis()).ok() };
        let call = Call::post(routes::LEASES).auth(Auth::Key(worker)).idempotent().waiting(wait);
        self.json(call.query(&query)?.json(request)?).await
    }

    /// Keeps a lease.
    pub async fn heartbeat(&self, worker: &SecretKey, lease: LeaseId) -> Result<Heartbeat, ClientError> {
        self.json(Call::post(routes::heartbeat(lease)).auth(Auth::Key(worker)).idempotent()).await
    }

    /// Gives a lease up. The same again gives the same answer.
    pub async fn return_lease(
        &self,
        worker: &SecretKey,
        lease: LeaseId,
        reason: ReturnReason,
    ) -> Result<LeaseReturned, ClientError> {
        let call = Call::post(routes::return_lease(lease)).auth(Auth::Key(worker)).idempotent();
        self.json(call.json(&ReturnLease { reason })?).await
    }

    /// Posts tokens of an answer under way, the first of them at place `first` of the answer. The same again changes
    /// nothing.
    pub async fn stream_tokens(
        &self,
        worker: &SecretKey,
        lease: LeaseId,
        first: u32,
        tokens: &[u32],
    ) -> Result<Streamed, ClientError> {
        let words = std::iter::once(&first).chain(tokens);
        let body: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        self.json(Call::post(routes::tokens(lease)).auth(Auth::Key(worker)).idempotent().octets(body)).await
    }

    /// Posts the bytes of a signed claim. The same bytes again give the same answer.
    pub async fn post_claim(
        &self,
        worker: &SecretKey,
        signed: impl Into<Bytes>,
    ) -> Result<ClaimAccepted, ClientError> {
        self.json(Call::post(routes::CLAIMS).auth(Auth::Key(worker)).idempotent().octets(signed)).await
    }

    /// A claim, with its job.
    pub async fn claim(&self, id: ClaimId) -> Result<ClaimView, ClientError> {
        self.json(Call::get(routes::claim(id))).await
    }

    /// One page of claims, oldest first.
    pub async fn claims(&self, filter: &ClaimFilter) -> Result<ClaimList, ClientError> {
        self.json(Call::get(routes::CLAIMS).query(filter)?).await
    }

    /// Opens a dispute with the bytes of a signed `open`. The same bytes again give the same answer.
    pub async fn open_dispute(
        &self,
        challenger: &SecretKey,
        signed: impl Into<Bytes>,
    ) -> Result<DisputeView, ClientError> {
        self.json(Call::post(routes::DISPUTES).auth(Auth::Key(challenger)).idempotent().octets(signed)).await
    }

    /// Plays the bytes of a signed move. The same bytes again give the same answer.
    pub async fn post_move(
        &self,
        key: &SecretKey,
        dispute: DisputeId,
        signed: impl Into<Bytes>,
    ) -> Result<DisputeView, ClientError> {
        self.json(Call::post(routes::moves(dispute)).auth(Auth::Key(key)).idempotent().octets(signed)).await
    }

    /// A dispute with its moves.
    pub async fn dispute(&self, id: DisputeId) -> Result<DisputeView, ClientError> {
        self.json(Call::get(routes::dispute(id))).await
    }

    /// Withdraws an arithmetic profile, by the operator. The same again gives the same answer.
    pub async fn void(&self, operator_token: &str, void: &VoidProfile) -> Result<VoidView, ClientError> {
        let call = Call::post(routes::VOIDS).auth(Auth::Bearer(operator_token)).idempotent();
        self.json(call.waiting(VOID_WAIT).json(void)?).await
    }

    /// The profile versions that were withdrawn.
    pub async fn voids(&self) -> Result<VoidList, ClientError> {
        self.json(Call::get(routes::VOIDS)).await
    }

    /// Lets the clocks of a dispute run again that a failed referee had stopped, by the operator.
    pub async fn resume_dispute(
        &self,
        operator_token: &str,
        id: DisputeId,
    ) -> Result<DisputeView, ClientError> {
        self.json(Call::post(routes::resume(id)).auth(Auth::Bearer(operator_token))).await
    }

    /// Reports two signed claims of one lease (`Equivocation` bytes), by any registered worker or challenger.
    pub async fn report_equivocation(
        &self,
        key: &SecretKey,
        pair: impl Into<Bytes>,
    ) -> Result<EquivocationConvicted, ClientError> {
        self.json(Call::post(routes::EQUIVOCATIONS).auth(Auth::Key(key)).octets(pair)).await
    }

    /// One page of disputes, oldest first.
    pub async fn disputes(&self, filter: &DisputeFilter) -> Result<DisputeList, ClientError> {
        self.json(Call::get(routes::DISPUTES).query(filter)?).await
    }

    /// The evidence bundle of a dispute.
    pub async fn evidence(&self, id: DisputeId) -> Result<Bytes, ClientError> {
        self.octets(Call::get(routes::evidence(id)), MAX_EVIDENCE_BYTES).await
    }
}
