use std::{fmt, ops::Range, sync::Arc, time::Duration};

use llambo_inference::{Labels, Message, ModelName, Role, TenantName, TypeName, Usage};

/// What a session and a message take besides their text, so that many empty ones count too.
const SESSION_BYTES: usize = 1024;
const MESSAGE_BYTES: usize = 64;
/// Hexadecimal digits of an id: 128 bits that nobody guesses.
const ID_DIGITS: usize = 32;

/// The name of one session. Whoever knows it and is of its tenant may use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

/// What becomes of a session whose prompt no longer fits its model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Its next question is refused.
    #[default]
    Refuse,
    /// The oldest turns are forgotten; instructions at the beginning stay.
    DropOldest,
}

/// A session to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSession {
    /// The model that answers.
    pub model: ModelName,
    /// The node type that must serve it; `None`: any.
    pub node_type: Option<TypeName>,
    /// The tier that should serve it.
    pub tier: Option<u8>,
    /// Options of its questions unless they say otherwise, as the protocol encodes them. Not read here.
    pub options: Arc<[u8]>,
    /// Notes for policies, and for whoever lists sessions.
    pub labels: Labels,
    /// Time without use after which it is gone; `None`: what the host is configured for.
    pub ttl: Option<Duration>,
    /// Tokens that its turns may use together, read and written; `None`: any number.
    pub token_budget: Option<u64>,
    /// What becomes of it when its prompt no longer fits.
    pub when_full: WhenFull,
    /// What was said before it begins.
    pub messages: Vec<Message>,
}

/// A session as it is between two turns. Cheap to clone: what was said is shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// Whose it is.
    pub tenant: TenantName,
    /// The model that answers.
    pub model: ModelName,
    /// The node type that must serve it.
    pub node_type: Option<TypeName>,
    /// The tier that should serve it.
    pub tier: Option<u8>,
    /// Options of its questions unless they say otherwise, as the protocol encodes them.
    pub options: Arc<[u8]>,
    /// Notes.
    pub labels: Labels,
    /// Milliseconds without use after which it is gone.
    pub ttl_ms: u64,
    /// Tokens that its turns may use together.
    pub token_budget: Option<u64>,
    /// What becomes of it when its prompt no longer fits.
    pub when_full: WhenFull,
    /// The session that it was forked from.
    pub parent: Option<SessionId>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it was used last, in milliseconds since 1970.
    pub used_ms: u64,
    /// Turns that were kept.
    pub n_turns: u64,
    /// Messages that were forgotten since it was made.
    pub n_forgotten: u64,
    /// What its turns used, those included that were before it was forked.
    pub spent: Spent,
    /// What was said, the oldest first.
    pub messages: Arc<Vec<Arc<Message>>>,
}

/// Tokens of many turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "these are the protocol's names")]
pub struct Spent {
    /// Read.
    pub input_tokens: u64,
    /// Those of them that did not have to be computed.
    pub cached_tokens: u64,
    /// Written.
    pub output_tokens: u64,
}

/// What a turn adds to its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) messages: Vec<Arc<Message>>,
    /// Messages behind the instructions that are forgotten for it.
    pub(crate) n_forget: usize,
    pub(crate) usage: Usage,
    /// Whether somebody was asked.
    pub(crate) is_turn: bool,
    pub(crate) at_ms: u64,
}

// === impl SessionId ===

impl SessionId {
    /// A new one.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()).into())
    }

    /// The id of that text; `None` for text that no id looks like.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == ID_DIGITS && text.bytes().all(is_digit)).then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl WhenFull ===

impl WhenFull {
    /// The name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::DropOldest => "drop_oldest",
        }
    }

    /// The one of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Refuse, Self::DropOldest].into_iter().find(|when| when.as_str() == name)
    }
}

// === impl Spent ===

impl Spent {
    /// Read and written together: what budgets count.
    pub fn tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    fn add(&mut self, usage: Usage) {
        let add = |sum: &mut u64, n: u32| *sum = sum.saturating_add(n.into());
        add(&mut self.input_tokens, usage.input_tokens);
        add(&mut self.cached_tokens, usage.cached_tokens);
        add(&mut self.output_tokens, usage.output_tokens);
    }
}

// === impl Session ===

impl Session {
    /// When it is gone unless somebody uses it, in milliseconds since 1970.
    pub fn expires_ms(&self) -> u64 {
        self.used_ms.saturating_add(self.ttl_ms)
    }

    /// What it counts for, its text and what surrounds that.
    pub fn n_bytes(&self) -> u64 {
        let notes = self.labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let text = self.messages.iter().map(|message| bytes_of(message)).sum::<usize>();
        (SESSION_BYTES + self.options.len() + notes + text) as u64
    }

    /// Adds what a turn said; where, among all messages, some were forgotten for it.
    pub(crate) fn say(&mut self, said: &Said) -> Range<usize> {
        let messages = Arc::make_mut(&mut self.messages);
        messages.extend(said.messages.iter().cloned());
        let forgotten = said.forget(messages);
        self.n_forgotten += forgotten.len() as u64;
        self.n_turns += u64::from(said.is_turn);
        self.spent.add(said.usage);
        self.used_ms = self.used_ms.max(said.at_ms);
        forgotten
    }
}

// === impl Said ===

impl Said {
    /// Takes out of all messages, new ones included, what is forgotten; where that was.
    pub(crate) fn forget(&self, messages: &mut Vec<Arc<Message>>) -> Range<usize> {
        let from = n_instructions(messages);
        let forgotten = from..(from + self.n_forget).min(messages.len());
        messages.drain(forgotten.clone());
        forgotten
    }
}

/// What a message counts for.
pub(crate) fn bytes_of(message: &Message) -> usize {
    MESSAGE_BYTES + message.content.len()
}

/// Messages at the beginning that stand above the conversation.
fn n_instructions(messages: &[Arc<Message>]) -> usize {
    messages.iter().take_while(|message| message.role == Role::System).count()
}

/// How many messages behind the instructions can be forgotten so that the rest begins with a question, the fewest first. The first is 0; the last message
/// always stays.
pub fn cuts(messages: &[Arc<Message>]) -> Vec<usize> {
    let first = n_instructions(messages);
    let later = (first + 1..messages.len()).filter(|n| messages[*n].role == Role::User).map(|n| n - first);
    std::iter::once(0).chain(later).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(roles: &str) -> Vec<Arc<Message>> {
        let role = |c| match c {
            's' => Role::System,
            'u' => Role::User,
            _ => Role::Assistant,
        };
        roles.chars().map(|c| Arc::new(Message { role: role(c), content: c.into() })).collect()
    }

    #[test]
    fn turns_are_forgotten_whole_and_the_last_question_never() {
        assert_eq!(cuts(&talk("suauau")), [0, 2, 4]);
        assert_eq!(cuts(&talk("ssuuau")), [0, 1, 3]);
        assert_eq!(cuts(&talk("auau")), [0, 1, 3]);
        assert_eq!(cuts(&talk("su")), [0]);
        assert_eq!(cuts(&talk("s")), [0]);
        assert_eq!(cuts(&[]), [0]);
    }

    #[test]
    fn ids_differ_and_look_like_ids() {
        let (one, other) = (SessionId::random(), SessionId::random());
        assert_ne!(one, other);
        assert_eq!(SessionId::parse(one.as_str()), Some(one));
        for bad in ["", "0", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
    }
}
