//! `sesemi model …`: pack, push, register, publish, list, inspect.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use inference::pack::{Check, PackError, Package, WriteError, pack_with_external};
use protocol::limits::PACKAGE_MAX;
use protocol::package::{Manifest, PREFIX_LEN, PackageError};
use protocol::{ErrorCode, ModelId, ModelVersion};
use sdk::explain::advice;
use sdk::publish::open_store;
use sdk::{Explain, Keyservice, KeyserviceError, ModelShelf, Pushed};
use serde_json::{Value, json};

use super::Context;
use super::key::yes_no;
use crate::args::{ModelCommand, PackArgs, PackOptions, PublishArgs, PushArgs, RegisterArgs};
use crate::failure::Failure;
use crate::input;
use crate::report::{Report, bytes, fields, specs, table};

/// Why a model is not packed, read or found.
#[derive(Debug, thiserror::Error)]
pub(super) enum ModelError {
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path} is larger than {PACKAGE_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("external data file {path} has no name")]
    NoName { path: PathBuf },
    #[error("there is no example to check the packed model against")]
    NoExample,
    #[error("cannot pack {path}")]
    Pack { path: PathBuf, source: PackError },
    #[error("cannot write the package {path}")]
    Write { path: PathBuf, source: WriteError },
    #[error("no version of model '{model}' is registered as yours or was pushed from here")]
    NoVersion { model: ModelId },
    #[error("{path} is not a usable model package")]
    Package { path: PathBuf, source: PackageError },
}

impl Explain for ModelError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorCode::NotFound
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                ErrorCode::StorageFull
            }
            Self::File { .. } | Self::NoName { .. } | Self::NoExample | Self::Write { .. } => {
                ErrorCode::InvalidRequest
            }
            Self::NoVersion { .. } => ErrorCode::NotFound,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Pack { .. } | Self::Package { .. } => ErrorCode::InvalidModel,
        }
    }

    fn retryable(&self) -> bool {
        false
    }

    fn advice(&self) -> String {
        match self {
            Self::File { .. } | Self::Write { .. } => {
                "check the file's name, its folder's permissions and the free space".to_owned()
            }
            Self::NoName { .. } => "name the file as the ONNX file refers to it".to_owned(),
            Self::NoExample => {
                "give --example-input and --example-output from the framework that trained the model; --allow-unchecked packs without, at your own risk".to_owned()
            }
            Self::Pack { source: PackError::Mismatch { .. }, .. } => {
                "do not publish it: the engine computes this model differently; see which operators differ, or raise --tolerance if the difference is harmless".to_owned()
            }
            Self::Pack { source: PackError::ExpectedMissing(_) | PackError::Run(_) | PackError::Example(_), .. } => {
                "correct the example: it must have every input and every output of the model, by name".to_owned()
            }
            Self::Package { .. } => "make it with `sesemi model pack`".to_owned(),
            other => advice(other.code()).to_owned(),
        }
    }
}

pub(super) async fn run(context: &Context<'_>, command: ModelCommand) -> Result<Report, Failure> {
    match command {
        ModelCommand::Pack(arguments) => pack_command(context, &arguments),
        ModelCommand::Push(arguments) => push(context, &arguments).await,
        ModelCommand::Register(arguments) => register(context, &arguments).await,
        ModelCommand::Publish(arguments) => publish(context, &arguments).await,
        ModelCommand::Ls => list(context).await,
        ModelCommand::Versions { model } => versions(context, &model).await,
        ModelCommand::Inspect { package } => inspect(&package),
    }
}

fn shelf(context: &Context<'_>) -> Result<ModelShelf, Failure> {
    Ok(ModelShelf::new(context.home()?.models()))
}

