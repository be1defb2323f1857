//! An account and a leased job for tests of the rules, which do no I/O.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::account::{Account, Pacing, Rotating, Starting};
use crate::domain::VerificationId;
use crate::domain::schedule::Lane;
use crate::provider::{Answer, CheckRequest, Provider};
use crate::store::{LeasedJob, Pace, Standing};

struct Nobody;

impl Provider for Nobody {
    fn check_result<'a>(&'a self, _: &'a CheckRequest) -> Answer<'a> {
        unreachable!("rules ask nobody")
    }
}

/// With the retention and the limits of the defaults.
pub(super) fn account() -> Account {
    Account {
        name: "alibaba-sg".into(),
        qps: 10,
        result_retention: Duration::from_hours(30 * 24),
        video_retention: Duration::from_mins(30),
        give_up_after: Duration::from_hours(24),
        callback_token: Rotating::new(None),
        starting: Starting::default(),
        pacing: Pacing::default(),
        providers: Rotating::new(Arc::new(Nobody)),
        downloader: None,
    }
}

pub(super) fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

/// Registered at the start, and called back then if it is hinted.
pub(super) fn job(hinted: bool) -> LeasedJob {
    LeasedJob {
        id: VerificationId(Uuid::from_u128(1)),
        token: Uuid::from_u128(2),
        lane: if hinted { Lane::Fresh } else { Lane::Poll },
        pace: if hinted { Pace::Urgent } else { Pace::Bulk },
        transaction_id: "t".into(),
        merchant_biz_id: "b".into(),
        product: None,
        expect_video: false,
        registered_at: start(),
        hinted_at: hinted.then(start),
        callback_at: hinted.then(start),
        recheck: false,
        checks: 3,
        running: 0,
        faults: 0,
        slot_in: 0.0,
        standing: Standing::Well,
    }
}
