//! Sandboxes as processes: isolation, life and death, concurrency, memory.

use std::time::Duration;

use http::Method;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::world::{DEADLINE, World, alive, annotation, until_dead};

fn result(record: &Value) -> &Value {
    &record["response"]["result"]
}

fn pid(record: &Value) -> u64 {
    result(record)["pid"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_inherits_nothing() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    let record = world.run("a", json!({})).await;
    let env = result(&record)["env"].as_object().unwrap();
    let names: Vec<_> = env.keys().map(String::as_str).collect();
    assert_eq!(names, ["FROM_IMAGE", "PORT", "__OW_API_HOST"]);
    assert_eq!(env["__OW_API_HOST"], world.url.as_str());
    let pid = pid(&record);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let group = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_ascii_whitespace()
        .nth(2)
        .unwrap();
    assert_eq!(group, pid.to_string(), "its own process group");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..]
            .split_ascii_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(limit("Max open files"), "1024 1024");
    // One byte: a limit of 0 does not stop dumps that the kernel hands to a program.
    assert_eq!(limit("Max core file size"), "1 1");
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets: Vec<_> = open
        .flatten()
        .map(|fd| {
            std::fs::read_link(fd.path())
                .unwrap_or_default()
                .display()
                .to_string()
        })
        .collect();
    let known = |t: &String| {
        ["/dev/null", "pipe:", "socket:"]
            .iter()
            .any(|k| t.starts_with(k))
    };
    assert!(targets.iter().all(known), "{targets:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_and_run_bring_what_openwhisk_brings() {
    let world = World::start().await;
    let body = json!({"exec": {"kind": "blackbox", "image": "test", "code": "c0de", "main": "go"},
        "parameters": [{"key": "p", "value": 1}, {"key": "E", "value": {"a": 1}, "init": true}],
        "annotations": [{"key": "provide-api-key", "value": true}]});
    world.call(Method::PUT, "actions/a", Some(body)).await;
    let record = world.run("a", json!({"q": 2})).await;
    let seen = result(&record);
    assert_eq!(seen["value"], json!({"p": 1, "q": 2}));
    let init = &seen["init"];
    assert_eq!(
        (&init["name"], &init["main"], &init["code"], &init["binary"]),
        (&json!("a"), &json!("go"), &json!("c0de"), &json!(false))
    );
    let env = init["env"].as_object().unwrap();
    assert!(env.values().all(Value::is_string));
    let names: Vec<_> = env.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "E",
            "__OW_ACTION_NAME",
            "__OW_ACTION_VERSION",
            "__OW_ACTIVATION_ID",
            "__OW_API_KEY",
            "__OW_DEADLINE",
            "__OW_NAMESPACE",
            "__OW_TRANSACTION_ID"
        ]
    );
    assert_eq!(
        (&env["E"], &env["__OW_ACTION_NAME"]),
        (&json!("{\"a\":1}"), &json!("/guest/a"))
    );
    assert_eq!(env["__OW_API_KEY"], world.key.as_str());
    let request = &seen["request"];
    assert_eq!(request["activation_id"], record["activationId"]);
    assert_eq!(
        (&request["namespace"], &request["action_name"]),
        (&json!("guest"), &json!("/guest/a"))
    );
    assert_eq!(request["action_version"], "0.0.1");
    let deadline: u64 = request["deadline"].as_str().unwrap().parse().unwrap();
    let start = record["start"].as_u64().unwrap();
    assert!(
        deadline >= start + 60_000 && deadline < start + 90_000,
        "{deadline} after {start}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_is_told_by_init_time_and_a_slow_start_counts_as_initialising() {
    let world = World::start().await;
    world.create("a", "slow", json!({})).await;
    let cold = world.run("a", json!({})).await;
    let init = annotation(&cold, "initTime").unwrap().as_u64().unwrap();
    assert!(init >= 300, "{init} ms");
    let duration = cold["duration"].as_u64().unwrap();
    assert!(duration >= init);
    assert_eq!(
        cold["end"].as_u64().unwrap() - cold["start"].as_u64().unwrap(),
        duration
    );
    assert!(annotation(&cold, "waitTime").unwrap().as_u64().is_some());
    let reused = world.run("a", json!({})).await;
    assert_eq!(annotation(&reused, "initTime"), None);
    assert_eq!(
        (pid(&cold), result(&reused)["seq"].clone()),
        (pid(&reused), json!(2))
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_invocations_share_one_instance_up_to_its_concurrency() {
    let world = World::start_with(|config| config.memory = 256 << 20).await;
    for image in ["test", "keep-alive"] {
        world.create("a", image, json!({"concurrency": 3})).await;
        let run = || world.run("a", json!({"do": "sleep", "ms": 150}));
        let records: [Value; 8] =
            tokio::join!(run(), run(), run(), run(), run(), run(), run(), run()).into();
        let mut cold = 0;
        for record in &records {
            assert_eq!(
                pid(record),
                pid(&records[0]),
                "one instance is all that fits"
            );
            cold += u32::from(annotation(record, "initTime").is_some());
        }
        let most = records
            .iter()
            .filter_map(|r| result(r)["most"].as_u64())
            .max();
        assert_eq!((cold, most), (1, Some(3)), "{image}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_concurrency_each_invocation_gets_its_own_instance() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    let run = || world.run("a", json!({"do": "sleep", "ms": 150}));
    let (one, two) = tokio::join!(run(), run());
    assert_ne!(pid(&one), pid(&two));
    assert_eq!(
        (&result(&one)["most"], &result(&two)["most"]),
        (&json!(1), &json!(1))
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_bounds_the_instances_and_the_longest_idle_one_makes_room() {
    let world = World::start_with(|config| config.memory = 512 << 20).await;
    for name in ["a", "b", "c"] {
        world.create(name, "test", json!({"memory": 256})).await;
    }
    let a = world.run("a", json!({})).await;
    let b = world.run("b", json!({})).await;
    world.run("a", json!({})).await;
    let c = world.run("c", json!({})).await;
    until_dead(pid(&b)).await;
    assert!(alive(pid(&a)) && alive(pid(&c)));
    assert_eq!(world.usage().await["memoryMb"], 512);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_instance_ends_after_its_time_with_all_that_it_started() {
    let world = World::start_with(|config| config.idle_timeout = Duration::from_millis(50)).await;
    world.create("a", "family", json!({})).await;
    let record = world.run("a", json!({})).await;
    let child = result(&record)["child"].as_u64().unwrap();
    until_dead(pid(&record)).await;
    until_dead(child).await;
    world.until_instances(0).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_instance_that_dies_is_replaced_unnoticed() {
    let world = World::start().await;
    for image in ["test", "keep-alive"] {
        world.create("a", image, json!({})).await;
        let first = world.run("a", json!({})).await;
        let raw = i32::try_from(pid(&first)).unwrap();
        let victim = rustix::process::Pid::from_raw(raw).unwrap();
        rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
        until_dead(pid(&first)).await;
        let second = world.run("a", json!({})).await;
        assert!(annotation(&second, "initTime").is_some(), "{image}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_and_deleting_an_action_ends_its_idle_instances() {
    let world = World::start().await;
    world.create("a", "test", json!({})).await;
    let first = world.run("a", json!({})).await;
    world.create("a", "test", json!({})).await;
    until_dead(pid(&first)).await;
    let second = world.run("a", json!({})).await;
    assert_eq!(second["version"], "0.0.2");
    world.call(Method::DELETE, "actions/a", None).await;
    until_dead(pid(&second)).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_name_the_instance() {
    let world = World::start().await;
    world.create("a", "keep-alive", json!({})).await;
    let both = tokio::join!(
        world.run("a", json!({"do": "sleep", "ms": 300})),
        world.run("a", json!({"do": "sleep", "ms": 300})),
    );
    assert_ne!(pid(&both.0), pid(&both.1));
    let named = async |instance: &str| {
        let request = http::Request::builder()
            .method(Method::POST)
            .uri(format!(
                "{}/api/v1/namespaces/_/actions/a?blocking=true",
                world.url
            ))
            .header("authorization", World::authorization(&world.key))
            .header("x-sesemi-instance", instance);
        world
            .send(request.body(Full::<bytes::Bytes>::default()).unwrap())
            .await
    };
    for record in [&both.0, &both.1, &both.0] {
        let instance = annotation(record, "instance").unwrap().as_str().unwrap();
        assert_eq!(pid(&named(instance).await.json()), pid(record));
    }
    assert_eq!(named("4711").await.status, 200, "one that is not there");
    assert_eq!(named("first").await.refusal().0, 400);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_may_ask_for_instances_ahead_of_need() {
    let world = World::start().await;
    let body = json!({"exec": {"kind": "blackbox", "image": "test"},
        "annotations": [{"key": "prewarm", "value": 2}]});
    world.call(Method::PUT, "actions/a", Some(body)).await;
    world
        .until("usage", |a| (a.json()["idleInstances"] == 2).then_some(()))
        .await;
    let none = json!({"activations": 0});
    assert_eq!(world.get("activations?count=true").await.json(), none);
    let record = world.run("a", json!({})).await;
    assert_eq!(annotation(&record, "initTime"), None);
    world.call(Method::DELETE, "actions/a", None).await;
    world.until_instances(0).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_kills_every_child_also_a_busy_one_and_its_family() {
    let world = World::start().await;
    world.create("a", "family", json!({})).await;
    world.create("idle", "test", json!({})).await;
    let record = world.run("a", json!({})).await;
    let idle = pid(&world.run("idle", json!({})).await);
    let (busy, child) = (pid(&record), result(&record)["child"].as_u64().unwrap());
    world
        .call(Method::POST, "actions/a", Some(json!({"do": "hang"})))
        .await;
    world
        .until("usage", |a| (a.json()["idleInstances"] == 1).then_some(()))
        .await;
    world.stop().await;
    for pid in [busy, child, idle] {
        until_dead(pid).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_belong_to_the_run_that_wrote_them() {
    let world = World::start().await;
    for image in ["test", "mute"] {
        world.create("a", image, json!({})).await;
        for text in ["one", "two"] {
            let record = world.run("a", json!({"do": "log", "text": text})).await;
            let path = format!(
                "activations/{}/logs",
                record["activationId"].as_str().unwrap()
            );
            let cold = annotation(&record, "initTime").is_some();
            let wanted = 2 + usize::from(cold);
            let logs = world
                .until(&path, |answer| {
                    let logs = answer.json()["logs"].as_array().unwrap().clone();
                    (logs.len() >= wanted).then_some(logs)
                })
                .await;
            let mut texts: Vec<_> = logs
                .iter()
                .map(|l| l.as_str().unwrap().split_once(' ').unwrap().1)
                .collect();
            texts.sort_unstable();
            let mut expected = vec!["stderr: and on stderr", "stdout: initialised"];
            if !cold {
                expected.pop();
            }
            let said = format!("stdout: {text}");
            expected.push(&said);
            expected.sort_unstable();
            assert_eq!(texts, expected, "{image} {text}");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_its_last_words_in_the_record() {
    let world = World::start().await;
    world.create("a", "test", json!({"concurrency": 2})).await;
    world
        .run("a", json!({"do": "log", "text": "last words"}))
        .await;
    let answer = world.invoke("a", json!({"do": "crash"})).await;
    let id = answer.json()["activationId"].as_str().unwrap().to_owned();
    let logs = world.get(&format!("activations/{id}/logs")).await.json();
    assert!(logs.to_string().contains("last words"), "{logs}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_invocations_at_once_all_end_and_are_all_recorded() {
    let world = World::start_with(|config| config.memory = 1 << 30).await;
    for (name, concurrency) in [("a", 1), ("b", 4), ("c", 2)] {
        world
            .create(
                name,
                "keep-alive",
                json!({"memory": 256, "concurrency": concurrency}),
            )
            .await;
    }
    let mut calls = Vec::new();
    for i in 0..120_u32 {
        let name = ["a", "b", "c"][usize::try_from(i % 3).unwrap()];
        let body = match i % 10 {
            0 => json!({"do": "crash"}),
            1 => json!({"do": "error", "text": "x"}),
            _ => json!({"do": "sleep", "ms": i % 7, "i": i}),
        };
        let world = &world;
        calls.push(async move {
            let answer = world.invoke(name, body).await;
            (i, answer)
        });
    }
    let mut pending: Vec<_> = calls.into_iter().map(Box::pin).collect();
    let all = std::future::poll_fn(|cx| {
        pending.retain_mut(|call| match call.as_mut().poll(cx) {
            std::task::Poll::Ready((i, answer)) => {
                let record = answer.json();
                if answer.status == 200 {
                    assert_eq!(record["response"]["result"]["value"]["i"], i);
                } else {
                    assert_eq!(answer.status, 502, "{record}");
                }
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    tokio::time::timeout(DEADLINE, all)
        .await
        .expect("every invocation ends");
    drop(pending);
    assert_eq!(
        world.get("activations?count=true").await.json(),
        json!({"activations": 120})
    );
    assert_eq!(world.usage().await["waitingInvocations"], 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_recorded_where_the_operator_wants_it() {
    let world = World::start_with(|config| {
        config.record = Some(config.state_dir.join("seen"));
    })
    .await;
    world.create("a", "test", json!({})).await;
    world.run("a", json!({"do": "log", "text": "needle"})).await;
    let seen = |name: &str| {
        let path = world.state_file("state").join("seen").join(name);
        String::from_utf8(std::fs::read(path).unwrap()).unwrap()
    };
    for name in [
        "gateway-requests",
        "gateway-responses",
        "sandbox-requests",
        "sandbox-responses",
    ] {
        assert!(seen(name).contains("needle"), "{name}");
    }
    assert!(seen("sandbox-output").lines().any(|line| line == "needle"));
    world.stop().await;
}

/// A process that is none of the platform's; it ends with the test, also when that fails.
struct Stranger(rustix::process::Pid);

impl Drop for Stranger {
    fn drop(&mut self) {
        rustix::process::kill_process(self.0, rustix::process::Signal::KILL).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_on_the_port_gets_no_request_and_the_sandbox_another_port() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stranger");
    let world = World::start_with(|config| {
        let image = config.images.get_mut("test").unwrap();
        image
            .command
            .extend(["--stranger".to_owned(), file.to_str().unwrap().to_owned()]);
    })
    .await;
    world.create("a", "test", json!({})).await;
    let answer = world.invoke("a", json!({})).await;
    let number = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    let stranger = Stranger(rustix::process::Pid::from_raw(number).unwrap());
    let record = answer.json();
    assert_eq!(answer.status, 200, "{record}");
    let number = u64::try_from(number).unwrap();
    assert_ne!(pid(&record), number);
    assert_eq!(result(&record)["seq"], 1);
    assert_eq!(world.usage().await["sandboxesStarted"], 2);
    assert!(alive(number), "it is none of ours to kill");
    drop(stranger);
    world.stop().await;
}
