//! `llambo serve`: ports first, because a taken one should be known at once; then models, isolates, and the doors opened. The
//! end goes the other way: doors refuse, what is under way finishes, isolates go, models go.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use llambo_config::Config;
use llambo_edge::{Bound, Host, Settings as EdgeSettings};
use llambo_inference::{ModelName, Models, TypeName};
use llambo_isolate::{Dormitory, Sandbox};
use llambo_orchestrator::{Cluster, NodeFactory, Settings as ClusterSettings};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task,
    time::{MissedTickBehavior, interval},
};

use crate::{
    Failure,
    factory::IsolateFactory,
    logging, models,
    plan::{Plan, module, type_settings},
    publish::Publisher,
};

/// How often gauges are brought up to date and isolates that came back are noticed.
const GAUGES_EVERY: Duration = Duration::from_secs(2);
/// From 0.1 ms to a minute: a choice of node is far below, a long answer at the upper end.
const SECONDS_BUCKETS: [f64; 18] =
    [1e-7, 1e-6, 1e-5, 1e-4, 5e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Tasks run between two looks at what came from other threads, and at sockets and timers.
const TOKENS_EVERY: u32 = 4;
const CONNECTIONS_EVERY: u32 = 16;
/// Streams one connection may have open: as many as the host serves at once, so that one client can use all of it.
const SMALLEST_STREAM_LIMIT: u32 = 256;

pub(crate) fn run(config: Config) -> Result<(), Failure> {
    logging::start(&config.logging)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // tokens come from threads of their own: they should not wait for whoever is ready here, nor should connections
        .global_queue_interval(TOKENS_EVERY)
        .event_interval(CONNECTIONS_EVERY)
        .thread_name("llambo")
        .build()
        .map_err(|e| Failure::Machine(format!("the runtime cannot start: {e}")))?;
    let served = runtime.block_on(serve(config));
    // what is left are tasks of connections that were cut
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(config: Config) -> Result<(), Failure> {
    let began = Instant::now();
    let ending = Ending::watch().map_err(|e| Failure::Machine(format!("signals cannot be watched: {e}")))?;
    let metrics = metrics_recorder()?;
    let edge = Bound::new(EdgeSettings {
        grpc: config.network.grpc,
        http: config.network.http,
        max_request_bytes: usize::try_from(config.network.max_request_bytes).unwrap_or(usize::MAX),
        max_module_bytes: usize::try_from(config.modules.max_bytes).unwrap_or(usize::MAX),
        max_streams_per_connection: (config.queue.max_in_flight + config.queue.max_waiting).max(SMALLEST_STREAM_LIMIT),
        client_stall_timeout: config.network.client_stall_timeout,
    })
    .await
    .map_err(Failure::machine)?;

    let config = Arc::new(config);
    let preparing = task::spawn_blocking({
        let config = Arc::clone(&config);
        move || prepare(&config)
    });
    let (models, sandbox, factory) = tokio::select! {
        prepared = preparing => prepared.map_err(Failure::machine)??,
        // a model that is being loaded cannot be called off; the end of the process ends it
        _ = ending.asked() => return Err(Failure::Interrupted),
    };
    let factory = Arc::new(factory);
    let closing = Arc::clone(&factory);
    let types = Arc::clone(&factory) as Arc<dyn NodeFactory>;
    let cluster = Cluster::new(types, cluster_settings(&config)).map_err(Failure::machine)?;
    // those that are there already count; those of published modules come when these are there
    let early = cluster.adopt().await.map_err(Failure::machine)?.nodes.len();
    spawn(&config, &cluster).await?;
    let publisher = Publisher::new(Arc::clone(&config), Arc::new(sandbox), factory, cluster.clone())?;
    publisher.restore().await;
    adopt(&cluster, early).await?;

    tracing::info!(
        grpc = %edge.grpc_addr(),
        http = %edge.http_addr(),
        start_ms = began.elapsed().as_millis(),
        "serving; SIGTERM or Ctrl-C ends it"
    );
    let gauges = task::spawn(keep_gauges(cluster.clone(), models.clone()));
    let drain_asked = Arc::new(Notify::new());
    let host = Host {
        cluster: cluster.clone(),
        models: models.clone(),
        modules: Arc::new(publisher),
        default_model: ModelName::from(&config.models[0].name),
        metrics: metrics.clone(),
        refresh_gauges: Arc::new({
            let (cluster, models) = (cluster.clone(), models.clone());
            move || {
                metrics.run_upkeep();
                publish(&cluster, &models);
            }
        }),
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
        tokio::select! {
            drained = cluster.drained(config.shutdown.drain) => match drained {
                Ok(()) => tracing::info!("every request was finished"),
                Err(busy) => tracing::warn!(%busy, "the drain time is over, the rest is cut off"),
            },
            signal = ending.asked() => {
                tracing::warn!(signal, "told again to end, not waiting for requests");
                let _ = cut_short.set(());
            }
        }
    };
    let served = edge.serve(host, shutdown).await.map_err(Failure::machine);
    gauges.abort();
    closing.close();
    cluster.stop_nodes();
    for engine in models.all() {
        models.remove(&engine.info().name);
    }
    tracing::info!(uptime_s = began.elapsed().as_secs(), "ended");
    match cut_short.get() {
        Some(()) => Err(Failure::Interrupted),
        None => served,
    }
}

/// Everything that computes or reads files: models, and modules compiled.
fn prepare(config: &Config) -> Result<(Models, Sandbox, IsolateFactory), Failure> {
    let mut plan = Plan::of(config);
    for warning in &plan.warnings {
        tracing::warn!(what = warning.what, remedy = warning.remedy, "this configuration may not fit");
    }
    if !plan.problems.is_empty() {
        let problems: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
        return Err(Failure::Machine(problems.join("\nllambo: ")));
    }
    let models = models::load(config, &mut plan)?;
    let cache = match &config.cache.modules {
        Some(path) => Some(path.resolved.clone()),
        None => cache_folder("modules"),
    };
    let mut sandbox = Sandbox::new(models.clone(), cache.and_then(absolute)).map_err(Failure::machine)?;
    let dormitory = dormitory(config)?;
    if let Some(dormitory) = &dormitory {
        sandbox = sandbox.with_dormitory(Arc::clone(dormitory));
    }
    let factory = IsolateFactory::new(dormitory);
    for node_type in &config.types {
        let began = Instant::now();
        let made = module(node_type).and_then(|module| sandbox.node_type(type_settings(config, node_type), module));
        let made = made.map_err(|error| Failure::Machine(format!("types.{}: {error}", node_type.name)))?;
        tracing::info!(node_type = node_type.name, compile_ms = began.elapsed().as_millis(), "module ready");
        factory.insert(made);
    }
    Ok((models, sandbox, factory))
}

fn cluster_settings(config: &Config) -> ClusterSettings {
    ClusterSettings {
        max_waiting: config.queue.max_waiting as usize,
        max_in_flight: config.queue.max_in_flight as usize,
        max_wait: config.queue.max_wait,
        attempts: config.balancing.attempts,
        strategy: config.balancing.strategy.as_str().to_owned(),
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

fn metrics_recorder() -> Result<PrometheusHandle, Failure> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(
                Matcher::Suffix("_sequences".into()),
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
            )
        })
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|e| Failure::Machine(format!("metrics cannot be recorded: {e}")))?;
    llambo_edge::describe_metrics();
    llambo_orchestrator::describe_metrics();
    llambo_llama::describe_metrics();
    llambo_isolate::describe_metrics();
    metrics::describe_counter!("llambo_module_changes_total", "Modules loaded, unloaded and rolled back by clients, by outcome");
    Ok(handle)
}

async fn keep_gauges(cluster: Cluster, models: Models) {
    let mut ticks = interval(GAUGES_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        publish(&cluster, &models);
    }
}

fn publish(cluster: &Cluster, models: &Models) {
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

/// Signals that end the host.
struct Ending {
    told: Arc<Notify>,
    name: Arc<OnceLock<&'static str>>,
}

impl Ending {
    /// Watched from the first moment on, so that an early signal is not lost.
    fn watch() -> io::Result<Self> {
        let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (told, name) = (Arc::new(Notify::new()), Arc::new(OnceLock::new()));
        let this = Self { told: Arc::clone(&told), name: Arc::clone(&name) };
        task::spawn(async move {
            loop {
                let which = tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                let _ = name.set(which);
                told.notify_one();
            }
        });
        Ok(this)
    }

    /// Done at the next signal.
    async fn asked(&self) -> &'static str {
        self.told.notified().await;
        self.name.get().copied().unwrap_or("a signal")
    }
}
