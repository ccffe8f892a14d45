//! One run of one task: asks the orchestrator, keeps what comes, and brings the task to its end or back into the queue.

use std::time::Duration;

use futures::{StreamExt, future::BoxFuture};
use llambo_inference::{AnswerEvent, Fault, Finished, InferenceError, Journal, Share};
use llambo_orchestrator::{DispatchError, Dispatcher};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    TaskError,
    draft::{Contradiction, Draft},
    kept::Mark,
    ledger::{Ledger, Return, Run, Sql, Standing, Taken},
    store::{Store, now_ms},
    task::{Outcome, TaskFailure},
};

/// What is lost at most when the host is killed.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Or so many tokens.
const KEEP_EVERY_TOKENS: u32 = 64;
/// The same while somebody reads: what is told is kept before. Eyes see no difference, and the disk has time for other tasks.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// Waits before a task is tried again.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Between two attempts to write to a store that fails.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// What every run has.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) dispatcher: Dispatcher,
    /// True once the host ends.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// A run under way.
struct Running<'a> {
    bench: &'a Bench,
    run: Run,
    draft: Draft,
    journal: Journal,
    expires_ms: Option<i64>,
    kept_at: Instant,
    n_tokens_kept: u32,
    /// What is being written.
    keeping: Option<BoxFuture<'static, Result<Standing, TaskError>>>,
}

/// How it came out of its loop.
enum Left {
    Ended(Outcome),
    Returned(Return),
    /// Nobody wants it any more.
    Over,
}

enum Happened {
    Event(Option<Result<AnswerEvent, InferenceError>>),
    Kept(Result<Standing, TaskError>),
    IsDue,
    Stops,
}

// === impl Bench ===

impl Bench {
    /// Runs a task. Dropping it stops, and leaves the task as it was last kept.
    pub(crate) async fn run(&self, taken: Taken) {
        let Taken { run, id, tenant, weight, work, kept, journal, expires_ms } = taken;
        let mark = Mark::of(&journal);
        let journal = Journal::restored(journal);
        let share = Share { tenant: tenant.into(), tenant_weight: weight, ..Share::default() };
        let deadline = expires_ms.and_then(|at| {
            let left = u64::try_from(at.saturating_sub(now_ms())).unwrap_or(0);
            std::time::Instant::now().checked_add(Duration::from_millis(left))
        });
        let request = work.request(id.into(), share, deadline, journal.clone());
        let mut running = Running {
            bench: self,
            run,
            draft: Draft::new(kept, mark),
            journal,
            expires_ms,
            kept_at: Instant::now(),
            n_tokens_kept: 0,
            keeping: None,
        };
        let answer = tokio::select! {
            answer = self.dispatcher.dispatch(request) => Some(answer),
            () = self.stopped() => None,
        };
        let left = match answer {
            None => Left::Returned(Return::Unserved(Duration::ZERO)),
            Some(Err(error)) => running.refused(&error),
            Some(Ok(answer)) => {
                running.draft.served_by(answer.node.to_string());
                running.follow(answer.events).await
            }
        };
        running.leave(left).await;
    }

    /// Done once the host ends.
    pub(crate) async fn stopped(&self) {
        // an error means that whoever could stop it is gone
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
    }

    /// Has something written that must be. Gives up only when the host ends: the task is run again at the next start then.
    pub(crate) async fn surely<F>(&self, step: F)
    where
        F: Fn(&mut Ledger) -> Sql<Standing> + Clone + Send + 'static,
    {
        while let Err(TaskError::Storage(_)) = self.store.have(step.clone()).await {
            tokio::select! {
                () = sleep(STORE_WAIT) => {}
                () = self.stopped() => return,
            }
        }
    }
}

// === impl Running ===

