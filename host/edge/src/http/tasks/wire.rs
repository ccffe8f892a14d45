//! Tasks as JSON.

use std::collections::BTreeMap;

use llambo_inference::InferenceError;
use llambo_proto::{convert::Asked, v1};
use llambo_tasks::{Task, TaskState};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

/// What is asked for. Of `prompt` and `messages` one is given. Everything else may be left out.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// Of a task: its id, at most 128 of A-Z, a-z, 0-9, `.`, `_` and `-`. Submitted twice, it is the same task. Of a request: how logs call it.
    pub(crate) id: Option<String>,
    /// The model; the host's first one unless told otherwise.
    model: Option<String>,
    /// Node type, for example `tiny`.
    r#type: Option<String>,
    /// Text that is continued as it stands.
    prompt: Option<String>,
    /// A conversation that is answered.
    messages: Option<Vec<Message>>,
    /// Tokens generated at most; to the end of the context unless told otherwise.
    max_tokens: Option<u32>,
    /// 0 takes the likeliest token always. In [0, 10].
    temperature: Option<f32>,
    /// Only the likeliest `top_k` tokens; 0 keeps all.
    top_k: Option<u32>,
    /// In (0, 1].
    top_p: Option<f32>,
    /// In [0, 1].
    min_p: Option<f32>,
    /// In [0.1, 10]; 1 changes nothing.
    repeat_penalty: Option<f32>,
    /// In [-2, 2].
    presence_penalty: Option<f32>,
    /// In [-2, 2].
    frequency_penalty: Option<f32>,
    /// Same seed, model, prompt and options: same text.
    seed: Option<u64>,
    /// At most 16 strings of at most 256 bytes. The answer ends before any of them.
    stop: Option<Vec<String>>,
    /// At most 300.
    logit_bias: Option<Vec<Bias>>,
    /// The answer is one JSON value valid under this schema.
    #[schema(value_type = Option<Object>)]
    json_schema: Option<Box<RawValue>>,
    /// The answer conforms to this GBNF grammar.
    grammar: Option<String>,
    /// Keep generating when the model says it is done.
    ignore_eos: Option<bool>,
    /// Notes for policies: at most 16, each key at most 64 and each value at most 256 bytes.
    labels: Option<BTreeMap<String, String>>,
    /// The tier that should serve it, 0 to 2.
    #[schema(maximum = 2)]
    tier: Option<u32>,
    /// Ask so many nodes, at most 16, and make one answer of theirs.
    #[schema(maximum = 16)]
    answers: Option<u32>,
    /// Who comes first while requests wait: `batch` for tasks, unless told otherwise; `interactive` for requests that are answered at once.
    priority: Option<Urgency>,
    /// How long it may take, waiting included; tasks may take as long as they like unless told otherwise.
    #[schema(minimum = 1)]
    timeout_ms: Option<u64>,
}

/// One turn of a conversation.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    role: Role,
    content: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    System,
    User,
    Assistant,
}

/// An addition to one token's logit.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bias {
    token: u32,
    /// In [-100, 100].
    bias: f32,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Urgency {
    Interactive,
    Batch,
}

/// A task.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Told {
    id: String,
    /// `queued`, `running`, or how it ended: `finished`, `failed`, `cancelled`, `expired`.
    state: &'static str,
    /// Whether it outlives the host.
    durable: bool,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<String>,
    priority: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    /// Milliseconds since 1970, as the other times.
    created_at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
    /// Times that it began to run.
    attempts: u32,
    /// What served it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// What was generated so far; left out of lists and events.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// `stop` or `length`, once it is finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<String>,
    usage: Usage,
    /// Why it did not end well.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

/// Some tasks, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct List {
    tasks: Vec<Told>,
    /// Whether there are more; ask for those with `after` and the last id.
    has_more: bool,
}

/// Tokens read and written.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "they are the names on the wire")]
pub(crate) struct Usage {
    input_tokens: u32,
    /// Those that did not have to be computed.
    cached_tokens: u32,
    output_tokens: u32,
}

#[derive(Debug, Serialize, ToSchema)]
struct Failure {
    /// For programs.
    reason: String,
    /// For people.
    message: String,
}

// === impl Ask ===

impl Ask {
    /// How long it may take.
    pub(crate) fn timeout_ms(&self) -> Option<u64> {
        self.timeout_ms
    }

