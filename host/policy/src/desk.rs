//! Loading policies, changing them, and telling how they do.

use std::{sync::Arc, time::Duration};

use llambo_inference::{EventKind, TokenHooks, Witness};
use llambo_strategy::{
    Admitting, Balancing, Classifying, Fusing, LoadedPolicy, NewPolicy, Place, Policy, PolicyDesk, PolicyError, PolicyKind,
    PolicyRef, PolicyStatus, Role, Scaling,
};

use crate::{
    examined::{Ask, DryRun, Examined, Tried, examine},
    hooks::HookSeat,
    machine::Machine,
    occupants::Managed,
    runner::{Pooled, World},
    seat::Seat,
    trial,
    worlds::{Admission, Balancer, Classifier, Fusion, HookModule, Scaler, Tracker},
};

/// What policies may use, and who may load them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether clients may load them.
    pub load: bool,
    /// Computing time of a call, unless told otherwise.
    pub time: Duration,
    /// What may be told otherwise.
    pub max_time: Duration,
    /// Memory of an instance, unless told otherwise.
    pub memory_bytes: u64,
    /// What may be told otherwise.
    pub max_memory_bytes: u64,
    /// Of a module.
    pub max_bytes: u64,
}

/// All seats of a host, and the desk where they are filled.
pub struct Policies {
    machine: Arc<Machine>,
    settings: Settings,
    balancer: Arc<Seat<Balancing>>,
    admission: Arc<Seat<Admitting>>,
    classifier: Arc<Seat<Classifying>>,
    scaler: Arc<Seat<Scaling>>,
    fusion: Arc<Seat<Fusing>>,
    hooks: Arc<HookSeat>,
}

impl Settings {
    /// Whether clients may change policies.
    pub(crate) fn permit(&self) -> Result<(), PolicyError> {
        let what = "this host lets nobody change policies; its configuration says so in `policies.load`";
        if self.load { Ok(()) } else { Err(PolicyError::NotPermitted(what.into())) }
    }
}

impl Policies {
    /// Empty seats.
    ///
    /// # Errors
    /// The system gives no thread, or the processor is not supported.
    pub fn start(settings: Settings) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            machine: Machine::start()?,
            settings,
            balancer: Arc::new(Seat::new()),
            admission: Arc::new(Seat::new()),
            classifier: Arc::new(Seat::new()),
            scaler: Arc::new(Seat::new()),
            fusion: Arc::new(Seat::new()),
            hooks: Arc::new(HookSeat::new()),
        }))
    }

    /// Who is told from now on when policies change or are suspended; once.
    pub fn tells(&self, witness: Arc<dyn Witness>) {
        self.machine.told.to(witness);
    }

    /// Who chooses nodes.
    pub fn balancer(&self) -> Arc<dyn Policy<Balancing>> {
        Arc::clone(&self.balancer) as _
    }

    /// Who lets requests in.
    pub fn admission(&self) -> Arc<dyn Policy<Admitting>> {
        Arc::clone(&self.admission) as _
    }

    /// Who says how demanding requests are.
    pub fn classifier(&self) -> Arc<dyn Policy<Classifying>> {
        Arc::clone(&self.classifier) as _
    }

    /// Who says how many nodes there should be.
    pub fn scaler(&self) -> Arc<dyn Policy<Scaling>> {
        Arc::clone(&self.scaler) as _
    }

    /// Who makes one answer of several.
    pub fn fusion(&self) -> Arc<dyn Policy<Fusing>> {
        Arc::clone(&self.fusion) as _
    }

    /// Who sees tokens.
    pub fn hooks(&self) -> Arc<dyn TokenHooks> {
        Arc::clone(&self.hooks) as _
    }

    fn examine(&self, new: &NewPolicy) -> Result<Examined, PolicyError> {
        examine(new, &self.settings, &self.machine)
    }

    fn pooled<W: World>(&self, new: &Examined, asks: Vec<Ask<W>>) -> Result<Tried<W::Kind>, PolicyError> {
        let pooled = Pooled::<W>::new(&self.machine, &new.terms, &new.linked).map_err(|detail| new.unfit(detail))?;
        new.tried(Box::new(pooled), asks)
    }

    fn balancing(&self, new: &Examined) -> Result<Tried<Balancing>, PolicyError> {
        if new.interface != Tracker::INTERFACE {
            return self.pooled::<Balancer>(new, trial::choices());
        }
        let tracker = Tracker::new(&self.machine, &new.terms, &new.linked).map_err(|detail| new.unfit(detail))?;
        new.tried(Box::new(tracker), trial::tracked_choices())
    }

    fn hooking(&self, new: &Examined) -> Result<(Box<HookModule>, DryRun), PolicyError> {
        let module = HookModule::new(&self.machine, &new.terms, &new.linked).map_err(|detail| new.unfit(detail))?;
        let dry_run = trial::hook(&module).map_err(|failure| new.failed(&failure))?;
        Ok((Box::new(module), dry_run))
    }

    /// Takes one out, whoever may load them.
    ///
    /// # Errors
    /// There is none.
    pub fn take_out(&self, kind: PolicyKind, role: Role) -> Result<Arc<PolicyRef>, PolicyError> {
        let gone = self.managed(kind).unload(role).ok_or_else(|| unknown(kind, role))?;
        tracing::info!(policy = &*gone.name, kind = kind.as_str(), generation = gone.generation, "policy unloaded");
        self.machine.told.tell_of(EventKind::PolicyUnloaded, &gone);
        Ok(gone)
    }

    fn managed(&self, kind: PolicyKind) -> &dyn Managed {
        match kind {
            PolicyKind::Balancer => &self.balancer.occupants,
            PolicyKind::Admission => &self.admission.occupants,
            PolicyKind::Classifier => &self.classifier.occupants,
            PolicyKind::Scaler => &self.scaler.occupants,
            PolicyKind::Fusion => &self.fusion.occupants,
            PolicyKind::TokenHook => &self.hooks.occupants,
        }
    }
}

