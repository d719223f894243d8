//! `…/actions`: create, replace, read, list and delete.

use std::sync::Arc;

use http::StatusCode;
use protocol::openwhisk::{Action, ActionPut, ActionSummary, ExecSummary, find};
use serde_json::{Value, json};
use service::ErrorChain;

use super::query::Query;
use super::{BODY_MAX, Call, Gateway, Reject, Reply, Tenant};
use crate::functions::{Function, PutError};
use crate::ids;
use crate::invocation::{Invocation, millis};
use crate::json::Json;

impl Gateway {
    pub(super) async fn put_action(
        &self,
        mut call: Call,
        tenant: &Tenant,
        name: &str,
        query: &Query,
    ) -> Result<Reply, Reject> {
        let overwrite = query.flag("overwrite", false)?;
        let body = self.read_body(&mut call, BODY_MAX).await?;
        let put: ActionPut = if body.is_empty() {
            ActionPut::default()
        } else {
            serde_json::from_slice(&body).map_err(Reject::malformed)?
        };
        let (functions, namespace) = (self.functions.clone(), tenant.namespace.clone());
        let (name, now) = (name.to_owned(), millis(self.clock.now()));
        let write = move || functions.put(&namespace, &name, put, overwrite, now);
        let written = tokio::task::spawn_blocking(write)
            .await
            .map_err(|_| Reject::internal())?;
        let (function, before) = written.map_err(|error| refused(&error))?;
        if let Some(before) = before {
            self.pool.retire(&before);
        }
        for _ in 0..prewarmed(&function.action) {
            self.prewarm(&function, tenant, &call.request_id)?;
        }
        Reply::ok(&function.action)
    }

    /// Starts one instance in the background.
    fn prewarm(
        &self,
        function: &Arc<Function>,
        tenant: &Tenant,
        request_id: &str,
    ) -> Result<(), Reject> {
        let invocation = Invocation {
            function: function.clone(),
            activation_id: ids::activation_id().map_err(|_| Reject::internal())?,
            request_id: request_id.to_owned(),
            namespace: tenant.namespace.clone(),
            api_key: tenant.key.clone(),
            value: Json::empty(),
            prefers: None,
            received: self.clock.monotonic(),
        };
        let invoker = self.invoker.clone();
        self.tracker
            .spawn(async move { invoker.prewarm(invocation).await });
        Ok(())
    }

    pub(super) fn fetch_action(
        &self,
        tenant: &Tenant,
        name: &str,
        query: &Query,
    ) -> Result<Reply, Reject> {
        let with_code = query.flag("code", true)?;
        let found = self.functions.find(&tenant.namespace, name);
        let function = found.ok_or_else(Reject::not_found)?;
        if with_code || function.action.exec.code.is_none() {
            return Reply::ok(&function.action);
        }
        let mut action = function.action.clone();
        action.exec.code = None;
        Reply::ok(&action)
    }

    pub(super) fn list_actions(&self, tenant: &Tenant, query: &Query) -> Result<Reply, Reject> {
        let (limit, skip) = (query.limit("actions")?, query.skip("actions")?);
        let functions = self.functions.list(&tenant.namespace);
        if query.flag("count", false)? {
            return Reply::ok(&json!({"actions": functions.len().saturating_sub(skip)}));
        }
        let page = functions.iter().skip(skip).take(limit);
        Reply::ok(
            &page
                .map(|function| summary(&function.action))
                .collect::<Vec<_>>(),
        )
    }

    pub(super) async fn delete_action(&self, tenant: &Tenant, name: &str) -> Result<Reply, Reject> {
        let (functions, namespace) = (self.functions.clone(), tenant.namespace.clone());
        let name = name.to_owned();
        let delete = move || functions.delete(&namespace, &name);
        let deleted = tokio::task::spawn_blocking(delete)
            .await
            .map_err(|_| Reject::internal())?;
        let deleted = deleted.map_err(|error| {
            tracing::error!(%error, "cannot delete an action from the state folder");
            Reject::internal()
        })?;
        let function = deleted.ok_or_else(Reject::not_found)?;
        self.pool.retire(&function);
        Reply::ok(&function.action)
    }
}

/// Annotation of this platform: instances to start when the action is written.
const PREWARM: &str = "prewarm";
/// More are not started ahead for one action.
const PREWARM_MAX: u64 = 64;

fn prewarmed(action: &Action) -> u64 {
    let wanted = find(&action.annotations, PREWARM).and_then(Value::as_u64);
    wanted.unwrap_or_default().min(PREWARM_MAX)
}

fn refused(error: &PutError) -> Reject {
    let status = match error {
        PutError::Exists => StatusCode::CONFLICT,
        PutError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        PutError::TooMany { .. } | PutError::Image { .. } => StatusCode::FORBIDDEN,
        PutError::NoImage | PutError::Kind { .. } => return Reject::malformed(error),
        PutError::NoExec | PutError::Limit(_) => StatusCode::BAD_REQUEST,
        PutError::Store(_) => {
            tracing::error!(error = %ErrorChain(error), "cannot store an action");
            return Reject::internal();
        }
    };
    Reject::new(status, error.to_string())
}

fn summary(action: &Action) -> ActionSummary {
    ActionSummary {
        namespace: action.namespace.clone(),
        name: action.name.clone(),
        version: action.version.clone(),
        publish: action.publish,
        exec: ExecSummary {
            binary: action.exec.binary.unwrap_or(false),
        },
        limits: action.limits,
        annotations: action.annotations.clone(),
        updated: action.updated,
    }
}
