//! An isolate as the rest of the host sees it: a [`Node`] that serves one request at a time.
//!
//! While it is idle it is a guest behind a lock: no task, no timer, no thread. While it serves, one task owns the guest and gives
//! it back before the answer's end is told. A guest that ended badly, or whose client went away, is dropped; the next
//! request finds a fresh one.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures::Stream;
use llambo_inference::{
    AnswerEvent, AnswerStream, GenerateFuture, GenerateRequest, InferenceError, Node, NodeId, NodeState, NodeView, Share,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use crate::{
    NodeType,
    guest::Guest,
    node_type::{Berth, TypeSettings},
    output::{CHANNEL_PIECES, Event, Sender},
};

/// One sandboxed guest and its place.
pub struct Isolate {
    me: Weak<Self>,
    id: NodeId,
    node_type: Arc<NodeType>,
    slot: Mutex<Slot>,
    /// Told each time a request leaves.
    left: Notify,
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
    /// The running answer was dropped: its task is on its way out, and soon done.
    is_leaving: bool,
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
    isolate: Arc<Isolate>,
    pieces: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
    ended: bool,
}

// === impl Isolate ===

impl Isolate {
    pub(crate) fn new(id: NodeId, node_type: Arc<NodeType>, berth: Berth, guest: Guest) -> Arc<Self> {
        let memory_bytes = AtomicU64::new(guest.memory_bytes());
        let slot =
            Slot { state: NodeState::Ready, guest: Some(Box::new(guest)), berth: Some(Arc::new(berth)), is_leaving: false };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            id,
            node_type,
            slot: Mutex::new(slot),
            left: Notify::new(),
            served: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            memory_bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the guest, or a fresh one. Waits for a task that is on its way out.
    async fn occupy(self: Arc<Self>) -> Result<Occupied, InferenceError> {
        let mut occupied = loop {
            let mut left = pin!(self.left.notified());
            // from here on a leave is not missed
            left.as_mut().enable();
            match self.take_guest()? {
                Some(occupied) => break occupied,
                None => left.await,
            }
        };
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

    /// `None` while the one before is on its way out.
    fn take_guest(self: &Arc<Self>) -> Result<Option<Occupied>, InferenceError> {
        let mut slot = self.lock();
        match (slot.state, slot.is_leaving) {
            (NodeState::Ready, _) => {}
            (NodeState::Busy, true) => return Ok(None),
            (NodeState::Busy, false) => {
                return Err(InferenceError::Full { what: self.id.to_string(), in_flight: 1, capacity: 1 });
            }
            _ => return Err(InferenceError::Stopped(self.id.to_string())),
        }
        let Some(berth) = slot.berth.clone() else { return Err(InferenceError::Stopped(self.id.to_string())) };
        slot.state = NodeState::Busy;
        Ok(Some(Occupied { isolate: Arc::clone(self), guest: slot.guest.take(), berth, left: false }))
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
            let occupied = Arc::clone(&me).occupy().await?;
            let (sender, pieces) = mpsc::channel(CHANNEL_PIECES);
            let task = tokio::spawn(serve(occupied, request, sender));
            Ok(Box::pin(Events { isolate: me, pieces, task, ended: false }) as AnswerStream)
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

/// One request, from the guest's first step to the telling of its end.
async fn serve(mut occupied: Occupied, request: GenerateRequest, events: mpsc::Sender<Event>) {
    let Some(guest) = occupied.guest.as_mut() else { return };
    let node_type = Arc::clone(&occupied.isolate.node_type);
    let ended = guest.answer(&node_type, request, Sender::new(events.clone())).await;
    occupied.isolate.served.fetch_add(1, Ordering::Relaxed);
    if ended.usable {
        occupied.leave();
    } else if let Err(error) = &ended.result {
        metrics::counter!("llambo_isolate_replaced_total", "reason" => error.reason()).increment(1);
        tracing::warn!(node_id = %occupied.isolate.id, reason = error.reason(), "guest ended");
    }
    // its place too, however long the client takes to be told
    drop(occupied);
    // nobody may be there to be told
    let _ = events.send(ended.result.map(AnswerEvent::Finished)).await;
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
        slot.is_leaving = false;
        match slot.state {
            NodeState::Busy => {
                slot.state = NodeState::Ready;
                slot.guest = guest;
            }
            NodeState::Draining => slot.state = NodeState::Stopped,
            _ => {}
        }
        drop(slot);
        self.isolate.left.notify_waiters();
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
        if self.ended {
            return Poll::Ready(None);
        }
        let event = match self.pieces.poll_recv(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(event)) => event,
            Poll::Ready(None) => Err(InferenceError::Backend("the isolate's task ended without a word".into())),
        };
        self.ended = !matches!(event, Ok(AnswerEvent::Piece { .. }));
        Poll::Ready(Some(event))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if !self.ended && !self.task.is_finished() {
            let mut slot = self.isolate.lock();
            slot.is_leaving = slot.state == NodeState::Busy;
            drop(slot);
            self.task.abort();
        }
    }
}
