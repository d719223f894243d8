//! Functions ("actions" in the API): created, merged, listed, deleted; durable in the state folder.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use protocol::openwhisk::{Action, ActionLimits, ActionPut, BLACKBOX, Exec, KeyValue, LimitsPatch};
use serde_json::Value;

use crate::config::LimitRules;
use crate::scheduler::FunctionKey;

/// A function at one revision.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) action: Action,
    /// Distinguishes this revision from every other.
    pub(crate) key: FunctionKey,
    /// Number of its file in the state folder.
    file: u64,
    /// Replaced or deleted.
    retired: AtomicBool,
}

impl Function {
    fn new(action: Action, file: u64) -> Self {
        let Action {
            namespace,
            name,
            version,
            updated,
            ..
        } = &action;
        let key = format!("{namespace}/{name}@{version}#{updated}").into();
        let retired = AtomicBool::new(false);
        Self {
            action,
            key,
            file,
            retired,
        }
    }

    /// It was replaced or deleted; invocations that found it before may still come.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    #[must_use]
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

/// Why a `PUT` was refused. The texts are OpenWhisk's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    #[error("resource already exists")]
    Exists,
    #[error("exec undefined")]
    NoExec,
    #[error("'image' must be a string defined in 'exec' for 'blackbox' actions")]
    NoImage,
    #[error(
        "The specified runtime '{kind}' is not supported by this platform. Valid values are: \
         'blackbox'."
    )]
    Kind { kind: String },
    #[error(
        "The image '{image}' is not configured on this platform. Valid values are: {}.",
        known.iter().map(|k| format!("'{k}'")).collect::<Vec<_>>().join(", ")
    )]
    Image { image: String, known: Vec<String> },
    #[error("{0}")]
    Limit(String),
    #[error("{field} larger than allowed: {is} > {allowed} bytes.")]
    TooLarge {
        field: &'static str,
        is: usize,
        allowed: usize,
    },
    #[error("Too many actions in the namespace (allowed: {allowed}).")]
    TooMany { allowed: usize },
    #[error("keep the action in the state folder")]
    Store(#[source] std::io::Error),
}

/// Reading the state folder failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("read the state folder {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("parse the stored action {}", path.display())]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// All functions of all namespaces.
#[derive(Debug)]
pub(crate) struct Functions {
    folder: PathBuf,
    rules: LimitRules,
    images: Vec<String>,
    /// By namespace and name.
    functions: RwLock<BTreeMap<(String, String), Arc<Function>>>,
}

