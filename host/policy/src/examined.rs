//! A module on its way to its seat: what is checked before it runs, and its dry run.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use llambo_strategy::{Kind, LoadedPolicy, NewPolicy, Place, PolicyError, PolicyKind, PolicyRef, PolicyStatus, Role, Source};
use sha2::{Digest, Sha256};

use crate::{
    Settings,
    installed::{About, Installed, Instances},
    instance::Failure,
    machine::{Linked, Machine},
    occupants::Occupants,
    runner::{Runner, World},
    state::Terms,
    worlds::interfaces,
};

const MAX_NAME: usize = 32;
const MAX_PARAMETERS: usize = 64 << 10;
const SHORTEST_TIME: Duration = Duration::from_micros(10);
const SMALLEST_MEMORY: u64 = 64 << 10;

/// A module that may be tried.
pub(crate) struct Examined {
    kind: PolicyKind,
    pub(crate) linked: Linked,
    pub(crate) interface: &'static str,
    pub(crate) terms: Arc<Terms>,
    sha256: Arc<str>,
    size_bytes: u64,
    source: Source,
    compile: Duration,
}

/// Times of the calls of a dry run.
pub(crate) struct DryRun(pub(crate) Vec<Duration>);

/// The question of a world.
pub(crate) type Ask<W> = <<W as World>::Kind as Kind>::Ask;

/// What runs a policy that stood its dry run.
pub(crate) type Tried<K> = (Box<dyn Runner<K>>, DryRun);

/// Checks what can be checked without running it.
pub(crate) fn examine(new: &NewPolicy, settings: &Settings, machine: &Machine) -> Result<Examined, PolicyError> {
    if new.source == Source::Client {
        settings.permit()?;
    }
    let invalid = |what: String| Err(PolicyError::Invalid(what));
    let is_letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let name = new.name.as_bytes();
    if !name.first().is_some_and(u8::is_ascii_lowercase) || name.len() > MAX_NAME || !name.iter().all(|c| is_letter(*c)) {
        return invalid("a policy's name is a lower-case letter, then at most 31 of `a-z`, `0-9` and `-`".into());
    }
    if let Place::Canary(share) = new.place
        && !(share > 0.0 && share < 1.0)
    {
        return invalid(format!("`share` is {share}, but must be above 0 and below 1"));
    }
    match (new.kind, new.place) {
        (PolicyKind::Scaler, Place::Canary(_)) => {
            return invalid("a scaler has no share of requests; load it as a shadow".into());
        }
        (PolicyKind::TokenHook, Place::Shadow | Place::Canary(_)) => {
            return invalid("a token hook acts on every token: it can be neither a shadow nor a canary".into());
        }
        _ => {}
    }
    if new.parameters.len() > MAX_PARAMETERS {
        return invalid(format!("`parameters` has {} bytes; at most {MAX_PARAMETERS} are permitted", new.parameters.len()));
    }
    let (size, limit) = (new.wasm.len() as u64, settings.max_bytes);
    if size > limit {
        return invalid(format!("the module has {size} bytes; at most {limit} are permitted (`policies.max-size`)"));
    }
    let time = new.time.unwrap_or(settings.time);
    if time < SHORTEST_TIME || time > settings.max_time {
        let most = settings.max_time;
        return invalid(format!("a call may compute for 10µs to {most:?} (`policies.max-time`), and {time:?} was asked for"));
    }
    let memory = new.memory_bytes.unwrap_or(settings.memory_bytes);
    if memory < SMALLEST_MEMORY || memory > settings.max_memory_bytes {
        let most = settings.max_memory_bytes;
        return invalid(format!(
            "an instance may have 65536 to {most} bytes of memory (`policies.max-memory`), and {memory} were asked for"
        ));
    }
    let began = Instant::now();
    let unfit = |detail| PolicyError::Unfit { name: new.name.clone(), kind: new.kind, detail };
    let linked = machine.link(&new.wasm).map_err(unfit)?;
    let interface = linked.must_export(interfaces(new.kind)).map_err(unfit)?;
    let digest: Vec<String> = Sha256::digest(&new.wasm).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Examined {
        kind: new.kind,
        linked,
        interface,
        terms: Arc::new(Terms {
            name: new.name.as_str().into(),
            parameters: new.parameters.as_str().into(),
            time,
            memory_bytes: usize::try_from(memory).unwrap_or(usize::MAX),
            said: Mutex::default(),
            told: machine.told.clone(),
        }),
        sha256: digest.concat().into(),
        size_bytes: size,
        source: new.source,
        compile: began.elapsed(),
    })
}

impl Examined {
    pub(crate) fn unfit(&self, detail: String) -> PolicyError {
        PolicyError::Unfit { name: self.terms.name.to_string(), kind: self.kind, detail }
    }

    pub(crate) fn failed(&self, failure: &Failure) -> PolicyError {
        let mut detail = format!("{} ({})", failure.detail, failure.cause.as_str());
        let said = self.terms.last_line();
        if !said.is_empty() {
            detail = format!("{detail}; it said: {said}");
        }
        PolicyError::TrialFailed { name: self.terms.name.to_string(), kind: self.kind, detail }
    }

    /// Puts questions to a policy that nobody has put yet.
    pub(crate) fn tried<K: Kind>(&self, runner: Box<dyn Runner<K>>, asks: Vec<K::Ask>) -> Result<Tried<K>, PolicyError> {
        let mut times = Vec::with_capacity(asks.len());
        for ask in asks.into_iter().map(Arc::new) {
            let began = Instant::now();
            let ran = runner.run(&ask).map_err(|failure| self.failed(&failure))?;
            times.push(began.elapsed());
            if let Some(Err(detail)) = ran.answer.map(|answer| K::check(&ask, &answer)) {
                return Err(self.failed(&Failure::new(llambo_strategy::Fallback::Nonsense, detail)));
            }
        }
        Ok((runner, DryRun(times)))
    }

    /// Gives it its place.
    pub(crate) fn seat<R: Instances + ?Sized>(
        &self,
        occupants: &Occupants<R>,
        place: Place,
        (runner, dry_run): (Box<R>, DryRun),
    ) -> LoadedPolicy {
        let (role, share) = match place {
            Place::Live => (Role::Live, 1.0),
            Place::Shadow => (Role::Shadow, 0.0),
            Place::Canary(share) => (Role::Canary, share),
        };
        let policy = Arc::new(Installed::new(self.about(occupants.next_generation()), runner));
        let (policy, replaced) = occupants.put(role, share, &policy);
        self.loaded(policy, replaced, &dry_run)
    }

    fn about(&self, generation: u32) -> About {
        About {
            kind: self.kind,
            terms: Arc::clone(&self.terms),
            size_bytes: self.size_bytes,
            loaded_at: SystemTime::now(),
            source: self.source,
            interface: self.interface,
            refs: About::refs(self.kind, &self.terms.name, &self.sha256, generation),
        }
    }

    fn loaded(&self, policy: PolicyStatus, replaced: Option<Arc<PolicyRef>>, dry_run: &DryRun) -> LoadedPolicy {
        let mut times = dry_run.0.clone();
        times.sort_unstable();
        let p50 = times.get(times.len() / 2).copied().unwrap_or_default();
        LoadedPolicy {
            policy,
            replaced,
            compile: self.compile,
            dry_run_calls: u32::try_from(times.len()).unwrap_or(u32::MAX),
            dry_run_p50_ns: p50.as_secs_f64() * 1e9,
        }
    }
}
