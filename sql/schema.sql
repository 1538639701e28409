-- The schema as it stands after all migrations, for people to read in one piece. Nothing runs it but a test, which
-- holds the catalog that it makes against the one that the migrations make.
--
-- Conventions: `…_ms` columns hold service time in milliseconds; `timestamptz` columns are for people alone and
-- decide nothing. Hashes and keys are `bytea` of checked length. States are text under a named check. Rows that
-- belong to a job carry its id first in their key: a job id is a UUID of version 7, which ascends with time, so
-- that each of these tables can be partitioned by ranges of it, or spread by it, without changing a query.

-- ── service time and identity ───────────────────────────────────────────────────────────────────────────────

create table service_clock (
    singleton boolean not null default true,
    now_ms bigint not null default 0,
    advanced_at timestamptz not null default clock_timestamp(),
    constraint service_clock_pkey primary key (singleton),
    constraint service_clock_one_row check (singleton),
    constraint service_clock_not_negative check (now_ms >= 0)
);
insert into service_clock default values;

create function service_clock_forward_only() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        raise exception 'the service clock is never removed' using errcode = 'check_violation';
    end if;
    if new.now_ms < old.now_ms then
        raise exception 'the service clock never runs backwards' using errcode = 'check_violation';
    end if;
    return new;
end
$$;
create trigger service_clock_forward_only before update or delete on service_clock
    for each row execute function service_clock_forward_only();

-- All coordinators of one database sign with one key.
create table deployment (
    singleton boolean not null default true,
    coordinator_id bytea not null,
    created_at timestamptz not null default now(),
    constraint deployment_pkey primary key (singleton),
    constraint deployment_one_row check (singleton),
    constraint deployment_coordinator_id_length check (octet_length(coordinator_id) = 32)
);

-- For tables whose rows are facts: once written, they stay as they are.
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end
$$;

-- ── parties ─────────────────────────────────────────────────────────────────────────────────────────────────

-- Whoever holds balances. A submitter proves itself with an API key, a provider (the owner of workers and
-- challengers) with a signing key.
create table owners (
    owner_id uuid not null,
    role text not null,
    name text not null,
    api_key_hash bytea,
    signing_key bytea,
    registered_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint owners_pkey primary key (owner_id),
    constraint owners_role check (role in ('submitter', 'provider')),
    constraint owners_name_length check (char_length(name) between 1 and 100),
    constraint owners_api_key_hash_length check (octet_length(api_key_hash) = 32),
    constraint owners_signing_key_length check (octet_length(signing_key) = 32),
    constraint owners_credential check (
        (role = 'submitter') = (api_key_hash is not null) and (role = 'provider') = (signing_key is not null)
    ),
    constraint owners_api_key_hash_key unique (api_key_hash),
    constraint owners_signing_key_key unique (signing_key)
);

create table workers (
    worker_id bytea not null,
    owner_id uuid not null,
    name text not null,
    -- What the worker says that it runs on: a statement, shown as such.
    device text not null,
    suspended_ms bigint,
    registered_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint workers_pkey primary key (worker_id),
    constraint workers_owner_id_fkey foreign key (owner_id) references owners (owner_id),
    constraint workers_worker_id_length check (octet_length(worker_id) = 32),
    constraint workers_name_length check (char_length(name) between 1 and 100),
    constraint workers_device_length check (char_length(device) <= 200)
);
create index workers_owner_id_idx on workers (owner_id);

create table challengers (
    challenger_id bytea not null,
    owner_id uuid not null,
    name text not null,
    registered_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint challengers_pkey primary key (challenger_id),
    constraint challengers_owner_id_fkey foreign key (owner_id) references owners (owner_id),
    constraint challengers_challenger_id_length check (octet_length(challenger_id) = 32),
    constraint challengers_name_length check (char_length(name) between 1 and 100)
);
create index challengers_owner_id_idx on challengers (owner_id);

-- Nonces of signed requests: each serves once.
create table request_nonces (
    party_id bytea not null,
    nonce bytea not null,
    received_ms bigint not null,
    constraint request_nonces_pkey primary key (party_id, nonce),
    constraint request_nonces_party_id_length check (octet_length(party_id) = 32),
    constraint request_nonces_nonce_length check (octet_length(nonce) = 16)
);
create index request_nonces_received_ms_idx on request_nonces (received_ms);

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

