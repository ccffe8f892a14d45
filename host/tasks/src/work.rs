//! A request in the form in which it is kept: with all defaults filled in, so that it means the same after a restart.

use llambo_inference::{
    Constraint, GenerateRequest, Instant, Journal, LogitBias, Message, Priority, Prompt, RequestId, Role, Routing, Sampling,
    Share,
};
use serde::{Deserialize, Serialize};

/// What a task is to generate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    model: String,
    node_type: Option<String>,
    prompt: Words,
    sampling: Options,
    labels: Vec<(String, String)>,
    tier: Option<u8>,
    answers: u32,
    interactive: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Words {
    Text(String),
    /// Role and content.
    Chat(Vec<(String, String)>),
}

/// [`Sampling`], with a seed in any case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Options {
    max_tokens: Option<u32>,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    penalty_window: u32,
    seed: u64,
    stop: Vec<String>,
    logit_bias: Vec<(u32, f32)>,
    json_schema: Option<String>,
    grammar: Option<String>,
    ignore_eos: bool,
}

// === impl Work ===

impl Work {
    /// What `request` asks. `seed` is used if it names none: a second run must draw the same numbers.
    pub fn of(request: &GenerateRequest, seed: u64) -> Self {
        let sampling = &request.sampling;
        let (json_schema, grammar) = match &sampling.constraint {
            None => (None, None),
            Some(Constraint::JsonSchema(schema)) => (Some(schema.clone()), None),
            Some(Constraint::Gbnf(grammar)) => (None, Some(grammar.clone())),
        };
        Self {
            model: request.model.to_string(),
            node_type: request.node_type.as_ref().map(ToString::to_string),
            prompt: Words::of(&request.prompt),
            sampling: Options {
                max_tokens: sampling.max_tokens,
                temperature: sampling.temperature,
                top_k: sampling.top_k,
                top_p: sampling.top_p,
                min_p: sampling.min_p,
                repeat_penalty: sampling.repeat_penalty,
                presence_penalty: sampling.presence_penalty,
                frequency_penalty: sampling.frequency_penalty,
                penalty_window: sampling.penalty_window,
                seed: sampling.seed.unwrap_or(seed),
                stop: sampling.stop.clone(),
                logit_bias: sampling.logit_bias.iter().map(|bias| (bias.token, bias.bias)).collect(),
                json_schema,
                grammar,
                ignore_eos: sampling.ignore_eos,
            },
            labels: request.routing.labels.to_vec(),
            tier: request.routing.tier,
            answers: request.routing.answers,
            interactive: request.priority == Priority::Interactive,
        }
    }

    /// The model it asks.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The node type it asks for.
    pub fn node_type(&self) -> Option<&str> {
        self.node_type.as_deref()
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        if self.interactive { Priority::Interactive } else { Priority::Batch }
    }

    pub(crate) fn labels(&self) -> &[(String, String)] {
        &self.labels
    }

    /// The request, to be sent once more.
    pub(crate) fn request(self, id: RequestId, share: Share, deadline: Option<Instant>, journal: Journal) -> GenerateRequest {
        let priority = self.priority();
        GenerateRequest {
            id,
            model: self.model.into(),
            node_type: self.node_type.map(Into::into),
            prompt: self.prompt.prompt(),
            sampling: self.sampling.sampling(),
            share,
            deadline,
            routing: Routing {
                explain: false,
                labels: self.labels.into(),
                tier: self.tier,
                answers: self.answers,
                ..Routing::default()
            },
            priority,
            journal: Some(journal),
            log: None,
        }
    }
}

// === impl Words ===

impl Words {
    fn of(prompt: &Prompt) -> Self {
        match prompt {
            Prompt::Text(text) => Self::Text(text.clone()),
            Prompt::Chat(messages) => {
                Self::Chat(messages.iter().map(|message| (message.role.as_str().to_owned(), message.content.clone())).collect())
            }
        }
    }

    fn prompt(self) -> Prompt {
        match self {
            Self::Text(text) => Prompt::Text(text),
            // a role that this version does not know can only be of another one's file, which is not opened
            Self::Chat(messages) => Prompt::Chat(
                messages
                    .into_iter()
                    .map(|(role, content)| Message { role: Role::parse(&role).unwrap_or(Role::User), content })
                    .collect(),
            ),
        }
    }
}

// === impl Options ===

impl Options {
    fn sampling(self) -> Sampling {
        let constraint = self.json_schema.map(Constraint::JsonSchema).or(self.grammar.map(Constraint::Gbnf));
        Sampling {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            penalty_window: self.penalty_window,
            seed: Some(self.seed),
            stop: self.stop,
            logit_bias: self.logit_bias.into_iter().map(|(token, bias)| LogitBias { token, bias }).collect(),
            constraint,
            ignore_eos: self.ignore_eos,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_asks_the_same_and_always_has_a_seed() {
        let request = GenerateRequest {
            id: "r".into(),
            model: "m".into(),
            node_type: Some("tiny".into()),
            prompt: Prompt::Chat(vec![
                Message { role: Role::System, content: "be brief".into() },
                Message { role: Role::Assistant, content: "yes".into() },
            ]),
            sampling: Sampling {
                max_tokens: Some(7),
                temperature: 0.1,
                top_p: 0.3,
                stop: vec!["\n".into()],
                logit_bias: vec![LogitBias { token: 3, bias: -0.7 }],
                constraint: Some(Constraint::Gbnf("root ::= \"a\"".into())),
                ignore_eos: true,
                ..Sampling::default()
            },
            share: Share::default(),
            deadline: None,
            routing: Routing {
                labels: vec![("zone".into(), "a".into())].into(),
                tier: Some(1),
                answers: 3,
                ..Routing::default()
            },
            priority: Priority::Batch,
            journal: None,
            log: None,
        };
        let kept = serde_json::to_string(&Work::of(&request, u64::MAX)).unwrap();
        let work: Work = serde_json::from_str(&kept).unwrap();
        let again = work.request("r".into(), Share::default(), None, Journal::default());
        assert_eq!(again.sampling, Sampling { seed: Some(u64::MAX), ..request.sampling.clone() });
        assert_eq!((&again.prompt, &again.routing, again.priority), (&request.prompt, &request.routing, request.priority));
        let seeded = GenerateRequest { sampling: Sampling { seed: Some(9), ..Sampling::default() }, ..again.clone() };
        assert_eq!(Work::of(&seeded, 1).sampling.seed, 9, "a seed of its own is kept");
        assert_eq!((again.model, again.node_type), (request.model, request.node_type));
    }
}
