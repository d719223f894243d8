//! What `bench` starts to measure is the whole system, and it leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use bench::real::asker::{Asker, Meter, OfferError, Question};
use bench::real::models::{ModelSize, Specimen};
use bench::real::outcome::Outcome;
use bench::real::stage::{Scene, Stage, StageError};
use bench::real::{Packing, System, SystemError, Wishes};
use bench::workload::{Arrival, Workload};
use protocol::invoke::StartKind;

fn wishes(policy: &str) -> Wishes {
    let exe = Path::new(env!("CARGO_BIN_EXE_sesemi-dev"));
    Wishes {
        dev: System::sibling(&exe.with_file_name("bench")).unwrap(),
        endpoints: 2,
        concurrency: 1,
        packing: Some(Packing {
            policy: policy.into(),
            models_per_instance: 2,
            model_memory_mb: 64,
            instance_memory_mb: 256,
            instances: 2,
            keep_alive: Duration::from_secs(60),
            price: Some(0.05),
        }),
    }
}

#[tokio::test]
async fn models_are_offered_and_asked_and_nothing_stays() {
    let absent = System::sibling(Path::new("/nowhere/bench")).unwrap_err();
    assert!(absent.to_string().contains("cargo build"), "{absent}");
    let refused = System::start(wishes("no-such-policy")).unwrap_err();
    let SystemError::NotUp { logs } = refused else {
        panic!("{refused}")
    };
    std::fs::remove_dir_all(logs.parent().unwrap()).unwrap();

    let system = System::start(wishes("ect-g")).unwrap();
    let tiny = Specimen::make(ModelSize::Tiny, 0).unwrap();
    let small = Specimen::make(ModelSize::Megabytes(1), 1).unwrap();
    // A model that does not answer as its owner says is not even packed.
    let wrong = Specimen {
        expected: Specimen::make(ModelSize::Tiny, 1).unwrap().expected,
        ..tiny.clone()
    };
    let offer = |name: &str, made| Question::offer(&system, &name.parse().unwrap(), made);
    assert!(matches!(
        offer("wrong", &wrong),
        Err(OfferError::System(SystemError::Refused { .. }))
    ));

    let (a, b) = (offer("a", &tiny).unwrap(), offer("b", &small).unwrap());
    let asker = Asker::new(system.fnpacker_url(), Duration::from_secs(30)).unwrap();
    let mut kinds = Vec::new();
    for question in [&a, &b, &a, &b] {
        kinds.push(asker.ask(question).await.unwrap().telemetry.path);
    }
    use StartKind::{Cold, Hot};
    let expected = (Cold, &[Hot, Hot][..]);
    assert_eq!((kinds[0], &kinds[2..]), expected, "{kinds:?}");
    let usage = Meter::new(&system).unwrap().usage().await.unwrap();
    assert!(usage.sandboxes_started >= 1 && usage.provisioned_gb_seconds > 0.0);

    let folder = system.folder().to_owned();
    let platform = system
        .platform_url()
        .trim_start_matches("http://")
        .to_owned();
    drop(system);
    assert!(std::net::TcpStream::connect(platform).is_err());
    assert!(!folder.exists());
}

/// Forty requests for two models, 20 ms apart.
fn workload() -> Workload {
    Workload {
        name: "small".into(),
        models: vec!["m0-a".parse().unwrap(), "m1-b".parse().unwrap()],
        arrivals: (0..40)
            .map(|i| Arrival {
                at: i * 20_000,
                model: u32::try_from(i % 2).unwrap(),
            })
            .collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_workload_is_played_and_every_request_is_answered_rightly() {
    let exe = Path::new(env!("CARGO_BIN_EXE_sesemi-dev"));
    let mut scene = Scene {
        dev: exe.to_owned(),
        spec: "ect-g:endpoints=2,models=2".parse().unwrap(),
        sizes: Vec::new(),
        seed: 1,
    };
    scene.spec.ttl = Duration::from_millis(300);
    let workload = workload();
    let build = |scene: &Scene, go_on: bool| Stage::build(scene, &workload.models, |_| go_on);
    assert!(matches!(build(&scene, true), Err(StageError::NoSize)));
    scene.sizes = vec![ModelSize::Tiny, ModelSize::Megabytes(1)];
    assert!(matches!(build(&scene, false), Err(StageError::Interrupted)));

    let stage = build(&scene, true).unwrap();
    let mut heard = 0;
    let (sent, metered) = stage.play(&workload, |_| heard += 1).await.unwrap();
    let outcome = Outcome::of(&sent, &scene.names(2), metered).unwrap();
    assert_eq!((outcome.requests, heard), (40, 40));
    assert_eq!(outcome.errors, 0, "{:?}", outcome.failures);
    assert!(outcome.cold > 0.0 && outcome.hot > 0.5, "{outcome:?}");
    // Every instance is gone, and was paid for until then.
    assert!(outcome.sandboxes >= 1 && outcome.gb_seconds > 0.0);
    assert_eq!(stage.no_instances().await.unwrap().instances, 0);
}