-- ── models ──────────────────────────────────────────────────────────────────────────────────────────────────

create table models (
    model_id bytea not null,
    name text not null,
    manifest bytea not null,
    -- `serving` once every file of the model is stored: only then does it take jobs. `voided` once its arithmetic
    -- profile was withdrawn.
    state text not null,
    registered_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint models_pkey primary key (model_id),
    constraint models_model_id_length check (octet_length(model_id) = 32),
    constraint models_state check (state in ('incomplete', 'serving', 'voided'))
);

-- The files that a manifest names: its tensors in order, then the tokenizer, whose length no manifest gives.
create table model_files (
    model_id bytea not null,
    file_index integer not null,
    file_hash bytea not null,
    file_bytes bigint,
    -- The type as which it is a weight, one of the bits of files.type_bits; null for the tokenizer.
    type_bit smallint,
    constraint model_files_pkey primary key (model_id, file_index),
    constraint model_files_model_id_fkey foreign key (model_id) references models (model_id),
    constraint model_files_file_index_not_negative check (file_index >= 0),
    constraint model_files_file_hash_length check (octet_length(file_hash) = 32),
    constraint model_files_file_bytes_not_negative check (file_bytes >= 0)
);
create index model_files_file_hash_idx on model_files (file_hash);

-- Files that were received whole and hashed on receipt.
create table files (
    file_hash bytea not null,
    file_bytes bigint not null,
    -- The types as which every element is a value that a weight may hold.
    type_bits smallint not null,
    stored_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint files_pkey primary key (file_hash),
    constraint files_file_hash_length check (octet_length(file_hash) = 32),
    constraint files_file_bytes_not_negative check (file_bytes >= 0)
);

-- Profile versions that the operator has withdrawn.
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

-- ── jobs and leases ─────────────────────────────────────────────────────────────────────────────────────────

create table jobs (
    job_id uuid not null,
    submitter_id uuid not null,
    model_id bytea not null,
    state text not null,
    -- Canonical encoding of the job; its hash is the input commitment that claims state.
    input bytea not null,
    input_commitment bytea not null,
    token_count bigint not null,
    -- Held in escrow until the job is decided.
    price bigint not null,
    -- Rejected claims so far.
    attempts integer not null default 0,
    submitted_ms bigint not null,
    -- Place in the queue; newer than `submitted_ms` once a lease was lost or a claim rejected.
    queued_ms bigint not null,
    -- The newest claim, whatever became of it.
    claim_id bytea,
    decided_ms bigint,
    created_at timestamptz not null default now(),
    -- Whether a client waits for the answer token by token.
    stream boolean not null default false,
    -- What comes back for each token that was paid for at most and not generated.
    unused_token_price bigint not null default 0,
    constraint jobs_pkey primary key (job_id),
    constraint jobs_submitter_id_fkey foreign key (submitter_id) references owners (owner_id),
    constraint jobs_model_id_fkey foreign key (model_id) references models (model_id),
    constraint jobs_state check (
        state in ('submitted', 'assigned', 'claimed', 'finalized', 'refunded', 'cancelled', 'voided')
    ),
    constraint jobs_input_commitment_length check (octet_length(input_commitment) = 32),
    constraint jobs_token_count_positive check (token_count > 0),
    constraint jobs_price_not_negative check (price >= 0),
    constraint jobs_attempts_not_negative check (attempts >= 0),
    constraint jobs_unused_token_price_not_negative check (unused_token_price >= 0),
    constraint jobs_claim_id_length check (octet_length(claim_id) = 32),
    constraint jobs_claimed check (state not in ('claimed', 'finalized') or claim_id is not null),
    constraint jobs_decided check ((state in ('finalized', 'refunded', 'cancelled', 'voided')) = (decided_ms is not null))
);
-- The queue: as long as what waits, however many jobs are done.
create index jobs_queue_idx on jobs (model_id, queued_ms, job_id) where state = 'submitted';
create index jobs_of_submitter_idx on jobs (submitter_id, job_id desc);
create index jobs_undecided_idx on jobs (submitter_id) where decided_ms is null;
create index jobs_undecided_of_model_idx on jobs (model_id) where decided_ms is null;

