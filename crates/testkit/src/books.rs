//! The ledger of a service, audited.

use gainsay_coordinator::store::audit;
use gainsay_protocol::ledger::audit::{Audit, Finding};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::Database;

/// Transactions read at a time.
const PAGE: u32 = 500;

/// Derives every balance again from the ledger's log and holds it against the accounts, jobs, stakes, bonds and holds,
/// as `gainsay audit` does. Nothing found: the books are in order.
///
/// # Panics
/// If the database does not answer, or is none of a coordinator's.
pub async fn audit_books(database: &Database) -> Vec<Finding> {
    let mut connection = PgConnection::connect(database.url()).await.expect("the database answers");
    let begin = "begin isolation level repeatable read read only";
    connection.execute(begin).await.expect("a snapshot begins");
    let (snapshot, facts) = audit::facts(&mut connection).await.expect("the facts can be read");
    let (mut audit, mut after) = (Audit::new(), None);
    loop {
        let page = audit::log(&mut connection, &snapshot, after, PAGE).await.expect("the log can be read");
        page.iter().for_each(|logged| audit.transaction(logged));
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = Some(last.id),
            _ => break,
        }
    }
    connection.close().await.expect("the database says farewell");
    audit.finish(&facts)
}

/// [`audit_books`], which must find nothing.
///
/// # Panics
/// If anything differs, with a list of it.
pub async fn assert_books(database: &Database) {
    let findings = audit_books(database).await;
    let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "the books are not in order:\n{}", list.join("\n"));
}
