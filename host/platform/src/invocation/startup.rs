//! A cold start: make the sandbox, wait for its server, initialise it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::action::{InitRequest, InitValue};
use protocol::openwhisk::KeyValue;
use serde_json::Value;
use service::ErrorChain;

use super::{Invocation, Invoker, NotStarted, Started, silence};
use crate::config::Image;
use crate::pool::{Instance, Lease};
use crate::sandbox::call::Caller;
use crate::sandbox::{Listening, Sandbox, SandboxSpec, StartError};
use crate::verdict::{Answer, PROVISION_ERROR, judge_init, platform_fault};

/// Ports that are tried for one instance, if strangers take them.
const PORTS_MAX: u32 = 3;

/// A sandbox whose server listens.
struct Open {
    sandbox: Arc<dyn Sandbox>,
    address: SocketAddr,
}

/// Why there is none.
enum NotOpen {
    /// The platform's fault.
    Platform,
    /// The image's: it ended, or did not listen in time.
    Image(Answer),
}

impl Invoker {
    /// Starts and initialises the lease's instance. Making the sandbox counts as waiting; waiting
    /// for its server and `/init` share the function's time limit, as in OpenWhisk.
    pub(super) async fn start(
        &self,
        invocation: &Invocation,
        lease: &Lease,
    ) -> Result<Started, NotStarted> {
        let instance = &lease.instance;
        let fault = |begun| NotStarted {
            verdict: platform_fault(PROVISION_ERROR),
            begun,
            init: None,
        };
        let Some((spec, image)) = self.spec(instance) else {
            tracing::error!(function = %instance.function.key, "its image is not configured");
            return Err(fault(self.clock.monotonic()));
        };
        let sandbox = match self.make(instance, &spec).await {
            Ok(sandbox) => sandbox,
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "cannot start a sandbox");
                return Err(fault(self.clock.monotonic()));
            }
        };
        let begun = self.clock.monotonic();
        let limit = invocation.limit();
        let opened = tokio::time::timeout(limit, self.open(instance, &spec, sandbox)).await;
        let took = || self.clock.monotonic().saturating_sub(begun);
        let (answer, caller) = match opened.unwrap_or(Err(NotOpen::Image(Answer::TimedOut))) {
            Err(NotOpen::Platform) => return Err(fault(begun)),
            Err(NotOpen::Image(answer)) => (answer, None),
            Ok(Open { sandbox, address }) => {
                let caller = Arc::new(Caller::new(address, image.keep_alive));
                let rest = limit.saturating_sub(took());
                let body = self.init_body(invocation, limit).into();
                let answer = self
                    .call(&caller, Some(&*sandbox), "/init", body, rest)
                    .await;
                (answer, Some(caller))
            }
        };
        match (judge_init(&answer, limit), caller) {
            (Ok(()), Some(caller)) => {
                lease.ready(caller.clone());
                Ok(Started {
                    caller,
                    init: Some((begun, took())),
                })
            }
            (Ok(()), None) => Err(fault(begun)),
            (Err(verdict), _) => Err(NotStarted {
                verdict: *verdict,
                begun,
                init: Some(took()),
            }),
        }
    }

    async fn make(
        &self,
        instance: &Instance,
        spec: &SandboxSpec,
    ) -> Result<Arc<dyn Sandbox>, StartError> {
        self.pool.start_sandbox(instance, spec).await
    }

    /// Waits for the sandbox's server; if a stranger took its port, starts it again on another.
    async fn open(
        &self,
        instance: &Instance,
        spec: &SandboxSpec,
        mut sandbox: Arc<dyn Sandbox>,
    ) -> Result<Open, NotOpen> {
        for _ in 0..PORTS_MAX {
            match sandbox.listening().await {
                Listening::At(address) => return Ok(Open { sandbox, address }),
                Listening::Ended => return Err(NotOpen::Image(silence(&*sandbox).await)),
                Listening::PortTaken => {
                    tracing::info!("a stranger took a sandbox's port, starting it again");
                    let again = self.make(instance, spec).await;
                    sandbox = again.map_err(|_| NotOpen::Platform)?;
                }
            }
        }
        Err(NotOpen::Platform)
    }

    fn spec(&self, instance: &Instance) -> Option<(SandboxSpec, &Image)> {
        let action = &instance.function.action;
        let image = self.images.get(action.exec.image.as_deref()?)?;
        let mut env = image.env.clone();
        env.insert("__OW_API_HOST".to_owned(), self.api_host.clone());
        let spec = SandboxSpec {
            command: image.command.clone(),
            env,
            memory_mb: action.limits.memory,
            label: format!("sesemi-{}-{}", std::process::id(), instance.id.0),
        };
        Some((spec, image))
    }

    fn init_body(&self, invocation: &Invocation, limit: Duration) -> Vec<u8> {
        let action = &invocation.function.action;
        let mut env: BTreeMap<String, String> = action
            .parameters
            .iter()
            .filter(|parameter| parameter.init)
            .map(|KeyValue { key, value, .. }| (key.clone(), as_text(value)))
            .collect();
        env.extend([
            ("__OW_NAMESPACE".to_owned(), invocation.namespace.clone()),
            ("__OW_ACTION_NAME".to_owned(), invocation.path()),
            ("__OW_ACTION_VERSION".to_owned(), action.version.clone()),
            (
                "__OW_ACTIVATION_ID".to_owned(),
                invocation.activation_id.clone(),
            ),
            (
                "__OW_TRANSACTION_ID".to_owned(),
                invocation.request_id.clone(),
            ),
            ("__OW_DEADLINE".to_owned(), self.deadline(limit)),
        ]);
        env.extend(
            invocation
                .api_key()
                .map(|key| ("__OW_API_KEY".to_owned(), key)),
        );
        let request = InitRequest {
            value: InitValue {
                name: action.name.clone(),
                main: action
                    .exec
                    .main
                    .clone()
                    .unwrap_or_else(|| "main".to_owned()),
                binary: action.exec.binary.unwrap_or(false),
                code: action.exec.code.clone(),
                env,
            },
        };
        // Strings, a flag and a map of strings always have a JSON form.
        serde_json::to_vec(&request).unwrap_or_default()
    }
}

/// An init parameter as an environment variable: text as it is, null as nothing, the rest as JSON.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_parameters_become_text_as_openwhisk_writes_them() {
        for (value, text) in [
            (json!("a b"), "a b"),
            (json!(null), ""),
            (json!(true), "true"),
            (json!(1.5), "1.5"),
            (json!({"a": [1, 2]}), "{\"a\":[1,2]}"),
        ] {
            assert_eq!(as_text(&value), text);
        }
    }
}
