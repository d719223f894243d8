//! `cargo demo`: the whole system on this machine, what it answers, what it refuses, what leaks.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use protocol::invoke::StartKind;
use protocol::package::Manifest;
use protocol::tensor::Tensor;
use protocol::{Digest, ModelId};
use sdk::RetryPolicy;
use sdk::infer::{Answer, InferClient};
use tokio::time::Instant;

use crate::cluster::{Cluster, Options};
use crate::demo::cases::Case;
use crate::demo::operator::examine;
use crate::demo::parties::Person;
use crate::demo::refusals::Attempts;
use crate::demo::report::{Report, RequestPhases, RequestRow};
use crate::progress::Progress;
use crate::state::StateFolder;

pub mod cases;
pub mod operator;
pub mod parties;
pub mod refusals;
pub mod report;

/// Requests sent at once to one instance.
const AT_ONCE: usize = 4;

/// What may be asked of the demo.
#[derive(Debug, Default)]
pub struct Wishes {
    /// A third model, of the zoo, with an input of the caller's own.
    pub extra: Option<Extra>,
}

/// A model beside the two shipped ones.
#[derive(Debug)]
pub struct Extra {
    pub case: Case,
    /// The caller's own input; `None` asks with the zoo's reference input.
    pub input: Option<Vec<Tensor>>,
}

/// A system on which the demo ran; still running.
#[derive(Debug)]
pub struct Demo {
    pub cluster: Cluster,
    pub report: Report,
}

struct Scene<'a> {
    cluster: &'a Cluster,
    owner: Person,
    user: Person,
    client: InferClient,
}

/// Starts a system in `state` and runs the demo on it.
pub async fn run(
    exe: &Path,
    state: StateFolder,
    wishes: &Wishes,
    progress: &Progress,
) -> anyhow::Result<Demo> {
    let began = Instant::now();
    let [cancer, digits] = cases::shipped()?;
    let options = Options {
        record: true,
        ..Options::new(exe.into())
    };
    let cluster = Cluster::start(options, state, |part| {
        progress.step(&format!("starting {part}"))
    })
    .await?;

    let owner = Person::at(cluster.state().root().join("owner"))?;
    let user = Person::at(cluster.state().root().join("user"))?;
    let client = user.client(
        &cluster,
        RetryPolicy::with_deadline(Duration::from_secs(60)),
    )?;
    let scene = Scene {
        cluster: &cluster,
        owner,
        user,
        client,
    };
    let (cancer_id, digits_id): (ModelId, ModelId) = (cancer.name.parse()?, digits.name.parse()?);
    scene.offer(&cancer_id, &cancer, progress).await?;
    let digits_digest = scene.offer(&digits_id, &digits, progress).await?;

    let mut report = Report::default();
    progress.step("asking: cold, hot, switch, four at once");
    report.requests = scene
        .requests(&cancer_id, &cancer, &digits_id, &digits)
        .await?;
    let mut secret = vec![&cancer, &digits];
    if let Some(extra) = &wishes.extra {
        let model: ModelId = extra.case.name.parse()?;
        scene.offer(&model, &extra.case, progress).await?;
        progress.step(&format!("asking {model}"));
        report.requests.extend(scene.extra(&model, extra).await?);
        secret.push(&extra.case);
    }

    progress.step("trying what must be refused");
    let attempts = Attempts {
        cluster: &cluster,
        state: cluster.state().root(),
        owner: &scene.owner,
        user: &scene.user,
        model: &cancer_id,
        case: &cancer,
        other: digits_digest,
    };
    report.refusals = attempts.run().await?;

    progress.step("searching what the operator saw");
    let own_input = wishes
        .extra
        .as_ref()
        .and_then(|e| e.input.as_deref())
        .unwrap_or_default();
    report.operator_view = examine(cluster.state(), &secret, own_input)?;
    report.leaks_found = report.operator_view.leaks.len();
    report.seconds = began.elapsed().as_secs_f64();
    report.ok = report.complete();
    drop(scene);
    Ok(Demo { cluster, report })
}

