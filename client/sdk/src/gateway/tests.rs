//! Gateway tests over real sockets, against servers that answer as they should not.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use protocol::{EnclaveId, PrincipalId, RequestId};

fn request() -> SealedRequest {
    SealedRequest {
        user: PrincipalId::new([1; 32]),
        model: "m".parse().unwrap(),
        enclave: EnclaveId::new([2; 48]),
        request_id: RequestId::new([3; 16]),
        ciphertext: vec![4; 64],
    }
}

/// Answers one connection with `answer` after it has read the request, then closes.
async fn answer_once(answer: &'static [u8]) -> (Gateway, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "the test joins it")]
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _read = stream.read(&mut buffer).await.unwrap();
        stream.write_all(answer).await.unwrap();
    });
    (Gateway::new(&url).unwrap(), server)
}

async fn error_for(answer: &'static [u8]) -> GatewayError {
    let (gateway, server) = answer_once(answer).await;
    let error = gateway
        .infer(&request(), Duration::from_secs(10))
        .await
        .unwrap_err();
    server.await.unwrap();
    error
}

#[test]
fn only_plain_http_addresses_are_taken() {
    for good in ["http://127.0.0.1:80", "http://h:1/", "http://h/prefix/"] {
        assert!(Gateway::new(good).is_ok(), "{good}");
    }
    for bad in ["", "h:1", "https://h", "file:///x", "http://h?x=1"] {
        let error = Gateway::new(bad).unwrap_err();
        assert!(matches!(error, GatewayError::Address(_)), "{bad}");
        assert!(!error.retryable());
    }
    assert_eq!(
        endpoint(&Url::parse("http://h/p/").unwrap(), "v1/infer"),
        "http://h/p/v1/infer"
    );
    assert_eq!(
        endpoint(&Url::parse("http://h").unwrap(), "v1/infer"),
        "http://h/v1/infer"
    );
}

#[tokio::test]
async fn a_wire_error_keeps_its_code_and_the_header_gives_the_pause() {
    let error = error_for(
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 34\r\n\r\n{\"code\":\"busy\",\"message\":\"no room\"}",
    )
    .await;
    // The length above is right for the body of 34 bytes; a wrong one would be `Broken`.
    assert_eq!(error.code(), ErrorCode::Busy);
    assert_eq!(error.retry_after_ms(), Some(2000));
    assert!(error.retryable());
}

#[tokio::test]
async fn foreign_answers_are_classed_by_status_and_shown_without_control_characters() {
    let error = error_for(b"HTTP/1.1 503 x\r\nContent-Length: 9\r\n\r\n<h1>\x1b[2J\n").await;
    assert_eq!(error.code(), ErrorCode::PlatformUnavailable);
    assert!(!error.to_string().contains('\x1b'));
    let error = error_for(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(error.code(), ErrorCode::NotFound);
    assert!(!error.retryable());
}

#[tokio::test]
async fn cut_oversized_and_malformed_answers_are_told_apart() {
    let cut = error_for(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{").await;
    assert!(matches!(cut, GatewayError::Broken(_)), "{cut:?}");
    assert!(cut.retryable());
    let huge = error_for(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{").await;
    assert!(matches!(huge, GatewayError::TooLarge), "{huge:?}");
    let other = error_for(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    assert!(matches!(other, GatewayError::Malformed(_)), "{other:?}");
}

#[tokio::test]
async fn nobody_there_is_retryable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let gateway = Gateway::new(&url).unwrap();
    let error = gateway
        .infer(&request(), Duration::from_secs(10))
        .await
        .unwrap_err();
    assert!(
        matches!(error, GatewayError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.retryable());
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_ends_at_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let error = gateway
        .infer(&request(), Duration::from_secs(7))
        .await
        .unwrap_err();
    assert!(matches!(error, GatewayError::Deadline(_)), "{error:?}");
    assert_eq!(error.code(), ErrorCode::Deadline);
}
