//! The host's attacks on what passes through it sealed: artifacts, requests and answers swapped,
//! replayed, cut.

use crypto::{
    ArtifactError, ArtifactOpener, Binding, ModelKey, PlaintextSink, RequestKey, SinkError,
    open_request, seal_artifact,
};
use inference::pack::{Check, pack};
use protocol::invoke::{RoutedResponse, SealedRequest};
use protocol::keyservice::RegisterModel;
use protocol::{Digest, ErrorCode, ModelId, ModelVersion};
use sdk::Explain as _;
use sdk::infer::{InferError, Mismatch, PendingAnswer};
use testbed::demo::cases::shipped;

use crate::world::{World, code, on_world};

/// Keeps what it is given, also what is tentative.
#[derive(Default)]
struct Kept(Vec<u8>);

impl PlaintextSink for Kept {
    fn begin(&mut self, _: u64) -> Result<(), SinkError> {
        Ok(())
    }

    fn write(&mut self, segment: &[u8]) -> Result<(), SinkError> {
        self.0.extend_from_slice(segment);
        Ok(())
    }
}

/// Opens a whole artifact, comparing it with `digest`.
fn open(
    key: &ModelKey,
    model: &ModelId,
    version: ModelVersion,
    digest: Digest,
    artifact: &[u8],
) -> Result<Vec<u8>, ArtifactError> {
    let mut kept = Kept::default();
    let len = artifact.len() as u64;
    let mut opener = ArtifactOpener::new(key, model, version, digest, len, 1)?;
    opener.push(artifact, &mut kept)?;
    opener.finish(&mut kept)?;
    Ok(kept.0)
}

fn seal(key: &ModelKey, model: &ModelId, version: u32, plain: &[u8]) -> (Digest, Vec<u8>) {
    let mut artifact = Vec::new();
    let sealed = seal_artifact(
        key,
        model,
        ModelVersion(version),
        &mut &plain[..],
        &mut artifact,
    )
    .unwrap();
    (sealed.digest, artifact)
}

fn package(onnx: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(onnx, Check::AllowUnchecked)
        .unwrap()
        .write_to(&mut bytes)
        .unwrap();
    bytes
}

/// Registers an artifact that the store has under `digest`, and lets the user use it.
async fn register(
    world: &World,
    model: &ModelId,
    version: u32,
    digest: Digest,
    key: &ModelKey,
    artifact: &[u8],
) {
    let path = world.cluster.state().store();
    std::fs::write(path.join(format!("{digest}.sesemi")), artifact).unwrap();
    let mut keyservice = world.owner.keyservice(&world.cluster).await.unwrap();
    let body = RegisterModel {
        digest,
        key: key.to_wire(),
    };
    keyservice
        .owner()
        .register_with(model, ModelVersion(version), &body)
        .await
        .unwrap();
}

async fn refused(world: &World, model: &ModelId) -> ErrorCode {
    let (inputs, _) = world.row(0);
    let answer = world.ask(&world.user, model, &inputs).await;
    answer.map(|answer| answer.outputs).unwrap_err().code()
}

