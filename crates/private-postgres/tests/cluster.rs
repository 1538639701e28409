//! Private servers as their users meet them: several at once, stopped, killed, orphaned.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gainsay_private_postgres::{Cluster, Durability, Error, Options, Programs};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use sqlx::{Connection as _, PgConnection};

/// A folder of this test's own that the server's user can enter, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gainsay-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("the temporary folder is writable");
        Self(path)
    }

    fn data(&self) -> PathBuf {
        self.0.join("state/data")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("own folder");
    }
}

fn start(data_dir: Option<PathBuf>, durability: Durability) -> Cluster {
    let options = Options { data_dir, durability, ..Options::default() };
    Cluster::start(options, &|step| eprintln!("{step}")).expect("the server starts")
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

async fn connect(cluster: &Cluster, database: &str) -> PgPool {
    PgPoolOptions::new()
        .max_connections(4)
        .connect(&cluster.url(database))
        .await
        .expect("the server accepts us")
}

/// Processes that have the data folder as their own: every PostgreSQL process of the cluster.
fn processes_in(data_dir: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("there is a process table").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|folder| folder.starts_with(data_dir)))
        .collect()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn kill(process_id: u32) {
    let pid = i32::try_from(process_id).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::KILL).expect("the process is there and ours");
}

async fn number(pool: &PgPool, sql: &'static str) -> i32 {
    sqlx::query_scalar(sql).fetch_one(pool).await.expect("the query is valid")
}

#[test]
fn two_clusters_serve_side_by_side_and_leave_nothing_running() {
    let folder = Folder::new("pair");
    let (temporary, kept) = (start(None, Durability::TestOnly), start(Some(folder.data()), Durability::Safe));
    assert!(temporary.major_version() >= 15);
    for name in ["app", "app", "test_2"] {
        temporary.create_database(name).expect("a new or known name");
    }
    for name in ["", "Robert'); DROP", "a\"b", &"x".repeat(64)] {
        assert!(matches!(temporary.create_database(name), Err(Error::DatabaseName { .. })), "took {name:?}");
    }

    wait_for(async {
        let pool = connect(&temporary, "app").await;
        assert_eq!(number(&pool, "SELECT 1").await, 1);
        notifications_arrive(&temporary, &pool).await;
        locked_rows_are_skipped(&pool).await;
        let other = connect(&kept, "postgres").await;
        assert_eq!(number(&other, "SELECT count(*)::int FROM pg_database WHERE datname = 'app'").await, 0);
        assert_eq!(setting(&pool, "SHOW fsync").await, "off");
        assert_eq!(setting(&other, "SHOW fsync").await, "on");
        assert_eq!(setting(&other, "SHOW listen_addresses").await, "");
    });

    let folders = [temporary.data_dir().to_owned(), kept.data_dir().to_owned()];
    assert!(folders.iter().all(|folder| processes_in(folder).len() > 1), "the servers have processes");
    temporary.stop().expect("a clean stop, sessions or not");
    kept.stop().expect("a clean stop, sessions or not");
    assert!(folders.iter().all(|folder| processes_in(folder).is_empty()), "no process remains");
    assert_eq!(folders.each_ref().map(|folder| folder.exists()), [false, true], "only named data is kept");
    assert!(!folders[0].parent().expect("a run folder").exists());
}

async fn notifications_arrive(cluster: &Cluster, pool: &PgPool) {
    let mut listener = PgListener::connect(&cluster.url("app")).await.expect("a connection");
    listener.listen("jobs").await.expect("a channel");
    sqlx::query("SELECT pg_notify('jobs', 'seven')").execute(pool).await.expect("a notification");
    assert_eq!(listener.recv().await.expect("it arrives").payload(), "seven");
}

async fn locked_rows_are_skipped(pool: &PgPool) {
    const TAKE: &str = "SELECT id FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1";
    sqlx::query("CREATE TABLE jobs AS SELECT generate_series(1, 2) AS id")
        .execute(pool)
        .await
        .expect("a table");
    let mut first = pool.begin().await.expect("a transaction");
    let mut second = pool.begin().await.expect("a transaction");
    let taken: i32 = sqlx::query_scalar(TAKE).fetch_one(&mut *first).await.expect("a row");
    let next: i32 = sqlx::query_scalar(TAKE).fetch_one(&mut *second).await.expect("a row");
    assert_eq!((taken, next), (1, 2));
}

async fn setting(pool: &PgPool, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(pool).await.expect("a setting")
}

