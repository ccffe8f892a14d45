//! Guest modules, for those who publish them.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use llambo_inference::{ModelName, TypeName};
use llambo_proto::{
    status::Failure,
    v1::{self, modules_server::Modules},
};
use tonic::{Request, Response, Status};

use super::{invalid, not_done};
use crate::{
    Host,
    modules::{LoadedModule, ModuleError, NewModule, PublishedModule, TrialReport},
};

const DEFAULT_TRIAL: &str = "Hello";

pub(super) struct Service {
    pub(super) host: Arc<Host>,
}

#[tonic::async_trait]
impl Modules for Service {
    async fn load_module(&self, request: Request<v1::LoadModuleRequest>) -> Result<Response<v1::LoadModuleResponse>, Status> {
        let v1::LoadModuleRequest { name, wasm, r#type, count, trial_prompt, skip_trial } = request.into_inner();
        if wasm.is_empty() {
            return Err(invalid("`wasm` is empty; send the module's bytes"));
        }
        let prompt = if trial_prompt.is_empty() { DEFAULT_TRIAL.to_owned() } else { trial_prompt };
        let wanted = NewModule {
            name: named(&name)?,
            wasm: wasm.into(),
            node_type: (!r#type.is_empty()).then(|| TypeName::from(&r#type)),
            count: (count > 0).then_some(count),
            trial: (!skip_trial).then_some(prompt),
        };
        let done = self.host.modules.load(wanted).await.map_err(|e| refused(&e))?;
        let LoadedModule { module, replaced, trial, compile, spawn_p50_us } = done;
        Ok(Response::new(v1::LoadModuleResponse {
            module: Some(wire(module)),
            replaced_version: replaced.unwrap_or(0),
            trial: trial.map(tried),
            compile_ms: ms(compile),
            spawn_p50_us,
        }))
    }

    async fn list_modules(&self, _: Request<v1::ListModulesRequest>) -> Result<Response<v1::ListModulesResponse>, Status> {
        let modules = self.host.modules.list().into_iter().map(wire).collect();
        Ok(Response::new(v1::ListModulesResponse { modules }))
    }

    async fn unload_module(
        &self,
        request: Request<v1::UnloadModuleRequest>,
    ) -> Result<Response<v1::UnloadModuleResponse>, Status> {
        let name = named(&request.into_inner().name)?;
        let draining = self.host.modules.unload(name).await.map_err(|e| refused(&e))?;
        Ok(Response::new(v1::UnloadModuleResponse { draining }))
    }

    async fn roll_back_module(
        &self,
        request: Request<v1::RollBackModuleRequest>,
    ) -> Result<Response<v1::RollBackModuleResponse>, Status> {
        let v1::RollBackModuleRequest { name, version } = request.into_inner();
        let version = (version > 0).then_some(version);
        let done = self.host.modules.roll_back(named(&name)?, version).await.map_err(|e| refused(&e))?;
        let replaced_version = done.replaced.unwrap_or(0);
        Ok(Response::new(v1::RollBackModuleResponse { module: Some(wire(done.module)), replaced_version }))
    }
}

fn named(name: &str) -> Result<ModelName, Status> {
    if name.is_empty() { Err(invalid("`name` is empty; name the module")) } else { Ok(name.into()) }
}

fn wire(module: PublishedModule) -> v1::Module {
    let PublishedModule { name, version, serves, kind, node_type, parent, size_bytes, sha256, n_nodes, loaded_at } = module;
    v1::Module {
        name: name.to_string(),
        version,
        state: if serves { "serving" } else { "kept" }.to_owned(),
        kind: kind.to_owned(),
        r#type: node_type.to_string(),
        model: parent.to_string(),
        size_bytes,
        sha256,
        nodes: n_nodes,
        loaded_at: loaded_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    }
}

fn tried(trial: TrialReport) -> v1::Trial {
    let TrialReport { text, gave_up, output_tokens, took, memory_bytes } = trial;
    v1::Trial { text, gave_up: gave_up.unwrap_or_default(), output_tokens, total_ms: ms(took), memory_bytes }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn refused(error: &ModuleError) -> Status {
    match error {
        ModuleError::Cluster(error) => not_done(error),
        _ => Failure::new(error.reason(), error.to_string()).into_status(),
    }
}