#[test]
fn attack_16_swapped_model() {
    on_world(async |world| {
        let model: ModelId = "swapped".parse().unwrap();
        let [good, other] = shipped().unwrap();
        let key = ModelKey::generate().unwrap();
        // The owner sealed three artifacts with one key: an old version, a draft of the new one that
        // was never registered, and the new one. The host has seen them all.
        let (_, old) = seal(&key, &model, 1, &package(&other.onnx));
        let (drafts, draft) = seal(&key, &model, 2, &package(&other.onnx));
        let (digest, artifact) = seal(&key, &model, 2, &package(&good.onnx));
        register(world, &model, 2, digest, &key, &artifact).await;
        world.allow(&model).await;

        // Weakened: a digest of what came, instead of what was registered.
        let opened = open(&key, &model, ModelVersion(2), drafts, &draft).unwrap();
        assert_eq!(opened, package(&other.onnx));
        // Weakened: a version that the store says.
        let (olds, _) = (crypto::sha256(&old), ());
        let opened = open(&key, &model, ModelVersion(1), olds, &old).unwrap();
        assert_eq!(opened, package(&other.onnx));

        // Ours, in parts: neither has the digest; with the digest the version would not fit either.
        for swapped in [&draft, &old] {
            assert!(matches!(
                open(&key, &model, ModelVersion(2), digest, swapped),
                Err(ArtifactError::Digest { .. })
            ));
        }
        assert!(matches!(
            open(&key, &model, ModelVersion(2), olds, &old),
            Err(ArtifactError::CannotOpen { segment: 0 })
        ));
        // Ours, as a whole: the host puts them in the new one's place.
        let place = world
            .cluster
            .state()
            .store()
            .join(format!("{digest}.sesemi"));
        for swapped in [&draft, &old] {
            std::fs::write(&place, swapped).unwrap();
            assert_eq!(refused(world, &model).await, ErrorCode::ArtifactMismatch);
        }
        std::fs::write(&place, &artifact).unwrap();
        let (inputs, _) = world.row(0);
        world.ask(&world.user, &model, &inputs).await.unwrap();
    });
}

/// A weakened instance: whatever opens under a key of the user's is the user's request, and the ids
/// beside it say what to do with it.
fn opens_by_key_alone(key: &RequestKey, sealed_as: &SealedRequest, ciphertext: &[u8]) -> bool {
    let binding = Binding {
        user: &sealed_as.user,
        model: &sealed_as.model,
        enclave: &sealed_as.enclave,
        request_id: &sealed_as.request_id,
    };
    open_request(key, &binding, ciphertext).is_ok()
}

#[test]
fn attack_17_moved_ciphertext() {
    on_world(async |world| {
        // A user who takes one key for two models, and another user who was given the same key.
        let second: ModelId = "moved-to".parse().unwrap();
        let mut keyservice = world.owner.keyservice(&world.cluster).await.unwrap();
        world
            .owner
            .publish(&world.cluster, &mut keyservice, &second, &world.case)
            .await
            .unwrap();
        let enclave = world.enclave();
        let friend = world.stranger("friend");
        let key = world.user.request_key(&world.model, &enclave).unwrap();
        for (user, model) in [
            (world.user.principal(), &second),
            (friend.principal(), &world.model),
        ] {
            keyservice
                .owner()
                .grant(model, &user, &enclave)
                .await
                .unwrap();
        }
        world
            .register_key(&world.identity("user"), &second, &key)
            .await;
        world
            .register_key(&world.identity("friend"), &world.model, &key)
            .await;

        let sealed = world.sealed();
        let genuine = sealed.request();
        let moved: [(&str, SealedRequest); 4] = [
            (
                "model",
                SealedRequest {
                    model: second,
                    ..genuine.clone()
                },
            ),
            (
                "user",
                SealedRequest {
                    user: friend.principal(),
                    ..genuine.clone()
                },
            ),
            (
                "request id",
                SealedRequest {
                    request_id: crypto::random_request_id().unwrap(),
                    ..genuine.clone()
                },
            ),
            (
                "enclave",
                SealedRequest {
                    enclave: world.cluster.identities().altered,
                    ..genuine.clone()
                },
            ),
        ];
        for (what, request) in moved {
            assert!(opens_by_key_alone(&key, genuine, &request.ciphertext));
            let refused = code(world.send(&request).await);
            // Another enclave is not even asked to open it: it gets no keys.
            let expected = match what {
                "enclave" => ErrorCode::EnclaveNotAllowed,
                _ => ErrorCode::CannotOpen,
            };
            assert_eq!(refused, expected, "{what}");
        }
        // Nothing of it was used up: the request still goes where it belongs.
        sealed.open(&world.send(genuine).await.unwrap()).unwrap();
    });
}

