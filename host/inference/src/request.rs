use std::{sync::Arc, time::Instant};

use crate::{Journal, Labels, ModelName, NodeId, RequestId, Sampling, TenantName, TokenLog, TraceContext, TypeName};

/// One generation, as the edge or a guest asked for it.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Identity for logs and answers.
    pub id: RequestId,
    /// Which model answers.
    pub model: ModelName,
    /// Which node type must serve it; `None` leaves the choice to the balancer.
    pub node_type: Option<TypeName>,
    /// What is continued or answered.
    pub prompt: Prompt,
    /// How tokens are chosen and when generation ends.
    pub sampling: Sampling,
    /// Whose work it is.
    pub share: Share,
    /// After this the generation ends with [`crate::InferenceError::DeadlineExceeded`], wherever it is.
    pub deadline: Option<Instant>,
    /// What its client says about where it should go.
    pub routing: Routing,
    /// Who comes first while requests wait.
    pub priority: Priority,
    /// For nodes: what is generated for it, and on a second node, what the first one had generated.
    pub journal: Option<Journal>,
    /// For engines: where the tokens are written down. One that holds tokens already is gone on with behind them, as if it had never been
    /// interrupted: their text comes again, the rest follows.
    pub log: Option<TokenLog>,
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// Nobody does: it takes what others leave, and a small share in any case.
    Batch,
}

/// What a client says about where its request should go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// Tell how its node was chosen.
    pub explain: bool,
    /// Notes for policies.
    pub labels: Labels,
    /// The tier that should serve it; others do if that has no node free.
    pub tier: Option<u8>,
    /// Nodes to ask for one answer; 0 and 1 are one.
    pub answers: u32,
    /// The trace that it is part of, and who in it asks.
    pub trace: Option<TraceContext>,
    /// The conversation that it is part of: the next question of one begins as the last one did.
    pub session: Option<Arc<str>>,
}

/// Whose work a request is. When there is more than fits, a model's batch is shared between tenants, and within a tenant between
/// isolates, in proportion to their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// Who may start from what earlier requests of theirs computed.
    pub tenant: TenantName,
    /// The tenant's weight among tenants, above 0.
    pub tenant_weight: f64,
    /// Batch work has an account of its own, with a sixteenth of its tenant's weight.
    pub priority: Priority,
    /// Which isolate of the tenant asks.
    pub isolate: Option<NodeId>,
    /// The isolate's weight among those of its tenant, above 0.
    pub weight: f64,
}

impl Default for Share {
    fn default() -> Self {
        Self { tenant: "default".into(), tenant_weight: 1.0, priority: Priority::default(), isolate: None, weight: 1.0 }
    }
}

/// What a model is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Prompt {
    /// Text continued as it stands.
    Text(String),
    /// A conversation, put into the model's own chat template.
    Chat(Vec<Message>),
}

impl Priority {
    /// What the weight of whoever it is for is multiplied by: enough for batch work to go on beside all others, and hardly more.
    pub fn factor(self) -> f64 {
        match self {
            Self::Interactive => 1.0,
            Self::Batch => 1.0 / 16.0,
        }
    }

    /// The name used on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }

    /// The priority of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Interactive, Self::Batch].into_iter().find(|priority| priority.as_str() == name)
    }
}

impl Prompt {
    /// Messages of a conversation; 0 for text.
    pub fn n_messages(&self) -> usize {
        match self {
            Self::Text(_) => 0,
            Self::Chat(messages) => messages.len(),
        }
    }

    /// UTF-8 bytes of all text in it; what size limits are measured by.
    pub fn n_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Chat(messages) => messages.iter().map(|m| m.content.len()).sum(),
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// Who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions that stand above the conversation.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name chat templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::System, Self::User, Self::Assistant].into_iter().find(|role| role.as_str() == name)
    }
}
