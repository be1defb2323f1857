//! The leases that this replica holds, until when each is good, and how to call off what runs under a lost one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::LEASE;
use crate::domain::VerificationId;

/// How much earlier than the database a worker takes its lease for lost.
const MARGIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Held {
    token: Uuid,
    renewed_at: Instant,
    call_off: CancellationToken,
}

#[derive(Debug, Default)]
pub struct InFlight {
    held: Mutex<HashMap<VerificationId, Held>>,
    /// Leases that a stop leaves unused.
    unused: Mutex<Vec<(VerificationId, Uuid)>>,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashMap<VerificationId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a lease taken at `leased_at`; the token tells when it is lost.
    pub fn add(&self, id: VerificationId, token: Uuid, leased_at: Instant) -> CancellationToken {
        let call_off = CancellationToken::new();
        self.lock().insert(id, Held { token, renewed_at: leased_at, call_off: call_off.clone() });
        call_off
    }

    /// Forgets a lease that ended. One taken again meanwhile stays.
    pub fn remove(&self, id: VerificationId, token: Uuid) {
        let mut held = self.lock();
        if held.get(&id).is_some_and(|held| held.token == token) {
            held.remove(&id);
        }
    }

    /// Puts a lease aside that nothing was done under; it is given back with what a stop leaves.
    pub fn set_aside(&self, id: VerificationId, token: Uuid) {
        self.remove(id, token);
        self.unused.lock().unwrap_or_else(PoisonError::into_inner).push((id, token));
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Every lease that was not ended: those put aside, and those whose work was dropped.
    pub fn left(&self) -> Vec<(VerificationId, Uuid)> {
        let mut left = self.unused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        left.extend(self.lock().iter().map(|(id, held)| (*id, held.token)));
        left
    }

    /// Those renewed longer ago than `age`.
    pub fn older_than(&self, age: Duration, now: Instant) -> Vec<(VerificationId, Uuid)> {
        self.lock()
            .iter()
            .filter(|(_, held)| now.saturating_duration_since(held.renewed_at) >= age)
            .map(|(id, held)| (*id, held.token))
            .collect()
    }

    /// Of the `asked` leases, `renewed` still stand; what runs under the others is called off.
    pub fn renewed(&self, asked: &[(VerificationId, Uuid)], renewed: &[VerificationId], at: Instant) {
        let mut held = self.lock();
        for (id, token) in asked {
            let Some(held) = held.get_mut(id).filter(|held| held.token == *token) else { continue };
            if renewed.contains(id) {
                held.renewed_at = at;
            } else {
                held.call_off.cancel();
            }
        }
    }

    /// Resolves when the lease must be taken for lost: somebody else has it, or it could not be renewed in time.
    pub async fn lost(&self, id: VerificationId, token: Uuid, call_off: &CancellationToken) {
        while let Some(until) = self.good_until(id, token).filter(|until| *until > Instant::now()) {
            tokio::select! {
                () = call_off.cancelled() => return,
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Whether somebody else was found to have the lease.
    pub fn is_called_off(&self, id: VerificationId, token: Uuid) -> bool {
        self.lock().get(&id).is_some_and(|held| held.token == token && held.call_off.is_cancelled())
    }

    /// Until when work under the lease may go on; `None` once it ended.
    pub fn good_until(&self, id: VerificationId, token: Uuid) -> Option<Instant> {
        let held = self.lock();
        held.get(&id).filter(|held| held.token == token).map(|held| held.renewed_at + LEASE.saturating_sub(MARGIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> VerificationId {
        VerificationId(Uuid::from_u128(n))
    }

    #[tokio::test(start_paused = true)]
    async fn work_under_a_lost_lease_is_called_off() {
        let in_flight = InFlight::default();
        let start = Instant::now();
        let token = Uuid::from_u128(9);
        let (kept, lost) = (in_flight.add(id(1), token, start), in_flight.add(id(2), token, start));
        let asked = in_flight.older_than(Duration::ZERO, start);
        assert_eq!(asked.len(), 2);
        in_flight.renewed(&asked, &[id(1)], start + Duration::from_secs(5));
        assert!(!kept.is_cancelled() && lost.is_cancelled());
        in_flight.lost(id(2), token, &lost).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        in_flight.lost(id(1), token, &kept).await;
        assert_eq!(start.elapsed(), Duration::from_secs(14), "a lease that could not be renewed in time is lost");
    }

    #[tokio::test]
    async fn a_lease_set_aside_is_left_to_give_back_and_nothing_runs_under_it() {
        let in_flight = InFlight::default();
        in_flight.add(id(1), Uuid::from_u128(1), Instant::now());
        in_flight.set_aside(id(1), Uuid::from_u128(1));
        assert!(in_flight.is_empty());
        assert_eq!(in_flight.left(), [(id(1), Uuid::from_u128(1))]);
    }

    #[tokio::test]
    async fn a_lease_taken_again_is_not_forgotten_with_the_old_one() {
        let in_flight = InFlight::default();
        in_flight.add(id(1), Uuid::from_u128(1), Instant::now());
        in_flight.add(id(1), Uuid::from_u128(2), Instant::now());
        in_flight.remove(id(1), Uuid::from_u128(1));
        assert_eq!(in_flight.left(), [(id(1), Uuid::from_u128(2))]);
        in_flight.set_aside(id(1), Uuid::from_u128(2));
        assert!(in_flight.is_empty());
        assert_eq!(in_flight.left(), [(id(1), Uuid::from_u128(2))], "it is still to be given back");
    }
}
