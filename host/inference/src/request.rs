use std::time::Instant;

use crate::{ModelName, RequestId, Sampling, TypeName};

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
    /// After this the generation ends with [`crate::InferenceError::DeadlineExceeded`], wherever it is.
    pub deadline: Option<Instant>,
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
