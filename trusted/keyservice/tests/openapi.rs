//! The OpenAPI 3.1 document, made from the routes table and the message types; a golden file.
//!
//! `UPDATE_GOLDEN=1 cargo test -p sesemi-keyservice --test openapi` writes it anew.
#![expect(clippy::panic, reason = "a panic is how a test reports")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use keyservice::routes::{Access, EVERYWHERE, ROUTES, RouteSpec, parameter};
use protocol::keyservice::{
    Grant, GrantList, GrantTerms, LogPage, ModelList, ModelRecord, RegisterModel,
    RegisterRequestKey, Release, ReleaseRequest, RequestKeyList, RequestKeyRecord, Revoked, Status,
};
use protocol::{ErrorCode, WireError};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/keyservice.openapi.json")
}

/// JSON Schema of every message, by its Rust name.
fn schemas() -> Map<String, Value> {
    let mut generator: SchemaGenerator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    macro_rules! add {
        ($($message:ty),* $(,)?) => { $( generator.subschema_for::<$message>(); )* };
    }
    add!(
        Status,
        RegisterModel,
        ModelRecord,
        ModelList,
        Grant,
        GrantList,
        Revoked,
        RegisterRequestKey,
        RequestKeyRecord,
        GrantTerms,
        RequestKeyList,
        ReleaseRequest,
        Release,
        LogPage,
        WireError,
    );
    let mut schemas = generator.take_definitions(true);
    // The messages say where an id is; what it looks like is said here, once.
    for (name, pattern, description) in IDS {
        if let Some(schema) = schemas.get_mut(*name) {
            schema["pattern"] = json!(pattern);
            schema["description"] = json!(description);
        }
    }
    schemas
}

const IDS: &[(&str, &str, &str)] = &[
    (
        "ModelId",
        "^[a-z0-9][a-z0-9._-]{0,63}$",
        "A model's name; unique in one KeyService.",
    ),
    (
        "PrincipalId",
        "^[0-9a-f]{64}$",
        "SHA-256 of an identity key's SubjectPublicKeyInfo.",
    ),
    (
        "EnclaveId",
        "^[0-9a-f]{96}$",
        "E_S of a SeMIRT or E_K of a KeyService.",
    ),
    ("Digest", "^[0-9a-f]{64}$", "SHA-256."),
    (
        "PolicyHash",
        "^[0-9a-f]{96}$",
        "SHA-384 of an appraisal policy in its canonical form.",
    ),
    ("LeaseId", "^[0-9a-f]{32}$", "Names one lease."),
    (
        "WireKey",
        "^[A-Za-z0-9+/]{43}=$",
        "A key: 32 bytes in base64, inside this channel only.",
    ),
];

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn content(name: &str) -> Value {
    json!({ "application/json": { "schema": reference(name) } })
}

fn parameters(spec: &RouteSpec) -> Vec<Value> {
    let in_path = spec.path.split('/').filter_map(parameter).map(|name| {
        let schema = match name {
            "model" => reference("ModelId"),
            "user" => reference("PrincipalId"),
            "enclave" => reference("EnclaveId"),
            "version" => json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }),
            other => panic!("the path parameter {other} has no schema"),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let mut parameters: Vec<Value> = in_path.collect();
    if let Some(after) = spec.after {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": 8192, "default": 8192 });
        parameters.push(json!({
            "name": "after", "in": "query", "schema": { "type": "string" },
            "description": format!("Go on after {after}."),
        }));
        parameters.push(json!({
            "name": "limit", "in": "query", "schema": limit, "description": "Most items to answer.",
        }));
    }
    parameters
}

fn responses(spec: &RouteSpec) -> Map<String, Value> {
    let mut responses = Map::new();
    responses.insert(
        "200".into(),
        json!({ "description": "Done, and durable.", "content": content(spec.answer) }),
    );
    let codes: Vec<ErrorCode> = spec.errors.iter().chain(EVERYWHERE).copied().collect();
    let statuses: BTreeSet<u16> = codes.iter().map(|code| code.http_status()).collect();
    for status in statuses {
        let names: Vec<&str> = codes
            .iter()
            .filter(|code| code.http_status() == status)
            .map(|code| code.name())
            .collect();
        responses.insert(
            status.to_string(),
            json!({ "description": names.join(", "), "content": content("WireError") }),
        );
    }
    responses
}

fn operation(spec: &RouteSpec) -> Value {
    let who = match spec.access {
        Access::Anyone => "Anyone on the attested channel.",
        Access::Principal => {
            "Owners and users: the channel's client certificate holds their \
                              identity key."
        }
        Access::Instance => "Attested instances: the channel's evidence passed appraisal.",
    };
    let mut operation = json!({
        "operationId": spec.operation,
        "summary": spec.summary,
        "description": format!("Caller: {who}"),
        "responses": responses(spec),
    });
    let parameters = parameters(spec);
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(request) = spec.request {
        operation["requestBody"] = json!({ "required": true, "content": content(request) });
    }
    operation
}

fn document() -> Value {
    let mut paths = Map::new();
    for spec in ROUTES {
        let path = paths.entry(spec.path).or_insert_with(|| json!({}));
        path[spec.method.as_str().to_lowercase()] = operation(spec);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "SeSeMI KeyService",
            "version": "1",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description":
                "HTTP/1.1 on an attested TLS 1.3 channel (ALPN sesemi-ks/1); there is no other \
                 way in. Operations are idempotent: a repeated call answers the same. See \
                 docs/protocol.md, section KeyService API.",
        },
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

#[test]
fn the_document_is_the_checked_in_one() {
    let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden().parent().unwrap()).unwrap();
        std::fs::write(golden(), &text).unwrap();
    }
    let checked_in = std::fs::read_to_string(golden()).unwrap_or_default();
    // By content: the order of fields depends on how the JSON library was built.
    let checked_in: Value = serde_json::from_str(&checked_in).unwrap_or_default();
    assert!(
        document() == checked_in,
        "docs/api/keyservice.openapi.json is not what the code says; \
         UPDATE_GOLDEN=1 cargo test -p sesemi-keyservice --test openapi writes it"
    );
}

#[test]
fn every_reference_has_a_target() {
    fn check(value: &Value, document: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    let pointer = target.strip_prefix('#').expect("a reference inside");
                    assert!(
                        document.pointer(pointer).is_some(),
                        "{target} leads nowhere"
                    );
                }
                fields.values().for_each(|field| check(field, document));
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, document)),
            _ => {}
        }
    }
    let document = document();
    check(&document, &document);
    for spec in ROUTES {
        let names = spec.request.into_iter().chain([spec.answer]);
        for name in names {
            assert!(
                document["components"]["schemas"].get(name).is_some(),
                "{name}"
            );
        }
    }
}

#[test]
fn secrets_are_marked_in_no_answer_but_release() {
    let schemas = schemas();
    for spec in ROUTES {
        let text = schemas[spec.answer].to_string();
        assert_eq!(
            text.contains("WireKey"),
            spec.operation == "release",
            "{}",
            spec.operation
        );
    }
}
