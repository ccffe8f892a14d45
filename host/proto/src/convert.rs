//! Wire messages to the vocabulary of [`llambo_inference`] and back.

use std::collections::HashMap;

use llambo_inference::{
    AnswerEvent, Constraint, Finished, GenerateRequest, InferenceError, Instant, Journal, Labels, LogitBias, Message, ModelInfo,
    ModelName, NodeId, Priority, Prompt, RequestId, Role, Routing, SamplingOptions, Share, TypeName, Usage, shortened,
};

use crate::v1;

/// Characters a request id may have; it goes into every log line of its request.
const MAX_REQUEST_ID: usize = 128;
/// Notes for policies, and the bytes of their keys and values: each decision that a policy takes may carry them.
const MAX_LABELS: usize = 16;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 256;
const MAX_TIER: u32 = 2;
/// Nodes that one request may ask.
const MAX_ANSWERS: u32 = 16;

/// A request that was read and checked, but not yet joined with its model's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The client's own id, if it gave one.
    pub id: Option<RequestId>,
    /// The model asked for, if one was.
    pub model: Option<ModelName>,
    /// The node type asked for, if one was.
    pub node_type: Option<TypeName>,
    /// What is continued or answered; has text.
    pub prompt: Prompt,
    /// Options as given, unchecked.
    pub options: SamplingOptions,
    /// Where it should go.
    pub routing: Routing,
    /// Who comes first while requests wait.
    pub priority: Priority,
    /// Whether its client wants to know how likely each token was, and how many of the likeliest beside it.
    pub n_top: Option<usize>,
}

/// How long a generation took, in milliseconds from the host's receipt of the request, and which tier served it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timing {
    /// To its first token.
    pub ttft_ms: f64,
    /// To its end.
    pub total_ms: f64,
    /// Which tier served it, where there are several.
    pub tier: Option<v1::TierServed>,
}

// === impl Asked ===

impl TryFrom<v1::GenerateRequest> for Asked {
    type Error = InferenceError;

    fn try_from(wire: v1::GenerateRequest) -> Result<Self, InferenceError> {
        let prompt = match wire.prompt {
            Some(v1::generate_request::Prompt::Text(text)) => Prompt::Text(text),
            Some(v1::generate_request::Prompt::Chat(chat)) => {
                Prompt::Chat(chat.messages.into_iter().enumerate().map(message).collect::<Result<_, _>>()?)
            }
            None => return Err(invalid("the request has no prompt; set `text` or `chat`")),
        };
        let asked = Self::new(prompt)?;
        let id = match wire.request_id.as_str() {
            "" => None,
            id if id.len() <= MAX_REQUEST_ID && id.bytes().all(|b| b.is_ascii_graphic() || b == b' ') => Some(id.into()),
            id => {
                return Err(invalid(format!(
                    "`request_id` has {} bytes; it must be at most {MAX_REQUEST_ID} printable ASCII characters",
                    id.len()
                )));
            }
        };
        Ok(Self {
            id,
            model: named(&wire.model),
            node_type: named(&wire.r#type),
            options: wire.options.map(options).unwrap_or_default(),
            routing: routing(wire.explain, wire.labels, wire.tier, wire.answers)?,
            priority: priority(&wire.priority)?,
            ..asked
        })
    }
}

impl Asked {
    /// One that leaves everything but its prompt open.
    ///
    /// # Errors
    /// [`InferenceError::InvalidRequest`] for a prompt without text.
    pub fn new(prompt: Prompt) -> Result<Self, InferenceError> {
        if prompt.n_bytes() == 0 {
            return Err(invalid(match prompt {
                Prompt::Text(_) => "the prompt is empty; give the text to continue",
                Prompt::Chat(_) => "the prompt is empty; give at least one message with content",
            }));
        }
        Ok(Self {
            id: None,
            model: None,
            node_type: None,
            prompt,
            options: SamplingOptions::default(),
            routing: Routing::default(),
            priority: Priority::default(),
            n_top: None,
        })
    }

