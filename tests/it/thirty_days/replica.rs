//! A replica of the service as a machine of steps. Its steps are the service's own; when each is taken, how long its
//! statement or its call lasts, and between which two it is killed, is drawn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkback::clock::Clock;
use checkback::clock::later;
use checkback::domain::schedule::after_probe;
use checkback::domain::{Flow, Outcome, ProviderError, TokenHash};
use checkback::entropy::Entropy;
use checkback::evidence::{DownloadLimits, Downloader, EvidenceStore, Location, Recipients, StoreSettings, Stored};
use checkback::jobs::{
    CaptureFailed, Captures, InFlight, LEASE, MOST_IN_FLIGHT, POLL, RECOVERY, RENEWAL, Turns, steps,
};
use checkback::lifecycle::Tasks;
use checkback::provider::alibaba::credentials::Credentials;
use checkback::provider::alibaba::endpoint::Endpoint;
use checkback::provider::alibaba::{AlibabaClient, AlibabaSettings, Signature};
use checkback::service::Service;
use checkback::service::account::{Account, Pacing, Rotating, Starting};
use checkback::service::collect_result::Decision;
use checkback::service::evidence::{Capture, Source};
use checkback::service::pace::{HORIZON, Slot, Turn};
use checkback::service::polls::PollWatch;
use checkback::store::{
    CallSlot, CaptureKey, CaptureLease, CheckedFinal, CheckedOpen, LeasedJob, Pace, Standing, Store,
};
use chrono::{DateTime, Utc};
use rand::RngExt;
use sqlx::Row;

use super::invariants::Violation;
use super::planted::Planted;
use super::queue::{DAY, HOUR, MILLISECOND, Moment, SECOND};
use super::world::{ACCOUNT, ACCOUNT_TOKEN, Event, World};

/// A call takes at most so many further slots that missed its own.
const SPARE_SLOTS: u32 = 4;
/// How long the client waits for an answer.
const PATIENCE: i64 = 30 * SECOND;

/// What a replica's loops do when they look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loop {
    Hints,
    Look,
    Flush,
    Renew,
    Recover,
    Overdue,
    Sort,
    Evidence,
}

pub enum Step {
    Loop(Loop),
    /// The slot of a call has come.
    Send {
        job: Box<LeasedJob>,
        slot: Slot,
        slots: u32,
    },
    /// The request arrives at the provider.
    Arrive {
        job: Box<LeasedJob>,
    },
    /// The answer arrives here.
    Answer {
        job: Box<LeasedJob>,
        result: Box<Result<Outcome, ProviderError>>,
        took: Duration,
    },
    /// The slot of a call has come that asks how far the person came.
    Explain {
        job: Box<LeasedJob>,
        result: Box<Result<Outcome, ProviderError>>,
        took: Duration,
    },
    /// A capture begins: bytes and link are in this process alone.
    Capture {
        key: CaptureKey,
        lease: CaptureLease,
        source: Box<Source>,
    },
    /// It is over, and what came of it is not written down yet.
    Captured {
        key: CaptureKey,
        lease: CaptureLease,
        result: Box<Result<(String, Stored), CaptureFailed>>,
    },
    /// Of a fault that is planted: the second transaction of a verdict.
    Remember {
        check: Box<CheckedFinal>,
    },
}

/// A process of the service.
struct Process {
    service: Service,
    captures: Captures,
    account: Arc<Account>,
    clock: Clock,
    tasks: Tasks,
}

pub struct Replica {
    process: Option<Process>,
    pub epoch: u64,
    pub stalled_until: Moment,
    /// How far its clock is off.
    pub clock_off: i64,
    pub in_flight: InFlight,
    /// When each loop looks next.
    pub pending: BTreeMap<Loop, Moment>,
    pub finals: Vec<(LeasedJob, CheckedFinal, Vec<Capture>)>,
    pub opens: Vec<(LeasedJob, CheckedOpen)>,
    calls: usize,
    turns: Turns,
    polls: PollWatch,
}

impl Replica {
    pub fn absent() -> Self {
        Self {
            process: None,
            epoch: 0,
            stalled_until: Moment::default(),
            clock_off: 0,
            in_flight: InFlight::default(),
            pending: BTreeMap::new(),
            finals: Vec::new(),
            opens: Vec::new(),
            calls: 0,
            turns: Turns::default(),
            polls: PollWatch::default(),
        }
    }

