//! The keeper: groups, restarts, and a queue with an end.

use std::sync::Arc;

use futures::future::join_all;
use prometheus_client::registry::Registry;
use protocol::keyservice::{RegisterModel, ReleaseRequest, WireKey};
use protocol::{Digest, ErrorCode, ModelVersion, PrincipalId};
use service::SystemClock;
use tokio::task::JoinSet;

use super::*;
use crate::broker::{Instance, Page, Principal};

const SETTINGS: Settings = Settings {
    lease_ttl_s: 60,
    limits: Limits {
        rows: 10_000,
        rows_per_principal: 8192,
    },
    enclave: EnclaveId::new([7; 48]),
};

struct Running {
    handle: KeeperHandle,
    metrics: Metrics,
    task: JoinSet<()>,
}

async fn start(folder: &Path) -> Result<Running, StartError> {
    let metrics = Metrics::default();
    let (key, clock) = (
        SealingKey::from_slice(&[1; 32]).unwrap(),
        SystemClock::default(),
    );
    let (keeper, handle) =
        Keeper::start(folder, key, SETTINGS, Arc::new(clock), metrics.clone()).await?;
    let mut task = JoinSet::new();
    task.spawn(keeper.run());
    Ok(Running {
        handle,
        metrics,
        task,
    })
}

impl Running {
    async fn stop(mut self) {
        drop(self.handle);
        self.task.join_next().await.unwrap().unwrap();
    }

    fn metric(&self, name: &str) -> u64 {
        let mut registry = Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let prefix = format!("sesemi_keyservice_{name} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap()
            .parse()
            .unwrap()
    }
}

fn who(n: u8) -> Principal {
    Principal::for_test(PrincipalId::new([n; 32]))
}

fn register(n: usize) -> Command {
    Command::Change(Change::RegisterModel {
        owner: who(1),
        model: format!("m-{n}").parse().unwrap(),
        version: ModelVersion(1),
        registration: RegisterModel {
            digest: Digest::new([1; 32]),
            key: WireKey::new(&[1; 32]),
        },
    })
}

async fn models(handle: &KeeperHandle) -> usize {
    let question = Question::ListModels {
        owner: who(1),
        page: Page::default(),
    };
    match handle.call(Command::Question(question)).await.unwrap() {
        Answer::Models(list) => list.models.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path()).await.unwrap();
    for n in 0..5 {
        running.handle.call(register(n)).await.unwrap();
    }
    assert_eq!(running.metric("rows"), 5);
    running.stop().await;
    let running = start(folder.path()).await.unwrap();
    assert_eq!(models(&running.handle).await, 5);
    assert_eq!(running.metric("log_entries"), 5);
}

#[tokio::test]
async fn writers_share_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path()).await.unwrap();
    let answers = join_all((0..500).map(|n| running.handle.call(register(n)))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(models(&running.handle).await, 500);
    let commits = running.metric("commit_seconds_count");
    assert!(
        commits <= 10,
        "{commits} commits for 500 concurrent writers"
    );
    assert_eq!(running.metric("changes_total"), 500);
}

#[tokio::test]
async fn a_full_queue_says_so_and_serves_those_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path()).await.unwrap();
    let answers = join_all((0..QUEUE + 500).map(|n| running.handle.call(register(n)))).await;
    let busy = answers
        .iter()
        .filter(|answer| matches!(answer, Err(Refusal::Busy)))
        .count();
    assert!(busy > 0, "the queue has no end");
    assert_eq!(
        answers.iter().filter(|answer| answer.is_ok()).count() + busy,
        answers.len()
    );
    assert_eq!(models(&running.handle).await + busy, answers.len());
}

#[tokio::test]
async fn a_repeated_or_refused_call_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path()).await.unwrap();
    running.handle.call(register(0)).await.unwrap();
    let commits = running.metric("commit_seconds_count");
    running.handle.call(register(0)).await.unwrap();
    let instance = Instance::for_test(EnclaveId::new([1; 48]));
    let request = ReleaseRequest {
        model: "m-0".parse().unwrap(),
        user: who(2).id(),
    };
    let refused = running
        .handle
        .call(Command::Change(Change::Release { instance, request }))
        .await;
    assert!(
        matches!(refused, Err(Refusal::Release(ReleaseError::NoGrant))),
        "{refused:?}"
    );
    assert_eq!(running.metric("commit_seconds_count"), commits);
}

#[tokio::test]
async fn a_changed_vault_keeps_the_keeper_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path()).await.unwrap().stop().await;
    let file = folder.path().join("vault.redb");
    std::fs::write(&file, b"something else").unwrap();
    let error = start(folder.path()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, StartError::Load(_)), "{error:?}");
    assert_eq!(
        std::fs::read(&file).unwrap(),
        b"something else",
        "the file was touched"
    );
}

#[tokio::test]
async fn after_the_last_handle_calls_are_told_that_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let Running {
        handle, mut task, ..
    } = start(folder.path()).await.unwrap();
    task.abort_all();
    while task.join_next().await.is_some() {}
    let refused = handle.call(register(0)).await.unwrap_err();
    assert!(matches!(refused, Refusal::Stopping));
    assert!(ErrorCode::KeyserviceUnavailable.retryable());
}
