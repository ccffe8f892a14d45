//! An isolate as the rest of the host sees it: a [`Node`] that serves one request at a time.
//!
//! While it is idle it is a guest behind a lock: no task, no timer, no thread. While it serves, the answer's stream owns the guest, runs it
//! whenever it is polled, and gives it back before the answer's end is told: a guest has no task of its own, since waking one for every token
//! costs more than the guest does. Only one that computes without a wait goes on elsewhere (`lane`). A guest that ended badly, or whose client went away, is dropped; the next request finds a fresh one.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, future::BoxFuture};
use llambo_inference::{
    AnswerEvent, AnswerStream, GenerateFuture, GenerateRequest, InferenceError, Node, NodeId, NodeState, NodeView, Share,
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

use crate::{
    NodeType,
    guest::Guest,
    health::Health,
    node_type::{Berth, TypeSettings},
    output::{CHANNEL_PIECES, Event, Voice},
};

/// A guest that is larger is not dropped on a thread that others need.
const LARGE_BYTES: u64 = 4 << 20;
/// Pieces that wait together go on as one of about this size.
const MERGED_BYTES: usize = 1024;

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
    /// Counts requests: one that was given up says nothing about those after it.
    turn: u64,
    health: Health,
    /// The last request computed without a wait, or ended badly: the next one starts where that harms nobody.
    is_suspect: bool,
}

/// A request's hold on its isolate. Dropped without `leave`, the guest is gone.
struct Occupied {
    isolate: Arc<Isolate>,
    // in this order: the guest leaves its place before the place is given up
    guest: Option<Box<Guest>>,
    berth: Arc<Berth>,
    turn: u64,
}

/// The client's end of an answer.
struct Events {
    isolate: Arc<Isolate>,
    turn: u64,
    is_heavy: Arc<AtomicBool>,
    serving: Serving,
    pieces: mpsc::Receiver<Event>,
    /// What is told last.
    end: Option<Event>,
}