    pub fn stands(&self) -> bool {
        self.process.is_some()
    }

    pub fn parts(&self) -> (Service, Arc<Account>) {
        let process = self.process.as_ref().expect("only a replica that stands is asked");
        (process.service.clone(), Arc::clone(&process.account))
    }

    pub fn captures(&self) -> Captures {
        self.process.as_ref().expect("only a replica that stands is asked").captures.clone()
    }

    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.tasks.shut_down(Duration::ZERO).await;
            process.service.store.close().await;
        }
        *self = Self { epoch: self.epoch + 1, clock_off: self.clock_off, ..Self::absent() };
    }

    pub async fn start(world: &World, replica: usize) -> Self {
        let old = &world.replicas[replica];
        let clock = Clock::manual(world.now.plus(old.clock_off).time());
        let entropy = Entropy::seeded(world.plan.seed.wrapping_mul(1_000_003) ^ world.starts);
        let credentials = Credentials::new("sim-key-id".to_owned(), "sim-key-secret".into(), None).unwrap();
        let client = AlibabaClient::new(
            AlibabaSettings {
                endpoint: Endpoint::explicit(&format!("http://{}", world.endpoint), true).unwrap(),
                signature: Signature::Acs3,
                credentials: credentials.into(),
                images: false,
            },
            world.http.clone(),
            clock.clone(),
            entropy.clone(),
        );
        let span = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap());
        let endpoint = format!("http://{}", world.endpoint).parse().unwrap();
        let downloader = Downloader::new(Vec::new(), Some(endpoint), DownloadLimits::default()).unwrap();
        let account = Account {
            name: ACCOUNT.to_owned(),
            qps: world.plan.qps,
            result_retention: span(world.plan.result_retention),
            video_retention: span(world.plan.video_retention),
            give_up_after: span(world.plan.give_up_after),
            callback_token: Rotating::new(Some(TokenHash::of(ACCOUNT_TOKEN))),
            starting: Starting::default(),
            pacing: Pacing::default(),
            providers: Rotating::new(Arc::new(client)),
            downloader: Some(downloader),
        };
        let evidence = EvidenceStore::new(StoreSettings {
            location: Location::Folder(world.folder.path().to_owned()),
            recipients: Recipients::default(),
            identities: None,
        });
        let mut options = world.database.options();
        if let Some(path) = world.planted.and_then(|planted| planted.search_path(replica)) {
            options = options.options([("search_path", path)]);
        }
        let store = Store::new(options, 2);
        store.add_accounts(&[ACCOUNT.to_owned()]).await.unwrap();
        let tasks = Tasks::new();
        let service = Service::new(store, evidence, clock.clone(), entropy, vec![account], &tasks);
        let account = Arc::clone(&service.accounts[ACCOUNT]);
        let captures = Captures::new(service.clone(), tasks.clone());
        let process = Process { service, captures, account, clock, tasks };
        Self { process: Some(process), epoch: old.epoch, clock_off: old.clock_off, ..Self::absent() }
    }
}

impl World {
    /// Puts the clock of a replica to the present. The database's is put where a statement reads it (slots and leases).
    pub fn put_clock(&self, replica: usize) {
        let replica = &self.replicas[replica];
        if let Some(process) = &replica.process {
            process.clock.set(self.now.plus(replica.clock_off).time());
        }
    }

    fn later(&mut self, replica: usize, at: Moment, step: Step) {
        let epoch = self.replicas[replica].epoch;
        self.queue.push(at, Event::Replica { replica, epoch, step });
    }

    /// Lets a loop look at `at`, unless it does so before.
    pub fn schedule(&mut self, replica: usize, which: Loop, at: Moment) {
        let this = &mut self.replicas[replica];
        if !this.stands() || this.pending.get(&which).is_some_and(|pending| *pending <= at) {
            return;
        }
        this.pending.insert(which, at);
        self.later(replica, at, Step::Loop(which));
    }

    /// There may be work after `wait`: this replica looks at once, the others hear of it or look by themselves.
    pub fn wake(&mut self, replica: usize, which: Loop, wait: i64) {
        for other in 0..self.replicas.len() {
            let poll = i64::try_from(POLL.as_micros()).unwrap();
            let most = if other == replica { 3 * MILLISECOND } else { poll };
            let soon = self.random.random_range(0..most);
            self.schedule(other, which, self.now.plus(wait + soon));
        }
    }

