//! One game: parties, coordinator and network in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use gainsay_commitment::PartyId;
use gainsay_protocol::lifecycle::JobState;
use gainsay_protocol::toy::{Credentials, Random};
use gainsay_protocol::{Amount, Authentic, JobId, LeaseId, OwnerId, ServiceTime, SignedMove};

use super::audit::audit;
use super::broken::Broken;
use super::challenger::Challenger;
use super::invariants::{self, Promises};
use super::network::{Event, Queue, Reply, Request};
use super::pool::Pool;
use super::scenario::{Scenario, draw};
use super::service::{Refused, Service};
use super::tally::Tally;
use super::worker::Worker;

/// How long a message takes at most, unless it is doubled or replayed.
const DELAY_MS: u64 = 1_000;
/// How often an honest party looks for what it was not told of.
const LOOK_MS: u64 = 2_000;
/// How often the others do.
const LAZY_LOOK_MS: u64 = 7_000;
/// Service time is counted in steps of this.
const TICK_MS: u64 = 1_000;
/// What an outage adds to service time at most.
const OUTAGE_COUNTS_MS: u64 = 2_000;
/// How late what is due may be done: coordinators look by and by.
const LATE_MS: u64 = 5_000;
/// Steps after which a game will not end.
const MAX_STEPS: u32 = 50_000;

/// Somebody who takes part.
#[derive(Debug)]
pub(super) struct Party {
    pub(super) id: PartyId,
    pub(super) owner: OwnerId,
    pub(super) role: Role,
    /// Meets no more faults than leave it time to move.
    pub(super) reliable: bool,
    pub(super) up: bool,
    /// Counts its restarts: what an earlier life waited for does not reach the next.
    pub(super) life: u32,
    pub(super) wakes_at: Option<u64>,
    pub(super) losses_left: u32,
}

#[derive(Debug)]
pub(super) enum Role {
    Submitter(Vec<Order>),
    Worker(Worker),
    Challenger(Challenger),
}

/// A job that a submitter is going to submit.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) at: u64,
    pub(super) job: JobId,
    pub(super) puzzle: usize,
    pub(super) price: Amount,
    pub(super) done: bool,
}

/// What a party does.
pub(super) enum Out {
    Send(Request),
    /// Sends it so that it takes exactly this long to arrive.
    SendAfter(u64, Request),
    /// Will have finished a run by then.
    Done(u64, LeaseId),
}

/// Service time as a function of time, while the coordinator is up.
#[derive(Debug, Clone, Copy)]
struct Clock {
    real: u64,
    service: ServiceTime,
}

impl Clock {
    fn at(&self, real: u64) -> ServiceTime {
        self.service.plus((real - self.real) / TICK_MS * TICK_MS)
    }

    /// The first moment at which it shows `due`.
    fn when(&self, due: ServiceTime) -> u64 {
        self.real + due.since(self.service).div_ceil(TICK_MS) * TICK_MS
    }
}

pub(super) struct World<'a> {
    random: Random,
    service: Service<'a>,
    parties: Vec<Party>,
    promises: Promises,
    funds: BTreeMap<OwnerId, i64>,
    queue: Queue,
    real: u64,
    clock: Clock,
    up: bool,
    /// How late the next round of what is due will be.
    late: u64,
    tally: Tally,
    trace: Option<Vec<String>>,
}

impl<'a> World<'a> {
    pub(super) fn new(pool: &'a Pool, seed: u64, broken: Option<Broken>, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let Scenario { parameters, parties, promises, funds, weather } = draw(&mut random, pool.len());
        let mut service = Service::new(pool, parameters, broken);
        service.owners = parties.iter().map(|party| (party.id, party.owner)).collect();
        for (owner, credits) in &funds {
            service.fund(*owner, Amount(*credits));
        }
        let mut queue = Queue::default();
        for (at, event) in weather {
            queue.push(at, event);
        }
        for (index, party) in parties.iter().enumerate() {
            if let Role::Submitter(orders) = &party.role {
                orders.iter().for_each(|order| queue.push(order.at, Event::Restart { party: index }));
            }
        }
        let clock = Clock { real: 0, service: ServiceTime(0) };
        let trace = traced.then(Vec::new);
        let tally = Tally::default();
        let (real, up, late) = (0, true, 0);
        Self { random, service, parties, promises, funds, queue, real, clock, up, late, tally, trace }
    }

    pub(super) fn into_trace(self) -> Vec<String> {
        self.trace.unwrap_or_default()
    }

    fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>8} ms  {:>7}  {}", self.real, self.service.now.0, line(self));
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }

    /// Plays to the end.
    ///
    /// # Errors
    /// What was broken.
    pub(super) fn run(&mut self) -> Result<Tally, String> {
        self.tally.count("games");
        self.play()?;
        self.close_the_books()?;
        self.tally.count_results(&self.service);
        Ok(self.tally.clone())
    }

    fn play(&mut self) -> Result<(), String> {
        for _ in 0..MAX_STEPS {
            let due = self.service.due().filter(|_| self.up);
            let due = due.map(|due| (self.clock.when(due) + self.late).max(self.real));
            match (due, self.queue.next_at()) {
                (Some(due), next) if next.is_none_or(|next| due <= next) => {
                    self.advance(due);
                    self.note(|_| "what is due is done".to_owned());
                    self.service.reconcile();
                    self.late = if self.random.happens(50) { 0 } else { self.random.below(LATE_MS + 1) };
                }
                _ => {
                    let Some((at, event)) = self.queue.pop() else { return Ok(()) };
                    self.advance(at);
                    self.happen(event);
                }
            }
            invariants::check(&self.service, &self.promises)?;
            self.stir();
        }
        Err(format!("the game has not ended after {MAX_STEPS} steps"))
    }

    fn advance(&mut self, real: u64) {
        self.real = real;
        if self.up {
            self.service.now = self.clock.at(real);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { from, sent, request, answered } => self.arrive(from, sent, request, answered),
            Event::Answer { to, life, reply } => self.answer(to, life, reply),
            Event::Wake { party, life } => self.wake(party, life),
            Event::Done { party, life, lease } => self.done(party, life, lease),
            Event::Crash { party, for_ms } => self.crash(party, for_ms),
            Event::Restart { party } => {
                self.note(|_| format!("party {party} is there"));
                self.parties[party].up = true;
            }
            Event::Outage { for_ms } => self.outage(for_ms),
            Event::Back => self.come_back(),
        }
    }

    fn crash(&mut self, index: usize, for_ms: u64) {
        self.note(|_| format!("party {index} crashes for {for_ms} ms"));
        self.tally.count("crashes");
        let party = &mut self.parties[index];
        if !party.up {
            return;
        }
        party.up = false;
        party.life += 1;
        party.wakes_at = None;
        match &mut party.role {
            Role::Worker(worker) => worker.crash(),
            Role::Challenger(challenger) => challenger.crash(),
            Role::Submitter(_) => {}
        }
        self.queue.push(self.real + for_ms, Event::Restart { party: index });
    }

    fn outage(&mut self, for_ms: u64) {
        if !self.up {
            return;
        }
        self.note(|_| format!("the coordinator is away for {for_ms} ms"));
        self.tally.count("outages");
        if for_ms > self.service.parameters.window_ms {
            self.tally.count("outages longer than a window");
        }
        self.up = false;
        self.clock = Clock { real: self.real, service: self.service.now };
        self.queue.push(self.real + for_ms, Event::Back);
    }

    fn come_back(&mut self) {
        let away = self.real - self.clock.real;
        let counted = if self.service.is_broken(Broken::ClockRunsInOutages) {
            away
        } else {
            away.min(OUTAGE_COUNTS_MS)
        };
        self.service.now = self.clock.service.plus(counted);
        self.clock = Clock { real: self.real, service: self.service.now };
        self.up = true;
        self.note(|_| "the coordinator is back".to_owned());
    }

    /// Lets every party know, sooner or later, that there is something for it to do.
    fn stir(&mut self) {
        for index in 0..self.parties.len() {
            let party = &self.parties[index];
            if !party.up || party.wakes_at.is_some() || !self.wants(index) {
                continue;
            }
            // An event tells it at once, or is lost; then it looks for itself, by and by.
            let told = self.random.happens(70);
            let wait = if told { self.random.below(500) } else { self.random.below(LOOK_MS) };
            self.wake_after(index, wait);
        }
    }

    fn wants(&self, index: usize) -> bool {
        let party = &self.parties[index];
        match &party.role {
            Role::Submitter(orders) => orders.iter().any(|order| !order.done && order.at <= self.real),
            Role::Worker(worker) => worker.wants(party.id, &self.service),
            Role::Challenger(challenger) => challenger.wants(party.id, &self.service),
        }
    }

    fn wake_after(&mut self, index: usize, wait: u64) {
        let at = self.real + wait;
        let party = &mut self.parties[index];
        party.wakes_at = Some(at);
        self.queue.push(at, Event::Wake { party: index, life: party.life });
    }

    fn wake(&mut self, index: usize, life: u32) {
        let party = &mut self.parties[index];
        if !party.up || party.life != life || party.wakes_at != Some(self.real) {
            return;
        }
        party.wakes_at = None;
        if !self.wants(index) {
            return;
        }
        let Self { parties, service, .. } = self;
        let Party { id, role, reliable, .. } = &mut parties[index];
        let out = match role {
            Role::Submitter(orders) => {
                let due = orders.iter().filter(|order| !order.done && order.at <= self.real);
                due.map(|order| Out::Send(order.request())).collect()
            }
            Role::Worker(worker) => worker.wake(*id, service),
            Role::Challenger(_) => vec![Out::Send(Request::Look)],
        };
        let again = if *reliable { LOOK_MS } else { LAZY_LOOK_MS };
        self.wake_after(index, again);
        self.emit(index, out);
    }

    fn done(&mut self, index: usize, life: u32, lease: LeaseId) {
        let Self { parties, service, random, .. } = self;
        let party = &mut parties[index];
        let Role::Worker(worker) = &mut party.role else { return };
        if !party.up || party.life != life {
            return;
        }
        let out = worker.done(party.id, lease, service, random);
        self.emit(index, out);
    }

    fn emit(&mut self, index: usize, out: Vec<Out>) {
        for made in out {
            match made {
                Out::Send(request) => {
                    let delay = 1 + self.random.below(DELAY_MS);
                    self.send(index, delay, request);
                }
                Out::SendAfter(delay, request) => self.send(index, delay, request),
                Out::Done(delay, lease) => {
                    let life = self.parties[index].life;
                    self.queue.push(self.real + delay, Event::Done { party: index, life, lease });
                }
            }
        }
    }

    /// Whether the network loses a message from or to this party.
    fn loses(&mut self, index: usize) -> bool {
        let party = &mut self.parties[index];
        let lost = if party.reliable {
            party.losses_left > 0 && self.random.happens(8)
        } else {
            self.random.happens(12)
        };
        if lost {
            party.losses_left = party.losses_left.saturating_sub(1);
            self.tally.count("messages lost");
        }
        lost
    }

    fn send(&mut self, from: usize, delay: u64, request: Request) {
        let sent = self.service.now;
        if !self.loses(from) {
            let arrive = Event::Arrive { from, sent, request: request.clone(), answered: true };
            self.queue.push(self.real + delay, arrive);
        }
        if self.random.happens(4) {
            self.tally.count("messages doubled");
            let again = self.random.below(5 * DELAY_MS);
            let arrive = Event::Arrive { from, sent, request: request.clone(), answered: true };
            self.queue.push(self.real + again, arrive);
        }
        self.overhear(from, sent, request);
    }

    /// Somebody on the way keeps what is signed, and sends it again when it pleases, there or elsewhere.
    fn overhear(&mut self, from: usize, sent: ServiceTime, request: Request) {
        let later = self.real + 5_000 + self.random.below(300_000);
        match request {
            Request::Claim(_) | Request::Open(_) if self.random.happens(3) => {
                self.tally.count("messages replayed");
                self.queue.push(later, Event::Arrive { from, sent, request, answered: false });
            }
            Request::Move(dispute, made) if self.random.happens(3) => {
                self.tally.count("messages replayed");
                let elsewhere = self.random.below(self.service.disputes.len() as u64) as usize;
                let other = self.service.disputes.get(elsewhere).map_or(dispute, |other| other.dispute.id());
                for (at, to) in [(later, dispute), (self.real + 1, other)] {
                    let request = Request::Move(to, Arc::clone(&made));
                    self.queue.push(at, Event::Arrive { from, sent, request, answered: false });
                }
            }
            _ => {}
        }
    }

    fn arrive(&mut self, from: usize, sent: ServiceTime, request: Request, answered: bool) {
        if !self.up {
            self.tally.count("messages lost in outages");
            return;
        }
        self.note(|_| format!("from party {from}: {}", brief(&request)));
        let reply = self.serve(from, sent, request);
        let Some(reply) = reply.filter(|_| answered) else { return };
        if !self.loses(from) {
            let (life, delay) = (self.parties[from].life, 1 + self.random.below(DELAY_MS));
            self.queue.push(self.real + delay, Event::Answer { to: from, life, reply });
        }
    }

    fn serve(&mut self, from: usize, sent: ServiceTime, request: Request) -> Option<Reply> {
        let Party { id, owner, .. } = self.parties[from];
        let is_challenger = matches!(self.parties[from].role, Role::Challenger(_));
        match request {
            Request::Submit { job, puzzle, price } => {
                // Taken or refused for want of money: it is not sent again.
                let taken = self.service.submit(job, owner, puzzle, price);
                self.note(|_| format!("  {taken:?}"));
                Some(Reply::Submitted(job))
            }
            Request::Lease { held } => match self.service.lease(id, &held) {
                Ok(grant) => Some(Reply::Leased(grant)),
                Err(Refused::Money) => Some(Reply::NoStake),
                Err(_) => None,
            },
            Request::Heartbeat { lease } => {
                self.service.heartbeat(id, lease).err().map(|_| Reply::Settled(lease))
            }
            Request::Claim(signed) => {
                if let Err(refused) = self.service.post_claim(&signed) {
                    self.note(|_| format!("  refused: {refused:?}"));
                }
                Some(Reply::Settled(signed.body.lease))
            }
            Request::Look => Some(Reply::View(self.service.view(id, is_challenger))),
            Request::Open(open) => {
                let signed = SignedMove::Open(Credentials::Name(open.challenger).sign(open));
                if let Err(refused) = self.service.open(&Authentic::trusted(signed), &open) {
                    self.note(|_| format!("  refused: {refused:?}"));
                    self.tally.count("openings refused");
                }
                None
            }
            Request::Move(dispute, made) => {
                match self.service.post_move(dispute, &made, sent) {
                    Ok(entries) => {
                        self.tally.count("moves taken");
                        (1..entries.len()).for_each(|_| self.tally.count("reveals shared"));
                    }
                    Err(refused) => self.refuse(&made, refused),
                }
                None
            }
        }
    }

    /// Nothing that an honest party has ever signed, sent or resent by whomever, may use up its patience.
    fn refuse(&mut self, made: &Authentic, refused: Refused) {
        self.note(|_| format!("  refused: {refused:?}"));
        self.tally.count("moves refused");
        let signer = made.signed().signer();
        let honest = self.promises.workers.contains(&signer) || self.promises.challengers.contains(&signer);
        if let Refused::Move(refusal) = refused
            && refusal.counts()
            && honest
        {
            self.service.violate(|| format!("an honest move counts as refused: {refusal}"));
        }
    }

    fn answer(&mut self, to: usize, life: u32, reply: Reply) {
        let Self { parties, service, random, real, .. } = self;
        let party = &mut parties[to];
        if !party.up || party.life != life {
            return;
        }
        let out = match (&mut party.role, reply) {
            (Role::Submitter(orders), Reply::Submitted(job)) => {
                orders.iter_mut().filter(|order| order.job == job).for_each(|order| order.done = true);
                Vec::new()
            }
            (Role::Worker(worker), Reply::Leased(grant)) => {
                worker.leased(grant);
                Vec::new()
            }
            (Role::Worker(worker), Reply::NoStake) => {
                worker.has_no_stake();
                Vec::new()
            }
            (Role::Worker(worker), Reply::Settled(lease)) => {
                worker.settled(lease);
                Vec::new()
            }
            (Role::Worker(worker), Reply::View(view)) => worker.defend(party.id, &view, service, random),
            (Role::Challenger(challenger), Reply::View(view)) => {
                challenger.act(party.id, &view, *real, service, random)
            }
            _ => Vec::new(),
        };
        self.emit(to, out);
    }

    /// Jobs that nobody took are withdrawn, what is held is paid, and the books are audited.
    fn close_the_books(&mut self) -> Result<(), String> {
        for job in 0..self.service.jobs.len() {
            if self.service.jobs[job].state != JobState::Submitted {
                continue;
            }
            let able = self.parties.iter().find(|party| match &party.role {
                Role::Worker(worker) => {
                    party.reliable
                        && !worker.is_broke()
                        && !self.service.jobs[job].excluded.contains(&party.owner)
                }
                _ => false,
            });
            if let Some(able) = able {
                return Err(format!("job {job} waits although {:?} could do it", able.id));
            }
            self.service.cancel(job);
        }
        self.play()?;
        audit(&self.service, &self.funds)
    }
}

impl Order {
    fn request(&self) -> Request {
        Request::Submit { job: self.job, puzzle: self.puzzle, price: self.price }
    }
}

/// A request in a few words.
fn brief(request: &Request) -> String {
    match request {
        Request::Submit { job, .. } => format!("submit {job:?}"),
        Request::Lease { .. } => "lease".to_owned(),
        Request::Heartbeat { lease } => format!("heartbeat {lease:?}"),
        Request::Claim(claim) => format!("claim for {:?}", claim.body.lease),
        Request::Look => "look".to_owned(),
        Request::Open(open) => format!("open at layer {}", open.layer),
        Request::Move(dispute, made) => format!("{} in {dispute}", made.signed().kind()),
    }
}