-- Owners whose claim on the job was rejected, or who said that it is too large for them: none of their workers gets it
-- again.
create table job_exclusions (
    job_id uuid not null,
    owner_id uuid not null,
    constraint job_exclusions_pkey primary key (job_id, owner_id),
    constraint job_exclusions_job_id_fkey foreign key (job_id) references jobs (job_id),
    constraint job_exclusions_owner_id_fkey foreign key (owner_id) references owners (owner_id)
);

create table leases (
    job_id uuid not null,
    lease_id uuid not null,
    worker_id bytea not null,
    owner_id uuid not null,
    state text not null,
    -- Locked with the lease; a claim takes it over.
    stake bigint not null,
    leased_ms bigint not null,
    -- Lost at this time unless a heartbeat moves it, never beyond `deadline_ms`.
    expires_ms bigint not null,
    deadline_ms bigint not null,
    ended_ms bigint,
    created_at timestamptz not null default now(),
    -- What it cost the worker, of a lease that ended without a claim.
    fee bigint,
    constraint leases_pkey primary key (job_id, lease_id),
    constraint leases_job_id_fkey foreign key (job_id) references jobs (job_id),
    constraint leases_worker_id_fkey foreign key (worker_id) references workers (worker_id),
    constraint leases_owner_id_fkey foreign key (owner_id) references owners (owner_id),
    constraint leases_state check (state in ('held', 'claimed', 'lost', 'returned', 'voided')),
    constraint leases_stake_not_negative check (stake >= 0),
    constraint leases_expires_in_time check (expires_ms <= deadline_ms),
    constraint leases_ended check ((state = 'held') = (ended_ms is null)),
    constraint leases_fee check (fee >= 0)
);
create index leases_lease_id_idx on leases (lease_id);
create unique index leases_one_held_idx on leases (job_id) where state = 'held';
create index leases_expiring_idx on leases (expires_ms) where state = 'held';
create index leases_held_by_idx on leases (worker_id) where state = 'held';

-- Pieces of answers as their workers sent them, while the lease is held. Never changed: a claim must begin with them.
create table streamed_tokens (
    job_id uuid not null,
    lease_id uuid not null,
    -- Place of the piece's first token in the answer.
    first_index integer not null,
    -- Token ids, little-endian, 4 bytes each.
    tokens bytea not null,
    created_at timestamptz not null default now(),
    constraint streamed_tokens_pkey primary key (job_id, lease_id, first_index),
    constraint streamed_tokens_lease_fkey foreign key (job_id, lease_id) references leases (job_id, lease_id),
    constraint streamed_tokens_first_index_not_negative check (first_index >= 0),
    constraint streamed_tokens_whole check (octet_length(tokens) > 0 and octet_length(tokens) % 4 = 0)
);
create trigger streamed_tokens_unchanged before update on streamed_tokens
    for each row execute function refuse_change();

-- Where submitters want to be told of decisions. A row lives until its notice was taken, or given up.
create table webhooks (
    job_id uuid not null,
    url text not null,
    -- Deliveries tried so far.
    attempts integer not null default 0,
    -- Not tried before this service time.
    next_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint webhooks_pkey primary key (job_id),
    constraint webhooks_job_id_fkey foreign key (job_id) references jobs (job_id),
    constraint webhooks_url_length check (char_length(url) between 1 and 1000),
    constraint webhooks_attempts_not_negative check (attempts >= 0)
);
create index webhooks_due_idx on webhooks (next_ms);

-- ── claims ──────────────────────────────────────────────────────────────────────────────────────────────────

