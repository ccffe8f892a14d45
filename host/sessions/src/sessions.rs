//! The sessions of a host, as the edge uses them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use llambo_inference::{Message, TenantName};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};

use crate::{
    NewSession, Session, SessionError, SessionId, Turn,
    conversations::{Conversations, Limits},
    store::{Change, Place, Store, thread_ended},
};

const SESSIONS: &str = "llambo_sessions";
const BYTES: &str = "llambo_session_bytes";
const TURNS: &str = "llambo_session_turns_total";

/// How often sessions that nobody uses any more are taken away. They are not found before that either.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Tells milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What there may be, and where it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time without use after which a session is gone, unless it is told otherwise.
    pub ttl: Duration,
    /// What it may be told otherwise.
    pub max_ttl: Duration,
    /// Sessions of the host.
    pub max_sessions: usize,
    /// Sessions of one tenant.
    pub max_sessions_per_tenant: usize,
    /// Bytes of all sessions together.
    pub max_bytes: u64,
    /// Messages of one session.
    pub max_messages: usize,
    /// Where they are kept; `None`: in memory only.
    pub folder: Option<PathBuf>,
}

/// Some of a tenant's sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The newest first.
    pub sessions: Vec<Session>,
    /// What gets the next ones; `None` when there are none.
    pub next: Option<String>,
}

/// The conversations of a host. Clones share them.
#[derive(Clone, Debug)]
pub struct Sessions {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    conversations: Mutex<Conversations>,
    store: Store,
    clock: Clock,
}

/// How a turn ended, for whoever counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Finished,
    Partial,
    Abandoned,
    NotKept,
    /// Nobody was asked.
    Appended,
}

/// Describes the metrics of sessions to the recorder; call once, after it is installed.
pub fn describe_metrics() {
    metrics::describe_gauge!(SESSIONS, "Conversations that the host keeps");
    metrics::describe_gauge!(BYTES, "Bytes of the conversations that the host keeps");
    metrics::describe_counter!(TURNS, "Questions within conversations, by outcome: finished, partial, abandoned or not_kept");
}

// === impl Settings ===

impl Default for Settings {
    /// As the configuration's defaults, in memory.
    fn default() -> Self {
        Self {
            ttl: Duration::from_hours(1),
            max_ttl: Duration::from_hours(168),
            max_sessions: 10_000,
            max_sessions_per_tenant: 10_000,
            max_bytes: 256 << 20,
            max_messages: 1000,
            folder: None,
        }
    }
}

// === impl Sessions ===

