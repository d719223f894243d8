//! Every row of OpenWhisk's result table, each made by a real process.

use http::Method;
use serde_json::{Value, json};

use crate::world::{World, annotation, until_dead};

const DIED: &str = "The action did not produce a valid response and exited unexpectedly.";
const NOT_INITIALISED: &str = "The action did not initialize and exited unexpectedly.";

/// One run in a fresh instance: API status, status code, result, and whether the same process
/// served the next run.
async fn row(world: &World, body: Value) -> (u16, Value, Value, bool) {
    world.create("row", "test", json!({})).await;
    let before = world.run("row", json!({})).await;
    let answer = world.invoke("row", body).await;
    let record = answer.json();
    assert_eq!(annotation(&record, "initTime"), None, "a reused instance");
    let after = world.run("row", json!({})).await;
    let pid = |record: &Value| record["response"]["result"]["pid"].clone();
    let kept = pid(&before) == pid(&after);
    assert_eq!(
        annotation(&after, "initTime").is_none(),
        kept,
        "cold exactly if destroyed"
    );
    if !kept {
        until_dead(pid(&before).as_u64().unwrap()).await;
    }
    let response = &record["response"];
    assert_eq!(response["success"], response["statusCode"] == 0);
    let status = [
        "success",
        "application error",
        "action developer error",
        "whisk internal error",
    ];
    assert_eq!(
        response["status"],
        status[usize::try_from(response["statusCode"].as_u64().unwrap()).unwrap()]
    );
    (
        answer.status.as_u16(),
        response["statusCode"].clone(),
        response["result"].clone(),
        kept,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_the_protocol_destroys_the_instance() {
    let world = World::start().await;
    let invalid = "The action did not produce a valid JSON or JSON Array response";
    for (body, error) in [
        (
            json!({"do": "status", "status": 400, "text": "{\"error\":{\"k\":1}}"}),
            json!({"k": 1}),
        ),
        (
            json!({"do": "status", "status": 500, "text": "no"}),
            json!(format!("{invalid}: no")),
        ),
        (
            json!({"do": "status", "status": 201, "text": "{}"}),
            json!(format!("{invalid}: {{}}")),
        ),
        (
            json!({"do": "text", "text": "not json"}),
            json!(format!("{invalid}: not json")),
        ),
        (
            json!({"do": "text", "text": "7"}),
            json!(format!("{invalid}: 7")),
        ),
        (
            json!({"do": "text", "text": ""}),
            json!(format!("{invalid}.")),
        ),
        (json!({"do": "chunked"}), json!(DIED)),
        (json!({"do": "empty"}), json!(DIED)),
        (json!({"do": "close"}), json!(DIED)),
        (json!({"do": "crash"}), json!(DIED)),
    ] {
        let got = row(&world, body.clone()).await;
        assert_eq!(
            got,
            (502, json!(2), json!({"error": error}), false),
            "{body}"
        );
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_keeps_the_protocol_keeps_the_instance() {
    let world = World::start().await;
    let got = row(&world, json!({"do": "error", "text": "mine"})).await;
    assert_eq!(got, (502, json!(1), json!({"error": "mine"}), true));
    let got = row(&world, json!({"do": "text", "text": "{\"a\":[1]}"})).await;
    assert_eq!(got, (200, json!(0), json!({"a": [1]}), true));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_answered_bare() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    let answer = world.invoke("a", json!({"do": "array"})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!([1, "two"]))
    );
    let id = answer.headers["x-openwhisk-activation-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let record = world.get(&format!("activations/{id}")).await.json();
    assert_eq!(record["response"]["result"], json!([1, "two"]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_too_long_is_cut_and_keeps_the_instance() {
    let world = World::start_with(|config| config.limits.payload_max = 1000).await;
    world.create("a", "mute", json!({})).await;
    let before = world.run("a", json!({"do": "text", "text": "{}"})).await;
    let answer = world.invoke("a", json!({"do": "big", "size": 5000})).await;
    let response = &answer.json()["response"];
    assert_eq!(
        (answer.status.as_u16(), &response["statusCode"]),
        (502, &json!(1))
    );
    let text = response["result"]["error"].as_str().unwrap();
    let head = "The action produced a response that exceeded the allowed length: 5010 > 1000 bytes. \
                The truncated response was: {\"big\":\"xxx";
    assert!(text.starts_with(head), "{text}");
    assert_eq!(response["size"], 5010);
    let after = world.run("a", json!({"do": "text", "text": "{}"})).await;
    assert_eq!(annotation(&after, "initTime"), None);
    assert!(annotation(&before, "initTime").is_some());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_too_slow_is_ended_at_its_limit() {
    let world = World::start().await;
    world.create("a", "test", json!({"timeout": 300})).await;
    let before = world.run("a", json!({})).await;
    let answer = world.invoke("a", json!({"do": "hang"})).await;
    let record = answer.json();
    assert_eq!(answer.status, 502);
    let error = "The action exceeded its time limits of 300 milliseconds.";
    assert_eq!(record["response"]["result"], json!({ "error": error }));
    assert_eq!(record["response"]["statusCode"], 2);
    assert_eq!(annotation(&record, "timeout"), Some(&json!(true)));
    assert_eq!(annotation(&before, "timeout"), Some(&json!(false)));
    let duration = record["duration"].as_u64().unwrap();
    assert!((300..3000).contains(&duration), "{duration} ms");
    until_dead(before["response"]["result"]["pid"].as_u64().unwrap()).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_from_outside_gives_the_exact_record() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    let pid = world.run("a", json!({})).await["response"]["result"]["pid"]
        .as_u64()
        .unwrap();
    let victim = async {
        // The next run has started when the platform has no idle instance any more.
        world
            .until("usage", |a| (a.json()["idleInstances"] == 0).then_some(()))
            .await;
        let raw = i32::try_from(pid).unwrap();
        let pid = rustix::process::Pid::from_raw(raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let (answer, ()) = tokio::join!(world.invoke("a", json!({"do": "hang"})), victim);
    let record = answer.json();
    assert_eq!(answer.status, 502);
    assert_eq!(
        record["response"],
        json!({"status": "action developer error", "statusCode": 2, "success": false,
            "result": {"error": DIED}})
    );
    assert_eq!(annotation(&record, "timeout"), Some(&json!(false)));
    let again = world.run("a", json!({})).await;
    assert!(annotation(&again, "initTime").is_some());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_holds_too_much_memory_is_ended_and_told_apart() {
    let world = World::start().await;
    world.create("a", "test", json!({"memory": 128})).await;
    world.run("a", json!({})).await;
    let body = json!({"do": "hog", "size": 300 << 20, "ms": 600_000});
    let answer = world.invoke("a", body).await;
    let error = "The action exhausted its memory and was aborted.";
    assert_eq!(answer.status, 502);
    assert_eq!(
        answer.json()["response"]["result"],
        json!({ "error": error })
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_says_503_is_replaced_and_the_caller_notices_nothing() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    let first = world.run("a", json!({})).await;
    let served = world.run("a", json!({"do": "retire"})).await;
    let pid = |record: &Value| record["response"]["result"]["pid"].clone();
    assert_ne!(pid(&first), pid(&served));
    assert!(annotation(&served, "initTime").is_some());
    assert_eq!(world.usage().await["sandboxesStarted"], 2);
    until_dead(pid(&first).as_u64().unwrap()).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_instance_says_503_the_platform_gives_up() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    world.run("a", json!({})).await;
    let answer = world
        .invoke("a", json!({"do": "status", "status": 503, "text": "{}"}))
        .await;
    assert_eq!(
        answer.json()["response"]["result"],
        json!({ "error": DIED })
    );
    assert_eq!(world.usage().await["sandboxesStarted"], 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn initialisation_fails_in_as_many_ways() {
    let world = World::start().await;
    for (image, limits, error) in [
        ("init-403", json!({}), json!("not me")),
        (
            "init-500",
            json!({}),
            json!("The action failed during initialization: oops"),
        ),
        ("init-crash", json!({}), json!(NOT_INITIALISED)),
        ("exit", json!({}), json!(NOT_INITIALISED)),
        ("busybox", json!({}), json!(NOT_INITIALISED)),
        (
            "init-stuck",
            json!({"timeout": 200}),
            json!("The action exceeded its time limits of 200 milliseconds during initialization."),
        ),
        (
            "deaf",
            json!({"timeout": 200}),
            json!("The action exceeded its time limits of 200 milliseconds during initialization."),
        ),
    ] {
        world.create("a", image, limits).await;
        let answer = world.invoke("a", json!({})).await;
        let record = answer.json();
        assert_eq!(answer.status, 502, "{image}");
        assert_eq!(record["response"]["statusCode"], 2, "{image}");
        assert_eq!(
            record["response"]["result"],
            json!({ "error": error }),
            "{image}"
        );
        assert!(annotation(&record, "initTime").is_some(), "{image}");
        world.until_instances(0).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_waited_for_a_failed_initialisation_fail_with_it() {
    let world = World::start().await;
    world
        .create("a", "init-stuck", json!({"timeout": 300, "concurrency": 3}))
        .await;
    let invoke = || world.invoke("a", json!({}));
    let answers: [_; 3] = tokio::join!(invoke(), invoke(), invoke()).into();
    let mut cold = 0;
    for answer in answers {
        let record = answer.json();
        assert_eq!(record["response"]["statusCode"], 2);
        let error = record["response"]["result"]["error"].as_str().unwrap();
        assert!(error.ends_with("during initialization."), "{error}");
        cold += u32::from(annotation(&record, "initTime").is_some());
    }
    assert_eq!(
        (cold, &world.usage().await["sandboxesStarted"]),
        (1, &json!(1))
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_start_is_the_platforms_fault() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::fs::write(&program, "not executable").unwrap();
    let world = World::start_with(|config| {
        let image = platform::Image {
            command: vec![program.to_str().unwrap().to_owned()],
            ..platform::Image::default()
        };
        config.images.insert("broken".to_owned(), image);
    })
    .await;
    world.create("a", "broken", json!({})).await;
    let answer = world.invoke("a", json!({})).await;
    assert_eq!(answer.status, 500);
    let response = &answer.json()["response"];
    assert_eq!(response["status"], "whisk internal error");
    let error = "Failed to provision resources to run the action.";
    assert_eq!(response["result"], json!({ "error": error }));
    world.until_instances(0).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_longer_than_the_caller_wants_gives_202_and_the_record_later() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    world.run("a", json!({})).await;
    let body = json!({"do": "sleep", "ms": 300});
    let path = "actions/a?blocking=true&timeout=50";
    let answer = world.call(Method::POST, path, Some(body)).await;
    assert_eq!(answer.status, 202);
    let id = answer.json()["activationId"].as_str().unwrap().to_owned();
    assert_eq!(answer.headers["x-openwhisk-activation-id"], id.as_str());
    assert_eq!(answer.json(), json!({ "activationId": id }));
    let record = world
        .until(&format!("activations/{id}"), |a| {
            (a.status == 200).then(|| a.json())
        })
        .await;
    assert!(record["duration"].as_u64().unwrap() >= 300);
    world.stop().await;
}
