//! A node type: a module, its limits, and the pools its isolates live in.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use llambo_inference::{InferenceEngine, InferenceError, Labels, ModelName, Models, NodeId, TenantName, TypeName};
use wasmtime::Store;

use crate::{
    Isolate, SandboxError,
    cpu::CpuMeter,
    guest::{FIRST_SLICES, Guest},
    hibernate::{self, Dormitory, HibernateError, Kept, Origin, Sleeper},
    limits::Limits,
    module::{Module, Template},
    pool::{Layout, Place, Pool, Pools},
    share::CpuShare,
};

/// Isolates made between two looks at whether others want the thread.
const SPAWNS_AT_A_TIME: usize = 64;

/// Where isolates are made: the clock, the cache and the address space that all types of a host share.
pub struct Sandbox {
    pools: Arc<Pools>,
    models: Models,
    dormitory: Option<Arc<Dormitory>>,
}

/// How isolates of one type are made.
#[derive(Clone, Debug)]
pub struct TypeSettings {
    /// Capability class, 0 to 2; higher is stronger.
    pub tier: u8,
    /// Notes for policies.
    pub labels: Labels,
    /// The fewest and the most isolates that a scaler may leave; `None`: it is not scaled.
    pub bounds: Option<(u32, u32)>,
    /// The type's name.
    pub name: TypeName,
    /// The start of its isolates' ids; no two types of a host may have the same.
    pub id_stem: String,
    /// The model its guests find under the name `default`.
    pub model: ModelName,
    /// What clients ask for to reach it: its model, or the name that its module was published by.
    pub serves: ModelName,
    /// The models that its guests may ask; `None`: all.
    pub may_ask: Option<Vec<ModelName>>,
    /// What each isolate may use.
    pub limits: Limits,
    /// Share of requests under `weighted-random`, and of a full batch within the tenant.
    pub weight: f64,
    /// Whose isolates these are.
    pub tenant: TenantName,
    /// The tenant's share of a full batch.
    pub tenant_weight: f64,
    /// Arguments of a command after its name; `{prompt}` stands for what it is asked.
    pub args: Vec<String>,
    /// Environment of a command.
    pub env: Vec<(String, String)>,
    /// Whether its isolates can be put aside on disk. Each then has some doors more, and its module must be such that these can be made.
    pub hibernates: bool,
    /// Isolates that room is made for at once; more can be spawned as long as there is room.
    pub expected: u32,
}

/// A node type, ready to spawn.
pub struct NodeType {
    pub(crate) settings: TypeSettings,
    pub(crate) limits: Arc<Limits>,
    pub(crate) models: Models,
    pub(crate) pools: Arc<Pools>,
    pub(crate) dormitory: Option<Arc<Dormitory>>,
    module: Module,
    rooms: Mutex<Vec<Room>>,
    next_id: AtomicU64,
}

/// A pool and the type's module compiled for it.
#[derive(Clone)]
struct Room {
    pool: Arc<Pool>,
    template: Arc<Template>,
}

/// A place in a room, kept as long as its isolate lives, whatever happens to the guest in it.
pub(crate) struct Berth {
    pub(crate) template: Arc<Template>,
    pub(crate) engine: wasmtime::Engine,
    pub(crate) share: Arc<CpuShare>,
    _place: Place,
}

/// Isolates that were made, and what each took in microseconds.
pub struct Spawned {
    /// Idle and ready.
    pub isolates: Vec<Arc<Isolate>>,
    /// From nothing to ready, each.
    pub spawn_us: Vec<f32>,
}

// === impl TypeSettings ===

impl TypeSettings {
    /// Isolates of the default tenant that ask one model, within the default limits. A command is told the model's name and what it is asked.
    pub fn new(name: &str, model: &str) -> Self {
        Self {
            tier: 0,
            labels: Labels::default(),
            bounds: None,
            name: name.into(),
            id_stem: name.to_owned(),
            model: model.into(),
            serves: model.into(),
            may_ask: None,
            limits: Limits::default(),
            weight: 1.0,
            tenant: "default".into(),
            tenant_weight: 1.0,
            args: vec!["default".to_owned(), "{prompt}".to_owned()],
            env: Vec::new(),
            hibernates: false,
            expected: 0,
        }
    }
}

