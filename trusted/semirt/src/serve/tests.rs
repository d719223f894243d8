//! Requests along the whole path, with real cryptography, real models and paused time.

use futures::future::join_all;
use inference::testing::graphs;
use protocol::invoke::{SealedRequest, StartKind, StoredAt};
use protocol::{Digest, ErrorCode, Tensor};
use service::{Shutdown, SystemClock};

use super::*;
use crate::config::HostSettings;
use crate::testing::{
    ENCLAVE, Event, Fault, Shared, User, World, assert_right, config, identity, inputs,
    package_around, package_bytes, package_unchecked, plain_code,
};
use crate::workers::Admission;

struct Instance {
    world: Arc<World>,
    serve: Arc<Serve>,
    admission: Admission,
}

impl Instance {
    fn with(config: &Config, world: &Arc<World>) -> Self {
        let sources = Shared(Arc::clone(world)).sources();
        let clock = Arc::new(SystemClock::default());
        let tracker = Shutdown::new().tracker().clone();
        let serve = Arc::new(Serve::new(config, identity(), sources, clock, tracker));
        Self {
            world: Arc::clone(world),
            serve,
            admission: Admission::new(1000, u64::MAX),
        }
    }

    fn new() -> Self {
        Self::with(&config(Isolation::Shared, 4), &World::new())
    }

    async fn run(&self, request: &SealedRequest) -> RunResult {
        let ticket = self.admission.enter(0).unwrap();
        self.serve.serve(&ticket, request.clone()).await
    }

    /// Asks and checks the answer; returns how it was come by.
    async fn right(&self, user: &User) -> Telemetry {
        let pending = user.ask();
        let result = self.run(&pending.0).await;
        assert_right("breast-cancer", &pending.outputs(&result));
        telemetry(&result)
    }
}

