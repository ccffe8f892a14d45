//! Guest modules that clients publish: checked, tried, put into service in the place of the version before, and put back when that was better.
//!
//! Each name is a node type of its own that serves a model of its own, with the limits of one of the configuration's types. A version
//! that was in service once keeps its compiled code, so going back to it takes as long as spawning does.

mod folder;
mod ledger;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use llambo_config::{Config, TypeConfig, is_name};
use llambo_edge::{LoadedModule, ModuleError, Modules, NewModule, PublishedModule, TrialReport};
use llambo_inference::{ClusterEvent, EventKind, ModelName, TypeName};
use llambo_isolate::{NodeType, Sandbox, SandboxError, TypeSettings};
use llambo_orchestrator::{Cluster, NodeFactory, SpawnReport};
use tokio::task;

use self::{
    folder::Folder,
    ledger::{Ledger, Row, Version},
};
use crate::{
    Failure,
    factory::{self, IsolateFactory},
    plan::type_settings,
};

/// A module that has not answered by then fails its trial.
const TRIAL_TIME: Duration = Duration::from_secs(30);
/// As in the configuration.
const MAX_COUNT: u32 = 200_000;

/// Publishes modules on this host.
pub(crate) struct Publisher {
    config: Arc<Config>,
    sandbox: Arc<Sandbox>,
    factory: Arc<IsolateFactory>,
    cluster: Cluster,
    folder: Option<Folder>,
    ledger: Mutex<Ledger>,
    /// One change after the other.
    turn: tokio::sync::Mutex<()>,
}

impl Publisher {
    pub(crate) fn new(
        config: Arc<Config>,
        sandbox: Arc<Sandbox>,
        factory: Arc<IsolateFactory>,
        cluster: Cluster,
    ) -> Result<Self, Failure> {
        let folder = config.modules.folder.as_ref().filter(|_| config.modules.publish).map(|path| {
            Folder::open(&path.resolved)
                .map_err(|e| Failure::Machine(format!("modules.folder `{path}` cannot be used: {e}; name another one")))
        });
        let folder = folder.transpose()?;
        Ok(Self { config, sandbox, factory, cluster, folder, ledger: Mutex::default(), turn: tokio::sync::Mutex::default() })
    }

    /// Publishes again what the folder has. What cannot be is told, and stays there.
    pub(crate) async fn restore(&self) {
        let Some(folder) = &self.folder else { return };
        let (rows, broken) = folder.read();
        for broken in broken {
            tracing::error!(
                module = broken.name,
                error = broken.detail,
                "a published module was not kept whole, and is left out"
            );
        }
        for (name, row, count) in rows {
            let Row { serving, versions } = row;
            let count = count.filter(|count| *count > 0).unwrap_or(self.config.modules.count);
            let restored = match versions.get(&serving) {
                Some(version) => self.put_into_service(&name, version, count, None).await.map(|_| ()),
                None => Ok(()),
            };
            match restored {
                Ok(()) => {
                    let kept = versions.len();
                    let mut ledger = self.ledger();
                    for version in versions.into_values() {
                        ledger.put(&name, version, kept);
                    }
                    ledger.serve(&name, serving);
                    tracing::info!(module = %name, version = serving, "published again");
                }
                Err(error) => {
                    tracing::error!(module = %name, %error, "a module that was kept cannot be published, and is left out");
                }
            }
        }
    }