impl Scene<'_> {
    /// Owner: publish and grant. User: verify KeyService and register a request key.
    async fn offer(
        &self,
        model: &ModelId,
        case: &Case,
        progress: &Progress,
    ) -> anyhow::Result<Digest> {
        progress.step(&format!("owner: pack, seal, register and grant {model}"));
        let enclave = self.cluster.identities().semirt;
        let mut keyservice = self.owner.keyservice(self.cluster).await?;
        let digest = self
            .owner
            .publish(self.cluster, &mut keyservice, model, case)
            .await?;
        keyservice
            .owner()
            .grant(model, &self.user.principal(), &enclave)
            .await?;
        progress.step(&format!(
            "user: verify KeyService, register a request key for {model}"
        ));
        let mut keyservice = self.user.keyservice(self.cluster).await?;
        let owner = self.owner.principal();
        self.user
            .register_request_key(&mut keyservice, model, owner, &enclave)
            .await?;
        Ok(digest)
    }

    async fn requests(
        &self,
        cancer_id: &ModelId,
        cancer: &Case,
        digits_id: &ModelId,
        digits: &Case,
    ) -> anyhow::Result<Vec<RequestRow>> {
        let mut rows = vec![
            self.request("tumour 1: first of all", cancer_id, cancer, 0)
                .await?,
            self.request("tumour 2: again", cancer_id, cancer, 1)
                .await?,
            self.request("digit 1: another model", digits_id, digits, 0)
                .await?,
            self.request("digit 2: again", digits_id, digits, 1).await?,
        ];
        let at_once = (0..AT_ONCE).map(|i| async move {
            let name = format!("tumour {}: {} of {AT_ONCE} at once", i + 3, i + 1);
            self.request(&name, cancer_id, cancer, i + 2).await
        });
        rows.extend(futures::future::try_join_all(at_once).await?);
        rows.push(
            self.request("tumour 7: again", cancer_id, cancer, 6)
                .await?,
        );
        let instances: std::collections::BTreeSet<_> = rows.iter().map(|r| &r.instance).collect();
        ensure!(
            instances.len() == 1,
            "one instance was to serve all, but {instances:?} did"
        );
        Ok(rows)
    }

    async fn request(
        &self,
        name: &str,
        model: &ModelId,
        case: &Case,
        row: usize,
    ) -> anyhow::Result<RequestRow> {
        let (inputs, expected) = case.row(row)?;
        let (answer, total) = self
            .ask(model, &inputs)
            .await
            .with_context(|| name.to_owned())?;
        let ok = Case::is_right(&expected, &answer.outputs);
        Ok(request_row(name, model, case, &answer, total, ok))
    }

    /// The zoo's model: its reference input, whose answer is known, then the caller's own.
    async fn extra(&self, model: &ModelId, extra: &Extra) -> anyhow::Result<Vec<RequestRow>> {
        let case = &extra.case;
        let (answer, total) = self.ask(model, &case.inputs).await?;
        let ok = Case::is_right(&case.expected, &answer.outputs);
        let mut rows = vec![request_row(
            &format!("{model}: reference"),
            model,
            case,
            &answer,
            total,
            ok,
        )];
        if let Some(input) = &extra.input {
            let (answer, total) = self.ask(model, input).await?;
            // Nobody has told the right answer to this one: it has to be an answer.
            let ok = !answer.outputs.is_empty();
            rows.push(request_row(
                &format!("{model}: yours"),
                model,
                case,
                &answer,
                total,
                ok,
            ));
        }
        Ok(rows)
    }

    async fn ask(&self, model: &ModelId, inputs: &[Tensor]) -> anyhow::Result<(Answer, Duration)> {
        let enclave = self.cluster.identities().semirt;
        let began = Instant::now();
        let answer = self.client.infer(model, &enclave, inputs).await?;
        Ok((answer, began.elapsed()))
    }
}

fn request_row(
    name: &str,
    model: &ModelId,
    case: &Case,
    answer: &Answer,
    total: Duration,
    ok: bool,
) -> RequestRow {
    let (value, said) = case.say(&answer.outputs);
    let start = if answer.telemetry.path == StartKind::Cold {
        answer.routing.start_us
    } else {
        0
    };
    RequestRow {
        name: name.into(),
        model: model.to_string(),
        path: answer.telemetry.path,
        ok,
        instance: answer.telemetry.instance.to_string(),
        phases_us: RequestPhases {
            start,
            semirt: answer.telemetry.phases_us,
            total: protocol::invoke::micros(total),
        },
        answer: value,
        said,
    }
}

/// Plaintext weights of a model, as they lie in its package.
fn weights(case: &Case) -> anyhow::Result<(Manifest, Vec<u8>)> {
    let check = inference::pack::Check::AllowUnchecked;
    let package = inference::pack::pack(&case.onnx, check)?;
    Ok((package.manifest, package.weights))
}
