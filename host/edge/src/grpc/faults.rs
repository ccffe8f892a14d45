//! Trouble made on purpose.

use std::{sync::Arc, time::Duration};

use llambo_orchestrator::{ActiveFault, Fault, FaultError, FaultKind};
use llambo_proto::{
    status::Failure,
    v1::{self, faults_server::Faults},
};
use tonic::{Request, Response, Status};

use super::{invalid, invalid_field};
use crate::Host;

/// Names in one fault.
const MAX_NODES: usize = 10_000;
const DELAYS_MS: std::ops::RangeInclusive<u32> = 1..=600_000;

pub(super) struct Service {
    pub(super) host: Arc<Host>,
}

#[tonic::async_trait]
impl Faults for Service {
    async fn inject_fault(&self, request: Request<v1::InjectFaultRequest>) -> Result<Response<v1::InjectFaultResponse>, Status> {
        let fault = request.into_inner().fault.ok_or_else(|| invalid("there is no `fault`; say what is to happen"))?;
        let number = self.host.cluster.inject_fault(read(fault)?).map_err(refused)?;
        Ok(Response::new(v1::InjectFaultResponse { number }))
    }

    async fn list_faults(&self, _: Request<v1::ListFaultsRequest>) -> Result<Response<v1::ListFaultsResponse>, Status> {
        let faults = self.host.cluster.faults().into_iter().map(told).collect();
        Ok(Response::new(v1::ListFaultsResponse { faults }))
    }

    async fn clear_faults(&self, request: Request<v1::ClearFaultsRequest>) -> Result<Response<v1::ClearFaultsResponse>, Status> {
        let cleared = self.host.cluster.clear_faults(&request.into_inner().numbers);
        Ok(Response::new(v1::ClearFaultsResponse { cleared: u32::try_from(cleared).unwrap_or(u32::MAX) }))
    }
}

fn read(wire: v1::Fault) -> Result<Fault, Status> {
    let v1::Fault { kind, nodes, r#type, share, after_pieces, times, delay_ms } = wire;
    let kind = match kind.as_str() {
        "slow" if DELAYS_MS.contains(&delay_ms) => FaultKind::Slow(Duration::from_millis(delay_ms.into())),
        "slow" => return Err(invalid_field("fault.delay_ms", delay_ms, "between 1 and 600000 where the kind is `slow`")),
        _ if delay_ms > 0 => return Err(invalid_field("fault.delay_ms", delay_ms, "left out where the kind is not `slow`")),
        "drop" => FaultKind::Drop,
        "trap" => FaultKind::Trap,
        "stall" => FaultKind::Stall,
        other => {
            let found: String = other.chars().take(32).collect();
            return Err(invalid_field("fault.kind", format!("{found:?}"), "one of slow, drop, trap, stall"));
        }
    };
    if !(0.0..=1.0).contains(&share) {
        return Err(invalid_field("fault.share", share, "above 0 and at most 1, or 0 for all requests"));
    }
    if nodes.len() > MAX_NODES {
        return Err(invalid_field("fault.nodes", format!("a list of {}", nodes.len()), "at most 10000 names"));
    }
    Ok(Fault {
        kind,
        nodes: nodes.into_iter().map(Into::into).collect(),
        node_type: (!r#type.is_empty()).then(|| r#type.into()),
        share: if share > 0.0 { share } else { 1.0 },
        after_pieces,
        times: (times > 0).then_some(times),
    })
}

fn told(active: ActiveFault) -> v1::ActiveFault {
    let ActiveFault { number, fault, n_happened } = active;
    let delay_ms = match fault.kind {
        FaultKind::Slow(delay) => u32::try_from(delay.as_millis()).unwrap_or(u32::MAX),
        _ => 0,
    };
    let wire = v1::Fault {
        kind: fault.kind.as_str().to_owned(),
        nodes: fault.nodes.iter().map(ToString::to_string).collect(),
        r#type: fault.node_type.map(|name| name.to_string()).unwrap_or_default(),
        share: fault.share,
        after_pieces: fault.after_pieces,
        times: fault.times.unwrap_or(0),
        delay_ms,
    };
    v1::ActiveFault { number, fault: Some(wire), happened: n_happened }
}

fn refused(error: FaultError) -> Status {
    let reason = match error {
        FaultError::NotAllowed => "NOT_PERMITTED",
        FaultError::TooMany => "TOO_MANY_FAULTS",
    };
    Failure::new(reason, error.to_string()).into_status()
}
