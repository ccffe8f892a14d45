//! Conversations that the host keeps.

use std::time::Duration;

use llambo_proto::v1::{self, sessions_client::SessionsClient};

use crate::{Client, Error, Generation, credentials::Transport};

/// Sessions fetched with one call.
const PAGE: u32 = 1000;
/// Bytes of one answer: a session with everything said in it is the largest there is.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// A session to be made.
///
/// ```no_run
/// # async fn example(client: llambo_client::Client) -> Result<(), llambo_client::Error> {
/// use llambo_client::{NewSession, Question};
/// let session = client.create_session(NewSession::new().system("Be brief.").options(|o| o.max_tokens = Some(64))).await?;
/// let answer = client.ask_session(Question::new(&session.id, "Why is the sky blue?")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct NewSession {
    request: v1::CreateSessionRequest,
}

/// What is asked within a session.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Question {
    request: v1::AskRequest,
    timeout: Option<Duration>,
}

// === impl NewSession ===

impl NewSession {
    /// One that asks the host's first model, and takes what the host is configured for.
    pub fn new() -> Self {
        Self::default()
    }

    /// The model that answers.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.request.model = name.into();
        self
    }

    /// The node type that must serve it.
    pub fn node_type(mut self, name: impl Into<String>) -> Self {
        self.request.r#type = name.into();
        self
    }

    /// Instructions that stand above the conversation.
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.request.system = text.into();
        self
    }

    /// Something that was said before it begins; the role is `system`, `user` or `assistant`.
    pub fn message(mut self, role: impl Into<String>, content: impl Into<String>) -> Self {
        let message = v1::Message { role: role.into(), content: content.into() };
        self.request.chat.get_or_insert_default().messages.push(message);
        self
    }

    /// Time without use after which it is gone.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.request.ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Tokens, read and written, that its turns may use together.
    pub fn token_budget(mut self, tokens: u64) -> Self {
        self.request.token_budget = Some(tokens);
        self
    }

    /// Forgets its oldest turns when it becomes too long, where it would be refused otherwise.
    pub fn drop_oldest(mut self) -> Self {
        self.request.when_full = "drop_oldest".into();
        self
    }

    /// A note for policies, and for whoever lists sessions.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.labels.insert(key.into(), value.into());
        self
    }

    /// Changes what its questions take unless they say otherwise.
    pub fn options(mut self, change: impl FnOnce(&mut v1::SamplingOptions)) -> Self {
        change(self.request.options.get_or_insert_default());
        self
    }
}

// === impl Question ===

impl Question {
    /// A user's message.
    pub fn new(session_id: impl Into<String>, text: impl Into<String>) -> Self {
        Self::with_prompt(session_id, Some(v1::ask_request::Prompt::Text(text.into())))
    }

    /// The session's last message is answered, which nobody answered yet.
    pub fn waiting(session_id: impl Into<String>) -> Self {
        Self::with_prompt(session_id, None)
    }

    fn with_prompt(session_id: impl Into<String>, prompt: Option<v1::ask_request::Prompt>) -> Self {
        let request = v1::AskRequest { session_id: session_id.into(), prompt, ..v1::AskRequest::default() };
        Self { request, timeout: None }
    }

    /// Keeps the beginning of an answer that breaks off.
    pub fn keep_partial(mut self) -> Self {
        self.request.keep_partial = true;
        self
    }

    /// Has the host tell how the node was chosen.
    pub fn explain(mut self) -> Self {
        self.request.explain = true;
        self
    }

    /// The request's name in the host's logs.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request.request_id = id.into();
        self
    }

    /// The host gives up after this long, and so does the client a moment later.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Changes what this question takes instead of what its session says.
    pub fn options(mut self, change: impl FnOnce(&mut v1::SamplingOptions)) -> Self {
        change(self.request.options.get_or_insert_default());
        self
    }
}

impl Client {
    /// Makes a session.
    pub async fn create_session(&self, new: NewSession) -> Result<v1::Session, Error> {
        self.done(self.conversations().create_session(new.request).await)
    }

    /// Asks within a session and streams the answer. Question and answer are in the session once `Finished` came.
    pub async fn ask_session(&self, question: Question) -> Result<Generation, Error> {
        let Question { request, timeout } = question;
        let mut request = tonic::Request::new(request);
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let messages = self.done(self.conversations().ask(request).await)?;
        Ok(Generation::new(messages, self.address().to_owned(), timeout))
    }

    /// Adds messages of (role, content) to a session, without asking.
    pub async fn append_messages<R: Into<String>, C: Into<String>>(
        &self,
        session_id: &str,
        messages: impl IntoIterator<Item = (R, C)>,
    ) -> Result<v1::Session, Error> {
        let message = |(role, content): (R, C)| v1::Message { role: role.into(), content: content.into() };
        let chat = v1::Messages { messages: messages.into_iter().map(message).collect() };
        let request = v1::AppendMessagesRequest { session_id: session_id.to_owned(), chat: Some(chat) };
        self.done(self.conversations().append_messages(request).await)
    }

    /// Makes a session that begins with the first `at_message` messages of another one, or with all.
    pub async fn fork_session(&self, session_id: &str, at_message: Option<u32>) -> Result<v1::Session, Error> {
        let request = v1::ForkSessionRequest { session_id: session_id.to_owned(), at_message };
        self.done(self.conversations().fork_session(request).await)
    }

    /// A session with everything said in it.
    pub async fn session(&self, session_id: &str) -> Result<v1::GetSessionResponse, Error> {
        self.done(self.conversations().get_session(v1::GetSessionRequest { session_id: session_id.to_owned() }).await)
    }

    /// The caller's sessions, the newest first, fetched page by page; at most `limit`.
    pub async fn sessions(&self, limit: Option<u32>) -> Result<Vec<v1::Session>, Error> {
        let wanted = limit.map_or(usize::MAX, |limit| limit as usize);
        let (mut sessions, mut after) = (Vec::new(), String::new());
        while sessions.len() < wanted {
            let limit = u32::try_from(wanted - sessions.len()).unwrap_or(PAGE).min(PAGE);
            let page = self.done(self.conversations().list_sessions(v1::ListSessionsRequest { limit, after }).await)?;
            sessions.extend(page.sessions);
            after = page.next;
            if after.is_empty() {
                break;
            }
        }
        Ok(sessions)
    }

    /// Takes a session away.
    pub async fn delete_session(&self, session_id: &str) -> Result<(), Error> {
        let request = v1::DeleteSessionRequest { session_id: session_id.to_owned() };
        self.done(self.conversations().delete_session(request).await).map(|_| ())
    }

    fn conversations(&self) -> SessionsClient<Transport> {
        SessionsClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER)
    }
}
