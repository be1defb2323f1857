//! The simulated world: people, the provider, the database, the replicas, and the one queue of events that moves them.
//!
//! All of it runs on one thread, and one event ends before the next begins. So the order of everything follows from
//! the seed, and a seed replays. Time is virtual: the clocks of the replicas, of the simulated provider and, through
//! `database_now()`, of the database are put to the time of the event before it begins.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;

use checkback::domain::{TokenHash, VerificationId};
use checkback::provider::http::{HttpClient, HttpSettings};
use checkback::service::register::Registration;
use checkback::simulator::{ClockMove, Complete, CreateTransaction, Fault, FaultKind, Settings, Simulator};
use checkback::store::{AccountToken, Arrival, Arrived, Registered};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::{Connection, PgConnection};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::invariants::Violation;
use super::plan::{Failure, Happening, Outage, Plan};
use super::planted::Planted;
use super::queue::{DAY, HOUR, MILLISECOND, MINUTE, Moment, Queue, SECOND};
use super::replica::{Loop, Replica, Step};
use crate::support::database::{TestDatabase, database};

pub const ACCOUNT: &str = "alibaba-sg";
pub const ACCOUNT_TOKEN: &str = "the-token-of-the-account";

/// How many events a failing run shows.
const SHOWN: usize = 30;

/// The clock of the database is a sequence: it can be read by every statement and put by one.
const VIRTUAL_CLOCK: &str = "
    CREATE SEQUENCE virtual_clock;
    CREATE OR REPLACE FUNCTION database_now() RETURNS timestamptz
        LANGUAGE sql VOLATILE
        AS 'SELECT timestamptz ''epoch'' + last_value * interval ''1 microsecond'' FROM virtual_clock'";

pub enum Event {
    /// The person's transaction begins at the provider.
    Begin(usize),
    Register(usize),
    Finish(usize),
    Callback {
        person: usize,
        forged: bool,
    },
    Happens(Happening),
    /// Of the failure with this number.
    FailureEnds(usize),
    Starts(usize),
    /// Results of this person are deleted about now.
    Deadline(usize),
    Tidy,
    Replica {
        replica: usize,
        epoch: u64,
        step: Step,
    },
}

/// What became of a person's check, as those outside know it.
#[derive(Debug, Default)]
pub struct Known {
    pub transaction: String,
    pub id: Option<VerificationId>,
    pub finished_at: Option<Moment>,
    /// Callbacks that were acknowledged after the registration, and before it.
    pub acknowledged: u32,
    pub acknowledged_early: u32,
    /// When the first of them was acknowledged.
    pub first_acknowledged: Option<Moment>,
    /// When it became final, and how.
    pub verdict: Option<(Moment, String)>,
    /// When the call was answered that brought the result.
    pub asked_at: Option<Moment>,
    pub calls: u32,
}

/// Counts of what a run explored, so that a test can tell that it explored anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    pub events: u64,
    pub calls: u64,
    pub kills: u64,
    pub lost_leases: u64,
    pub stale_writes: u64,
    pub missed_slots: u64,
    pub throttled: u64,
    pub unavailable: u64,
    pub recovered: u64,
    /// How often it was asked how far a person came.
    pub explained: u64,
    pub early_callbacks: u64,
    pub by_status: BTreeMap<String, u64>,
    pub evidence: BTreeMap<String, i64>,
}

