//! The HTTP interface as a table: it dispatches requests, and the OpenAPI document is made from it.

use std::str::FromStr;

use http::Method;
use protocol::id::ParseIdError;
use protocol::{EnclaveId, ErrorCode, ModelId, ModelVersion, PrincipalId};

use crate::broker::Page;

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody on the attested channel.
    Anyone,
    /// Owners and users, by identity key.
    Principal,
    /// Attested instances.
    Instance,
}

/// One operation of the interface.
#[derive(Debug)]
pub struct RouteSpec {
    pub method: Method,
    /// Path with `{name}` for each parameter.
    pub path: &'static str,
    /// Stable name: the OpenAPI operation id, and the label in metrics.
    pub operation: &'static str,
    /// One sentence for the OpenAPI document.
    pub summary: &'static str,
    pub access: Access,
    /// Type in `protocol::keyservice` of the JSON body; none means that the body must be empty.
    pub request: Option<&'static str>,
    /// Type in `protocol::keyservice` of the answer.
    pub answer: &'static str,
    /// What `after` names, if the answer is a list that may be asked for in pages.
    pub after: Option<&'static str>,
    /// What it may answer beside success and what every operation may answer.
    pub errors: &'static [ErrorCode],
    parse: fn(&Captured<'_>) -> Result<Route, RouteError>,
}

/// A parsed request line: what is asked, without the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Status,
    RegisterModel {
        model: ModelId,
        version: ModelVersion,
    },
    ListModels(Page<(ModelId, ModelVersion)>),
    Versions {
        model: ModelId,
        page: Page<ModelVersion>,
    },
    Grant {
        model: ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
    },
    Revoke {
        model: ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
    },
    Grants {
        model: ModelId,
        page: Page<(PrincipalId, EnclaveId)>,
    },
    RegisterRequestKey {
        model: ModelId,
        enclave: EnclaveId,
    },
    DropRequestKey {
        model: ModelId,
        enclave: EnclaveId,
    },
    RequestKeys(Page<(ModelId, EnclaveId)>),
    Release,
    Log(Page<u64>),
}

/// Why a request line names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("there is no such operation")]
    NotFound,
    #[error("'{name}' in the path or query is not valid")]
    Id {
        name: &'static str,
        source: ParseIdError,
    },
    #[error("'{name}' in the path or query is not valid: {expected}")]
    Parameter {
        name: &'static str,
        expected: &'static str,
    },
    #[error("the query has a parameter that this operation does not know, or one twice")]
    Query,
}

/// No path of ours is longer; the longest has a model, a user and an enclave.
pub const PATH_MAX: usize = 512;
const SEGMENTS_MAX: usize = 8;
const VERSION_FORM: &str = "a whole number from 1 to 4294967295";

/// Errors that every operation may answer, beside its own.
pub const EVERYWHERE: &[ErrorCode] = &[
    ErrorCode::InvalidRequest,
    ErrorCode::NotFound,
    ErrorCode::TooLarge,
    ErrorCode::Busy,
    ErrorCode::KeyserviceUnavailable,
    ErrorCode::Internal,
];

