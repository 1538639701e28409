//! A coordinator over a fresh database, with parties, a toy model and time that moves by hand. After every step the
//! ledger is held against what must always be true of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gainsay_commitment::{ClaimId, DisputeId, PartyId, SecretKey, Signed, TensorCommitment};
use gainsay_coordinator::app::{AccountView, App, AppError, DisputeView, JobView, LeaseGrant};
use gainsay_coordinator::bus::{Bus, InProcess};
use gainsay_coordinator::config::Config;
use gainsay_coordinator::reconcile;
use gainsay_program::toy::{Toy, ToyOptions};
use gainsay_protocol::strategy::{
    ChallengerStep, WorkerStep, challenger_next, first_difference, worker_next,
};
use gainsay_protocol::toy::{Fault, Fixture, FixtureBuilder, ToyRun, zoo};
use gainsay_protocol::{
    Amount, Case, Claim, Dispute, JobId, Open, OwnerId, Parameters, ServiceTime, SignedMove,
};
use gainsay_testkit::{Database, assert_books};
use sqlx::PgPool;

/// What every test pays for a job.
pub(crate) const PRICE: Amount = Amount(10_000);
/// What every provider starts with.
pub(crate) const FUNDS: Amount = Amount(10_000_000);

/// Parameters in round numbers.
pub(crate) fn parameters() -> Parameters {
    Parameters {
        stake_per_job: Amount(400_000),
        bond: Amount(200_000),
        lost_lease_fee: Amount(1_000),
        window_ms: 60_000,
        worker_allowance_ms: 30_000,
        challenger_allowance_ms: 30_000,
        lease_ms: 20_000,
        heartbeat_ms: 5_000,
        hold_ms: 100_000,
        attempts: 2,
        ..Parameters::default()
    }
}

/// A provider's worker or challenger with its key.
pub(crate) struct Party {
    pub(crate) key: SecretKey,
    pub(crate) owner: OwnerId,
}

