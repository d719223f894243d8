//! Which handler a path and method belong to.

use http::{Method, StatusCode};
use prometheus_client::encoding::text;
use protocol::openwhisk::{API_BASE, OWN_NAMESPACE, is_entity_name};
use serde_json::json;

use super::api_docs::api_docs;
use super::query::{Query, percent_decode};
use super::{Call, Gateway, Reject, Reply, Tenant};

/// What a path below a namespace names.
struct Target<'a> {
    tenant: &'a Tenant,
    collection: &'a str,
    /// Path segments after the collection.
    rest: &'a [String],
}

impl Gateway {
    pub(super) async fn route(&self, call: Call) -> Result<Reply, Reject> {
        if call.method == Method::OPTIONS {
            return Ok(Reply::text(String::new(), "application/json"));
        }
        if let Some(rest) = call.path.strip_prefix(API_BASE)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            let segments = segments(rest)?;
            return self.route_api(call, &segments).await;
        }
        match (call.path.as_str(), &call.method) {
            ("/", &Method::GET) => Reply::ok(&self.about_host()),
            ("/ping", &Method::GET) => Ok(Reply::text("pong".to_owned(), "text/plain")),
            ("/metrics", &Method::GET) => self.metrics_text(),
            ("/" | "/ping" | "/metrics", _) => Err(Reject::method("GET")),
            _ => Err(Reject::no_route()),
        }
    }

    async fn route_api(&self, call: Call, segments: &[String]) -> Result<Reply, Reject> {
        if segments.is_empty() {
            require_get(&call)?;
            return Reply::ok(&about_api());
        }
        if segments == ["api-docs"] {
            require_get(&call)?;
            return Reply::ok(&api_docs());
        }
        let tenant = self.authenticate(&call.headers)?;
        let (first, rest) = segments.split_first().ok_or_else(Reject::no_route)?;
        if first != "namespaces" {
            return Err(Reject::no_route());
        }
        let Some((namespace, rest)) = rest.split_first() else {
            require_get(&call)?;
            return Reply::ok(&[&tenant.namespace]);
        };
        let Some((collection, rest)) = rest.split_first() else {
            return Err(Reject::no_route());
        };
        if namespace != OWN_NAMESPACE {
            check_name(
                namespace,
                "Namespace",
                "The namespace contains illegal characters.",
            )?;
            if *namespace != tenant.namespace {
                let resource = match rest.first() {
                    Some(entity) => format!("{namespace}/{entity}"),
                    None => namespace.clone(),
                };
                return Err(Reject::forbidden(&resource));
            }
        }
        self.route_collection(
            call,
            Target {
                tenant,
                collection,
                rest,
            },
        )
        .await
    }

    async fn route_collection(&self, call: Call, target: Target<'_>) -> Result<Reply, Reject> {
        let Target {
            tenant,
            collection,
            rest,
        } = target;
        let query = Query::parse(&call.query)?;
        match (collection, rest) {
            ("actions", []) => require_get(&call).and_then(|()| self.list_actions(tenant, &query)),
            ("actions", [name]) => {
                let illegal = "The name of the entity contains illegal characters.";
                check_name(name, "Name segement", illegal)?;
                self.route_action(call, tenant, name, &query).await
            }
            // An action in a package: there are no packages here.
            ("actions", [_, _]) => Err(Reject::not_found()),
            ("activations", _) => {
                require_get(&call).and_then(|()| self.route_activations(tenant, rest, &query))
            }
            ("limits", []) => require_get(&call).and_then(|()| self.limits()),
            ("usage", []) => require_get(&call).and_then(|()| self.usage()),
            ("packages" | "triggers" | "rules", []) => {
                require_get(&call).and_then(|()| empty_list(collection, &query))
            }
            ("packages" | "triggers" | "rules", [_]) if call.method == Method::PUT => {
                let text = format!("This platform has no {collection}.");
                Err(Reject::new(StatusCode::NOT_IMPLEMENTED, text))
            }
            ("packages" | "triggers" | "rules", [_]) => Err(Reject::not_found()),
            _ => Err(Reject::no_route()),
        }
    }

    async fn route_action(
        &self,
        call: Call,
        tenant: &Tenant,
        name: &str,
        query: &Query,
    ) -> Result<Reply, Reject> {
        match call.method {
            Method::GET => self.fetch_action(tenant, name, query),
            Method::PUT => self.put_action(call, tenant, name, query).await,
            Method::POST => self.invoke(call, tenant, name, query).await,
            Method::DELETE => self.delete_action(tenant, name).await,
            _ => Err(Reject::method("PUT, GET, DELETE, POST")),
        }
    }

    fn metrics_text(&self) -> Result<Reply, Reject> {
        self.metrics.refresh(&self.pool.occupancy());
        let mut out = String::new();
        text::encode(&mut out, &self.registry).map_err(|_| Reject::internal())?;
        let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Ok(Reply::text(out, openmetrics))
    }
}

fn about_api() -> serde_json::Value {
    json!({
        "description": "OpenWhisk API",
        "api_version": "1.0.0",
        "api_version_path": "v1",
        "build": "sesemi-platform",
        "buildno": env!("CARGO_PKG_VERSION"),
        "swagger_paths": {"ui": "/docs", "api-docs": "/api-docs"},
    })
}

fn empty_list(collection: &str, query: &Query) -> Result<Reply, Reject> {
    query.limit(collection)?;
    query.skip(collection)?;
    if query.flag("count", false)? {
        return Reply::ok(&json!({ collection: 0 }));
    }
    Reply::ok(&json!([]))
}

fn require_get(call: &Call) -> Result<(), Reject> {
    if call.method == Method::GET {
        Ok(())
    } else {
        Err(Reject::method("GET"))
    }
}

/// The path's segments, decoded; a slash at the end counts for nothing.
fn segments(path: &str) -> Result<Vec<String>, Reject> {
    let path = path.trim_start_matches('/');
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let decode = |segment| percent_decode(segment).map(|s| s.into_owned());
    let decoded: Option<Vec<_>> = path.split('/').map(decode).collect();
    decoded.ok_or_else(|| Reject::bad_request("The request target is not valid."))
}

fn check_name(name: &str, field: &str, illegal: &str) -> Result<(), Reject> {
    const MAX: usize = protocol::openwhisk::NAME_MAX;
    let length = name.chars().count();
    if length > MAX {
        let text = format!("{field} longer than allowed: {length} > {MAX}.");
        return Err(Reject::bad_request(text));
    }
    if is_entity_name(name) {
        Ok(())
    } else {
        Err(Reject::bad_request(illegal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_after_they_are_split() {
        assert!(segments("/a%2").is_err());
        assert_eq!(segments("/a%2Fb/c/").unwrap(), ["a/b", "c"]);
        assert!(segments("").unwrap().is_empty());
        assert!(segments("/").unwrap().is_empty());
        assert_eq!(segments("/a//b").unwrap(), ["a", "", "b"]);
    }

    #[test]
    fn names_are_refused_for_their_length_or_their_characters() {
        let long = "a".repeat(257);
        let error = check_name(&long, "Name segement", "illegal")
            .unwrap_err()
            .error;
        assert_eq!(error, "Name segement longer than allowed: 257 > 256.");
        assert_eq!(
            check_name("a/b", "Name segement", "illegal")
                .unwrap_err()
                .error,
            "illegal"
        );
        check_name("a b", "Name segement", "illegal").unwrap();
    }
}
