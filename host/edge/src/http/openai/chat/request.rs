//! What a client of chat completions sends.

use llambo_inference::{Constraint, InferenceEngine, Message, Prompt, Role};
use llambo_proto::convert::Asked;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::About;
use crate::http::{
    failure::ApiError,
    openai::{
        choice::Choice,
        request::{Received, fingerprint},
        sampling::{CommonFields, MAX_TOP_LOGPROBS},
        tools::{Tool, ToolChoice, Tooling, Wanted, written_call, written_result},
        watch::Watch,
    },
};

/// A request for chat completions.
#[derive(Debug, ToSchema)]
pub(crate) struct ChatBody {
    #[serde(flatten)]
    pub(super) own: ChatFields,
    #[serde(flatten)]
    pub(super) common: CommonFields,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ChatFields {
    /// The conversation so far.
    #[schema(min_items = 1)]
    messages: Vec<ChatMessage>,
    /// Tell how likely each token was.
    logprobs: Option<bool>,
    /// And so many of the likeliest tokens beside it.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<u32>,
    response_format: Option<ResponseFormat>,
    /// What the model may call.
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
    /// False: one call at most.
    parallel_tool_calls: Option<bool>,
    /// The form of `tools` that was there before them; refused.
    #[schema(value_type = Option<Vec<Object>>)]
    functions: Option<Vec<Value>>,
    /// What the answer is made of; only `text`.
    modalities: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct ChatMessage {
    role: ChatRole,
    content: Option<Content>,
    /// What an assistant's message called.
    tool_calls: Option<Vec<PastCall>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
    /// What a call gave.
    Tool,
    /// The same, in an older form.
    Function,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of parts, each with a `type`")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize, ToSchema)]
struct Part {
    /// `text`; others are refused.
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct PastCall {
    function: PastFunction,
}

#[derive(Debug, Deserialize, ToSchema)]
struct PastFunction {
    name: String,
    /// JSON, as text.
    arguments: String,
}

/// The form of the answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that conforms to a schema.
    JsonSchema {
        json_schema: NamedSchema,
    },
}

#[derive(Debug, Deserialize, ToSchema)]
struct NamedSchema {
    /// A JSON Schema.
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
}

impl ChatBody {
    /// The answers that are to be asked for.
    ///
    /// # Errors
    /// What cannot be served, by its field.
    pub(super) fn asks(&self, received: &Received) -> Result<Vec<Choice>, ApiError> {
        let tooling = self.tooling()?;
        let mut asked = Asked::new(Prompt::Chat(self.conversation(tooling.instructions)?))
            .map_err(|error| ApiError::from(error).param("messages"))?;
        let form = match tooling.constraint {
            Some(constraint) => Some(("tool_choice", constraint)),
            None => self.own.form(),
        };
        self.common.apply(&mut asked, form)?;
        asked.options.stop.extend(tooling.stop.map(str::to_owned));
        asked.n_top = self.own.n_top()?;
        let n = self.common.n_choices(1)?;
        Ok(Choice::several(&asked, n, received, &tooling.watch, None))
    }

    /// What all parts of the answer tell.
    pub(super) fn about(&self, received: &Received, engine: &dyn InferenceEngine) -> About {
        let forced = self.own.tools.is_some() && matches!(self.tooling().map(|tooling| tooling.watch), Ok(Watch::Forced(_)));
        About {
            id: format!("chatcmpl-{}", received.id),
            created: received.created,
            model: self.common.model.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| engine.info().name.to_string()),
            fingerprint: fingerprint(engine),
            tier: if self.common.service_tier.as_deref() == Some("flex") { "flex" } else { "default" },
            n: self.common.n_choices(1).unwrap_or(1),
            has_text: !forced,
        }
    }

    fn tooling(&self) -> Result<Tooling, ApiError> {
        let own = &self.own;
        if own.functions.as_ref().is_some_and(|functions| !functions.is_empty()) {
            return Err(ApiError::invalid("`functions` is the older form of `tools`; send them as `tools`").param("functions"));
        }
        if own.modalities.iter().flatten().any(|modality| modality != "text") {
            return Err(ApiError::invalid("`modalities` may only be `text`: models here write text").param("modalities"));
        }
        let tools = own.tools.as_deref().unwrap_or_default();
        let parallel = own.parallel_tool_calls.unwrap_or(true);
        let tooling = Wanted { tools, choice: own.tool_choice.as_ref(), parallel }.tooling()?;
        if matches!(tooling.watch, Watch::Tagged(_)) && self.has_form() {
            let what = "a form of the answer leaves no place for calls of tools: set `tool_choice` to `none` or `required`, or leave out \
                        `response_format`, `grammar` and `json_schema`";
            return Err(ApiError::invalid(what).param("tool_choice"));
        }
        Ok(tooling)
    }

    fn has_form(&self) -> bool {
        let common = &self.common;
        self.own.form().is_some() || common.grammar.as_ref().is_some_and(|text| !text.is_empty()) || common.json_schema.is_some()
    }

    /// The messages as the model's template takes them: every text from a system, a user or an assistant.
    fn conversation(&self, instructions: Option<String>) -> Result<Vec<Message>, ApiError> {
        if self.own.messages.is_empty() {
            return Err(ApiError::invalid("`messages` is empty; send at least one").param("messages"));
        }
        let mut told: Vec<Message> = Vec::with_capacity(self.own.messages.len() + 1);
        let mut after_result = false;
        for (i, message) in self.own.messages.iter().enumerate() {
            let content = message.text(i)?;
            let is_result = matches!(message.role, ChatRole::Tool | ChatRole::Function);
            match (told.last_mut(), is_result) {
                // results of several calls are one turn
                (Some(last), true) if after_result => {
                    last.content.push('\n');
                    last.content.push_str(&written_result(&content));
                }
                (_, true) => told.push(Message { role: Role::User, content: written_result(&content) }),
                (_, false) => told.push(Message { role: message.role.plain(), content }),
            }
            after_result = is_result;
        }
        if let Some(instructions) = instructions {
            match told.first_mut().filter(|first| first.role == Role::System) {
                Some(first) => first.content = format!("{}\n\n{instructions}", first.content),
                None => told.insert(0, Message { role: Role::System, content: instructions }),
            }
        }
        Ok(told)
    }
}

impl ChatFields {
    fn form(&self) -> Option<(&'static str, Constraint)> {
        let schema = match self.response_format.as_ref()? {
            ResponseFormat::Text => return None,
            ResponseFormat::JsonSchema { json_schema: NamedSchema { schema: Some(schema) } } => schema.to_string(),
            ResponseFormat::JsonObject | ResponseFormat::JsonSchema { .. } => r#"{"type":"object"}"#.to_owned(),
        };
        Some(("response_format", Constraint::JsonSchema(schema)))
    }

    fn n_top(&self) -> Result<Option<usize>, ApiError> {
        let n = self.top_logprobs.map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let refuse = |what: String| Err(ApiError::invalid(what).param("top_logprobs"));
        match self.logprobs {
            _ if n > MAX_TOP_LOGPROBS => refuse(format!("`top_logprobs` is {n}, but must be at most {MAX_TOP_LOGPROBS}")),
            Some(true) => Ok(Some(n)),
            _ if n > 0 => refuse("`top_logprobs` is only permitted with `logprobs: true`".into()),
            _ => Ok(None),
        }
    }
}

impl ChatMessage {
    /// All of its text, calls included.
    fn text(&self, i: usize) -> Result<String, ApiError> {
        let mut text = match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => {
                let parts = parts.iter().enumerate().map(|(j, part)| part.text(i, j));
                parts.collect::<Result<Vec<_>, _>>()?.concat()
            }
        };
        for call in self.tool_calls.iter().flatten() {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&written_call(&call.function.name, &call.function.arguments));
        }
        Ok(text)
    }
}

impl Part {
    fn text(&self, i: usize, j: usize) -> Result<&str, ApiError> {
        match (self.kind.as_str(), &self.text, &self.refusal) {
            ("text", Some(text), _) | ("refusal", _, Some(text)) => Ok(text),
            (kind, ..) => {
                let param = format!("messages[{i}].content[{j}]");
                let kind: String = kind.chars().take(32).collect();
                let what = match kind.as_str() {
                    "text" | "refusal" => format!("`{param}` is a part of the type {kind:?} without its text"),
                    _ => format!("`{param}` is a part of the type {kind:?}; models here read only parts of the type `text`"),
                };
                Err(ApiError::invalid(what).param(param))
            }
        }
    }
}

impl ChatRole {
    fn plain(self) -> Role {
        match self {
            Self::System | Self::Developer => Role::System,
            Self::User | Self::Tool | Self::Function => Role::User,
            Self::Assistant => Role::Assistant,
        }
    }
}