impl Sessions {
    /// Takes in what is in the folder, if there is one. Blocks while it reads.
    ///
    /// # Errors
    /// [`SessionError::NotKept`] when the folder cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, SessionError> {
        Self::with_clock(settings, Arc::new(system_ms))
    }

    /// The same, by a clock of the caller's.
    ///
    /// # Errors
    /// [`SessionError::NotKept`] when the folder cannot be used.
    pub fn with_clock(settings: &Settings, clock: Clock) -> Result<Self, SessionError> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut conversations = Conversations::new(Limits {
            ttl_ms: ms(settings.ttl),
            max_ttl_ms: ms(settings.max_ttl),
            max_sessions: settings.max_sessions,
            max_sessions_per_tenant: settings.max_sessions_per_tenant,
            max_bytes: settings.max_bytes,
            max_messages: settings.max_messages,
        });
        let store = match &settings.folder {
            None => Store::Memory,
            Some(folder) => {
                let (store, kept) = Store::open(folder, settings.max_sessions)?;
                for session in kept {
                    conversations.restore(session);
                }
                store
            }
        };
        let inner = Arc::new(Inner { conversations: Mutex::new(conversations), store, clock });
        inner.change(|_| ());
        Ok(Self { inner })
    }

    /// Whether sessions outlive the process.
    pub fn is_durable(&self) -> bool {
        self.inner.store.is_durable()
    }

    /// Sessions that there are now, those included that are about to be swept up.
    pub fn len(&self) -> usize {
        self.inner.lock().n_sessions()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes a session.
    ///
    /// # Errors
    /// [`SessionError::Invalid`], [`SessionError::Full`], [`SessionError::TooMany`], [`SessionError::TooLarge`], [`SessionError::NotKept`].
    pub async fn create(&self, tenant: &TenantName, new: NewSession) -> Result<Session, SessionError> {
        self.make(tenant, new, None).await
    }

    /// Makes a session that begins as another one did: with its first `n_messages`, or all. What that one spent counts here too.
    ///
    /// # Errors
    /// As [`Self::create`], and [`SessionError::Unknown`].
    pub async fn fork(&self, tenant: &TenantName, id: &str, n_messages: Option<usize>) -> Result<Session, SessionError> {
        let parent = self.get(tenant, id)?;
        let n_all = parent.messages.len();
        let n_messages = n_messages.unwrap_or(n_all);
        if n_messages > n_all {
            let why = format!("the session has {n_all} messages, and cannot be forked at {n_messages}");
            return Err(SessionError::Invalid(why));
        }
        let new = NewSession {
            model: parent.model.clone(),
            node_type: parent.node_type.clone(),
            tier: parent.tier,
            options: Arc::clone(&parent.options),
            labels: Arc::clone(&parent.labels),
            ttl: Some(Duration::from_millis(parent.ttl_ms)),
            token_budget: parent.token_budget,
            when_full: parent.when_full,
            messages: parent.messages[..n_messages].iter().map(|message| Message::clone(message)).collect(),
        };
        self.make(tenant, new, Some(&parent)).await
    }

    async fn make(&self, tenant: &TenantName, new: NewSession, parent: Option<&Session>) -> Result<Session, SessionError> {
        // what is only waiting to be swept up takes nobody's place
        self.sweep_once().await?;
        let place = self.inner.store.place().await?;
        let now_ms = self.inner.now_ms();
        let session = self.inner.change(|all| all.make(tenant, new, parent, now_ms))?;
        let id = session.id.clone();
        let change = Change::Made(Box::new(session.clone()));
        self.written(place, change, move |all, is_kept| all.made(&id, is_kept)).await.map(|()| session)
    }

    /// A session as it is between two turns.
    ///
    /// # Errors
    /// [`SessionError::Unknown`].
    pub fn get(&self, tenant: &TenantName, id: &str) -> Result<Session, SessionError> {
        let now_ms = self.inner.now_ms();
        self.inner.lock().get(tenant, id, now_ms).cloned()
    }

    /// Whether a turn of it is under way.
    pub fn is_in_turn(&self, id: &SessionId) -> bool {
        self.inner.lock().is_in_turn(id)
    }

    /// A tenant's sessions, at most `limit`; `after` is [`Page::next`] of the page before, or empty.
    ///
    /// # Errors
    /// [`SessionError::Invalid`] for an `after` that no page gave.
    pub fn list(&self, tenant: &TenantName, after: &str, limit: usize) -> Result<Page, SessionError> {
        let after = match after {
            "" => None,
            text => {
                Some(place_of(text).ok_or_else(|| SessionError::Invalid("`after` is not what a page gave as `next`".into()))?)
            }
        };
        let now_ms = self.inner.now_ms();
        let mut sessions = self.inner.lock().page(tenant, after.as_ref(), limit.saturating_add(1), now_ms);
        let has_more = sessions.len() > limit;
        sessions.truncate(limit);
        let next = sessions.last().filter(|_| has_more).map(|last| format!("{:x}.{}", last.created_ms, last.id));
        Ok(Page { sessions, next })
    }

    /// Begins a turn that asks: `new` is what is said in it before the answer, and may be empty where a question waits.
    ///
    /// # Errors
    /// [`SessionError::Unknown`], [`SessionError::Busy`], [`SessionError::BudgetExhausted`], [`SessionError::Full`], [`SessionError::TooLarge`],
    /// [`SessionError::Invalid`] when there is nothing to answer.
    pub async fn ask(&self, tenant: &TenantName, id: &str, new: Vec<Message>) -> Result<Turn, SessionError> {
        self.begin(tenant, id, new, true).await
    }

    /// Adds messages, without asking anybody.
    ///
    /// # Errors
    /// As [`Self::ask`], and [`SessionError::NotKept`].
    pub async fn append(&self, tenant: &TenantName, id: &str, new: Vec<Message>) -> Result<Session, SessionError> {
        self.begin(tenant, id, new, false).await?.append().await
    }

    async fn begin(&self, tenant: &TenantName, id: &str, new: Vec<Message>, is_question: bool) -> Result<Turn, SessionError> {
        let place = self.inner.store.place().await?;
        let now_ms = self.inner.now_ms();
        let begun = self.inner.lock().begin(tenant, id, now_ms)?;
        Turn::new(Arc::clone(&self.inner), begun, place, new, is_question)
    }

    /// Takes a session away. A turn that is under way goes on for whoever waits for it, and is not kept.
    ///
    /// # Errors
    /// [`SessionError::Unknown`], [`SessionError::NotKept`].
    pub async fn delete(&self, tenant: &TenantName, id: &str) -> Result<(), SessionError> {
        let place = self.inner.store.place().await?;
        let id = self.get(tenant, id)?.id;
        let change = Change::Gone(vec![id.clone()]);
        let removed = move |all: &mut Conversations, is_gone: bool| {
            if is_gone {
                all.remove(&id);
            }
        };
        self.written(place, change, removed).await
    }

    /// Takes away what nobody uses any more, for as long as it runs. The host runs it once.
    pub async fn sweep(self) {
        let mut ticks = interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.sweep_once().await {
                // they are gone all the same, and expire again at the next start
                tracing::warn!(%error, "sessions that expired stay on disk");
            }
        }
    }

    async fn sweep_once(&self) -> Result<(), SessionError> {
        let place = self.inner.store.place().await?;
        let now_ms = self.inner.now_ms();
        let gone = self.inner.change(|all| all.expire(now_ms));
        if !gone.is_empty() {
            place.write(
                Change::Gone(gone),
                Box::new(|kept| drop(kept.inspect_err(|error| tracing::warn!(%error, "expired sessions stay on disk")))),
            );
        }
        Ok(())
    }

    /// Done once all changes before it are kept.
    pub async fn flush(&self) {
        if let Ok(place) = self.inner.store.place().await {
            let _ = self.written(place, Change::Nothing, |_, _| ()).await;
        }
    }

    /// Keeps a change, and then makes it true or says why it is not.
    async fn written(
        &self,
        place: Place,
        change: Change,
        then: impl FnOnce(&mut Conversations, bool) + Send + 'static,
    ) -> Result<(), SessionError> {
        let (tell, told) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        place.write(
            change,
            Box::new(move |kept| {
                inner.change(|all| then(all, kept.is_ok()));
                // nobody may wait for it any more
                let _ = tell.send(kept);
            }),
        );
        told.await.unwrap_or_else(|_| Err(thread_ended()))
    }
}