    /// Equal where the same is asked, under whatever id.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut asked = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = asked.as_object_mut() {
            fields.remove("id");
        }
        Sha256::digest(asked.to_string()).into()
    }

    /// The request in the form that all interfaces share.
    ///
    /// # Errors
    /// What is wrong with it, as far as that can be told without knowing the model.
    pub(crate) fn asked(self, otherwise: Urgency) -> Result<Asked, InferenceError> {
        let invalid = |message: &str| Err(InferenceError::InvalidRequest(message.to_owned()));
        let prompt = match (self.prompt, self.messages) {
            (Some(text), None) => v1::generate_request::Prompt::Text(text),
            (None, Some(messages)) => {
                v1::generate_request::Prompt::Chat(v1::Messages { messages: messages.into_iter().map(Message::wire).collect() })
            }
            (Some(_), Some(_)) => return invalid("`prompt` and `messages` are both set; give one of them"),
            (None, None) => return invalid("neither `prompt` nor `messages` is set; give one of them"),
        };
        let constraint = match (self.json_schema, self.grammar) {
            (Some(_), Some(_)) => return invalid("`json_schema` and `grammar` are both set; give one of them"),
            (Some(schema), None) => Some(v1::sampling_options::Constraint::JsonSchema(as_text(&schema))),
            (None, grammar) => grammar.map(v1::sampling_options::Constraint::Grammar),
        };
        let bias = |bias: Bias| v1::LogitBias { token: bias.token, bias: bias.bias };
        let options = v1::SamplingOptions {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            stop: self.stop.unwrap_or_default(),
            logit_bias: self.logit_bias.unwrap_or_default().into_iter().map(bias).collect(),
            constraint,
            ignore_eos: self.ignore_eos.unwrap_or_default(),
        };
        let priority = match self.priority.unwrap_or(otherwise) {
            Urgency::Interactive => "interactive",
            Urgency::Batch => "batch",
        };
        Asked::try_from(v1::GenerateRequest {
            model: self.model.unwrap_or_default(),
            r#type: self.r#type.unwrap_or_default(),
            prompt: Some(prompt),
            options: Some(options),
            request_id: self.id.unwrap_or_default(),
            explain: false,
            labels: self.labels.unwrap_or_default().into_iter().collect(),
            tier: self.tier,
            answers: self.answers.unwrap_or_default(),
            priority: priority.to_owned(),
        })
    }
}

/// A schema may also be given as a text that holds it.
fn as_text(schema: &RawValue) -> String {
    serde_json::from_str(schema.get()).unwrap_or_else(|_| schema.get().to_owned())
}

impl Message {
    fn wire(self) -> v1::Message {
        let role = match self.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        v1::Message { role: role.to_owned(), content: self.content }
    }
}

// === impl Told ===

impl Told {
    pub(super) fn whole(task: Task, durable: bool) -> Self {
        let text = (task.state.is_ended() || !task.text.is_empty()).then(|| task.text.clone());
        Self { text, ..Self::brief(task, durable) }
    }

    /// Without its text.
    pub(super) fn brief(task: Task, durable: bool) -> Self {
        let state: TaskState = task.state;
        Self {
            id: task.id,
            state: state.as_str(),
            durable,
            model: task.model,
            r#type: task.node_type,
            priority: task.priority.as_str(),
            labels: task.labels.into_iter().collect(),
            created_at_ms: task.times.created_ms,
            started_at_ms: task.times.started_ms,
            ended_at_ms: task.times.ended_ms,
            expires_at_ms: task.times.expires_ms,
            attempts: task.attempts,
            node: task.node,
            text: None,
            finish_reason: task.finish_reason,
            usage: task.usage.into(),
            error: task.failure.map(|failure| Failure { reason: failure.reason, message: failure.message }),
        }
    }
}

impl List {
    /// The first `limit` of `tasks`, of which there is one more if there are more.
    pub(super) fn of(mut tasks: Vec<Task>, limit: u32, durable: bool) -> Self {
        let has_more = tasks.len() > limit as usize;
        tasks.truncate(limit as usize);
        Self { tasks: tasks.into_iter().map(|task| Told::brief(task, durable)).collect(), has_more }
    }
}

impl From<llambo_inference::Usage> for Usage {
    fn from(usage: llambo_inference::Usage) -> Self {
        let llambo_inference::Usage { input_tokens, cached_tokens, output_tokens } = usage;
        Self { input_tokens, cached_tokens, output_tokens }
    }
}
