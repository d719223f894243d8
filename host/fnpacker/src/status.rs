//! The account of the pools that `GET /v1/status` gives.

use protocol::invoke::micros;
use protocol::{EnclaveId, ModelId};
use serde::Serialize;

use crate::packing::{EndpointId, ModelKey, Packing};
use crate::pools::Pool;
use crate::router::Router;

/// Everything, as of now.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pools: Vec<PoolStatus>,
}

#[derive(Debug, Serialize)]
struct PoolStatus {
    name: String,
    enclave: EnclaveId,
    policy: &'static str,
    queued: usize,
    in_flight: u32,
    /// Medians of what was seen lately, in microseconds; absent before anything was.
    costs_us: CostStatus,
    endpoints: Vec<EndpointStatus>,
}

#[derive(Debug, Serialize)]
struct CostStatus {
    start: Option<u64>,
    switch: Option<u64>,
    exec: Option<u64>,
}

#[derive(Debug, Serialize)]
struct EndpointStatus {
    function: String,
    /// The platform was seen to have it, as it should be.
    deployed: bool,
    /// Whether it is given requests.
    ready: bool,
    in_flight: u32,
    /// Requests that wait for this endpoint and not for any.
    queued: u32,
    /// Instances being started ahead of need.
    starting: u32,
    last_model: Option<ModelId>,
    /// Since the last dispatch or answer.
    idle_us: Option<u64>,
    counts: CountStatus,
    /// The most recently used first.
    instances: Vec<InstanceStatus>,
}

#[derive(Debug, Serialize)]
struct CountStatus {
    cold: u64,
    warm: u64,
    hot: u64,
    refused: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct InstanceStatus {
    instance: String,
    /// Believed resident, the most recently used first.
    models: Vec<ModelId>,
    idle_us: u64,
}

pub(crate) fn status(router: &Router) -> Status {
    let mut pools: Vec<_> = router.pools().map(|pool| pool_status(pool)).collect();
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    Status { pools }
}

fn pool_status(pool: &Pool) -> PoolStatus {
    pool.inspect(|packing, now| {
        let costs = packing.fleet().costs();
        let all = costs.of_all();
        PoolStatus {
            name: pool.config.name.clone(),
            enclave: pool.config.enclave,
            policy: packing.policy_name(),
            queued: packing.queued(),
            in_flight: packing.fleet().in_flight(),
            costs_us: CostStatus {
                start: costs.start().median().map(micros),
                switch: all.switch.median().map(micros),
                exec: all.exec.median().map(micros),
            },
            endpoints: (0..)
                .map(EndpointId)
                .zip(&pool.functions)
                .filter_map(|(id, function)| {
                    let deployed = function.deployed().initialized();
                    endpoint_status(packing, id, function.spec.name.clone(), deployed, now)
                })
                .collect(),
        }
    })
}

fn endpoint_status(
    packing: &Packing,
    id: EndpointId,
    function: String,
    deployed: bool,
    now: std::time::Duration,
) -> Option<EndpointStatus> {
    let endpoint = packing.fleet().endpoint(id)?;
    let model = |key: &ModelKey| packing.model_name(*key).cloned();
    let since = |at| micros(now.saturating_sub(at));
    Some(EndpointStatus {
        function,
        deployed,
        ready: endpoint.ready,
        in_flight: endpoint.in_flight,
        queued: endpoint.awaited,
        starting: endpoint.starting,
        last_model: endpoint.last_model.as_ref().and_then(model),
        idle_us: endpoint.last_use.map(since),
        counts: CountStatus {
            cold: endpoint.counts.cold,
            warm: endpoint.counts.warm,
            hot: endpoint.counts.hot,
            refused: endpoint.counts.refused,
            failed: endpoint.counts.failed,
        },
        instances: endpoint
            .instances
            .iter()
            .map(|instance| InstanceStatus {
                instance: instance.id.to_string(),
                models: instance.resident.iter().filter_map(model).collect(),
                idle_us: since(instance.last_use),
            })
            .collect(),
    })
}