    fn statement(&mut self) -> i64 {
        self.random.random_range(MILLISECOND..8 * MILLISECOND)
    }

    pub async fn take_step(&mut self, replica: usize, step: Step) -> Result<(), Box<Violation>> {
        self.put_clock(replica);
        match step {
            Step::Loop(Loop::Hints) => return self.take_hints(replica).await,
            Step::Loop(Loop::Look) => self.look(replica).await,
            Step::Loop(Loop::Flush) => return self.flush(replica).await,
            Step::Loop(Loop::Renew) => self.renew(replica).await,
            Step::Loop(Loop::Recover) => self.recover(replica).await,
            Step::Loop(Loop::Evidence) => self.look_after_evidence(replica).await,
            Step::Capture { key, lease, source } => return self.capture(replica, key, lease, &source).await,
            Step::Captured { key, lease, result } => return self.captured(replica, key, lease, *result).await,
            Step::Loop(Loop::Sort) => self.sort(replica).await,
            Step::Loop(Loop::Overdue) => self.end_overdue(replica).await,
            Step::Send { job, slot, slots } => self.send(replica, job, slot, slots).await,
            Step::Arrive { job } => return self.arrive(replica, job).await,
            Step::Answer { job, result, took } => self.answer(replica, *job, *result, took).await,
            Step::Explain { job, result, took } => return self.explain(replica, job, *result, took).await,
            Step::Remember { check } => {
                Planted::remember(&mut self.sql, &check).await;
                return self.check(&[check.id]).await;
            }
        }
        Ok(())
    }

    async fn take_hints(&mut self, replica: usize) -> Result<(), Box<Violation>> {
        let (service, _) = self.replicas[replica].parts();
        let taken = steps::take_hints(&service).await.unwrap();
        if taken.taken > 0 {
            self.note(&format!("r{replica} takes {} hints", taken.taken));
            self.wake(replica, Loop::Look, 0);
        }
        if steps::is_full(&taken) {
            self.schedule(replica, Loop::Hints, self.now.plus(MILLISECOND));
        }
        if taken.taken == 0 {
            return Ok(());
        }
        let ids: Vec<_> = self.hinted.iter().map(|(_, id)| *id).collect();
        let now = self.now;
        self.hinted.retain(|(at, _)| now.0 - at.0 < 2 * SECOND);
        self.check(&ids).await
    }

    async fn look(&mut self, replica: usize) {
        self.put_database_clock().await;
        let (service, account) = self.replicas[replica].parts();
        let room = MOST_IN_FLIGHT.saturating_sub(self.replicas[replica].calls);
        if room == 0 {
            // An answer gives room and looks again.
            return;
        }
        let leased_at = self.instant(self.now);
        let (in_turn, leased) = match self.planted {
            Some(planted) if planted.leases_itself() => (false, planted.lease(&mut self.sql, &service, &account).await),
            _ => {
                let turns = &mut self.replicas[replica].turns;
                steps::lease(&service, &account, turns, room, leased_at).await.unwrap()
            }
        };
        let answered = self.now.plus(self.statement());
        let none = leased.jobs.is_empty();
        for job in leased.jobs {
            let n = self.by_transaction[&job.transaction_id];
            self.note(&format!("r{replica} leases {n}"));
            self.replicas[replica].in_flight.add(job.id, job.token, leased_at);
            self.replicas[replica].calls += 1;
            let slot = Slot::new(leased_at, self.instant(answered), job.slot_in, job.pace);
            self.send_at_slot(replica, Box::new(job), slot, answered, 1);
        }
        if !none {
            self.schedule(replica, Loop::Renew, self.now.plus(micros(RENEWAL)));
            let late = self.random.random_range(0..micros(RECOVERY));
            let other = self.random.random_range(0..self.replicas.len());
            self.schedule(other, Loop::Recover, self.now.plus(micros(LEASE) + late));
        }
        if in_turn || !(none || leased.is_all) {
            self.schedule(replica, Loop::Look, answered);
            return;
        }
        // The rest of the loop that leases.
        let now = service.clock.now();
        let next = match service.store.next_due(&account.name).await.unwrap() {
            None => return,
            Some(due_at) if due_at <= now && leased.is_all => answered,
            Some(due_at) if due_at <= now => {
                // What is in the wrong lane by now is not leased; a loop looks for it every second.
                let poll = self.random.random_range(MILLISECOND..SECOND);
                self.schedule(replica, Loop::Sort, self.now.plus(poll));
                let to_urgent = leased.urgent_in - HORIZON.as_secs_f64();
                let slot_in = if to_urgent > 0.0 { to_urgent } else { leased.bulk_in };
                let wait = Duration::try_from_secs_f64(slot_in).map_or(0, micros);
                self.now.plus(if wait == 0 { 20 * MILLISECOND } else { wait.clamp(2 * MILLISECOND, SECOND / 2) })
            }
            Some(due_at) => Moment::of(due_at).plus(-self.replicas[replica].clock_off).max(answered),
        };
        self.schedule(replica, Loop::Look, next);
    }