/// Every operation.
pub const ROUTES: &[RouteSpec] = &[
    RouteSpec {
        method: Method::GET,
        path: "/v1/status",
        operation: "status",
        summary: "What anyone on the attested channel may know.",
        access: Access::Anyone,
        request: None,
        answer: "Status",
        after: None,
        errors: &[],
        parse: |_| Ok(Route::Status),
    },
    RouteSpec {
        method: Method::PUT,
        path: "/v1/models/{model}/versions/{version}",
        operation: "register_model",
        summary: "The owner registers a version of a model: its key and its artifact's digest.",
        access: Access::Principal,
        request: Some("RegisterModel"),
        answer: "ModelRecord",
        after: None,
        errors: &[
            ErrorCode::Unauthenticated,
            ErrorCode::Conflict,
            ErrorCode::StorageFull,
        ],
        parse: |at| {
            Ok(Route::RegisterModel {
                model: at.id("model")?,
                version: at.version()?,
            })
        },
    },
    RouteSpec {
        method: Method::GET,
        path: "/v1/models",
        operation: "list_models",
        summary: "The owner lists all versions of all own models.",
        access: Access::Principal,
        request: None,
        answer: "ModelList",
        after: Some("the last item seen, as model/version"),
        errors: &[ErrorCode::Unauthenticated],
        parse: |at| {
            at.page(|after| {
                let (model, version) = split(after)?;
                Ok((id("after", model)?, version_of("after", version)?))
            })
            .map(Route::ListModels)
        },
    },
    RouteSpec {
        method: Method::GET,
        path: "/v1/models/{model}/versions",
        operation: "list_versions",
        summary: "The owner lists the versions of one model.",
        access: Access::Principal,
        request: None,
        answer: "ModelList",
        after: Some("the last version seen"),
        errors: &[ErrorCode::Unauthenticated],
        parse: |at| {
            let page = at.page(|after| version_of("after", after))?;
            Ok(Route::Versions {
                model: at.id("model")?,
                page,
            })
        },
    },
    RouteSpec {
        method: Method::PUT,
        path: "/v1/models/{model}/grants/{user}/{enclave}",
        operation: "grant",
        summary: "The owner allows a user to use a model inside instances of an enclave.",
        access: Access::Principal,
        request: Some("GrantTerms"),
        answer: "Grant",
        after: None,
        errors: &[
            ErrorCode::Unauthenticated,
            ErrorCode::Conflict,
            ErrorCode::StorageFull,
        ],
        parse: |at| {
            let (model, user, enclave) = (at.id("model")?, at.id("user")?, at.id("enclave")?);
            Ok(Route::Grant {
                model,
                user,
                enclave,
            })
        },
    },
    RouteSpec {
        method: Method::DELETE,
        path: "/v1/models/{model}/grants/{user}/{enclave}",
        operation: "revoke",
        summary: "The owner takes a grant back.",
        access: Access::Principal,
        request: None,
        answer: "Revoked",
        after: None,
        errors: &[ErrorCode::Unauthenticated, ErrorCode::StorageFull],
        parse: |at| {
            let (model, user, enclave) = (at.id("model")?, at.id("user")?, at.id("enclave")?);
            Ok(Route::Revoke {
                model,
                user,
                enclave,
            })
        },
    },
    RouteSpec {
        method: Method::GET,
        path: "/v1/models/{model}/grants",
        operation: "list_grants",
        summary: "The owner lists the live grants of one model.",
        access: Access::Principal,
        request: None,
        answer: "GrantList",
        after: Some("the last grant seen, as user/enclave"),
        errors: &[ErrorCode::Unauthenticated],
        parse: |at| {
            let page = at.page(|after| {
                let (user, enclave) = split(after)?;
                Ok((id("after", user)?, id("after", enclave)?))
            })?;
            Ok(Route::Grants {
                model: at.id("model")?,
                page,
            })
        },
    },
    RouteSpec {
        method: Method::PUT,
        path: "/v1/request-keys/{model}/{enclave}",
        operation: "register_request_key",
        summary: "The user registers the request key for a model in an enclave.",
        access: Access::Principal,
        request: Some("RegisterRequestKey"),
        answer: "RequestKeyRecord",
        after: None,
        errors: &[
            ErrorCode::Unauthenticated,
            ErrorCode::Conflict,
            ErrorCode::StorageFull,
        ],
        parse: |at| {
            Ok(Route::RegisterRequestKey {
                model: at.id("model")?,
                enclave: at.id("enclave")?,
            })
        },
    },
    RouteSpec {
        method: Method::DELETE,
        path: "/v1/request-keys/{model}/{enclave}",
        operation: "drop_request_key",
        summary: "The user withdraws a request key.",
        access: Access::Principal,
        request: None,
        answer: "Revoked",
        after: None,
        errors: &[ErrorCode::Unauthenticated, ErrorCode::StorageFull],
        parse: |at| {
            Ok(Route::DropRequestKey {
                model: at.id("model")?,
                enclave: at.id("enclave")?,
            })
        },
    },
    RouteSpec {
        method: Method::GET,
        path: "/v1/request-keys",
        operation: "list_request_keys",
        summary: "The user lists the own live request keys, without the keys.",
        access: Access::Principal,
        request: None,
        answer: "RequestKeyList",
        after: Some("the last request key seen, as model/enclave"),
        errors: &[ErrorCode::Unauthenticated],
        parse: |at| {
            at.page(|after| {
                let (model, enclave) = split(after)?;
                Ok((id("after", model)?, id("after", enclave)?))
            })
            .map(Route::RequestKeys)
        },
    },
    RouteSpec {
        method: Method::POST,
        path: "/v1/release",
        operation: "release",
        summary: "An attested instance asks for the keys to serve a user on a model.",
        access: Access::Instance,
        request: Some("ReleaseRequest"),
        answer: "Release",
        after: None,
        errors: &[
            ErrorCode::NotAttested,
            ErrorCode::NotGranted,
            ErrorCode::EnclaveNotAllowed,
            ErrorCode::StorageFull,
        ],
        parse: |_| Ok(Route::Release),
    },
    RouteSpec {
        method: Method::GET,
        path: "/v1/log",
        operation: "read_log",
        summary: "Owner or user read the log entries that concern them; the newest, if not told \
                  where to go on.",
        access: Access::Principal,
        request: None,
        answer: "LogPage",
        after: Some("the last sequence number seen"),
        errors: &[ErrorCode::Unauthenticated],
        parse: |at| at.page(|after| number("after", after)).map(Route::Log),
    },
];

