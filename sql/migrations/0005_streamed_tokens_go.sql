-- What is streamed serves until its lease ends: a claim repeats it, and a lost lease's is told anew by the next.
drop trigger streamed_tokens_append_only on streamed_tokens;
create trigger streamed_tokens_unchanged before update on streamed_tokens
    for each row execute function refuse_change();
delete from streamed_tokens s using leases l
    where l.job_id = s.job_id and l.lease_id = s.lease_id and l.state <> 'held';
