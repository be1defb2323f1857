//! Destroying what is kept for a limited time, in small steps, one class at a time.

use chrono::TimeDelta;

use super::Service;
use crate::clock::earlier;
use crate::domain::{Keep, RetentionClass};
use crate::evidence::StorageError;
use crate::store::{Retained, StoreError};

/// How many objects one step deletes.
const OBJECTS: i64 = 100;

/// How many rows one step looks at: its transaction is short, and its locks are few.
const STEP: i64 = 500;

/// A clock that differs from the database's by more is not trusted with destroying anything.
const LARGEST_DIFFERENCE: TimeDelta = TimeDelta::hours(1);

#[derive(Debug, thiserror::Error)]
pub enum NotRetained {
    /// A clock that is ahead would destroy what is to be kept.
    #[error("this machine's clock and the database's are {} minutes apart", difference.num_minutes())]
    Clock { difference: TimeDelta },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Evidence(#[from] StorageError),
}

impl Service {
    /// One step; `None` when another replica is at it.
    pub async fn retain(&self, keep: Keep) -> Result<Option<Retained>, NotRetained> {
        if let Some(ours) = self.clock.machine_now() {
            let difference = ours - self.store.database_now().await?;
            if difference.abs() > LARGEST_DIFFERENCE {
                return Err(NotRetained::Clock { difference });
            }
        }
        let now = self.clock.now();
        let before = earlier(now, keep.time);
        let retained = self.store.retain(keep.class, before, STEP, now).await?;
        if keep.class == RetentionClass::Evidence {
            self.delete_retained().await?;
        }
        let Some(retained) = retained else { return Ok(None) };
        let class = keep.class.as_str();
        metrics::counter!("checkback_retention_destroyed_total", "class" => class).increment(retained.destroyed);
        metrics::gauge!("checkback_retention_overdue_seconds", "class" => class).set(retained.overdue.as_secs_f64());
        Ok(Some(retained))
    }

    /// Deletes objects whose rows were marked. One that is deleted and not yet forgotten is deleted again.
    async fn delete_retained(&self) -> Result<(), NotRetained> {
        for (id, kind, object) in self.store.retained_evidence(OBJECTS).await? {
            self.destroy_evidence(&object).await?;
            self.store.forget_object(id, kind, &object).await?;
        }
        Ok(())
    }
}