create table claims (
    job_id uuid not null,
    claim_id bytea not null,
    lease_id uuid not null,
    worker_id bytea not null,
    owner_id uuid not null,
    model_id bytea not null,
    state text not null,
    -- The very bytes received: encoding, signer, signature.
    signed bytea not null,
    trace_root bytea not null,
    countersignature bytea not null,
    device text not null,
    stake bigint not null,
    posted_ms bigint not null,
    -- When the window was to close as countersigned, and when it closes: later once the worker was suspended.
    receipt_closes_ms bigint not null,
    window_ends_ms bigint not null,
    -- The clocks of disputes on it, as countersigned.
    worker_allowance_ms bigint not null,
    challenger_allowance_ms bigint not null,
    -- Disputes that are not decided; finality waits for none.
    open_disputes integer not null default 0,
    rejected_because text,
    decided_ms bigint,
    created_at timestamptz not null default now(),
    constraint claims_pkey primary key (job_id, claim_id),
    constraint claims_lease_id_key unique (job_id, lease_id),
    constraint claims_lease_id_fkey foreign key (job_id, lease_id) references leases (job_id, lease_id),
    constraint claims_worker_id_fkey foreign key (worker_id) references workers (worker_id),
    constraint claims_owner_id_fkey foreign key (owner_id) references owners (owner_id),
    constraint claims_claim_id_length check (octet_length(claim_id) = 32),
    constraint claims_trace_root_length check (octet_length(trace_root) = 32),
    constraint claims_countersignature_length check (octet_length(countersignature) = 64),
    constraint claims_state check (state in ('pending', 'finalized', 'rejected', 'voided')),
    constraint claims_rejected_because check (rejected_because in ('dispute', 'equivocation')),
    constraint claims_reason check ((state = 'rejected') = (rejected_because is not null)),
    constraint claims_decided check ((state = 'pending') = (decided_ms is null)),
    constraint claims_stake_not_negative check (stake >= 0),
    constraint claims_allowances_positive check (worker_allowance_ms > 0 and challenger_allowance_ms > 0),
    constraint claims_open_disputes_not_negative check (open_disputes >= 0),
    constraint claims_final_undisputed check (state = 'pending' or open_disputes = 0)
);
create index claims_claim_id_idx on claims (claim_id);
-- For listings in the order of receipt, page by page.
create index claims_posted_idx on claims (posted_ms, claim_id);
create index claims_maturing_idx on claims (window_ends_ms) where state = 'pending' and open_disputes = 0;
create index claims_pending_of_worker_idx on claims (worker_id) where state = 'pending';

create table claim_layers (
    job_id uuid not null,
    claim_id bytea not null,
    layer integer not null,
    commitment bytea not null,
    constraint claim_layers_pkey primary key (job_id, claim_id, layer),
    constraint claim_layers_claim_id_fkey foreign key (job_id, claim_id) references claims (job_id, claim_id),
    constraint claim_layers_layer_not_negative check (layer >= 0),
    constraint claim_layers_commitment_length check (octet_length(commitment) = 32)
);
create trigger claim_layers_append_only before update or delete on claim_layers
    for each row execute function refuse_change();

-- A second signed claim for a lease that has one: what convicts its signer.
create table equivocations (
    job_id uuid not null,
    lease_id uuid not null,
    signed bytea not null,
    -- Who brought it; none where the worker sent it itself.
    reporter_id uuid,
    at_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint equivocations_pkey primary key (job_id, lease_id),
    constraint equivocations_reporter_id_fkey foreign key (reporter_id) references owners (owner_id),
    constraint equivocations_lease_id_fkey foreign key (job_id, lease_id) references leases (job_id, lease_id)
);
create trigger equivocations_append_only before update or delete on equivocations
    for each row execute function refuse_change();

-- How a claim was settled. One row a claim: it is never paid twice, and never both paid and slashed.
create table settlements (
    job_id uuid not null,
    claim_id bytea not null,
    kind text not null,
    transaction_id uuid not null,
    at_ms bigint not null,
    constraint settlements_pkey primary key (job_id, claim_id),
    constraint settlements_claim_id_fkey foreign key (job_id, claim_id) references claims (job_id, claim_id),
    constraint settlements_kind check (kind in ('paid', 'slashed'))
);
create trigger settlements_append_only before update or delete on settlements
    for each row execute function refuse_change();

-- ── disputes ────────────────────────────────────────────────────────────────────────────────────────────────

-- One bond backs all open disputes of a challenger against a worker.
create table bonds (
    bond_id uuid not null,
    challenger_id bytea not null,
    worker_id bytea not null,
    owner_id uuid not null,
    amount bigint not null,
    state text not null,
    locked_ms bigint not null,
    ended_ms bigint,
    created_at timestamptz not null default now(),
    constraint bonds_pkey primary key (bond_id),
    constraint bonds_challenger_id_fkey foreign key (challenger_id) references challengers (challenger_id),
    constraint bonds_worker_id_fkey foreign key (worker_id) references workers (worker_id),
    constraint bonds_owner_id_fkey foreign key (owner_id) references owners (owner_id),
    constraint bonds_amount_not_negative check (amount >= 0),
    constraint bonds_state check (state in ('locked', 'returned', 'forfeited')),
    constraint bonds_ended check ((state = 'locked') = (ended_ms is null))
);
create unique index bonds_one_locked_idx on bonds (challenger_id, worker_id) where state = 'locked';

