//! The model package: what the owner seals into an artifact and SeMIRT opens.
//!
//! `magic (8) | u32 LE manifest length | manifest (JSON) | zeros to a multiple of 64 | graph |
//! zeros to a multiple of 64 | weights`. The manifest says how long graph and weights are; the
//! package ends with the last weight byte.

use serde::{Deserialize, Serialize};

use crate::limits::{MANIFEST_MAX, PACKAGE_MAX};
use crate::tensor::TensorSpec;

/// First bytes of every package; the last one is the format's version.
pub const MAGIC: [u8; 8] = *b"SeSeMI\0\x01";
/// Graph and weights start at multiples of this, so that kernels may use them where they lie.
pub const ALIGN: u64 = 64;
/// Bytes before the manifest.
pub const PREFIX_LEN: usize = MAGIC.len() + 4;

/// Which engine loads the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// rten, ONNX graph with the weights as external data.
    Rten,
    /// Our own kernels for convolutional networks: a compiled plan, and weights as they want them.
    Conv,
}

/// An input with its right answer, kept in the package: pack time checks the engine against it,
/// and an instance can check itself again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// `InferRequest` payload, base64.
    pub request: String,
    /// `InferReply` payload, base64.
    pub reply: String,
    /// Largest absolute difference of an FP32 element, relative to the largest expected magnitude.
    pub tolerance: f32,
}

/// What a package says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub engine: EngineName,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// Bytes of the graph.
    pub graph_len: u64,
    /// Bytes of the weights.
    pub weights_len: u64,
    /// The name by which the graph refers to the weights; `None` if it refers to none.
    pub weights_name: Option<String>,
    pub example: Option<Example>,
}

/// Why bytes are not a model package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error("not a SeSeMI model package, or one of another version")]
    Magic,
    #[error("model package is shorter than it says")]
    Truncated,
    #[error("model package has bytes after its end")]
    Trailing,
    #[error("model package is larger than its limits allow")]
    TooLarge,
    #[error("model package manifest is malformed")]
    Manifest(#[from] serde_json::Error),
}

/// Where the parts of a package lie, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub graph: u64,
    pub weights: u64,
    pub end: u64,
}

impl Manifest {
    /// The start of a package: everything before the graph.
    pub fn head(&self) -> Result<Vec<u8>, PackageError> {
        let json = serde_json::to_vec(self)?;
        let len = u32::try_from(json.len()).map_err(|_| PackageError::TooLarge)?;
        if json.len() > MANIFEST_MAX {
            return Err(PackageError::TooLarge);
        }
        let mut head = [&MAGIC[..], &len.to_le_bytes(), &json].concat();
        while !(head.len() as u64).is_multiple_of(ALIGN) {
            head.push(0);
        }
        Ok(head)
    }

    /// The manifest's length, from the first [`PREFIX_LEN`] bytes.
    pub fn len_from_prefix(prefix: &[u8; PREFIX_LEN]) -> Result<usize, PackageError> {
        let (magic, len) = prefix.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(PackageError::Magic);
        }
        let len = len
            .first_chunk()
            .map_or(usize::MAX, |l| u32::from_le_bytes(*l) as usize);
        if len > MANIFEST_MAX {
            Err(PackageError::TooLarge)
        } else {
            Ok(len)
        }
    }

    /// Reads the JSON of the manifest and checks it against the whole package's length.
    pub fn parse(json: &[u8], package_len: u64) -> Result<(Self, Layout), PackageError> {
        let manifest: Self = serde_json::from_slice(json)?;
        let layout = manifest.layout(json.len())?;
        match layout.end.cmp(&package_len) {
            std::cmp::Ordering::Greater => Err(PackageError::Truncated),
            std::cmp::Ordering::Less => Err(PackageError::Trailing),
            std::cmp::Ordering::Equal => Ok((manifest, layout)),
        }
    }

    /// Where the parts lie when the manifest's JSON has `json_len` bytes.
    pub fn layout(&self, json_len: usize) -> Result<Layout, PackageError> {
        let aligned = |n: u64| n.checked_next_multiple_of(ALIGN);
        let layout = (|| {
            let graph = aligned((PREFIX_LEN + json_len) as u64)?;
            let weights = aligned(graph.checked_add(self.graph_len)?)?;
            let end = weights.checked_add(self.weights_len)?;
            Some(Layout {
                graph,
                weights,
                end,
            })
        })();
        layout
            .filter(|l| l.end <= PACKAGE_MAX)
            .ok_or(PackageError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            engine: EngineName::Rten,
            inputs: vec![],
            outputs: vec![],
            graph_len: 100,
            weights_len: 10,
            weights_name: Some("weights.data".into()),
            example: None,
        }
    }

    #[test]
    fn head_and_layout_agree() {
        let head = manifest().head().unwrap();
        let len = Manifest::len_from_prefix(head.first_chunk().unwrap()).unwrap();
        let json = &head[PREFIX_LEN..PREFIX_LEN + len];
        let layout = manifest().layout(len).unwrap();
        assert_eq!(layout.graph, head.len() as u64);
        let (parsed, again) = Manifest::parse(json, layout.end).unwrap();
        assert_eq!((parsed, again), (manifest(), layout));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let head = manifest().head().unwrap();
        let len = Manifest::len_from_prefix(head.first_chunk().unwrap()).unwrap();
        let json = &head[PREFIX_LEN..PREFIX_LEN + len];
        let end = manifest().layout(len).unwrap().end;
        assert!(matches!(
            Manifest::parse(json, end - 1),
            Err(PackageError::Truncated)
        ));
        assert!(matches!(
            Manifest::parse(json, end + 1),
            Err(PackageError::Trailing)
        ));
        let mut huge = manifest();
        huge.weights_len = u64::MAX;
        assert!(matches!(huge.layout(len), Err(PackageError::TooLarge)));
        assert!(Manifest::len_from_prefix(b"SeSeMI\0\x01\xff\xff\xff\xff").is_err());
        assert!(Manifest::len_from_prefix(b"SeSeMI\0\x02\0\0\0\0").is_err());
    }
}