    /// Lets a call be sent when its slot has come, or a little later, as machines do.
    fn send_at_slot(&mut self, replica: usize, job: Box<LeasedJob>, slot: Slot, from: Moment, slots: u32) {
        let from = match slot.turn(self.instant(from)) {
            Turn::WaitUntil(until) => {
                let wait = until.duration_since(self.instant(from));
                from.plus(i64::try_from(wait.as_micros()).unwrap() + 1)
            }
            Turn::Send | Turn::Missed => from,
        };
        let late = if self.is_slow() { 500 * MILLISECOND } else { 40 * MILLISECOND };
        let late = self.random.random_range(0..late);
        self.later(replica, from.plus(late), Step::Send { job, slot, slots });
    }

    fn is_slow(&mut self) -> bool {
        self.plan.slow_chance > 0.0 && self.random.random_bool(self.plan.slow_chance)
    }

    /// Whether the lease can be relied on; if not, the work under it is called off.
    fn holds(&mut self, replica: usize, job: &LeasedJob) -> bool {
        let now = self.instant(self.now);
        let in_flight = &self.replicas[replica].in_flight;
        if in_flight.good_until(job.id, job.token).is_some_and(|until| until > now)
            && !in_flight.is_called_off(job.id, job.token)
        {
            return true;
        }
        let n = self.by_transaction[&job.transaction_id];
        self.note(&format!("r{replica} lost its lease of {n}"));
        self.explored.lost_leases += 1;
        self.end(replica, job);
        false
    }

    /// The work under a lease is over.
    fn end(&mut self, replica: usize, job: &LeasedJob) {
        let this = &mut self.replicas[replica];
        this.in_flight.remove(job.id, job.token);
        this.calls -= 1;
        if this.calls + 1 == MOST_IN_FLIGHT {
            self.schedule(replica, Loop::Look, self.now);
        }
    }

    async fn send(&mut self, replica: usize, job: Box<LeasedJob>, slot: Slot, slots: u32) {
        if !self.holds(replica, &job) {
            return;
        }
        let (service, account) = self.replicas[replica].parts();
        if slot.turn(self.instant(self.now)) == Turn::Missed && slots <= SPARE_SLOTS {
            self.explored.missed_slots += 1;
            self.put_database_clock().await;
            let now = service.clock.now();
            let slot_in = service.store.take_slots(&account.name, account.rate(), slot.pace, 1, now).await.unwrap()[0];
            let answered = self.now.plus(self.statement());
            let slot = Slot::new(self.instant(self.now), self.instant(answered), slot_in, slot.pace);
            self.send_at_slot(replica, job, slot, answered, slots + 1);
            return;
        }
        if self.planted != Some(Planted::RetryPastDeadline)
            && let Some(expired) = steps::end_if_overdue(&service, &account, &job).await
        {
            self.put_final(replica, *job, expired, Vec::new());
            return;
        }
        let network = self.random.random_range(MILLISECOND..45 * MILLISECOND);
        self.later(replica, self.now.plus(network), Step::Arrive { job });
    }