create table disputes (
    job_id uuid not null,
    dispute_id bytea not null,
    claim_id bytea not null,
    challenger_id bytea not null,
    worker_id bytea not null,
    bond_id uuid not null,
    layer integer not null,
    -- What the challenger says the layer's commitment should be.
    commitment bytea not null,
    state text not null,
    -- What it waits for, and once ended, why it ended: stable words of the protocol.
    phase text not null,
    reason text,
    -- Whose turn and until when; none once ended, and no deadline while paused.
    turn text,
    deadline_ms bigint,
    -- The fold of its records, canonical bytes; `version` counts every change, refusals included.
    fold bytea not null,
    version integer not null,
    opened_ms bigint not null,
    ended_ms bigint,
    created_at timestamptz not null default now(),
    constraint disputes_pkey primary key (job_id, dispute_id),
    constraint disputes_claim_id_fkey foreign key (job_id, claim_id) references claims (job_id, claim_id),
    constraint disputes_challenger_id_fkey foreign key (challenger_id) references challengers (challenger_id),
    constraint disputes_worker_id_fkey foreign key (worker_id) references workers (worker_id),
    constraint disputes_bond_id_fkey foreign key (bond_id) references bonds (bond_id),
    constraint disputes_dispute_id_length check (octet_length(dispute_id) = 32),
    constraint disputes_commitment_length check (octet_length(commitment) = 32),
    constraint disputes_layer_not_negative check (layer >= 0),
    constraint disputes_version_positive check (version > 0),
    constraint disputes_state check (
        state in ('open', 'paused', 'challenger_wins', 'worker_wins', 'moot', 'void')
    ),
    constraint disputes_turn check (turn in ('worker', 'challenger')),
    constraint disputes_turn_while_open check (
        (state in ('open', 'paused')) = (turn is not null) and (state = 'open') = (deadline_ms is not null)
    ),
    constraint disputes_ended check ((state in ('open', 'paused')) = (ended_ms is null)),
    constraint disputes_reason_when_ended check ((reason is null) = (ended_ms is null))
);
create index disputes_dispute_id_idx on disputes (dispute_id);
create index disputes_of_claim_idx on disputes (job_id, claim_id, opened_ms);
create index disputes_clock_idx on disputes (deadline_ms) where state = 'open';
create index disputes_undecided_of_bond_idx on disputes (bond_id) where ended_ms is null;
create index disputes_newest_idx on disputes (opened_ms desc);

-- The log of each dispute, countersigned: the moves of both parties, and what ended or paused it.
create table dispute_records (
    job_id uuid not null,
    dispute_id bytea not null,
    seq integer not null,
    -- A move's name, or `paused`, `resumed`, `expired`, `closed`.
    kind text not null,
    mover text,
    record bytea not null,
    record_hash bytea not null,
    signed_move bytea,
    countersignature bytea not null,
    -- How long the referee took over the move, where it judged.
    referee_us bigint,
    at_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint dispute_records_pkey primary key (job_id, dispute_id, seq),
    constraint dispute_records_dispute_id_fkey
        foreign key (job_id, dispute_id) references disputes (job_id, dispute_id),
    constraint dispute_records_seq_not_negative check (seq >= 0),
    constraint dispute_records_mover check (mover in ('worker', 'challenger')),
    constraint dispute_records_move check ((mover is null) = (signed_move is null)),
    constraint dispute_records_record_hash_length check (octet_length(record_hash) = 32),
    constraint dispute_records_countersignature_length check (octet_length(countersignature) = 64)
);
create trigger dispute_records_append_only before update or delete on dispute_records
    for each row execute function refuse_change();

-- Moves that the rules refused. They decide nothing; a turn allows only so many. Pruned once their dispute is long over.
create table move_refusals (
    job_id uuid not null,
    dispute_id bytea not null,
    refusal_id bigint generated always as identity,
    mover bytea not null,
    code text not null,
    message_hash bytea not null,
    at_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint move_refusals_pkey primary key (job_id, dispute_id, refusal_id),
    constraint move_refusals_dispute_id_fkey foreign key (job_id, dispute_id) references disputes (job_id, dispute_id),
    constraint move_refusals_mover_length check (octet_length(mover) = 32),
    constraint move_refusals_message_hash_length check (octet_length(message_hash) = 32)
);
create trigger move_refusals_never_changed before update on move_refusals
    for each row execute function refuse_change();
