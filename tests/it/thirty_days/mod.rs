//! Thirty days in virtual time: the service's steps against a real Postgres and the simulated provider, with faults of
//! every kind, drawn from a seed. What must hold is checked after every step. A failing seed replays exactly.

mod invariants;
mod plan;
mod planted;
mod queue;
mod replica;
mod scenarios;
mod world;

use std::time::Instant;

use invariants::Violation;
use plan::{Failure, Happening, Outage, Plan};
use planted::Planted;
use queue::{HOUR, MINUTE, Moment};
use scenarios::Saved;
use world::{Explored, World};

use crate::support::environment::number;

async fn run(plan: Plan, planted: Option<Planted>) -> (World, Result<(), Box<Violation>>) {
    let mut world = World::new(plan, planted).await;
    let result = world.run().await;
    (world, result)
}

/// How to see a seed again.
fn replay(seed: u64, people: usize, days: i64) -> String {
    format!(
        "replay it: CHECKBACK_DAYS_SEED={seed} CHECKBACK_DAYS_SEEDS=1 CHECKBACK_DAYS_PEOPLE={people} \
         CHECKBACK_DAYS={days} cargo test --test it -- --nocapture thirty_days::whatever_happens"
    )
}

#[tokio::test]
async fn whatever_happens_in_thirty_days_the_promises_are_kept() {
    let first = number("CHECKBACK_DAYS_SEED", 1);
    let seeds = number("CHECKBACK_DAYS_SEEDS", 3);
    let people = usize::try_from(number("CHECKBACK_DAYS_PEOPLE", 100)).unwrap();
    let days = i64::try_from(number("CHECKBACK_DAYS", 30)).unwrap();
    let mut sum = Explored::default();
    for seed in first..first + seeds {
        let started = Instant::now();
        let (world, result) = run(Plan::eventful(seed, people, days), None).await;
        println!("seed {seed}: {:?} in {:?}", world.explored, started.elapsed());
        if let Err(violation) = result {
            panic!("{violation}{}", replay(seed, people, days));
        }
        sum.kills += world.explored.kills;
        sum.lost_leases += world.explored.lost_leases;
        sum.stale_writes += world.explored.stale_writes;
        sum.throttled += world.explored.throttled;
        sum.unavailable += world.explored.unavailable;
        sum.early_callbacks += world.explored.early_callbacks;
        for (status, count) in &world.explored.by_status {
            *sum.by_status.entry(status.clone()).or_default() += count;
        }
    }
    // A run in which nothing of this happened would prove nothing.
    if people >= 100 && seeds >= 3 && first == 1 {
        let counts =
            [sum.kills, sum.lost_leases, sum.stale_writes, sum.throttled, sum.unavailable, sum.early_callbacks];
        assert!(counts.iter().all(|count| *count > 0), "{sum:?}");
        assert!(
            ["passed", "failed", "void", "expired"].iter().all(|status| sum.by_status.contains_key(*status)),
            "{sum:?}"
        );
    }
}

#[tokio::test]
async fn a_seed_replays_exactly() {
    let mut traces = Vec::new();
    for _ in 0..2 {
        let (world, result) = run(Plan::eventful(5, 30, 30), None).await;
        if let Err(violation) = result {
            panic!("{violation}");
        }
        traces.push((world.trace, world.explored.clone()));
    }
    assert_eq!(traces[0], traces[1]);
}

/// The invariant that finds `planted` in what `plan` holds; without the fault all of them must hold.
async fn found(plan: Plan, planted: Planted) -> &'static str {
    if let Err(violation) = run(plan.clone(), None).await.1 {
        panic!("without any planted fault: {violation}");
    }
    match run(plan, Some(planted)).await.1 {
        Ok(()) => panic!("nobody found {planted:?}"),
        Err(violation) => violation.invariant,
    }
}