    async fn arrive(&mut self, replica: usize, job: Box<LeasedJob>) -> Result<(), Box<Violation>> {
        let (_, account) = self.replicas[replica].parts();
        let n = self.by_transaction[&job.transaction_id];
        let mut result = steps::ask(&account, &job).await;
        let brought = match &result {
            Ok(Outcome::Finished(_)) => "finished".to_owned(),
            Ok(Outcome::Running(code)) => code.clone(),
            Err(error) => {
                match error {
                    ProviderError::Throttled { .. } => self.explored.throttled += 1,
                    ProviderError::Unavailable { .. } => self.explored.unavailable += 1,
                    _ => {}
                }
                error.code().to_owned()
            }
        };
        self.note(&format!("r{replica} asks about {n}: {brought}"));
        self.check_calls(replica, &job)?;
        if matches!(result, Ok(Outcome::Finished(_))) {
            self.people[n].asked_at = Some(self.now);
        }
        let mut took = self.random.random_range(40 * MILLISECOND..400 * MILLISECOND);
        if self.is_slow() {
            took = self.random.random_range(SECOND..PATIENCE + 5 * SECOND);
            if took > PATIENCE {
                took = PATIENCE;
                result = Err(ProviderError::Unavailable {
                    code: "timeout".to_owned(),
                    reason: "no whole answer came in time".to_owned(),
                });
            }
        }
        let lasted = Duration::from_micros(u64::try_from(took).unwrap());
        self.later(replica, self.now.plus(took), Step::Answer { job, result: Box::new(result), took: lasted });
        Ok(())
    }

    async fn answer(&mut self, replica: usize, job: LeasedJob, result: Result<Outcome, ProviderError>, took: Duration) {
        if !self.holds(replica, &job) {
            return;
        }
        let (service, account) = self.replicas[replica].parts();
        if steps::may_be_explained(&service, &account, &job, &result).await {
            let now = service.clock.now();
            let next_probe_at = later(now, after_probe(u32::MAX));
            self.put_database_clock().await;
            let rate = account.rate();
            let taken = service.store.take_call_slot(&account.name, rate, Pace::Bulk, now, next_probe_at).await;
            if let CallSlot::Granted { slot_in, .. } = taken.unwrap() {
                let wait = Duration::try_from_secs_f64(slot_in).map_or(0, micros);
                let at = self.now.plus(self.statement() + wait);
                self.later(replica, at, Step::Explain { job: Box::new(job), result: Box::new(result), took });
                return;
            }
        }
        self.judge(replica, job, result, took, None).await;
    }

    async fn explain(
        &mut self,
        replica: usize,
        job: Box<LeasedJob>,
        result: Result<Outcome, ProviderError>,
        took: Duration,
    ) -> Result<(), Box<Violation>> {
        if !self.holds(replica, &job) {
            return Ok(());
        }
        let (service, account) = self.replicas[replica].parts();
        let n = self.by_transaction[&job.transaction_id];
        let flow = steps::explain_now(&service, &account, &job).await;
        self.note(&format!("r{replica} asks how far {n} came: {flow:?}"));
        self.check_calls(replica, &job)?;
        self.explored.explained += u64::from(flow.is_some());
        self.judge(replica, *job, result, took, flow).await;
        Ok(())
    }

    async fn judge(
        &mut self,
        replica: usize,
        job: LeasedJob,
        mut result: Result<Outcome, ProviderError>,
        took: Duration,
        flow: Option<Flow>,
    ) {
        let (service, account) = self.replicas[replica].parts();
        let was_well = job.standing == Standing::Well;
        let found = steps::take_evidence(&mut result);
        match steps::judge(&service, &account, &job, result, took, flow.as_ref()).await {
            Decision::Final(check) => {
                let (check, captures) = steps::with_evidence(&service, &account, &job, check, found);
                self.put_final(replica, job, check, captures);
            }
            Decision::Open(check) => {
                self.replicas[replica].opens.push((job, check));
                self.flush_soon(replica);
            }
        }
        if !was_well {
            // It may be well again.
            self.wake(replica, Loop::Look, 0);
        }
    }

    fn put_final(&mut self, replica: usize, job: LeasedJob, check: CheckedFinal, captures: Vec<Capture>) {
        self.replicas[replica].finals.push((job, check, captures));
        self.flush_soon(replica);
    }

    fn flush_soon(&mut self, replica: usize) {
        let soon = self.random.random_range(MILLISECOND..20 * MILLISECOND);
        self.schedule(replica, Loop::Flush, self.now.plus(soon));
    }

