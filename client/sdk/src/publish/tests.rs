//! Publishing tests: what is sealed opens again, versions never change, nothing is left behind.

use std::os::unix::fs::PermissionsExt as _;

use crypto::{PlaintextSink, SinkError, open_artifact};

use super::*;

#[derive(Default)]
struct Collected(Vec<u8>);

impl PlaintextSink for Collected {
    fn begin(&mut self, _: u64) -> Result<(), SinkError> {
        Ok(())
    }
    fn write(&mut self, segment: &[u8]) -> Result<(), SinkError> {
        self.0.extend_from_slice(segment);
        Ok(())
    }
}

fn shelf() -> (tempfile::TempDir, ModelShelf, ModelStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    fs::create_dir(&store).unwrap();
    let store = open_store(&format!("file://{}", store.display())).unwrap();
    let shelf = ModelShelf::new(dir.path().join("models"));
    (dir, shelf, store)
}

fn model() -> ModelId {
    "m".parse().unwrap()
}

const V1: ModelVersion = ModelVersion(1);

fn seal(
    shelf: &ModelShelf,
    version: ModelVersion,
    mut plain: &[u8],
) -> Result<SealedFile, PublishError> {
    shelf.seal(&model(), version, &mut plain, &mut |_| ())
}

#[tokio::test]
async fn what_was_pushed_opens_with_the_key_on_the_shelf() {
    let (dir, shelf, store) = shelf();
    // Three segments, the last one short.
    let plain: Vec<u8> = (0..2_500_000_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    let mut seen = 0;
    let mut reader = plain.as_slice();
    let sealed = shelf
        .seal(&model(), V1, &mut reader, &mut |done| seen = done)
        .unwrap();
    assert_eq!(seen, plain.len() as u64);
    let staged = sealed.path().to_owned();
    assert!(staged.exists());
    let pushed = shelf.push(&store, &model(), V1, &sealed).await.unwrap();
    drop(sealed);
    assert!(!staged.exists(), "the staged ciphertext is deleted");

    let stored = fs::read(dir.path().join(format!("store/{}.sesemi", pushed.digest))).unwrap();
    assert_eq!(stored.len() as u64, pushed.len);
    let key = shelf.key(&pushed).unwrap();
    let mut out = Collected::default();
    let mut source = stored.as_slice();
    open_artifact(
        &key,
        &model(),
        V1,
        pushed.digest,
        &mut source,
        pushed.len,
        2,
        &mut out,
    )
    .unwrap();
    assert!(out.0 == plain);
    assert!(
        !stored.windows(16).any(|w| w == &plain[..16]),
        "the store has ciphertext only"
    );
    assert_eq!(shelf.pushed(&model(), None).unwrap(), pushed);
    let key_file = fs::metadata(dir.path().join("models/m/1.key")).unwrap();
    assert_eq!(key_file.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_version_is_sealed_once_and_a_failed_push_can_be_repeated() {
    let (dir, shelf, store) = shelf();
    let nowhere = ModelStore::open(&format!("file://{}", dir.path().join("models").display()));
    assert!(nowhere.is_err(), "the folder of a store must exist");
    // A push that did not happen: only the key stays.
    drop(seal(&shelf, V1, b"model").unwrap());
    assert!(matches!(
        shelf.pushed(&model(), None),
        Err(PublishError::NothingPushed { .. })
    ));
    let sealed = seal(&shelf, V1, b"model").unwrap();
    shelf.push(&store, &model(), V1, &sealed).await.unwrap();
    let error = seal(&shelf, V1, b"another model").unwrap_err();
    assert!(matches!(error, PublishError::Pushed { .. }), "{error:?}");
    assert_eq!(error.code(), ErrorCode::Conflict);
    let second = ModelVersion(2);
    let sealed = seal(&shelf, second, b"another model").unwrap();
    shelf.push(&store, &model(), second, &sealed).await.unwrap();
    assert_eq!(shelf.pushed(&model(), None).unwrap().version, second);
    assert_eq!(shelf.versions(&model()).unwrap().len(), 2);
    assert!(matches!(
        shelf.pushed(&model(), Some(ModelVersion(3))),
        Err(PublishError::NotPushed { .. })
    ));
}

#[test]
fn staged_files_of_a_process_that_died_are_swept_but_not_those_of_a_living_one() {
    let (dir, shelf, _store) = shelf();
    let mut living = seal(&shelf, V1, b"model").unwrap();
    let dead = dir.path().join("models/.sealing-dead");
    fs::write(&dead, b"half an artifact").unwrap();
    let other = seal(&shelf, ModelVersion(2), b"model").unwrap();
    assert!(
        dead.exists() && living.path().exists(),
        "somebody is sealing: nothing is swept"
    );
    drop(other);
    living.file.disable_cleanup(true);
    let abandoned = living.path().to_owned();
    drop(living);
    assert!(abandoned.exists(), "as if the process had been killed");
    let next = seal(&shelf, ModelVersion(3), b"model").unwrap();
    assert!(!dead.exists() && !abandoned.exists());
    assert!(next.path().exists());
}

#[test]
fn a_record_that_is_damaged_is_an_error() {
    let (dir, shelf, _store) = shelf();
    drop(seal(&shelf, V1, b"model").unwrap());
    fs::write(dir.path().join("models/m/1.json"), "{").unwrap();
    assert!(matches!(
        shelf.versions(&model()),
        Err(PublishError::Record { .. })
    ));
    assert!(
        seal(&shelf, V1, b"model").is_err(),
        "it may have been pushed"
    );
}

#[test]
fn a_source_that_fails_leaves_no_artifact() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let (dir, shelf, _store) = shelf();
    let error = shelf
        .seal(&model(), V1, &mut Fails, &mut |_| ())
        .unwrap_err();
    assert!(
        matches!(error, PublishError::Seal(ArtifactError::Read(_))),
        "{error:?}"
    );
    assert_eq!(error.fault(), protocol::Fault::Caller);
    let left = fs::read_dir(dir.path().join("models")).unwrap();
    let left: Vec<_> = left
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        left.iter()
            .all(|name| name == "m" || name == ".sealing.lock"),
        "{left:?}"
    );
}
