//! Which sessions there are and what may be done with each. Pure: the time comes in as a number, nothing goes out.

use std::collections::{BTreeSet, HashMap};

use llambo_inference::{TenantName, shortened};

use crate::{
    NewSession, Session, SessionError, SessionId,
    session::{Said, Spent},
};

/// What there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) ttl_ms: u64,
    pub(crate) max_ttl_ms: u64,
    pub(crate) max_sessions: usize,
    pub(crate) max_sessions_per_tenant: usize,
    pub(crate) max_bytes: u64,
    pub(crate) max_messages: usize,
}

#[derive(Debug)]
pub(crate) struct Conversations {
    limits: Limits,
    entries: HashMap<SessionId, Entry>,
    /// Those that wait, by when they are gone.
    expiring: BTreeSet<(u64, SessionId)>,
    /// Each tenant's, by when they were made.
    tenants: HashMap<TenantName, BTreeSet<(u64, SessionId)>>,
    n_bytes: u64,
    /// Turns begun: a turn that ends late does not end another one's.
    n_begun: u64,
}

#[derive(Debug)]
struct Entry {
    session: Session,
    n_bytes: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not kept yet: it takes its place and nobody sees it.
    Making,
    Idle,
    InTurn(u64),
}

impl Conversations {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, entries: HashMap::new(), expiring: BTreeSet::new(), tenants: HashMap::new(), n_bytes: 0, n_begun: 0 }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn n_sessions(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Takes in what was kept. It may be more than there may be now: nothing that was promised is thrown away.
    pub(crate) fn restore(&mut self, session: Session) {
        self.insert(session, State::Idle);
    }

    /// Takes a place for a new session. [`Self::made`] makes it one, or gives the place back.
    pub(crate) fn make(
        &mut self,
        tenant: &TenantName,
        new: NewSession,
        parent: Option<&Session>,
        now_ms: u64,
    ) -> Result<Session, SessionError> {
        let Limits { ttl_ms, max_ttl_ms, max_sessions, max_sessions_per_tenant, max_messages, .. } = self.limits;
        let ttl_ms = new.ttl.map_or(ttl_ms, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        if !(1..=max_ttl_ms).contains(&ttl_ms) {
            let message = format!("`ttl_ms` is {ttl_ms}, but must be from 1 to {max_ttl_ms} (`sessions.max-ttl`)");
            return Err(SessionError::Invalid(message));
        }
        if new.token_budget == Some(0) {
            return Err(SessionError::Invalid("`token_budget` is 0, but must be at least 1; leave it out for no limit".into()));
        }
        let n_messages = new.messages.len();
        if n_messages > max_messages {
            return Err(SessionError::Full { n_messages, limit: max_messages });
        }
        let too_many = |whose, n, limit, key| SessionError::TooMany { whose, n, limit, key };
        if self.entries.len() >= max_sessions {
            return Err(too_many("the host", self.entries.len(), max_sessions, "sessions.max-sessions"));
        }
        let n_own = self.tenants.get(tenant).map_or(0, BTreeSet::len);
        if n_own >= max_sessions_per_tenant {
            return Err(too_many("the tenant", n_own, max_sessions_per_tenant, "sessions.max-sessions-per-tenant"));
        }
        let messages = match parent {
            // the texts are shared
            Some(parent) => parent.messages[..n_messages.min(parent.messages.len())].to_vec(),
            None => new.messages.into_iter().map(Into::into).collect(),
        };
        let session = Session {
            id: SessionId::random(),
            tenant: tenant.clone(),
            model: new.model,
            node_type: new.node_type,
            tier: new.tier,
            options: new.options,
            labels: new.labels,
            ttl_ms,
            token_budget: new.token_budget,
            when_full: new.when_full,
            parent: parent.map(|parent| parent.id.clone()),
            created_ms: now_ms,
            used_ms: now_ms,
            n_turns: 0,
            n_forgotten: 0,
            spent: parent.map_or_else(Spent::default, |parent| parent.spent),
            messages: messages.into(),
        };
        self.room_for(session.n_bytes())?;
        self.insert(session.clone(), State::Making);
        Ok(session)
    }

    /// A session that was being made is there, or could not be kept.
    pub(crate) fn made(&mut self, id: &SessionId, is_kept: bool) {
        if !is_kept {
            self.remove(id);
        } else if let Some(entry) = self.entries.get_mut(id) {
            entry.state = State::Idle;
            self.expiring.insert((entry.session.expires_ms(), id.clone()));
        }
    }

    pub(crate) fn get(&self, tenant: &TenantName, id: &str, now_ms: u64) -> Result<&Session, SessionError> {
        self.visible(tenant, id, now_ms).map(|entry| &entry.session).ok_or_else(|| unknown(id))
    }

    /// Begins a turn, which is ended by its number.
    pub(crate) fn begin(&mut self, tenant: &TenantName, id: &str, now_ms: u64) -> Result<(Session, u64), SessionError> {
        let entry = self.visible(tenant, id, now_ms).ok_or_else(|| unknown(id))?;
        if entry.state != State::Idle {
            return Err(SessionError::Busy { id: id.to_owned() });
        }
        let session = entry.session.clone();
        self.n_begun += 1;
        self.expiring.remove(&(session.expires_ms(), session.id.clone()));
        if let Some(entry) = self.entries.get_mut(&session.id) {
            entry.state = State::InTurn(self.n_begun);
        }
        Ok((session, self.n_begun))
    }

    /// Ends a turn, with what was said in it or as if nothing had been. Its session may be gone by then.
    pub(crate) fn end(&mut self, id: &SessionId, turn: u64, said: Option<&Said>, now_ms: u64) -> Result<Session, SessionError> {
        let entry = self.entries.get_mut(id).filter(|entry| entry.state == State::InTurn(turn));
        let entry = entry.ok_or_else(|| unknown(id.as_str()))?;
        if let Some(said) = said {
            entry.session.say(said);
            let n_bytes = entry.session.n_bytes();
            self.n_bytes = self.n_bytes.saturating_sub(entry.n_bytes).saturating_add(n_bytes);
            entry.n_bytes = n_bytes;
        }
        entry.session.used_ms = entry.session.used_ms.max(now_ms);
        entry.state = State::Idle;
        self.expiring.insert((entry.session.expires_ms(), id.clone()));
        Ok(entry.session.clone())
    }

    /// Takes one out, whatever it is doing.
    pub(crate) fn remove(&mut self, id: &SessionId) -> bool {
        let Some(Entry { session, n_bytes, .. }) = self.entries.remove(id) else { return false };
        self.expiring.remove(&(session.expires_ms(), id.clone()));
        if let Some(own) = self.tenants.get_mut(&session.tenant) {
            own.remove(&(session.created_ms, id.clone()));
            if own.is_empty() {
                self.tenants.remove(&session.tenant);
            }
        }
        self.n_bytes = self.n_bytes.saturating_sub(n_bytes);
        true
    }

    /// Takes out those that nobody used for too long. One that is in a turn is used.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<SessionId> {
        let mut gone = Vec::new();
        while let Some((at_ms, id)) = self.expiring.first().cloned()
            && at_ms <= now_ms
        {
            self.expiring.pop_first();
            self.remove(&id);
            gone.push(id);
        }
        gone
    }

    /// A tenant's sessions, the newest first, after the one at `after`.
    pub(crate) fn page(&self, tenant: &TenantName, after: Option<&(u64, SessionId)>, limit: usize, now_ms: u64) -> Vec<Session> {
        let Some(own) = self.tenants.get(tenant) else { return Vec::new() };
        let older: Box<dyn Iterator<Item = &(u64, SessionId)>> = match after {
            Some(after) => Box::new(own.range(..after).rev()),
            None => Box::new(own.iter().rev()),
        };
        let seen = older.filter_map(|(_, id)| self.visible(tenant, id.as_str(), now_ms));
        seen.take(limit).map(|entry| entry.session.clone()).collect()
    }

    pub(crate) fn is_in_turn(&self, id: &SessionId) -> bool {
        self.entries.get(id).is_some_and(|entry| matches!(entry.state, State::InTurn(_)))
    }

    /// Whether so many more bytes may be kept.
    pub(crate) fn room_for(&self, n_bytes: u64) -> Result<(), SessionError> {
        let (n_bytes, limit) = (self.n_bytes.saturating_add(n_bytes), self.limits.max_bytes);
        if n_bytes > limit { Err(SessionError::TooLarge { n_bytes, limit }) } else { Ok(()) }
    }

    fn insert(&mut self, session: Session, state: State) {
        let (id, n_bytes) = (session.id.clone(), session.n_bytes());
        self.n_bytes = self.n_bytes.saturating_add(n_bytes);
        self.tenants.entry(session.tenant.clone()).or_default().insert((session.created_ms, id.clone()));
        if state == State::Idle {
            self.expiring.insert((session.expires_ms(), id.clone()));
        }
        self.entries.insert(id, Entry { session, n_bytes, state });
    }

    /// Another tenant's session is as good as none, and so is one that only waits to be swept up.
    fn visible(&self, tenant: &TenantName, id: &str, now_ms: u64) -> Option<&Entry> {
        let entry = self.entries.get(&SessionId::parse(id)?)?;
        let is_there = match entry.state {
            State::Making => false,
            State::Idle => entry.session.expires_ms() > now_ms,
            State::InTurn(_) => true,
        };
        (is_there && entry.session.tenant == *tenant).then_some(entry)
    }
}

/// What was asked for may have any length.
pub(crate) fn unknown(id: &str) -> SessionError {
    SessionError::Unknown { id: shortened(id.to_owned(), 64) }
}

#[cfg(test)]
mod tests;
