//! The REST API as clients meet it: refusals first, then what succeeds.

use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::world::{World, annotation};

const NOT_FOUND: &str = "The requested resource does not exist.";

#[tokio::test(flavor = "multi_thread")]
async fn nobody_calls_without_the_right_key() {
    let world = World::start().await;
    let url = format!("{}/api/v1/namespaces", world.url);
    let none = world
        .send(Request::get(&url).body(Full::default()).unwrap())
        .await;
    let missing = "The resource requires authentication, which was not supplied with the request";
    assert_eq!(none.refusal(), (401, missing.to_owned()));
    assert!(
        none.headers["www-authenticate"]
            .to_str()
            .unwrap()
            .starts_with("Basic realm=")
    );
    let wrong = World::authorization("23bc46b1-71f6-4ed5-8c54-816aa4f8c502:wrong");
    for header in [
        wrong.as_str(),
        "Basic ???",
        "Basic",
        "Bearer x",
        "Basic Og==",
    ] {
        let request = Request::get(&url).header("authorization", header);
        let answer = world.send(request.body(Full::default()).unwrap()).await;
        let invalid = "The supplied authentication is invalid".to_owned();
        assert_eq!(answer.refusal(), (401, invalid), "{header}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_namespace_is_forbidden_and_sees_nothing_of_mine() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    let answer = world
        .raw(Method::GET, "/api/v1/namespaces/other/actions/a", "")
        .await;
    let error = "The supplied authentication is not authorized to access 'other/a'.";
    assert_eq!(answer.refusal(), (403, error.to_owned()));
    let other = std::fs::read_to_string(world.state_file("other.auth")).unwrap();
    let request = Request::get(format!("{}/api/v1/namespaces/_/actions/a", world.url))
        .header("authorization", World::authorization(other.trim()));
    let answer = world.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(answer.refusal(), (404, NOT_FOUND.to_owned()));
    let mine = world
        .raw(Method::GET, "/api/v1/namespaces/guest/actions/a", "")
        .await;
    assert_eq!(mine.status, 200);
    world.stop().await;
}

const EXEC: &str = "{\"exec\":{\"kind\":\"blackbox\",\"image\":\"test\"}}";
const ILLEGAL: &str = "The name of the entity contains illegal characters.";
const ONLY_GET: &str = "HTTP method not allowed, supported methods: GET";
const FOUR: &str = "HTTP method not allowed, supported methods: PUT, GET, DELETE, POST";
const ID: &str = "The activation id is not valid.";
const WAIT: &str = "The query parameter 'timeout' was malformed:\nTimeout must be number of \
                    milliseconds up to 60000.";
const LIMIT: &str = "The query parameter 'limit' was malformed:\nThe value '201' is not in the \
                     range of 0 to 200 for actions.";

/// Method, path, body; status and text.
const REFUSALS: &[(&str, &str, &str, u16, &str)] = &[
    ("GET", "actions/none", "", 404, NOT_FOUND),
    ("DELETE", "actions/none", "", 404, NOT_FOUND),
    ("POST", "actions/none?blocking=true", "{}", 404, NOT_FOUND),
    ("GET", "actions/pkg/a", "", 404, NOT_FOUND),
    ("PUT", "actions/b", "{}", 400, "exec undefined"),
    (
        "PUT",
        "actions/a?overwrite=false",
        EXEC,
        409,
        "resource already exists",
    ),
    ("PUT", "actions/a", EXEC, 409, "resource already exists"),
    ("PUT", "actions/%2Fx", EXEC, 400, ILLEGAL),
    ("PATCH", "actions/a", "", 405, FOUR),
    ("PUT", "actions", EXEC, 405, ONLY_GET),
    (
        "GET",
        "nothing",
        "",
        404,
        "The requested resource could not be found.",
    ),
    (
        "GET",
        "activations/123",
        "",
        400,
        "Activation id length is 3 but must be 32.",
    ),
    (
        "GET",
        "activations/0123456789abcdef0123456789abcdeX",
        "",
        400,
        ID,
    ),
    (
        "GET",
        "activations/0123456789abcdef0123456789abcdef",
        "",
        404,
        NOT_FOUND,
    ),
    (
        "GET",
        "activations/0123456789abcdef0123456789abcdef/logs",
        "",
        404,
        NOT_FOUND,
    ),
    (
        "GET",
        "activations?docs=true&count=true",
        "",
        400,
        "The parameter 'docs' is not permitted with 'count'.",
    ),
    ("POST", "actions/a?timeout=60001", "{}", 400, WAIT),
    ("POST", "actions/a?timeout=0", "{}", 400, WAIT),
    ("GET", "actions?limit=201", "", 400, LIMIT),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_openwhisks_status_and_words() {
    let world = World::start_with(|config| config.limits.payload_max = 1024).await;
    world.create("a", "test", json!({})).await;
    for (method, path, body, status, error) in REFUSALS {
        let path = format!("/api/v1/namespaces/_/{path}");
        let answer = world.raw(method.parse().unwrap(), &path, *body).await;
        assert_eq!(
            answer.refusal(),
            (*status, (*error).to_owned()),
            "{method} {path}"
        );
    }
    for body in ["{", "[1]", "7", "{\"a\":1}x"] {
        let answer = world
            .raw(Method::POST, "/api/v1/namespaces/_/actions/a", body)
            .await;
        let (status, error) = answer.refusal();
        assert_eq!(status, 400, "{body}");
        assert!(
            error.starts_with("The request content was malformed:\n"),
            "{error}"
        );
    }
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(2000));
    let answer = world
        .raw(Method::POST, "/api/v1/namespaces/_/actions/a", long.clone())
        .await;
    let error = format!("Request larger than allowed: {} > 1024 bytes.", long.len());
    assert_eq!(answer.refusal(), (413, error));
    let pad = |n: usize| {
        format!(
            "{{\"do\":\"text\",\"text\":\"{{}}\",\"x\":\"{}\"}}",
            "y".repeat(n)
        )
    };
    let room = 1024 - pad(0).len();
    for (length, status) in [(room, 200), (room + 1, 413)] {
        let path = "/api/v1/namespaces/_/actions/a?blocking=true";
        assert_eq!(
            world.raw(Method::POST, path, pad(length)).await.status,
            status
        );
    }
    let count = world.get("activations?count=true").await.json();
    assert_eq!(
        count,
        json!({"activations": 1}),
        "a refused call leaves no record"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_by_its_own_word_is_refused() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    let request = Request::post(format!("{}/api/v1/namespaces/_/actions/a", world.url))
        .header("authorization", World::authorization(&world.key))
        .header("content-type", "application/x-www-form-urlencoded");
    let answer = world
        .send(request.body(Full::new("a=1".into())).unwrap())
        .await;
    assert_eq!(answer.status, 415);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_or_in_a_minute_get_429_and_a_time_to_come_back() {
    let world = World::start_with(|config| {
        config.limits.concurrent_invocations = 1;
        config.limits.invocations_per_minute = 1_000;
    })
    .await;
    world.create("a", "test", json!({})).await;
    let accepted = world
        .call(Method::POST, "actions/a", Some(json!({"do": "hang"})))
        .await;
    assert_eq!(accepted.status, 202);
    let refused = world.invoke("a", json!({})).await;
    let error = "Too many concurrent requests in flight (count: 2, allowed: 1).";
    assert_eq!(refused.refusal(), (429, error.to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    world.stop().await;

    let world = World::start_with(|config| config.limits.invocations_per_minute = 0).await;
    world.create("a", "test", json!({})).await;
    let refused = world.invoke("a", json!({})).await;
    let error = "Too many requests in the last minute (count: 1, allowed: 0).";
    assert_eq!(refused.refusal(), (429, error.to_owned()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_its_request_and_allows_every_origin() {
    let world = World::start().await;
    let request = |method: Method, path: &str, id: Option<&str>| {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", world.url));
        let request = match id {
            Some(id) => request.header("x-request-id", id),
            None => request,
        };
        world.send(request.body(Full::default()).unwrap())
    };
    for (method, path, status) in [
        (Method::GET, "/api/v1", 200),
        (Method::GET, "/api/v1/", 200),
        (Method::GET, "/api/v1?", 200),
        (Method::GET, "/", 200),
        (Method::OPTIONS, "/api/v1/namespaces/_/actions/a", 200),
        (Method::GET, "/api/v1/namespaces", 401),
        (Method::GET, "/elsewhere", 404),
        (Method::POST, "/metrics", 405),
    ] {
        let answer = request(method, path, Some("mine-1")).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.headers["x-request-id"], "mine-1");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert!(answer.headers.contains_key("access-control-allow-headers"));
        assert!(answer.headers.contains_key("access-control-allow-methods"));
    }
    let ours = request(Method::GET, "/", Some("sid_x")).await;
    assert_eq!(ours.headers["x-request-id"].len(), 32);
    let fresh = request(Method::GET, "/", None).await;
    assert_ne!(fresh.headers["x-request-id"], ours.headers["x-request-id"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_describes_itself() {
    let world = World::start().await;
    let api = world.raw(Method::GET, "/api/v1", "").await.json();
    assert_eq!(
        (&api["api_version"], &api["api_version_path"]),
        (&json!("1.0.0"), &json!("v1"))
    );
    let docs = format!(
        "/api/v1{}",
        api["swagger_paths"]["api-docs"].as_str().unwrap()
    );
    let docs = world.raw(Method::GET, &docs, "").await.json();
    assert_eq!(docs["swagger"], "2.0");
    let action = &docs["paths"]["/namespaces/{namespace}/actions/{actionName}"];
    for method in ["get", "put", "post", "delete"] {
        assert!(action[method]["summary"].is_string(), "{method}");
    }
    let host = world.raw(Method::GET, "/", "").await.json();
    assert_eq!(host["api_paths"], json!(["/api/v1"]));
    assert_eq!(host["limits"]["concurrent_actions"], 256);
    for path in [
        "/api/v1/namespaces",
        "/api/v1/namespaces/",
        "/api/v1/namespaces?",
    ] {
        assert_eq!(
            world.raw(Method::GET, path, "").await.json(),
            json!(["guest"])
        );
    }
    for list in ["packages", "triggers", "rules", "actions", "activations"] {
        for form in ["", "?", "/", "?limit=0&skip=0", "?limit=200"] {
            let answer = world.get(&format!("{list}{form}")).await;
            assert_eq!(
                (answer.status.as_u16(), answer.json()),
                (200, json!([])),
                "{list}{form}"
            );
        }
    }
    let limits = world.get("limits").await.json();
    assert_eq!(
        (&limits["minActionMemory"], &limits["maxActionTimeout"]),
        (&json!(128), &json!(300_000))
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_created_read_listed_updated_and_deleted() {
    let world = World::start().await;
    // As the npm client sends it (a bare `?`), and as wsk does (namespace, name, a newline).
    let create = json!({"exec": {"kind": "blackbox", "image": "test", "code": "x"}});
    let answer = world.call(Method::PUT, "actions/one?", Some(create)).await;
    assert_eq!(answer.status, 200);
    let wsk = "{\"namespace\":\"_\",\"name\":\"two\",\"exec\":{\"kind\":\"blackbox\",\
               \"image\":\"test\",\"code\":\"\"}}\n";
    let path = "/api/v1/namespaces/_/actions/two%20%40?overwrite=false";
    let two = world.raw(Method::PUT, path, wsk).await.json();
    assert_eq!(two["name"], "two @");
    assert_eq!(
        two["exec"],
        json!({"kind": "blackbox", "image": "test", "binary": false})
    );
    assert_eq!(annotation(&two, "exec"), Some(&json!("blackbox")));
    assert_eq!(annotation(&two, "provide-api-key"), Some(&json!(false)));
    let limits = json!({"timeout": 60_000, "memory": 256, "logs": 10, "concurrency": 1});
    assert_eq!((&two["limits"], &two["publish"]), (&limits, &json!(false)));

    let one = world.get("actions/one?").await.json();
    assert_eq!(
        (&one["exec"]["code"], &one["version"]),
        (&json!("x"), &json!("0.0.1"))
    );
    let without = world.get("actions/one?code=false").await.json();
    assert_eq!(without["exec"].get("code"), None);
    let list = world.get("actions?limit=1").await.json();
    assert_eq!(
        (list.as_array().unwrap().len(), &list[0]["name"]),
        (1, &json!("two @"))
    );
    assert_eq!(list[0]["exec"], json!({"binary": false}));
    assert_eq!(list[0].get("parameters"), None);
    assert_eq!(world.get("actions?skip=1").await.json()[0]["name"], "one");
    assert_eq!(
        world.get("actions?count=true").await.json(),
        json!({"actions": 2})
    );

    let update = json!({"limits": {"memory": 512}});
    let updated = world
        .call(Method::PUT, "actions/one?overwrite=true", Some(update))
        .await
        .json();
    assert_eq!(
        (&updated["version"], &updated["limits"]["memory"]),
        (&json!("0.0.2"), &json!(512))
    );
    let deleted = world.call(Method::DELETE, "actions/one?", None).await;
    assert_eq!(
        (deleted.status.as_u16(), &deleted.json()["version"]),
        (200, &json!("0.0.2"))
    );
    assert_eq!(world.get("actions/one").await.status, 404);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_there_again_after_a_restart() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    let key = world.key.clone();
    world.shutdown.cancel();
    assert!(world.shutdown.wait(crate::world::DEADLINE).await);
    let again = World::start_in(world.folder, |_| {}).await;
    assert_eq!(again.key, key);
    assert_eq!(again.run("a", json!({})).await["version"], "0.0.1");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_is_answered_in_every_form_that_clients_ask_for() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    // The npm client: no body, no content type, a bare `?`.
    let request = Request::post(format!("{}/api/v1/namespaces/_/actions/a?", world.url))
        .header("authorization", World::authorization(&world.key));
    let answer = world.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status, 202);
    let id = answer.json()["activationId"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 32);
    let record: Value = world
        .until(&format!("activations/{id}?"), |a| {
            (a.status == 200).then(|| a.json())
        })
        .await;
    assert_eq!(record["response"]["result"]["value"], json!({}));
    assert_eq!(annotation(&record, "path"), Some(&json!("guest/a")));
    assert_eq!(annotation(&record, "kind"), Some(&json!("blackbox")));
    assert_eq!(annotation(&record, "limits").unwrap()["memory"], 256);
    assert_eq!(
        (&record["namespace"], &record["subject"]),
        (&json!("guest"), &json!("guest"))
    );

    let body = Some(json!({"n": 1}));
    let path = "actions/a?blocking=true&result=true";
    let bare = world.call(Method::POST, path, body.clone()).await;
    assert_eq!(bare.json()["value"], json!({"n": 1}));
    let whole = world
        .call(Method::POST, "actions/a?blocking=true&result=false", body)
        .await;
    let whole = whole.json();
    assert_eq!(whole["response"]["result"]["value"], json!({"n": 1}));
    let id = whole["activationId"].as_str().unwrap();
    let result = world.get(&format!("activations/{id}/result")).await.json();
    assert_eq!(result, whole["response"]);
    let error = json!({"do": "error", "text": "e"});
    let bare = world.call(Method::POST, path, Some(error)).await;
    assert_eq!(
        (bare.status.as_u16(), bare.json()),
        (502, json!({"error": "e"}))
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn activations_are_listed_newest_first_and_filtered() {
    let world = World::start().await;
    for name in ["a", "b"] {
        world.create(name, "keep-alive", json!({})).await;
    }
    let mut ids = Vec::new();
    for name in ["a", "b", "a"] {
        let record = world.run(name, json!({})).await;
        ids.push((
            record["activationId"].clone(),
            record["start"].as_u64().unwrap(),
        ));
    }
    let list = |path: &str| {
        let path = format!("activations{path}");
        let world = &world;
        async move { world.get(&path).await.json().as_array().unwrap().clone() }
    };
    let all = list("?").await;
    assert_eq!(all.len(), 3);
    assert_eq!(all[0]["activationId"], ids[2].0);
    assert_eq!(
        (all[0].get("response"), &all[0]["statusCode"]),
        (None, &json!(0))
    );
    assert_eq!(list("?name=b").await[0]["activationId"], ids[1].0);
    assert_eq!(
        list("?docs=true&limit=1").await[0]["response"]["success"],
        json!(true)
    );
    assert_eq!(list(&format!("?upto={}", ids[0].1 - 1)).await.len(), 0);
    assert_eq!(list(&format!("?since={}", ids[0].1)).await.len(), 3);
    let count = world.get("activations?count=true&name=a").await.json();
    assert_eq!(count, json!({"activations": 2}));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_time_are_accounted_for() {
    let world = World::start().await;
    world.create("a", "test", json!({"memory": 1024})).await;
    world.run("a", json!({"do": "sleep", "ms": 200})).await;
    let usage = world.usage().await;
    let number = |name: &str| usage[name].as_f64().unwrap();
    assert!(
        number("billedGbSeconds") >= 0.2 && number("billedGbSeconds") < 5.0,
        "{usage}"
    );
    assert!(
        number("provisionedGbSeconds") >= number("busyGbSeconds"),
        "{usage}"
    );
    assert!(number("busyGbSeconds") >= 0.2, "{usage}");
    let text = world.raw(Method::GET, "/metrics", "").await;
    let text = String::from_utf8(text.bytes.to_vec()).unwrap();
    for line in [
        "sesemi_platform_activations_total{outcome=\"Success\",start=\"Cold\"} 1",
        "sesemi_platform_instances 1",
        "sesemi_platform_sandboxes_started_total 1",
        "sesemi_platform_memory_bytes 1073741824",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    world.stop().await;
}
