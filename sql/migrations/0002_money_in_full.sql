-- What money in full needs: profile versions that can be withdrawn, requests that may safely be repeated, a ledger
-- that an auditor can read in pages as of one moment, and receipts that bind the clocks of disputes.

-- ── withdrawn profile versions ──────────────────────────────────────────────────────────────────────────────

create table voids (
    -- Name and version of the arithmetic profile.
    arithmetic text not null,
    -- The coordinator's signed statement, as published.
    statement bytea not null,
    reason text not null,
    at_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint voids_pkey primary key (arithmetic),
    constraint voids_arithmetic_length check (char_length(arithmetic) between 1 and 64),
    constraint voids_reason_length check (char_length(reason) between 1 and 1000)
);
create trigger voids_append_only before update or delete on voids
    for each row execute function refuse_change();

alter table models
    drop constraint models_state,
    add constraint models_state check (state in ('incomplete', 'serving', 'voided'));
alter table leases
    drop constraint leases_state,
    add constraint leases_state check (state in ('held', 'claimed', 'lost', 'voided'));
alter table holds
    drop constraint holds_state,
    add constraint holds_state check (state in ('held', 'released', 'voided'));

create index jobs_undecided_of_model_idx on jobs (model_id) where decided_ms is null;

-- ── requests that may be repeated ───────────────────────────────────────────────────────────────────────────

-- Keys that clients gave to requests about money: the same request again has the effect of one.
create table idempotency_keys (
    -- Whose keys these are: an owner, or all zeros for the operator.
    scope uuid not null,
    key text not null,
    -- Hash of route and body: the same key with another request is refused.
    request_hash bytea not null,
    -- The jobs that a submission made.
    job_ids uuid[] not null,
    received_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint idempotency_keys_pkey primary key (scope, key),
    constraint idempotency_keys_key_length check (char_length(key) between 1 and 255),
    constraint idempotency_keys_request_hash_length check (octet_length(request_hash) = 32)
);
create index idempotency_keys_received_ms_idx on idempotency_keys (received_ms);

-- ── the ledger as of one moment ─────────────────────────────────────────────────────────────────────────────

-- Place of the database transaction that posted it, as in `events`: which transactions a snapshot holds.
alter table ledger_transactions add column position bigint not null default event_position();

-- ── receipts that bind clocks ───────────────────────────────────────────────────────────────────────────────

alter table claims
    add column worker_allowance_ms bigint not null default 300000,
    add column challenger_allowance_ms bigint not null default 300000;
alter table claims
    alter column worker_allowance_ms drop default,
    alter column challenger_allowance_ms drop default,
    add constraint claims_allowances_positive check (worker_allowance_ms > 0 and challenger_allowance_ms > 0);

-- How long the referee took over the move, where it judged.
alter table dispute_records add column referee_us bigint;

-- Who brought the second claim; none where the worker sent it itself.
alter table equivocations
    add column reporter_id uuid,
    add constraint equivocations_reporter_id_fkey foreign key (reporter_id) references owners (owner_id);

-- ── what is kept for a while only ───────────────────────────────────────────────────────────────────────────

-- Refusals decide nothing once their dispute is over: they are pruned, never changed.
drop trigger move_refusals_append_only on move_refusals;
create trigger move_refusals_never_changed before update on move_refusals
    for each row execute function refuse_change();
create index move_refusals_at_ms_idx on move_refusals (at_ms);
