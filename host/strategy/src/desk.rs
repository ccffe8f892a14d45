//! What operators may do with policies: the desk where they are loaded, watched, put back and taken away.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{Balancing, Fallback, Policy, PolicyRef, Role};

/// The kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Which node serves a request.
    Balancer,
    /// Whether a request is let in.
    Admission,
    /// How demanding a request is.
    Classifier,
    /// How many nodes a type has.
    Scaler,
    /// What several answers become.
    Fusion,
    /// What happens to each token.
    TokenHook,
}

/// A module that is to become a policy.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    /// What it decides.
    pub kind: PolicyKind,
    /// What operators call it.
    pub name: String,
    /// WebAssembly.
    pub wasm: Arc<[u8]>,
    /// What it is there for.
    pub place: Place,
    /// What it may ask for as its parameters.
    pub parameters: String,
    /// Computing time of a call; `None`: as configured.
    pub time: Option<Duration>,
    /// Memory of an instance; `None`: as configured.
    pub memory_bytes: Option<u64>,
    /// Who brings it.
    pub source: Source,
}

/// What a new policy is there for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// It decides.
    Live,
    /// It is asked and decides nothing.
    Shadow,
    /// It decides for this share of the requests, above 0 and below 1.
    Canary(f64),
}

/// Who brought a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A client of the interface.
    Client,
    /// The folder that is watched.
    Folder,
}

/// A policy and how it does.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyStatus {
    /// What it decides.
    pub kind: PolicyKind,
    /// Who it is, and what it is there for.
    pub policy: Arc<PolicyRef>,
    /// Why it is suspended, if it is.
    pub suspended: Option<String>,
    /// Bytes of its module.
    pub size_bytes: u64,
    /// When it was loaded.
    pub loaded_at: SystemTime,
    /// Who brought it.
    pub source: Source,
    /// What it exports, with its version.
    pub interface: &'static str,
    /// Of a canary: for which share it decides.
    pub share: Option<f64>,
    /// Calls.
    pub calls: u64,
    /// Calls after which what is built in decided.
    pub fallbacks: BTreeMap<Fallback, u64>,
    /// Median time of a call in nanoseconds, over the last 1,024.
    pub call_p50_ns: f64,
    /// The same, 99th percentile.
    pub call_p99_ns: f64,
    /// Instances now.
    pub instances: u32,
    /// Memory of the largest of them.
    pub instance_bytes: u64,
    /// Of a shadow: decisions that were compared with those of the one that decides.
    pub compared: u64,
    /// Those of them that were the same.
    pub agreed: u64,
    /// Decisions that it came too late for.
    pub missed: u64,
    /// Computing time of a call.
    pub time: Duration,
    /// Memory of an instance.
    pub memory_bytes: u64,
}

/// A policy that was put into its place.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedPolicy {
    /// What is there now.
    pub policy: PolicyStatus,
    /// What was there before.
    pub replaced: Option<Arc<PolicyRef>>,
    /// Time to compile it.
    pub compile: Duration,
    /// Calls of the dry run.
    pub dry_run_calls: u32,
    /// Median time of one of them, in nanoseconds.
    pub dry_run_p50_ns: f64,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The configuration does not let clients do this.
    #[error("{0}")]
    NotPermitted(String),
    /// A field that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It is no module of the world that it must be of.
    #[error("`{name}` cannot be used as {kind}: {detail}")]
    Unfit {
        /// What its loader called it.
        name: String,
        /// What it was to decide.
        kind: PolicyKind,
        /// Why not.
        detail: String,
    },
    /// It ran, and did not stand the dry run.
    #[error("`{name}` did not stand its dry run as {kind}: {detail}; nothing was changed")]
    TrialFailed {
        /// What its loader called it.
        name: String,
        /// What it was to decide.
        kind: PolicyKind,
        /// What happened.
        detail: String,
    },
    /// There is none.
    #[error("there is no {what} {kind} policy; {remedy}")]
    Unknown {
        /// Of which kind.
        kind: PolicyKind,
        /// In which role.
        what: &'static str,
        /// What can be done.
        remedy: &'static str,
    },
}

/// Where policies are loaded, watched and taken away.
pub trait PolicyDesk: Send + Sync {
    /// All policies: by kind, the live one first, then canary and shadow, then those that can be put back, the newest first.
    fn list(&self) -> Vec<PolicyStatus>;

    /// Checks a policy, tries it and puts it into its place. Blocks while it is compiled: not for a thread that serves.
    fn load(&self, new: NewPolicy) -> Result<LoadedPolicy, PolicyError>;

    /// Makes the canary or the shadow the live one. Answers also with what was.
    fn promote(&self, kind: PolicyKind) -> Result<(PolicyStatus, Option<Arc<PolicyRef>>), PolicyError>;

    /// Puts the one before back, or what is built in where there is none before it. Answers with what is live, and with what was.
    fn roll_back(&self, kind: PolicyKind) -> Result<(Option<PolicyStatus>, Option<Arc<PolicyRef>>), PolicyError>;

    /// Takes one out.
    fn unload(&self, kind: PolicyKind, role: Role) -> Result<Arc<PolicyRef>, PolicyError>;

    /// Lets a suspended one decide again.
    fn resume(&self, kind: PolicyKind, role: Role) -> Result<PolicyStatus, PolicyError>;

    /// A balancer that is in no place, for a replay. Blocks as [`Self::load`] does.
    fn on_trial(&self, new: NewPolicy) -> Result<Arc<dyn Policy<Balancing>>, PolicyError>;
}

// === impl PolicyKind ===

impl PolicyKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Balancer, Self::Admission, Self::Classifier, Self::Scaler, Self::Fusion, Self::TokenHook];

    /// As operators call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Balancer => "balancer",
            Self::Admission => "admission",
            Self::Classifier => "classifier",
            Self::Scaler => "scaler",
            Self::Fusion => "fusion",
            Self::TokenHook => "token-hook",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Source ===

impl Source {
    /// As operators call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Folder => "folder",
        }
    }
}

// === impl PolicyError ===

impl PolicyError {
    /// A stable upper-case name for clients.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotPermitted(_) => "NOT_PERMITTED",
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::Unfit { .. } => "INVALID_MODULE",
            Self::TrialFailed { .. } => "TRIAL_FAILED",
            Self::Unknown { .. } => "UNKNOWN_POLICY",
        }
    }
}

/// A host without policies.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDesk;

impl NoDesk {
    fn refused<T>() -> Result<T, PolicyError> {
        Err(PolicyError::NotPermitted("this host takes no policies; its configuration says so in `policies.load`".into()))
    }
}

impl PolicyDesk for NoDesk {
    fn list(&self) -> Vec<PolicyStatus> {
        Vec::new()
    }

    fn load(&self, _: NewPolicy) -> Result<LoadedPolicy, PolicyError> {
        Self::refused()
    }

    fn promote(&self, _: PolicyKind) -> Result<(PolicyStatus, Option<Arc<PolicyRef>>), PolicyError> {
        Self::refused()
    }

    fn roll_back(&self, _: PolicyKind) -> Result<(Option<PolicyStatus>, Option<Arc<PolicyRef>>), PolicyError> {
        Self::refused()
    }

    fn unload(&self, _: PolicyKind, _: Role) -> Result<Arc<PolicyRef>, PolicyError> {
        Self::refused()
    }

    fn resume(&self, _: PolicyKind, _: Role) -> Result<PolicyStatus, PolicyError> {
        Self::refused()
    }

    fn on_trial(&self, _: NewPolicy) -> Result<Arc<dyn Policy<Balancing>>, PolicyError> {
        Self::refused()
    }
}