#[test]
fn attack_18_replayed_request() {
    on_world(async |world| {
        let sealed = world.sealed();
        let key = world
            .user
            .request_key(&world.model, &world.enclave())
            .unwrap();
        let request = sealed.request();

        // Weakened: an instance that remembers nothing. The cipher alone opens it again and again.
        for _ in 0..2 {
            assert!(opens_by_key_alone(&key, request, &request.ciphertext));
        }

        sealed.open(&world.send(request).await.unwrap()).unwrap();
        assert_eq!(code(world.send(request).await), ErrorCode::Replayed);
        // Twice at once: one of them is the first.
        let sealed = world.sealed();
        let request = sealed.request();
        let both = tokio::join!(world.send(request), world.send(request));
        let (answer, refusal) = match both {
            (Ok(answer), refusal) | (refusal, Ok(answer)) => (answer, refusal),
            (one, other) => panic!("{one:?} and {other:?}"),
        };
        sealed.open(&answer).unwrap();
        assert_eq!(code(refusal), ErrorCode::Replayed);
    });
}

/// A weakened client: takes an answer that opens under any of its keys for the answer to whatever
/// request the host says.
fn opens_with_any(waiting: &[&PendingAnswer], answer: &RoutedResponse) -> bool {
    waiting.iter().any(|pending| {
        let mut answer = answer.clone();
        answer.sealed.request_id = pending.request().request_id;
        pending.open(&answer).is_ok()
    })
}

#[test]
fn attack_19_swapped_and_cut_answer() {
    on_world(async |world| {
        let (first, second) = (world.sealed(), world.sealed());
        let answer = world.send(first.request()).await.unwrap();
        first.open(&answer).unwrap();

        // Swapped: the first answer, said to be the second's.
        let mut swapped = answer.clone();
        swapped.sealed.request_id = second.request().request_id;
        assert!(opens_with_any(&[&first, &second], &swapped));
        assert!(matches!(
            second.open(&swapped),
            Err(InferError::Mismatch(Mismatch::Ciphertext))
        ));
        assert!(matches!(
            second.open(&answer),
            Err(InferError::Mismatch(Mismatch::RequestId))
        ));

        // Cut: a weakened client reads the beginning of the answer, and does not miss the rest.
        let key = world
            .user
            .request_key(&world.model, &world.enclave())
            .unwrap();
        let whole = &answer.sealed.ciphertext;
        let salt = &whole[whole.len() - 33..whole.len() - 1];
        let read =
            |answer: &[u8]| crate::unauthenticated::response(&key, first.request(), answer, salt);
        let seen = read(whole);
        let name = b"model_name";
        assert!(seen.windows(name.len()).any(|bytes| bytes == name));
        for len in [0, 40, whole.len() / 2, whole.len() - 1] {
            let mut cut = answer.clone();
            cut.sealed.ciphertext.truncate(len);
            assert!(seen.starts_with(&read(&cut.sealed.ciphertext)));
            let error = first.open(&cut).unwrap_err();
            assert_eq!(error.code(), ErrorCode::ResponseMismatch, "{len}");
        }

        // An artifact's stream cut between segments: a weakened reader uses what is authentic so far.
        let key = ModelKey::generate().unwrap();
        let plain = vec![7; 3 << 20];
        let (digest, artifact) = seal(&key, &world.model, 1, &plain);
        let len = artifact.len() as u64;
        let version = ModelVersion(1);
        let mut tentative = Kept::default();
        let mut opener = ArtifactOpener::new(&key, &world.model, version, digest, len, 1).unwrap();
        opener.push(&artifact[..2 << 20], &mut tentative).unwrap();
        assert!(tentative.0.len() > 1 << 20);
        assert!(matches!(
            opener.finish(&mut tentative),
            Err(ArtifactError::Truncated { .. })
        ));
    });
}