/// The operation that a request line names, and what it says. Pure; takes anything a peer sends.
pub fn parse(
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Result<(&'static RouteSpec, Route), RouteError> {
    if path.len() > PATH_MAX {
        return Err(RouteError::NotFound);
    }
    let segments: Vec<&str> = path.splitn(SEGMENTS_MAX + 1, '/').collect();
    ROUTES
        .iter()
        .filter(|spec| spec.method == *method)
        .find_map(|spec| captured(spec, &segments).map(|parameters| (spec, parameters)))
        .ok_or(RouteError::NotFound)
        .and_then(|(spec, parameters)| {
            let query = query_of(spec, query)?;
            (spec.parse)(&Captured { parameters, query }).map(|route| (spec, route))
        })
}

/// Values of the path's parameters, if the path has the form of this operation.
fn captured<'r>(spec: &RouteSpec, segments: &[&'r str]) -> Option<Vec<(&'static str, &'r str)>> {
    let expected: Vec<&'static str> = spec.path.split('/').collect();
    if expected.len() != segments.len() {
        return None;
    }
    let mut parameters = Vec::new();
    for (expected, found) in expected.into_iter().zip(segments) {
        match parameter(expected) {
            Some(name) => parameters.push((name, *found)),
            None if expected == *found => {}
            None => return None,
        }
    }
    Some(parameters)
}

/// `model` of `{model}`.
#[must_use]
pub fn parameter(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

#[derive(Debug, Default)]
struct Query<'r> {
    after: Option<&'r str>,
    limit: Option<&'r str>,
}

fn query_of<'r>(spec: &RouteSpec, query: Option<&'r str>) -> Result<Query<'r>, RouteError> {
    let mut found = Query::default();
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(found);
    };
    if spec.after.is_none() || query.len() > PATH_MAX {
        return Err(RouteError::Query);
    }
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or(RouteError::Query)?;
        let place = match name {
            "after" => &mut found.after,
            "limit" => &mut found.limit,
            _ => return Err(RouteError::Query),
        };
        if place.replace(value).is_some() {
            return Err(RouteError::Query);
        }
    }
    Ok(found)
}

struct Captured<'r> {
    parameters: Vec<(&'static str, &'r str)>,
    query: Query<'r>,
}

impl Captured<'_> {
    fn text(&self, name: &'static str) -> Result<&str, RouteError> {
        let found = self
            .parameters
            .iter()
            .find(|(parameter, _)| *parameter == name);
        found.map(|(_, value)| *value).ok_or(RouteError::NotFound)
    }

    fn id<T: FromStr<Err = ParseIdError>>(&self, name: &'static str) -> Result<T, RouteError> {
        id(name, self.text(name)?)
    }

    fn version(&self) -> Result<ModelVersion, RouteError> {
        version_of("version", self.text("version")?)
    }

    fn page<K>(
        &self,
        after: impl FnOnce(&str) -> Result<K, RouteError>,
    ) -> Result<Page<K>, RouteError> {
        let limit = match self.query.limit {
            Some(limit) => {
                let limit = number("limit", limit)?;
                usize::try_from(limit)
                    .ok()
                    .filter(|limit| (1..=Page::<K>::LIMIT_MAX).contains(limit))
                    .ok_or(RouteError::Parameter {
                        name: "limit",
                        expected: "from 1 to 8192",
                    })?
            }
            None => Page::<K>::LIMIT_MAX,
        };
        Ok(Page {
            after: self.query.after.map(after).transpose()?,
            limit,
        })
    }
}

fn id<T: FromStr<Err = ParseIdError>>(name: &'static str, text: &str) -> Result<T, RouteError> {
    text.parse()
        .map_err(|source| RouteError::Id { name, source })
}

fn split(after: &str) -> Result<(&str, &str), RouteError> {
    after.split_once('/').ok_or(RouteError::Parameter {
        name: "after",
        expected: "two parts with '/' between",
    })
}

/// A whole number, in the one way it is written: digits only, no sign, no leading zero.
fn number(name: &'static str, text: &str) -> Result<u64, RouteError> {
    text.parse()
        .ok()
        .filter(|number: &u64| number.to_string() == text)
        .ok_or(RouteError::Parameter {
            name,
            expected: "a whole number",
        })
}