fn read_whole(path: &Path) -> Result<Vec<u8>, ModelError> {
    let failed = |source| ModelError::File {
        action: "read",
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > PACKAGE_MAX {
        return Err(ModelError::TooLarge { path: path.into() });
    }
    let mut content = Vec::new();
    file.take(PACKAGE_MAX)
        .read_to_end(&mut content)
        .map_err(failed)?;
    Ok(content)
}

fn pack(context: &Context<'_>, onnx: &Path, options: &PackOptions) -> Result<Package, Failure> {
    let inputs = input::read_all(&options.example_input, None)?;
    let expected = input::read_all(&options.example_output, None)?;
    let check = match (inputs.is_empty(), options.allow_unchecked) {
        (false, _) => Check::Example {
            inputs: &inputs,
            expected: &expected,
            tolerance: options.tolerance,
        },
        (true, true) => Check::AllowUnchecked,
        (true, false) => return Err(ModelError::NoExample.into()),
    };
    let model = read_whole(onnx)?;
    let mut external = Vec::new();
    for path in &options.external {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| ModelError::NoName { path: path.clone() })?;
        external.push((name, read_whole(path)?));
    }
    let external: BTreeMap<_, _> = external.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    let step = context.progress.step("pack", None);
    let package =
        pack_with_external(&model, &external, check).map_err(|source| ModelError::Pack {
            path: onnx.into(),
            source,
        })?;
    step.done(Some(
        package.manifest.graph_len + package.manifest.weights_len,
    ));
    Ok(package)
}

fn pack_command(context: &Context<'_>, arguments: &PackArgs) -> Result<Report, Failure> {
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => arguments.onnx.with_extension("package"),
    };
    let package = pack(context, &arguments.onnx, &arguments.options)?;
    let len = write_package(&package, &out)?;
    let json = json!({ "package": out, "bytes": len, "manifest": summary(&package.manifest) });
    let path = [("package", out.display().to_string())];
    Ok(Report::ok(
        fields(path.into_iter().chain(described(&package.manifest, len))),
        json,
    ))
}

/// Appears as a whole or not at all, readable by its owner only: it is the model in the clear.
fn write_package(package: &Package, out: &Path) -> Result<u64, ModelError> {
    let failed = |source| ModelError::File {
        action: "write",
        path: out.into(),
        source,
    };
    let folder = out
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut staged = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let mut writer = io::BufWriter::new(staged.as_file_mut());
    let len = package
        .write_to(&mut writer)
        .map_err(|source| ModelError::Write {
            path: out.into(),
            source,
        })?;
    writer.flush().map_err(failed)?;
    drop(writer);
    staged.as_file().sync_all().map_err(failed)?;
    staged.persist(out).map_err(|error| failed(error.error))?;
    Ok(len)
}

/// The manifest without the example's values.
fn summary(manifest: &Manifest) -> Value {
    json!({
        "engine": manifest.engine,
        "inputs": manifest.inputs,
        "outputs": manifest.outputs,
        "graph_len": manifest.graph_len,
        "weights_len": manifest.weights_len,
        "checked": manifest.example.is_some(),
        "tolerance": manifest.example.as_ref().map(|e| e.tolerance),
    })
}

fn described(manifest: &Manifest, len: u64) -> Vec<(&'static str, String)> {
    let engine = format!("{:?}", manifest.engine).to_lowercase();
    let checked = match &manifest.example {
        Some(example) => format!("yes, within {} of the example", example.tolerance),
        None => "NO: packed without an example".to_owned(),
    };
    vec![
        ("size", bytes(len)),
        ("engine", engine),
        ("inputs", specs(&manifest.inputs)),
        ("outputs", specs(&manifest.outputs)),
        ("graph", bytes(manifest.graph_len)),
        ("weights", bytes(manifest.weights_len)),
        ("checked", checked),
    ]
}

/// Reads a package's manifest and checks that the file is as long as it says.
fn read_manifest(path: &Path) -> Result<(Manifest, u64), ModelError> {
    let failed = |source| ModelError::File {
        action: "read",
        path: path.into(),
        source,
    };
    let wrong = |source| ModelError::Package {
        path: path.into(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let mut prefix = [0; PREFIX_LEN];
    file.read_exact(&mut prefix)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => wrong(PackageError::Magic),
            _ => failed(error),
        })?;
    // Bounded by MANIFEST_MAX.
    let mut json = vec![0; Manifest::len_from_prefix(&prefix).map_err(wrong)?];
    file.read_exact(&mut json)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => wrong(PackageError::Truncated),
            _ => failed(error),
        })?;
    let (manifest, _) = Manifest::parse(&json, len).map_err(wrong)?;
    Ok((manifest, len))
}

