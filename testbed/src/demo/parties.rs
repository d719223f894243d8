//! The owner and the users of the demo: the SDK, with a home folder each.

use std::path::PathBuf;

use anyhow::Context as _;
use attestation::Tee;
use crypto::IdentityKey;
use inference::pack::{Check, Package, pack};
use protocol::{Digest, EnclaveId, ModelId, ModelVersion, PrincipalId};
use sdk::epochs::EpochMemory;
use sdk::gateway::Gateway;
use sdk::infer::{Answer, InferClient, InferError};
use sdk::keyring::RequestKeyring;
use sdk::keyservice::{Keyservice, KeyserviceError, PinnedKeyservice};
use sdk::publish::ModelShelf;
use sdk::wall_time::WallTime;
use sdk::{Explain as _, RetryPolicy};
use transport::store::ModelStore;

use crate::cluster::Cluster;
use crate::demo::cases::Case;

/// Largest relative difference that packing accepts between the engine and onnxruntime.
const PACK_TOLERANCE: f32 = 1e-4;

/// Somebody with an identity key, who knows the KeyService's identity E_K.
#[derive(Debug)]
pub struct Person {
    home: PathBuf,
    identity: IdentityKey,
}

impl Person {
    /// A person with a new identity, or the one that `home` has.
    pub fn at(home: PathBuf) -> anyhow::Result<Self> {
        sdk::state_file::create_private_dir(&home)?;
        let path = home.join("identity.pem");
        let identity = if path.exists() {
            IdentityKey::read_file(&path)?
        } else {
            let identity = IdentityKey::generate()?;
            identity.write_file(&path)?;
            identity
        };
        Ok(Self { home, identity })
    }

    #[must_use]
    pub fn principal(&self) -> PrincipalId {
        self.identity.principal()
    }

    fn keyring(&self) -> RequestKeyring {
        RequestKeyring::new(self.home.join("identity.keys"))
    }

    /// Connects to KeyService and verifies that it is `enclave`.
    pub async fn keyservice_as(
        &self,
        cluster: &Cluster,
        enclave: EnclaveId,
    ) -> Result<Keyservice, KeyserviceError> {
        let pinned = PinnedKeyservice::new(
            cluster.keyservice(),
            enclave,
            vec![Tee::Simulated],
            cluster.verifiers(),
        );
        let epochs = EpochMemory::new(self.home.join("identity.epochs.json"));
        let retry = RetryPolicy::default();
        Keyservice::connect(pinned, &self.identity, epochs, retry, WallTime::system()).await
    }

    /// Connects to the KeyService of this system.
    pub async fn keyservice(&self, cluster: &Cluster) -> anyhow::Result<Keyservice> {
        let keyservice = self
            .keyservice_as(cluster, cluster.identities().keyservice)
            .await;
        keyservice.context("connect to KeyService")
    }

    /// As owner: packs, seals, pushes and registers one model. Returns the artifact's digest.
    pub async fn publish(
        &self,
        cluster: &Cluster,
        keyservice: &mut Keyservice,
        model: &ModelId,
        case: &Case,
    ) -> anyhow::Result<Digest> {
        let check = Check::Example {
            inputs: &case.inputs,
            expected: &case.expected,
            tolerance: PACK_TOLERANCE,
        };
        let package = pack(&case.onnx, check).with_context(|| format!("pack {model}"))?;
        self.publish_package(cluster, keyservice, model, &package)
            .await
    }

    /// As owner: seals, pushes and registers what was packed.
    pub async fn publish_package(
        &self,
        cluster: &Cluster,
        keyservice: &mut Keyservice,
        model: &ModelId,
        package: &Package,
    ) -> anyhow::Result<Digest> {
        let shelf = ModelShelf::new(self.home.join("identity.models"));
        let version = ModelVersion(1);
        let sealed = shelf.seal(model, version, &mut package.reader()?, &mut |_| {})?;
        let store = ModelStore::open(&cluster.store_url())?;
        let pushed = shelf.push(&store, model, version, &sealed).await?;
        keyservice.owner().register(&shelf, &pushed).await?;
        Ok(pushed.digest)
    }

    /// As user: registers a request key for `model` of `owner` inside `enclave`.
    pub async fn register_request_key(
        &self,
        keyservice: &mut Keyservice,
        model: &ModelId,
        owner: PrincipalId,
        enclave: &EnclaveId,
    ) -> anyhow::Result<()> {
        let keyring = self.keyring();
        keyservice
            .user()
            .register_request_key(&keyring, model, enclave, owner, false)
            .await?;
        Ok(())
    }

    /// As user: a way to ask, through FnPacker.
    pub fn client(&self, cluster: &Cluster, retry: RetryPolicy) -> anyhow::Result<InferClient> {
        let gateway = Gateway::new(&cluster.fnpacker_url())?;
        Ok(InferClient::new(
            gateway,
            self.principal(),
            self.keyring(),
            retry,
        ))
    }

    /// As user: the request key, to seal requests by hand.
    pub fn request_key(
        &self,
        model: &ModelId,
        enclave: &EnclaveId,
    ) -> anyhow::Result<crypto::RequestKey> {
        Ok(self.keyring().load(model, enclave)?)
    }
}

/// The code with which a request was refused, and what the caller is told.
#[must_use]
pub fn refusal(result: Result<&Answer, &InferError>) -> Option<(String, String)> {
    let error = result.err()?;
    Some((
        error.code().name().to_owned(),
        service::ErrorChain(error).to_string(),
    ))
}
