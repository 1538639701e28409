-- Text generation: answers that arrive token by token, what unused tokens give back, and notices to submitters.

alter table jobs
    -- Whether a client waits for the answer token by token.
    add column stream boolean not null default false,
    -- What comes back for each token that was paid for at most and not generated.
    add column unused_token_price bigint not null default 0,
    add constraint jobs_unused_token_price_not_negative check (unused_token_price >= 0);

-- Pieces of answers as their workers sent them, before the claim. Never changed: a claim must begin with them.
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
create trigger streamed_tokens_append_only before update or delete on streamed_tokens
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
