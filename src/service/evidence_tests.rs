use chrono::TimeDelta;
use futures_util::TryStreamExt;
use futures_util::stream;

use super::*;
use crate::domain::{BadImage, FoundImage};
use crate::evidence::{Location, Recipients, StoreSettings};
use crate::service::testing::{self, account, start};

fn job(hinted: bool, expect_video: bool) -> LeasedJob {
    LeasedJob { expect_video, ..testing::job(hinted) }
}

fn evidence() -> Evidence {
    Evidence::new(EvidenceStore::new(StoreSettings {
        location: Location::Folder("/nowhere".into()),
        recipients: Recipients::default(),
        identities: None,
    }))
}

fn image(kind: EvidenceKind, bytes: usize) -> FoundImage {
    FoundImage { kind, content: Ok(Bytes::from(vec![7; bytes])) }
}

fn planned(
    evidence: &Evidence,
    job: &LeasedJob,
    minutes: i64,
    found: FoundEvidence,
) -> (Vec<EvidenceNote>, Vec<Capture>) {
    let at = start() + TimeDelta::minutes(minutes);
    let mut tokens = 0;
    let token = || {
        tokens += 1;
        Uuid::from_u128(tokens)
    };
    evidence.plan(Answered { account: &account(), job, at }, found, token)
}

#[test]
fn what_came_is_captured_each_under_a_lease_of_its_own() {
    let found = FoundEvidence {
        images: vec![image(EvidenceKind::FaceImage, 3), image(EvidenceKind::IdBackImage, 3)],
        video: Some(VideoLink::new("https://a.aliyuncs.com/v".into())),
        asked_for_images: true,
    };
    let (notes, captures) = planned(&evidence(), &job(true, true), 1, found);
    let tokens: Vec<_> = captures.iter().map(|capture| (capture.kind, capture.token)).collect();
    let leases: Vec<_> = notes
        .iter()
        .map(|note| match note.state {
            NotedState::Captured { token, .. } => (note.kind, token),
            ref other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tokens, leases);
    assert_eq!(tokens.len(), 3);
    let deadlines: Vec<_> = notes.iter().map(|note| note.deadline - start()).collect();
    assert_eq!(deadlines, [TimeDelta::days(30), TimeDelta::days(30), TimeDelta::minutes(30)]);
}

#[test]
fn who_was_never_heard_of_has_finished_by_the_time_of_the_answer() {
    let found = FoundEvidence { video: Some(VideoLink::new("x".into())), ..FoundEvidence::default() };
    let (notes, _) = planned(&evidence(), &job(false, false), 90, found);
    assert_eq!(notes[0].deadline - start(), TimeDelta::minutes(120));
}

#[test]
fn what_did_not_come_is_absent_or_missed_and_only_where_it_was_expected() {
    let state = |minutes, expect_video, found| {
        let (notes, captures) = planned(&evidence(), &job(true, expect_video), minutes, found);
        assert!(captures.is_empty());
        notes.into_iter().map(|note| (note.kind, format!("{:?}", note.state))).collect::<Vec<_>>()
    };
    assert_eq!(state(1, false, FoundEvidence::default()), []);
    let in_time = state(29, true, FoundEvidence::default());
    assert!(in_time[0].0 == EvidenceKind::Video && in_time[0].1.starts_with("Absent"), "{in_time:?}");
    let late = state(30, true, FoundEvidence::default());
    assert!(late[0].1.starts_with("Missed"), "{late:?}");
    let asked = FoundEvidence { asked_for_images: true, ..FoundEvidence::default() };
    let faceless = state(1, false, asked);
    assert!(faceless[0].0 == EvidenceKind::FaceImage && faceless[0].1.starts_with("Absent"), "{faceless:?}");
    let bad = FoundImage { kind: EvidenceKind::FaceImage, content: Err(BadImage::NotBase64) };
    let broken = state(1, false, FoundEvidence { images: vec![bad], asked_for_images: true, ..Default::default() });
    assert!(broken.len() == 1 && broken[0].1.contains("no Base64"), "{broken:?}");
}

#[test]
fn images_that_find_no_room_are_asked_for_later_and_no_verdict_waits() {
    let evidence = evidence();
    let half = || FoundEvidence { images: vec![image(EvidenceKind::FaceImage, ROOM / 2)], ..Default::default() };
    let held: Vec<_> = (0..2).map(|_| planned(&evidence, &job(true, false), 1, half()).1).collect();
    assert_eq!(held.iter().map(Vec::len).sum::<usize>(), 2);
    let (notes, captures) = planned(&evidence, &job(true, false), 1, half());
    assert!(captures.is_empty() && matches!(notes[0].state, NotedState::PutOff { .. }));
    drop(held);
    assert_eq!(planned(&evidence, &job(true, false), 1, half()).1.len(), 1);
}

async fn verified(pieces: &[&[u8]], stored: &[u8]) -> (Vec<u8>, bool) {
    let object = EvidenceObject {
        name: String::new(),
        content_type: String::new(),
        bytes: stored.len() as u64,
        sha256: Sha256::digest(stored).into(),
        is_sealed: false,
    };
    let pieces: Vec<io::Result<Bytes>> = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let mut stream = Verified::new(stream::iter(pieces), &object, VerificationId(Uuid::nil()), EvidenceKind::FaceImage);
    let mut read = Vec::new();
    loop {
        match stream.try_next().await {
            Ok(Some(piece)) => read.extend_from_slice(&piece),
            Ok(None) => return (read, true),
            Err(_) => return (read, false),
        }
    }
}

#[tokio::test]
async fn the_last_piece_goes_out_only_when_the_whole_is_right() {
    assert_eq!(verified(&[b"ab", b"", b"cd"], b"abcd").await, (b"abcd".to_vec(), true));
    assert_eq!(verified(&[b"abcd"], b"abcd").await, (b"abcd".to_vec(), true));
    assert_eq!(verified(&[b"ab", b"cX"], b"abcd").await, (b"ab".to_vec(), false));
    assert_eq!(verified(&[b"abcX"], b"abcd").await, (vec![], false));
    assert_eq!(verified(&[b"ab"], b"abcd").await, (vec![], false));
    assert!(!verified(&[b"ab", b"cd", b"e"], b"abcd").await.1);
}
