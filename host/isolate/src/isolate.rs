//! An isolate as the rest of the host sees it: a [`Node`] that serves one request at a time.
//!
//! While it is idle it is a guest behind a lock: no task, no timer, no thread. While it serves, the answer's stream has the guest (`serving`) and gives it
//! back before the answer's end is told. A guest that ended badly, or whose client went away, is dropped; the next request finds a fresh one.
//! Put aside, it is a file; its next request wakes it. What may follow what is in `lifecycle`.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use llambo_inference::{
    AnswerStream, GenerateFuture, GenerateRequest, InferenceError, MoveFuture, Node, NodeId, NodeTraits, NodeView, Share,
    TenantName,
};
use tokio::{sync::mpsc, task};

use crate::{
    NodeType,
    guest::Guest,
    hibernate::{self, HibernateError, Kept},
    lifecycle::{After, Begun, Lifecycle, Refusal},
    node_type::{Berth, TypeSettings},
    output::CHANNEL_PIECES,
    serving::{Events, Serving, serve},
};

/// A guest that is larger is not dropped on a thread that others need.
const LARGE_BYTES: u64 = 4 << 20;

/// One sandboxed guest and its place.
pub struct Isolate {
    me: Weak<Self>,
    pub(crate) id: NodeId,
    pub(crate) node_type: Arc<NodeType>,
    slot: Mutex<Slot>,
    pub(crate) served: AtomicU64,
    replaced: AtomicU64,
    memory_bytes: AtomicU64,
}

struct Slot {
    life: Lifecycle,
    /// `None` while a request has it, after one ended badly, and while it is put aside.
    guest: Option<Box<Guest>>,
    /// Where it is while it is put aside.
    file: Option<Box<PathBuf>>,
    /// `None` once it is stopped.
    berth: Option<Arc<Berth>>,
    /// The last request computed without a wait, or ended badly: the next one starts where that harms nobody.
    is_suspect: bool,
}

/// Somebody's hold on an isolate. Dropped without `leave`, the guest is gone; one that was asleep goes on sleeping.
pub(crate) struct Occupied {
    pub(crate) isolate: Arc<Isolate>,
    // in this order: the guest leaves its place before the place is given up
    pub(crate) guest: Option<Box<Guest>>,
    berth: Arc<Berth>,
    pub(crate) turn: u64,
    /// Of one that has not been woken yet.
    file: Option<Box<PathBuf>>,
}

// === impl Isolate ===

impl Isolate {
    pub(crate) fn new(id: NodeId, node_type: Arc<NodeType>, berth: Berth, guest: Guest) -> Arc<Self> {
        let memory_bytes = guest.memory_bytes();
        Self::with(id, node_type, berth, Lifecycle::default(), Some(Box::new(guest)), None, memory_bytes)
    }

    /// One whose state is in a file.
    pub(crate) fn asleep(id: NodeId, node_type: Arc<NodeType>, berth: Berth, file: PathBuf) -> Arc<Self> {
        Self::with(id, node_type, berth, Lifecycle::asleep(), None, Some(Box::new(file)), 0)
    }