impl Running<'_> {
    async fn follow(&mut self, mut events: llambo_inference::AnswerStream) -> Left {
        loop {
            let due = self.due();
            let happened = tokio::select! {
                event = events.next() => Happened::Event(event),
                kept = async { self.keeping.as_mut().expect("looked at only when it is there").await }, if self.keeping.is_some() => {
                    Happened::Kept(kept)
                }
                () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => Happened::IsDue,
                () = self.bench.stopped() => Happened::Stops,
            };
            let left = match happened {
                Happened::Event(Some(Ok(AnswerEvent::Piece { text, n_tokens }))) => self.piece(&text, n_tokens).await,
                Happened::Event(Some(Ok(AnswerEvent::Finished(finished)))) => Some(self.finished(finished).await),
                Happened::Event(Some(Err(error))) => Some(self.broken(&error)),
                Happened::Event(None) => {
                    Some(self.broken(&InferenceError::Backend("the answer broke off without an end".into())))
                }
                Happened::Kept(kept) => {
                    self.keeping = None;
                    match kept {
                        Ok(Standing::Counts) => None,
                        Ok(Standing::Over) => Some(Left::Over),
                        // what was not written is made again
                        Err(_) => Some(Left::Returned(Return::Unserved(STORE_WAIT))),
                    }
                }
                Happened::IsDue => {
                    self.keep();
                    None
                }
                Happened::Stops => Some(Left::Returned(Return::Unserved(Duration::ZERO))),
            };
            if let Some(left) = left {
                return left;
            }
        }
    }

    /// When what is there should be kept; `None`: there is nothing, or something is on its way.
    fn due(&self) -> Option<Instant> {
        if self.keeping.is_some() || !self.draft.has_news() {
            return None;
        }
        let has_many = self.draft.n_tokens().saturating_sub(self.n_tokens_kept) >= KEEP_EVERY_TOKENS;
        let every = if self.bench.store.watchers.has(self.run.key) {
            TELL_EVERY
        } else if has_many {
            Duration::ZERO
        } else {
            KEEP_EVERY
        };
        Some(self.kept_at + every)
    }

    fn keep(&mut self) {
        let (store, run, update) = (self.bench.store.clone(), self.run, self.draft.take(&self.journal));
        (self.kept_at, self.n_tokens_kept) = (Instant::now(), self.draft.n_tokens());
        self.keeping = Some(Box::pin(async move { store.have(move |ledger| ledger.progress(run, &update)).await }));
    }

    async fn piece(&mut self, text: &str, n_tokens: u32) -> Option<Left> {
        if self.draft.push(text, n_tokens) == Err(Contradiction) {
            if let Some(left) = self.contradict().await {
                return Some(left);
            }
            self.draft.begin_anew(text, n_tokens);
        }
        None
    }

    async fn finished(&mut self, Finished { reason, usage }: Finished) -> Left {
        if self.draft.finish() == Err(Contradiction) {
            if let Some(left) = self.contradict().await {
                return left;
            }
            self.draft.begin_anew("", 0);
        }
        Left::Ended(Outcome::Finished { reason: reason.as_str(), usage })
    }

    /// Forgets what earlier runs made, if that is possible.
    async fn contradict(&mut self) -> Option<Left> {
        let run = self.run;
        self.kept().await;
        match self.bench.store.have(move |ledger| ledger.contradict(run, now_ms())).await {
            Ok(Standing::Counts) => None,
            Ok(Standing::Over) => Some(Left::Over),
            Err(_) => Some(Left::Returned(Return::Unserved(STORE_WAIT))),
        }
    }

    /// Waits for what is being written.
    async fn kept(&mut self) {
        if let Some(keeping) = self.keeping.take() {
            // what follows it says whether the run still counts, and whether the store works
            let _ = keeping.await;
        }
    }

    /// It came to no node, or the node failed it before its first word.
    fn refused(&self, error: &DispatchError) -> Left {
        match (error.retry_after(), error) {
            (Some(after), _) => Left::Returned(Return::Unserved(after.clamp(SHORTEST_WAIT, LONGEST_WAIT))),
            (None, DispatchError::Inference(error)) => self.broken(error),
            (None, error) => Left::Ended(Outcome::failed(error.reason(), error.to_string())),
        }
    }

    fn broken(&self, error: &InferenceError) -> Left {
        let is_late = self.expires_ms.is_some_and(|at| at <= now_ms() + 1);
        if is_late && matches!(error, InferenceError::DeadlineExceeded { .. }) {
            return Left::Ended(Outcome::Expired);
        }
        let failure = TaskFailure { reason: error.reason().to_owned(), message: error.to_string() };
        match error.fault() {
            Fault::Node if error.may_be_tried_again() => Left::Returned(Return::Broken(SHORTEST_WAIT, failure)),
            _ => Left::Ended(Outcome::Failed(failure)),
        }
    }

    async fn leave(mut self, left: Left) {
        self.kept().await;
        let (run, update) = (self.run, self.draft.take(&self.journal));
        match left {
            Left::Over => {}
            Left::Ended(outcome) => {
                self.bench.surely(move |ledger| ledger.end(run, &update, &outcome, now_ms())).await;
            }
            Left::Returned(why) => {
                self.bench.surely(move |ledger| ledger.release(run, &update, &why, now_ms())).await;
            }
        }
    }
}
