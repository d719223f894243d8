//! The models that the demo serves, real inputs for them, and the answers that are right.

use std::path::Path;

use anyhow::{Context as _, bail};
use protocol::oip::InferRequest;
use protocol::tensor::Tensor;
use serde::Deserialize;
use serde_json::{Value, json};

/// Largest difference to onnxruntime's answer that counts as right.
const TOLERANCE: f32 = 1e-4;

/// A model with inputs and the answers onnxruntime gives to them, row by row.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub onnx: Vec<u8>,
    pub inputs: Vec<Tensor>,
    pub expected: Vec<Tensor>,
    pub labels: Vec<String>,
}

#[derive(Deserialize)]
struct Expected {
    outputs: Value,
}

macro_rules! shipped {
    ($name:literal) => {
        Case::parse(
            $name,
            include_bytes!(concat!("../../../models/", $name, "/model.onnx")).to_vec(),
            include_bytes!(concat!("../../../models/", $name, "/inputs.json")),
            include_bytes!(concat!("../../../models/", $name, "/expected.json")),
            include_str!(concat!("../../../models/", $name, "/labels.txt")),
        )
    };
}

/// The two models in the repository.
pub fn shipped() -> anyhow::Result<[Case; 2]> {
    Ok([shipped!("breast-cancer")?, shipped!("digits")?])
}

impl Case {
    /// A model of the zoo, from its folder.
    pub fn from_folder(name: &str, folder: &Path) -> anyhow::Result<Self> {
        let read = |file: &str| {
            std::fs::read(folder.join(file)).with_context(|| {
                format!(
                    "read {}; models/zoo.py makes it",
                    folder.join(file).display()
                )
            })
        };
        let labels = read("labels.txt").unwrap_or_default();
        Self::parse(
            name,
            read("model.onnx")?,
            &read("inputs.json")?,
            &read("expected.json")?,
            &String::from_utf8_lossy(&labels),
        )
    }

    fn parse(
        name: &str,
        onnx: Vec<u8>,
        inputs: &[u8],
        expected: &[u8],
        labels: &str,
    ) -> anyhow::Result<Self> {
        let expected: Expected = serde_json::from_slice(expected)?;
        // Outputs have the form of inputs.
        let expected = serde_json::to_vec(&json!({ "inputs": expected.outputs }))?;
        Ok(Self {
            name: name.into(),
            onnx,
            inputs: InferRequest::from_json(inputs)
                .with_context(|| format!("inputs of {name}"))?
                .inputs,
            expected: InferRequest::from_json(&expected)
                .with_context(|| format!("expected answers of {name}"))?
                .inputs,
            labels: labels.lines().map(str::to_owned).collect(),
        })
    }

    /// Row `i` as a batch of one, and the right answer to it.
    pub fn row(&self, i: usize) -> anyhow::Result<(Vec<Tensor>, Vec<Tensor>)> {
        let rows = |tensors: &[Tensor]| {
            tensors
                .iter()
                .map(|t| row(t, i))
                .collect::<anyhow::Result<Vec<_>>>()
        };
        Ok((
            rows(&self.inputs).context("input row")?,
            rows(&self.expected).context("answer row")?,
        ))
    }

    /// Whether `got` is the right answer, within the tolerance of another engine's rounding.
    #[must_use]
    pub fn is_right(expected: &[Tensor], got: &[Tensor]) -> bool {
        expected.len() == got.len()
            && expected.iter().all(|want| {
                let got = got.iter().find(|t| t.name() == want.name());
                let (Some(want), Some(got)) = (want.to_f32(), got.and_then(Tensor::to_f32)) else {
                    return false;
                };
                let scale = want.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
                want.len() == got.len()
                    && want
                        .iter()
                        .zip(&got)
                        .all(|(a, b)| (a - b).abs() <= TOLERANCE * scale)
            })
    }

    /// The answer for a program (`label`, `probability`) and for a person.
    #[must_use]
    pub fn say(&self, outputs: &[Tensor]) -> (Value, String) {
        let values = outputs.first().and_then(Tensor::to_f32).unwrap_or_default();
        let (class, probability) = match values.as_slice() {
            [] => return (Value::Null, "no FP32 output".into()),
            // One output is the probability of the second class.
            [p] if *p < 0.5 => (0, 1.0 - p),
            [p] => (1, *p),
            many => many
                .iter()
                .copied()
                .enumerate()
                .fold((0, f32::MIN), |best, v| if v.1 > best.1 { v } else { best }),
        };
        let label = self
            .labels
            .get(class)
            .cloned()
            .unwrap_or_else(|| format!("class {class}"));
        let said = format!("{label} ({:.1} %)", probability * 100.0);
        (
            json!({ "label": label, "probability": probability, "outputs": values.len() }),
            said,
        )
    }

    /// Plain values that must not be seen on the host: inputs and answers.
    pub fn secret_values(&self) -> impl Iterator<Item = Vec<f32>> {
        self.inputs
            .iter()
            .chain(&self.expected)
            .filter_map(Tensor::to_f32)
    }
}

/// Row `i` of a tensor whose first dimension counts rows.
fn row(tensor: &Tensor, i: usize) -> anyhow::Result<Tensor> {
    let Some((rows, rest)) = tensor.shape().split_first() else {
        bail!("tensor '{}' is a scalar", tensor.name());
    };
    let rows = usize::try_from(*rows)?;
    if i >= rows {
        bail!(
            "tensor '{}' has {rows} rows, row {i} was asked for",
            tensor.name()
        );
    }
    let len = tensor.data().len() / rows;
    let shape = std::iter::once(1).chain(rest.iter().copied()).collect();
    let data = tensor.data()[i * len..(i + 1) * len].to_vec();
    Ok(Tensor::new(tensor.name(), tensor.datatype(), shape, data)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_models_come_with_answers() {
        for case in shipped().unwrap() {
            let (input, answer) = case.row(0).unwrap();
            assert_eq!(input[0].shape()[0], 1);
            assert!(Case::is_right(&answer, &answer));
            assert!(!Case::is_right(&answer, &input), "{}", case.name);
            assert!(!Case::is_right(&answer, &[]));
            let (_, other) = case.row(1).unwrap();
            assert!(!Case::is_right(&answer, &other), "{}", case.name);
            assert!(case.row(10_000).is_err());
        }
    }
}