#[test]
fn a_killed_server_comes_back_at_its_address_with_what_was_committed() {
    let folder = Folder::new("again");
    let mut cluster = start(Some(folder.data()), Durability::Safe);
    let url = cluster.url("postgres");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let pool = runtime.block_on(async {
        let pool = connect(&cluster, "postgres").await;
        sqlx::query("CREATE TABLE kept AS SELECT 41 AS value").execute(&pool).await.expect("a table");
        pool
    });
    cluster.kill().expect("it runs");
    cluster.kill().expect("a dead server is as dead as can be");
    assert!(runtime.block_on(PgConnection::connect(&url)).is_err(), "somebody answers for a dead server");
    cluster.start_again().expect("it recovers");
    assert_eq!(cluster.url("postgres"), url);
    runtime.block_on(async {
        assert_eq!(number(&pool, "UPDATE kept SET value = value + 1 RETURNING value").await, 42);
        pool.close().await;
    });
    cluster.stop().expect("a clean stop");
}

#[test]
fn committed_data_survives_a_killed_server_and_a_clean_stop() {
    let folder = Folder::new("killed");
    let killed = start(Some(folder.data()), Durability::Safe);
    wait_for(async {
        let pool = connect(&killed, "postgres").await;
        sqlx::query("CREATE TABLE kept AS SELECT 41 AS value").execute(&pool).await.expect("a table");
    });
    kill(killed.process_id());

    // At once: the killed server's processes may still hold the data.
    let recovered = start(Some(folder.data()), Durability::Safe);
    assert_ne!(recovered.process_id(), killed.process_id());
    assert!(matches!(killed.stop(), Err(Error::Stop { .. })), "a killed server has not stopped cleanly");
    wait_for(async {
        let pool = connect(&recovered, "postgres").await;
        assert_eq!(number(&pool, "UPDATE kept SET value = value + 1 RETURNING value").await, 42);
    });
    recovered.stop().expect("a clean stop");

    let again = start(Some(folder.data()), Durability::Safe);
    wait_for(async {
        assert_eq!(number(&connect(&again, "postgres").await, "SELECT value FROM kept").await, 42);
    });
    drop(again);
    assert!(processes_in(&folder.data()).is_empty(), "no process remains");
}

/// In the child that the test below starts, this variable is set.
const CHILD: &str = "GAINSAY_TEST_HOLD_A_CLUSTER";

#[test]
fn a_server_ends_with_the_process_that_started_it_however_that_ends() {
    if std::env::var_os(CHILD).is_some() {
        let cluster = start(None, Durability::TestOnly);
        println!("\ndata in {}", cluster.data_dir().display());
        loop {
            std::thread::park();
        }
    }
    let mut child = Command::new(std::env::current_exe().expect("this test's program"))
        .args(["--exact", "a_server_ends_with_the_process_that_started_it_however_that_ends", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test's program runs");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let data_dir =
        lines.map_while(Result::ok).find_map(|line| line.strip_prefix("data in ").map(PathBuf::from));
    let data_dir = data_dir.expect("the child says where its data is");
    assert!(processes_in(&data_dir).len() > 1);

    kill(child.id());
    child.wait().expect("our child");
    until("the orphaned server ends", || processes_in(&data_dir).is_empty());
    // A killed process cannot remove its folder. The next cluster does, of whichever test comes first.
    start(None, Durability::TestOnly).stop().expect("a clean stop");
    until("the orphaned folder is removed", || !data_dir.exists());
}

#[test]
fn folders_and_programs_that_will_not_do_are_refused() {
    let folder = Folder::new("refused");
    let refused = |data_dir: PathBuf, programs| {
        let options = Options { data_dir: Some(data_dir), programs, ..Options::default() };
        Cluster::start(options, &|_| {}).expect_err("the folder will not do")
    };
    fs::write(folder.0.join("letters"), "dear").expect("own folder");
    let error = refused(folder.0.clone(), Programs::Search);
    assert!(matches!(&error, Error::NotData { data_dir } if *data_dir == folder.0), "{error}");
    assert_eq!(fs::read_to_string(folder.0.join("letters")).expect("it is there"), "dear", "left as it was");

    fs::create_dir_all(folder.data()).expect("own folder");
    fs::write(folder.data().join("PG_VERSION"), "9\n").expect("own folder");
    let error = refused(folder.data(), Programs::Search);
    assert!(matches!(error, Error::OtherVersion { major: 9, .. }), "{error}");

    let error = refused(folder.0.join("new"), Programs::Folder(folder.0.clone()));
    assert!(matches!(error, Error::NoPrograms { .. }), "{error}");
    assert!(!folder.0.join("new").exists(), "nothing was made");
}