    fn tell(&self, kind: EventKind, name: &ModelName, reason: String) {
        self.cluster.witness().tell(ClusterEvent::new(kind, name.to_string(), reason));
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The type whose limits a new module takes, if it may be published at all.
    fn permitted(&self, new: &NewModule) -> Result<&TypeConfig, ModuleError> {
        let modules = &self.config.modules;
        let not_permitted = |what: String, remedy: &str| ModuleError::NotPermitted { what, remedy: remedy.to_owned() };
        if !modules.publish {
            return Err(not_permitted(
                "this host lets nobody publish modules".into(),
                "its configuration says so in `modules.publish`",
            ));
        }
        let Some(wanted) = new.node_type.as_ref().map(TypeName::as_str).or(modules.types.first().map(String::as_str)) else {
            return Err(not_permitted("no type may be taken for published modules".into(), "name one in `modules.types`"));
        };
        if !modules.types.iter().any(|name| name == wanted) {
            let what = format!("a published module may not take type `{wanted}`, but: {}", modules.types.join(", "));
            return Err(not_permitted(what, "`modules.types` of the configuration permits others"));
        }
        if new.wasm.len() as u64 > modules.max_bytes {
            let (n, limit) = (new.wasm.len(), modules.max_bytes);
            return Err(ModuleError::Invalid(format!(
                "the module has {n} bytes; at most {limit} are permitted (`modules.max-size`)"
            )));
        }
        if new.count.is_some_and(|count| count > MAX_COUNT) {
            return Err(ModuleError::Invalid(format!("`count` must be at most {MAX_COUNT}")));
        }
        self.check_name(&new.name)?;
        self.config.node_type(wanted).ok_or_else(|| not_permitted(format!("type `{wanted}` is not there"), "name one of `types`"))
    }

    fn check_name(&self, name: &ModelName) -> Result<(), ModuleError> {
        let text = name.as_str();
        if !is_name(text) {
            let what = "a module's name is a lower-case letter, then at most 31 of `a-z`, `0-9` and `-`";
            return Err(ModuleError::Invalid(what.into()));
        }
        let taken = |whose| Err(ModuleError::NameTaken { name: name.clone(), whose });
        if self.config.model(text).is_some() {
            return taken("model");
        }
        if self.config.node_type(text).is_some() {
            return taken("type");
        }
        // a model of the catalog that is in service has a type by its name
        let is_type = || self.factory.types().iter().any(|info| info.name.as_str() == text);
        if self.ledger().row(name).is_none() && is_type() {
            return taken("model");
        }
        Ok(())
    }

    async fn publish(&self, new: NewModule) -> Result<LoadedModule, ModuleError> {
        let node_type = self.permitted(&new)?;
        let NewModule { name, wasm, count, trial, .. } = new;
        let _turn = self.turn.lock().await;
        let number = {
            let ledger = self.ledger();
            let limit = self.config.modules.max_names;
            if ledger.row(&name).is_none() && ledger.len() >= limit as usize {
                return Err(ModuleError::TooMany { limit });
            }
            ledger.next_number(&name)
        };
        let version = Version::new(number, wasm, TypeName::from(&node_type.name));
        let count = count.unwrap_or_else(|| self.present_count(&name));
        if let Some(folder) = &self.folder {
            folder.write(&name, &version).map_err(|detail| ModuleError::Folder(format!("{detail}; nothing was published")))?;
        }
        let done = self.put_into_service(&name, &version, count, trial.as_deref()).await.inspect_err(|_| {
            if let Some(folder) = &self.folder {
                folder.forget(&name, number);
            }
        })?;
        let kept = self.config.modules.versions as usize;
        let (replaced, gone) = self.ledger().put(&name, version, kept);
        tracing::info!(module = %name, version = number, count, "published");
        self.tell(EventKind::ModuleLoaded, &name, format!("version {number} serves"));
        self.keep(&name, &gone).map(|()| LoadedModule { replaced, ..done })
    }

    async fn put_back(&self, name: ModelName, asked: Option<u32>) -> Result<LoadedModule, ModuleError> {
        let _turn = self.turn.lock().await;
        let version = self.ledger().earlier(&name, asked)?.clone();
        let done = self.put_into_service(&name, &version, self.present_count(&name), None).await?;
        let number = version.number;
        let replaced = self.ledger().serve(&name, number);
        tracing::info!(module = %name, version = number, "rolled back");
        self.tell(EventKind::ModuleRolledBack, &name, format!("version {number} serves again"));
        self.keep(&name, &[]).map(|()| LoadedModule { replaced, ..done })
    }

    async fn take_out(&self, name: ModelName) -> Result<u32, ModuleError> {
        let _turn = self.turn.lock().await;
        let made = self.ledger().known(&name)?.served().and_then(|version| version.made.get().cloned());
        let mut draining = 0;
        if let Some(made) = made {
            let forget = || {
                self.factory.remove(&made.settings().name);
                self.ledger().remove(&name);
            };
            draining = self.cluster.retire(&factory::info(&made), forget).await;
        }
        tracing::info!(module = %name, draining, "unloaded");
        self.tell(EventKind::ModuleUnloaded, &name, "its isolates finish what they have".into());
        match &self.folder {
            Some(folder) => folder.remove(&name).map(|()| draining).map_err(|detail| unkept(&detail)),
            None => Ok(draining),
        }
    }

    /// As many as serve now, or as the configuration says.
    fn present_count(&self, name: &ModelName) -> u32 {
        match self.cluster.n_live(&TypeName::from(name.as_str())) {
            0 => self.config.modules.count,
            n => n,
        }
    }

    /// Compiles it, tries it, and puts isolates of it in the place of those that serve. Nothing is changed when that fails.
    async fn put_into_service(
        &self,
        name: &ModelName,
        version: &Version,
        count: u32,
        trial: Option<&str>,
    ) -> Result<LoadedModule, ModuleError> {
        let began = Instant::now();
        let made = match version.made.get() {
            Some(made) => Arc::clone(made),
            None => self.make(name, version).await?,
        };
        let compile = began.elapsed();
        let trial = match trial {
            Some(prompt) => Some(made.try_out(prompt, TRIAL_TIME).await.map_err(unfit)?),
            None => None,
        };
        let spawned = async {
            let spawned = factory::spawn(&made, count).await?;
            self.factory.insert(Arc::clone(&made));
            Ok(spawned)
        };
        let SpawnReport { nodes, spawn_p50_us, .. } =
            self.cluster.replace(&factory::info(&made), "a module was published", spawned).await?;
        let _ = version.made.set(Arc::clone(&made));
        let n_nodes = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let module = self.told(name, version, true, n_nodes);
        let trial = trial.map(|llambo_isolate::Trial { text, gave_up, output_tokens, took, memory_bytes }| TrialReport {
            text,
            gave_up,
            output_tokens,
            took,
            memory_bytes,
        });
        Ok(LoadedModule { module, replaced: None, trial, compile, spawn_p50_us })
    }

    async fn make(&self, name: &ModelName, version: &Version) -> Result<Arc<NodeType>, ModuleError> {
        let config = self
            .config
            .node_type(version.node_type.as_str())
            .ok_or_else(|| ModuleError::Invalid(format!("its type `{}` is no more in the configuration", version.node_type)))?;
        let settings = TypeSettings {
            name: TypeName::from(name.as_str()),
            id_stem: format!("{name}.{}", version.number),
            serves: name.clone(),
            expected: 0,
            ..type_settings(&self.config, config)
        };
        let (sandbox, module) = (Arc::clone(&self.sandbox), version.module(name));
        let made = task::spawn_blocking(move || sandbox.node_type(settings, module)).await;
        made.map_err(|e| ModuleError::Unfit(format!("it could not be compiled: {e}")))?.map_err(unfit)
    }

    /// Writes down what there is now.
    fn keep(&self, name: &ModelName, gone: &[u32]) -> Result<(), ModuleError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let count = self.cluster.n_live(&TypeName::from(name.as_str()));
        let ledger = self.ledger();
        ledger.row(name).map_or(Ok(()), |row| folder.note(name, row, count, gone)).map_err(|detail| unkept(&detail))
    }