impl Party {
    pub(crate) fn id(&self) -> PartyId {
        self.key.id()
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) struct World {
    pub(crate) app: App,
    pub(crate) pool: PgPool,
    pub(crate) submitter: OwnerId,
    pub(crate) builder: FixtureBuilder,
    pub(crate) database: Database,
    config: Config,
    toy: Toy,
    _folder: Folder,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let database = Database::create().await;
        let folder = std::env::temp_dir().join(format!(
            "gainsay-coordinator-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let mut config = Config::new(database.url());
        config.blob_dir = folder.join("blobs");
        config.key_file = folder.join("key");
        config.database_connections = 8;
        config.parameters = parameters();
        config.prices.per_job = PRICE;
        config.prices.per_token = Amount(0);
        change(&mut config);
        let app =
            App::start(config.clone(), Arc::new(InProcess::new())).await.expect("the coordinator starts");
        let pool = PgPool::connect(database.url()).await.expect("the database answers");
        let (submitter, _) = app.register_submitter("submitter").await.expect("a submitter registers");
        app.deposit(submitter.id, FUNDS).await.expect("a deposit");
        let toy = Toy::new(&ToyOptions::default()).expect("the toy model");
        let world = Self {
            app,
            pool,
            submitter: submitter.id,
            builder: zoo::small(),
            database,
            config,
            toy,
            _folder: Folder(folder),
        };
        world.upload_model().await;
        world.check().await;
        world
    }

    /// From now on, the coordinator is one that asks this price for a job.
    pub(crate) async fn change_price(&mut self, price: Amount) {
        self.config.prices.per_job = price;
        self.app = self.second_coordinator().await;
    }

    /// Another coordinator of the same service: same database, key and folder.
    pub(crate) async fn second_coordinator(&self) -> App {
        App::start(self.config.clone(), Arc::new(InProcess::new()))
            .await
            .expect("a second coordinator starts")
    }

    /// Likewise, with a bus of the test's own.
    pub(crate) async fn coordinator_with(&self, bus: Arc<dyn Bus>) -> App {
        App::start(self.config.clone(), bus).await.expect("another coordinator starts")
    }

    pub(crate) fn toy(&self) -> &Toy {
        &self.toy
    }

    async fn upload_model(&self) {
        use gainsay_commitment::Canonical as _;
        let id = self.toy.model.id();
        self.app.register_model(id, &self.toy.model.manifest().to_bytes()).await.expect("the manifest");
        let mut files = self.toy.weights.clone();
        files.push(b"toy tokenizer".to_vec());
        for file in files {
            self.upload(&file).await.expect("a file of the model");
        }
        assert!(self.app.model(id).await.expect("the model").is_serving());
    }

    pub(crate) async fn upload(&self, file: &[u8]) -> Result<TensorCommitment, AppError> {
        let hash = gainsay_commitment::tensor::tensor_commitment(file);
        let mut upload = self.app.begin_blob(hash).await?;
        assert!(upload.write(file).await.expect("the file is written"));
        self.app.finish_blob(upload).await.map(|()| hash)
    }

    /// A provider with money.
    pub(crate) async fn provider(&self, name: &str) -> (SecretKey, OwnerId) {
        let key = SecretKey::generate();
        let owner = self.app.register_owner(key.id(), name).await.expect("an owner registers").id;
        self.app.deposit(owner, FUNDS).await.expect("a deposit");
        (key, owner)
    }

    /// A worker of an owner of its own.
    pub(crate) async fn worker(&self, name: &str) -> Party {
        let (owner_key, owner) = self.provider(name).await;
        let key = SecretKey::generate();
        let agent = self.app.register_worker(owner_key.id(), key.id(), name, "toy").await;
        agent.expect("a worker registers");
        Party { key, owner }
    }

    /// A challenger of an owner of its own.
    pub(crate) async fn challenger(&self, name: &str) -> Party {
        let (owner_key, owner) = self.provider(name).await;
        let key = SecretKey::generate();
        let agent = self.app.register_challenger(owner_key.id(), key.id(), name).await;
        agent.expect("a challenger registers");
        Party { key, owner }
    }

    /// Submits the job that the fixtures answer.
    pub(crate) async fn submit(&self) -> JobId {
        let input = self.builder.build(Fault::None, 0).job().embedding_input().unwrap().clone();
        let job = self.app.submit_job(self.submitter, self.toy.model.id(), input).await;
        self.check().await;
        job.expect("a job is submitted").id
    }

    pub(crate) async fn lease(&self, worker: &Party) -> Option<LeaseGrant> {
        let grant = self.app.lease(worker.id(), &[self.toy.model.id()], Duration::ZERO).await;
        self.check().await;
        grant.expect("a lease is given or not")
    }

    /// The claim that a worker whose run had this fault makes under a lease.
    pub(crate) fn claim_for(&self, worker: &Party, grant: &LeaseGrant, fixture: &Fixture) -> Signed<Claim> {
        let claim = Claim {
            coordinator: self.app.coordinator(),
            job: grant.job,
            lease: grant.lease,
            worker: worker.id(),
            ..fixture.claim().clone()
        };
        Signed::sign(claim, &worker.key)
    }

    /// Submits a job, leases it to the worker, and posts its claim.
    pub(crate) async fn claimed(&self, worker: &Party, fault: Fault) -> Claimed {
        self.submit().await;
        let grant = self.lease(worker).await.expect("the job is leased");
        self.post(worker, &grant, fault).await
    }

    pub(crate) async fn post(&self, worker: &Party, grant: &LeaseGrant, fault: Fault) -> Claimed {
        let fixture = self.builder.build(fault, 1);
        let claim = self.claim_for(worker, grant, &fixture);
        self.app.post_claim(&claim.to_bytes()).await.expect("the claim is taken");
        self.check().await;
        Claimed { job: grant.job, id: claim.body.id(), claim, fixture }
    }

    pub(crate) async fn job(&self, job: JobId) -> JobView {
        self.app.job(self.submitter, job).await.expect("the job is known")
    }

    pub(crate) async fn advance(&self, ms: u64) -> ServiceTime {
        self.app.advance_time(ms).await.expect("time moves")
    }

    /// Does what is due, then checks the ledger.
    pub(crate) async fn reconcile(&self) -> reconcile::Round {
        let round = reconcile::run_due(&self.app).await.expect("what is due is done");
        self.check().await;
        round
    }

    pub(crate) async fn balance(&self, owner: OwnerId, kind: &str) -> Amount {
        let accounts = self.app.accounts_of(owner).await.expect("the owner is known");
        accounts.iter().find(|account| account.kind == kind).expect("every owner has it").balance
    }

    pub(crate) async fn system(&self, kind: &str) -> Amount {
        let accounts: Vec<AccountView> = self.app.accounts().await.expect("accounts are listed");
        let of_kind = accounts.iter().filter(|account| account.owner.is_none() && account.kind == kind);
        Amount(of_kind.map(|account| account.balance.0).sum())
    }

    /// What is true after every step: the books are in order, and states agree with each other.
    pub(crate) async fn check(&self) {
        assert_books(&self.database).await;
        let rules = [
            (
                "claims are paid when final and slashed when rejected",
                "select count(*) from claims c left join settlements s using (job_id, claim_id)
                    where s.kind is distinct from
                        case c.state when 'finalized' then 'paid' when 'rejected' then 'slashed' end",
            ),
            (
                "claims count their open disputes",
                "select count(*) from claims c where open_disputes <> (select count(*) from disputes d
                    where d.job_id = c.job_id and d.claim_id = c.claim_id and d.ended_ms is null)",
            ),
            (
                "a lease is held exactly while its job is assigned",
                "select count(*) from jobs j where (j.state = 'assigned') <>
                    exists (select 1 from leases l where l.job_id = j.job_id and l.state = 'held')",
            ),
        ];
        let mut snapshot =
            self.pool.begin_with("begin isolation level repeatable read").await.expect("a snapshot");
        for (rule, query) in rules {
            let broken: i64 =
                sqlx::query_scalar(query).fetch_one(&mut *snapshot).await.expect("a rule can be checked");
            assert_eq!(broken, 0, "broken: {rule}");
        }
    }

    /// From now on, no transaction succeeds that writes an event of this kind: the last thing it does.
    pub(crate) async fn break_events(&self, kind: &'static str) {
        use sqlx::Executor as _;
        self.pool
            .execute(
                "create function break_events() returns trigger language plpgsql as
                    $$ begin raise exception 'broken by the test'; end $$",
            )
            .await
            .expect("a function");
        let trigger = format!(
            "create trigger broken before insert on events for each row when (new.kind = '{kind}')
                execute function break_events()"
        );
        self.pool.execute(sqlx::AssertSqlSafe(trigger)).await.expect("a trigger");
    }

    pub(crate) async fn mend_events(&self) {
        use sqlx::Executor as _;
        self.pool.execute("drop function break_events cascade").await.expect("the trigger goes");
    }

    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.expect("a count")
    }
}

