//! `sesemi infer`: one request, or many at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::invoke::{Phases, StartKind, micros};
use protocol::{EnclaveId, ModelId, Tensor};
use sdk::{Answer, Gateway, InferClient, InferError, RequestKeyring, RequestStore};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Context;
use crate::args::InferArgs;
use crate::failure::{Exit, Failure};
use crate::input::{self, InputError, npy};
use crate::report::{Report, bytes, fields, ms, table, tensor_json, tensor_text};

/// Time for one request, unless `--deadline` says otherwise: a cold start of a large model fits.
const DEADLINE: Duration = Duration::from_secs(60);
/// Most requests that are listed one by one for people, and whose outputs are all kept.
const LISTED_MAX: u32 = 20;
/// Largest file of labels, in bytes.
const LABELS_MAX: u64 = 16 * 1024 * 1024;

pub(super) async fn run(context: &Context<'_>, arguments: &InferArgs) -> Result<Report, Failure> {
    let enclave = context
        .profile
        .enclave(arguments.enclave.enclave.as_deref())?;
    let gateway = Gateway::new(context.profile.inference_url()?)?;
    let inputs = input::read_all(&arguments.inputs, arguments.preprocess)?;
    let labels = match &arguments.labels {
        Some(path) => read_labels(path)?,
        None => Vec::new(),
    };
    let (identity, home) = context.identity()?;
    let keyring = RequestKeyring::new(home.keys());
    let retry = context.retry(DEADLINE);
    let client = InferClient::new(gateway, identity.principal(), keyring, retry);
    let client = match context.profile.store_url(None) {
        Ok(url) => client.with_store(RequestStore::new(url)),
        Err(_) => client,
    };
    let batch = Batch {
        client,
        model: arguments.model.clone(),
        enclave,
        inputs: Arc::new(inputs),
        count: arguments.count,
        concurrency: usize::from(arguments.concurrency),
    };
    let mut sent = batch.send().await;
    if let [(_, Err(_))] = sent.results.as_slice()
        && let Some((_, Err(error))) = sent.results.pop()
    {
        return Err(error.into());
    }
    if let Some(folder) = &arguments.save {
        save(folder, &sent.first)?;
    }
    Ok(report(arguments, &labels, &sent))
}

/// The same request, `count` times, at most `concurrency` under way.
struct Batch {
    client: InferClient,
    model: ModelId,
    enclave: EnclaveId,
    inputs: Arc<Vec<Tensor>>,
    count: u32,
    concurrency: usize,
}

type Numbered = (u32, Result<Answer, InferError>);

/// What came back.
#[derive(Default)]
struct Sent {
    /// By number; those after [`LISTED_MAX`] without their outputs, to bound memory.
    results: Vec<Numbered>,
    /// Outputs of the answer that came first.
    first: Vec<Tensor>,
    /// How many answers have other outputs than that one.
    different: u32,
}

impl Sent {
    fn take(&mut self, (number, mut result): Numbered) {
        if let Ok(answer) = &mut result {
            if self.first.is_empty() {
                self.first.clone_from(&answer.outputs);
            } else if self.first != answer.outputs {
                self.different += 1;
            }
            if number > LISTED_MAX {
                answer.outputs = Vec::new();
            }
        }
        self.results.push((number, result));
    }
}

impl Batch {
    async fn send(&self) -> Sent {
        let mut running = JoinSet::new();
        let mut sent = Sent::default();
        let mut next = 1;
        loop {
            while next <= self.count && running.len() < self.concurrency {
                let (client, model, enclave) =
                    (self.client.clone(), self.model.clone(), self.enclave);
                let (inputs, number) = (Arc::clone(&self.inputs), next);
                running
                    .spawn(async move { (number, client.infer(&model, &enclave, &inputs).await) });
                next += 1;
            }
            match running.join_next().await {
                Some(Ok(result)) => sent.take(result),
                // A task ends early only if the runtime shuts down.
                Some(Err(error)) => tracing::error!(%error, "a request did not end"),
                None => break,
            }
        }
        sent.results.sort_by_key(|(number, _)| *number);
        sent
    }
}

