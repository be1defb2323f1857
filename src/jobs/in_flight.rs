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
pub(super) struct InFlight {
    held: Mutex<HashMap<VerificationId, Held>>,
    /// Leases that a stop found unused; nothing runs under them any more.
    aside: Mutex<Vec<(VerificationId, Uuid)>>,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashMap<VerificationId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what runs under a lease that is to be given back.
    pub fn set_aside(&self, id: VerificationId, token: Uuid) {
        self.remove(id, token);
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).push((id, token));
    }

    /// All leases that this replica still has, at its end.
    pub fn left(&self) -> Vec<(VerificationId, Uuid)> {
        let mut left = self.all();
        left.extend_from_slice(&self.aside.lock().unwrap_or_else(PoisonError::into_inner));
        left
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

    pub fn all(&self) -> Vec<(VerificationId, Uuid)> {
        self.lock().iter().map(|(id, held)| (*id, held.token)).collect()
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

    /// Calls off what runs under leases that may have run out, because they could not be renewed.
    pub fn call_off_expired(&self, now: Instant) {
        for held in self.lock().values() {
            if now.saturating_duration_since(held.renewed_at) >= LEASE.saturating_sub(MARGIN) {
                held.call_off.cancel();
            }
        }
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
        in_flight.call_off_expired(start + Duration::from_secs(13));
        assert!(!kept.is_cancelled());
        in_flight.call_off_expired(start + Duration::from_secs(14));
        assert!(kept.is_cancelled(), "a lease that could not be renewed in time counts as lost");
    }

    #[tokio::test]
    async fn a_lease_set_aside_is_left_to_give_back_and_nothing_runs_under_it() {
        let in_flight = InFlight::default();
        in_flight.add(id(1), Uuid::from_u128(1), Instant::now());
        in_flight.set_aside(id(1), Uuid::from_u128(1));
        assert!(in_flight.all().is_empty());
        assert_eq!(in_flight.left(), [(id(1), Uuid::from_u128(1))]);
    }

    #[tokio::test]
    async fn a_lease_taken_again_is_not_forgotten_with_the_old_one() {
        let in_flight = InFlight::default();
        in_flight.add(id(1), Uuid::from_u128(1), Instant::now());
        in_flight.add(id(1), Uuid::from_u128(2), Instant::now());
        in_flight.remove(id(1), Uuid::from_u128(1));
        assert_eq!(in_flight.all(), [(id(1), Uuid::from_u128(2))]);
        in_flight.remove(id(1), Uuid::from_u128(2));
        assert!(in_flight.all().is_empty());
    }
}
