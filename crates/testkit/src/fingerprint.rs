//! The whole state of a service in one value, to say that something changed nothing.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::Database;

/// Tables that a refused request may touch: the nonce that it used up, the time that passes by itself.
const EXEMPT: [&str; 3] = ["request_nonces", "service_clock", "_sqlx_migrations"];

/// A hash of the rows of each table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// Reads all tables.
    ///
    /// # Panics
    /// If the database does not answer.
    pub async fn of(database: &Database) -> Self {
        let mut connection = PgConnection::connect(database.url()).await.expect("the database answers");
        let tables: Vec<String> =
            sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public'")
                .fetch_all(&mut connection)
                .await
                .expect("tables can be listed");
        let mut hashes = BTreeMap::new();
        for table in tables.into_iter().filter(|table| !EXEMPT.contains(&table.as_str())) {
            let statement = format!(
                "select md5(coalesce(string_agg(t::text, chr(10) order by t::text), '')) from \"{table}\" t"
            );
            let hash: String = sqlx::query_scalar(AssertSqlSafe(statement))
                .fetch_one(&mut connection)
                .await
                .expect("a table can be read");
            hashes.insert(table, hash);
        }
        Self(hashes)
    }

    /// The tables that differ.
    #[must_use]
    pub fn changed(&self, later: &Self) -> Vec<String> {
        let tables = self.0.keys().chain(later.0.keys().filter(|table| !self.0.contains_key(*table)));
        tables.filter(|table| self.0.get(*table) != later.0.get(*table)).cloned().collect()
    }
}