fn version_of(name: &'static str, text: &str) -> Result<ModelVersion, RouteError> {
    number(name, text)
        .ok()
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number > 0)
        .map(ModelVersion)
        .ok_or(RouteError::Parameter {
            name,
            expected: VERSION_FORM,
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(method: &Method, target: &str) -> Result<Route, RouteError> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        parse(method, path, query).map(|(_, route)| route)
    }

    /// The path of an operation with good parameters.
    fn filled(spec: &RouteSpec) -> String {
        spec.path
            .replace("{model}", "m-1")
            .replace("{version}", "7")
            .replace("{user}", &"ab".repeat(32))
            .replace("{enclave}", &"cd".repeat(48))
    }

    #[test]
    fn every_operation_is_found_by_its_own_path_and_no_other() {
        for spec in ROUTES {
            let (found, _) = parse(&spec.method, &filled(spec), None).unwrap();
            assert_eq!(found.operation, spec.operation);
            for method in [
                Method::GET,
                Method::PUT,
                Method::DELETE,
                Method::POST,
                Method::PATCH,
            ] {
                let other = parse(&method, &filled(spec), None).map(|(found, _)| found.operation);
                let twin = ROUTES
                    .iter()
                    .find(|s| s.method == method && s.path == spec.path);
                assert_eq!(other.ok(), twin.map(|spec| spec.operation));
            }
            for end in ["/", "/x"] {
                let longer = format!("{}{end}", filled(spec));
                let found = parse(&spec.method, &longer, None).map(|(found, _)| found.operation);
                assert_ne!(found, Ok(spec.operation), "{longer}");
            }
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> =
            ROUTES.iter().map(|spec| spec.operation).collect();
        assert_eq!(names.len(), ROUTES.len());
    }

    #[test]
    fn bad_parameters_are_named() {
        let enclave = "cd".repeat(48);
        let named = |method: &Method, target: &str| match asked(method, target).unwrap_err() {
            RouteError::Id { name, .. } | RouteError::Parameter { name, .. } => name,
            other => panic!("{target}: {other:?}"),
        };
        assert_eq!(named(&Method::PUT, "/v1/models/M/versions/1"), "model");
        for version in ["0", "01", "-1", "+1", "1e3", "4294967296", "", "%31"] {
            let path = format!("/v1/models/m/versions/{version}");
            assert_eq!(named(&Method::PUT, &path), "version", "{version}");
        }
        assert_eq!(
            named(&Method::PUT, &format!("/v1/models/m/grants/ab/{enclave}")),
            "user"
        );
        assert_eq!(named(&Method::PUT, "/v1/request-keys/m/CD"), "enclave");
        assert_eq!(named(&Method::GET, "/v1/log?after=-1"), "after");
        assert_eq!(named(&Method::GET, "/v1/models?after=m"), "after");
        assert_eq!(named(&Method::GET, "/v1/models?after=m/0"), "after");
        for limit in ["0", "8193", "x", "99999999999999999999"] {
            assert_eq!(
                named(&Method::GET, &format!("/v1/log?limit={limit}")),
                "limit",
                "{limit}"
            );
        }
    }

    #[test]
    fn pages_are_read() {
        let model: ModelId = "m".parse().unwrap();
        let page = Page {
            after: Some((model.clone(), ModelVersion(3))),
            limit: 2,
        };
        assert_eq!(
            asked(&Method::GET, "/v1/models?limit=2&after=m/3"),
            Ok(Route::ListModels(page))
        );
        let page = Page {
            after: Some(ModelVersion(3)),
            limit: Page::<()>::LIMIT_MAX,
        };
        assert_eq!(
            asked(&Method::GET, "/v1/models/m/versions?after=3"),
            Ok(Route::Versions { model, page })
        );
        assert_eq!(
            asked(&Method::GET, "/v1/log?"),
            Ok(Route::Log(Page::default()))
        );
    }

    #[test]
    fn unknown_and_doubled_query_parameters_are_refused() {
        for target in [
            "/v1/status?x=1",
            "/v1/status?after=1",
            "/v1/log?x=1",
            "/v1/log?after",
            "/v1/log?after=1&after=2",
            "/v1/log?after=1&",
        ] {
            assert_eq!(
                asked(&Method::GET, target),
                Err(RouteError::Query),
                "{target}"
            );
        }
    }

    proptest! {
        #[test]
        fn anything_may_be_sent(path in "\\PC{0,200}", query in prop::option::of("\\PC{0,200}")) {
            for method in [Method::GET, Method::PUT] {
                let _route = parse(&method, &path, query.as_deref());
                let _route = parse(&method, &format!("/v1/models/{path}"), query.as_deref());
            }
        }
    }
}