    fn with(
        id: NodeId,
        node_type: Arc<NodeType>,
        berth: Berth,
        life: Lifecycle,
        guest: Option<Box<Guest>>,
        file: Option<Box<PathBuf>>,
        memory_bytes: u64,
    ) -> Arc<Self> {
        let slot = Slot { life, guest, file, berth: Some(Arc::new(berth)), is_suspect: false };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            id,
            node_type,
            slot: Mutex::new(slot),
            served: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(memory_bytes),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> InferenceError {
        InferenceError::Stopped(self.id.to_string())
    }

    fn refused(&self, refusal: Refusal) -> InferenceError {
        match refusal {
            Refusal::Busy => InferenceError::Full { what: self.id.to_string(), in_flight: 1, capacity: 1 },
            Refusal::Gone | Refusal::AlreadyThere => self.gone(),
        }
    }

    /// Takes the guest, or a fresh one where it knows what another tenant said.
    async fn occupy(self: Arc<Self>, tenant: &TenantName) -> Result<Occupied, InferenceError> {
        let taken = self.take(|life| life.begin(Instant::now()));
        let (mut occupied, pause) = taken.map_err(|refusal| self.refused(refusal))?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if occupied.file.is_some() {
            occupied.wake().await?;
        }
        occupied.guest.take_if(|guest| !guest.may_serve(tenant));
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

    /// What it has, once its life allows it, and how long it should rest first.
    fn take(
        self: &Arc<Self>,
        begin: impl FnOnce(&mut Lifecycle) -> Result<Begun, Refusal>,
    ) -> Result<(Occupied, Duration), Refusal> {
        let mut slot = self.lock();
        let Some(berth) = slot.berth.clone() else { return Err(Refusal::Gone) };
        let Begun { turn, is_asleep, rest } = begin(&mut slot.life)?;
        let file = if is_asleep { slot.file.take() } else { None };
        Ok((Occupied { isolate: Arc::clone(self), guest: slot.guest.take(), berth, turn, file }, rest))
    }

    async fn go_to_sleep(self: Arc<Self>) -> Result<u64, InferenceError> {
        let mut occupied = match self.take(|life| life.doze(Instant::now())) {
            Ok((occupied, _)) => occupied,
            Err(Refusal::AlreadyThere) => return Ok(0),
            Err(refusal) => return Err(self.refused(refusal)),
        };
        let written = occupied.put_aside().await;
        match written {
            Ok((file, n_bytes)) => {
                occupied.guest = None;
                occupied.file = Some(file);
                drop(occupied);
                self.memory_bytes.store(0, Ordering::Relaxed);
                Ok(n_bytes)
            }
            Err(error) => {
                occupied.leave();
                Err(InferenceError::InvalidRequest(format!("`{}` cannot be hibernated: {error}", self.id)))
            }
        }
    }

    async fn be_woken(self: Arc<Self>) -> Result<u64, InferenceError> {
        let (mut occupied, _) = match self.take(|life| life.rouse(Instant::now())) {
            Ok(taken) => taken,
            Err(Refusal::AlreadyThere) => return Ok(0),
            Err(refusal) => return Err(self.refused(refusal)),
        };
        let n_bytes = occupied.wake().await?;
        occupied.leave();
        Ok(n_bytes)
    }

    /// What was put aside of it is wanted no more.
    fn discard(&self, file: Option<Box<PathBuf>>) {
        if let (Some(file), Some(dormitory)) = (file, &self.node_type.dormitory) {
            dormitory.discard(&file);
        }
    }

    /// Frees the isolate of a request that was given up and may take long to notice.
    pub(crate) fn abandon(&self, turn: u64) {
        if self.lock().life.end(turn) != After::Stale {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The next request should start where it harms nobody.
    pub(crate) fn suspect(&self) {
        self.lock().is_suspect = true;
    }
}

impl Node for Isolate {
    fn view(&self) -> NodeView {
        let settings = self.node_type.settings();
        NodeView {
            id: self.id.clone(),
            node_type: settings.name.clone(),
            model: settings.serves.clone(),
            state: self.lock().life.state(Instant::now()),
            capacity: 1,
            weight: settings.weight,
            served: self.served.load(Ordering::Relaxed),
            replaced: self.replaced.load(Ordering::Relaxed),
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
            traits: NodeTraits {
                tenant: settings.tenant.clone(),
                tier: settings.tier,
                labels: Arc::clone(&settings.labels),
                // all isolates of a host ask the same engines
                shares_cache: true,
            },
        }
    }

    fn generate(&self, mut request: GenerateRequest) -> GenerateFuture<'_> {
        Box::pin(async move {
            let TypeSettings { model, tenant, tenant_weight, weight, .. } = self.node_type.settings();
            request.model = model.clone();
            let isolate = Some(self.id.clone());
            let own = self.node_type.limits.time.map(|time| Instant::now() + time);
            request.deadline = [request.deadline, own].into_iter().flatten().min();
            // isolates of nobody in particular work for whoever asks
            let (tenant, tenant_weight) = if *tenant == Share::default().tenant {
                (request.share.tenant, request.share.tenant_weight)
            } else {
                (tenant.clone(), *tenant_weight)
            };
            request.share = Share { tenant, tenant_weight, priority: request.priority, isolate, weight: *weight };
            let me = self.me.upgrade().ok_or_else(|| self.gone())?;
            let occupied = Arc::clone(&me).occupy(&request.share.tenant).await?;
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

    fn hibernate(&self) -> MoveFuture<'_> {
        Box::pin(async {
            let me = self.me.upgrade().ok_or_else(|| self.gone())?;
            // to its end, whatever becomes of who asked
            task::spawn(me.go_to_sleep()).await.unwrap_or_else(|e| Err(InferenceError::Backend(e.to_string())))
        })
    }

    fn wake(&self) -> MoveFuture<'_> {
        Box::pin(async {
            let me = self.me.upgrade().ok_or_else(|| self.gone())?;
            task::spawn(me.be_woken()).await.unwrap_or_else(|e| Err(InferenceError::Backend(e.to_string())))
        })
    }

    fn stop(&self) {
        let mut slot = self.lock();
        if slot.life.stop() {
            slot.guest = None;
            self.discard(slot.file.take());
        }
        slot.berth = None;
    }
}

// === impl Occupied ===

impl Occupied {
    /// How it ended, for those that come after.
    pub(crate) fn note(&self, went_well: bool) {
        let mut slot = self.isolate.lock();
        if slot.life.note(self.turn, went_well, Instant::now()) {
            slot.is_suspect |= !went_well;
        }
    }

    /// Writes what the guest has to a file, and says how large that is.
    async fn put_aside(&mut self) -> Result<(Box<PathBuf>, u64), HibernateError> {
        let Isolate { id, node_type, .. } = self.isolate.as_ref();
        let Some(dormitory) = node_type.dormitory.clone() else {
            return Err(HibernateError::Unfit("this host has no folder for it; set `hibernation.folder`".into()));
        };
        let image = match self.guest.as_mut() {
            // what others than its type's tenant said is not written down
            Some(guest) if guest.may_serve(&node_type.settings().tenant) => guest.image(node_type).await?,
            _ => None,
        };
        let origin = node_type.origin(id);
        let file = dormitory.place_for(id.as_str());
        let write = move || {
            let bytes = Kept { origin, image }.encode();
            hibernate::write(&file, &bytes).inspect_err(|_| dormitory.disown(&file))?;
            Ok((Box::new(file), bytes.len() as u64))
        };
        in_background(write).await
    }

    /// Wakes what is in the file, which is gone then. When that fails, the isolate has failed, and the file stays.
    async fn wake(&mut self) -> Result<u64, InferenceError> {
        let Some(file) = self.file.clone() else { return Ok(0) };
        let node_type = Arc::clone(&self.isolate.node_type);
        let read = move || {
            let kept = hibernate::read(&file)?;
            let n_bytes = file.metadata().map_or(0, |about| about.len());
            node_type.check(&kept).map(|()| (kept, n_bytes, file))
        };
        let woken = async {
            let (kept, n_bytes, file) = in_background(read).await?;
            let guest = Guest::woken(&self.isolate.node_type, &self.berth, kept.image).await?;
            // it is awake, and must not be woken twice
            std::fs::remove_file(&*file).map_err(|source| HibernateError::Disk { path: (*file).clone(), source })?;
            if let Some(dormitory) = &self.isolate.node_type.dormitory {
                dormitory.disown(&file);
            }
            Ok::<_, HibernateError>((guest, n_bytes))
        };
        match woken.await {
            Ok((guest, n_bytes)) => {
                self.isolate.memory_bytes.store(guest.memory_bytes(), Ordering::Relaxed);
                self.guest = Some(Box::new(guest));
                self.file = None;
                Ok(n_bytes)
            }
            Err(error) => {
                let id = &self.isolate.id;
                let file = self.file.take().map_or_else(String::new, |file| file.display().to_string());
                self.isolate.lock().life.end_lost(self.turn);
                tracing::error!(node_id = %id, file, %error, "a hibernated isolate cannot be woken");
                let detail = format!("`{id}` cannot be woken: {error}");
                Err(InferenceError::Guest { reason: "WAKE_FAILED", detail })
            }
        }
    }

    /// Gives the guest back, where there is one, and the isolate to the next request.
    pub(crate) fn leave(&mut self) {
        // where it cannot be given back it is dropped behind the lock
        let mut guest = self.guest.take();
        let mut slot = self.isolate.lock();
        let is_asleep = self.file.is_some();
        let after = if is_asleep { slot.life.end_asleep(self.turn) } else { slot.life.end(self.turn) };
        if after != After::Stale {
            let memory_bytes = guest.as_ref().map_or(0, |guest| guest.memory_bytes());
            self.isolate.memory_bytes.store(memory_bytes, Ordering::Relaxed);
            if after == After::Stays {
                slot.guest = guest.take();
                slot.file = self.file.take();
            }
        }
        drop(slot);
        self.isolate.discard(self.file.take());
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        if let Some(guest) = self.guest.take() {
            if self.isolate.lock().life.is_turn(self.turn) {
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

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HibernateError> + Send + 'static,
) -> Result<T, HibernateError> {
    task::spawn_blocking(work).await.unwrap_or_else(|e| Err(HibernateError::Failed(e.to_string())))
}
