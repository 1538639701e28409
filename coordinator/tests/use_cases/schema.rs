//! `schema.sql` is what the migrations add up to.

use std::collections::BTreeSet;

use gainsay_testkit::Database;
use sqlx::{Connection, Executor, PgConnection};

use crate::support::World;

/// Everything that a schema consists of, one line each, as the server itself words it.
const CATALOG: &str = "
    select 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
            || case when a.attnotnull then ' not null' else '' end || ' identity=' || a.attidentity::text
            || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
        from pg_attribute a join pg_class c on c.oid = a.attrelid
            left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v') and a.attnum > 0
            and not a.attisdropped
    union all
    select 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
        from pg_constraint where connamespace = 'public'::regnamespace
    union all
    select 'index ' || pg_get_indexdef(indexrelid) from pg_index
        where indrelid in (select oid from pg_class where relnamespace = 'public'::regnamespace)
    union all
    select 'trigger ' || pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = t.tgrelid
        where c.relnamespace = 'public'::regnamespace and not t.tgisinternal
    union all
    select 'function ' || pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace";

async fn catalog(url: &str) -> BTreeSet<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let lines: Vec<String> = sqlx::query_scalar(CATALOG).fetch_all(&mut connection).await.unwrap();
    lines.into_iter().filter(|line| !line.contains("_sqlx_migrations")).collect()
}

#[tokio::test]
async fn the_schema_file_is_the_sum_of_the_migrations() {
    let world = World::new().await;
    let by_hand = Database::create().await;
    let mut connection = PgConnection::connect(by_hand.url()).await.unwrap();
    connection.execute(sqlx::raw_sql(include_str!("../../../sql/schema.sql"))).await.unwrap();
    let (migrated, stated) = (catalog(world.database.url()).await, catalog(by_hand.url()).await);
    assert!(migrated.len() > 200, "the catalog was read");
    let missing: Vec<_> = migrated.difference(&stated).collect();
    let surplus: Vec<_> = stated.difference(&migrated).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "schema.sql lacks {missing:#?} and has besides {surplus:#?}"
    );
}

#[tokio::test]
async fn every_constraint_has_a_name_that_says_whose_it_is() {
    let world = World::new().await;
    let unnamed: Vec<(String, String)> = sqlx::query_as(
        "select conrelid::regclass::text, conname::text from pg_constraint
            where connamespace = 'public'::regnamespace and conrelid <> 0
                and conrelid <> '_sqlx_migrations'::regclass
                and not starts_with(conname::text, conrelid::regclass::text || '_')",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert_eq!(unnamed, []);
}

#[tokio::test]
async fn a_database_has_one_coordinator() {
    let world = World::new().await;
    world.app.ready().await.expect("the schema is this build's");
    let mut config = world.app.config().clone();
    config.key_file = config.blob_dir.join("another key");
    let bus = std::sync::Arc::new(gainsay_coordinator::bus::InProcess::new());
    let refused = gainsay_coordinator::app::App::start(config, bus).await;
    assert!(refused.is_err(), "another key took over the database");
}

#[cfg(unix)]
#[tokio::test]
async fn the_key_file_is_its_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    let mode = std::fs::metadata(&world.app.config().key_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(world.second_coordinator().await.coordinator(), world.app.coordinator());
}
