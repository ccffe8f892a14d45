use llambo_inference::{Priority, Usage};

use crate::Work;

/// What is submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    /// Its id, unique within the tenant. One that came before names the same task.
    pub id: String,
    /// Another name for it, only to be recognized by: the same key names the same task, whatever its id.
    pub key: Option<String>,
    /// Equal where the same is asked: what comes again under the same id or key must ask the same.
    pub digest: [u8; 32],
    /// Whose it is.
    pub tenant: String,
    /// The tenant's weight among tenants, above 0.
    pub weight: f64,
    /// What to generate.
    pub work: Work,
    /// How long it may take from now on, waiting included; `None`: for ever.
    pub timeout_ms: Option<u64>,
}

/// A task as it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub state: TaskState,
    /// The model it asks.
    pub model: String,
    /// The node type it asks for.
    pub node_type: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// Notes for policies.
    pub labels: Vec<(String, String)>,
    /// Times in milliseconds since 1970.
    pub times: Times,
    /// Times that it began to run.
    pub attempts: u32,
    /// Who served it last.
    pub node: Option<String>,
    /// What was generated, as far as it is kept; empty in lists.
    pub text: String,
    /// `stop` or `length`, once it is finished.
    pub finish_reason: Option<String>,
    /// Tokens so far.
    pub usage: Usage,
    /// Why it ended otherwise.
    pub failure: Option<TaskFailure>,
}

/// When what happened to a task, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// It was accepted.
    pub created_ms: i64,
    /// It first ran.
    pub started_ms: Option<i64>,
    /// It ended.
    pub ended_ms: Option<i64>,
    /// It ends then, wherever it is.
    pub expires_ms: Option<i64>,
}

/// Where a task is: `queued -> running -> ended`, and from `running` back to `queued` when its run broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Waits to run.
    Queued,
    /// Runs.
    Running,
    /// Ended well.
    Finished,
    /// Ended badly.
    Failed,
    /// Called off.
    Cancelled,
    /// Its time was over.
    Expired,
}

/// Why a task did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFailure {
    /// A stable upper-case name.
    pub reason: String,
    /// What happened, for people.
    pub message: String,
}

/// How a run of a task came to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Finished { reason: &'static str, usage: Usage },
    Failed(TaskFailure),
    Expired,
}

// === impl TaskState ===

impl TaskState {
    /// All of them, in order of a task's life.
    pub const ALL: [Self; 6] = [Self::Queued, Self::Running, Self::Finished, Self::Failed, Self::Cancelled, Self::Expired];

    /// Lower-case name, as shown to clients and used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether nothing follows.
    pub fn is_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

// === impl Outcome ===

impl Outcome {
    pub(crate) fn failed(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Failed(TaskFailure { reason: reason.into(), message: message.into() })
    }

    pub(crate) fn state(&self) -> TaskState {
        match self {
            Self::Finished { .. } => TaskState::Finished,
            Self::Failed(_) => TaskState::Failed,
            Self::Expired => TaskState::Expired,
        }
    }

    /// Why, unless it went well.
    pub(crate) fn failure(&self) -> Option<TaskFailure> {
        match self {
            Self::Finished { .. } => None,
            Self::Failed(failure) => Some(failure.clone()),
            Self::Expired => Some(TaskFailure {
                reason: "DEADLINE_EXCEEDED".into(),
                message: "the task's time was over before it ended; submit it with a longer one".into(),
            }),
        }
    }
}