fn telemetry(result: &RunResult) -> Telemetry {
    match result {
        RunResult::Sealed(sealed) => sealed.telemetry.clone(),
        RunResult::Error { telemetry, .. } => telemetry.clone().unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn cold_then_hot_then_warm() {
    let instance = Instance::new();
    let cancer = instance.world.classifier("cancer", 1);
    let digits = instance
        .world
        .register("digits", 1, &package_bytes("digits"));
    let user = instance.world.grant(1, &cancer);
    let cold = instance.right(&user).await;
    assert_eq!((cold.seq, cold.path), (1, StartKind::Cold));
    assert_eq!((cold.phases_us.attest, cold.phases_us.keys), (5000, 5000));
    let hot = instance.right(&user).await;
    assert_eq!((hot.seq, hot.path), (2, StartKind::Hot));
    let phases = hot.phases_us;
    assert_eq!(
        (phases.attest, phases.keys, phases.fetch, phases.load),
        (0, 0, 0, 0)
    );

    let other = instance.world.grant(1, &digits);
    let pending = other.ask_with(inputs("digits"));
    let result = instance.run(&pending.0).await;
    assert_right("digits", &pending.outputs(&result));
    assert_eq!(telemetry(&result).path, StartKind::Warm);

    // Another user of a loaded model: only the keys are missing.
    let second = instance.world.grant(2, &cancer);
    assert_eq!(instance.right(&second).await.path, StartKind::Warm);
    assert_eq!(instance.world.count(Event::Fetch), 2);
    assert_eq!(instance.right(&second).await.path, StartKind::Hot);
}

#[tokio::test(start_paused = true)]
async fn four_cold_requests_at_once_ask_once_and_load_once() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let telemetry = join_all((0..4).map(|_| instance.right(&user))).await;
    assert_eq!(instance.world.count(Event::Release), 1);
    assert_eq!(instance.world.count(Event::Fetch), 1);
    let cold = telemetry
        .iter()
        .filter(|t| t.path == StartKind::Cold)
        .count();
    let warm = telemetry
        .iter()
        .filter(|t| t.path == StartKind::Warm)
        .count();
    assert_eq!((cold, warm), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn whatever_was_changed_in_a_request_it_does_not_open() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let other_model = instance.world.classifier("other", 1);
    let user = instance.world.grant(1, &model);
    instance.right(&user).await;
    // The same user has another key for another model, and another user one for this.
    instance.world.grant(1, &other_model);
    let stranger = instance.world.grant(2, &model);
    let good = user.ask().0;
    let changes: [fn(&mut SealedRequest); 6] = [
        |r| r.ciphertext[70] ^= 1,
        |r| *r.ciphertext.last_mut().unwrap() ^= 0x80,
        |r| r.ciphertext.truncate(r.ciphertext.len() - 1),
        |r| r.ciphertext.clear(),
        |r| r.request_id = RequestId::new([9; 16]),
        |r| r.model = "other".parse().unwrap(),
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut bad = good.clone();
        change(&mut bad);
        assert_eq!(
            plain_code(&instance.run(&bad).await),
            ErrorCode::CannotOpen,
            "change {i}"
        );
    }
    let mut bad = good.clone();
    bad.user = stranger.id;
    assert_eq!(plain_code(&instance.run(&bad).await), ErrorCode::CannotOpen);
    // The wrong key: registered again after the request was sealed, on another instance.
    let wrong = User {
        key: crypto::RequestKey::generate().unwrap(),
        ..user
    };
    assert_eq!(
        plain_code(&instance.run(&wrong.ask().0).await),
        ErrorCode::CannotOpen
    );
    // None of it used the request's id up.
    assert!(matches!(instance.run(&good).await, RunResult::Sealed(_)));
}

#[tokio::test(start_paused = true)]
async fn a_request_for_another_enclave_is_refused_before_any_key_is_asked_for() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let mut request = instance.world.grant(1, &model).ask().0;
    request.enclave = EnclaveId::new([1; 48]);
    assert_ne!(request.enclave, ENCLAVE);
    assert_eq!(
        plain_code(&instance.run(&request).await),
        ErrorCode::EnclaveNotAllowed
    );
    assert_eq!(instance.world.count(Event::Release), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_served_once() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let request = instance.world.grant(1, &model).ask().0;
    assert!(matches!(instance.run(&request).await, RunResult::Sealed(_)));
    assert_eq!(
        plain_code(&instance.run(&request).await),
        ErrorCode::Replayed
    );
    // Also after the keys were forgotten and asked for again.
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(
        plain_code(&instance.run(&request).await),
        ErrorCode::Replayed
    );
    assert_eq!(instance.world.count(Event::Release), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_fits_its_own_request_only() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let (first, second) = (user.ask(), user.ask());
    let RunResult::Sealed(mut answer) = instance.run(&first.0).await else {
        panic!()
    };
    answer.request_id = second.0.request_id;
    let swapped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| second.open(&answer)));
    assert!(swapped.is_err());
}

#[tokio::test(start_paused = true)]
async fn without_a_grant_there_is_no_answer_and_after_a_revocation_none_beyond_the_lease() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let nobody = User {
        id: PrincipalId::new([9; 32]),
        key: crypto::RequestKey::generate().unwrap(),
        model: model.clone(),
    };
    let refused = instance.run(&nobody.ask().0).await;
    assert_eq!(plain_code(&refused), ErrorCode::NotGranted);
    let RunResult::Error { error, .. } = &refused else {
        panic!()
    };
    assert!(
        !error.message.contains("exact reason"),
        "coarse to the peer"
    );

    *lock(&instance.world.lease_s) = 10;
    let user = instance.world.grant(1, &model);
    instance.right(&user).await;
    instance.world.revoke(&user);
    assert_eq!(
        instance.right(&user).await.path,
        StartKind::Hot,
        "the lease still holds"
    );
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(
        plain_code(&instance.run(&user.ask().0).await),
        ErrorCode::NotGranted
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ended_is_asked_for_again_and_the_model_stays() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    instance.right(&user).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(instance.right(&user).await.path, StartKind::Warm);
    assert_eq!(instance.world.count(Event::Release), 2);
    assert_eq!(instance.world.count(Event::Fetch), 1);
}

#[tokio::test(start_paused = true)]
async fn keyservice_down_is_retried_then_reported_then_forgotten() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    *lock(&instance.world.keyservice_down) = true;
    let result = instance.run(&user.ask().0).await;
    assert_eq!(plain_code(&result), ErrorCode::KeyserviceUnavailable);
    let RunResult::Error { error, .. } = &result else {
        panic!()
    };
    assert!(error.code.retryable() && error.retry_after_ms.is_some());
    assert_eq!(instance.world.count(Event::Release), 3);

    *lock(&instance.world.keyservice_down) = false;
    instance.right(&user).await;
    // Who holds a lease does not notice that it goes down again.
    *lock(&instance.world.keyservice_down) = true;
    assert_eq!(instance.right(&user).await.path, StartKind::Hot);
}

