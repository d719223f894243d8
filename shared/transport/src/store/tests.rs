//! The store over a real folder, over the S3 protocol, and its refusals.

use std::error::Error as _;

use crypto::sha256;

use super::*;

fn open(folder: &Path) -> ModelStore {
    ModelStore::open(&format!("file://{}", folder.display())).unwrap()
}

fn artifact(folder: &Path, len: usize) -> (PathBuf, Digest, Vec<u8>) {
    let bytes: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let path = folder.join(format!("artifact-{len}"));
    std::fs::write(&path, &bytes).unwrap();
    (path, sha256(&bytes), bytes)
}

async fn fetched(store: &ModelStore, digest: &Digest) -> Result<Vec<u8>, StoreError> {
    let fetched = store.fetch(digest).await?;
    let parts: Vec<Bytes> = fetched.stream.try_collect().await?;
    let bytes = parts.concat();
    assert_eq!(bytes.len() as u64, fetched.len);
    Ok(bytes)
}

#[tokio::test]
async fn artifacts_of_every_size_come_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for len in [0, 1, PART - 1, PART, PART + 1, 5 * PART + 17] {
        let (path, digest, bytes) = artifact(files.path(), len);
        assert_eq!(store.put_file(&digest, &path).await.unwrap(), len as u64);
        assert_eq!(fetched(&store, &digest).await.unwrap(), bytes, "{len}");
        // Again, as after an answer that got lost.
        store.put_file(&digest, &path).await.unwrap();
        assert!(folder.path().join(format!("{digest}.sesemi")).is_file());
    }
}

#[tokio::test]
async fn a_file_with_another_digest_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (path, digest, _) = artifact(folder.path(), PART + 5);
    let wrong = Digest::new([9; 32]);
    let error = store.put_file(&wrong, &path).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Changed { expected, got, .. } if (*expected, *got) == (wrong, digest)),
        "{error:?}"
    );
    assert!(matches!(
        store.fetch(&wrong).await,
        Err(StoreError::NotFound { .. })
    ));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing but the file itself: {left:?}");
}

#[tokio::test]
async fn requests_lie_apart_from_models_and_can_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let requests = store.requests();
    let digest = sha256(b"sealed");
    requests
        .put(&digest, Bytes::from_static(b"sealed"))
        .await
        .unwrap();
    assert_eq!(fetched(&requests, &digest).await.unwrap(), b"sealed");
    let absent = store.fetch(&digest).await;
    assert!(matches!(absent, Err(StoreError::NotFound { .. })));
    assert!(
        folder
            .path()
            .join(format!("requests/{digest}.sesemi"))
            .is_file()
    );
    for _ in 0..2 {
        requests.remove(&digest).await.unwrap();
    }
    let gone = requests.fetch(&digest).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn what_is_absent_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let digest = Digest::new([7; 32]);
    let error = store.fetch(&digest).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { digest: named } if named == digest));
    assert_eq!(
        (error.code(), error.retryable()),
        (ErrorCode::StoreUnavailable, true)
    );

    let nowhere = folder.path().join("nowhere");
    let error = store.put_file(&digest, &nowhere).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::File { path, .. } if *path == nowhere),
        "{error:?}"
    );
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (path, digest, _) = artifact(folder.path(), 2 * PART);
    store.put_file(&digest, &path).await.unwrap();
    let found = store.fetch(&digest).await.unwrap();
    let stored = folder.path().join(format!("{digest}.sesemi"));
    File::options()
        .write(true)
        .open(stored)
        .unwrap()
        .set_len(PART as u64 + 1)
        .unwrap();
    let error = found.stream.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, StoreError::Read { .. }), "{error:?}");
    assert!(error.retryable());
}

#[tokio::test]
async fn a_store_is_held_to_the_length_it_stated() {
    let digest = Digest::new([1; 32]);
    let of = |parts: Vec<&'static [u8]>, len| {
        let parts = parts.into_iter().map(|part| Ok(Bytes::from_static(part)));
        exactly(stream::iter(parts.collect::<Vec<_>>()).boxed(), len, digest)
            .try_collect::<Vec<Bytes>>()
    };
    assert_eq!(
        of(vec![&b"ab"[..], b"c"], 3).await.unwrap().concat(),
        b"abc"
    );
    for (parts, len) in [(vec![&b"ab"[..], b"c"], 4), (vec![b"ab", b"c"], 2)] {
        assert!(matches!(of(parts, len).await, Err(StoreError::Read { .. })));
    }
}

#[test]
fn urls_that_are_not_stores_say_what_is_wrong() {
    let open = |url: &str| ModelStore::open(url).unwrap_err();
    assert!(matches!(open("/models"), OpenStoreError::Url { .. }));
    assert!(matches!(open("ftp://models"), OpenStoreError::Scheme { scheme } if scheme == "ftp"));
    assert!(matches!(
        open("http://models"),
        OpenStoreError::Scheme { .. }
    ));
    assert!(matches!(
        open("file://host/models"),
        OpenStoreError::NotAFolder { .. }
    ));
    let missing = open("file:///nonexistent/models");
    assert!(
        matches!(&missing, OpenStoreError::Folder { path, .. } if path.ends_with("models")),
        "{missing:?}"
    );
    let option = [("aws_region".to_owned(), "x".to_owned())];
    let error = ModelStore::open_with("file:///tmp", &option).unwrap_err();
    assert!(matches!(error, OpenStoreError::Option { .. }));
}

#[test]
fn a_full_disk_and_a_denied_folder_are_told_apart() {
    let digest = Digest::new([1; 32]);
    let of = |kind: io::ErrorKind| {
        // As the folder's store wraps it.
        let source = Box::new(io::Error::new(kind, "as the kernel says"));
        classify(
            &digest,
            object_store::Error::Generic {
                store: "LocalFileSystem",
                source,
            },
        )
    };
    let full = of(io::ErrorKind::StorageFull);
    assert!(matches!(full, StoreError::Full(_)));
    assert_eq!(
        (full.code(), full.retryable()),
        (ErrorCode::StorageFull, true)
    );
    let denied = of(io::ErrorKind::PermissionDenied);
    assert!(matches!(denied, StoreError::Denied(_)) && !denied.retryable());
    let unavailable = of(io::ErrorKind::ConnectionRefused);
    assert!(matches!(unavailable, StoreError::Unavailable(_)) && unavailable.retryable());
    assert!(unavailable.source().is_some());
}

#[cfg(not(feature = "cloud"))]
#[test]
fn a_build_without_clouds_says_so() {
    for url in ["s3://bucket", "gs://bucket", "az://container"] {
        assert!(matches!(
            ModelStore::open(url),
            Err(OpenStoreError::NoCloud { .. })
        ));
    }
}

#[cfg(feature = "cloud")]
mod s3;
