//! What the outside learns beside the sealed bytes: lengths, errors, logs, core dumps.

use std::path::Path;

use crypto::{Binding, ModelKey, RequestKey, seal_request};
use keyservice::broker::ReleaseError;
use protocol::oip::InferRequest;
use protocol::tensor::Tensor;
use protocol::{EnclaveId, ErrorCode, ModelId, PrincipalId, RequestId, WireError};
use sdk::gateway::GatewayError;
use sdk::infer::PendingAnswer;

use crate::world::{World, on_world};

fn told(result: Result<protocol::invoke::RoutedResponse, GatewayError>) -> WireError {
    match result {
        Err(GatewayError::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// A derive that one forgets to think about.
#[derive(Debug)]
struct Careless {
    #[expect(dead_code, reason = "it is what gets printed")]
    key: [u8; 32],
}

fn lengths() {
    let key = RequestKey::generate().unwrap();
    let model: ModelId = "m".parse().unwrap();
    let (user, enclave, id) = (
        PrincipalId::new([1; 32]),
        EnclaveId::new([2; 48]),
        RequestId::new([3; 16]),
    );
    let binding = Binding {
        user: &user,
        model: &model,
        enclave: &enclave,
        request_id: &id,
    };
    let (yes, no) = (vec![b'y'; 900], vec![b'n'; 915]);
    // Weakened: a cipher without padding shows which answer it was.
    let unpadded = |payload: &[u8]| payload.len() + 16;
    assert_ne!(unpadded(&yes), unpadded(&no));
    let padded = |payload: &[u8]| seal_request(&key, &binding, payload).unwrap().0.len();
    assert_eq!(padded(&yes), padded(&no));
}

fn prints() {
    let bytes = [0xa7; 32];
    let shows = |text: &str| ["167", "a7", "p6en"].iter().any(|form| text.contains(form));
    assert!(shows(&format!("{:?}", Careless { key: bytes })), "weakened");
    let key = RequestKey::from_slice(&bytes).unwrap();
    let wire = key.to_wire();
    let model = ModelKey::from_slice(&bytes).unwrap();
    for text in [
        format!("{key:?}"),
        format!("{wire:?}"),
        format!("{model:?}"),
    ] {
        assert!(!shows(&text), "{text}");
    }
}

/// The processes of this world that were started with this in their command line.
fn processes(world: &World, role: &str) -> Vec<std::path::PathBuf> {
    let folder = world.folder.path().display().to_string();
    let of_role = |path: &Path| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&format!("role {role} ")) && line.contains(&folder)
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| of_role(path))
        .collect()
}

#[test]
fn attack_25_oracles() {
    lengths();
    prints();
    on_world(async |world| {
        // Weakened: a KeyService that says exactly why tells strangers which models exist.
        assert_ne!(
            ReleaseError::UnknownModel.to_string(),
            ReleaseError::NoGrant.to_string()
        );
        let stranger = world.stranger("curious");
        let mut keyservice = stranger.keyservice(&world.cluster).await.unwrap();
        let (enclave, owner) = (world.enclave(), world.owner.principal());
        let absent: ModelId = "nobody-has-this".parse().unwrap();
        let mut answers = Vec::new();
        for model in [&world.model, &absent] {
            stranger
                .register_request_key(&mut keyservice, model, owner, &enclave)
                .await
                .unwrap();
            let key = stranger.request_key(model, &enclave).unwrap();
            let sealed = world.seal(&key, stranger.principal(), model);
            answers.push(told(world.send(sealed.request()).await));
        }
        assert_eq!(answers[0].code, ErrorCode::NotGranted);
        assert_eq!(answers[0], answers[1], "the same words for both");

        // A request that does not open: the same words, whatever is wrong with it.
        let genuine = world.sealed().request().clone();
        let refused = |change: fn(&mut Vec<u8>)| {
            let mut request = genuine.clone();
            change(&mut request.ciphertext);
            let world = &*world;
            async move { told(world.send(&request).await) }
        };
        let flipped = refused(|bytes| bytes[40] ^= 1).await;
        assert_eq!(flipped.code, ErrorCode::CannotOpen);
        for other in [
            refused(|bytes| *bytes.last_mut().unwrap() ^= 1).await,
            refused(|bytes| bytes.truncate(bytes.len() / 2)).await,
            refused(Vec::clear).await,
        ] {
            assert_eq!(other, flipped);
        }

        // What is wrong with the inputs, on the other hand, is said under the seal only.
        let key = world.user.request_key(&world.model, &enclave).unwrap();
        let short = Tensor::from_f32("x", vec![1, 3], &[1.0, 2.0, 3.0]).unwrap();
        let payload = InferRequest {
            inputs: vec![short],
        }
        .encode()
        .unwrap();
        let user = world.user.principal();
        let sealed = PendingAnswer::seal(&key, user, &world.model, enclave, &payload).unwrap();
        let answer = world.send(sealed.request()).await.unwrap();
        let outside = serde_json::to_string(&answer).unwrap();
        assert!(!outside.contains("shape"), "{outside}");
        let error = sealed.open(&answer).unwrap_err();
        assert!(
            service::ErrorChain(&error).to_string().contains("shape"),
            "{error:?}"
        );

        // No memory image of a part that holds keys. The kernel takes a limit of 0 for "no file", and
        // still pipes to a program that collects dumps; a limit of 1 byte stops both.
        world.still_right().await;
        let parts = [processes(world, "semirt"), processes(world, "keyservice")];
        for part in parts {
            assert!(!part.is_empty());
            for process in part {
                let limits = std::fs::read_to_string(process.join("limits")).unwrap();
                let core = limits
                    .lines()
                    .find(|line| line.starts_with("Max core file size"))
                    .unwrap();
                let words: Vec<_> = core.split_whitespace().collect();
                assert_eq!(words[4..6], ["1", "1"], "{}: {core}", process.display());
            }
        }
    });
}