/// A claim on record with the run behind it.
pub(crate) struct Claimed {
    pub(crate) job: JobId,
    pub(crate) id: ClaimId,
    pub(crate) claim: Signed<Claim>,
    pub(crate) fixture: Fixture,
}

impl Claimed {
    fn case(&self) -> Case<'_> {
        Case::new(self.fixture.model().model(), self.fixture.job(), &self.claim.body).expect("it fits")
    }

    /// The opening of an honest challenger; none if the claim is right.
    pub(crate) fn opening(&self, challenger: &Party) -> Option<Signed<Open>> {
        let own = self.fixture.honest().layers();
        let layer = first_difference(&self.claim.body, &own).expect("same model")?;
        Some(self.opening_of(challenger, layer, own[layer as usize]))
    }

    pub(crate) fn opening_of(
        &self,
        challenger: &Party,
        layer: u32,
        commitment: TensorCommitment,
    ) -> Signed<Open> {
        let open = Open { claim: self.id, challenger: challenger.id(), layer, commitment };
        Signed::sign(open, &challenger.key)
    }

    /// The next move of whoever is on turn, both playing their best.
    pub(crate) fn next_move(
        &self,
        view: &DisputeView,
        worker: &Party,
        challenger: &Party,
    ) -> Option<SignedMove> {
        use gainsay_commitment::Canonical as _;
        let dispute = Dispute::from_bytes(&view.fold).expect("the fold decodes");
        let (case, mut worker_run): (_, ToyRun) = (self.case(), self.fixture.claimed().clone());
        if let WorkerStep::Reveal(reveal) =
            worker_next(&dispute, &case, &mut worker_run).expect("the worker has its run")
        {
            return Some(Signed::sign(reveal, &worker.key).into());
        }
        let mut own: ToyRun = self.fixture.honest().clone();
        match challenger_next(&dispute, &case, &mut own).expect("the challenger has its run") {
            ChallengerStep::Choose(choice) => Some(Signed::sign(choice, &challenger.key).into()),
            _ => None,
        }
    }

    /// Plays a dispute to its end; the ledger is checked after every move.
    pub(crate) async fn play(
        &self,
        world: &World,
        id: DisputeId,
        worker: &Party,
        challenger: &Party,
    ) -> DisputeView {
        for _ in 0..200 {
            let view = world.app.dispute(id).await.expect("the dispute is known");
            let Some(made) = self.next_move(&view, worker, challenger) else { return view };
            world.app.post_move(id, &made.to_bytes()).await.expect("an honest move is taken");
            world.check().await;
        }
        panic!("the dispute does not end");
    }

    pub(crate) async fn open(&self, world: &World, opening: &Signed<Open>) -> DisputeId {
        let bytes = SignedMove::from(opening.clone()).to_bytes();
        let view = world.app.open_dispute(&bytes).await.expect("the dispute is opened");
        world.check().await;
        view.id
    }
}

/// A fault that changes a layer commitment.
pub(crate) fn fault(builder: &FixtureBuilder) -> Fault {
    let (place, elements) = builder.places()[4];
    let fault = Fault::Flip { place, element: elements - 1, bit: 22 };
    assert!(!builder.build(fault, 1).is_true(), "the fault must matter");
    fault
}