/// Forty people, one every `apart`; nothing fails.
fn crowded(seed: u64, apart: i64) -> Plan {
    let mut plan = Plan::eventful(seed, 40, 1);
    for (person, n) in plan.people.iter_mut().zip(0..) {
        let by = n * apart - person.registers_at.0;
        person.forged = None;
        person.callbacks.retain(|at| at.0 - person.registers_at.0 < HOUR);
        person.registers_at = person.registers_at.plus(by);
        person.finishes_at = person.finishes_at.map(|at| at.plus(by));
        for at in &mut person.callbacks {
            *at = at.plus(by);
        }
    }
    Plan { replicas: 3, happenings: Vec::new(), kill_chance: 0.0, stall_chance: 0.0, ..plan }
}

#[tokio::test]
async fn a_lease_without_fencing_is_found() {
    let plan = Plan { stall_chance: 0.08, slow_chance: 0.2, ..crowded(1, MINUTE) };
    assert_eq!(found(plan, Planted::NoFencing).await, "fencing");
}

#[tokio::test]
async fn a_retry_past_the_deadline_is_found() {
    let failure = Failure::Down(Outage::Unavailable);
    let away = (Moment(20 * MINUTE), Happening::Fails { failure, lasts: 3 * HOUR });
    let plan = Plan { happenings: vec![away], result_retention: 90 * MINUTE, ..crowded(2, MINUTE) };
    assert_eq!(found(plan, Planted::RetryPastDeadline).await, "nothing is asked after its deadline");
}

#[tokio::test]
async fn a_verdict_and_its_history_in_two_transactions_are_found() {
    assert_eq!(found(crowded(3, MINUTE), Planted::TwoTransactions).await, "history");
}

#[tokio::test]
async fn evidence_that_is_marked_as_stored_before_it_is_whole_is_found() {
    assert_eq!(found(crowded(5, MINUTE), Planted::StoredBeforeWhole).await, "what is stored is whole");
}

#[tokio::test]
async fn a_budget_per_replica_is_found() {
    assert_eq!(found(crowded(4, 0), Planted::BudgetPerReplica).await, "calls a second");
}

#[tokio::test]
async fn after_six_hours_without_the_provider_all_is_saved_that_can_be() {
    let people = usize::try_from(number("CHECKBACK_DAYS_BACKLOG", 1500)).unwrap();
    let qps = u32::try_from(number("CHECKBACK_DAYS_BACKLOG_QPS", 1)).unwrap();
    let saved = away(people, qps, None).await;
    println!("{saved}");
    assert_eq!(saved.results_had, saved.people);
    assert!(saved.alive_at_return > 0 && saved.videos_had * 1000 >= saved.videos_at_best * 999, "{saved}");
    assert!(saved.out_of_order * 100 <= saved.video_calls, "{saved}");
}

#[tokio::test]
async fn the_order_of_registration_in_place_of_deadlines_is_found() {
    let saved = away(500, 1, Some(Planted::FirstInFirstOut)).await;
    println!("{saved}");
    assert!(saved.videos_had * 10 < saved.videos_at_best * 9, "{saved}");
}

async fn away(people: usize, qps: u32, planted: Option<Planted>) -> Saved {
    let (world, result) = run(scenarios::provider_away(1, people, qps), planted).await;
    if let Err(violation) = result {
        panic!("{violation}");
    }
    Saved::of(&world)
}

#[tokio::test]
async fn lost_callbacks_cost_no_verdict_and_few_calls() {
    let people = usize::try_from(number("CHECKBACK_DAYS_LOST", 500)).unwrap();
    let (world, result) = run(scenarios::lost_callbacks(1, people), None).await;
    if let Err(violation) = result {
        panic!("{violation}");
    }
    let verdicts = world.explored.by_status.iter().filter(|(status, _)| matches!(status.as_str(), "passed" | "failed"));
    assert_eq!(verdicts.map(|(_, count)| count).sum::<u64>(), people as u64);
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    let each = world.explored.calls as f64 / people as f64;
    println!("{people} people, {} calls: {each:.3} each", world.explored.calls);
    assert!(each <= 1.2, "{each} calls each");
}
