use futures_util::stream;

use super::*;

const PNG: &[u8] = b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR";

fn id(n: u128) -> VerificationId {
    VerificationId(Uuid::from_u128(n))
}

fn token(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// A file that begins as a picture does.
fn picture(length: usize) -> Vec<u8> {
    let mut picture = PNG.to_vec();
    picture.extend((picture.len()..length).map(|at| u8::try_from(at % 251).unwrap()));
    picture
}

fn pieces(bytes: &[u8], size: usize) -> impl Stream<Item = Result<Bytes, &'static str>> + use<> {
    stream::iter(bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>())
}

fn open(folder: &tempfile::TempDir, recipients: &[String], identity: Option<PathBuf>) -> EvidenceStore {
    EvidenceStore::new(StoreSettings {
        location: Location::Folder(folder.path().to_owned()),
        recipients: Recipients::read(recipients).unwrap(),
        identities: identity.map(|path| Identities::read(&path).unwrap()),
    })
}

async fn read(store: &EvidenceStore, object: &str, is_sealed: bool) -> Result<Vec<u8>, GetError> {
    let pieces: Vec<Bytes> = store.get(object, is_sealed).await?.try_collect().await.unwrap();
    Ok(pieces.concat())
}

/// All files below the folder.
fn files(folder: &tempfile::TempDir) -> Vec<String> {
    fn walk(path: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path.to_str().unwrap().to_owned()) }
        }
    }
    let mut found = Vec::new();
    walk(folder.path(), &mut found);
    found
}

#[tokio::test]
async fn what_is_stored_comes_back_with_its_hash_and_its_type() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, &[], None);
    for (n, length, size) in [
        (1, PNG.len(), 1),
        (5, 1_000, 50),
        (6, 1_000, 63),
        (2, 300_000, 7_000),
        (3, PART + 3, PART),
        (4, 2 * PART, 100_000),
    ] {
        let bytes = picture(length);
        let object = object_name("a", id(n), EvidenceKind::FaceImage, token(n));
        let stored = store.put(&object, EvidenceKind::FaceImage, pieces(&bytes, size)).await.unwrap();
        assert_eq!(
            stored,
            Stored {
                media: MediaType::Png,
                bytes: length as u64,
                sha256: Sha256::digest(&bytes).into(),
                is_sealed: false
            }
        );
        assert!(read(&store, &object, false).await.unwrap() == bytes, "{length} in pieces of {size}");
    }
}

#[tokio::test]
async fn what_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, &[], None);
    let object = object_name("a", id(1), EvidenceKind::FaceImage, token(1));
    let kind = EvidenceKind::FaceImage;
    let broken = pieces(&picture(200_000), 1000).chain(stream::iter([Err("cut off")]));
    assert!(matches!(store.put(&object, kind, broken).await, Err(PutError::Source("cut off"))));
    assert!(matches!(store.put(&object, kind, pieces(b"<html>", 9)).await, Err(PutError::WrongType)));
    assert!(matches!(store.put(&object, kind, pieces(b"", 9)).await, Err(PutError::Empty)));
    let video = store.put(&object, EvidenceKind::Video, pieces(&picture(100), 9)).await;
    assert!(matches!(video, Err(PutError::WrongType)), "a picture is no video");
    let large = picture(kind.limit() + 1);
    assert!(matches!(store.put(&object, kind, pieces(&large, 1 << 20)).await, Err(PutError::TooLarge { .. })));
    assert_eq!(files(&folder), [""; 0]);
    assert!(matches!(store.get(&object, false).await.err(), Some(GetError::NotFound)));
    assert!(store.put(&object, kind, pieces(&large[..kind.limit()], 1 << 20)).await.is_ok());
}

#[tokio::test]
async fn a_capture_that_was_dropped_leaves_no_object_and_is_destroyed_with_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, &[], None);
    let object = object_name("a", id(1), EvidenceKind::FaceImage, token(1));
    let endless = pieces(&picture(PART * 2), 1 << 20).chain(stream::pending());
    {
        let storing = store.put(&object, EvidenceKind::FaceImage, endless);
        tokio::pin!(storing);
        while files(&folder).is_empty() {
            tokio::select! { biased; _ = &mut storing => unreachable!(), () = tokio::task::yield_now() => {} }
        }
    }
    assert!(files(&folder)[0].ends_with(UNFINISHED));
    assert!(matches!(store.get(&object, false).await.err(), Some(GetError::NotFound)));
    assert_eq!(store.delete_all("a", id(1)).await.unwrap(), 0);
    assert_eq!(files(&folder), [""; 0]);
}

