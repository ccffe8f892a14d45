//! What a client of chat completions is told, whole or in chunks.

use axum::body::Bytes;
use futures::TryStreamExt;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::{
    failure::ApiError,
    openai::{
        choice::{CallPart, Choices, Event, Told},
        field::Field,
        logprobs::ChatLogprobs,
        sse::{Form, data},
        usage::UsageObject,
    },
};

/// What all parts of one answer tell.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) fingerprint: Option<String>,
    pub(super) tier: &'static str,
    /// Answers.
    pub(super) n: usize,
    /// Whether an answer may have text, and not only calls.
    pub(super) has_text: bool,
}

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatCompletion {
    id: String,
    /// Always `chat.completion`.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    service_tier: &'static str,
    /// The same as long as the model's file is the same.
    system_fingerprint: Option<String>,
    choices: Vec<ChatChoice>,
    usage: UsageObject,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct ChatChoice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    finish_reason: &'static str,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct AnswerMessage {
    /// Always `assistant`.
    role: &'static str,
    /// Null where there are only calls.
    content: Option<String>,
    /// Always null.
    #[schema(value_type = Option<String>)]
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ToolCall {
    id: String,
    /// Always `function`.
    #[serde(rename = "type")]
    kind: &'static str,
    function: CalledFunction,
}

#[derive(Debug, Serialize, ToSchema)]
struct CalledFunction {
    name: String,
    /// JSON, as text.
    arguments: String,
}

/// A part of a streamed answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChunk {
    id: String,
    /// Always `chat.completion.chunk`.
    object: &'static str,
    created: u64,
    model: String,
    service_tier: &'static str,
    system_fingerprint: Option<String>,
    /// One; none in the last chunk, which tells the usage.
    choices: Vec<ChunkChoice>,
    /// Only with `stream_options.include_usage`: null in all chunks but the last.
    #[serde(skip_serializing_if = "Field::is_absent")]
    #[schema(value_type = Option<UsageObject>)]
    usage: Field<UsageObject>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Field::is_absent")]
    #[schema(value_type = Option<String>)]
    content: Field<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
}

#[derive(Debug, Serialize, ToSchema)]
struct CallDelta {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Debug, Serialize, ToSchema)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// A streamed answer under way.
pub(super) struct Chunks {
    about: About,
    usage: UsageObject,
    tells_usage: bool,
}

impl About {
    /// Unique among all calls that were ever told.
    fn call_id(index: usize) -> String {
        format!("call_{:016x}{index:02x}", rand::random::<u64>())
    }
}

/// Waits for all answers.
///
/// # Errors
/// One of them failed.
pub(super) async fn whole(about: About, mut choices: Choices) -> Result<ChatCompletion, ApiError> {
    let mut usage = UsageObject::default();
    let mut told: Vec<ChatChoice> = (0..about.n)
        .map(|index| {
            let message = AnswerMessage { role: "assistant", ..AnswerMessage::default() };
            ChatChoice { index, message, ..ChatChoice::default() }
        })
        .collect();
    while let Some((index, event)) = choices.try_next().await? {
        let Some(choice) = told.get_mut(index) else { continue };
        match event {
            Told::Started => {}
            Told::Text { text, logprobs } => {
                choice.message.content.get_or_insert_default().push_str(&text);
                if !logprobs.is_empty() {
                    choice.logprobs.get_or_insert_default().extend(logprobs);
                }
            }
            Told::Call(part) => choice.message.add(part),
            Told::End { reason, usage: cost } => {
                choice.finish_reason = reason;
                usage.add(index, about.n, cost);
                if choice.message.tool_calls.is_empty() {
                    choice.message.content.get_or_insert_default();
                }
            }
        }
    }
    let About { id, created, model, fingerprint, tier, .. } = about;
    Ok(ChatCompletion {
        id,
        object: "chat.completion",
        created,
        model,
        service_tier: tier,
        system_fingerprint: fingerprint,
        choices: told,
        usage,
    })
}

impl AnswerMessage {
    fn add(&mut self, CallPart { name, arguments, .. }: CallPart) {
        match (name, self.tool_calls.last_mut()) {
            (None, Some(last)) => last.function.arguments.push_str(&arguments),
            (name, _) => {
                let id = About::call_id(self.tool_calls.len());
                let function = CalledFunction { name: name.unwrap_or_default(), arguments };
                self.tool_calls.push(ToolCall { id, kind: "function", function });
            }
        }
    }
}

impl Chunks {
    pub(super) fn new(about: About, tells_usage: bool) -> Self {
        Self { about, usage: UsageObject::default(), tells_usage }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<UsageObject>) -> Bytes {
        let About { id, created, model, fingerprint, tier, .. } = self.about.clone();
        data(&ChatChunk {
            id,
            object: "chat.completion.chunk",
            created,
            model,
            service_tier: tier,
            system_fingerprint: fingerprint,
            choices,
            usage: if self.tells_usage { Field::or_null(usage) } else { Field::Absent },
        })
    }
}

impl Form for Chunks {
    fn event(&mut self, (index, told): Event) -> Option<Bytes> {
        let (mut logprobs, mut finish_reason) = (None, None);
        let delta = match told {
            Told::Started => {
                let content = Field::or_null(self.about.has_text.then(String::new));
                Delta { role: Some("assistant"), content, ..Delta::default() }
            }
            Told::Text { text, logprobs: tokens } => {
                logprobs = ChatLogprobs::of(tokens);
                Delta { content: Field::Told(text), ..Delta::default() }
            }
            Told::Call(CallPart { index, name, arguments }) => {
                let begins = name.is_some();
                let call = CallDelta {
                    index,
                    id: begins.then(|| About::call_id(index)),
                    kind: begins.then_some("function"),
                    function: FunctionDelta { name, arguments },
                };
                Delta { tool_calls: vec![call], ..Delta::default() }
            }
            Told::End { reason, usage } => {
                self.usage.add(index, self.about.n, usage);
                finish_reason = Some(reason);
                Delta::default()
            }
        };
        Some(self.chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason }], None))
    }

    fn end(&mut self) -> Option<Bytes> {
        self.tells_usage.then(|| self.chunk(Vec::new(), Some(self.usage)))
    }
}
