use std::time::Duration;

use llambo_proto::v1;

/// A question to a model: prompt, options, and how long to wait. What is not set takes the model's own default.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Ask {
    request: v1::GenerateRequest,
    timeout: Option<Duration>,
}

impl Ask {
    /// Text that the model continues as it stands.
    pub fn text(prompt: impl Into<String>) -> Self {
        Self::new(v1::generate_request::Prompt::Text(prompt.into()))
    }

    /// One message of a user, put into the model's chat template.
    pub fn user(content: impl Into<String>) -> Self {
        Self::chat([("user", content)])
    }

    /// A conversation of (role, content), put into the model's chat template. Roles: `system`, `user`, `assistant`.
    pub fn chat<R: Into<String>, C: Into<String>>(messages: impl IntoIterator<Item = (R, C)>) -> Self {
        let messages =
            messages.into_iter().map(|(role, content)| v1::Message { role: role.into(), content: content.into() }).collect();
        Self::new(v1::generate_request::Prompt::Chat(v1::Messages { messages }))
    }

    fn new(prompt: v1::generate_request::Prompt) -> Self {
        Self { request: v1::GenerateRequest { prompt: Some(prompt), ..v1::GenerateRequest::default() }, timeout: None }
    }

    /// Which model answers; left out, the host's first.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.request.model = name.into();
        self
    }

    /// Which node type serves it; left out, any that has the model.
    pub fn node_type(mut self, name: impl Into<String>) -> Self {
        self.request.r#type = name.into();
        self
    }

    /// The request's name in the host's logs; left out, the host makes one. At most 128 printable ASCII characters.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request.request_id = id.into();
        self
    }

    /// Has the host tell how the node was chosen: `route` of `Started` and of `InferResponse`.
    pub fn explain(mut self) -> Self {
        self.request.explain = true;
        self
    }

    /// A note for policies; the same key again replaces it. At most 16, each key at most 64 and each value at most 256 bytes.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.labels.insert(key.into(), value.into());
        self
    }

    /// The tier that should serve it, 0 to 2; nodes of other tiers do only when it has none free. Left out, any, or as a classifier decides.
    pub fn tier(mut self, tier: u32) -> Self {
        self.request.tier = Some(tier);
        self
    }

    /// Asks so many nodes, 2 to 16, and makes one answer of theirs, which comes as one piece. 0 or 1: one node.
    pub fn answers(mut self, n: u32) -> Self {
        self.request.answers = n;
        self
    }

    /// Lets it wait for all that somebody waits for; it gets a small share of what there is in any case.
    pub fn batch(mut self) -> Self {
        "batch".clone_into(&mut self.request.priority);
        self
    }

    /// How long the whole answer may take; after that it ends with `DEADLINE_EXCEEDED`, and the host stops decoding.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Tokens generated at most, at least 1.
    pub fn max_tokens(self, n: u32) -> Self {
        self.options(|options| options.max_tokens = Some(n))
    }

    /// 0 takes the likeliest token always.
    pub fn temperature(self, temperature: f32) -> Self {
        self.options(|options| options.temperature = Some(temperature))
    }

    /// Same seed, model, prompt and options: same text.
    pub fn seed(self, seed: u64) -> Self {
        self.options(|options| options.seed = Some(seed))
    }

    /// The answer is one JSON value valid under this schema. Replaces a grammar.
    pub fn json_schema(self, schema: impl Into<String>) -> Self {
        let schema = v1::sampling_options::Constraint::JsonSchema(schema.into());
        self.options(|options| options.constraint = Some(schema))
    }

    /// The answer conforms to this GBNF grammar. Replaces a schema.
    pub fn grammar(self, grammar: impl Into<String>) -> Self {
        let grammar = v1::sampling_options::Constraint::Grammar(grammar.into());
        self.options(|options| options.constraint = Some(grammar))
    }

    /// Changes any of the options, also those without a method here.
    pub fn options(mut self, change: impl FnOnce(&mut v1::SamplingOptions)) -> Self {
        change(self.request.options.get_or_insert_default());
        self
    }

    pub(crate) fn into_parts(self) -> (tonic::Request<v1::GenerateRequest>, Option<Duration>) {
        let mut request = tonic::Request::new(self.request);
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        (request, self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_routing_is_in_the_request() {
        let ask = Ask::text("x").explain().label("team", "a").label("team", "b").label("kind", "").tier(0).answers(3).batch();
        let request = ask.into_parts().0.into_inner();
        assert!(request.explain);
        assert_eq!((request.labels.len(), request.labels["team"].as_str(), request.labels["kind"].as_str()), (2, "b", ""));
        assert_eq!((request.tier, request.answers, request.priority.as_str()), (Some(0), 3, "batch"));
        let plain = Ask::text("x").into_parts().0.into_inner();
        assert_eq!((plain.explain, plain.labels.len(), plain.tier, plain.answers), (false, 0, None, 0));
    }
}