pub struct World {
    pub plan: Plan,
    pub planted: Option<Planted>,
    pub random: StdRng,
    pub queue: Queue<Event>,
    pub now: Moment,
    pub simulator: Simulator,
    pub endpoint: SocketAddr,
    serving: JoinHandle<()>,
    pub http: HttpClient,
    pub database: TestDatabase,
    /// Where evidence is kept.
    pub folder: tempfile::TempDir,
    pub sql: PgConnection,
    pub database_off: i64,
    database_put: Option<i64>,
    /// The clock of the database jumped on at this moment.
    pub database_jumped: Option<Moment>,
    pub replicas: Vec<Replica>,
    pub people: Vec<Known>,
    pub by_transaction: BTreeMap<String, usize>,
    pub by_id: BTreeMap<VerificationId, usize>,
    failures: Vec<(Failure, bool)>,
    /// When the provider or all replicas were away: from, until.
    pub away: Vec<(Moment, Option<Moment>)>,
    away_for: u32,
    /// Calls that the provider received within the last second.
    pub recent_calls: VecDeque<Moment>,
    pub calls_seen: u64,
    pub starts: u64,
    /// Where virtual time is in the time of the runtime, for what is measured in instants.
    base: Instant,
    pub explored: Explored,
    /// Who had a callback accepted just now.
    pub hinted: Vec<(Moment, VerificationId)>,
    /// Registrations and callbacks that are still to come.
    to_come: usize,
    /// People whose check is final.
    pub settled: usize,
    shown: VecDeque<String>,
    pub trace: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "the simulator ends with the test's runtime")]
    pub async fn new(plan: Plan, planted: Option<Planted>) -> Self {
        let settings =
            Settings { seed: Some(plan.seed), clock_stands_at: Some(Moment(0).time()), ..Settings::default() };
        let simulator = Simulator::new(&settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap();
        let serving = {
            let simulator = simulator.clone();
            tokio::spawn(async move { simulator.serve(listener, std::future::pending()).await.unwrap() })
        };
        let database = database().await;
        let mut sql = PgConnection::connect_with(&database.options()).await.unwrap();
        sqlx::raw_sql(VIRTUAL_CLOCK).execute(&mut sql).await.unwrap();
        let mut world = Self {
            random: StdRng::seed_from_u64(plan.seed ^ 0x7468_6972_7479),
            queue: Queue::new(),
            now: Moment(0),
            simulator,
            endpoint,
            serving,
            http: HttpClient::new(HttpSettings::default()).unwrap(),
            database,
            folder: tempfile::tempdir().unwrap(),
            sql,
            database_off: 0,
            database_put: None,
            database_jumped: None,
            replicas: Vec::new(),
            people: (0..plan.people.len())
                .map(|n| Known { transaction: format!("tx-{n:08}"), ..Known::default() })
                .collect(),
            by_transaction: BTreeMap::new(),
            by_id: BTreeMap::new(),
            failures: Vec::new(),
            away: Vec::new(),
            away_for: 0,
            recent_calls: VecDeque::new(),
            calls_seen: 0,
            starts: 0,
            base: Instant::now(),
            explored: Explored::default(),
            hinted: Vec::new(),
            to_come: 0,
            settled: 0,
            shown: VecDeque::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            plan,
            planted,
        };
        world.put_database_clock().await;
        if let Some(planted) = planted {
            planted.prepare(&mut world.sql, world.plan.replicas).await;
        }
        world.begin().await;
        world
    }

    async fn begin(&mut self) {
        // The beginning is the earliest thing that happens.
        let first = self.plan.people.iter().map(|person| person.finishes_at.unwrap_or(person.registers_at)).min();
        self.now = first.unwrap_or_default().min(Moment(0)).plus(-HOUR);
        for replica in 0..self.plan.replicas {
            self.replicas.push(Replica::absent());
            self.start(replica).await;
        }
        for n in 0..self.plan.people.len() {
            let person = self.plan.people[n].clone();
            self.by_transaction.insert(self.people[n].transaction.clone(), n);
            let begins = person.finishes_at.unwrap_or(person.registers_at).min(person.registers_at).plus(-10 * SECOND);
            self.queue.push(begins, Event::Begin(n));
            self.queue.push(person.registers_at, Event::Register(n));
            if let Some(at) = person.finishes_at {
                self.queue.push(at, Event::Finish(n));
            }
            self.to_come += 1 + person.callbacks.len() + usize::from(person.forged.is_some());
            for at in person.callbacks {
                self.queue.push(at, Event::Callback { person: n, forged: false });
            }
            if let Some(at) = person.forged {
                self.queue.push(at, Event::Callback { person: n, forged: true });
            }
        }
        for (at, happening) in self.plan.happenings.clone() {
            self.queue.push(at, Event::Happens(happening));
        }
        self.queue.push(self.now.plus(DAY / 4), Event::Tidy);
    }

    /// Runs to the end of all events and checks what must hold then.
    pub async fn run(&mut self) -> Result<(), Box<Violation>> {
        while let Some((at, event)) = self.queue.pop() {
            // A replica that stands still does everything later.
            if let Event::Replica { replica, epoch, step } = &event {
                let replica = &self.replicas[*replica];
                if replica.epoch != *epoch {
                    continue;
                }
                // What is on its way over the network does not stand still.
                if replica.stalled_until > at && !matches!(step, Step::Arrive { .. }) {
                    let until = replica.stalled_until;
                    self.postpone(until, event);
                    continue;
                }
            }
            self.now = self.now.max(at);
            self.explored.events += 1;
            self.handle(event).await?;
            // Long after the last deadline; whatever is open now stays open.
            if (self.is_over() && !self.captures_are_open().await) || self.now > Moment(120 * DAY) {
                break;
            }
        }
        self.check_end().await
    }

    /// Everybody's check is final, and nothing more will come in.
    fn is_over(&self) -> bool {
        // Checking is cheap once few are left; callbacks after the verdict are part of the plan.
        self.settled == self.people.len() && self.to_come == 0
    }

    async fn captures_are_open(&mut self) -> bool {
        let open = "SELECT EXISTS (SELECT FROM evidence WHERE state = 'pending')";
        sqlx::query_scalar(open).fetch_one(&mut self.sql).await.unwrap()
    }

    fn postpone(&mut self, until: Moment, event: Event) {
        if let Event::Replica { replica, step: Step::Loop(which), .. } = &event {
            self.replicas[*replica].pending.insert(*which, until);
        }
        self.queue.push(until, event);
    }

    async fn handle(&mut self, event: Event) -> Result<(), Box<Violation>> {
        self.simulator.move_clock(ClockMove::Set(self.now.time()));
        match event {
            Event::Begin(n) => self.begin_transaction(n),
            Event::Finish(n) => self.finish(n).await,
            Event::Register(n) => self.register(n).await?,
            Event::Callback { person, forged } => self.call_back(person, forged).await?,
            Event::Happens(happening) => self.happen(happening).await,
            Event::FailureEnds(number) => self.fail(number, false),
            Event::Starts(replica) => self.start(replica).await,
            Event::Deadline(n) => self.deadline(n),
            Event::Tidy => self.tidy().await,
            Event::Replica { replica, step, .. } => {
                if let Step::Loop(which) = step {
                    // Put off or brought forward meanwhile.
                    if self.replicas[replica].pending.get(&which) != Some(&self.now) {
                        return Ok(());
                    }
                    self.replicas[replica].pending.remove(&which);
                }
                self.take_step(replica, step).await?;
                if self.random.random_bool(self.plan.stall_chance) {
                    let lasts = self.random.random_range(SECOND..30 * SECOND);
                    self.stall(replica, lasts);
                }
                if self.random.random_bool(self.plan.kill_chance) {
                    let down = [SECOND, 5 * SECOND, 30 * SECOND, 5 * MINUTE][self.random.random_range(0..4)];
                    self.kill(replica, down).await;
                }
            }
        }
        Ok(())
    }

    pub fn instant(&self, at: Moment) -> Instant {
        // Before the beginning no instant is asked for: the first event is an hour after it.
        let micros = u64::try_from(at.0 + 400 * DAY).unwrap();
        self.base + std::time::Duration::from_micros(micros)
    }

    /// Adds a line to what is shown when something is wrong, and to the sum by which two runs are compared.
    pub fn note(&mut self, what: &str) {
        let mut line = String::with_capacity(96);
        let _ = write!(line, "{} {what}", self.now);
        for byte in line.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.shown.len() == SHOWN {
            self.shown.pop_front();
        }
        self.shown.push_back(line);
    }

    /// Ends the run: `invariant` does not hold.
    pub fn broken(&self, invariant: &'static str, detail: impl Into<String>) -> Result<(), Box<Violation>> {
        Err(Box::new(Violation {
            invariant,
            detail: detail.into(),
            at: self.now,
            seed: self.plan.seed,
            events: self.shown.iter().cloned().collect(),
        }))
    }

    /// Puts the database's clock to the present, before a statement that reads it.
    pub async fn put_database_clock(&mut self) {
        let micros = self.now.plus(self.database_off).unix_micros();
        if self.database_put == Some(micros) {
            return;
        }
        sqlx::query("SELECT setval('virtual_clock', $1)").bind(micros).execute(&mut self.sql).await.unwrap();
        self.database_put = Some(micros);
    }

    fn alive(&mut self) -> Option<usize> {
        let alive: Vec<usize> =
            (0..self.replicas.len()).filter(|n| self.replicas[*n].stands() && !self.is_stalled(*n)).collect();
        (!alive.is_empty()).then(|| alive[self.random.random_range(0..alive.len())])
    }

    fn is_stalled(&self, replica: usize) -> bool {
        self.replicas[replica].stalled_until > self.now
    }

    // The people and the provider.

    fn begin_transaction(&mut self, n: usize) {
        let person = &self.plan.people[n];
        let command = CreateTransaction {
            transaction_id: Some(self.people[n].transaction.clone()),
            doc_video: person.expects_video,
            passed: Some(if person.passes { "Y" } else { "N" }.to_owned()),
            ..CreateTransaction::default()
        };
        self.simulator.create(command).unwrap();
    }

    async fn finish(&mut self, n: usize) {
        let command =
            Complete { callbacks: Some(0), pending_calls: Some(self.plan.people[n].pending), ..Complete::default() };
        self.simulator.complete(&self.people[n].transaction.clone(), command).await.unwrap();
        self.people[n].finished_at = Some(self.now);
        self.note(&format!("{n} finishes"));
    }

    fn token(&self, n: usize) -> String {
        if self.plan.people[n].own_token { format!("token-of-{n}") } else { ACCOUNT_TOKEN.to_owned() }
    }

    async fn register(&mut self, n: usize) -> Result<(), Box<Violation>> {
        let Some(replica) = self.alive() else {
            // The app tries again.
            self.queue.push(self.now.plus(2 * SECOND), Event::Register(n));
            return Ok(());
        };
        let person = self.plan.people[n].clone();
        self.put_clock(replica);
        let given = Registration {
            transaction_id: self.people[n].transaction.clone(),
            merchant_biz_id: None,
            callback_token: person.own_token.then(|| TokenHash::of(&self.token(n))),
            product: None,
            expect_video: Some(person.expects_video),
            return_url: None,
            metadata: None,
        };
        let (service, account) = self.replicas[replica].parts();
        let registered = service.register(&account, given).await.unwrap();
        let (id, hinted) = match registered {
            Registered::New { id, hinted } => (id, hinted),
            Registered::Same(id) => (id, false),
            Registered::Conflict { .. } => return self.broken("registration", format!("{n} conflicts")),
        };
        self.note(&format!("r{replica} registers {n}"));
        let first_poll = self.now.plus((5 * MINUTE).min(self.plan.give_up_after));
        self.wake(replica, Loop::Look, first_poll.0 - self.now.0);
        if hinted {
            self.wake(replica, Loop::Hints, 0);
        }
        // Committed, and killed before the answer: the app tries again and must find the same.
        if self.plan.kill_chance > 0.0 && self.random.random_bool(0.01) {
            self.kill(replica, 3 * SECOND).await;
            self.queue.push(self.now.plus(2 * SECOND), Event::Register(n));
            return Ok(());
        }
        self.people[n].id = Some(id);
        self.by_id.insert(id, n);
        self.queue.push(self.deadline_of(n), Event::Deadline(n));
        self.to_come -= 1;
        self.check(&[id]).await
    }

    async fn call_back(&mut self, n: usize, forged: bool) -> Result<(), Box<Violation>> {
        self.to_come -= 1;
        let Some(replica) = self.alive() else {
            self.note(&format!("a callback of {n} reaches nobody"));
            return Ok(());
        };
        self.put_clock(replica);
        let token = if forged { "forged".to_owned() } else { self.token(n) };
        let account_token = if token == ACCOUNT_TOKEN { AccountToken::Right } else { AccountToken::Wrong };
        let (service, account) = self.replicas[replica].parts();
        let arrival = Arrival {
            account: account.name.clone(),
            transaction_id: self.people[n].transaction.clone(),
            token: Some(TokenHash::of(&token)),
            account_token,
            // What it claims must not matter.
            passed: Some(if self.plan.people[n].passes { "N" } else { "Y" }.to_owned()),
            sub_code: Some("200".to_owned()),
            traceparent: None,
            at: service.clock.now(),
        };
        let arrived = service.callbacks.accept(arrival).await.unwrap();
        self.note(&format!("r{replica} hears a callback of {n}: {arrived:?}"));
        if forged {
            if !matches!(arrived, Arrived::TokenMismatch | Arrived::Unknown) {
                return self.broken("tokens", format!("a forged callback of {n} was {arrived:?}"));
            }
            return Ok(());
        }
        if arrived == Arrived::Accepted {
            self.hinted.extend(self.people[n].id.map(|id| (self.now, id)));
            self.wake(replica, Loop::Hints, 0);
        }
        if self.plan.kill_chance > 0.0 && self.random.random_bool(0.01) {
            // It may be there, but nobody was told so.
            self.kill(replica, 3 * SECOND).await;
            return Ok(());
        }
        let known = &mut self.people[n];
        match arrived {
            Arrived::Accepted => known.acknowledged += 1,
            Arrived::Unmatched => {
                known.acknowledged_early += 1;
                self.explored.early_callbacks += 1;
            }
            // Before its registration nothing is known of a verification's own token.
            Arrived::Unknown if known.id.is_none() => return Ok(()),
            Arrived::Unknown | Arrived::TokenMismatch => {
                return self.broken("tokens", format!("a callback of {n} was {arrived:?}"));
            }
        }
        if known.first_acknowledged.is_none() {
            known.first_acknowledged = Some(self.now);
            self.queue.push(self.deadline_of(n), Event::Deadline(n));
        }
        match self.people[n].id {
            Some(id) => self.check(&[id]).await,
            None => Ok(()),
        }
    }

    /// When the result is deleted, as far as those outside know.
    pub fn deadline_of(&self, n: usize) -> Moment {
        let base = self.people[n]
            .first_acknowledged
            .unwrap_or_else(|| self.plan.people[n].registers_at.plus(self.plan.give_up_after));
        base.plus(self.plan.result_retention)
    }

    fn deadline(&mut self, n: usize) {
        if self.people[n].verdict.is_some() {
            return;
        }
        for replica in 0..self.replicas.len() {
            let soon = self.random.random_range(0..SECOND);
            self.schedule(replica, Loop::Overdue, self.now.plus(soon));
        }
        // A clock may be behind.
        self.queue.push(self.now.plus(2 * MINUTE), Event::Deadline(n));
    }

    // What fails.

    async fn happen(&mut self, happening: Happening) {
        self.note(&format!("{happening:?}"));
        match happening {
            Happening::Fails { failure, lasts } => {
                self.failures.push((failure, false));
                let number = self.failures.len() - 1;
                self.fail(number, true);
                self.queue.push(self.now.plus(lasts), Event::FailureEnds(number));
            }
            Happening::Kill { replica, down } => self.kill(replica, down).await,
            Happening::Stop { replica, down } => {
                if self.replicas[replica].stands() {
                    self.put_clock(replica);
                    let (service, _) = self.replicas[replica].parts();
                    let left = self.replicas[replica].in_flight.left();
                    if !left.is_empty() {
                        service.store.release_leases(&left).await.unwrap();
                    }
                    self.kill(replica, down).await;
                }
            }
            Happening::Stall { replica, lasts } => self.stall(replica, lasts),
            Happening::ReplicaClock { replica, off } => {
                self.replicas[replica].clock_off = off;
                if self.replicas[replica].stands() {
                    // What is due is another moment now.
                    self.schedule(replica, Loop::Look, self.now.plus(SECOND));
                }
            }
            Happening::DatabaseClock { off } => {
                if off > self.database_off {
                    self.database_jumped = Some(self.now);
                }
                self.database_off = off;
                for replica in 0..self.replicas.len() {
                    self.schedule(replica, Loop::Look, self.now.plus(SECOND));
                    self.schedule(replica, Loop::Recover, self.now.plus(2 * SECOND));
                }
            }
        }
    }

    fn fail(&mut self, number: usize, active: bool) {
        self.failures[number].1 = active;
        if matches!(self.failures[number].0, Failure::Down(_) | Failure::BadKey) {
            self.set_away(active);
        }
        self.simulator.clear_faults();
        for (failure, _) in self.failures.iter().filter(|(_, active)| *active) {
            let always = Fault { operation: Some("CheckResult".to_owned()), share: Some(1.0), ..Fault::default() };
            let fault = match *failure {
                Failure::Down(outage) => Fault {
                    kind: match outage {
                        Outage::Unavailable => FaultKind::Status,
                        Outage::CutOff => FaultKind::CutOff,
                        Outage::Html => FaultKind::Html,
                        Outage::Garbage => FaultKind::Garbage,
                        Outage::Empty => FaultKind::Empty,
                    },
                    status: (outage == Outage::Unavailable).then_some(503),
                    ..always
                },
                Failure::Flaky(share) => Fault { share: Some(share), ..always },
                Failure::BadKey => {
                    Fault { kind: FaultKind::Code, code: Some("InvalidAccessKeyId.NotFound".to_owned()), ..always }
                }
                Failure::Throttles { calls, wait_ms } => Fault {
                    kind: FaultKind::Throttle,
                    retry_after_ms: wait_ms,
                    times: Some(calls),
                    share: None,
                    ..always
                },
            };
            self.simulator.add_fault(fault).unwrap();
        }
        let state = if active { "begins" } else { "ends" };
        self.note(&format!("{:?} {state}", self.failures[number].0));
    }

    /// Counts what keeps results away from us: a failure of the provider, or that no replica is there.
    pub fn set_away(&mut self, away: bool) {
        if away {
            if self.away_for == 0 {
                self.away.push((self.now, None));
            }
            self.away_for += 1;
        } else {
            self.away_for -= 1;
            if self.away_for == 0
                && let Some(last) = self.away.last_mut()
            {
                last.1 = Some(self.now);
            }
        }
    }

    fn stall(&mut self, replica: usize, lasts: i64) {
        self.note(&format!("r{replica} stands still for {} s", lasts / SECOND));
        self.replicas[replica].stalled_until = self.now.plus(lasts);
    }

    pub async fn kill(&mut self, replica: usize, down: i64) {
        if !self.replicas[replica].stands() {
            return;
        }
        self.explored.kills += 1;
        self.note(&format!("r{replica} is killed"));
        self.replicas[replica].kill().await;
        if self.replicas.iter().all(|replica| !replica.stands()) {
            self.set_away(true);
        }
        self.queue.push(self.now.plus(down), Event::Starts(replica));
        // What only this one knew to be due, the others find by themselves.
        self.wake(replica, Loop::Look, 0);
        self.wake(replica, Loop::Hints, 0);
        self.wake(replica, Loop::Recover, 0);
        self.wake(replica, Loop::Evidence, 0);
    }

    async fn start(&mut self, replica: usize) {
        if self.starts >= self.plan.replicas as u64 && self.replicas.iter().all(|replica| !replica.stands()) {
            self.set_away(false);
        }
        self.starts += 1;
        self.replicas[replica] = Replica::start(self, replica).await;
        self.note(&format!("r{replica} starts"));
        // The loops look at once.
        for which in [Loop::Hints, Loop::Look, Loop::Recover, Loop::Overdue, Loop::Evidence] {
            let soon = self.random.random_range(0..5 * MILLISECOND);
            self.schedule(replica, which, self.now.plus(soon));
        }
    }
}
