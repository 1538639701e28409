-- A worker may convict itself, by silence or by a second claim: then nobody has earned the prover's share by a proof.
alter table holds
    alter column beneficiary_id drop not null,
    add constraint holds_beneficiary check (cause = 'stake' or beneficiary_id is not null);
