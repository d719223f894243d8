//! Attacks on the release of keys: another build asks, a revoked key lives on.

use std::collections::HashMap;
use std::sync::Arc;

use attestation::{
    Allowed, Claims, ClientIdentity, Evidence, Failed, Malformed, Measurements, Said, Scorecard,
    Subject, Tee, Verifier, VerifierSet,
};
use crypto::{IdentityKey, ModelKey, RequestKey};
use protocol::keyservice::{RegisterModel, RegisterRequestKey, Release, ReleaseRequest, WireKey};
use protocol::{EnclaveId, ErrorCode, ModelId, ModelVersion};
use sdk::Explain as _;
use testbed::simulated_tee::SimulatedVerifier;
use tokio::time::Instant;
use transport::{CallError, KeyserviceClient};

use crate::world::{PATIENCE, World, code, on_world};

fn refused<T: std::fmt::Debug>(result: Result<T, CallError>) -> ErrorCode {
    match result {
        Err(CallError::Remote(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

/// The published prototype: the signature is verified, and then a constant is taken for the
/// measurement.
#[derive(Debug)]
struct Constant {
    genuine: SimulatedVerifier,
    measurements: Measurements,
}

impl Verifier for Constant {
    fn tee(&self) -> Tee {
        self.genuine.tee()
    }

    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed> {
        self.genuine.read(evidence).map(|said| Said {
            measurements: self.measurements.clone(),
            ..said
        })
    }

    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed> {
        let mut claims = self.genuine.verify(subject, card)?;
        claims.said.measurements = self.measurements.clone();
        Ok(claims)
    }
}

async fn client_of(world: &World, addr: &str, who: &ClientIdentity) -> KeyserviceClient {
    let anybody = world.relying(Allowed::Any);
    KeyserviceClient::new(world.channel(addr, who, &anybody).await.unwrap())
}

#[test]
fn attack_14_other_build_asks_for_keys() {
    on_world(async |world| {
        let (owner, user) = (world.identity("owner"), world.identity("user"));
        let as_owner = ClientIdentity::principal(&owner).unwrap();
        let as_user = ClientIdentity::principal(&user).unwrap();
        let instance = world.attackers_instance();
        let asks = ReleaseRequest {
            model: world.model.clone(),
            user: user.principal(),
        };

        // Weakened: KeyService with a verifier that takes a constant for the measurement. Owner and
        // user allow the genuine E_S there; the attacker's build gets the keys.
        let exe = std::path::Path::new(env!("CARGO_BIN_EXE_sesemi-dev"));
        let constant = Constant {
            genuine: world.hardware().verifier(),
            measurements: world.hardware().measure(exe).unwrap(),
        };
        let lax = world
            .attackers_keyservice(VerifierSet::new(vec![Arc::new(constant)]))
            .await;
        let genuine = world.enclave();
        let key = ModelKey::generate().unwrap();
        let mut at_lax = client_of(world, &lax.addr, &as_owner).await;
        let body = RegisterModel {
            digest: world.digest,
            key: key.to_wire(),
        };
        at_lax
            .register_model(&world.model, ModelVersion(1), &body)
            .await
            .unwrap();
        at_lax
            .grant(&world.model, &user.principal(), &genuine)
            .await
            .unwrap();
        let body = RegisterRequestKey {
            owner: owner.principal(),
            key: RequestKey::generate().unwrap().to_wire(),
            policy: None,
        };
        client_of(world, &lax.addr, &as_user)
            .await
            .register_request_key(&world.model, &genuine, &body)
            .await
            .unwrap();
        let got = client_of(world, &lax.addr, &instance)
            .await
            .release(&asks)
            .await
            .unwrap();
        assert_eq!(got.model_key.bytes(), key.to_wire().bytes());

        // Ours: the same build, the same evidence, the system's own KeyService.
        let mut ours = world.client(&instance).await;
        assert_eq!(
            refused(ours.release(&asks).await),
            ErrorCode::EnclaveNotAllowed
        );
        // And the altered SeMIRT, one byte longer, that the operator runs beside the genuine one.
        let mut request = world.sealed().request().clone();
        request.enclave = world.cluster.identities().altered;
        assert_eq!(
            code(world.send(&request).await),
            ErrorCode::EnclaveNotAllowed
        );
        world.still_right().await;
    });
}

/// An instance of the attacker's make, which owner and user allow: its evidence is genuine and its
/// releases are real. Only its cache is careless.
struct Careless {
    client: KeyserviceClient,
    /// Without the user, and without an end.
    kept: HashMap<ModelId, Release>,
}

impl Careless {
    /// The key with which to open the model for somebody.
    async fn model_key(&mut self, asks: &ReleaseRequest) -> Result<WireKey, CallError> {
        if let Some(release) = self.kept.get(&asks.model) {
            return Ok(release.model_key.clone());
        }
        let release = self.client.release(asks).await?;
        let key = release.model_key.clone();
        self.kept.insert(asks.model.clone(), release);
        Ok(key)
    }
}

/// Owner and user allow the attacker's instance.
async fn allow_for_the_moment(world: &World, user: &IdentityKey, enclave: &EnclaveId) {
    let mut owners = world.owner.keyservice(&world.cluster).await.unwrap();
    owners
        .owner()
        .grant(&world.model, &user.principal(), enclave)
        .await
        .unwrap();
    let body = RegisterRequestKey {
        owner: world.owner.principal(),
        key: RequestKey::generate().unwrap().to_wire(),
        policy: None,
    };
    let as_user = ClientIdentity::principal(user).unwrap();
    world
        .client(&as_user)
        .await
        .register_request_key(&world.model, enclave, &body)
        .await
        .unwrap();
}

#[test]
fn attack_22_cached_key() {
    on_world(async |world| {
        let user = world.identity("user");
        let stranger = world.stranger("cache-stranger");
        let asks = |user| ReleaseRequest {
            model: world.model.clone(),
            user,
        };

        // Weakened: keys kept by model, for good. Owner and user allow this instance for the moment.
        let instance = world.attackers_instance();
        let mut client = world.client(&instance).await;
        assert_eq!(
            refused(client.release(&asks(user.principal())).await),
            ErrorCode::EnclaveNotAllowed
        );
        let enclave = crate::lab::enclave_of(world);
        allow_for_the_moment(world, &user, &enclave).await;
        let mut owners = world.owner.keyservice(&world.cluster).await.unwrap();
        let mut careless = Careless {
            client,
            kept: HashMap::new(),
        };
        let first = careless.model_key(&asks(user.principal())).await.unwrap();
        owners
            .owner()
            .revoke(&world.model, &user.principal(), &enclave)
            .await
            .unwrap();
        for anybody in [user.principal(), stranger.principal()] {
            let again = careless.model_key(&asks(anybody)).await.unwrap();
            assert_eq!(again.bytes(), first.bytes());
        }

        // Ours: the keys are there for the user, and not for the stranger.
        world.still_right().await;
        let mut strangers = stranger.keyservice(&world.cluster).await.unwrap();
        let (owner, genuine) = (world.owner.principal(), world.enclave());
        stranger
            .register_request_key(&mut strangers, &world.model, owner, &genuine)
            .await
            .unwrap();
        let key = stranger.request_key(&world.model, &genuine).unwrap();
        let sealed = world.seal(&key, stranger.principal(), &world.model);
        assert_eq!(
            code(world.send(sealed.request()).await),
            ErrorCode::NotGranted
        );
        // Revoked, they end with the lease.
        let revoked = owners
            .owner()
            .revoke(&world.model, &user.principal(), &genuine)
            .await
            .unwrap();
        let until = Instant::now() + PATIENCE;
        let (inputs, _) = world.row(0);
        loop {
            match world.ask(&world.user, &world.model, &inputs).await {
                Ok(_) => assert!(Instant::now() < until, "still served long after the lease"),
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::NotGranted, "{error:?}");
                    break;
                }
            }
        }
        assert!(revoked.effective_within_s <= u64::from(crate::world::LEASE_S));
        owners
            .owner()
            .grant(&world.model, &user.principal(), &genuine)
            .await
            .unwrap();
        world.still_right().await;
    });
}
