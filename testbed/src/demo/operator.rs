//! What the operator saw, and the proof that no plaintext is in it.

use std::path::Path;

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::oip::InferRequest;
use protocol::tensor::Tensor;
use serde_json::{Value, json};

use crate::demo::cases::Case;
use crate::demo::report::OperatorView;
use crate::scan::Needles;
use crate::state::StateFolder;

/// Searches the record of all that crossed the host, the model store and the logs for the inputs, the
/// answers and the weights of `cases`, and for `own_input`.
pub fn examine(
    state: &StateFolder,
    cases: &[&Case],
    own_input: &[Tensor],
) -> anyhow::Result<OperatorView> {
    let mut needles = Needles::default();
    for case in cases {
        case.secret_values()
            .for_each(|values| needles.add_values(&values));
        for tensor in &case.inputs {
            needles.add_bytes(tensor.data());
        }
        needles.add_bytes(&super::weights(case)?.1);
    }
    for tensor in own_input {
        needles.add_bytes(tensor.data());
    }
    let controls = controls(&needles, cases)?;
    let (record, store, logs) = (state.record(), state.store(), state.logs());
    let platform = state.root().join("platform");
    let findings = needles.search(&[&record, &store, &logs, &platform])?;
    ensure!(
        findings.bytes > 0,
        "the record of what crossed the host is empty"
    );
    let leaks = findings.leaks.iter().map(|leak| {
        let file = leak.file.strip_prefix(state.root()).unwrap_or(&leak.file);
        format!("{} in {}", leak.form, file.display())
    });
    Ok(OperatorView {
        files: findings.files,
        bytes: findings.bytes,
        needles: needles.len(),
        controls,
        sample: sample(&record.join("fnpacker")),
        leaks: leaks.collect(),
    })
}

/// Shows that the search finds the first case's request when it is not sealed, in every form.
fn controls(needles: &Needles, cases: &[&Case]) -> anyhow::Result<Vec<String>> {
    let Some(case) = cases.first() else {
        return Ok(Vec::new());
    };
    let (inputs, _) = case.row(0)?;
    let text = inputs
        .iter()
        .filter_map(Tensor::to_f32)
        .flatten()
        .map(|v| v.to_string());
    let text = text.collect::<Vec<_>>().join(",");
    let plain = InferRequest { inputs }.encode()?;
    let planted = [
        plain.clone(),
        STANDARD.encode(&plain).into_bytes(),
        hex::encode(&plain).into_bytes(),
        text.into_bytes(),
    ];
    let mut forms: Vec<String> = planted
        .iter()
        .flat_map(|bytes| needles.forms(bytes))
        .map(str::to_owned)
        .collect();
    forms.sort();
    forms.dedup();
    Ok(forms)
}

/// One request as FnPacker saw it, with its ciphertext cut short.
fn sample(folder: &Path) -> Option<Value> {
    let files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let text = files
        .filter_map(|f| std::fs::read(f.path()).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .find(|text| text.contains("\"ciphertext\""))?;
    let start = text.find("{\"user\"")?;
    let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
    let mut request = values.next()?.ok()?;
    let ciphertext = request.get("ciphertext")?.as_str()?.to_owned();
    let shown: String = ciphertext.chars().take(48).collect();
    request["ciphertext"] = json!(format!("{shown}… ({} bytes in base64)", ciphertext.len()));
    Some(request)
}
