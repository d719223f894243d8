//! `GET /api/v1/api-docs`: what there is of the API, in the form of Swagger 2.0.

use protocol::openwhisk::API_BASE;
use serde_json::{Map, Value, json};

/// A path below a namespace, its methods with what each does, and the query parameters it knows.
type Path = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const PATHS: [Path; 12] = [
    ("", &[("get", "List the namespaces of this key")], &[]),
    (
        "/{namespace}/actions",
        &[("get", "List actions")],
        &["limit", "skip", "count"],
    ),
    (
        "/{namespace}/actions/{actionName}",
        &[
            ("get", "Read an action"),
            ("put", "Create or update an action"),
            ("delete", "Delete an action"),
            ("post", "Invoke an action"),
        ],
        &["code", "overwrite", "blocking", "result", "timeout"],
    ),
    (
        "/{namespace}/activations",
        &[("get", "List activations, the newest first")],
        &["name", "limit", "skip", "since", "upto", "docs", "count"],
    ),
    (
        "/{namespace}/activations/{activationId}",
        &[("get", "Read an activation")],
        &[],
    ),
    (
        "/{namespace}/activations/{activationId}/logs",
        &[("get", "Read its log lines")],
        &[],
    ),
    (
        "/{namespace}/activations/{activationId}/result",
        &[("get", "Read its result")],
        &[],
    ),
    (
        "/{namespace}/packages",
        &[("get", "There are none")],
        &["limit", "skip", "count"],
    ),
    (
        "/{namespace}/triggers",
        &[("get", "There are none")],
        &["limit", "skip", "count"],
    ),
    (
        "/{namespace}/rules",
        &[("get", "There are none")],
        &["limit", "skip", "count"],
    ),
    ("/{namespace}/limits", &[("get", "Read the limits")], &[]),
    (
        "/{namespace}/usage",
        &[("get", "Memory and time used; this platform's own")],
        &[],
    ),
];

pub(super) fn api_docs() -> Value {
    let paths = PATHS.iter().map(|(path, methods, query)| {
        let operations = methods.iter().map(|(method, what)| {
            let operation = json!({
                "summary": what,
                "parameters": parameters(path, query),
                "responses": {"default": {"description": "JSON"}},
            });
            ((*method).to_owned(), operation)
        });
        let operations: Map<String, Value> = operations.collect();
        (format!("/namespaces{path}"), Value::Object(operations))
    });
    let paths: Map<String, Value> = paths.collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "OpenWhisk REST API", "version": "1.0.0"},
        "basePath": API_BASE,
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "securityDefinitions": {"basicAuth": {"type": "basic"}},
        "security": [{"basicAuth": []}],
        "paths": paths,
    })
}

fn parameters(path: &str, query: &[&str]) -> Vec<Value> {
    let in_path = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "type": "string", "required": true}));
    let in_query = query
        .iter()
        .map(|name| json!({"name": name, "in": "query", "type": "string"}));
    in_path.chain(in_query).collect()
}
