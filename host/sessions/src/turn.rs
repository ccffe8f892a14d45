use std::sync::Arc;

use llambo_inference::{Message, Role, Usage};
use tokio::sync::oneshot;

use crate::{
    Session, SessionError, WhenFull,
    session::{Said, bytes_of, cuts},
    sessions::{Inner, Outcome},
    store::{Change, Place},
};

/// One turn of a session, which nobody else can begin while it lasts. Dropped without an end, it leaves its session as it was.
#[derive(Debug)]
#[must_use = "a turn that is dropped says nothing"]
pub struct Turn {
    inner: Arc<Inner>,
    session: Session,
    number: u64,
    /// Gone once it has ended. Held from the beginning, so that an end always finds room.
    place: Option<Place>,
    new: Vec<Arc<Message>>,
    n_forget: usize,
    is_question: bool,
}

impl Turn {
    /// A turn that has begun and says `new`.
    pub(crate) fn new(
        inner: Arc<Inner>,
        (session, number): (Session, u64),
        place: Place,
        new: Vec<Message>,
        is_question: bool,
    ) -> Result<Self, SessionError> {
        let new = new.into_iter().map(Arc::new).collect();
        // from here on its drop ends it
        let mut turn = Self { inner, session, number, place: Some(place), new, n_forget: 0, is_question };
        turn.check()?;
        Ok(turn)
    }

    fn check(&mut self) -> Result<(), SessionError> {
        let (n_bytes, limit) = {
            let conversations = self.inner.lock();
            let n_bytes = self.new.iter().map(|message| bytes_of(message) as u64).sum();
            (conversations.room_for(n_bytes), conversations.limits().max_messages)
        };
        n_bytes?;
        let all = self.all();
        if self.is_question {
            if let Some(budget) = self.session.token_budget
                && self.session.spent.tokens() >= budget
            {
                return Err(SessionError::BudgetExhausted { budget, spent: self.session.spent.tokens(), n_prompt: 0 });
            }
            if all.last().is_none_or(|last| last.role == Role::Assistant) {
                let why = "the session's last message is not a question; give `text`, or messages that end with the user's";
                return Err(SessionError::Invalid(why.into()));
            }
        }
        let n_messages = all.len() + usize::from(self.is_question);
        let fits = |n_forget: &usize| n_messages - n_forget <= limit;
        self.n_forget = self.choices().into_iter().find(fits).ok_or(SessionError::Full { n_messages, limit })?;
        Ok(())
    }

    /// The session as the turn found it.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// How many messages could be forgotten for this turn, the fewest first. At least one number.
    pub fn choices(&self) -> Vec<usize> {
        let mut cuts = match self.session.when_full {
            WhenFull::Refuse => vec![0],
            WhenFull::DropOldest => cuts(&self.all()),
        };
        cuts.retain(|n| *n >= self.n_forget);
        cuts
    }

    /// What is asked if so many messages are forgotten.
    pub fn prompt(&self, n_forget: usize) -> Vec<Message> {
        let mut all = self.all();
        let said = Said { n_forget, ..Said::default() };
        said.forget(&mut all);
        all.iter().map(|message| Message::clone(message)).collect()
    }

    /// Decides for one of the [choices](Self::choices).
    pub fn forget(&mut self, n_forget: usize) {
        self.n_forget = n_forget;
    }

    /// Ends the turn with an answer, and is done once that is kept.
    ///
    /// # Errors
    /// [`SessionError::Unknown`] when the session was deleted meanwhile, [`SessionError::NotKept`].
    pub async fn finish(mut self, answer: String, usage: Usage) -> Result<Session, SessionError> {
        let ended = self.end(Some(answer), usage, Outcome::Finished);
        ended.await.unwrap_or_else(|_| Err(SessionError::NotKept("its thread has ended".into())))
    }

    /// Ends the turn with the beginning of an answer. It is kept soon, whether or not somebody waits for it.
    pub fn keep_partial(mut self, answer: String, usage: Usage) {
        drop(self.end(Some(answer), usage, Outcome::Partial));
    }

    /// Ends the turn as if it had not been, but for what it cost. That is kept soon, whether or not somebody waits for it.
    pub fn give_up(mut self, usage: Usage) {
        (self.new, self.n_forget, self.is_question) = (Vec::new(), 0, false);
        drop(self.end(None, usage, Outcome::Abandoned));
    }

    /// Ends the turn without an answer: only messages are added.
    pub(crate) async fn append(mut self) -> Result<Session, SessionError> {
        let ended = self.end(None, Usage::default(), Outcome::Appended);
        ended.await.unwrap_or_else(|_| Err(SessionError::NotKept("its thread has ended".into())))
    }

    fn all(&self) -> Vec<Arc<Message>> {
        self.session.messages.iter().chain(&self.new).cloned().collect()
    }

    fn end(
        &mut self,
        answer: Option<String>,
        usage: Usage,
        outcome: Outcome,
    ) -> oneshot::Receiver<Result<Session, SessionError>> {
        let (tell, told) = oneshot::channel();
        let Some(place) = self.place.take() else { return told };
        let answer = answer.map(|content| Arc::new(Message { role: Role::Assistant, content }));
        let said = Said {
            messages: std::mem::take(&mut self.new).into_iter().chain(answer).collect(),
            n_forget: self.n_forget,
            usage,
            is_turn: self.is_question,
            at_ms: self.inner.now_ms(),
        };
        let mut after = self.session.clone();
        let forgotten = after.say(&said);
        let change = Change::Said { after: Box::new(after), new: said.messages.clone(), forgotten };
        let (inner, id, number) = (Arc::clone(&self.inner), self.session.id.clone(), self.number);
        place.write(
            change,
            Box::new(move |kept| {
                let kept_said = kept.is_ok().then_some(&said);
                let ended = inner.change(|all| all.end(&id, number, kept_said, said.at_ms));
                let ended = kept.and(ended);
                let outcome = if ended.is_ok() { outcome } else { Outcome::NotKept };
                outcome.count();
                // nobody may wait for it any more
                let _ = tell.send(ended);
            }),
        );
        told
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.place.is_none() {
            return;
        }
        let now_ms = self.inner.now_ms();
        // its session may be gone already
        let _ = self.inner.change(|all| all.end(&self.session.id, self.number, None, now_ms));
        if self.is_question {
            Outcome::Abandoned.count();
        }
    }
}
