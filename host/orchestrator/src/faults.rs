//! Trouble made on purpose, so that people can see what becomes of their service: nodes that are slow, break off, trap or fall silent.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::Stream;
use llambo_inference::{AnswerEvent, AnswerStream, InferenceError, NodeId, TypeName};
use tokio::time::{Sleep, sleep};

use crate::cluster::Cluster;

/// Faults at a time: each is looked at for each request.
const MAX_FAULTS: usize = 64;

/// What happens, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// To these nodes; empty: to all of `node_type`.
    pub nodes: Vec<NodeId>,
    /// To nodes of this type; `None`: of any.
    pub node_type: Option<TypeName>,
    /// To this share of their requests, above 0 and at most 1.
    pub share: f64,
    /// Not before so many pieces of the answer were told.
    pub after_pieces: u32,
    /// So often in all; `None`: until it is taken back.
    pub times: Option<u64>,
}

/// What a fault does to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Each further piece comes so much later.
    Slow(Duration),
    /// It ends without a word, as when the connection to a node is lost.
    Drop,
    /// Its guest traps.
    Trap,
    /// Nothing more comes.
    Stall,
}

/// A fault under its number.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveFault {
    /// What it is taken back by.
    pub number: u64,
    /// As it was asked for.
    pub fault: Fault,
    /// How often it has happened.
    pub n_happened: u64,
}

/// Why no fault was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The configuration does not allow it.
    #[error("faults are not injected on this host; set `faults.allow: true` in its configuration")]
    NotAllowed,
    /// There are many already.
    #[error("{MAX_FAULTS} faults are active, the most there may be; clear some")]
    TooMany,
}

/// The faults there are.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    is_active: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    active: BTreeMap<u64, ActiveFault>,
    last: u64,
}

/// An answer to which something happens.
struct Faulty {
    /// Gone once it broke.
    events: Option<AnswerStream>,
    node: NodeId,
    kind: FaultKind,
    n_left: u32,
    pause: Option<Pin<Box<Sleep>>>,
}

// === impl FaultKind ===

impl FaultKind {
    /// The name used on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slow(_) => "slow",
            Self::Drop => "drop",
            Self::Trap => "trap",
            Self::Stall => "stall",
        }
    }
}

// === impl Faults ===

impl Faults {
    pub(crate) fn inject(&self, fault: Fault) -> Result<u64, FaultError> {
        let mut table = self.lock();
        if table.active.len() >= MAX_FAULTS {
            return Err(FaultError::TooMany);
        }
        table.last += 1;
        let number = table.last;
        tracing::warn!(number, ?fault, "a fault is injected");
        table.active.insert(number, ActiveFault { number, fault, n_happened: 0 });
        self.is_active.store(true, Relaxed);
        Ok(number)
    }

    /// Takes these back, or all; answers how many were there.
    pub(crate) fn clear(&self, numbers: &[u64]) -> usize {
        let mut table = self.lock();
        let before = table.active.len();
        table.active.retain(|number, _| !numbers.is_empty() && !numbers.contains(number));
        let cleared = before - table.active.len();
        self.is_active.store(!table.active.is_empty(), Relaxed);
        tracing::warn!(cleared, "faults are taken back");
        cleared
    }

    pub(crate) fn list(&self) -> Vec<ActiveFault> {
        self.lock().active.values().cloned().collect()
    }

    /// A node's answer, with what happens to it.
    pub(crate) fn befall(
        &self,
        node: &NodeId,
        node_type: impl FnOnce() -> Option<TypeName>,
        events: AnswerStream,
    ) -> AnswerStream {
        if !self.is_active.load(Relaxed) {
            return events;
        }
        let node_type = node_type();
        let mut table = self.lock();
        let strikes = |active: &&mut ActiveFault| {
            let Fault { nodes, node_type: wanted, share, times, .. } = &active.fault;
            (nodes.is_empty() || nodes.contains(node))
                && (wanted.is_none() || *wanted == node_type)
                && times.is_none_or(|times| active.n_happened < times)
                && rand::random::<f64>() < *share
        };
        let Some(active) = table.active.values_mut().find(strikes) else { return events };
        active.n_happened += 1;
        let (kind, n_left) = (active.fault.kind, active.fault.after_pieces);
        metrics::counter!("llambo_orchestrator_faults_injected_total", "kind" => kind.as_str()).increment(1);
        Box::pin(Faulty { events: Some(events), node: node.clone(), kind, n_left, pause: None })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Makes trouble on purpose from now on. Answers with what it is taken back by.
    ///
    /// # Errors
    /// [`FaultError`].
    pub fn inject_fault(&self, fault: Fault) -> Result<u64, FaultError> {
        if !self.shared.settings.allow_faults {
            return Err(FaultError::NotAllowed);
        }
        self.shared.faults.inject(fault)
    }

    /// Takes faults back by their numbers, or all of them. Answers how many were active.
    pub fn clear_faults(&self, numbers: &[u64]) -> usize {
        self.shared.faults.clear(numbers)
    }

    /// The faults that are active.
    pub fn faults(&self) -> Vec<ActiveFault> {
        self.shared.faults.list()
    }
}

impl Stream for Faulty {
    type Item = Result<AnswerEvent, InferenceError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.n_left == 0 {
            match this.kind {
                FaultKind::Drop => this.events = None,
                FaultKind::Stall => {
                    this.events = None;
                    return Poll::Pending;
                }
                FaultKind::Trap => {
                    if this.events.take().is_some() {
                        let detail = format!("a fault was injected into `{}`", this.node);
                        return Poll::Ready(Some(Err(InferenceError::Guest { reason: "GUEST_TRAP", detail })));
                    }
                }
                FaultKind::Slow(by) => {
                    ready!(this.pause.get_or_insert_with(|| Box::pin(sleep(by))).as_mut().poll(cx));
                }
            }
        }
        let Some(events) = &mut this.events else { return Poll::Ready(None) };
        let event = ready!(events.as_mut().poll_next(cx));
        this.pause = None;
        this.n_left = this.n_left.saturating_sub(1);
        Poll::Ready(event)
    }
}
