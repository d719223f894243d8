//! Attacks on ids: names that look alike, begin alike, or join to the same text.

use attestation::ClientIdentity;
use crypto::ModelKey;
use protocol::keyservice::{RegisterModel, RegisterRequestKey, ReleaseRequest};
use protocol::{Digest, ErrorCode, ModelId, ModelVersion, PrincipalId};
use transport::CallError;

use crate::world::on_world;

/// The published prototype's ids.
fn joined(parts: &[&str]) -> String {
    parts.join("-")
}

/// The published prototype's owner check: a comparison of the first bytes.
fn owns_by_prefix(owned: &str, asked: &str) -> bool {
    asked.starts_with(owned)
}

fn code<T: std::fmt::Debug>(result: Result<T, CallError>) -> ErrorCode {
    match result {
        Err(CallError::Remote(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn attack_21_confused_ids() {
    // Weakened: joined ids. Ours are fields of known length or with their length, so that no two
    // bindings have the same bytes.
    assert_eq!(joined(&["a-b", "c"]), joined(&["a", "b-c"]));
    let key = crypto::RequestKey::generate().unwrap();
    let (user, enclave) = (PrincipalId::new([1; 32]), protocol::EnclaveId::new([2; 48]));
    let id = crypto::random_request_id().unwrap();
    let models: [ModelId; 3] = ["a-b", "a", "a-"].map(|name| name.parse().unwrap());
    let binding = |model| crypto::Binding {
        user: &user,
        model,
        enclave: &enclave,
        request_id: &id,
    };
    let (sealed, _) = crypto::seal_request(&key, &binding(&models[0]), b"x").unwrap();
    for other in &models[1..] {
        assert_eq!(
            crypto::open_request(&key, &binding(other), &sealed).unwrap_err(),
            crypto::OpenError::CannotOpen
        );
    }
    // Weakened: names compared without regard to case or script. Ours have one spelling each.
    assert_eq!("Victim".to_lowercase(), "victim");
    let hex = "ab".repeat(32);
    assert_eq!(hex.to_uppercase().to_lowercase(), hex);
    assert!(hex.to_uppercase().parse::<PrincipalId>().is_err());
    let fullwidth = "\u{ff56}ictim";
    let cyrillic = "v\u{456}ctim";
    for name in [
        "Victim", fullwidth, cyrillic, "victim ", "victim\0", "-victim", "a/b", "", "..",
    ] {
        assert!(name.parse::<ModelId>().is_err(), "{name:?}");
    }

    on_world(async |world| {
        let thief = world.stranger("prefix-thief").principal();
        let who = ClientIdentity::principal(&world.identity("prefix-thief")).unwrap();
        let mut client = world.client(&who).await;
        let victim = world.model.clone();
        let text = victim.as_str();
        let body = RegisterModel {
            digest: Digest::new([9; 32]),
            key: ModelKey::generate().unwrap().to_wire(),
        };
        let enclave = world.enclave();
        for name in [&text[..3], &text[..1], &format!("{text}-2")] {
            let own: ModelId = name.parse().unwrap();
            client
                .register_model(&own, ModelVersion(1), &body)
                .await
                .unwrap();
            client.grant(&own, &thief, &enclave).await.unwrap();
        }
        assert!(owns_by_prefix(&text[..3], text), "weakened");
        for attempt in [
            client.grant(&victim, &thief, &enclave).await.map(drop),
            client.grants(&victim).await.map(drop),
            client.versions(&victim).await.map(drop),
        ] {
            assert_eq!(code(attempt), ErrorCode::NotFound);
        }
        let taken = client.register_model(&victim, ModelVersion(2), &body).await;
        assert_eq!(code(taken), ErrorCode::Conflict);
        // A grant and a key for a longer or shorter name release nothing of the victim's.
        let key = RegisterRequestKey {
            owner: world.owner.principal(),
            key: crypto::RequestKey::generate().unwrap().to_wire(),
            policy: None,
        };
        let attackers = crate::lab::enclave_of(world);
        let own: ModelId = format!("{text}-2").parse().unwrap();
        client.grant(&own, &thief, &attackers).await.unwrap();
        client
            .register_request_key(&victim, &attackers, &key)
            .await
            .unwrap();
        let mut instance = world.client(&world.attackers_instance()).await;
        let asks = ReleaseRequest {
            model: victim,
            user: thief,
        };
        assert_eq!(code(instance.release(&asks).await), ErrorCode::NotGranted);
    });
}
