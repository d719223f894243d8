//! `POST …/actions/NAME`: one invocation, waited for or not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use protocol::openwhisk::{ACTIVATION_ID_HEADER, Accepted, Action, BLOCKING_WAIT_MAX_MS, find};
use serde_json::{Map, Value};
use service::in_place;

use super::query::Query;
use super::{Call, Gateway, Reject, Reply, Tenant};
use crate::activations::Activation;
use crate::ids;
use crate::invocation::{INSTANCE_HEADER, Invocation};
use crate::json::{Json, Kind};
use crate::scheduler::InstanceId;
use crate::throttle::{Throttle, Throttled};

/// How the caller wants to be answered.
struct Wanted {
    blocking: bool,
    result_only: bool,
    wait: Duration,
}

impl Gateway {
    pub(super) async fn invoke(
        &self,
        mut call: Call,
        tenant: &Tenant,
        name: &str,
        query: &Query,
    ) -> Result<Reply, Reject> {
        let wanted = wanted(query)?;
        let body = self.read_body(&mut call, self.rules.payload_max).await?;
        let found = self.functions.find(&tenant.namespace, name);
        let function = found.ok_or_else(Reject::not_found)?;
        let value = merge(&function.action, payload(&call, &body)?)?;
        let place = self.enter(&tenant.namespace)?;
        let activation_id = ids::activation_id().map_err(|error| {
            tracing::error!(%error, "cannot name an activation");
            Reject::internal()
        })?;
        let invocation = Invocation {
            function,
            activation_id: activation_id.clone(),
            request_id: call.request_id,
            namespace: tenant.namespace.clone(),
            api_key: tenant.key.clone(),
            value,
            prefers: prefers(&call.headers)?,
            received: call.received,
        };
        let invoker = self.invoker.clone();
        // It goes on when its caller leaves, or waits no longer.
        let work = in_place(&self.tracker, async move {
            let record = invoker.perform(invocation).await;
            drop(place);
            record
        });
        let reply = if wanted.blocking {
            match tokio::time::timeout(wanted.wait, work).await {
                Ok(record) => answered(&record, wanted.result_only),
                Err(_) => accepted(&activation_id),
            }
        } else {
            drop(work);
            accepted(&activation_id)
        };
        let id = HeaderValue::from_str(&activation_id).map_err(|_| Reject::internal())?;
        reply.map(|reply| reply.with(HeaderName::from_static(ACTIVATION_ID_HEADER), id))
    }

    fn enter(&self, namespace: &str) -> Result<InFlight, Reject> {
        let now = self.clock.monotonic();
        self.throttle().enter(namespace, now).map_err(|error| {
            self.metrics.throttled();
            let seconds = match error {
                Throttled::Rate { .. } => Throttle::retry_after(now),
                Throttled::AtOnce { .. } => 1,
            };
            let reject = Reject::new(StatusCode::TOO_MANY_REQUESTS, error.to_string());
            reject.with(header::RETRY_AFTER, HeaderValue::from(seconds))
        })?;
        Ok(InFlight {
            throttle: self.throttle.clone(),
            namespace: namespace.to_owned(),
        })
    }
}

/// One admitted invocation; dropping it leaves.
struct InFlight {
    throttle: Arc<Mutex<Throttle>>,
    namespace: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.leave(&self.namespace);
    }
}

/// The instance that the caller names.
fn prefers(headers: &HeaderMap) -> Result<Option<InstanceId>, Reject> {
    let Some(named) = headers.get(INSTANCE_HEADER) else {
        return Ok(None);
    };
    let id = named.to_str().ok().and_then(|text| text.parse().ok());
    let id = id.ok_or_else(|| {
        let text = format!("The header {INSTANCE_HEADER} is not an instance of a record.");
        Reject::bad_request(text)
    })?;
    Ok(Some(InstanceId(id)))
}

fn wanted(query: &Query) -> Result<Wanted, Reject> {
    let blocking = query.flag("blocking", false)?;
    let result_only = query.flag("result", false)?;
    let wait = match query.text("timeout") {
        None => BLOCKING_WAIT_MAX_MS,
        Some(text) => {
            let ms = text
                .parse()
                .ok()
                .filter(|ms| (1..=BLOCKING_WAIT_MAX_MS).contains(ms));
            let range =
                format!("Timeout must be number of milliseconds up to {BLOCKING_WAIT_MAX_MS}.");
            ms.ok_or_else(|| Reject::query("timeout", range))?
        }
    };
    Ok(Wanted {
        blocking,
        result_only,
        wait: Duration::from_millis(wait),
    })
}