    async fn flush(&mut self, replica: usize) -> Result<(), Box<Violation>> {
        let (service, _) = self.replicas[replica].parts();
        let (finals, opens) = {
            let this = &mut self.replicas[replica];
            (std::mem::take(&mut this.finals), std::mem::take(&mut this.opens))
        };
        let jobs: Vec<LeasedJob> =
            finals.iter().map(|(job, ..)| job).chain(opens.iter().map(|(job, _)| job)).cloned().collect();
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        let held = self.holders(&ids).await;
        let (mut finals, mut captures): (Vec<CheckedFinal>, Vec<Vec<Capture>>) =
            finals.into_iter().map(|(_, check, captures)| (check, captures)).unzip();
        let mut opens: Vec<CheckedOpen> = opens.into_iter().map(|(_, check)| check).collect();
        if self.planted == Some(Planted::NoFencing) {
            // Whoever holds the lease now: its token is used.
            for check in &mut finals {
                check.token = held.get(&check.id).copied().unwrap_or(check.token);
            }
            for check in &mut opens {
                check.token = held.get(&check.id).copied().unwrap_or(check.token);
            }
        }
        let mut stored = Vec::new();
        if self.planted == Some(Planted::TwoTransactions) {
            for check in std::mem::take(&mut finals) {
                if Planted::decide(&mut self.sql, &check).await {
                    stored.push(true);
                    let soon = self.now.plus(3 * MILLISECOND);
                    self.later(replica, soon, Step::Remember { check: Box::new(check) });
                } else {
                    stored.push(false);
                }
            }
        } else if !finals.is_empty() {
            for (recorded, captures) in steps::store_finals(&service, &finals).await.into_iter().zip(captures.drain(..))
            {
                stored.push(recorded.is_some());
                let Some(recorded) = recorded else { continue };
                for capture in captures {
                    let lease = recorded.captures.iter().find(|lease| lease.token == capture.token);
                    let Some(lease) = lease.copied() else { continue };
                    let key = CaptureKey { id: recorded.id, kind: lease.kind, token: lease.token };
                    let soon = self.random.random_range(MILLISECOND..SECOND);
                    let source = Box::new(capture.source);
                    self.later(replica, self.now.plus(soon), Step::Capture { key, lease, source });
                    self.wake(replica, Loop::Evidence, micros(LEASE));
                }
            }
        }
        if !opens.is_empty() {
            stored.extend(steps::store_opens(&service, &opens).await);
        }
        for (job, stored) in jobs.iter().zip(&stored) {
            let n = self.by_id[&job.id];
            let what = if *stored { "stores" } else { "may not store" };
            self.note(&format!("r{replica} {what} what came of {n}"));
            let was_held = held.get(&job.id) == Some(&job.token);
            self.explored.stale_writes += u64::from(!was_held);
            if *stored && !was_held {
                return self.broken("fencing", format!("r{replica} wrote about {n} without the lease"));
            }
            self.end(replica, job);
        }
        self.schedule(replica, Loop::Look, self.now);
        self.check(&ids).await
    }

    async fn capture(
        &mut self,
        replica: usize,
        key: CaptureKey,
        lease: CaptureLease,
        source: &Source,
    ) -> Result<(), Box<Violation>> {
        let (_, account) = self.replicas[replica].parts();
        let captures = self.replicas[replica].captures();
        let n = self.by_id[&key.id];
        let mut took = self.random.random_range(50 * MILLISECOND..3 * SECOND);
        if self.is_slow() {
            // Longer than its lease, which nobody renews here.
            took += 12 * SECOND;
        }
        if self.planted == Some(Planted::StoredBeforeWhole) {
            captures.stored(&account, key, lease, Planted::claimed(&account, key)).await;
            self.note(&format!("r{replica} says that the {} of {n} is stored", key.kind));
            return self.check_evidence(key.id).await;
        }
        let result = Box::new(captures.attempt(&account, key, source).await);
        let what = if result.is_ok() { "fetches" } else { "cannot fetch" };
        self.note(&format!("r{replica} {what} the {} of {n}", key.kind));
        self.later(replica, self.now.plus(took), Step::Captured { key, lease, result });
        Ok(())
    }