create index move_refusals_at_ms_idx on move_refusals (at_ms);

-- What a worker revealed about a claim: given once, it serves every dispute on it.
create table reveals (
    job_id uuid not null,
    claim_id bytea not null,
    place bytea not null,
    signed bytea not null,
    given_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint reveals_pkey primary key (job_id, claim_id, place),
    constraint reveals_claim_id_fkey foreign key (job_id, claim_id) references claims (job_id, claim_id)
);
create trigger reveals_append_only before update or delete on reveals
    for each row execute function refuse_change();

-- ── places of transactions ──────────────────────────────────────────────────────────────────────────────────

-- A reader must never find an event behind a place that it has passed, although transactions commit in any
-- order. So events are ordered by the transaction that wrote them, and read only below the oldest transaction
-- that still runs. Transaction ids start low again where a dump is restored into another cluster: the base added
-- to them is raised then (`event_base_adopt`, called when a coordinator starts), so that places keep ascending.
create table event_base (
    singleton boolean not null default true,
    base bigint not null default 0,
    constraint event_base_pkey primary key (singleton),
    constraint event_base_one_row check (singleton),
    constraint event_base_not_negative check (base >= 0)
);
insert into event_base default values;

create function event_position() returns bigint language sql volatile as $$
    select base + pg_current_xact_id()::text::bigint from event_base
$$;

create function event_horizon() returns bigint language sql stable as $$
    select base + pg_snapshot_xmin(pg_current_snapshot())::text::bigint from event_base
$$;

-- ── ledger ──────────────────────────────────────────────────────────────────────────────────────────────────

-- Balances by kind and holder: an owner (`free`, `locked`), a job (`escrow`), a claim or dispute (`held`), or the
-- service itself (`treasury`, `outside`: an empty holder). They change by ledger entries alone; see below.
create table accounts (
    kind text not null,
    holder bytea not null,
    balance bigint not null default 0,
    constraint accounts_pkey primary key (kind, holder),
    constraint accounts_kind check (kind in ('free', 'locked', 'escrow', 'held', 'treasury', 'outside')),
    constraint accounts_holder_length check (
        octet_length(holder) = case
            when kind in ('free', 'locked', 'escrow') then 16
            when kind = 'held' then 32
            else 0
        end
    ),
    constraint accounts_balance_not_negative check (kind = 'outside' or balance >= 0)
);

create table ledger_transactions (
    -- A UUID of version 7.
    transaction_id uuid not null,
    event text not null,
    job_id uuid,
    claim_id bytea,
    dispute_id bytea,
    -- Place of the database transaction that posted it, as in `events`: which transactions a snapshot holds.
    position bigint not null default event_position(),
    at_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint ledger_transactions_pkey primary key (transaction_id),
    constraint ledger_transactions_event check (event ~ '^[a-z]+(_[a-z]+)*$'),
    constraint ledger_transactions_claim_id_length check (octet_length(claim_id) = 32),
    constraint ledger_transactions_dispute_id_length check (octet_length(dispute_id) = 32)
);
create index ledger_transactions_job_id_idx on ledger_transactions (job_id);
create trigger ledger_transactions_append_only before update or delete on ledger_transactions
    for each row execute function refuse_change();

create table ledger_entries (
    transaction_id uuid not null,
    kind text not null,
    holder bytea not null,
    amount bigint not null,
    constraint ledger_entries_pkey primary key (transaction_id, kind, holder),
    constraint ledger_entries_transaction_id_fkey
        foreign key (transaction_id) references ledger_transactions (transaction_id),
    constraint ledger_entries_amount_not_zero check (amount <> 0)
);
create index ledger_entries_of_account_idx on ledger_entries (kind, holder, transaction_id);
create trigger ledger_entries_append_only before update or delete on ledger_entries
    for each row execute function refuse_change();

-- Entries carry their amounts into balances, which the check on `accounts` keeps from going below zero. The accounts of
-- a statement are taken in one order, so that postings wait for each other and never deadlock.
create function ledger_entries_apply() returns trigger language plpgsql as $$
declare
    change record;
