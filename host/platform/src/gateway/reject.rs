//! Why a call is refused: a status and OpenWhisk's own text for it.

use http::{HeaderName, HeaderValue, StatusCode, header};

/// A refusal. Its body is `{"error": …, "code": …}`.
#[derive(Debug)]
pub(super) struct Reject {
    pub(super) status: StatusCode,
    pub(super) error: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reject {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            headers: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// The body is not what it should be.
    pub(super) fn malformed(why: impl std::fmt::Display) -> Self {
        Self::bad_request(format!("The request content was malformed:\n{why}"))
    }

    pub(super) fn query(name: &str, why: impl std::fmt::Display) -> Self {
        Self::bad_request(format!(
            "The query parameter '{name}' was malformed:\n{why}"
        ))
    }

    pub(super) fn unauthorized(error: &str) -> Self {
        let challenge = HeaderValue::from_static("Basic realm=\"OpenWhisk secure realm\"");
        Self::new(StatusCode::UNAUTHORIZED, error).with(header::WWW_AUTHENTICATE, challenge)
    }

    /// Somebody else's.
    pub(super) fn forbidden(resource: &str) -> Self {
        let error =
            format!("The supplied authentication is not authorized to access '{resource}'.");
        Self::new(StatusCode::FORBIDDEN, error)
    }

    /// No such entity.
    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "The requested resource does not exist.",
        )
    }

    /// No such path in the API.
    pub(super) fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "The requested resource could not be found.",
        )
    }

    pub(super) fn method(supported: &str) -> Self {
        let error = format!("HTTP method not allowed, supported methods: {supported}");
        let reject = Self::new(StatusCode::METHOD_NOT_ALLOWED, error);
        match HeaderValue::from_str(supported) {
            Ok(allow) => reject.with(header::ALLOW, allow),
            Err(_) => reject,
        }
    }

    /// A defect of ours, or the machine's; the log has the cause.
    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "There was an internal server error.",
        )
    }
}
