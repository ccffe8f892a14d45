//! What is said over HTTP as the messages of `llambo.proto`, and back.

use std::time::Duration;

use llambo_proto::v1;

use super::wire::{Ask, Create, End, LogitBias, Message, Options, Page, Said, Session, Started, Token, Usage, Whole};
use crate::http::failure::ApiError;

pub(super) fn chat(messages: Vec<Message>) -> v1::Messages {
    let message = |Message { role, content }| v1::Message { role, content };
    v1::Messages { messages: messages.into_iter().map(message).collect() }
}

fn unless_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

// === into the protocol ===

impl Ask {
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }

    pub(super) fn into_request(self, session_id: String) -> Result<v1::AskRequest, ApiError> {
        use v1::ask_request::Prompt;
        let prompt = match (self.text, self.messages) {
            (Some(_), messages) if !messages.is_empty() => {
                return Err(ApiError::invalid("`text` and `messages` are both set; give one of them").param("text"));
            }
            (Some(text), _) => Some(Prompt::Text(text)),
            (None, messages) if messages.is_empty() => None,
            (None, messages) => Some(Prompt::Chat(chat(messages))),
        };
        Ok(v1::AskRequest {
            session_id,
            prompt,
            options: self.options.into_wire()?,
            request_id: self.request_id,
            explain: false,
            priority: self.priority,
            keep_partial: self.keep_partial,
        })
    }
}

impl Create {
    pub(super) fn into_request(self) -> Result<v1::CreateSessionRequest, ApiError> {
        Ok(v1::CreateSessionRequest {
            model: self.model,
            r#type: self.r#type,
            tier: self.tier,
            system: self.system,
            chat: Some(chat(self.messages)),
            options: self.options.into_wire()?,
            ttl_ms: self.ttl_ms.unwrap_or(0),
            token_budget: self.token_budget,
            when_full: self.when_full,
            labels: self.labels,
        })
    }
}

impl Options {
    fn into_wire(self) -> Result<Option<v1::SamplingOptions>, ApiError> {
        use v1::sampling_options::Constraint;
        if self == Self::default() {
            return Ok(None);
        }
        let constraint = match (self.json_schema, self.grammar) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid("`json_schema` and `grammar` are both set; give one of them").param("options"));
            }
            (Some(schema), None) => Some(Constraint::JsonSchema(schema.to_string())),
            (None, grammar) => grammar.map(Constraint::Grammar),
        };
        Ok(Some(v1::SamplingOptions {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            stop: self.stop,
            logit_bias: self.logit_bias.into_iter().map(|LogitBias { token, bias }| v1::LogitBias { token, bias }).collect(),
            constraint,
            ignore_eos: self.ignore_eos,
        }))
    }
}

// === from the protocol ===

impl From<v1::SamplingOptions> for Options {
    fn from(wire: v1::SamplingOptions) -> Self {
        use v1::sampling_options::Constraint;
        let (json_schema, grammar) = match wire.constraint {
            // over gRPC a schema is text, and may be none
            Some(Constraint::JsonSchema(text)) => {
                (Some(serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))), None)
            }
            Some(Constraint::Grammar(grammar)) => (None, Some(grammar)),
            None => (None, None),
        };
        Self {
            max_tokens: wire.max_tokens,
            temperature: wire.temperature,
            top_k: wire.top_k,
            top_p: wire.top_p,
            min_p: wire.min_p,
            repeat_penalty: wire.repeat_penalty,
            presence_penalty: wire.presence_penalty,
            frequency_penalty: wire.frequency_penalty,
            seed: wire.seed,
            stop: wire.stop,
            logit_bias: wire.logit_bias.into_iter().map(|v1::LogitBias { token, bias }| LogitBias { token, bias }).collect(),
            json_schema,
            grammar,
            ignore_eos: wire.ignore_eos,
        }
    }
}

impl From<v1::Session> for Session {
    fn from(wire: v1::Session) -> Self {
        let v1::SessionUsage { input_tokens, output_tokens, cached_tokens } = wire.usage.unwrap_or_default();
        Self {
            id: wire.id,
            model: wire.model,
            r#type: unless_empty(wire.r#type),
            tier: wire.tier,
            options: wire.options.unwrap_or_default().into(),
            ttl_ms: wire.ttl_ms,
            token_budget: wire.token_budget,
            when_full: wire.when_full,
            labels: wire.labels,
            parent: unless_empty(wire.parent),
            created_at_ms: wire.created_at_ms,
            used_at_ms: wire.used_at_ms,
            expires_at_ms: wire.expires_at_ms,
            n_messages: wire.n_messages,
            n_forgotten: wire.n_forgotten,
            n_turns: wire.n_turns,
            size_bytes: wire.size_bytes,
            usage: Usage { input_tokens, output_tokens, cached_tokens },
            busy: wire.busy,
            durable: wire.durable,
        }
    }
}

impl From<v1::GetSessionResponse> for Said {
    fn from(wire: v1::GetSessionResponse) -> Self {
        let message = |v1::Message { role, content }| Message { role, content };
        Self { messages: wire.messages.into_iter().map(message).collect() }
    }
}

impl From<v1::GetSessionResponse> for Whole {
    fn from(mut wire: v1::GetSessionResponse) -> Self {
        let session = wire.session.take().unwrap_or_default().into();
        Self { session, messages: Said::from(wire).messages }
    }
}

impl From<v1::ListSessionsResponse> for Page {
    fn from(wire: v1::ListSessionsResponse) -> Self {
        Self { sessions: wire.sessions.into_iter().map(Into::into).collect(), next: unless_empty(wire.next) }
    }
}

impl From<v1::Started> for Started {
    fn from(wire: v1::Started) -> Self {
        Self { request_id: wire.request_id, node: wire.node, model: wire.model }
    }
}

impl From<v1::Piece> for Token {
    fn from(wire: v1::Piece) -> Self {
        Self { text: wire.text, n_tokens: wire.n_tokens }
    }
}

impl From<v1::Finished> for End {
    fn from(wire: v1::Finished) -> Self {
        let v1::Usage { input_tokens, output_tokens, cached_tokens } = wire.usage.unwrap_or_default();
        let usage =
            Usage { input_tokens: input_tokens.into(), output_tokens: output_tokens.into(), cached_tokens: cached_tokens.into() };
        Self { finish_reason: wire.finish_reason, usage, ttft_ms: wire.ttft_ms, total_ms: wire.total_ms }
    }
}