/// The body, which must be an object; none is an empty one.
fn payload(call: &Call, body: &[u8]) -> Result<Json, Reject> {
    if body.is_empty() {
        return Ok(Json::empty());
    }
    let kind = call
        .headers
        .get(header::CONTENT_TYPE)
        .map(HeaderValue::as_bytes);
    if kind.is_some_and(|kind| !kind.to_ascii_lowercase().starts_with(b"application/json")) {
        let text = "The request's Content-Type is not supported. Expected:\napplication/json";
        return Err(Reject::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let json = Json::parse(body).map_err(Reject::malformed)?;
    if json.kind() == Kind::Object {
        Ok(json)
    } else {
        Err(Reject::malformed("a JSON object is expected"))
    }
}

/// The action's parameters, then the payload. What belongs to `/init` goes to no `/run`. A payload
/// that stays as it is is not even taken apart.
fn merge(action: &Action, payload: Json) -> Result<Json, Reject> {
    let is_final = find(&action.annotations, "final").is_some_and(|v| *v == Value::Bool(true));
    let defined = |p: &&protocol::openwhisk::KeyValue| !p.value.is_null();
    let parameters = &action.parameters;
    let names = |name: &str| parameters.iter().any(|p| p.key == name);
    let named = payload.find(names).map_err(Reject::malformed)?.is_some();
    if !named && parameters.iter().all(|p| p.init) {
        return Ok(payload);
    }
    let payload: Map<String, Value> =
        serde_json::from_str(payload.text()).map_err(Reject::malformed)?;
    if is_final
        && parameters
            .iter()
            .filter(defined)
            .any(|p| payload.contains_key(&p.key))
    {
        return Err(Reject::bad_request(
            "Request defines parameters that are not allowed (e.g., reserved properties).",
        ));
    }
    let for_run = parameters.iter().filter(|p| !p.init);
    let mut merged: Map<_, _> = for_run.map(|p| (p.key.clone(), p.value.clone())).collect();
    merged.extend(payload);
    for parameter in parameters.iter().filter(|p| p.init) {
        merged.remove(&parameter.key);
    }
    Ok(Json::from(&merged))
}

fn accepted(activation_id: &str) -> Result<Reply, Reject> {
    let body = Accepted {
        activation_id: activation_id.to_owned(),
    };
    Reply::json(StatusCode::ACCEPTED, &body)
}

/// The record, or its result alone; an array is always alone.
fn answered(record: &Activation, result_only: bool) -> Result<Reply, Reject> {
    let response = &record.response;
    let status = response.outcome().http_status();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if result_only || response.result.kind() == Kind::Array {
        return Reply::json(status, &response.result);
    }
    Reply::json(status, record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::openwhisk::{ActionLimits, Exec, KeyValue};
    use serde_json::json;

    fn action(parameters: Vec<KeyValue>, annotations: Vec<KeyValue>) -> Action {
        Action {
            namespace: "guest".into(),
            name: "a".into(),
            version: "0.0.1".into(),
            publish: false,
            exec: Exec::blackbox("i"),
            parameters,
            limits: ActionLimits {
                timeout: 1,
                memory: 1,
                logs: 1,
                concurrency: 1,
            },
            annotations,
            updated: 0,
        }
    }

    fn object(value: &Value) -> Json {
        Json::parse(value.to_string().as_bytes()).unwrap()
    }

    fn merged(action: &Action, payload: &Value) -> Value {
        serde_json::from_str(merge(action, object(payload)).unwrap().text()).unwrap()
    }

    #[test]
    fn a_final_parameter_cannot_be_set_by_the_caller() {
        let parameters = vec![KeyValue::new("a", 1), KeyValue::new("open", Value::Null)];
        let it = action(parameters, vec![KeyValue::new("final", true)]);
        let refused = merge(&it, object(&json!({"a": 2}))).unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(merged(&it, &json!({"open": 2})), json!({"a": 1, "open": 2}));
    }

    #[test]
    fn the_payload_overrides_parameters_and_init_parameters_stay_out() {
        let parameters = vec![
            KeyValue::new("a", 1),
            KeyValue::new("b", 1),
            KeyValue::for_init("E", "x"),
        ];
        let it = action(parameters, vec![]);
        let merged = merged(&it, &json!({"b": 2, "c": 3, "E": "y"}));
        assert_eq!(merged, json!({"a": 1, "b": 2, "c": 3}));
    }

    #[test]
    fn a_payload_beside_init_parameters_only_is_passed_on_as_it_came() {
        let it = action(vec![KeyValue::for_init("E", "x")], vec![]);
        let spaced = Json::parse(b"{ \"a\" : 1.50 }").unwrap();
        assert_eq!(merge(&it, spaced.clone()).unwrap(), spaced);
        assert_eq!(merged(&it, &json!({"E": 1, "a": 2})), json!({"a": 2}));
    }
}
