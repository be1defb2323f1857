//! Videos: the real binary is killed while it downloads, and in the end every video is there whole.
//!
//! How many and how often comes from the environment: `EVIDENCE_KILL_VIDEOS`, `EVIDENCE_KILLS`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use checkback::simulator::{Fault, FaultKind};
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use super::{KEY, Torture, simulator};
use crate::support::database::database;
use crate::support::environment::number;

/// A worker that died is replaced within 15 s; what failed besides waits for its next turn.
const PATIENCE: Duration = Duration::from_mins(3);

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Waits until a download is under way.
async fn downloading(pool: &PgPool) {
    let under_way = "SELECT EXISTS (SELECT FROM evidence WHERE lease_token IS NOT NULL AND kind = 'video')";
    let started = Instant::now();
    while !sqlx::query_scalar::<_, bool>(under_way).fetch_one(pool).await.unwrap() {
        assert!(started.elapsed() < PATIENCE, "no download is ever under way");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until no verdict and no evidence is still to come.
async fn all_ended(pool: &PgPool, patience: Duration) {
    let left = "SELECT (SELECT count(*) FROM collect_jobs) + (SELECT count(*) FROM hints)
        + (SELECT count(*) FROM evidence WHERE state = 'pending')";
    let started = Instant::now();
    loop {
        let left: i64 = sqlx::query_scalar(left).fetch_one(pool).await.unwrap();
        if left == 0 {
            return;
        }
        assert!(started.elapsed() < patience, "{left} are left after {patience:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

type Row = (String, String, Option<String>, Option<String>, DateTime<Utc>, Option<DateTime<Utc>>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn videos_are_stored_whole_and_in_time_when_the_service_is_killed_while_it_downloads() {
    let most = usize::try_from(number("EVIDENCE_KILL_VIDEOS", 60)).unwrap();
    let kills = usize::try_from(number("EVIDENCE_KILLS", 4)).unwrap();
    let simulator = simulator().await;
    let of = |kind, share| Fault { operation: Some("Video".to_owned()), kind, share: Some(share), ..Fault::default() };
    for fault in [
        Fault { delay_ms: Some(5), ..of(FaultKind::Drip, 0.5) },
        of(FaultKind::Status, 0.1),
        Fault { status: Some(403), ..of(FaultKind::Status, 0.05) },
        of(FaultKind::CutOff, 0.1),
        of(FaultKind::WrongLength, 0.05),
    ] {
        simulator.0.add_fault(fault).unwrap();
    }
    let database = database().await;
    let pool = database.pool().await;
    let mut torture = Torture::new("videos", simulator, Some(database.url().to_owned()), most, true).await;
    let senders = Arc::clone(&torture.senders);
    let mut sending = torture.send();
    for kill in 1..=kills {
        while senders.begun.load(Ordering::Relaxed) < kill * most / (kills + 1) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        downloading(&pool).await;
        torture.service.kill();
        torture.service.start();
        torture.service.ready().await;
    }
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }
    let backlog = Duration::from_millis(20) * u32::try_from(most).unwrap();
    all_ended(&pool, PATIENCE + backlog).await;

    let rows: Vec<Row> = sqlx::query_as(
        "SELECT e.verification_id::text, e.state, e.reason, encode(e.sha256, 'hex'), v.registered_at, e.stored_at
        FROM verifications v
        LEFT JOIN evidence e ON e.verification_id = v.verification_id AND e.kind = 'video'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(rows.len(), senders.acknowledged.registered.lock().unwrap().len());
    let folder = torture.service.folder.path().join("evidence");
    let mut kept = Vec::new();
    files(&folder, &mut kept);
    let mut longest = TimeDelta::zero();
    let mut by_verification: BTreeMap<String, usize> = BTreeMap::new();
    for (id, state, reason, sha256, registered_at, stored_at) in &rows {
        assert_eq!((state.as_str(), reason), ("stored", &None), "{id}");
        longest = longest.max(stored_at.unwrap() - *registered_at);
        by_verification.insert(id.clone(), 0);
        let url = format!("http://{}/verifications/{id}/evidence/video", torture.service.internal);
        let served = torture.service.http.get(&url).bearer_auth(KEY).send().await.unwrap();
        assert_eq!(served.status(), 200, "{id}");
        let served = hex::encode(Sha256::digest(served.bytes().await.unwrap()));
        assert_eq!(sha256.as_ref(), Some(&served), "{id}");
    }
    assert!(longest < TimeDelta::minutes(30), "{longest}");
    // Each file is the one of a row: what a killed worker began is not left behind.
    for file in &kept {
        let owner = file.iter().filter_map(|part| part.to_str()).find(|part| by_verification.contains_key(*part));
        let owner = owner.and_then(|id| by_verification.get_mut(id));
        *owner.unwrap_or_else(|| panic!("{} belongs to nobody", file.display())) += 1;
    }
    let several = by_verification.iter().filter(|(_, files)| **files != 1).collect::<Vec<_>>();
    assert!(several.is_empty(), "not one file each: {several:?}");
    let mut said = std::io::stderr().lock();
    let _ = std::io::Write::write_fmt(
        &mut said,
        format_args!("{kills} kills, {} of {} videos stored, the latest after {longest}\n", kept.len(), rows.len()),
    );
    drop(said);
    torture.service.stop().await;
}