fn inspect(path: &Path) -> Result<Report, Failure> {
    let (manifest, len) = read_manifest(path)?;
    let json = json!({ "package": path, "bytes": len, "manifest": summary(&manifest) });
    let head = [("package", path.display().to_string())];
    Ok(Report::ok(
        fields(head.into_iter().chain(described(&manifest, len))),
        json,
    ))
}

/// One more than the last version that anybody here knows.
fn next_version(
    shelf: &ModelShelf,
    model: &ModelId,
    registered: Option<ModelVersion>,
) -> Result<ModelVersion, Failure> {
    let here = shelf.versions(model)?.last().map(|pushed| pushed.version);
    let last = here.max(registered).map_or(0, |version| version.0);
    Ok(ModelVersion(last.saturating_add(1)))
}

/// Seals and uploads, with progress.
async fn seal_and_push(
    context: &Context<'_>,
    shelf: &ModelShelf,
    store_url: &str,
    model: &ModelId,
    version: ModelVersion,
    plain: (&mut dyn Read, u64),
) -> Result<Pushed, Failure> {
    // A wrong URL is found before the work is done.
    let store = open_store(store_url)?;
    let (plain, len) = plain;
    let step = context.progress.step("seal", Some(len));
    let sealed = shelf.seal(model, version, plain, &mut |done| step.at(done))?;
    step.done(Some(sealed.artifact().len));
    let step = context.progress.step("push", None);
    let pushed = shelf.push(&store, model, version, &sealed).await?;
    step.done(Some(pushed.len));
    Ok(pushed)
}

