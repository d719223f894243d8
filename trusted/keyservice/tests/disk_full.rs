//! A disk that really is full: the kernel refuses to let any file of this process grow.
//!
//! The limit is of the process, so this test has a process (a test binary) to itself.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test reports"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crypto::SealingKey;
use keyservice::broker::{Caller, Limits, Page};
use keyservice::command::{Answer, Change, Command, Question};
use keyservice::keeper::{Keeper, KeeperHandle, Refusal, Settings};
use keyservice::metrics::Metrics;
use protocol::keyservice::{RegisterRequestKey, WireKey};
use protocol::{EnclaveId, PrincipalId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use service::SystemClock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Sent to who writes beyond the limit; its default is to kill.
const SIGXFSZ: i32 = 25;

fn principal() -> keyservice::broker::Principal {
    match Caller::from(&attestation::AttestedPeer::Principal(PrincipalId::new(
        [1; 32],
    ))) {
        Caller::Principal(principal) => principal,
        Caller::Instance(_) => unreachable!(),
    }
}

fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: bytes,
            maximum,
        },
    )
    .unwrap();
}

async fn start(folder: &Path) -> (KeeperHandle, JoinSet<()>) {
    let settings = Settings {
        lease_ttl_s: 60,
        limits: Limits {
            rows: 1_000_000,
            rows_per_principal: 1_000_000,
        },
        enclave: EnclaveId::new([7; 48]),
    };
    let key = SealingKey::from_slice(&[1; 32]).unwrap();
    let clock = Arc::new(SystemClock::default());
    let (keeper, handle) = Keeper::start(folder, key, settings, clock, Metrics::default())
        .await
        .unwrap();
    let mut task = JoinSet::new();
    task.spawn(keeper.run());
    (handle, task)
}

async fn register(handle: &KeeperHandle, n: usize) -> Result<Answer, Refusal> {
    let change = Change::RegisterRequestKey {
        user: principal(),
        model: format!("m-{n:06}").parse().unwrap(),
        enclave: EnclaveId::new([1; 48]),
        registration: RegisterRequestKey {
            owner: PrincipalId::new([2; 32]),
            key: WireKey::new(&[3; 32]),
            policy: None,
        },
    };
    handle.call(Command::Change(change)).await
}

/// Names of all registered models.
async fn registered(handle: &KeeperHandle) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names
            .last()
            .map(|name| (name.parse().unwrap(), EnclaveId::new([1; 48])));
        let page = Page {
            after,
            ..Page::default()
        };
        let question = Question::RequestKeys {
            user: principal(),
            page,
        };
        let Answer::RequestKeys(list) = handle.call(Command::Question(question)).await.unwrap()
        else {
            panic!("another answer");
        };
        if list.request_keys.is_empty() {
            return names;
        }
        names.extend(
            list.request_keys
                .iter()
                .map(|record| record.model.to_string()),
        );
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing() {
    let mut ignored = signal(SignalKind::from_raw(SIGXFSZ)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (handle, task) = start(folder.path()).await;
    let size = std::fs::metadata(folder.path().join("vault.redb"))
        .unwrap()
        .len();
    limit_files(Some(size + (1 << 20)));

    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for n in 0..100_000 {
        match register(&handle, n).await {
            Ok(_) => acknowledged.push(format!("m-{n:06}")),
            Err(Refusal::StorageFull) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3, "the disk never was full");
    assert!(
        acknowledged.len() > 100,
        "{} before the disk was full",
        acknowledged.len()
    );
    // Questions are answered, with what was acknowledged and nothing else.
    assert_eq!(registered(&handle).await, acknowledged);

    // Room again: the same process goes on, after its pause.
    limit_files(None);
    tokio::time::timeout(Duration::from_secs(30), ignored.recv())
        .await
        .unwrap();
    let again = tokio::time::timeout(Duration::from_secs(30), async {
        while register(&handle, 999_999).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    again.await.unwrap();
    acknowledged.push("m-999999".into());

    drop(handle);
    task.join_all().await;
    let (handle, _task) = start(folder.path()).await;
    assert_eq!(registered(&handle).await, acknowledged);
}
