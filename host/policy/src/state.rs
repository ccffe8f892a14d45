//! What a policy's instance may do: its limits, and the interface `host`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use llambo_strategy::{ChooseNode, Fallback, NodeKind, Nodes};
use wasmtime::{ResourceLimiter, UpdateDeadline};

use crate::{
    bindings::llambo::policy::{
        host::{Host, Kind, Label},
        types,
    },
    clock::Stopwatch,
    told::Told,
};

/// Of one line of a policy in the log.
const LINE_BYTES: usize = 512;
/// Lines of one policy in a second, all instances together.
const LINES_PER_SECOND: u32 = 10;
/// Scores of one call: more candidates there are not.
const MAX_SCORES: usize = llambo_strategy::MAX_CANDIDATES;
const TABLE_ELEMENTS: usize = 20_000;

/// What a policy was loaded with.
#[derive(Debug)]
pub(crate) struct Terms {
    /// For the log.
    pub(crate) name: Arc<str>,
    pub(crate) parameters: Arc<str>,
    /// Computing time of a call.
    pub(crate) time: Duration,
    pub(crate) memory_bytes: usize,
    /// What it has said, in all instances together.
    pub(crate) said: Mutex<Said>,
    /// Who is told when it is suspended.
    pub(crate) told: Told,
}

/// Lines of a policy in the log.
#[derive(Debug, Default)]
pub(crate) struct Said {
    second: Option<Instant>,
    n_lines: u32,
    last: String,
}

/// Behind each instance.
pub(crate) struct State {
    pub(crate) terms: Arc<Terms>,
    pub(crate) stopwatch: Stopwatch,
    /// What `describe` and `node-name` answer from.
    kinds: Option<Arc<Vec<NodeKind>>>,
    nodes: Option<Arc<dyn Nodes>>,
    scores: Vec<(u32, f32)>,
    pub(crate) memory_bytes: usize,
}

/// Why a call was ended. Travels as a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    #[error("it computed for more than {0:?}")]
    Timeout(Duration),
    #[error("it asked for {asked} bytes of memory, and its limit is {limit}")]
    Memory { asked: usize, limit: usize },
}

/// An answer that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Nonsense(pub(crate) String);

impl Ended {
    pub(crate) fn fallback(self) -> Fallback {
        match self {
            Self::Timeout(_) => Fallback::Timeout,
            Self::Memory { .. } => Fallback::Memory,
        }
    }
}

impl State {
    pub(crate) fn new(terms: Arc<Terms>) -> Self {
        Self { terms, stopwatch: Stopwatch::default(), kinds: None, nodes: None, scores: Vec::new(), memory_bytes: 0 }
    }

    /// What its calls to the host answer from, until [`Self::forget`].
    pub(crate) fn show(&mut self, ask: &ChooseNode) {
        (self.kinds, self.nodes) = (Some(Arc::clone(&ask.kinds)), Some(Arc::clone(&ask.nodes)));
    }

    /// A question is answered, or not: nothing of it stays. Answers with the scores that were noted.
    pub(crate) fn forget(&mut self) -> Vec<(u32, f32)> {
        (self.kinds, self.nodes) = (None, None);
        std::mem::take(&mut self.scores)
    }

    /// At each tick of the clock while a call runs.
    pub(crate) fn on_tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let limit = self.terms.time;
        if self.stopwatch.is_over(limit) { Err(Ended::Timeout(limit).into()) } else { Ok(UpdateDeadline::Continue(1)) }
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let asked = self.memory_bytes - current.min(self.memory_bytes) + desired;
        let limit = self.terms.memory_bytes;
        if asked > limit {
            return Err(Ended::Memory { asked, limit }.into());
        }
        if maximum.is_some_and(|most| desired > most) {
            return Ok(false);
        }
        self.memory_bytes = asked;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= maximum.unwrap_or(TABLE_ELEMENTS).min(TABLE_ELEMENTS))
    }
}

impl types::Host for State {}

impl Host for State {
    fn parameters(&mut self) -> wasmtime::Result<String> {
        Ok(self.terms.parameters.as_ref().to_owned())
    }

    fn log(&mut self, line: String) -> wasmtime::Result<()> {
        let line = shortened(&line);
        let mut said = self.terms.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.second.is_none_or(|second| second.elapsed() >= Duration::from_secs(1)) {
            (said.n_lines, said.second) = (0, Some(Instant::now()));
        }
        said.n_lines = said.n_lines.saturating_add(1);
        if said.n_lines <= LINES_PER_SECOND {
            said.last.clone_from(&line);
            drop(said);
            tracing::info!(policy = &*self.terms.name, line, "a policy says");
        }
        Ok(())
    }

    fn describe(&mut self, kind: u32) -> wasmtime::Result<Option<Kind>> {
        let kind = self.kinds.as_ref().and_then(|kinds| kinds.get(kind as usize));
        Ok(kind.map(|kind| Kind {
            node_type: kind.node_type.to_string(),
            model: kind.model.to_string(),
            tenant: kind.tenant.to_string(),
            tier: kind.tier,
            weight: kind.weight,
            labels: labels(&kind.labels),
        }))
    }

    fn node_name(&mut self, node: u64) -> wasmtime::Result<Option<String>> {
        Ok(self.nodes.as_ref().and_then(|nodes| nodes.name(node)).map(|name| name.to_string()))
    }

    fn score(&mut self, candidate: u32, score: f32) -> wasmtime::Result<()> {
        if self.scores.len() < MAX_SCORES && (candidate as usize) < MAX_SCORES {
            self.scores.push((candidate, score));
        }
        Ok(())
    }
}

impl Terms {
    /// What the policy said last; empty: nothing.
    pub(crate) fn last_line(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }
}

/// The beginning of what a policy says, fit for one line.
pub(crate) fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(LINE_BYTES)].replace(char::is_control, " ")
}

pub(crate) fn labels(labels: &[(String, String)]) -> Vec<Label> {
    labels.iter().map(|(key, value)| Label { key: key.clone(), value: value.clone() }).collect()
}