// === impl Sandbox ===

impl Sandbox {
    /// A sandbox whose guests find `models`. Compiled modules are kept in `cache_folder`, where there is one.
    pub fn new(models: Models, cache_folder: Option<PathBuf>) -> Result<Self, SandboxError> {
        Self::with_layout(models, cache_folder, Layout::detect())
    }

    /// The same in a layout of the caller's choice.
    pub fn with_layout(models: Models, cache_folder: Option<PathBuf>, layout: Layout) -> Result<Self, SandboxError> {
        Ok(Self { pools: Arc::new(Pools::new(cache_folder, layout)?), models, dormitory: None })
    }

    /// The same, where isolates can be put aside.
    #[must_use]
    pub fn with_dormitory(mut self, dormitory: Arc<Dormitory>) -> Self {
        self.dormitory = Some(dormitory);
        self
    }

    /// Makes room for a type and compiles its module. Blocks.
    pub fn node_type(&self, settings: TypeSettings, module: Module) -> Result<Arc<NodeType>, SandboxError> {
        let pool = self.pools.pool(&settings.limits, settings.expected, 0)?;
        let template = Arc::new(module.template(&pool.engine, &settings.limits, settings.hibernates)?);
        Ok(Arc::new(NodeType {
            limits: Arc::new(settings.limits.clone()),
            models: settings.may_ask.as_ref().map_or_else(|| self.models.clone(), |names| self.models.only(names)),
            settings,
            pools: Arc::clone(&self.pools),
            dormitory: self.dormitory.clone(),
            module,
            rooms: Mutex::new(vec![Room { pool, template }]),
            next_id: AtomicU64::new(1),
        }))
    }
}

// === impl NodeType ===

impl NodeType {
    /// The settings it was made with.
    pub fn settings(&self) -> &TypeSettings {
        &self.settings
    }

    /// Makes `count` isolates, or none.
    pub async fn spawn(self: &Arc<Self>, count: u32) -> Result<Spawned, SandboxError> {
        let berths = {
            let this = Arc::clone(self);
            tokio::task::spawn_blocking(move || this.berths(count))
                .await
                .map_err(|e| SandboxError::System { what: "room for isolates could not be made", detail: e.to_string() })??
        };
        let mut spawned = Spawned { isolates: Vec::with_capacity(berths.len()), spawn_us: Vec::with_capacity(berths.len()) };
        for (i, berth) in berths.into_iter().enumerate() {
            if i % SPAWNS_AT_A_TIME == SPAWNS_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            let began = Instant::now();
            let guest = Guest::start(self, &berth)
                .await
                .map_err(|error| SandboxError::Module { name: self.module_name().to_owned(), detail: error.to_string() })?;
            spawned.isolates.push(Isolate::new(self.next_id(), Arc::clone(self), berth, guest));
            spawned.spawn_us.push(began.elapsed().as_secs_f32() * 1e6);
        }
        for &us in &spawned.spawn_us {
            metrics::histogram!("llambo_isolate_spawn_seconds").record(f64::from(us) * 1e-6);
        }
        Ok(spawned)
    }

    /// An isolate that another host, or an earlier run, put aside: it sleeps on here, and is woken by its first request. Blocks.
    ///
    /// # Errors
    /// [`SandboxError::Hibernated`]: what is in the file does not fit this type. It stays where it is.
    pub fn adopt(self: &Arc<Self>, sleeper: Sleeper) -> Result<Arc<Isolate>, SandboxError> {
        let Sleeper { path, kept } = sleeper;
        let unusable = |source| SandboxError::Hibernated { path: path.clone(), source };
        self.check(&kept).map_err(unusable)?;
        let berth = self.berths(1)?.pop().ok_or_else(|| SandboxError::System {
            what: "there is no place for one more isolate",
            detail: self.settings.name.to_string(),
        })?;
        if !self.dormitory.as_ref().is_some_and(|dormitory| dormitory.own(&path)) {
            return Err(unusable(HibernateError::Unfit("it is an isolate's of this host already".into())));
        }
        Ok(Isolate::asleep(self.next_id(), Arc::clone(self), berth, path))
    }