impl Functions {
    /// Opens the state folder, which is made if it is absent.
    pub(crate) fn open(
        folder: &Path,
        rules: LimitRules,
        images: Vec<String>,
    ) -> Result<Self, LoadError> {
        let folder = folder.join("actions");
        let fail = |source| LoadError::Read {
            path: folder.clone(),
            source,
        };
        std::fs::create_dir_all(&folder).map_err(fail)?;
        let mut functions = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            let (Some(file), true) = (number, path.extension().is_some_and(|e| e == "json")) else {
                continue;
            };
            let text = std::fs::read(&path).map_err(|source| LoadError::Read {
                path: path.clone(),
                source,
            })?;
            let action: Action =
                serde_json::from_slice(&text).map_err(|source| LoadError::Parse {
                    path: path.clone(),
                    source,
                })?;
            let id = (action.namespace.clone(), action.name.clone());
            functions.insert(id, Arc::new(Function::new(action, file)));
        }
        Ok(Self {
            folder,
            rules,
            images,
            functions: RwLock::new(functions),
        })
    }

    /// The current revision.
    #[must_use]
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Function>> {
        let functions = self
            .functions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        functions
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Creates or replaces a function, durably. Returns the new revision and the one before.
    pub(crate) fn put(
        &self,
        namespace: &str,
        name: &str,
        put: ActionPut,
        overwrite: bool,
        now_ms: u64,
    ) -> Result<(Arc<Function>, Option<Arc<Function>>), PutError> {
        let id = (namespace.to_owned(), name.to_owned());
        // Writers are serialised over the file as well: memory and disk agree on who was last.
        let mut functions = self
            .functions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = functions.get(&id).cloned();
        if before.is_some() && !overwrite {
            return Err(PutError::Exists);
        }
        let mine = functions.keys().filter(|(ns, _)| ns == namespace).count();
        if before.is_none() && mine >= self.rules.max_actions {
            return Err(PutError::TooMany {
                allowed: self.rules.max_actions,
            });
        }
        let mut action = match &before {
            None => self.create(namespace, name, put)?,
            Some(before) => self.update(&before.action, put)?,
        };
        // Two revisions never share a time: it is part of the revision's key.
        let floor = before.as_ref().map_or(0, |b| b.action.updated + 1);
        action.updated = now_ms.max(floor);
        let file = before
            .as_ref()
            .map_or_else(|| next_file(&functions), |b| b.file);
        self.write(file, &action).map_err(PutError::Store)?;
        let function = Arc::new(Function::new(action, file));
        functions.insert(id, function.clone());
        Ok((function, before))
    }

    /// Deletes a function, durably. Returns what it was, if it was there.
    pub(crate) fn delete(
        &self,
        namespace: &str,
        name: &str,
    ) -> std::io::Result<Option<Arc<Function>>> {
        let id = (namespace.to_owned(), name.to_owned());
        let mut functions = self
            .functions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(function) = functions.get(&id) else {
            return Ok(None);
        };
        std::fs::remove_file(self.path(function.file))?;
        Ok(functions.remove(&id))
    }

    /// A namespace's functions, last updated first.
    #[must_use]
    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<Function>> {
        let functions = self
            .functions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = functions
            .iter()
            .filter(|((ns, _), _)| ns == namespace)
            .map(|(_, f)| f.clone())
            .collect();
        list.sort_by_key(|function| std::cmp::Reverse(function.action.updated));
        list
    }

    fn create(&self, namespace: &str, name: &str, put: ActionPut) -> Result<Action, PutError> {
        let exec = self.exec(put.exec.ok_or(PutError::NoExec)?)?;
        let limits = self.limits(self.rules.standard(), put.limits.unwrap_or_default())?;
        let mut annotations = unique(put.annotations.unwrap_or_default());
        if !annotations.iter().any(|a| a.key == PROVIDE_API_KEY) {
            annotations.push(KeyValue::new(PROVIDE_API_KEY, false));
        }
        set(&mut annotations, KeyValue::new("exec", exec.kind.as_str()));
        let parameters = unique(put.parameters.unwrap_or_default());
        self.check_sizes(&parameters, &annotations)?;
        Ok(Action {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version: put.version.unwrap_or_else(|| "0.0.1".to_owned()),
            publish: put.publish.unwrap_or(false),
            exec,
            parameters,
            limits,
            annotations,
            updated: 0,
        })
    }

    fn update(&self, before: &Action, put: ActionPut) -> Result<Action, PutError> {
        let exec = match put.exec {
            Some(exec) => self.exec(exec)?,
            None => before.exec.clone(),
        };
        let limits = self.limits(before.limits, put.limits.unwrap_or_default())?;
        let removed = put.del_annotations.unwrap_or_default();
        let mut annotations = before.annotations.clone();
        annotations.retain(|a| !removed.contains(&a.key));
        for annotation in put.annotations.unwrap_or_default() {
            set(&mut annotations, annotation);
        }
        set(&mut annotations, KeyValue::new("exec", exec.kind.as_str()));
        let parameters = put
            .parameters
            .map_or_else(|| before.parameters.clone(), unique);
        self.check_sizes(&parameters, &annotations)?;
        Ok(Action {
            version: put.version.unwrap_or_else(|| next_patch(&before.version)),
            publish: put.publish.unwrap_or(before.publish),
            exec,
            parameters,
            limits,
            annotations,
            ..before.clone()
        })
    }

    fn exec(&self, exec: Exec) -> Result<Exec, PutError> {
        let kind = exec.kind.trim().to_lowercase();
        if kind != BLACKBOX {
            return Err(PutError::Kind { kind });
        }
        let image = exec.image.ok_or(PutError::NoImage)?;
        if !self.images.contains(&image) {
            return Err(PutError::Image {
                image,
                known: self.images.clone(),
            });
        }
        let code = exec.code.filter(|code| !code.trim().is_empty());
        let is = code.as_ref().map_or(0, String::len);
        if is > self.rules.code_max {
            return Err(PutError::TooLarge {
                field: "Code",
                is,
                allowed: self.rules.code_max,
            });
        }
        let binary = Some(code.is_some() && exec.binary.unwrap_or(false));
        Ok(Exec {
            kind,
            image: Some(image),
            code,
            main: exec.main,
            binary,
            components: None,
        })
    }

    /// The limits after a patch; each value that the patch sets must be in its range.
    fn limits(&self, base: ActionLimits, patch: LimitsPatch) -> Result<ActionLimits, PutError> {
        let rules = &self.rules;
        let size = |name: &str, is: Option<u64>, (min, max): (u64, u64)| match is {
            Some(is) if is > max => Err(format!(
                "{name} size {is} MB exceeds allowed threshold of {max} MB"
            )),
            Some(is) if is < min => Err(format!(
                "{name} size {is} MB below allowed threshold of {min} MB"
            )),
            _ => Ok(()),
        };
        let time = |is: Option<u64>, (min, max): (u64, u64)| match is {
            Some(is) if is > max => Err(format!(
                "duration {is} milliseconds exceeds allowed threshold of {max} milliseconds"
            )),
            Some(is) if is < min => Err(format!(
                "duration {is} milliseconds below allowed threshold of {min} milliseconds"
            )),
            _ => Ok(()),
        };
        let concurrency = |is: Option<u32>, (min, max): (u32, u32)| match is {
            Some(is) if is > max => Err(format!(
                "concurrency {is} exceeds allowed threshold of {max}"
            )),
            Some(is) if is < min => {
                Err(format!("concurrency {is} below allowed threshold of {min}"))
            }
            _ => Ok(()),
        };
        size("memory", patch.memory, rules.memory_mb)
            .and_then(|()| time(patch.timeout, rules.timeout_ms))
            .and_then(|()| size("log", patch.logs, rules.logs_mb))
            .and_then(|()| concurrency(patch.concurrency, rules.concurrency))
            .map_err(PutError::Limit)?;
        Ok(ActionLimits {
            timeout: patch.timeout.unwrap_or(base.timeout),
            memory: patch.memory.unwrap_or(base.memory),
            logs: patch.logs.unwrap_or(base.logs),
            concurrency: patch.concurrency.unwrap_or(base.concurrency),
        })
    }

    fn check_sizes(
        &self,
        parameters: &[KeyValue],
        annotations: &[KeyValue],
    ) -> Result<(), PutError> {
        let allowed = self.rules.parameters_max;
        for (field, list) in [("Parameters", parameters), ("Annotations", annotations)] {
            let is = list
                .iter()
                .map(|kv| kv.key.len() + kv.value.to_string().len())
                .sum();
            if is > allowed {
                return Err(PutError::TooLarge { field, is, allowed });
            }
        }
        Ok(())
    }

    /// Files are numbered: names may be long, and have characters that file names should not.
    fn path(&self, file: u64) -> PathBuf {
        self.folder.join(format!("{file}.json"))
    }

    fn write(&self, file: u64, action: &Action) -> std::io::Result<()> {
        let path = self.path(file);
        let temporary = path.with_extension("tmp");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(action)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    }
}