/// Where the guest is at work. It goes on only when all it said was taken.
enum Serving {
    Here(BoxFuture<'static, Event>),
    Lane(JoinHandle<Event>),
    Done,
}

// === impl Isolate ===

impl Isolate {
    pub(crate) fn new(id: NodeId, node_type: Arc<NodeType>, berth: Berth, guest: Guest) -> Arc<Self> {
        let memory_bytes = AtomicU64::new(guest.memory_bytes());
        let slot = Slot {
            state: NodeState::Ready,
            guest: Some(Box::new(guest)),
            berth: Some(Arc::new(berth)),
            turn: 0,
            health: Health::default(),
            is_suspect: false,
        };
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
        let (mut occupied, pause) = self.take_guest()?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
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

    /// The guest, and how long it should rest first.
    fn take_guest(self: &Arc<Self>) -> Result<(Occupied, Duration), InferenceError> {
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
        slot.turn += 1;
        let pause = slot.health.rest(Instant::now());
        let occupied = Occupied { isolate: Arc::clone(self), guest: slot.guest.take(), berth, turn: slot.turn };
        Ok((occupied, pause))
    }

    /// Frees the isolate of a request that was given up and may take long to notice.
    fn abandon(&self, turn: u64) {
        if self.lock().end_turn(turn) {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Slot {
    /// Frees the isolate of the request whose turn it is. False when it is not, or no more.
    fn end_turn(&mut self, turn: u64) -> bool {
        if self.turn != turn {
            return false;
        }
        self.turn += 1;
        self.state = match self.state {
            NodeState::Busy => NodeState::Ready,
            NodeState::Draining => NodeState::Stopped,
            state => state,
        };
        true
    }
}

impl Node for Isolate {
    fn view(&self) -> NodeView {
        let settings = self.node_type.settings();
        let state = {
            let slot = self.lock();
            if slot.state == NodeState::Ready && slot.health.is_resting(Instant::now()) {
                NodeState::Starting
            } else {
                slot.state
            }
        };
        NodeView {
            id: self.id.clone(),
            node_type: settings.name.clone(),
            model: settings.serves.clone(),
            state,
            capacity: 1,
            weight: settings.weight,
            served: self.served.load(Ordering::Relaxed),
            replaced: self.replaced.load(Ordering::Relaxed),
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
        }
    }

    fn generate(&self, mut request: GenerateRequest) -> GenerateFuture<'_> {
        Box::pin(async move {
            let TypeSettings { model, tenant, tenant_weight, weight, .. } = self.node_type.settings();
            request.model = model.clone();
            let isolate = Some(self.id.clone());
            let own = self.node_type.limits.time.map(|time| Instant::now() + time);
            request.deadline = [request.deadline, own].into_iter().flatten().min();
            request.share = Share { tenant: tenant.clone(), tenant_weight: *tenant_weight, isolate, weight: *weight };
            let me = self.me.upgrade().ok_or_else(|| InferenceError::Stopped(self.id.to_string()))?;
            let occupied = Arc::clone(&me).occupy().await?;
            let (sender, pieces) = mpsc::channel(CHANNEL_PIECES);
            let (turn, is_heavy) = (occupied.turn, Arc::<AtomicBool>::default());
            let serving = Serving::Here(serve(occupied, request, sender, Arc::clone(&is_heavy)).boxed());
            let is_suspect = std::mem::take(&mut me.lock().is_suspect);
            let mut events = Events { isolate: me, turn, is_heavy, serving, pieces, end: None };
            if is_suspect {
                events.go_on_in_the_lane();
            }
            Ok(Box::pin(events) as AnswerStream)
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
async fn serve(
    mut occupied: Occupied,
    request: GenerateRequest,
    events: mpsc::Sender<Event>,
    is_heavy: Arc<AtomicBool>,
) -> Event {
    let node_type = Arc::clone(&occupied.isolate.node_type);
    let Some(guest) = occupied.guest.as_mut() else { return Err(InferenceError::Stopped(occupied.isolate.id.to_string())) };
    let voice = Voice::new(events, &node_type.limits);
    let answer = AssertUnwindSafe(guest.answer(&node_type, request, voice, is_heavy));
    // a panic would be the host's mistake: it should cost this guest and no other
    let Ok(ended) = answer.catch_unwind().await else {
        return Err(InferenceError::Backend("the host's code for the guest panicked; its log says where".into()));
    };
    occupied.isolate.served.fetch_add(1, Ordering::Relaxed);
    match &ended.result {
        Ok(_) => occupied.note(true),
        Err(InferenceError::Guest { .. }) if !ended.usable => occupied.note(false),
        // neither its merit nor its fault
        Err(_) => {}
    }
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
    /// How it ended, for those that come after.
    fn note(&self, went_well: bool) {
        let mut slot = self.isolate.lock();
        if slot.turn == self.turn {
            slot.health.note(went_well, Instant::now());
            slot.is_suspect |= !went_well;
        }
    }

    /// Gives the guest back, where there is one, and the isolate to the next request.
    fn leave(&mut self) {
        // where it cannot be given back it is dropped behind the lock
        let mut guest = self.guest.take();
        let mut slot = self.isolate.lock();
        if slot.end_turn(self.turn) {
            let memory_bytes = guest.as_ref().map_or(0, |guest| guest.memory_bytes());
            self.isolate.memory_bytes.store(memory_bytes, Ordering::Relaxed);
            if slot.state == NodeState::Ready {
                slot.guest = guest.take();
            }
        }
        drop(slot);
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        if let Some(guest) = self.guest.take() {
            if self.isolate.lock().turn == self.turn {
                self.isolate.replaced.fetch_add(1, Ordering::Relaxed);
            }
            if guest.memory_bytes() >= LARGE_BYTES {
                // giving its pages back takes milliseconds
                self.isolate.node_type.pools.lane.take(async move { drop(guest) });
            }
        }
        self.leave();
    }
}

// === impl Events ===

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Ok(piece) = self.pieces.try_recv() {
            return Poll::Ready(Some(self.with_more(piece)));
        }
        let polled = match &mut self.serving {
            Serving::Here(serving) => serving.as_mut().poll(cx),
            Serving::Lane(task) => Pin::new(task).poll(cx).map(|joined| joined.unwrap_or_else(|e| Err(lost(&e)))),
            Serving::Done => return Poll::Ready(self.end.take()),
        };
        if let Poll::Ready(end) = polled {
            // its place too is free from here on, however long the client takes to be told
            (self.serving, self.end) = (Serving::Done, Some(end));
        } else if self.is_heavy.swap(false, Ordering::Relaxed) {
            self.isolate.lock().is_suspect = true;
            self.go_on_in_the_lane();
            cx.waker().wake_by_ref();
        }
        if let Serving::Lane(_) = &self.serving {
            // another thread sends, and must find this one waiting
            return match self.pieces.poll_recv(cx) {
                Poll::Ready(Some(piece)) => Poll::Ready(Some(self.with_more(piece))),
                _ => Poll::Pending,
            };
        }
        match (self.pieces.try_recv(), &self.serving) {
            (Ok(piece), _) => Poll::Ready(Some(self.with_more(piece))),
            (Err(_), Serving::Done) => Poll::Ready(self.end.take()),
            (Err(_), _) => Poll::Pending,
        }
    }
}

fn lost(error: &JoinError) -> InferenceError {
    InferenceError::Backend(format!("the guest's task ended without a word: {error}"))
}

impl Events {
    /// What was said meanwhile comes along: each message on its own costs more than all of them together.
    fn with_more(&mut self, mut event: Event) -> Event {
        while let Ok(AnswerEvent::Piece { text, n_tokens }) = &mut event
            && text.len() < MERGED_BYTES
            && let Ok(Ok(AnswerEvent::Piece { text: more, n_tokens: n_more })) = self.pieces.try_recv()
        {
            text.push_str(&more);
            *n_tokens = n_tokens.saturating_add(n_more);
        }
        event
    }

    fn go_on_in_the_lane(&mut self) {
        metrics::counter!("llambo_isolate_heavy_total", "type" => self.isolate.node_type.settings().name.to_string())
            .increment(1);
        self.serving = match std::mem::replace(&mut self.serving, Serving::Done) {
            Serving::Here(serving) => {
                if let Some(task) = self.isolate.node_type.pools.lane.take(serving) {
                    Serving::Lane(task)
                } else {
                    self.end = Some(Err(InferenceError::Stopped(self.isolate.id.to_string())));
                    Serving::Done
                }
            }
            other => other,
        };
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Serving::Lane(task) = &self.serving {
            task.abort();
            self.isolate.abandon(self.turn);
        }
    }
}
