-- Workers hand back leases that they cannot use.

alter table leases drop constraint leases_state;
alter table leases
    add constraint leases_state check (state in ('held', 'claimed', 'lost', 'returned', 'voided'));