    /// Whether an isolate that was put aside can live in this type.
    pub(crate) fn check(&self, kept: &Kept) -> Result<(), HibernateError> {
        let TypeSettings { name, tenant, hibernates, .. } = &self.settings;
        if !hibernates {
            return Err(HibernateError::Unfit(format!("type `{name}` does not have `hibernate: true`")));
        }
        hibernate::check(&kept.origin, name, tenant, self.module.sha256())?;
        for branch in kept.image.iter().flat_map(|image| &image.branches) {
            let engine = self.engine(branch.model.as_ref()).map_err(|e| HibernateError::Unfit(e.to_string()))?;
            hibernate::check_model(engine.info(), &branch.sha256)?;
        }
        Ok(())
    }

    /// The engine of a model, or of the type's own.
    pub(crate) fn engine(&self, model: Option<&ModelName>) -> Result<Arc<dyn InferenceEngine>, InferenceError> {
        self.models.get(model.unwrap_or(&self.settings.model))
    }

    /// Who an isolate of this type is, for whoever wakes it.
    pub(crate) fn origin(&self, node: &NodeId) -> Origin {
        Origin {
            node_type: self.settings.name.to_string(),
            node: node.to_string(),
            tenant: self.settings.tenant.to_string(),
            module: self.module.sha256().to_owned(),
        }
    }

    fn next_id(&self) -> NodeId {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        NodeId::from(format!("{}-{number}", self.settings.id_stem))
    }

    /// Lets a guest of this type run for a slice at a time, charged to `meter`.
    pub(crate) fn slice<T>(&self, store: &mut Store<T>, meter: Arc<CpuMeter>) {
        let limits = Arc::clone(&self.limits);
        store.epoch_deadline_callback(move |_| Ok(meter.next_slice(&limits)?));
        store.set_epoch_deadline(FIRST_SLICES);
    }

    pub(crate) fn module_name(&self) -> &str {
        self.module.name()
    }

    /// Places for `count` isolates, in new pools where the old ones are full. All of them or none.
    fn berths(&self, count: u32) -> Result<Vec<Berth>, SandboxError> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        // not as long as `count` says: whether there is room is seen below
        let mut berths = Vec::new();
        for room in rooms.iter() {
            while berths.len() < count as usize
                && let Some(berth) = room.berth(self.limits.cpu_share)
            {
                berths.push(berth);
            }
        }
        let missing = count - u32::try_from(berths.len()).unwrap_or(count);
        if missing > 0 {
            let total: u32 = rooms.iter().map(|room| room.pool.capacity()).sum();
            let free = count - missing;
            let pool = self.pools.pool(&self.limits, missing, total).map_err(|error| match error {
                SandboxError::Full { room, memory_mib, detail, .. } => {
                    SandboxError::Full { wanted: count, room: room + free, memory_mib, detail }
                }
                error => error,
            })?;
            let template = Arc::new(self.module.template(&pool.engine, &self.limits, self.settings.hibernates)?);
            let room = Room { pool, template };
            berths.extend((0..missing).filter_map(|_| room.berth(self.limits.cpu_share)));
            rooms.push(room);
        }
        Ok(berths)
    }
}

// === impl Room ===

impl Room {
    fn berth(&self, cpu_share: f64) -> Option<Berth> {
        let place = self.pool.claim()?;
        let share = Arc::new(CpuShare::new(cpu_share, Instant::now()));
        Some(Berth { template: Arc::clone(&self.template), engine: self.pool.engine.clone(), share, _place: place })
    }
}
