//! An audit finds what the database's own walls would have refused, had they stood.

use gainsay_protocol::ledger::audit::Finding;
use gainsay_protocol::ledger::{Account, TransactionKind};
use gainsay_protocol::toy::Fault;
use gainsay_protocol::{Amount, JobId};
use gainsay_testkit::audit_books;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::support::{PRICE, World, fault, parameters};

/// A world in which something of every kind has happened: a job paid, one in escrow, a lease, a conviction, a bond.
async fn eventful() -> (World, JobId) {
    let world = World::new().await;
    let (honest, cheat) = (world.worker("honest").await, world.worker("cheat").await);
    let challenger = world.challenger("challenger").await;
    let paid = world.claimed(&honest, Fault::None).await;
    world.advance(parameters().window_ms).await;
    world.reconcile().await;
    let convicted = world.claimed(&cheat, fault(&world.builder)).await;
    let id = convicted.open(&world, &convicted.opening(&challenger).expect("it is false")).await;
    convicted.play(&world, id, &cheat, &challenger).await;
    world.submit().await;
    world.lease(&honest).await.expect("a job is there");
    let pending = world.claimed(&honest, Fault::None).await;
    let wrong = gainsay_commitment::TensorCommitment::from_bytes([5; 32]);
    pending.open(&world, &pending.opening_of(&challenger, 1, wrong)).await;
    assert_eq!(audit_books(&world.database).await, []);
    (world, paid.job)
}

/// Does as a superuser what no trigger sees.
async fn behind_the_walls(world: &World, statements: &str) {
    let mut connection = PgConnection::connect(world.database.url()).await.unwrap();
    let text = format!("set session_replication_role = replica; {statements}");
    connection.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.unwrap();
}

async fn found_after(world: &World, statements: &str) -> Vec<Finding> {
    behind_the_walls(world, statements).await;
    audit_books(&world.database).await
}

#[tokio::test]
async fn a_balance_changed_by_hand_is_found_on_its_account() {
    let (world, _) = eventful().await;
    let free = Account::Free(world.submitter);
    let holder = format!("uuid_send('{}')", world.submitter);
    let update =
        format!("update accounts set balance = balance + 7 where kind = 'free' and holder = {holder}");
    let found = found_after(&world, &update).await;
    assert_eq!(found[0], Finding::Total { sum: 7 });
    let Finding::Balance { account, derived, recorded } = found[1] else { panic!("{found:?}") };
    assert_eq!((account, recorded - derived, found.len()), (free, 7, 2));
}

#[tokio::test]
async fn a_forged_entry_is_found_even_where_the_balance_agrees_with_it() {
    let (world, _) = eventful().await;
    let found = found_after(
        &world,
        "update ledger_entries set amount = amount + 9 where transaction_id =
             (select transaction_id from ledger_transactions where event = 'finalize') and kind = 'treasury';
         update accounts set balance = balance + 9 where kind = 'treasury'",
    )
    .await;
    assert!(found.iter().any(|finding| matches!(finding, Finding::Unbalanced { sum: 9, .. })), "{found:?}");
    assert!(found.contains(&Finding::Total { sum: 9 }), "{found:?}");
}

#[tokio::test]
async fn money_moved_under_a_wrong_name_is_found() {
    let (world, _) = eventful().await;
    let found =
        found_after(&world, "update ledger_transactions set event = 'deposit' where event = 'lock_bond'");
    let found = found.await;
    assert!(!found.is_empty());
    for finding in &found {
        let Finding::Misposted { kind: TransactionKind::Deposit, .. } = finding else {
            panic!("{finding:?}")
        };
    }
}

#[tokio::test]
async fn escrow_stake_bond_or_hold_that_nothing_accounts_for_is_found() {
    let statements = [
        "update jobs set price = price + 1 where state = 'assigned'",
        "update leases set stake = stake + 1 where state = 'held'",
        "update claims set stake = stake + 1 where state = 'pending'",
        "update bonds set amount = amount - 1 where state = 'locked'",
        "update holds set amount = amount - 1 where state = 'held'",
        "update holds set state = 'released', released_ms = 1",
    ];
    for statement in statements {
        let (world, _) = eventful().await;
        let found = found_after(&world, statement).await;
        assert_eq!(found.len(), 1, "{statement}: {found:?}");
        assert!(matches!(found[0], Finding::Unexplained { .. }), "{statement}: {found:?}");
    }
}

