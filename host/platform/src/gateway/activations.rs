//! `…/activations`: list, record, logs, result.

use protocol::openwhisk::ActivationLogs;
use serde_json::json;

use super::query::Query;
use super::{Gateway, Reject, Reply, Tenant};
use crate::activations::{Activation, Filter};
use crate::ids::check_activation_id;

impl Gateway {
    pub(super) fn route_activations(
        &self,
        tenant: &Tenant,
        rest: &[String],
        query: &Query,
    ) -> Result<Reply, Reject> {
        let Some((id, rest)) = rest.split_first() else {
            return self.list_activations(tenant, query);
        };
        check_activation_id(id).map_err(Reject::bad_request)?;
        let find = || {
            self.activations
                .find(&tenant.namespace, id)
                .ok_or_else(Reject::not_found)
        };
        let rest: Vec<_> = rest.iter().map(String::as_str).collect();
        match rest.as_slice() {
            [] => Reply::ok(&find()?),
            ["logs"] => {
                let Activation { logs, .. } = find()?;
                Reply::ok(&ActivationLogs { logs })
            }
            ["result"] => Reply::ok(&find()?.response),
            _ => Err(Reject::no_route()),
        }
    }

    fn list_activations(&self, tenant: &Tenant, query: &Query) -> Result<Reply, Reject> {
        let namespace = &tenant.namespace;
        let (limit, skip) = (query.limit("activations")?, query.skip("activations")?);
        let (docs, count) = (query.flag("docs", false)?, query.flag("count", false)?);
        let filter = Filter {
            name: name_filter(query)?,
            since: query.epoch_ms("since")?,
            upto: query.epoch_ms("upto")?,
        };
        match (count, docs) {
            (true, true) => Err(Reject::bad_request(
                "The parameter 'docs' is not permitted with 'count'.",
            )),
            (true, false) => {
                let count = self.activations.count(namespace, &filter, skip);
                Reply::ok(&json!({"activations": count}))
            }
            (false, true) => {
                Reply::ok(&self.activations.list_whole(namespace, &filter, skip, limit))
            }
            (false, false) => Reply::ok(&self.activations.list(namespace, &filter, skip, limit)),
        }
    }
}

/// A simple name, or `package/name`, which matches nothing here.
fn name_filter(query: &Query) -> Result<Option<String>, Reject> {
    let Some(name) = query.text("name").filter(|name| !name.trim().is_empty()) else {
        return Ok(None);
    };
    if name.split('/').count() <= 2 {
        return Ok(Some(name.to_owned()));
    }
    let why = format!("Parameter may be a 'simple' name or 'package-name/simple' name: {name}");
    Err(Reject::query("name", why))
}
