-- Workers hand back leases that they cannot use. What a lease that ended without a claim cost is kept: the same question
-- gets the same answer, and what cost nothing does not count against its job.

alter table leases drop constraint leases_state;
alter table leases
    add column fee bigint,
    add constraint leases_state check (state in ('held', 'claimed', 'lost', 'returned', 'voided')),
    add constraint leases_fee check (fee >= 0);
