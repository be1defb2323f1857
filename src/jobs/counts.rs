//! The loops that keep the gauges of the whole true.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::upkeep::stops_within;
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::service::counts::FinalRound;

const LOOK: Duration = Duration::from_secs(5);
/// A look reads all open work: it takes at most one part in so many of the time.
const REST: u32 = 20;

/// How often finished verifications are counted, where there are few of them.
const ROUND: Duration = Duration::from_secs(15);
/// The counting takes at most one part in so many of the time, however many there are: more of them take longer.
const FINALS_REST: u32 = 99;

pub(super) async fn look(service: Service, tasks: Tasks) {
    loop {
        let started = Instant::now();
        let rest = match service.look_at_whole().await {
            Ok(()) => LOOK.max(started.elapsed() * REST),
            // Whether it is ready again is to be seen soon.
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "open work could not be counted");
                LOOK
            }
        };
        if stops_within(&tasks, rest).await {
            return;
        }
    }
}

pub(super) async fn count_finals(service: Service, tasks: Tasks) {
    loop {
        let mut round = FinalRound::new(&service);
        let began = Instant::now();
        loop {
            let started = Instant::now();
            let more = service.count_finals(&mut round).await.unwrap_or_else(|error| {
                debug!(error = &error as &dyn std::error::Error, "finished verifications could not be counted");
                false
            });
            if stops_within(&tasks, started.elapsed() * FINALS_REST).await {
                return;
            }
            if !more {
                break;
            }
        }
        if stops_within(&tasks, ROUND.saturating_sub(began.elapsed())).await {
            return;
        }
    }
}
