//! An isolate as the rest of the host sees it: a [`Node`] that serves one request at a time.
//!
//! While it is idle it is a guest behind a lock: no task, no timer, no thread. While it serves, the answer's stream owns the guest, runs it
//! whenever it is polled, and gives it back before the answer's end is told: a guest has no task of its own, since waking one for every token
//! costs more than the guest does. A guest that ended badly, or whose client went away, is dropped; the next request finds a fresh one.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures::{FutureExt, Stream, future::BoxFuture};
use llambo_inference::{
    AnswerEvent, AnswerStream, GenerateFuture, GenerateRequest, InferenceError, Node, NodeId, NodeState, NodeView, Share,
};
use tokio::sync::mpsc;

use crate::{
    NodeType,
    guest::Guest,
    node_type::{Berth, TypeSettings},
    output::{CHANNEL_PIECES, Event, Voice},
};

/// One sandboxed guest and its place.
pub struct Isolate {
    me: Weak<Self>,
    id: NodeId,
    node_type: Arc<NodeType>,
    slot: Mutex<Slot>,
    served: AtomicU64,
    replaced: AtomicU64,
    memory_bytes: AtomicU64,
}

struct Slot {
    state: NodeState,
    /// `None` while a request has it, and after one ended badly.
    guest: Option<Box<Guest>>,
    /// `None` once it is stopped.
    berth: Option<Arc<Berth>>,
}

/// A request's hold on its isolate. Dropped without `give_back`, the guest is gone.
struct Occupied {
    isolate: Arc<Isolate>,
    // in this order: the guest leaves its place before the place is given up
    guest: Option<Box<Guest>>,
    berth: Arc<Berth>,
    left: bool,
}

/// The client's end of an answer.
struct Events {
    /// The guest at work; `None` once it is done. Polled only when all it said was taken.
    serving: Option<BoxFuture<'static, Event>>,
    pieces: mpsc::Receiver<Event>,
    /// What is told last.
    end: Option<Event>,
}

// === impl Isolate ===

impl Isolate {
    pub(crate) fn new(id: NodeId, node_type: Arc<NodeType>, berth: Berth, guest: Guest) -> Arc<Self> {
        let memory_bytes = AtomicU64::new(guest.memory_bytes());
        let slot = Slot { state: NodeState::Ready, guest: Some(Box::new(guest)), berth: Some(Arc::new(berth)) };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            id,
            node_type,
            slot: Mutex::new(slot),
            served: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            memory_bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the guest, or a fresh one.
    async fn occupy(self: Arc<Self>) -> Result<Occupied, InferenceError> {
        let mut occupied = self.take_guest()?;
        if occupied.guest.is_none() {
            match Guest::start(&self.node_type, &occupied.berth).await {
                Ok(guest) => occupied.guest = Some(Box::new(guest)),
                Err(error) => {
                    // the next request tries again: what stopped this one may have passed
                    occupied.leave();
                    return Err(error);
                }
            }
        }
        Ok(occupied)
    }

    fn take_guest(self: &Arc<Self>) -> Result<Occupied, InferenceError> {
        let mut slot = self.lock();
        match slot.state {
            NodeState::Ready => {}
            NodeState::Busy => {
                return Err(InferenceError::Full { what: self.id.to_string(), in_flight: 1, capacity: 1 });
            }
            _ => return Err(InferenceError::Stopped(self.id.to_string())),
        }
        let Some(berth) = slot.berth.clone() else { return Err(InferenceError::Stopped(self.id.to_string())) };
        slot.state = NodeState::Busy;
        Ok(Occupied { isolate: Arc::clone(self), guest: slot.guest.take(), berth, left: false })
    }
}

impl Node for Isolate {
    fn view(&self) -> NodeView {
        let settings = self.node_type.settings();
        NodeView {
            id: self.id.clone(),
            node_type: settings.name.clone(),
            model: settings.model.clone(),
            state: self.lock().state,
            capacity: 1,
            weight: settings.weight,
            served: self.served.load(Ordering::Relaxed),
            replaced: self.replaced.load(Ordering::Relaxed),
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
        }
    }

    fn generate(&self, mut request: GenerateRequest) -> GenerateFuture<'_> {
        Box::pin(async move {
            let TypeSettings { tenant, tenant_weight, weight, .. } = self.node_type.settings();
            let isolate = Some(self.id.clone());
            request.share = Share { tenant: tenant.clone(), tenant_weight: *tenant_weight, isolate, weight: *weight };
            let me = self.me.upgrade().ok_or_else(|| InferenceError::Stopped(self.id.to_string()))?;
            let occupied = me.occupy().await?;
            let (sender, pieces) = mpsc::channel(CHANNEL_PIECES);
            let serving = Some(serve(occupied, request, sender).boxed());
            Ok(Box::pin(Events { serving, pieces, end: None }) as AnswerStream)
        })
    }

    fn stop(&self) {
        let mut slot = self.lock();
        if slot.state == NodeState::Busy {
            slot.state = NodeState::Draining;
        } else {
            slot.state = NodeState::Stopped;
            slot.guest = None;
        }
        slot.berth = None;
    }
}

/// One request, from the guest's first step to its end, which is told last.
async fn serve(mut occupied: Occupied, request: GenerateRequest, events: mpsc::Sender<Event>) -> Event {
    let node_type = Arc::clone(&occupied.isolate.node_type);
    let Some(guest) = occupied.guest.as_mut() else { return Err(InferenceError::Stopped(occupied.isolate.id.to_string())) };
    let answer = AssertUnwindSafe(guest.answer(&node_type, request, Voice::new(events, node_type.limits.output_bytes)));
    // a panic would be the host's mistake: it should cost this guest and no other
    let Ok(ended) = answer.catch_unwind().await else {
        return Err(InferenceError::Backend("the host's code for the guest panicked; its log says where".into()));
    };
    occupied.isolate.served.fetch_add(1, Ordering::Relaxed);
    if ended.usable {
        occupied.leave();
    } else if let Err(error) = &ended.result {
        metrics::counter!("llambo_isolate_replaced_total", "reason" => error.reason()).increment(1);
        tracing::warn!(node_id = %occupied.isolate.id, reason = error.reason(), "guest ended");
    }
    ended.result.map(AnswerEvent::Finished)
}

// === impl Occupied ===

impl Occupied {
    /// Gives the guest back, where there is one, and the isolate to the next request.
    fn leave(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        let guest = self.guest.take();
        let memory_bytes = guest.as_ref().map_or(0, |guest| guest.memory_bytes());
        self.isolate.memory_bytes.store(memory_bytes, Ordering::Relaxed);
        let mut slot = self.isolate.lock();
        match slot.state {
            NodeState::Busy => {
                slot.state = NodeState::Ready;
                slot.guest = guest;
            }
            NodeState::Draining => slot.state = NodeState::Stopped,
            _ => {}
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        if self.guest.take().is_some() {
            self.isolate.replaced.fetch_add(1, Ordering::Relaxed);
        }
        self.leave();
    }
}

// === impl Events ===

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Ok(piece) = self.pieces.try_recv() {
            return Poll::Ready(Some(piece));
        }
        if let Some(serving) = &mut self.serving
            && let Poll::Ready(end) = serving.as_mut().poll(cx)
        {
            // its place too is free from here on, however long the client takes to be told
            self.serving = None;
            self.end = Some(end);
        }
        match self.pieces.try_recv() {
            Ok(piece) => Poll::Ready(Some(piece)),
            Err(_) if self.serving.is_some() => Poll::Pending,
            Err(_) => Poll::Ready(self.end.take()),
        }
    }
}