async fn push(context: &Context<'_>, arguments: &PushArgs) -> Result<Report, Failure> {
    let store = context.profile.store_url(arguments.store.as_deref())?;
    let shelf = shelf(context)?;
    let model = &arguments.model;
    let version = match arguments.version {
        Some(version) => ModelVersion(version),
        None => next_version(&shelf, model, None)?,
    };
    let (_, len) = read_manifest(&arguments.package)?;
    let path = &arguments.package;
    let mut file = File::open(path).map_err(|source| ModelError::File {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let pushed = seal_and_push(context, &shelf, store, model, version, (&mut file, len)).await?;
    let next = format!("sesemi model register {model} --version {version}");
    let text = fields(
        pushed_fields(&pushed, store)
            .into_iter()
            .chain([("next", next)]),
    );
    Ok(Report::ok(
        text,
        json!({ "pushed": pushed, "store": store }),
    ))
}

fn pushed_fields(pushed: &Pushed, store: &str) -> Vec<(&'static str, String)> {
    vec![
        ("model", pushed.model.to_string()),
        ("version", pushed.version.to_string()),
        ("digest", pushed.digest.to_string()),
        ("artifact", bytes(pushed.len)),
        ("store", store.to_owned()),
    ]
}

async fn register(context: &Context<'_>, arguments: &RegisterArgs) -> Result<Report, Failure> {
    let shelf = shelf(context)?;
    let pushed = shelf.pushed(&arguments.model, arguments.version.map(ModelVersion))?;
    let (mut keyservice, _) = context.keyservice().await?;
    let record = keyservice.owner().register(&shelf, &pushed).await?;
    let text = fields([
        ("model", record.model.to_string()),
        ("version", record.version.to_string()),
        ("digest", record.digest.to_string()),
        ("owner", record.owner.to_string()),
    ]);
    Ok(Report::ok(text, json!({ "registered": record })))
}

async fn publish(context: &Context<'_>, arguments: &PublishArgs) -> Result<Report, Failure> {
    let store = context.profile.store_url(arguments.store.as_deref())?;
    let shelf = shelf(context)?;
    let model = &arguments.model;
    // KeyService first: nothing is sealed for one that is not accepted or not there.
    let (mut keyservice, _) = context.keyservice().await?;
    let version = match arguments.version {
        Some(version) => ModelVersion(version),
        None => {
            let registered = registered_versions(&mut keyservice, model).await?;
            next_version(
                &shelf,
                model,
                registered.last().map(|(version, _)| *version),
            )?
        }
    };
    let package = pack(context, &arguments.onnx, &arguments.options)?;
    let layout = |source| ModelError::Package {
        path: arguments.onnx.clone(),
        source,
    };
    let head = package.manifest.head().map_err(layout)?.len() as u64;
    let len = head + package.manifest.graph_len + package.manifest.weights_len;
    let mut plain = package.reader().map_err(layout)?;
    let pushed = seal_and_push(context, &shelf, store, model, version, (&mut plain, len)).await?;
    let step = context.progress.step("register", None);
    let record = keyservice.owner().register(&shelf, &pushed).await?;
    step.done(None);
    let next = format!("sesemi grant add {model} --user PRINCIPAL");
    let rest = [("owner", record.owner.to_string()), ("next", next)];
    let text = fields(pushed_fields(&pushed, store).into_iter().chain(rest));
    let json = json!({
        "pushed": pushed, "store": store, "registered": record,
        "manifest": summary(&package.manifest),
    });
    Ok(Report::ok(text, json))
}

/// Versions and digests at KeyService, oldest first; none if it does not know the model.
async fn registered_versions(
    keyservice: &mut Keyservice,
    model: &ModelId,
) -> Result<Vec<(ModelVersion, protocol::Digest)>, KeyserviceError> {
    let mut versions = match keyservice.owner().versions(model).await {
        Ok(list) => list
            .models
            .iter()
            .map(|m| (m.version, m.digest))
            .collect::<Vec<_>>(),
        Err(error) if error.code() == ErrorCode::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    versions.sort_unstable();
    Ok(versions)
}

async fn list(context: &Context<'_>) -> Result<Report, Failure> {
    let (mut keyservice, _) = context.keyservice().await?;
    let list = keyservice.owner().models().await?;
    let rows = list.models.iter().map(|m| {
        [
            m.model.to_string(),
            m.version.to_string(),
            m.digest.to_string(),
        ]
    });
    Ok(Report::ok(
        table(["model", "version", "digest"], &["version"], rows),
        json!(list),
    ))
}

async fn versions(context: &Context<'_>, model: &ModelId) -> Result<Report, Failure> {
    let (mut keyservice, home) = context.keyservice().await?;
    let registered = registered_versions(&mut keyservice, model).await?;
    let here = ModelShelf::new(home.models()).versions(model)?;
    // version → (digest at KeyService, digest here)
    let mut versions: BTreeMap<ModelVersion, (Option<_>, Option<_>)> = BTreeMap::new();
    for (version, digest) in registered {
        versions.entry(version).or_default().0 = Some(digest);
    }
    for pushed in here {
        versions.entry(pushed.version).or_default().1 = Some(pushed.digest);
    }
    if versions.is_empty() {
        return Err(ModelError::NoVersion {
            model: model.clone(),
        }
        .into());
    }
    let rows = versions.iter().map(|(version, (registered, here))| {
        let digest = registered
            .or(*here)
            .map(|digest| digest.to_string())
            .unwrap_or_default();
        let same = match (registered, here) {
            (Some(a), Some(b)) if a != b => "ANOTHER DIGEST".to_owned(),
            (_, here) => yes_no(here.is_some()),
        };
        [
            version.to_string(),
            digest,
            yes_no(registered.is_some()),
            same,
        ]
    });
    let text = table(
        ["version", "digest", "registered", "key here"],
        &["version"],
        rows,
    );
    let json: Vec<_> = versions
        .iter()
        .map(|(version, (registered, here))| {
            json!({ "version": version, "registered": registered, "here": here })
        })
        .collect();
    Ok(Report::ok(
        text,
        json!({ "model": model, "versions": json }),
    ))
}
