//! What must not work, tried for real: each attempt is refused, with a code of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use protocol::oip::InferRequest;
use protocol::tensor::Tensor;
use protocol::{Digest, EnclaveId, ErrorCode, ModelId};
use sdk::gateway::Gateway;
use sdk::infer::PendingAnswer;
use sdk::{Explain, RetryPolicy};

use crate::cluster::Cluster;
use crate::demo::cases::Case;
use crate::demo::parties::{Person, refusal};
use crate::demo::report::RefusalRow;

/// How long an attempt may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything the attempts need.
#[derive(Debug)]
pub struct Attempts<'a> {
    pub cluster: &'a Cluster,
    pub state: &'a Path,
    pub owner: &'a Person,
    pub user: &'a Person,
    pub model: &'a ModelId,
    pub case: &'a Case,
    /// The artifact of another model, to be put in the place of one.
    pub other: Digest,
}

impl Attempts<'_> {
    /// Tries them all, in the order in which they are told.
    pub async fn run(&self) -> anyhow::Result<Vec<RefusalRow>> {
        Ok(vec![
            self.user_without_grant()
                .await
                .context("user without grant")?,
            self.other_measurement()
                .await
                .context("other measurement")?,
            self.tampered_ciphertext()
                .await
                .context("tampered ciphertext")?,
            self.swapped_artifact().await.context("swapped artifact")?,
            self.answer_to_another_request()
                .await
                .context("answer to another request")?,
            self.request_replayed().await.context("request replayed")?,
            self.wrong_shape().await.context("wrong shape")?,
            self.impostor().await.context("impostor")?,
        ])
    }

    fn genuine(&self) -> EnclaveId {
        self.cluster.identities().semirt
    }

    fn retry() -> RetryPolicy {
        RetryPolicy::with_deadline(PATIENCE)
    }

    fn inputs(&self) -> anyhow::Result<Vec<Tensor>> {
        Ok(self.case.row(0)?.0)
    }

    async fn ask(
        &self,
        who: &Person,
        model: &ModelId,
        enclave: &EnclaveId,
        inputs: &[Tensor],
    ) -> anyhow::Result<Option<(String, String)>> {
        let client = who.client(self.cluster, Self::retry())?;
        let answer = client.infer(model, enclave, inputs).await;
        Ok(refusal(answer.as_ref()))
    }

    async fn user_without_grant(&self) -> anyhow::Result<RefusalRow> {
        let stranger = Person::at(self.state.join("stranger"))?;
        let mut keyservice = stranger.keyservice(self.cluster).await?;
        let (owner, enclave) = (self.owner.principal(), self.genuine());
        stranger
            .register_request_key(&mut keyservice, self.model, owner, &enclave)
            .await?;
        let refused = self
            .ask(&stranger, self.model, &enclave, &self.inputs()?)
            .await?;
        Ok(row(
            "a user whom the owner has not granted the model",
            ErrorCode::NotGranted,
            refused,
        ))
    }

    async fn other_measurement(&self) -> anyhow::Result<RefusalRow> {
        let altered = self.cluster.identities().altered;
        let mut keyservice = self.user.keyservice(self.cluster).await?;
        let owner = self.owner.principal();
        // Even a user who has been talked into the other build gets no further: the owner has not.
        self.user
            .register_request_key(&mut keyservice, self.model, owner, &altered)
            .await?;
        let refused = self
            .ask(self.user, self.model, &altered, &self.inputs()?)
            .await?;
        let name = "a SeMIRT with another measurement (one byte more)";
        Ok(row(name, ErrorCode::EnclaveNotAllowed, refused))
    }

    /// Seals a request by hand.
    fn sealed(&self) -> anyhow::Result<PendingAnswer> {
        let enclave = self.genuine();
        let key = self.user.request_key(self.model, &enclave)?;
        let payload = InferRequest {
            inputs: self.inputs()?,
        }
        .encode()?;
        Ok(PendingAnswer::seal(
            &key,
            self.user.principal(),
            self.model,
            enclave,
            &payload,
        )?)
    }

    fn gateway(&self) -> anyhow::Result<Gateway> {
        Ok(Gateway::new(&self.cluster.fnpacker_url())?)
    }

    async fn tampered_ciphertext(&self) -> anyhow::Result<RefusalRow> {
        let mut request = self.sealed()?.request().clone();
        let last = request
            .ciphertext
            .last_mut()
            .context("an empty ciphertext")?;
        *last ^= 1;
        let sent = self.gateway()?.infer(&request, PATIENCE).await;
        let refused = sent.as_ref().err().map(said);
        Ok(row(
            "one bit of the ciphertext flipped by the host",
            ErrorCode::CannotOpen,
            refused,
        ))
    }

    async fn swapped_artifact(&self) -> anyhow::Result<RefusalRow> {
        let model: ModelId = "swapped".parse()?;
        let enclave = self.genuine();
        let mut keyservice = self.owner.keyservice(self.cluster).await?;
        let digest = self
            .owner
            .publish(self.cluster, &mut keyservice, &model, self.case)
            .await?;
        let user = self.user.principal();
        keyservice.owner().grant(&model, &user, &enclave).await?;
        let mut keyservice = self.user.keyservice(self.cluster).await?;
        let owner = self.owner.principal();
        self.user
            .register_request_key(&mut keyservice, &model, owner, &enclave)
            .await?;
        // The host's move: another artifact under this one's name.
        let path = |digest| {
            self.cluster
                .state()
                .store()
                .join(format!("{digest}.sesemi"))
        };
        std::fs::copy(path(self.other), path(digest)).context("swap the artifacts")?;
        let refused = self
            .ask(self.user, &model, &enclave, &self.inputs()?)
            .await?;
        Ok(row(
            "another model's artifact in the store",
            ErrorCode::ArtifactMismatch,
            refused,
        ))
    }

    async fn answer_to_another_request(&self) -> anyhow::Result<RefusalRow> {
        let (first, second) = (self.sealed()?, self.sealed()?);
        let mut answer = self.gateway()?.infer(first.request(), PATIENCE).await?;
        first.open(&answer).context("the answer in its own place")?;
        // The host's move: the first answer, said to be the second's.
        answer.sealed.request_id = second.request().request_id;
        let refused = second.open(&answer).as_ref().err().map(said);
        let name = "an answer replayed to another request";
        Ok(row(name, ErrorCode::ResponseMismatch, refused))
    }

    async fn request_replayed(&self) -> anyhow::Result<RefusalRow> {
        let (request, gateway) = (self.sealed()?, self.gateway()?);
        gateway
            .infer(request.request(), PATIENCE)
            .await
            .context("the first time")?;
        let again = gateway.infer(request.request(), PATIENCE).await;
        let refused = again.as_ref().err().map(said);
        Ok(row(
            "a request sent a second time by the host",
            ErrorCode::Replayed,
            refused,
        ))
    }

    async fn wrong_shape(&self) -> anyhow::Result<RefusalRow> {
        let name = self
            .case
            .inputs
            .first()
            .context("a model without inputs")?
            .name();
        let short = Tensor::from_f32(name, vec![1, 3], &[1.0, 2.0, 3.0])?;
        let refused = self
            .ask(self.user, self.model, &self.genuine(), &[short])
            .await?;
        let attempt = "three numbers for a model that takes thirty";
        Ok(row(attempt, ErrorCode::InvalidTensor, refused))
    }

    async fn impostor(&self) -> anyhow::Result<RefusalRow> {
        // To a user who pins another E_K, this KeyService is the impostor.
        let expected = EnclaveId::new([0xee; EnclaveId::LEN]);
        let refused = self.user.keyservice_as(self.cluster, expected).await;
        let refused = refused.as_ref().err().map(said);
        Ok(row(
            "a KeyService other than the one pinned",
            ErrorCode::NotAttested,
            refused,
        ))
    }
}

fn said<E: Explain + std::error::Error>(error: &E) -> (String, String) {
    (
        error.code().name().to_owned(),
        service::ErrorChain(error).to_string(),
    )
}

fn row(name: &str, expected: ErrorCode, refused: Option<(String, String)>) -> RefusalRow {
    let is_refused = refused.is_some();
    let (code, message) = refused.unwrap_or_default();
    RefusalRow {
        name: name.into(),
        refused: is_refused,
        code,
        expected: expected.name().into(),
        message,
    }
}
