use std::time::Instant;

use crate::{ModelName, NodeId, RequestId, Sampling, TenantName, TypeName};

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
}

/// Whose work a request is. When there is more than fits, a model's batch is shared between tenants, and within a tenant between
/// isolates, in proportion to their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// Who may start from what earlier requests of theirs computed.
    pub tenant: TenantName,
    /// The tenant's weight among tenants, above 0.
    pub tenant_weight: f64,
    /// Which isolate of the tenant asks.
    pub isolate: Option<NodeId>,
    /// The isolate's weight among those of its tenant, above 0.
    pub weight: f64,
}

impl Default for Share {
    fn default() -> Self {
        Self { tenant: "default".into(), tenant_weight: 1.0, isolate: None, weight: 1.0 }
    }
}

/// What a model is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text continued as it stands.
    Text(String),
    /// A conversation, put into the model's own chat template.
    Chat(Vec<Message>),
}

impl Prompt {
    /// UTF-8 bytes of all text in it; what size limits are measured by.
    pub fn n_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Chat(messages) => messages.iter().map(|m| m.content.len()).sum(),
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// Who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