#[tokio::test(start_paused = true)]
async fn an_artifact_that_is_not_the_registered_one_is_never_run() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let other = instance
        .world
        .register("digits", 1, &package_bytes("digits"));
    let user = instance.world.grant(1, &model);
    let whole = instance.world.artifact(&model);
    let mut flipped = whole.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = whole.to_vec();
    longer.push(0);
    for (i, fault) in [
        Fault::Swap(instance.world.artifact(&other).to_vec()),
        Fault::Swap(flipped),
        Fault::Swap(longer),
        Fault::Swap(vec![]),
        Fault::Swap(whole[..whole.len() / 2].to_vec()),
        Fault::EndAfter(whole.len() - 1),
        Fault::EndAfter(0),
        Fault::SayLen(whole.len() as u64 - 1),
        Fault::SayLen(whole.len() as u64 + 1),
        Fault::SayLen(u64::MAX),
    ]
    .into_iter()
    .enumerate()
    {
        instance.world.fault(fault);
        let pending = user.ask();
        let error = pending.sealed_error(&instance.run(&pending.0).await);
        assert_eq!(
            error.code,
            ErrorCode::ArtifactMismatch,
            "fault {i}: {error}"
        );
    }
    instance.world.fault(Fault::None);
    instance.right(&user).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_gives_a_retryable_error_and_then_serves() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    for fault in [Fault::Down, Fault::BreakAfter(0), Fault::BreakAfter(5000)] {
        instance.world.fault(fault);
        let pending = user.ask();
        let error = pending.sealed_error(&instance.run(&pending.0).await);
        assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
        assert!(error.code.retryable());
    }
    instance.world.fault(Fault::None);
    instance.right(&user).await;
}

