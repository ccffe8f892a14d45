//! A task as a stream of events, from any place in its text on. Told is only what is kept, so that nothing is taken back.

use std::collections::VecDeque;

use futures::{Stream, StreamExt, stream};

use crate::{TaskError, ledger::Seen, store::Store, task::Task, watchers::Watching};

/// Something that happened to a task.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskEvent {
    /// A node began to serve it. Told once to whoever follows it from the beginning.
    Started {
        /// The node.
        node: String,
        /// The model.
        model: String,
    },
    /// More text.
    Token {
        /// The text.
        text: String,
        /// Bytes of all text up to and with this: where to go on after it.
        end: u64,
    },
    /// It ended; nothing follows. Its text was told before.
    Ended(Box<Task>),
}

struct Following {
    store: Store,
    tenant: String,
    id: String,
    watching: Watching,
    /// Bytes told.
    n_told: u64,
    is_started: bool,
    events: VecDeque<TaskEvent>,
    is_over: bool,
}

/// The events of a task behind the first `from` bytes of its text; `None` begins with its start.
pub(crate) async fn follow(
    store: &Store,
    tenant: &str,
    id: &str,
    from: Option<u64>,
) -> Result<impl Stream<Item = Result<TaskEvent, TaskError>> + Send + use<>, TaskError> {
    let n_told = from.unwrap_or(0);
    let seen = see(store, tenant, id, n_told).await?;
    let mut following = Following {
        store: store.clone(),
        tenant: tenant.to_owned(),
        id: id.to_owned(),
        watching: store.watchers.watch(seen.key),
        n_told,
        is_started: from.is_some(),
        events: VecDeque::new(),
        is_over: false,
    };
    // what has changed between the look and the watch is seen by the next look
    following.watching.touch();
    following.hear(seen)?;
    Ok(stream::unfold(following, |mut following| async move { Some((following.next().await?, following)) }).boxed())
}

async fn see(store: &Store, tenant: &str, id: &str, from: u64) -> Result<Seen, TaskError> {
    let (tenant, name) = (tenant.to_owned(), id.to_owned());
    let seen = store.have(move |ledger| ledger.see(&tenant, &name, from)).await?;
    seen.ok_or_else(|| TaskError::Unknown { id: id.to_owned() })
}

// === impl Following ===

impl Following {
    async fn next(&mut self) -> Option<Result<TaskEvent, TaskError>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Ok(event));
            }
            if self.is_over {
                return None;
            }
            self.watching.changed().await;
            let seen = see(&self.store, &self.tenant, &self.id, self.n_told).await;
            if let Err(error) = seen.and_then(|seen| self.hear(seen)) {
                self.is_over = true;
                return Some(Err(error));
            }
        }
    }

    fn hear(&mut self, seen: Seen) -> Result<(), TaskError> {
        let Seen { task, begin, pieces, .. } = seen;
        let start = usize::try_from(self.n_told.saturating_sub(begin)).unwrap_or(usize::MAX);
        if !pieces.text.is_char_boundary(start) || self.n_told < begin {
            return Err(TaskError::NoEvent { id: self.id.clone(), offset: self.n_told });
        }
        if let Some(node) = task.node.as_ref().filter(|_| !self.is_started) {
            self.is_started = true;
            self.events.push_back(TaskEvent::Started { node: node.clone(), model: task.model.clone() });
        }
        for (text, end) in pieces.from(start) {
            self.n_told = begin + end as u64;
            self.events.push_back(TaskEvent::Token { text: text.to_owned(), end: self.n_told });
        }
        if task.state.is_ended() {
            self.is_over = true;
            self.events.push_back(TaskEvent::Ended(Box::new(task)));
        }
        Ok(())
    }
}