    async fn captured(
        &mut self,
        replica: usize,
        key: CaptureKey,
        lease: CaptureLease,
        result: Result<(String, Stored), CaptureFailed>,
    ) -> Result<(), Box<Violation>> {
        let (_, account) = self.replicas[replica].parts();
        let captures = self.replicas[replica].captures();
        match result {
            Ok(stored) => captures.stored(&account, key, lease, stored).await,
            Err(failed) => captures.failed(&account, key, lease, failed).await,
        }
        let n = self.by_id[&key.id];
        self.note(&format!("r{replica} writes down what came of the {} of {n}", key.kind));
        self.wake(replica, Loop::Evidence, 0);
        self.check_evidence(key.id).await
    }

    async fn look_after_evidence(&mut self, replica: usize) {
        self.put_database_clock().await;
        let (service, account) = self.replicas[replica].parts();
        let captures = self.replicas[replica].captures();
        captures.look(std::slice::from_ref(&account.name), service.clock.now()).await.unwrap();
        self.wake(replica, Loop::Look, 0);
        let next = "SELECT min(CASE WHEN lease_token IS NULL THEN least(due_at, deadline) ELSE leased_until END)
            FROM evidence WHERE state = 'pending'";
        let next: Option<DateTime<Utc>> = sqlx::query(next).fetch_one(&mut self.sql).await.unwrap().get(0);
        if let Some(next) = next {
            let soon = self.random.random_range(SECOND..3 * SECOND);
            self.schedule(replica, Loop::Evidence, Moment::of(next).max(self.now).plus(soon));
        }
    }

    async fn renew(&mut self, replica: usize) {
        let (service, _) = self.replicas[replica].parts();
        let now = self.instant(self.now);
        if self.replicas[replica].in_flight.is_empty() {
            return;
        }
        self.put_database_clock().await;
        steps::renew(&service, &self.replicas[replica].in_flight, now).await;
        self.schedule(replica, Loop::Renew, self.now.plus(micros(RENEWAL)));
    }

    async fn recover(&mut self, replica: usize) {
        self.put_database_clock().await;
        let (service, _) = self.replicas[replica].parts();
        let accounts = service.store.recover_leases().await.unwrap();
        if !accounts.is_empty() {
            self.note(&format!("r{replica} takes {} leases back", accounts.len()));
            self.explored.recovered += accounts.len() as u64;
            self.wake(replica, Loop::Look, 0);
        }
        // The loop looks every two seconds; here only while there is something to see.
        let first: Option<DateTime<Utc>> =
            sqlx::query("SELECT min(leased_until) FROM collect_jobs WHERE lease_token IS NOT NULL")
                .fetch_one(&mut self.sql)
                .await
                .unwrap()
                .get(0);
        if let Some(first) = first {
            let due = Moment::of(first).plus(-self.database_off).max(self.now);
            let late = self.random.random_range(MILLISECOND..micros(RECOVERY));
            self.schedule(replica, Loop::Recover, due.plus(late));
        }
    }

    async fn sort(&mut self, replica: usize) {
        let (service, account) = self.replicas[replica].parts();
        if steps::sort_lanes(&service, &account).await.unwrap() {
            self.schedule(replica, Loop::Sort, self.now.plus(MILLISECOND));
        }
        self.schedule(replica, Loop::Look, self.now);
    }

    async fn end_overdue(&mut self, replica: usize) {
        if self.planted == Some(Planted::RetryPastDeadline) {
            return;
        }
        self.put_database_clock().await;
        let (service, account) = self.replicas[replica].parts();
        let leased_at = self.instant(self.now);
        for job in steps::lease_overdue(&service, &account).await.unwrap() {
            self.replicas[replica].in_flight.add(job.id, job.token, leased_at);
            self.replicas[replica].calls += 1;
            match steps::end_if_overdue(&service, &account, &job).await {
                Some(expired) => self.put_final(replica, job, expired, Vec::new()),
                None => self.end(replica, &job),
            }
        }
    }

    pub async fn tidy(&mut self) {
        for replica in 0..self.replicas.len() {
            if self.replicas[replica].stands() {
                self.put_clock(replica);
                let (service, account) = self.replicas[replica].parts();
                steps::forget_unmatched(&service).await;
                let polls = &mut self.replicas[replica].polls;
                service.plan_polls(&account, polls).await.unwrap();
            }
        }
        if self.now < Moment(400 * DAY) {
            self.queue.push(self.now.plus(6 * HOUR), Event::Tidy);
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap()
}