    fn told(&self, name: &ModelName, version: &Version, serves: bool, n_nodes: u32) -> PublishedModule {
        let config = self.config.node_type(version.node_type.as_str());
        PublishedModule {
            name: name.clone(),
            version: version.number,
            serves,
            kind: version.module(name).kind(),
            node_type: version.node_type.clone(),
            parent: ModelName::from(config.map_or("", |config| config.model.as_str())),
            size_bytes: version.wasm.len() as u64,
            sha256: version.sha256.clone(),
            n_nodes,
            loaded_at: version.loaded_at,
        }
    }
}

fn unfit(error: SandboxError) -> ModuleError {
    match error {
        SandboxError::Trial { .. } => ModuleError::TrialFailed(error.to_string()),
        error => ModuleError::Unfit(error.to_string()),
    }
}

fn unkept(detail: &str) -> ModuleError {
    ModuleError::Folder(format!("{detail}; it is in effect until the host ends, but `modules.folder` does not have it"))
}

impl Modules for Publisher {
    fn parent(&self, name: &ModelName) -> Option<ModelName> {
        let ledger = self.ledger();
        Some(ledger.row(name)?.served()?.made.get()?.settings().model.clone())
    }

    fn list(&self) -> Vec<PublishedModule> {
        let ledger = self.ledger();
        let mut modules = Vec::new();
        for (name, row) in ledger.rows() {
            for version in row.versions.values().rev() {
                let serves = version.number == row.serving;
                let n_nodes = if serves { self.cluster.n_live(&TypeName::from(name.as_str())) } else { 0 };
                modules.push(self.told(name, version, serves, n_nodes));
            }
        }
        modules
    }

    fn load(&self, module: NewModule) -> BoxFuture<'_, Result<LoadedModule, ModuleError>> {
        Box::pin(async move { counted("load", self.publish(module).await) })
    }

    fn unload(&self, name: ModelName) -> BoxFuture<'_, Result<u32, ModuleError>> {
        Box::pin(async move { counted("unload", self.take_out(name).await) })
    }

    fn roll_back(&self, name: ModelName, version: Option<u32>) -> BoxFuture<'_, Result<LoadedModule, ModuleError>> {
        Box::pin(async move { counted("roll-back", self.put_back(name, version).await) })
    }
}

fn counted<T>(change: &'static str, result: Result<T, ModuleError>) -> Result<T, ModuleError> {
    let outcome = result.as_ref().map_or_else(ModuleError::reason, |_| "DONE");
    metrics::counter!("llambo_module_changes_total", "change" => change, "outcome" => outcome).increment(1);
    result
}
