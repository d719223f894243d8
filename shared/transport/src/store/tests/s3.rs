//! The store over the S3 protocol, against a bucket in memory on a loopback port.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<String, Vec<u8>>,
    unsigned: usize,
}

type Shared = Arc<Mutex<Bucket>>;

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::ETAG, header::HeaderValue::from_static("\"e\""));
    response.headers_mut().insert(
        header::LAST_MODIFIED,
        "Thu, 01 Jan 1970 00:00:00 GMT".parse().unwrap(),
    );
    response
}

/// The five requests of S3 that a store makes.
async fn bucket(
    request: Request<Incoming>,
    shared: Shared,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let mut bucket = shared.lock().unwrap();
    if !head.headers.contains_key(header::AUTHORIZATION) {
        bucket.unsigned += 1;
    }
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    Ok(match head.method {
        Method::POST if query.starts_with("uploads") => answer(
            StatusCode::OK,
            "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
        ),
        Method::POST => {
            let parts = std::mem::take(&mut bucket.parts);
            bucket
                .objects
                .insert(path, parts.into_values().flatten().collect());
            answer(
                StatusCode::OK,
                "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>",
            )
        }
        Method::PUT if query.contains("partNumber") => {
            let part = query
                .split('&')
                .find(|pair| pair.starts_with("partNumber"))
                .unwrap();
            let number: u32 = part.split_once('=').unwrap().1.parse().unwrap();
            bucket.parts.insert(format!("{number:08}"), body.to_vec());
            answer(StatusCode::OK, "")
        }
        Method::DELETE => {
            bucket.parts.clear();
            answer(StatusCode::NO_CONTENT, "")
        }
        Method::GET => match bucket.objects.get(&path) {
            Some(object) => answer(StatusCode::OK, object.clone()),
            None => answer(
                StatusCode::NOT_FOUND,
                "<Error><Code>NoSuchKey</Code></Error>",
            ),
        },
        _ => answer(StatusCode::METHOD_NOT_ALLOWED, ""),
    })
}

async fn serve(listener: TcpListener, shared: Shared) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| bucket(request, Arc::clone(&shared)));
            let _ended = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(tcp), service)
                .await;
        });
    }
}

fn options(endpoint: &str) -> Vec<(String, String)> {
    [
        ("aws_endpoint", endpoint),
        ("aws_allow_http", "true"),
        ("aws_region", "eu-test-1"),
        ("aws_access_key_id", "id"),
        ("aws_secret_access_key", "secret"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

#[tokio::test]
async fn artifacts_go_to_a_bucket_in_parts_and_come_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let shared = Shared::default();
    let mut running = JoinSet::new();
    running.spawn(serve(listener, Arc::clone(&shared)));

    let store = ModelStore::open_with("s3://models/team/a", &options(&endpoint)).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (path, digest, bytes) = artifact(files.path(), 2 * PART + 3);
    assert!(matches!(
        store.fetch(&digest).await,
        Err(StoreError::NotFound { .. })
    ));
    store.put_file(&digest, &path).await.unwrap();
    assert_eq!(fetched(&store, &digest).await.unwrap(), bytes);
    {
        let bucket = shared.lock().unwrap();
        let names: Vec<_> = bucket.objects.keys().cloned().collect();
        assert_eq!(names, [format!("/models/team/a/{digest}.sesemi")]);
        assert_eq!(bucket.unsigned, 0, "every request carries credentials");
    }
    // A file that changed since it was sealed is not completed, and its parts are dropped.
    let wrong = Digest::new([9; 32]);
    assert!(matches!(
        store.put_file(&wrong, &path).await,
        Err(StoreError::Changed { .. })
    ));
    let bucket = shared.lock().unwrap();
    assert_eq!((bucket.objects.len(), bucket.parts.len()), (1, 0));
}

#[tokio::test]
async fn a_bucket_that_cannot_be_reached_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let store = ModelStore::open_with("s3://models", &options(&endpoint)).unwrap();
    tokio::time::pause();
    let error = store.fetch(&Digest::new([1; 32])).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(error.retryable());
}

#[test]
fn an_unknown_option_is_named() {
    let option = [("aws_regoin".to_owned(), "x".to_owned())];
    let error = ModelStore::open_with("s3://models", &option).unwrap_err();
    assert!(matches!(&error, OpenStoreError::Option { name, .. } if name == "aws_regoin"));
}

#[test]
fn all_three_clouds_open_by_url() {
    let open = |url: &str, options: &[(&str, &str)]| {
        let options: Vec<_> = options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        ModelStore::open_with(url, &options)
    };
    open("s3://models/a", &[("aws_region", "eu-test-1")]).unwrap();
    open("gs://models/a", &[("google_skip_signature", "true")]).unwrap();
    open(
        "az://models/a",
        &[
            ("azure_storage_account_name", "acc"),
            ("azure_skip_signature", "true"),
        ],
    )
    .unwrap();
}
