//! What the database itself refuses, whatever code runs on it.

use sqlx::{Connection, PgConnection};

use crate::support::World;

const TRANSACTION: &str = "insert into ledger_transactions (transaction_id, event, at_ms)
    values ('00000000-0000-0000-0000-000000000001', 'deposit', 0)";

/// Runs statements in one transaction; the constraint or message that refused, if any.
async fn refused_by(world: &World, statements: &[&'static str]) -> Option<String> {
    let mut connection = PgConnection::connect(world.database.url()).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    for statement in statements {
        if let Err(error) = sqlx::query(*statement).execute(&mut *tx).await {
            return Some(name_of(&error));
        }
    }
    tx.commit().await.err().as_ref().map(name_of)
}

fn name_of(error: &sqlx::Error) -> String {
    let error = error.as_database_error().expect("the database refused");
    error.constraint().map_or_else(|| error.message().to_owned(), str::to_owned)
}

#[tokio::test]
async fn entries_must_sum_to_zero_when_the_transaction_ends() {
    let world = World::new().await;
    let one_sided = "insert into ledger_entries
        select '00000000-0000-0000-0000-000000000001', 'free', uuid_send(owner_id), 5 from owners limit 1";
    let refused = refused_by(&world, &[TRANSACTION, one_sided]).await;
    assert_eq!(refused.as_deref(), Some("ledger_entries_sum_to_zero"));
    let other_side =
        "insert into ledger_entries values ('00000000-0000-0000-0000-000000000001', 'outside', '', -5)";
    assert_eq!(refused_by(&world, &[TRANSACTION, one_sided, other_side]).await, None);
    world.check().await;
    // Adding to a transaction that is complete unbalances it.
    let late = "insert into ledger_entries select transaction_id, 'held', decode(repeat('00', 32), 'hex'), 1
        from ledger_transactions where transaction_id = '00000000-0000-0000-0000-000000000001'";
    assert_eq!(refused_by(&world, &[late]).await.as_deref(), Some("ledger_entries_sum_to_zero"));
    world.check().await;
}

#[tokio::test]
async fn only_outside_may_fall_below_zero() {
    let world = World::new().await;
    for (kind, holder) in [("free", 16), ("locked", 16), ("escrow", 16), ("held", 32), ("treasury", 0)] {
        let mut tx = world.pool.begin().await.unwrap();
        sqlx::query(TRANSACTION).execute(&mut *tx).await.unwrap();
        let refused = sqlx::query(
            "insert into ledger_entries values ('00000000-0000-0000-0000-000000000001', $1, $2, -1),
                ('00000000-0000-0000-0000-000000000001', 'outside', '', 1)",
        )
        .bind(kind)
        .bind(vec![0u8; holder])
        .execute(&mut *tx)
        .await;
        assert_eq!(name_of(&refused.unwrap_err()), "accounts_balance_not_negative", "{kind}");
    }
    world.check().await;
}

#[tokio::test]
async fn balances_change_by_entries_alone() {
    let world = World::new().await;
    for statement in [
        "update accounts set balance = balance + 1 where kind = 'free'",
        "update accounts set holder = decode(repeat('00', 16), 'hex') where kind = 'free'",
        "insert into accounts (kind, holder, balance) values ('held', decode(repeat('00', 32), 'hex'), 5)",
        "delete from accounts",
    ] {
        let refused = refused_by(&world, &[statement]).await;
        assert_eq!(refused.as_deref(), Some("accounts_derived_only"), "{statement}");
    }
    world.check().await;
}

#[tokio::test]
async fn what_is_written_stays_written() {
    let world = World::new().await;
    for statement in [
        "update ledger_entries set amount = amount + 1",
        "delete from ledger_entries",
        "update ledger_transactions set at_ms = 0",
        "delete from ledger_transactions",
        "update events set kind = 'other'",
        "delete from events",
    ] {
        let refused = refused_by(&world, &[statement]).await;
        assert!(refused.as_ref().is_some_and(|why| why.contains("append-only")), "{statement}: {refused:?}");
    }
    world.check().await;
}

#[tokio::test]
async fn malformed_accounts_and_empty_entries_are_refused() {
    let world = World::new().await;
    let zero =
        "insert into ledger_entries values ('00000000-0000-0000-0000-000000000001', 'treasury', '', 0)";
    let refused = refused_by(&world, &[TRANSACTION, zero]).await;
    assert_eq!(refused.as_deref(), Some("ledger_entries_amount_not_zero"));
    let short = "insert into ledger_entries values
        ('00000000-0000-0000-0000-000000000001', 'free', '\\x00', 1),
        ('00000000-0000-0000-0000-000000000001', 'outside', '', -1)";
    let refused = refused_by(&world, &[TRANSACTION, short]).await;
    assert_eq!(refused.as_deref(), Some("accounts_holder_length"));
    let unknown = "insert into ledger_entries values
        ('00000000-0000-0000-0000-000000000001', 'gifts', '', 1),
        ('00000000-0000-0000-0000-000000000001', 'outside', '', -1)";
    let refused = refused_by(&world, &[TRANSACTION, unknown]).await;
    assert_eq!(refused.as_deref(), Some("accounts_kind"));
}
