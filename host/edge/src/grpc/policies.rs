//! Policies, for those who load them.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures::{Stream, StreamExt, stream};
use llambo_proto::{
    status::Failure,
    v1::{self, policies_server::Policies, route_record::Event},
};
use llambo_strategy::{
    LoadedPolicy, NewPolicy, Place, PolicyDesk, PolicyError, PolicyKind, PolicyRef, PolicyStatus, Role, Source,
};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    task::spawn_blocking,
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    invalid, replay,
    route::{policy, record},
};
use crate::{
    Host,
    serve::{Closing, closed},
};

pub(super) struct Service {
    pub(super) host: Arc<Host>,
    pub(super) closing: Closing,
}

impl Service {
    /// Changes something on a thread that may wait.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&dyn PolicyDesk) -> Result<T, PolicyError> + Send + 'static,
    ) -> Result<T, Status> {
        let desk = Arc::clone(&self.host.policies);
        let changed = spawn_blocking(move || change(&*desk)).await;
        changed.map_err(|e| broke_off(&e))?.map_err(|e| refused(&e))
    }
}

#[tonic::async_trait]
impl Policies for Service {
    async fn load_policy(&self, request: Request<v1::LoadPolicyRequest>) -> Result<Response<v1::LoadPolicyResponse>, Status> {
        let new = new_policy(request.into_inner())?;
        let LoadedPolicy { policy, replaced, compile, dry_run_calls, dry_run_p50_ns } =
            self.change(|desk| desk.load(new)).await?;
        Ok(Response::new(v1::LoadPolicyResponse {
            policy: Some(status(&policy)),
            replaced: by(replaced),
            compile_ms: compile.as_secs_f64() * 1e3,
            dry_run_calls,
            dry_run_p50_ns,
        }))
    }

    async fn list_policies(&self, _: Request<v1::ListPoliciesRequest>) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let policies = self.host.policies.list();
        let is_live = |kind| policies.iter().any(|policy| (policy.kind, policy.policy.role) == (kind, Role::Live));
        let built_in = PolicyKind::ALL.into_iter().filter(|kind| !is_live(*kind)).map(|kind| kind.to_string()).collect();
        Ok(Response::new(v1::ListPoliciesResponse { policies: policies.iter().map(status).collect(), built_in }))
    }

    async fn promote_policy(
        &self,
        request: Request<v1::PromotePolicyRequest>,
    ) -> Result<Response<v1::PromotePolicyResponse>, Status> {
        let kind = kind(&request.into_inner().kind)?;
        let (now, before) = self.change(move |desk| desk.promote(kind)).await?;
        Ok(Response::new(v1::PromotePolicyResponse { policy: Some(status(&now)), replaced: by(before) }))
    }

    async fn roll_back_policy(
        &self,
        request: Request<v1::RollBackPolicyRequest>,
    ) -> Result<Response<v1::RollBackPolicyResponse>, Status> {
        let kind = kind(&request.into_inner().kind)?;
        let (now, before) = self.change(move |desk| desk.roll_back(kind)).await?;
        Ok(Response::new(v1::RollBackPolicyResponse { policy: now.as_ref().map(status), replaced: by(before) }))
    }

    async fn unload_policy(
        &self,
        request: Request<v1::UnloadPolicyRequest>,
    ) -> Result<Response<v1::UnloadPolicyResponse>, Status> {
        let v1::UnloadPolicyRequest { kind: name, role: of } = request.into_inner();
        let (kind, role) = (kind(&name)?, role(&of)?);
        let unloaded = self.change(move |desk| desk.unload(kind, role)).await?;
        Ok(Response::new(v1::UnloadPolicyResponse { unloaded: Some(policy(&unloaded)) }))
    }

    async fn resume_policy(
        &self,
        request: Request<v1::ResumePolicyRequest>,
    ) -> Result<Response<v1::ResumePolicyResponse>, Status> {
        let v1::ResumePolicyRequest { kind: name, role: of } = request.into_inner();
        let (kind, role) = (kind(&name)?, role(&of)?);
        let resumed = self.change(move |desk| desk.resume(kind, role)).await?;
        Ok(Response::new(v1::ResumePolicyResponse { policy: Some(status(&resumed)) }))
    }

    type RecordRoutesStream = Pin<Box<dyn Stream<Item = Result<v1::RouteRecord, Status>> + Send>>;

    async fn record_routes(&self, _: Request<v1::RecordRoutesRequest>) -> Result<Response<Self::RecordRoutesStream>, Status> {
        let records = stream::unfold(self.host.cluster.records(), next_record);
        Ok(Response::new(records.take_until(closed(self.closing.clone())).boxed()))
    }

    async fn replay_routes(
        &self,
        request: Request<Streaming<v1::ReplayRoutesRequest>>,
    ) -> Result<Response<v1::ReplayRoutesResponse>, Status> {
        let trace = replay::read(request.into_inner()).await?;
        let desk = Arc::clone(&self.host.policies);
        let replayed = spawn_blocking(move || trace.replay(&*desk)).await;
        Ok(Response::new(replayed.map_err(|e| broke_off(&e))??))
    }
}