/// Reads [`Page::next`].
fn place_of(text: &str) -> Option<(u64, SessionId)> {
    let (created, id) = text.split_once('.')?;
    Some((u64::from_str_radix(created, 16).ok()?, SessionId::parse(id)?))
}

fn system_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

// === impl Inner ===

impl Inner {
    /// Held for moments, and never across anything that waits.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Conversations> {
        self.conversations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes them, and brings the gauges up to date.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Conversations) -> T) -> T {
        let mut all = self.lock();
        let changed = change(&mut all);
        let (n_sessions, n_bytes) = (all.n_sessions(), all.n_bytes());
        metrics::gauge!(SESSIONS).set(n_sessions as f64);
        metrics::gauge!(BYTES).set(n_bytes as f64);
        changed
    }

    pub(crate) fn now_ms(&self) -> u64 {
        (self.clock)()
    }
}

// === impl Outcome ===

impl Outcome {
    pub(crate) fn count(self) {
        let outcome = match self {
            Self::Finished => "finished",
            Self::Partial => "partial",
            Self::Abandoned => "abandoned",
            Self::NotKept => "not_kept",
            Self::Appended => return,
        };
        metrics::counter!(TURNS, "outcome" => outcome).increment(1);
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("store", &self.store).finish_non_exhaustive()
    }
}
