//! Thirty days in virtual time: the service's steps against a real Postgres and the simulated provider, with faults of
//! every kind, drawn from a seed. What must hold is checked after every step. A failing seed replays exactly.

mod invariants;
mod plan;
mod planted;
mod queue;
mod replica;
mod world;

use std::time::Instant;

use invariants::Violation;
use plan::Plan;
use planted::Planted;
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
    let people = usize::try_from(number("CHECKBACK_DAYS_PEOPLE", 300)).unwrap();
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
    if people >= 300 && seeds >= 3 {
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
