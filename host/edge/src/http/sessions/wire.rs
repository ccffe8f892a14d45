//! What is said over HTTP.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One thing said.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SessionMessage)]
pub(super) struct Message {
    /// `system`, `user` or `assistant`.
    pub(super) role: String,
    pub(super) content: String,
}

/// How an answer is chosen. What is left out takes the model's own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = SessionOptions)]
pub(super) struct Options {
    /// Tokens generated at most.
    pub(super) max_tokens: Option<u32>,
    pub(super) temperature: Option<f32>,
    pub(super) top_k: Option<u32>,
    pub(super) top_p: Option<f32>,
    pub(super) min_p: Option<f32>,
    pub(super) repeat_penalty: Option<f32>,
    pub(super) presence_penalty: Option<f32>,
    pub(super) frequency_penalty: Option<f32>,
    pub(super) seed: Option<u64>,
    /// The answer ends before any of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) stop: Vec<String>,
    /// Additions to logits, by token id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) logit_bias: Vec<LogitBias>,
    /// The answer is one JSON value valid under this schema.
    pub(super) json_schema: Option<serde_json::Value>,
    /// The answer conforms to this GBNF grammar.
    pub(super) grammar: Option<String>,
    /// Keep generating when the model says it is done.
    pub(super) ignore_eos: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SessionLogitBias)]
pub(super) struct LogitBias {
    pub(super) token: u32,
    pub(super) bias: f32,
}

/// A session to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = CreateSession)]
pub(super) struct Create {
    /// Left out: the host's first model.
    pub(super) model: String,
    /// Node type that must serve it. Left out: any.
    pub(super) r#type: String,
    /// The tier that should serve it, 0 to 2.
    pub(super) tier: Option<u32>,
    /// Instructions that stand above the conversation.
    pub(super) system: String,
    /// What was said before it begins.
    pub(super) messages: Vec<Message>,
    pub(super) options: Options,
    /// Time without use after which it is gone.
    pub(super) ttl_ms: Option<u64>,
    /// Tokens that its turns may use together.
    pub(super) token_budget: Option<u64>,
    /// `refuse` or `drop_oldest`.
    pub(super) when_full: String,
    pub(super) labels: HashMap<String, String>,
}

/// A question.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = AskSession)]
pub(super) struct Ask {
    /// A user's message.
    pub(super) text: Option<String>,
    /// Several messages instead.
    pub(super) messages: Vec<Message>,
    /// What it says here is taken instead of what the session says.
    pub(super) options: Options,
    /// False: the whole answer as one object.
    pub(super) stream: Option<bool>,
    /// When the answer breaks off, keep its beginning.
    pub(super) keep_partial: bool,
    /// Give up after so long.
    pub(super) timeout_ms: Option<u64>,
    pub(super) request_id: String,
    /// `interactive` or `batch`.
    pub(super) priority: String,
}

/// Messages to be added.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = AppendMessages)]
pub(super) struct Append {
    pub(super) messages: Vec<Message>,
}

/// Where to fork.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = ForkSession)]
pub(super) struct Fork {
    /// Messages that the fork begins with. Left out: all.
    pub(super) at_message: Option<u32>,
}

/// Which page of sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// At most 1,000; 100 if left out.
    pub(super) limit: Option<u32>,
    /// `next` of the page before.
    pub(super) after: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) r#type: Option<String>,
    pub(super) tier: Option<u32>,
    pub(super) options: Options,
    pub(super) ttl_ms: u64,
    pub(super) token_budget: Option<u64>,
    pub(super) when_full: String,
    pub(super) labels: HashMap<String, String>,
    /// The session that it was forked from.
    pub(super) parent: Option<String>,
    /// Milliseconds since 1970.
    pub(super) created_at_ms: u64,
    pub(super) used_at_ms: u64,
    pub(super) expires_at_ms: u64,
    pub(super) n_messages: u32,
    /// Messages that `drop_oldest` forgot.
    pub(super) n_forgotten: u64,
    pub(super) n_turns: u64,
    pub(super) size_bytes: u64,
    pub(super) usage: Usage,
    /// Whether a turn is under way.
    pub(super) busy: bool,
    /// Whether it outlives the host's process.
    pub(super) durable: bool,
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = SessionUsage)]
#[expect(clippy::struct_field_names, reason = "these are the protocol's names")]
pub(super) struct Usage {
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    /// Input that did not have to be computed.
    pub(super) cached_tokens: u64,
}

/// A session with everything said in it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionWithMessages)]
pub(super) struct Whole {
    #[serde(flatten)]
    pub(super) session: Session,
    pub(super) messages: Vec<Message>,
}

/// What was said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionMessages)]
pub(super) struct Said {
    pub(super) messages: Vec<Message>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sessions)]
pub(super) struct Page {
    pub(super) sessions: Vec<Session>,
    /// What gets the next page, or null.
    pub(super) next: Option<String>,
}

/// Event `started`: a node took the question.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = SessionStarted)]
pub(super) struct Started {
    pub(super) request_id: String,
    pub(super) node: String,
    pub(super) model: String,
}

/// Event `token`: more text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionToken)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) n_tokens: u32,
}

/// Event `end`: question and answer are in the session now.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = SessionEnd)]
pub(super) struct End {
    /// `stop` or `length`.
    pub(super) finish_reason: String,
    pub(super) usage: Usage,
    pub(super) ttft_ms: f64,
    pub(super) total_ms: f64,
}

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionAnswer)]
pub(super) struct Answer {
    #[serde(flatten)]
    pub(super) started: Started,
    pub(super) text: String,
    #[serde(flatten)]
    pub(super) end: End,
}

/// One line of JSON.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are always JSON")
}