async fn next_record(
    mut records: Receiver<Arc<llambo_orchestrator::RouteRecord>>,
) -> Option<(Result<v1::RouteRecord, Status>, Receiver<Arc<llambo_orchestrator::RouteRecord>>)> {
    let told = match records.recv().await {
        Ok(told) => record(&told),
        Err(RecvError::Lagged(n)) => v1::RouteRecord { event: Some(Event::NMissed(n)) },
        Err(RecvError::Closed) => return None,
    };
    Some((Ok(told), records))
}

fn new_policy(request: v1::LoadPolicyRequest) -> Result<NewPolicy, Status> {
    let v1::LoadPolicyRequest { kind: decides, name, wasm, shadow, share, parameters, time_us, memory_bytes } = request;
    if wasm.is_empty() {
        return Err(invalid("`wasm` is empty; send the module's bytes"));
    }
    let place = match (shadow, share) {
        (true, 0.0) => Place::Shadow,
        (true, _) => return Err(invalid("`shadow` and `share` are both set; a shadow decides for nobody")),
        (false, 0.0) => Place::Live,
        (false, share) => Place::Canary(share),
    };
    Ok(NewPolicy {
        kind: kind(&decides)?,
        name,
        wasm: wasm.into(),
        place,
        parameters,
        time: (time_us > 0).then(|| Duration::from_micros(time_us.into())),
        memory_bytes: (memory_bytes > 0).then_some(memory_bytes),
        source: Source::Client,
    })
}

fn kind(name: &str) -> Result<PolicyKind, Status> {
    PolicyKind::parse(name).ok_or_else(|| {
        let known = PolicyKind::ALL.map(PolicyKind::as_str).join(", ");
        super::invalid_field("kind", format!("{name:?}"), &format!("one of {known}"))
    })
}

fn role(name: &str) -> Result<Role, Status> {
    let roles = [Role::Live, Role::Canary, Role::Shadow];
    let named = if name.is_empty() { Some(Role::Live) } else { roles.into_iter().find(|role| role.as_str() == name) };
    named.ok_or_else(|| super::invalid_field("role", format!("{name:?}"), "one of live, canary, shadow"))
}

fn by(policy_ref: Option<Arc<PolicyRef>>) -> Option<v1::PolicyRef> {
    policy_ref.map(|by| policy(&by))
}

fn status(status: &PolicyStatus) -> v1::Policy {
    let by = &status.policy;
    v1::Policy {
        kind: status.kind.to_string(),
        name: by.name.to_string(),
        generation: by.generation,
        role: by.role.as_str().to_owned(),
        state: if status.suspended.is_some() { "suspended" } else { "running" }.to_owned(),
        reason: status.suspended.clone().unwrap_or_default(),
        sha256: by.sha256.to_string(),
        size_bytes: status.size_bytes,
        loaded_at: status.loaded_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        source: status.source.as_str().to_owned(),
        interface: status.interface.to_owned(),
        share: status.share.unwrap_or(0.0),
        calls: status.calls,
        fallbacks: status.fallbacks.iter().map(|(cause, n)| (cause.as_str().to_owned(), *n)).collect(),
        call_p50_ns: status.call_p50_ns,
        call_p99_ns: status.call_p99_ns,
        instances: status.instances,
        instance_bytes: status.instance_bytes,
        compared: status.compared,
        agreed: status.agreed,
        missed: status.missed,
        time_us: u32::try_from(status.time.as_micros()).unwrap_or(u32::MAX),
        memory_bytes: status.memory_bytes,
    }
}

pub(super) fn refused(error: &PolicyError) -> Status {
    Failure::new(error.reason(), error.to_string()).into_status()
}

fn broke_off(error: &tokio::task::JoinError) -> Status {
    Failure::new("BACKEND_FAILED", format!("it broke off: {error}")).into_status()
}
