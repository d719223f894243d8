//! Input files of a request: JSON, `.npy` and pictures, told apart by their file name.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use protocol::limits::PAYLOAD_MAX;
use protocol::oip::{InferRequest, OipError};
use protocol::{ErrorCode, Tensor};
use sdk::Explain;
use serde_json::Value;

use crate::args::Preprocess;

pub mod npy;
pub mod picture;

use npy::NpyError;
use picture::PictureError;

/// The name of an array that nobody named.
const DEFAULT_NAME: &str = "x";
/// JSON writes a number in more bytes than it has in a tensor.
const JSON_MAX: usize = 4 * PAYLOAD_MAX;

/// Why an input file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("cannot read the input {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("input {path} is larger than {max} bytes")]
    TooLarge { path: PathBuf, max: usize },
    #[error(
        "input {path} is of no known kind: the name must end in .json, .npy, .png, .jpg or .jpeg"
    )]
    Kind { path: PathBuf },
    #[error("input {path} names its tensors itself, so '{name}=' cannot stand before it")]
    Named { path: PathBuf, name: String },
    #[error("input {path} is a picture, and no preprocessing is named")]
    NoPreprocess { path: PathBuf },
    #[error("input {path} is not a request of the Open Inference Protocol")]
    Json { path: PathBuf, source: OipError },
    #[error("input {path} is not a usable array")]
    Npy { path: PathBuf, source: NpyError },
    #[error("input {path} is not a usable picture")]
    Picture { path: PathBuf, source: PictureError },
    #[error("input '{0}' is given twice")]
    Twice(String),
    #[error("cannot write the output {path}")]
    Write { path: PathBuf, source: io::Error },
}

impl Explain for InputError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorCode::NotFound
            }
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Kind { .. }
            | Self::Named { .. }
            | Self::NoPreprocess { .. } => ErrorCode::InvalidRequest,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            _ => ErrorCode::InvalidTensor,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Read { .. } => "check the file's name and that you may read it".to_owned(),
            Self::Write { .. } => "check the folder's permissions and free space".to_owned(),
            Self::NoPreprocess { .. } => {
                "add --preprocess, for example `--preprocess efficientnet-lite`".to_owned()
            }
            Self::Kind { .. } => "rename the file after what it is".to_owned(),
            Self::Named { .. } => "leave out the name before a .json file".to_owned(),
            Self::Twice(_) => "give each input one file: `--input NAME=FILE`".to_owned(),
            Self::Json { .. } => {
                r#"write {"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#
                    .to_owned()
            }
            Self::Picture { .. } => "convert it to an ordinary PNG or JPEG".to_owned(),
            other => sdk::explain::advice(other.code()).to_owned(),
        }
    }
}

/// Reads every `[NAME=]FILE` of a command line as one list of tensors.
pub fn read_all(
    arguments: &[String],
    preprocess: Option<Preprocess>,
) -> Result<Vec<Tensor>, InputError> {
    let mut tensors: Vec<Tensor> = Vec::new();
    for argument in arguments {
        for tensor in read_one(argument, preprocess)? {
            if tensors.iter().any(|other| other.name() == tensor.name()) {
                return Err(InputError::Twice(tensor.name().to_owned()));
            }
            tensors.push(tensor);
        }
    }
    Ok(tensors)
}

fn read_one(argument: &str, preprocess: Option<Preprocess>) -> Result<Vec<Tensor>, InputError> {
    let (name, path) = split_name(argument);
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .map(str::to_ascii_lowercase)
        .unwrap_or_default();
    let path_buf = || path.to_path_buf();
    match extension.as_str() {
        "json" => {
            if let Some(name) = name {
                return Err(InputError::Named {
                    path: path_buf(),
                    name: name.to_owned(),
                });
            }
            let bytes = read_bounded(path, JSON_MAX)?;
            from_json(&bytes).map_err(|source| InputError::Json {
                path: path_buf(),
                source,
            })
        }
        "npy" => {
            let bytes = read_bounded(path, npy::FILE_MAX)?;
            let tensor = npy::read(name.unwrap_or(DEFAULT_NAME), &bytes).map_err(|source| {
                InputError::Npy {
                    path: path_buf(),
                    source,
                }
            })?;
            Ok(vec![tensor])
        }
        "png" | "jpg" | "jpeg" => {
            let preprocess =
                preprocess.ok_or_else(|| InputError::NoPreprocess { path: path_buf() })?;
            let bytes = read_bounded(path, picture::FILE_MAX)?;
            let name = name.unwrap_or(preprocess.input_name());
            let tensor =
                picture::read(name, &bytes, preprocess).map_err(|source| InputError::Picture {
                    path: path_buf(),
                    source,
                })?;
            Ok(vec![tensor])
        }
        _ => Err(InputError::Kind { path: path_buf() }),
    }
}