#[tokio::test(start_paused = true)]
async fn wrong_inputs_are_named_under_the_seal() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let ask = async |inputs: Vec<Tensor>| {
        let pending = user.ask_with(inputs);
        pending.sealed_error(&instance.run(&pending.0).await)
    };
    let error = ask(vec![
        Tensor::from_f32("x", vec![2, 29], &[0.5; 58]).unwrap(),
    ])
    .await;
    assert_eq!(error.code, ErrorCode::InvalidTensor);
    assert!(
        error.message.contains("'x'") && error.message.contains("[2, 29]"),
        "{error}"
    );
    assert!(error.message.contains("30"), "{error}");
    let int8 = Tensor::new("x", protocol::Datatype::Int8, vec![1, 30], vec![0; 30]).unwrap();
    let error = ask(vec![int8]).await;
    assert_eq!(error.code, ErrorCode::InvalidTensor);
    assert!(
        error.message.contains("expected datatype FP32, got INT8"),
        "{error}"
    );
    let error = ask(vec![]).await;
    assert!(error.message.contains("'x' is missing"), "{error}");

    let pending = user.ask_bytes(b"\xff\xff\xff\xffnot a message");
    let error = pending.sealed_error(&instance.run(&pending.0).await);
    assert_eq!(error.code, ErrorCode::TooLarge);
    let pending = user.ask_bytes(b"");
    let error = pending.sealed_error(&instance.run(&pending.0).await);
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert_eq!(
        instance.right(&user).await.path,
        StartKind::Hot,
        "its session is unharmed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_model_does_not_disturb_the_others() {
    let instance = Instance::new();
    let good = instance.world.classifier("good", 1);
    let user = instance.world.grant(1, &good);
    instance.right(&user).await;
    let bad = [
        (
            "malformed",
            package_around(b"\x0a\xff\xff\xff\xff\x7f not a graph"),
        ),
        (
            "unknown-operator",
            package_around(&graphs::unknown_operator()),
        ),
        ("too-deep", package_around(&graphs::nested(9))),
        ("too-large", package_around(&graphs::huge_from_nothing())),
        (
            "panics-while-loading",
            package_unchecked(&graphs::expand_to_lower_rank()),
        ),
        (
            "no-package",
            b"not a package at all, but validly sealed".to_vec(),
        ),
        ("empty", vec![]),
    ];
    let bad = bad.map(|(name, bytes)| {
        let model = instance.world.register(name, 2, &bytes);
        instance.world.grant(2, &model)
    });
    let poison = join_all(bad.iter().map(|user| async {
        let pending = user.ask();
        pending.sealed_error(&instance.run(&pending.0).await)
    }));
    let healthy = join_all((0..8).map(|_| instance.right(&user)));
    let (errors, answers) = futures::future::join(poison, healthy).await;
    for (error, user) in errors.iter().zip(&bad) {
        assert_eq!(
            error.code,
            ErrorCode::InvalidModel,
            "{}: {error}",
            user.model
        );
    }
    assert_eq!(answers.len(), 8);
    assert_eq!(instance.right(&user).await.path, StartKind::Hot);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_engine_is_that_request_s_error_only() {
    let instance = Instance::new();
    let quotient = instance
        .world
        .register("quotient", 2, &package_unchecked(&graphs::quotient()));
    let attacker = instance.world.grant(2, &quotient);
    let good = instance.world.classifier("good", 1);
    let user = instance.world.grant(1, &good);
    let divide = async |n: i64, d: i64| {
        let scalar = |name, v: i64| {
            let data = v.to_le_bytes().into();
            Tensor::new(name, protocol::Datatype::Int64, vec![1], data).unwrap()
        };
        let pending = attacker.ask_with(vec![scalar("n", n), scalar("d", d)]);
        let result = instance.run(&pending.0).await;
        (pending, result)
    };
    // The one division that overflows.
    let panics = join_all((0..4).map(|_| divide(i64::from(i32::MIN), -1)));
    let healthy = join_all((0..4).map(|_| instance.right(&user)));
    let (panics, _) = futures::future::join(panics, healthy).await;
    for (pending, result) in panics {
        assert_eq!(pending.sealed_error(&result).code, ErrorCode::InvalidModel);
    }
    let (pending, result) = divide(42, 6).await;
    assert_eq!(pending.outputs(&result)[0].data(), 7_i64.to_le_bytes());
    // All four workers came back.
    join_all((0..8).map(|_| instance.right(&user))).await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_does_not_fit_is_refused_and_idle_ones_make_room() {
    let world = World::new();
    let size = package_bytes("digits").len() as u64;
    let base = config(Isolation::Shared, 4);
    let mut measured = base.measured().clone();
    measured.model_memory = 100;
    let tiny = Config::new(measured.clone(), HostSettings::default()).unwrap();
    let instance = Instance::with(&tiny, &world);
    let cancer = world.classifier("cancer", 1);
    let user = world.grant(1, &cancer);
    let pending = user.ask();
    let error = pending.sealed_error(&instance.run(&pending.0).await);
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert!(error.message.contains("100 bytes"), "{error}");

    let mut alone = measured.clone();
    (alone.isolation, alone.concurrency) = (Isolation::Sequential, 1);
    let alone = Config::new(alone, HostSettings::default()).unwrap();
    let instance = Instance::with(&alone, &world);
    let pending = user.ask();
    let error = pending.sealed_error(&instance.run(&pending.0).await);
    assert_eq!(error.code, ErrorCode::TooLarge);

    // Room for one of the two at a time.
    measured.model_memory = size * 3 / 2;
    let one = Config::new(measured, HostSettings::default()).unwrap();
    let instance = Instance::with(&one, &world);
    let digits: Vec<_> = ["a", "b"]
        .map(|name| world.grant(1, &world.register(name, 1, &package_bytes("digits"))))
        .into();
    for round in 0..2 {
        for user in &digits {
            let pending = user.ask_with(inputs("digits"));
            let result = instance.run(&pending.0).await;
            assert_right("digits", &pending.outputs(&result));
            let fresh = round == 0 && user.model.as_str() == "a";
            let kind = if fresh {
                StartKind::Cold
            } else {
                StartKind::Warm
            };
            assert_eq!(telemetry(&result).path, kind, "the other one had to go");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn loads_that_fail_give_their_memory_back() {
    let world = World::new();
    let mut measured = config(Isolation::Shared, 4).measured().clone();
    measured.model_memory = package_bytes("digits").len() as u64 * 3 / 2;
    let one = Config::new(measured, HostSettings::default()).unwrap();
    let instance = Instance::with(&one, &world);
    let users = ["a", "b", "c"]
        .map(|name| world.grant(1, &world.register(name, 1, &package_bytes("digits"))));
    let [bad @ .., good] = &users;
    world.fault(Fault::EndAfter(5000));
    for user in bad {
        let pending = user.ask();
        let error = pending.sealed_error(&instance.run(&pending.0).await);
        assert_eq!(error.code, ErrorCode::ArtifactMismatch);
    }
    world.fault(Fault::None);
    let pending = good.ask_with(inputs("digits"));
    assert_right("digits", &pending.outputs(&instance.run(&pending.0).await));
}

#[tokio::test(start_paused = true)]
async fn per_owner_serves_the_first_owner_only_and_keeps_nothing_of_others() {
    let instance = Instance::with(&config(Isolation::PerOwner, 4), &World::new());
    let (mine, also_mine) = (
        instance.world.classifier("mine", 1),
        instance.world.classifier("also-mine", 1),
    );
    let theirs = instance.world.classifier("theirs", 2);
    let user = instance.world.grant(1, &mine);
    instance.right(&user).await;
    let other = instance.world.grant(1, &theirs);
    for asked in 2..4 {
        let refused = instance.run(&other.ask().0).await;
        assert_eq!(plain_code(&refused), ErrorCode::Busy);
        assert_eq!(
            instance.world.count(Event::Release),
            asked,
            "its keys were not kept"
        );
    }
    assert_eq!(instance.world.count(Event::Fetch), 1);
    instance.right(&instance.world.grant(1, &also_mine)).await;
    assert_eq!(instance.right(&user).await.path, StartKind::Hot);
}

#[tokio::test(start_paused = true)]
async fn sequential_serves_one_at_a_time_and_keeps_nothing() {
    let instance = Instance::with(&config(Isolation::Sequential, 1), &World::new());
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let telemetry = join_all((0..3).map(|_| instance.right(&user))).await;
    assert_eq!(
        *lock(&instance.world.events),
        [Event::Release, Event::Fetch].repeat(3),
        "the next begins after the one before has ended, and everything is asked for again"
    );
    let warm = telemetry
        .iter()
        .filter(|t| t.path == StartKind::Warm)
        .count();
    assert_eq!(warm, 2, "never hot");
}

#[tokio::test(start_paused = true)]
async fn a_request_given_up_while_loading_takes_nothing_from_the_next() {
    let instance = Instance::new();
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let held = instance.world.fetches.acquire_many(1000).await.unwrap();
    let pending = user.ask();
    let given_up = tokio::time::timeout(Duration::from_secs(1), instance.run(&pending.0)).await;
    assert!(given_up.is_err());
    drop(held);
    instance.right(&user).await;
    assert_eq!(instance.world.count(Event::Fetch), 1);
}

#[tokio::test(start_paused = true)]
async fn memory_taken_by_models_in_use_is_waited_for_and_then_busy() {
    let world = World::new();
    let base = config(Isolation::Shared, 4);
    let mut measured = base.measured().clone();
    measured.model_memory = package_bytes("digits").len() as u64 * 3 / 2;
    let one = Config::new(measured, HostSettings::default()).unwrap();
    let instance = Instance::with(&one, &world);
    let users = ["a", "b"].map(|n| world.grant(1, &world.register(n, 1, &package_bytes("digits"))));
    let first = users[0].ask_with(inputs("digits"));
    instance.run(&first.0).await;
    // As a request that runs for long would hold it.
    let pair = (users[0].id, users[0].model.clone());
    let keys = instance.serve.keys.obtain(&pair).await.unwrap().keys;
    let (lease, _) = instance.serve.models.lease(&keys).await.unwrap();
    let pending = users[1].ask_with(inputs("digits"));
    let error = pending.sealed_error(&instance.run(&pending.0).await);
    assert_eq!(error.code, ErrorCode::Busy, "{error}");

    let pending = users[1].ask_with(inputs("digits"));
    let (result, ()) = futures::future::join(instance.run(&pending.0), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(lease);
    })
    .await;
    assert_right("digits", &pending.outputs(&result));
}

/// `request` with its ciphertext in the store, under its own digest.
fn stored(world: &World, request: &SealedRequest) -> SubmittedRequest {
    let digest = sha256(&request.ciphertext);
    world.put(digest, &request.ciphertext);
    let at = StoredAt {
        digest,
        size: request.ciphertext.len() as u64,
    };
    SubmittedRequest {
        ciphertext: Ciphertext::Stored(at),
        ..request.clone().into()
    }
}

impl Instance {
    async fn submit(&self, request: &SubmittedRequest) -> RunResult {
        let ticket = self.admission.enter(0).unwrap();
        self.serve.serve(&ticket, request.clone()).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_stored_request_is_refused_before_any_key_is_asked_for() {
    let instance = Instance::new();
    let world = Arc::clone(&instance.world);
    let user = world.grant(1, &world.classifier("cancer", 1));
    let sealed = user.ask().0;
    let request = stored(&world, &sealed);
    let len = sealed.ciphertext.len();
    let mut swapped = sealed.ciphertext.clone();
    swapped[len / 2] ^= 1;
    let longer = [sealed.ciphertext.as_slice(), &[0]].concat();
    for (fault, code) in [
        (Fault::Swap(swapped), ErrorCode::ArtifactMismatch),
        (Fault::Swap(longer), ErrorCode::ArtifactMismatch),
        (Fault::Swap(Vec::new()), ErrorCode::ArtifactMismatch),
        (Fault::EndAfter(len - 1), ErrorCode::ArtifactMismatch),
        (Fault::SayLen(len as u64 + 1), ErrorCode::ArtifactMismatch),
        (Fault::SayLen(u64::MAX), ErrorCode::ArtifactMismatch),
        (Fault::BreakAfter(len / 2), ErrorCode::StoreUnavailable),
        (Fault::Down, ErrorCode::StoreUnavailable),
    ] {
        world.fault(fault.clone());
        let result = instance.submit(&request).await;
        assert_eq!(plain_code(&result), code, "{fault:?}");
    }
    world.fault(Fault::None);
    let elsewhere = StoredAt {
        digest: Digest::new([9; 32]),
        size: len as u64,
    };
    let absent = SubmittedRequest {
        ciphertext: Ciphertext::Stored(elsewhere),
        ..request.clone()
    };
    let result = instance.submit(&absent).await;
    assert_eq!(plain_code(&result), ErrorCode::StoreUnavailable);

    // A store that never answers.
    world.fetches.forget_permits(1000);
    let start = tokio::time::Instant::now();
    let result = instance.submit(&request).await;
    assert_eq!(plain_code(&result), ErrorCode::StoreUnavailable);
    assert_eq!(start.elapsed(), stored::FETCH_TIME);
    assert_eq!(world.count(Event::Release), 0);

    // None of this has used the request up.
    world.fetches.add_permits(1000);
    assert!(matches!(
        instance.submit(&request).await,
        RunResult::Sealed(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_stored_request_is_served_once_and_as_itself_only() {
    let instance = Instance::new();
    let world = &instance.world;
    let user = world.grant(1, &world.classifier("cancer", 1));
    for path in [StartKind::Cold, StartKind::Hot] {
        let pending = user.ask();
        let request = stored(world, &pending.0);
        let result = instance.submit(&request).await;
        assert_right("breast-cancer", &pending.outputs(&result));
        assert_eq!(telemetry(&result).path, path);
        let again = instance.submit(&request).await;
        assert_eq!(plain_code(&again), ErrorCode::Replayed);
        // Named by another request, of the same user for the same model, it does not open.
        let other = SubmittedRequest {
            ciphertext: request.ciphertext,
            ..user.ask().0.into()
        };
        let result = instance.submit(&other).await;
        assert_eq!(plain_code(&result), ErrorCode::CannotOpen);
    }
}
