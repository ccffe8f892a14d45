//! Policies of a host: what the configuration says of them, and the folder that is watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use llambo_config::{Config, Policies as PolicyConfig};
use llambo_orchestrator::Policies as Seats;
use llambo_policy::{Policies, Settings};
use llambo_strategy::{NewPolicy, Place, PolicyDesk, PolicyError, PolicyKind, Role, Source};
use tokio::{
    task,
    time::{MissedTickBehavior, interval},
};

use crate::Failure;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Files that are told to mean nothing.
const MAX_STRANGERS: usize = 100;

/// Empty seats, as the configuration wants them.
pub(crate) fn start(config: &PolicyConfig) -> Result<Arc<Policies>, Failure> {
    let settings = Settings {
        load: config.load,
        time: config.time,
        max_time: config.max_time,
        memory_bytes: config.memory_bytes,
        max_memory_bytes: config.max_memory_bytes,
        max_bytes: config.max_bytes,
    };
    Policies::start(settings).map_err(|e| Failure::Machine(format!("policies cannot run here: {e}")))
}

/// The seats, for the orchestrator.
pub(crate) fn seats(policies: &Policies, config: &PolicyConfig) -> Seats {
    Seats {
        balancer: policies.balancer(),
        admission: policies.admission(),
        classifier: policies.classifier(),
        scaler: policies.scaler(),
        fusion: policies.fusion(),
        grants_prompt: config.grants_prompt,
    }
}

/// A folder whose modules are policies: `KIND.wasm` is live, `KIND.shadow.wasm` a shadow, `KIND.parameters` what both may ask for.
pub(crate) struct Folder {
    path: PathBuf,
    desk: Arc<Policies>,
    /// What was loaded, or tried, for each place.
    seen: BTreeMap<(PolicyKind, Role), Seen>,
    /// Files that are there and mean nothing, as far as that was told.
    strangers: BTreeSet<String>,
}

/// What a file was when it was loaded: another size or time, and it is loaded again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen(Vec<(u64, SystemTime)>);

impl Folder {
    /// `None` where the configuration names none.
    pub(crate) fn of(config: &Config, desk: &Arc<Policies>) -> Option<Self> {
        let path = config.policies.folder.as_ref()?.resolved.clone();
        Some(Self { path, desk: Arc::clone(desk), seen: BTreeMap::new(), strangers: BTreeSet::new() })
    }

    /// Loads what is there, and from then on what changes.
    pub(crate) async fn watch(mut self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let looked = task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(folder) => self = folder,
                Err(error) => {
                    tracing::error!(%error, "the folder of policies is not watched any more");
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        self.tell_strangers();
        for kind in PolicyKind::ALL {
            for (role, suffix) in [(Role::Live, ""), (Role::Shadow, ".shadow")] {
                let (wasm, parameters) = (format!("{kind}{suffix}.wasm"), format!("{kind}.parameters"));
                self.look_at((kind, role), &wasm, &parameters);
            }
        }
    }

    fn tell_strangers(&mut self) {
        let known = |name: &str| {
            PolicyKind::ALL.iter().any(|kind| {
                let rest = name.strip_prefix(kind.as_str());
                rest.is_some_and(|rest| matches!(rest, ".wasm" | ".shadow.wasm" | ".parameters"))
            })
        };
        let files = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for name in files.filter_map(|file| file.file_name().into_string().ok()).filter(|name| !known(name)) {
            if !name.starts_with('.') && self.strangers.len() < MAX_STRANGERS && self.strangers.insert(name.clone()) {
                let advice = "names are KIND.wasm, KIND.shadow.wasm and KIND.parameters, such as balancer.wasm";
                tracing::warn!(file = name, advice, "a file in the folder of policies is passed over");
            }
        }
    }

    fn look_at(&mut self, place: (PolicyKind, Role), wasm: &str, parameters: &str) {
        let (path, parameters) = (self.path.join(wasm), self.path.join(parameters));
        let Some(is) = state(&path) else {
            if self.seen.remove(&place).is_some() {
                self.leave(place, wasm);
            }
            return;
        };
        let seen = Seen([Some(is), state(&parameters)].into_iter().flatten().collect());
        if self.seen.get(&place) == Some(&seen) {
            return;
        }
        // tried once: a module that is refused is looked at again when it has changed
        self.seen.insert(place, seen);
        match load(&path, &parameters, place, &self.desk) {
            Ok(()) => {}
            Err(error) => tracing::error!(file = wasm, error, "a policy in the folder cannot be loaded, what was there stays"),
        }
    }

    /// Its file is gone: what was loaded from it goes, unless somebody put another in its place.
    fn leave(&self, (kind, role): (PolicyKind, Role), wasm: &str) {
        let is_ours = |status: &llambo_strategy::PolicyStatus| {
            (status.kind, status.policy.role, status.source) == (kind, role, Source::Folder)
        };
        if self.desk.list().iter().any(is_ours) {
            match self.desk.take_out(kind, role) {
                Ok(_) => tracing::info!(file = wasm, "a policy's file is gone, and so is the policy"),
                Err(error) => tracing::warn!(file = wasm, %error, "a policy's file is gone"),
            }
        }
    }
}

/// Size and time of a file that is there, and has not been written for a moment: half a module is none.
fn state(path: &Path) -> Option<(u64, SystemTime)> {
    let about = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let modified = about.modified().ok()?;
    let is_quiet = modified.elapsed().map_or(true, |since| since > LOOK_EVERY / 5);
    is_quiet.then_some((about.len(), modified))
}

fn load(path: &Path, parameters: &Path, (kind, role): (PolicyKind, Role), desk: &Policies) -> Result<(), String> {
    let wasm = fs::read(path).map_err(|e| format!("it cannot be read: {e}"))?;
    let parameters = match fs::read_to_string(parameters) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(format!("{} cannot be read: {e}", parameters.display())),
    };
    let place = if role == Role::Shadow { Place::Shadow } else { Place::Live };
    let new = NewPolicy {
        kind,
        name: format!("folder-{kind}"),
        wasm: wasm.into(),
        place,
        parameters,
        time: None,
        memory_bytes: None,
        source: Source::Folder,
    };
    desk.load(new).map(drop).map_err(|error: PolicyError| error.to_string())
}