impl PolicyDesk for Policies {
    fn list(&self) -> Vec<PolicyStatus> {
        PolicyKind::ALL.into_iter().flat_map(|kind| self.managed(kind).list()).collect()
    }

    fn load(&self, new: NewPolicy) -> Result<LoadedPolicy, PolicyError> {
        let examined = self.examine(&new)?;
        let place = new.place;
        let loaded = match new.kind {
            PolicyKind::Balancer => examined.seat(&self.balancer.occupants, place, self.balancing(&examined)?),
            PolicyKind::Admission => {
                examined.seat(&self.admission.occupants, place, self.pooled::<Admission>(&examined, trial::admissions())?)
            }
            PolicyKind::Classifier => {
                examined.seat(&self.classifier.occupants, place, self.pooled::<Classifier>(&examined, trial::classifications())?)
            }
            PolicyKind::Scaler => {
                examined.seat(&self.scaler.occupants, place, self.pooled::<Scaler>(&examined, trial::scalings())?)
            }
            PolicyKind::Fusion => {
                examined.seat(&self.fusion.occupants, place, self.pooled::<Fusion>(&examined, trial::fusions())?)
            }
            PolicyKind::TokenHook => examined.seat(&self.hooks.occupants, place, self.hooking(&examined)?),
        };
        let by = &loaded.policy.policy;
        tracing::info!(
            policy = &*by.name,
            kind = by.kind.as_str(),
            role = by.role.as_str(),
            generation = by.generation,
            "policy loaded"
        );
        self.machine.told.tell_of(EventKind::PolicyLoaded, by);
        Ok(loaded)
    }

    fn promote(&self, kind: PolicyKind) -> Result<(PolicyStatus, Option<Arc<PolicyRef>>), PolicyError> {
        self.settings.permit()?;
        let unknown = PolicyError::Unknown { kind, what: "canary or shadow", remedy: "load one with `--share` or `--shadow`" };
        let done = self.managed(kind).promote().ok_or(unknown)?;
        changed("policy promoted", Some(&done.0));
        self.machine.told.tell_of(EventKind::PolicyPromoted, &done.0.policy);
        Ok(done)
    }

    fn roll_back(&self, kind: PolicyKind) -> Result<(Option<PolicyStatus>, Option<Arc<PolicyRef>>), PolicyError> {
        self.settings.permit()?;
        let unknown = PolicyError::Unknown { kind, what: "live or earlier", remedy: "what is built in decides already" };
        let done = self.managed(kind).roll_back().ok_or(unknown)?;
        changed("policy rolled back", done.0.as_ref());
        match &done.0 {
            Some(now) => self.machine.told.tell_of(EventKind::PolicyRolledBack, &now.policy),
            None => self.machine.told.tell(EventKind::PolicyRolledBack, kind.as_str(), "what is built in decides"),
        }
        Ok(done)
    }

    fn unload(&self, kind: PolicyKind, role: Role) -> Result<Arc<PolicyRef>, PolicyError> {
        self.settings.permit()?;
        self.take_out(kind, role)
    }

    fn resume(&self, kind: PolicyKind, role: Role) -> Result<PolicyStatus, PolicyError> {
        let done = self.managed(kind).resume(role).ok_or_else(|| unknown(kind, role))?;
        changed("policy resumed", Some(&done));
        self.machine.told.tell_of(EventKind::PolicyResumed, &done.policy);
        Ok(done)
    }

    fn on_trial(&self, new: NewPolicy) -> Result<Arc<dyn Policy<Balancing>>, PolicyError> {
        let seat = Seat::<Balancing>::new();
        let examined = self.examine(&new)?;
        let tried = self.balancing(&examined)?;
        examined.seat(&seat.occupants, Place::Live, tried);
        Ok(Arc::new(seat))
    }
}

fn unknown(kind: PolicyKind, role: Role) -> PolicyError {
    PolicyError::Unknown { kind, what: role.as_str(), remedy: "`llamboctl policy list` shows what is loaded" }
}

/// What decides from now on; `None`: what is built in.
fn changed(what: &'static str, now: Option<&PolicyStatus>) {
    let policy = now.map_or("", |now| &*now.policy.name);
    let generation = now.map_or(0, |now| now.policy.generation);
    tracing::info!(what, policy, generation, "policies changed");
}