fn read_labels(path: &Path) -> Result<Vec<String>, InputError> {
    let failed = |source| InputError::Read {
        path: path.into(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.len() > LABELS_MAX {
        let max = usize::try_from(LABELS_MAX).unwrap_or(usize::MAX);
        return Err(InputError::TooLarge {
            path: path.into(),
            max,
        });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Writes each output as `folder/NAME.npy`. The name is the enclave's word, so it becomes a plain
/// file name first.
fn save(folder: &Path, outputs: &[Tensor]) -> Result<(), InputError> {
    let failed = |path: &Path, source| InputError::Write {
        path: path.into(),
        source,
    };
    fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
    for (index, tensor) in outputs.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let mut name: String = tensor
            .name()
            .chars()
            .filter(|c| plain(*c))
            .take(64)
            .collect();
        if name.is_empty() {
            name = format!("output-{index}");
        }
        let path = folder.join(name).with_added_extension("npy");
        fs::write(&path, npy::write(tensor)).map_err(|source| failed(&path, source))?;
    }
    Ok(())
}

fn report(arguments: &InferArgs, labels: &[String], sent: &Sent) -> Report {
    let results = &sent.results;
    let json: Vec<_> = results
        .iter()
        .map(|(number, result)| request_json(*number, result))
        .collect();
    let failures = results
        .iter()
        .filter_map(|(_, result)| result.as_ref().err());
    let exit = failures
        .map(|error| Exit::from(sdk::Explain::fault(error)))
        .max();
    let mut text = String::new();
    for output in &sent.first {
        text.push_str(&tensor_text(output, usize::from(arguments.top), labels));
    }
    text.push('\n');
    match results.as_slice() {
        [(_, Ok(answer))] => text.push_str(&single_text(answer)),
        _ => text.push_str(&many_text(sent)),
    }
    let json = json!({
        "model": arguments.model, "requests": json, "different_answers": sent.different,
    });
    Report {
        text,
        json,
        exit: exit.unwrap_or(Exit::Ok),
    }
}

fn request_json(number: u32, result: &Result<Answer, InferError>) -> Value {
    match result {
        Ok(answer) => json!({
            "number": number,
            "ok": true,
            "request_id": answer.request_id,
            "model_version": answer.model_version,
            "outputs": (number <= LISTED_MAX)
                .then(|| answer.outputs.iter().map(tensor_json).collect::<Vec<_>>()),
            "path": answer.telemetry.path,
            "phases_us": answer.telemetry.phases_us,
            "instance": answer.telemetry.instance,
            "seq": answer.telemetry.seq,
            "routing": answer.routing,
            "attempts": answer.attempts,
            "elapsed_us": micros(answer.elapsed),
            "sent_bytes": answer.sent,
            "received_bytes": answer.received,
        }),
        Err(error) => json!({
            "number": number,
            "ok": false,
            "error": Failure::describe(error).json()["error"],
        }),
    }
}

const fn path_name(path: StartKind) -> &'static str {
    match path {
        StartKind::Cold => "cold",
        StartKind::Warm => "warm",
        StartKind::Hot => "hot",
    }
}

/// `attest 1.2, keys 3.4`: the phases in which something was done.
fn phases_text(phases: &Phases) -> String {
    let named = [
        ("attest", phases.attest),
        ("keys", phases.keys),
        ("fetch", phases.fetch),
        ("open", phases.open),
        ("load", phases.load),
        ("run", phases.run),
        ("seal", phases.seal),
    ];
    let done = named.iter().filter(|(_, time)| *time > 0);
    done.map(|(name, time)| format!("{name} {}", ms(*time)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn single_text(answer: &Answer) -> String {
    let telemetry = &answer.telemetry;
    let tries = if answer.attempts > 1 {
        format!(", {} attempts", answer.attempts)
    } else {
        String::new()
    };
    fields([
        ("version", answer.model_version.clone()),
        (
            "path",
            format!(
                "{} (instance {}, its request {})",
                path_name(telemetry.path),
                telemetry.instance,
                telemetry.seq
            ),
        ),
        ("time", format!("{} ms{tries}", ms(micros(answer.elapsed)))),
        (
            "phases (ms)",
            format!(
                "start {}, {}",
                ms(answer.routing.start_us),
                phases_text(&telemetry.phases_us)
            ),
        ),
        (
            "sealed",
            format!(
                "{} sent, {} received",
                bytes(answer.sent as u64),
                bytes(answer.received as u64)
            ),
        ),
    ])
}

fn many_text(sent: &Sent) -> String {
    let results = &sent.results;
    let mut text = String::new();
    if results
        .last()
        .is_some_and(|(number, _)| *number <= LISTED_MAX)
    {
        let rows = results.iter().map(|(number, result)| match result {
            Ok(answer) => [
                number.to_string(),
                path_name(answer.telemetry.path).to_owned(),
                ms(micros(answer.elapsed)),
                answer.telemetry.instance.to_string(),
                phases_text(&answer.telemetry.phases_us),
            ],
            Err(error) => [
                number.to_string(),
                "FAILED".to_owned(),
                String::new(),
                String::new(),
                Failure::describe(error).message,
            ],
        });
        let header = ["#", "path", "ms", "instance", "phases (ms)"];
        text.push_str(&table(header, &["#", "ms"], rows));
        text.push('\n');
    }
    text.push_str(&summary(results));
    if sent.different > 0 {
        text.push_str(&format!(
            "{} answers DIFFER from the first\n",
            sent.different
        ));
    }
    // Each cause once, with what to do.
    let mut causes = BTreeMap::new();
    for failure in results
        .iter()
        .filter_map(|(_, r)| r.as_ref().err())
        .map(Failure::describe)
    {
        causes.entry(failure.code.name()).or_insert(failure);
    }
    for failure in causes.values() {
        text.push_str(&failure.text());
    }
    text
}

/// How many by path, and the distribution of their times.
fn summary(results: &[Numbered]) -> String {
    let answers: Vec<_> = results
        .iter()
        .filter_map(|(_, result)| result.as_ref().ok())
        .collect();
    let rows = [StartKind::Cold, StartKind::Warm, StartKind::Hot]
        .into_iter()
        .filter_map(|path| {
            let mut times: Vec<_> = answers
                .iter()
                .filter(|answer| answer.telemetry.path == path)
                .map(|answer| micros(answer.elapsed))
                .collect();
            times.sort_unstable();
            let last = *times.last()?;
            let at = |percent| ms(times[percentile_index(times.len(), percent)]);
            Some([
                path_name(path).to_owned(),
                times.len().to_string(),
                at(50),
                at(95),
                ms(last),
            ])
        });
    let mut text = table(
        ["path", "requests", "p50 ms", "p95 ms", "max ms"],
        &["requests", "p50 ms", "p95 ms", "max ms"],
        rows,
    );
    let failed = results.len() - answers.len();
    if failed > 0 {
        text.push_str(&format!("{failed} of {} requests FAILED\n", results.len()));
    }
    text
}

/// Index of a percentile in a sorted list that is not empty (nearest rank).
fn percentile_index(len: usize, percent: usize) -> usize {
    (len * percent).div_ceil(100).clamp(1, len) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        assert_eq!(percentile_index(1, 50), 0);
        assert_eq!(percentile_index(1, 95), 0);
        assert_eq!(percentile_index(4, 50), 1);
        assert_eq!(percentile_index(100, 95), 94);
        assert_eq!(percentile_index(20, 95), 18);
        assert_eq!(percentile_index(3, 100), 2);
    }

    #[test]
    fn only_phases_with_work_are_shown() {
        let phases = Phases {
            run: 1500,
            seal: 20,
            ..Phases::default()
        };
        assert_eq!(phases_text(&phases), "run 1.5, seal 0.0");
    }

    #[test]
    fn saved_outputs_stay_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out");
        let tensor = |name: &str| Tensor::from_f32(name, vec![1], &[1.0]).unwrap();
        save(
            &folder,
            &[tensor("../../etc/p"), tensor("///"), tensor("scores.v1")],
        )
        .unwrap();
        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["etcp.npy", "output-1.npy", "scoresv1.npy"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn labels_are_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.txt");
        fs::write(&path, "cat\ndog\n").unwrap();
        assert_eq!(read_labels(&path).unwrap(), ["cat", "dog"]);
        assert!(read_labels(&dir.path().join("none")).is_err());
    }
}