fn next_file(functions: &BTreeMap<(String, String), Arc<Function>>) -> u64 {
    functions
        .values()
        .map(|f| f.file)
        .max()
        .unwrap_or(0)
        .saturating_add(1)
}

const PROVIDE_API_KEY: &str = "provide-api-key";

/// Whether `/init` gets the caller's key: the annotation is there and truthy.
#[must_use]
pub(crate) fn provides_api_key(action: &Action) -> bool {
    match protocol::openwhisk::find(&action.annotations, PROVIDE_API_KEY) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(b)) => *b,
        Some(Value::Number(n)) => n.as_f64() != Some(0.0),
        Some(Value::String(s)) => !s.is_empty(),
        Some(Value::Array(_) | Value::Object(_)) => true,
    }
}

fn set(list: &mut Vec<KeyValue>, entry: KeyValue) {
    list.retain(|e| e.key != entry.key);
    list.push(entry);
}

/// A later entry replaces an earlier one of the same key.
fn unique(list: Vec<KeyValue>) -> Vec<KeyValue> {
    let mut out = Vec::with_capacity(list.len());
    for entry in list {
        set(&mut out, entry);
    }
    out
}

/// `1.2.3` → `1.2.4`; what is no semantic version starts again.
fn next_patch(version: &str) -> String {
    let mut parts = version.rsplitn(2, '.');
    match (
        parts.next().and_then(|p| p.parse::<u64>().ok()),
        parts.next(),
    ) {
        (Some(patch), Some(rest)) => format!("{rest}.{}", patch.saturating_add(1)),
        _ => "0.0.1".to_owned(),
    }
}

#[cfg(test)]
mod tests;
