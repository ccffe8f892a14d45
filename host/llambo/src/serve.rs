//! `llambo serve`: ports first, because a taken one should be known at once; then models, isolates, and the doors opened. The
//! end goes the other way: doors refuse, what is under way finishes, isolates go, models go.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use llambo_config::Config;
use llambo_edge::{Bound, Host, Settings as EdgeSettings};
use llambo_inference::{ClusterEvent, EventKind, ModelName, Models, TokenHooks, TypeName};
use llambo_isolate::{Dormitory, Sandbox};
use llambo_orchestrator::{Autoscaler, Cluster, NodeFactory, Settings as ClusterSettings};
use llambo_shelf::Shelf;
use llambo_tasks::Tasks;
use llambo_telemetry::{Exporting, Writing};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    sync::Notify,
    task::{self, JoinSet},
    time::{MissedTickBehavior, interval},
};

use crate::{
    Failure, descriptors,
    desk::Desk,
    ending::Ending,
    factory::IsolateFactory,
    hardware,
    logging::{self, Traces},
    models::{self, Engines},
    plan::{Plan, module, scalings, type_settings},
    policies,
    publish::Publisher,
    security, sessions,
};

/// How often gauges are brought up to date and isolates that came back are noticed.
const GAUGES_EVERY: Duration = Duration::from_secs(2);
/// Tasks run between two looks at what came from other threads, and at sockets and timers.
const TOKENS_EVERY: u32 = 4;
const CONNECTIONS_EVERY: u32 = 16;
/// What the task store gets to write what it was told.
const CLOSE_TASKS: Duration = Duration::from_secs(5);
/// Streams one connection may have open: as many as the host serves at once, so that one client can use all of it.
const SMALLEST_STREAM_LIMIT: u32 = 256;