    /// Joins it with what the host knows: the model that answers, an id for requests without one, and the deadline.
    ///
    /// # Errors
    /// [`InferenceError::InvalidOption`] for the first option outside its range.
    pub fn resolve(
        self,
        model: &ModelInfo,
        id: impl FnOnce() -> RequestId,
        deadline: Option<Instant>,
    ) -> Result<GenerateRequest, InferenceError> {
        Ok(GenerateRequest {
            id: self.id.unwrap_or_else(id),
            model: model.name.clone(),
            node_type: self.node_type,
            prompt: self.prompt,
            sampling: self.options.resolve(&model.sampling)?,
            share: Share::default(),
            deadline,
            routing: self.routing,
            priority: self.priority,
            journal: self.n_top.map(Journal::with_logprobs),
            log: None,
        })
    }
}

/// What a client says about where its request should go.
fn routing(explain: bool, labels: HashMap<String, String>, tier: Option<u32>, answers: u32) -> Result<Routing, InferenceError> {
    let labels = self::labels(labels)?;
    let out_of_range = |field: &str, found: u32, most: u32| invalid(format!("`{field}` is {found}, but must be at most {most}"));
    let tier = match tier {
        Some(tier) if tier > MAX_TIER => return Err(out_of_range("tier", tier, MAX_TIER)),
        tier => tier.and_then(|tier| u8::try_from(tier).ok()),
    };
    if answers > MAX_ANSWERS {
        return Err(out_of_range("answers", answers, MAX_ANSWERS));
    }
    Ok(Routing { explain, labels, tier, answers, trace: None, session: None })
}

/// Notes for policies, which each decision that one takes may carry.
///
/// # Errors
/// [`InferenceError::InvalidRequest`] for more than 16 of them, and for keys and values of more than 64 and 256 bytes.
pub fn labels(labels: impl IntoIterator<Item = (String, String)>) -> Result<Labels, InferenceError> {
    let mut labels: Vec<(String, String)> = labels.into_iter().collect();
    if labels.len() > MAX_LABELS {
        return Err(invalid(format!("`labels` has {} entries; at most {MAX_LABELS} are permitted", labels.len())));
    }
    if let Some((key, value)) = labels.iter().find(|(key, value)| key.len() > MAX_KEY || value.len() > MAX_VALUE) {
        let (k, v) = (key.len(), value.len());
        return Err(invalid(format!(
            "`labels` has a key of {k} and a value of {v} bytes; at most {MAX_KEY} and {MAX_VALUE} are permitted"
        )));
    }
    labels.sort();
    Ok(labels.into())
}

fn priority(name: &str) -> Result<Priority, InferenceError> {
    match name {
        "" => Ok(Priority::default()),
        name => Priority::parse(name).ok_or_else(|| {
            invalid(format!("`priority` is {:?}; it must be `interactive` or `batch`", shortened(name.into(), 32)))
        }),
    }
}

fn invalid(message: impl Into<String>) -> InferenceError {
    InferenceError::InvalidRequest(message.into())
}

fn named<T: for<'a> From<&'a String>>(name: &String) -> Option<T> {
    (!name.is_empty()).then(|| T::from(name))
}

fn message((i, wire): (usize, v1::Message)) -> Result<Message, InferenceError> {
    let role = Role::parse(&wire.role).ok_or_else(|| {
        // the name may be anything and end up in a terminal: shown quoted, and not in full
        let found: String = wire.role.chars().take(32).collect();
        invalid(format!("`chat.messages[{i}].role` is {found:?}; it must be `system`, `user` or `assistant`"))
    })?;
    Ok(Message { role, content: wire.content })
}

fn options(wire: v1::SamplingOptions) -> SamplingOptions {
    SamplingOptions {
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
        logit_bias: wire.logit_bias.into_iter().map(|b| LogitBias { token: b.token, bias: b.bias }).collect(),
        constraint: wire.constraint.map(|constraint| match constraint {
            v1::sampling_options::Constraint::JsonSchema(schema) => Constraint::JsonSchema(schema),
            v1::sampling_options::Constraint::Grammar(grammar) => Constraint::Gbnf(grammar),
        }),
        ignore_eos: wire.ignore_eos,
    }
}

// === to the wire ===

/// The first message of a stream.
pub fn started(id: &RequestId, node: &NodeId, model: &ModelName, route: Option<v1::Route>) -> v1::GenerateResponse {
    response(v1::generate_response::Event::Started(v1::Started {
        request_id: id.to_string(),
        node: node.to_string(),
        model: model.to_string(),
        route,
    }))
}

/// A later message of a stream. `timing` is read only for the last one.
pub fn event(event: AnswerEvent, timing: impl FnOnce() -> Timing) -> v1::GenerateResponse {
    response(match event {
        AnswerEvent::Piece { text, n_tokens } => v1::generate_response::Event::Piece(v1::Piece { text, n_tokens }),
        AnswerEvent::Finished(Finished { reason, usage: spent }) => {
            let Timing { ttft_ms, total_ms, tier } = timing();
            v1::generate_response::Event::Finished(v1::Finished {
                finish_reason: reason.as_str().to_owned(),
                usage: Some(usage(spent)),
                ttft_ms,
                total_ms,
                tier,
            })
        }
    })
}

fn response(event: v1::generate_response::Event) -> v1::GenerateResponse {
    v1::GenerateResponse { event: Some(event) }
}

/// Tokens read and written.
pub fn usage(usage: Usage) -> v1::Usage {
    v1::Usage { input_tokens: usage.input_tokens, output_tokens: usage.output_tokens, cached_tokens: usage.cached_tokens }
}

/// A loaded model and its load now.
pub fn model(info: &ModelInfo, load: llambo_inference::EngineLoad) -> v1::Model {
    v1::Model {
        name: info.name.to_string(),
        architecture: info.architecture.clone(),
        n_params: info.n_params,
        size_bytes: info.size_bytes,
        n_vocab: info.n_vocab,
        n_embd: info.n_embd,
        n_context: info.n_context,
        n_sequences: info.n_sequences,
        sha256: info.digest.clone(),
        n_running: load.n_running,
        n_waiting: load.n_waiting,
        parent: String::new(),
        state: String::new(),
        pinned: false,
        memory_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use llambo_inference::FinishReason;

    use super::*;

    fn text(prompt: &str) -> v1::GenerateRequest {
        v1::GenerateRequest { prompt: Some(v1::generate_request::Prompt::Text(prompt.into())), ..Default::default() }
    }

    fn chat(messages: &[(&str, &str)]) -> v1::GenerateRequest {
        let messages =
            messages.iter().map(|(role, content)| v1::Message { role: (*role).into(), content: (*content).into() }).collect();
        v1::GenerateRequest { prompt: Some(v1::generate_request::Prompt::Chat(v1::Messages { messages })), ..Default::default() }
    }

    fn refusal(wire: v1::GenerateRequest) -> String {
        Asked::try_from(wire).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_stays_open() {
        let asked = Asked::try_from(text("hello\0")).unwrap();
        assert_eq!((asked.id, asked.model, asked.node_type), (None, None, None));
        assert_eq!(asked.prompt, Prompt::Text("hello\0".into()));
        assert_eq!(asked.options, SamplingOptions::default());
    }

    #[test]
    fn every_option_arrives() {
        let wire = v1::SamplingOptions {
            max_tokens: Some(1),
            temperature: Some(0.5),
            top_k: Some(0),
            top_p: Some(0.25),
            min_p: Some(0.125),
            repeat_penalty: Some(1.5),
            presence_penalty: Some(-1.0),
            frequency_penalty: Some(2.0),
            seed: Some(u64::MAX),
            stop: vec!["\n".into()],
            logit_bias: vec![v1::LogitBias { token: 7, bias: -100.0 }],
            constraint: Some(v1::sampling_options::Constraint::Grammar("root ::= \"a\"".into())),
            ignore_eos: true,
        };
        let expected = SamplingOptions {
            max_tokens: Some(1),
            temperature: Some(0.5),
            top_k: Some(0),
            top_p: Some(0.25),
            min_p: Some(0.125),
            repeat_penalty: Some(1.5),
            presence_penalty: Some(-1.0),
            frequency_penalty: Some(2.0),
            seed: Some(u64::MAX),
            stop: vec!["\n".into()],
            logit_bias: vec![LogitBias { token: 7, bias: -100.0 }],
            constraint: Some(Constraint::Gbnf("root ::= \"a\"".into())),
            ignore_eos: true,
        };
        let asked = Asked::try_from(v1::GenerateRequest { options: Some(wire), ..text("x") }).unwrap();
        assert_eq!(asked.options, expected);
    }

    #[test]
    fn a_request_without_text_is_refused_with_what_to_do() {
        assert!(refusal(v1::GenerateRequest::default()).contains("set `text` or `chat`"));
        assert!(refusal(text("")).starts_with("the prompt is empty; "));
        assert!(refusal(chat(&[])).starts_with("the prompt is empty; "));
        assert!(refusal(chat(&[("system", "")])).starts_with("the prompt is empty; "));
    }

    #[test]
    fn an_unknown_role_is_named_with_its_place() {
        let message = refusal(chat(&[("user", "hi"), ("robot", "hi")]));
        assert!(message.contains("chat.messages[1].role") && message.contains("\"robot\""), "{message}");
    }

    #[test]
    fn a_request_id_is_short_and_printable() {
        let with = |id: &str| Asked::try_from(v1::GenerateRequest { request_id: id.into(), ..text("x") });
        assert_eq!(with(&"x".repeat(128)).unwrap().id.unwrap().as_str().len(), 128);
        for bad in ["x".repeat(129), "a\nb".into(), "é".into()] {
            assert!(with(&bad).unwrap_err().to_string().contains("`request_id`"), "{bad:?}");
        }
    }

    #[test]
    fn the_end_carries_usage_and_time() {
        let finished =
            Finished { reason: FinishReason::Length, usage: Usage { input_tokens: 3, cached_tokens: 2, output_tokens: 5 } };
        let wire = event(AnswerEvent::Finished(finished), || Timing { ttft_ms: 1.5, total_ms: 9.0, tier: None });
        let Some(v1::generate_response::Event::Finished(end)) = wire.event else { panic!("{wire:?}") };
        assert_eq!((end.finish_reason.as_str(), end.ttft_ms, end.total_ms), ("length", 1.5, 9.0));
        assert_eq!(end.usage, Some(v1::Usage { input_tokens: 3, output_tokens: 5, cached_tokens: 2 }));
    }
}