#[tokio::test]
async fn everything_of_one_verification_is_destroyed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, &[], None);
    for (n, kind) in [(1, EvidenceKind::FaceImage), (1, EvidenceKind::IdBackImage), (2, EvidenceKind::FaceImage)] {
        let object = object_name("a", id(n), kind, token(n));
        store.put(&object, kind, pieces(&picture(100), 50)).await.unwrap();
    }
    assert_eq!(store.delete_all("a", id(1)).await.unwrap(), 2);
    assert_eq!(store.delete_all("a", id(1)).await.unwrap(), 0);
    assert_eq!(store.delete_all("b", id(2)).await.unwrap(), 0);
    assert_eq!(files(&folder).len(), 1);
    store.delete("a/nothing/here").await.unwrap();
    store.probe().await.unwrap();
}

#[tokio::test]
async fn what_dead_workers_left_of_a_kind_goes_and_other_kinds_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, &[], None);
    let name = |kind, n| object_name("a", id(1), kind, token(n));
    for (kind, n) in [(EvidenceKind::FaceImage, 1), (EvidenceKind::FaceImage, 2), (EvidenceKind::IdBackImage, 3)] {
        store.put(&name(kind, n), kind, pieces(&picture(100), 50)).await.unwrap();
    }
    store.delete_others(&name(EvidenceKind::FaceImage, 2)).await.unwrap();
    assert_eq!(files(&folder).len(), 2);
    assert!(read(&store, &name(EvidenceKind::FaceImage, 2), false).await.is_ok());
    assert!(read(&store, &name(EvidenceKind::IdBackImage, 3), false).await.is_ok());
}

#[tokio::test]
async fn sealed_evidence_is_read_with_an_identity_of_a_recipient_alone() {
    let folder = tempfile::tempdir().unwrap();
    let identities = [age::x25519::Identity::generate(), age::x25519::Identity::generate()];
    let recipients: Vec<String> = identities.iter().map(|identity| identity.to_public().to_string()).collect();
    let secrets = tempfile::tempdir().unwrap();
    let file = |name: &str, identity: &age::x25519::Identity| {
        let path = secrets.path().join(name);
        let text = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
        std::fs::write(&path, format!("# a key\n{text}\n")).unwrap();
        path
    };
    let object = object_name("a", id(1), EvidenceKind::FaceImage, token(1));
    let bytes = picture(400_000);
    let store = open(&folder, &recipients, None);
    let stored = store.put(&object, EvidenceKind::FaceImage, pieces(&bytes, 9_999)).await.unwrap();
    assert!(stored.is_sealed && stored.sha256 == <[u8; 32]>::from(Sha256::digest(&bytes)));
    let on_disk = std::fs::read(&files(&folder)[0]).unwrap();
    assert!(on_disk.starts_with(b"age-encryption.org/v1\n"));
    assert!(!on_disk.windows(PNG.len()).any(|window| window == PNG));
    assert!(!store.can_read(true));
    assert!(matches!(store.get(&object, true).await.err(), Some(GetError::Sealed)));
    for (n, identity) in identities.iter().enumerate() {
        let reader = open(&folder, &recipients, Some(file(&n.to_string(), identity)));
        assert!(read(&reader, &object, true).await.unwrap() == bytes);
    }
    let stranger = age::x25519::Identity::generate();
    let reader = open(&folder, &recipients, Some(file("stranger", &stranger)));
    assert!(matches!(reader.get(&object, true).await.err(), Some(GetError::Sealed)));
    assert!(matches!(Recipients::read(&["age1nonsense".to_owned()]), Err(SealError::Recipient { item: 0, .. })));
    let error = Identities::read(files(&folder)[0].as_ref()).unwrap_err();
    assert!(!error.to_string().is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_is_made_is_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("evidence");
    let store = EvidenceStore::new(StoreSettings {
        location: Location::Folder(path.clone()),
        recipients: Recipients::default(),
        identities: None,
    });
    std::fs::write(&path, "in the way").unwrap();
    assert!(matches!(store.probe().await, Err(StorageError::Closed(OpenError::Folder { .. }))));
    std::fs::remove_file(&path).unwrap();
    store.probe().await.unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
}