pub(crate) fn run(config: Config) -> Result<(), Failure> {
    let (writing, traces) = logging::start(&config)?;
    let writing = Arc::new(writing);
    descriptors::raise(config.network.max_connections);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // tokens come from threads of their own: they should not wait for whoever is ready here, nor should connections
        .global_queue_interval(TOKENS_EVERY)
        .event_interval(CONNECTIONS_EVERY)
        .thread_name("llambo")
        .build()
        .map_err(|e| Failure::Machine(format!("the runtime cannot start: {e}")))?;
    let served = runtime.block_on(serve(config, traces, Arc::clone(&writing)));
    // what is left are tasks of connections that were cut
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(config: Config, traces: Option<Traces>, writing: Arc<Writing>) -> Result<(), Failure> {
    let began = Instant::now();
    let ending = Ending::watch().map_err(|e| Failure::Machine(format!("signals cannot be watched: {e}")))?;
    let metrics = logging::record()?;
    let exporting = match traces {
        Some(Traces { destination, waiting }) => Some(Exporting::start(waiting, &destination).map_err(|e| logging::failure(&e))?),
        None => None,
    };
    let edge = Bound::new(edge_settings(&config, exporting.is_some())).await.map_err(Failure::machine)?;

    let config = Arc::new(config);
    let policies = policies::start(&config.policies)?;
    let tasks = open_tasks(&config.tasks)?;
    let sessions = sessions::open(&config.sessions).await?;
    let preparing = task::spawn_blocking({
        let (config, hooks) = (Arc::clone(&config), policies.hooks());
        move || prepare(&config, &hooks)
    });
    let Prepared { models, shelf, engines, sandbox, factory } = tokio::select! {
        prepared = preparing => prepared.map_err(Failure::machine)??,
        // a model that is being loaded cannot be called off; the end of the process ends it
        _ = ending.asked() => return Err(Failure::Interrupted),
    };
    let factory = Arc::new(factory);
    let closing = Arc::clone(&factory);
    let types = Arc::clone(&factory) as Arc<dyn NodeFactory>;
    let seats = policies::seats(&policies, &config.policies);
    let cluster = Cluster::with_policies(types, cluster_settings(&config), seats).map_err(Failure::machine)?;
    policies.tells(cluster.witness());
    tell_start(&cluster, &models);
    // those that are there already count; those of published modules come when these are there
    let early = cluster.adopt().await.map_err(Failure::machine)?.nodes.len();
    spawn(&config, &cluster).await?;
    let sandbox = Arc::new(sandbox);
    let publisher = Publisher::new(Arc::clone(&config), Arc::clone(&sandbox), Arc::clone(&factory), cluster.clone())?;
    publisher.restore().await;
    let publisher = Arc::new(publisher);
    let loaded = (models.clone(), shelf.clone(), engines);
    let desk = Desk::new(Arc::clone(&config), (sandbox, factory), cluster.clone(), Arc::clone(&publisher), loaded);
    adopt(&cluster, early).await?;

    let (grpc, http, network) = (edge.grpc_addr(), edge.http_addr(), &config.network);
    let (access, tls, start_ms) = (network.access, network.tls.is_some(), began.elapsed().as_millis());
    tracing::info!(%grpc, %http, %access, tls, start_ms, "serving; SIGTERM or Ctrl-C ends it");
    tasks.start(cluster.dispatcher());
    let mut watching = JoinSet::new();
    watching.spawn(keep_gauges(cluster.clone(), models.clone(), metrics.clone(), Arc::clone(&writing)));
    watching.spawn(sessions.clone().sweep());
    watching.spawn(Autoscaler::new(cluster.clone()).run(config.policies.scale_every));
    if let Some(folder) = policies::Folder::of(&config, &policies) {
        watching.spawn(folder.watch());
    }
    let drain_asked = Arc::new(Notify::new());
    let host = Host {
        cluster: cluster.clone(),
        models: models.clone(),
        desk: Arc::new(desk),
        modules: publisher,
        policies,
        tasks: tasks.clone(),
        sessions: sessions.clone(),
        default_model: ModelName::from(&config.models[0].name),
        metrics: logging::page(metrics.clone(), config.metrics.aliases, {
            let (cluster, models) = (cluster.clone(), models.clone());
            move || publish(&cluster, &models, &writing)
        }),
        hardware: hardware::look(),
        on_drain: Arc::new({
            let drain_asked = Arc::clone(&drain_asked);
            move || drain_asked.notify_one()
        }),
    };
    let cut_short = OnceLock::new();
    let shutdown = async {
        tokio::select! {
            signal = ending.asked() => tracing::info!(signal, "ending"),
            () = drain_asked.notified() => tracing::info!("drained by a client, ending"),
        }
        cluster.start_drain();
        // nobody waits for tasks here: they go on at the next start
        tasks.pause().await;
        if !drain(&cluster, config.shutdown.drain, &ending).await {
            let _ = cut_short.set(());
        }
    };
    let served = Box::pin(edge.serve(host, shutdown)).await.map_err(Failure::machine);
    watching.abort_all();
    close(tasks).await;
    sessions.flush().await;
    closing.close();
    cluster.stop_nodes();
    for engine in models.all() {
        models.remove(&engine.info().name);
    }
    shelf.close();
    if let Some(exporting) = exporting {
        exporting.finish().await;
    }
    tracing::info!(uptime_s = began.elapsed().as_secs(), "ended");
    match cut_short.get() {
        Some(()) => Err(Failure::Interrupted),
        None => served,
    }
}

/// Waits until requests have ended, or their time is over. False: told again to end.
async fn drain(cluster: &Cluster, time: Duration, ending: &Ending) -> bool {
    tokio::select! {
        drained = cluster.drained(time) => match drained {
            Ok(()) => tracing::info!("every request was finished"),
            Err(busy) => tracing::warn!(%busy, "the drain time is over, the rest is cut off"),
        },
        signal = ending.asked() => {
            tracing::warn!(signal, "told again to end, not waiting for requests");
            return false;
        }
    }
    true
}

/// What takes its time to be there.
struct Prepared {
    models: Models,
    shelf: Shelf,
    engines: Arc<Engines>,
    sandbox: Sandbox,
    factory: IsolateFactory,
}

/// Everything that computes or reads files: models, and modules compiled.
fn prepare(config: &Arc<Config>, hooks: &Arc<dyn TokenHooks>) -> Result<Prepared, Failure> {
    let mut plan = Plan::of(config);
    for warning in &plan.warnings {
        tracing::warn!(what = warning.what, remedy = warning.remedy, "this configuration may not fit");
    }
    if !plan.problems.is_empty() {
        let problems: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
        return Err(Failure::Machine(problems.join("\nllambo: ")));
    }
    let (models, shelf, engines) = models::load(config, &mut plan, hooks)?;
    let cache = match &config.cache.modules {
        Some(path) => Some(path.resolved.clone()),
        None => cache_folder("modules"),
    };
    let mut sandbox = Sandbox::new(models.clone(), cache.and_then(absolute)).map_err(Failure::machine)?;
    let dormitory = dormitory(config)?;
    if let Some(dormitory) = &dormitory {
        sandbox = sandbox.with_dormitory(Arc::clone(dormitory));
    }
    let factory = IsolateFactory::new(dormitory, scalings(config));
    for node_type in &config.types {
        let began = Instant::now();
        let made = module(node_type).and_then(|module| sandbox.node_type(type_settings(config, node_type), module));
        let made = made.map_err(|error| Failure::Machine(format!("types.{}: {error}", node_type.name)))?;
        tracing::info!(node_type = node_type.name, compile_ms = began.elapsed().as_millis(), "module ready");
        factory.insert(made);
    }
    Ok(Prepared { models, shelf, engines, sandbox, factory })
}

/// What there is before the first isolate.
fn tell_start(cluster: &Cluster, models: &Models) {
    let witness = cluster.witness();
    witness.tell(ClusterEvent::new(EventKind::HostStarted, "host", format!("llambo {}", env!("CARGO_PKG_VERSION"))));
    for engine in models.all() {
        let info = engine.info();
        let reason = format!("{}, {} tokens of context, {} sequences", info.architecture, info.n_context, info.n_sequences);
        witness.tell(ClusterEvent::new(EventKind::ModelLoaded, info.name.to_string(), reason));
    }
}

fn edge_settings(config: &Config, is_traced: bool) -> EdgeSettings {
    EdgeSettings {
        grpc: config.network.grpc,
        http: config.network.http,
        max_request_bytes: usize::try_from(config.network.max_request_bytes).unwrap_or(usize::MAX),
        max_module_bytes: usize::try_from(config.modules.max_bytes).unwrap_or(usize::MAX),
        max_policy_bytes: usize::try_from(config.policies.max_bytes).unwrap_or(usize::MAX),
        max_streams_per_connection: (config.queue.max_in_flight + config.queue.max_waiting).max(SMALLEST_STREAM_LIMIT),
        client_stall_timeout: config.network.client_stall_timeout,
        page: config.network.page,
        security: security::security(config),
        trace_sample: is_traced.then_some(config.tracing.sample),
    }
}

fn cluster_settings(config: &Config) -> ClusterSettings {
    ClusterSettings {
        max_waiting: config.queue.max_waiting as usize,
        max_in_flight: config.queue.max_in_flight as usize,
        max_wait: config.queue.max_wait,
        attempts: config.balancing.attempts,
        stall_timeout: config.balancing.stall_timeout,
        judges_tiers: config.balancing.classifier == llambo_config::Classifier::Heuristic,
        allow_faults: config.allow_faults,
        strategy: config.balancing.strategy.as_str().to_owned(),
        tenants: security::terms(config),
        separate_tenants: config.network.access == llambo_config::Access::Tokens,
    }
}

async fn spawn(config: &Config, cluster: &Cluster) -> Result<(), Failure> {
    for node_type in &config.types {
        let name = TypeName::from(&node_type.name);
        let n_missing = node_type.count.saturating_sub(cluster.n_live(&name));
        if n_missing == 0 {
            continue;
        }
        let began = Instant::now();
        let report = cluster
            .spawn(&name, n_missing)
            .await
            .map_err(|error| Failure::Machine(format!("types.{}: {error}", node_type.name)))?;
        tracing::info!(
            node_type = node_type.name,
            n_isolates = report.nodes.len(),
            spawn_ms = began.elapsed().as_millis(),
            p50_us = report.spawn_p50_us,
            p99_us = report.spawn_p99_us,
            "isolates spawned"
        );
    }
    Ok(())
}

fn open_tasks(config: &llambo_config::Tasks) -> Result<Tasks, Failure> {
    let settings = llambo_tasks::Settings {
        folder: config.folder.as_ref().map(|path| path.resolved.clone()),
        max_running: config.max_running as usize,
        max_queued: config.max_queued.into(),
        max_bytes: config.max_bytes,
        attempts: config.attempts,
        keep: config.keep,
    };
    Tasks::open(settings).map_err(|error| Failure::Machine(format!("tasks.folder: {error}")))
}

/// Waits until all that was said of tasks is on the disk. Pauses them, if the edge ended by itself.
async fn close(tasks: Tasks) {
    tasks.pause().await;
    let closed = task::spawn_blocking(move || tasks.close());
    // a reader that is still there keeps the store open; what is there is on the disk all the same
    if tokio::time::timeout(CLOSE_TASKS, closed).await.is_err() {
        tracing::warn!(waited_ms = CLOSE_TASKS.as_millis(), "the task store was still in use");
    }
}

fn dormitory(config: &Config) -> Result<Option<Arc<Dormitory>>, Failure> {
    let opened = config.hibernation.folder.as_ref().map(|path| {
        Dormitory::open(&path.resolved)
            .map(Arc::new)
            .map_err(|e| Failure::Machine(format!("hibernation.folder `{path}` cannot be used: {e}; name another one")))
    });
    opened.transpose()
}

/// Takes in the rest of what an earlier run put aside, and says how many it was with those that came `early`. What cannot be is told, and stays there.
async fn adopt(cluster: &Cluster, early: usize) -> Result<(), Failure> {
    let adopted = cluster.adopt().await.map_err(Failure::machine)?;
    for (file, why) in &adopted.refused {
        tracing::error!(file, why, "a hibernated isolate is left where it is");
    }
    let n_isolates = early + adopted.nodes.len();
    if n_isolates > 0 {
        tracing::info!(n_isolates, "hibernated isolates taken in");
    }
    Ok(())
}

async fn keep_gauges(cluster: Cluster, models: Models, metrics: PrometheusHandle, writing: Arc<Writing>) {
    let mut ticks = interval(GAUGES_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        publish(&cluster, &models, &writing);
        // measurements wait in a list until somebody puts them into their buckets: where nobody asks for metrics, it would only grow
        metrics.run_upkeep();
    }
}

fn publish(cluster: &Cluster, models: &Models, writing: &Writing) {
    writing.publish();
    cluster.publish_gauges();
    for engine in models.all() {
        llambo_llama::publish_gauges(engine.as_ref());
    }
}

/// Where things are kept unless the configuration says otherwise; `None` without a home.
pub(crate) fn cache_folder(what: &str) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("llambo").join(what))
}

fn absolute(path: PathBuf) -> Option<PathBuf> {
    std::path::absolute(path).ok()
}
