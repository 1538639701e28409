//! One fresh database a test.

use std::sync::OnceLock;

use gainsay_private_postgres::{Cluster, Durability, Options};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

/// Names a running server whose databases may be created and dropped at will, as
/// `postgres://user@host:port/postgres`. Without it, the process starts a private cluster of its own.
pub const SERVER_VARIABLE: &str = "GAINSAY_TEST_DATABASE_URL";

/// An empty database on the server that the tests of this process share. Dropped with the value.
#[derive(Debug)]
pub struct Database {
    server: &'static str,
    name: String,
    url: String,
}

impl Database {
    /// Creates a database.
    ///
    /// # Panics
    /// If no server can be reached or started; the message says what to do.
    pub async fn create() -> Self {
        let server = server();
        let name = format!("gainsay_test_{}", Uuid::now_v7().simple());
        let mut connection = PgConnection::connect(server).await.unwrap_or_else(|error| {
            panic!("no PostgreSQL at {server}: {error}. Unset {SERVER_VARIABLE}, or start a server there")
        });
        connection
            .execute(AssertSqlSafe(format!("create database {name}")))
            .await
            .unwrap_or_else(|error| panic!("cannot create a database at {server}: {error}"));
        let url = with_database(server, &name);
        Self { server, name, url }
    }

    /// Where a client reaches it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The test's own runtime may be the one that is stopping, so the farewell has a thread and runtime
        // of its own. A failure leaves an orphan on a throw-away server: not worth a second panic.
        let statement = format!("drop database if exists {} with (force)", self.name);
        let server = self.server;
        let farewell = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(async {
                    if let Ok(mut connection) = PgConnection::connect(server).await {
                        drop(connection.execute(AssertSqlSafe(statement)).await);
                    }
                });
            }
        });
        drop(farewell.join());
    }
}

/// The server's address with another database's name in it.
fn with_database(server: &str, name: &str) -> String {
    let (address, options) = server.split_once('?').map_or((server, None), |(a, o)| (a, Some(o)));
    let (host, _) = address.rsplit_once('/').unwrap_or((address, ""));
    let options = options.map(|options| format!("?{options}")).unwrap_or_default();
    format!("{host}/{name}{options}")
}

fn server() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| std::env::var(SERVER_VARIABLE).unwrap_or_else(|_| private_server()))
}

/// A cluster for this process alone. It ends with the process, whose statics are never dropped.
fn private_server() -> String {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| {
        let options = Options { durability: Durability::TestOnly, ..Options::default() };
        // Starting blocks, and may be called from a test's single-threaded runtime: a thread of its own would end
        // the server with it, since the server stops with the thread that started it.
        Cluster::start(options, &|_| {}).unwrap_or_else(|error| {
            panic!("cannot start PostgreSQL for tests: {error}. Or set {SERVER_VARIABLE} to a server")
        })
    });
    cluster.url("postgres")
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_name_of_the_database_changes() {
        let cases = [
            ("postgres://app@localhost:5432/postgres", "postgres://app@localhost:5432/x"),
            ("postgres://app@/postgres?host=/run/pg", "postgres://app@/x?host=/run/pg"),
        ];
        for (server, expected) in cases {
            assert_eq!(with_database(server, "x"), expected);
        }
    }
}