#[tokio::test]
async fn a_claim_paid_twice_or_paid_and_rejected_is_found() {
    let (world, paid) = eventful().await;
    let again = format!(
        "create temp table t as select gen_random_uuid() as id;
         insert into ledger_transactions (transaction_id, event, job_id, claim_id, at_ms)
             select t.id, 'finalize', l.job_id, l.claim_id, l.at_ms from ledger_transactions l, t
             where l.event = 'finalize' and l.job_id = '{paid}';"
    );
    let found = found_after(&world, &again).await;
    assert!(found.iter().any(|finding| matches!(finding, Finding::SettledTwice { .. })), "{found:?}");
    assert!(found.iter().any(|finding| matches!(finding, Finding::Unsettled { .. })), "{found:?}");

    let (world, _) = eventful().await;
    let found = found_after(
        &world,
        "update claims set state = 'rejected', rejected_because = 'dispute' where state = 'finalized'",
    )
    .await;
    assert!(found.iter().any(|finding| matches!(finding, Finding::Unsettled { .. })), "{found:?}");
    assert!(found.iter().any(|finding| matches!(finding, Finding::Unpaid { .. })), "{found:?}");
}

#[tokio::test]
async fn a_transaction_that_is_gone_is_missed() {
    let (world, _) = eventful().await;
    let found = found_after(
        &world,
        "create temp table gone as select transaction_id from ledger_transactions where event = 'submit' limit 1;
         delete from ledger_entries where transaction_id in (select transaction_id from gone);
         delete from ledger_transactions where transaction_id in (select transaction_id from gone)",
    )
    .await;
    let differs = |account: Account| {
        found.iter().any(|finding| matches!(finding, Finding::Balance { account: a, .. } if *a == account))
    };
    assert!(differs(Account::Free(world.submitter)), "{found:?}");
}

/// What is posted while the log is read belongs to the next audit, not half to this one.
#[tokio::test]
async fn pages_of_the_log_show_one_moment_whatever_happens_meanwhile() {
    use gainsay_protocol::ledger::audit::Audit;
    let (world, _) = eventful().await;
    // A transaction that is under way when the moment is taken, and posts later.
    let mut early = world.pool.begin().await.unwrap();
    sqlx::query("select pg_current_xact_id()").execute(&mut *early).await.unwrap();
    let books = world.app.books().await.unwrap();
    sqlx::query(
        "with t as (insert into ledger_transactions (transaction_id, event, at_ms)
                values ('00000000-0000-7000-8000-000000000001', 'deposit', 0) returning transaction_id)
            insert into ledger_entries (transaction_id, kind, holder, amount)
                select transaction_id, k, h, a from t, (values ('outside', ''::bytea, -5::bigint), ('free', uuid_send($1::uuid), 5)) as x (k, h, a)",
    )
    .bind(sqlx::types::Uuid::from_bytes(world.submitter.0))
    .execute(&mut *early)
    .await
    .unwrap();
    early.commit().await.unwrap();
    world.app.deposit(world.submitter, PRICE).await.unwrap();
    world.submit().await;

    let (mut audit, mut after) = (Audit::new(), None);
    loop {
        let page = world.app.ledger_log(&books.snapshot, after, 3).await.unwrap();
        page.iter().for_each(|logged| audit.transaction(logged));
        let Some(last) = page.last() else { break };
        after = Some(last.id);
    }
    assert_eq!(audit.finish(&books.facts), []);
    let now = audit_books(&world.database).await;
    assert_eq!(now, [], "the next audit sees all of it");
    assert_eq!(world.balance(world.submitter, "free").await.0 % PRICE.0, Amount(5).0);
}