begin
    for change in
        select kind, holder, sum(amount)::bigint as amount from added group by kind, holder order by kind, holder
    loop
        insert into accounts (kind, holder) values (change.kind, change.holder) on conflict do nothing;
        update accounts set balance = balance + change.amount
            where kind = change.kind and holder = change.holder;
    end loop;
    return null;
end
$$;
create trigger ledger_entries_apply after insert on ledger_entries
    referencing new table as added
    for each statement execute function ledger_entries_apply();

create function ledger_entries_balance() returns trigger language plpgsql as $$
declare
    total numeric;
begin
    select sum(amount) into total from ledger_entries where transaction_id = new.transaction_id;
    if total <> 0 then
        raise exception 'the entries of transaction % sum to %, not zero', new.transaction_id, total
            using errcode = 'check_violation', constraint = 'ledger_entries_sum_to_zero';
    end if;
    return null;
end
$$;
create constraint trigger ledger_entries_sum_to_zero after insert on ledger_entries
    deferrable initially deferred
    for each row execute function ledger_entries_balance();

-- Balances are derived: they move only when entries are written, and start at zero.
create function accounts_derived_only() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and pg_trigger_depth() > 1
        and new.kind = old.kind and new.holder = old.holder then
        return new;
    end if;
    if tg_op = 'INSERT' and new.balance = 0 then
        return new;
    end if;
    raise exception 'balances change by ledger entries alone'
        using errcode = 'restrict_violation', constraint = 'accounts_derived_only';
end
$$;
create trigger accounts_derived_only before insert or update or delete on accounts
    for each row execute function accounts_derived_only();

-- Lost stakes and bonds on their way to whom they are due. Paid out from `release_ms` on, a stake not before its
-- job is decided: only the accepted claim says which earlier openers were right.
create table holds (
    -- The claim whose stake, or the dispute whose bond it is; also the holder of the `held` account.
    holder bytea not null,
    cause text not null,
    job_id uuid not null,
    claim_id bytea not null,
    -- The dispute that proved the claim wrong, or that was lost; none for an equivocation.
    dispute_id bytea,
    -- Who gets what fixed parts leave: the owner of the prover or reporter, or of the worker that was disputed wrongly.
    -- None where a worker convicted itself, by silence or a second claim.
    beneficiary_id uuid,
    amount bigint not null,
    state text not null,
    held_ms bigint not null,
    release_ms bigint not null,
    released_ms bigint,
    created_at timestamptz not null default now(),
    constraint holds_pkey primary key (holder),
    constraint holds_claim_id_fkey foreign key (job_id, claim_id) references claims (job_id, claim_id),
    constraint holds_beneficiary_id_fkey foreign key (beneficiary_id) references owners (owner_id),
    constraint holds_beneficiary check (cause = 'stake' or beneficiary_id is not null),
    constraint holds_holder_length check (octet_length(holder) = 32),
    constraint holds_cause check (cause in ('stake', 'bond')),
    constraint holds_amount_not_negative check (amount >= 0),
    constraint holds_state check (state in ('held', 'released', 'voided')),
    constraint holds_released check ((state = 'held') = (released_ms is null))
);
create index holds_due_idx on holds (release_ms) where state = 'held';

-- ── events ──────────────────────────────────────────────────────────────────────────────────────────────────

create table events (
    position bigint not null default event_position(),
    event_id bigint generated always as identity,
    kind text not null,
    job_id uuid,
    claim_id bytea,
    dispute_id bytea,
    party_id bytea,
    details jsonb not null default '{}',
    at_ms bigint not null,
    created_at timestamptz not null default now(),
    constraint events_pkey primary key (position, event_id),
    constraint events_kind check (kind ~ '^[a-z]+(_[a-z]+)*$'),
    constraint events_claim_id_length check (octet_length(claim_id) = 32),
    constraint events_dispute_id_length check (octet_length(dispute_id) = 32),
    constraint events_party_id_length check (octet_length(party_id) = 32)
);
create trigger events_append_only before update or delete on events
    for each row execute function refuse_change();

create function event_base_adopt() returns void language sql volatile as $$
    update event_base
        set base = greatest(
            base,
            (select coalesce(max(position), 0) + 1 from events)
                - pg_snapshot_xmin(pg_current_snapshot())::text::bigint
        )
        where (select coalesce(max(position), 0) from events)
            >= base + pg_snapshot_xmax(pg_current_snapshot())::text::bigint
$$;
