//! Sessions on the wire.

use llambo_inference::Message;
use llambo_proto::v1;
use llambo_sessions::{Session, Sessions};
use prost::Message as _;

pub(super) fn message(message: &Message) -> v1::Message {
    v1::Message { role: message.role.as_str().to_owned(), content: message.content.clone() }
}

pub(super) fn session(session: &Session, all: &Sessions) -> v1::Session {
    v1::Session {
        id: session.id.to_string(),
        model: session.model.to_string(),
        r#type: session.node_type.as_ref().map(ToString::to_string).unwrap_or_default(),
        tier: session.tier.map(u32::from),
        options: (!session.options.is_empty()).then(|| options(&session.options)),
        ttl_ms: session.ttl_ms,
        token_budget: session.token_budget,
        when_full: session.when_full.as_str().to_owned(),
        labels: session.labels.iter().cloned().collect(),
        parent: session.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        created_at_ms: session.created_ms,
        used_at_ms: session.used_ms,
        expires_at_ms: session.expires_ms(),
        n_messages: u32::try_from(session.messages.len()).unwrap_or(u32::MAX),
        n_forgotten: session.n_forgotten,
        n_turns: session.n_turns,
        size_bytes: session.n_bytes(),
        usage: Some(v1::SessionUsage {
            input_tokens: session.spent.input_tokens,
            output_tokens: session.spent.output_tokens,
            cached_tokens: session.spent.cached_tokens,
        }),
        busy: all.is_in_turn(&session.id),
        durable: all.is_durable(),
    }
}

/// Options as [`Session::options`] keeps them. What cannot be read, of a newer host for example, counts as left out.
pub(super) fn options(kept: &[u8]) -> v1::SamplingOptions {
    v1::SamplingOptions::decode(kept).unwrap_or_default()
}

/// What the question says, and the rest as the session says.
pub(super) fn merged(session: v1::SamplingOptions, question: Option<v1::SamplingOptions>) -> v1::SamplingOptions {
    let Some(question) = question else { return session };
    let or_all = |own: Vec<_>, default: Vec<_>| if own.is_empty() { default } else { own };
    v1::SamplingOptions {
        max_tokens: question.max_tokens.or(session.max_tokens),
        temperature: question.temperature.or(session.temperature),
        top_k: question.top_k.or(session.top_k),
        top_p: question.top_p.or(session.top_p),
        min_p: question.min_p.or(session.min_p),
        repeat_penalty: question.repeat_penalty.or(session.repeat_penalty),
        presence_penalty: question.presence_penalty.or(session.presence_penalty),
        frequency_penalty: question.frequency_penalty.or(session.frequency_penalty),
        seed: question.seed.or(session.seed),
        stop: or_all(question.stop, session.stop),
        logit_bias: if question.logit_bias.is_empty() { session.logit_bias } else { question.logit_bias },
        constraint: question.constraint.or(session.constraint),
        ignore_eos: question.ignore_eos || session.ignore_eos,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_otherwise_only_where_it_says_something() {
        let session = v1::SamplingOptions {
            max_tokens: Some(5),
            seed: Some(1),
            stop: vec!["a".into()],
            ignore_eos: true,
            ..v1::SamplingOptions::default()
        };
        assert_eq!(merged(session.clone(), None), session);
        let question = v1::SamplingOptions { seed: Some(0), stop: vec!["b".into()], ..v1::SamplingOptions::default() };
        let expected = v1::SamplingOptions { seed: Some(0), stop: vec!["b".into()], ..session.clone() };
        assert_eq!(merged(session, Some(question)), expected);
    }
}