/// The tensors of a request (`inputs`) or of an answer (`outputs`), in the protocol's JSON form.
fn from_json(bytes: &[u8]) -> Result<Vec<Tensor>, OipError> {
    let error = match InferRequest::from_json(bytes) {
        Ok(request) => return Ok(request.inputs),
        Err(error) => error,
    };
    // The first error is the better one to tell, unless it is an answer.
    let Ok(Value::Object(mut object)) = serde_json::from_slice(bytes) else {
        return Err(error);
    };
    let Some(outputs) = object
        .remove("outputs")
        .filter(|_| !object.contains_key("inputs"))
    else {
        return Err(error);
    };
    let request = serde_json::to_vec(&serde_json::json!({ "inputs": outputs }))?;
    Ok(InferRequest::from_json(&request)?.inputs)
}

/// `x=a.npy` as `x` and `a.npy`. A name has no slash, so `./a=b.npy` is a file.
fn split_name(argument: &str) -> (Option<&str>, &Path) {
    match argument.split_once('=') {
        Some((name, path)) if !name.is_empty() && !name.contains('/') => {
            (Some(name), Path::new(path))
        }
        _ => (None, Path::new(argument)),
    }
}

pub(crate) fn read_bounded(path: &Path, max: usize) -> Result<Vec<u8>, InputError> {
    let read = |path: &Path| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(max as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read(path).map_err(|source| InputError::Read {
        path: path.into(),
        source,
    })?;
    if bytes.len() > max {
        Err(InputError::TooLarge {
            path: path.into(),
            max,
        })
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> String {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn files_of_several_kinds_make_one_request() {
        let dir = tempfile::tempdir().unwrap();
        let json = write(
            &dir,
            "a.json",
            br#"{"inputs":[{"name":"a","shape":[1],"datatype":"UINT8","data":[3]}]}"#,
        );
        let array = npy::write(&Tensor::from_f32("?", vec![1], &[1.5]).unwrap());
        let named = format!("b={}", write(&dir, "b.npy", &array));
        let unnamed = write(&dir, "c.NPY", &array);
        let tensors = read_all(&[json.clone(), named, unnamed], None).unwrap();
        let names: Vec<_> = tensors.iter().map(Tensor::name).collect();
        assert_eq!(names, ["a", "b", "x"]);
        assert!(matches!(
            read_all(&[json.clone(), json], None),
            Err(InputError::Twice(_))
        ));
    }

    #[test]
    fn every_refusal_names_the_file_and_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        let json = write(&dir, "bad.json", br#"{"inputs":[{"name":"x"}]}"#);
        let text = write(&dir, "x.txt", b"1 2 3");
        let picture = write(&dir, "x.png", b"not a picture");
        let array = write(&dir, "x.npy", b"\x93NUMPY");
        let missing = dir.path().join("none.json").to_str().unwrap().to_owned();
        for (argument, code) in [
            (json.clone(), ErrorCode::InvalidTensor),
            (format!("x={json}"), ErrorCode::InvalidRequest),
            (text, ErrorCode::InvalidRequest),
            (picture, ErrorCode::InvalidRequest),
            (array, ErrorCode::InvalidTensor),
            (missing, ErrorCode::NotFound),
        ] {
            let error = read_all(std::slice::from_ref(&argument), None).unwrap_err();
            assert_eq!(error.code(), code, "{argument}: {error}");
            let path = argument.rsplit('=').next().unwrap();
            assert!(error.to_string().contains(path), "{error}");
            assert!(!error.advice().is_empty());
        }
    }

    #[test]
    fn answers_are_read_as_well_as_requests() {
        let answer =
            br#"{"outputs":[{"name":"p","shape":[1],"datatype":"FP32","data":[0.5]}],"truth":[1]}"#;
        assert_eq!(from_json(answer).unwrap()[0].to_f32().unwrap(), [0.5]);
        assert!(from_json(br#"{"results":[]}"#).is_err());
    }

    #[test]
    fn a_name_is_before_the_first_equals_sign_unless_that_is_in_a_folder() {
        assert_eq!(split_name("x=a.npy"), (Some("x"), Path::new("a.npy")));
        assert_eq!(
            split_name("x=d/a=b.npy"),
            (Some("x"), Path::new("d/a=b.npy"))
        );
        assert_eq!(split_name("./x=a.npy"), (None, Path::new("./x=a.npy")));
        assert_eq!(split_name("=a.npy"), (None, Path::new("=a.npy")));
    }
}
