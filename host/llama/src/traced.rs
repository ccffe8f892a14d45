//! A sequence's part in the trace of its request: its wait for a place, its prefill, its decode steps. Empty, and free, where nobody traces it.

use llambo_inference::{FinishReason, Instant, Part, TraceContext, Usage, part};

/// What is measured of one sequence, from when it was asked for.
#[derive(Default)]
pub(crate) struct Traced(Option<Box<Open>>);

struct Open {
    // children end before their parent
    phase: Phase,
    engine: Part,
    asked: Instant,
    /// Times that it got a place: more than once where it made room for others.
    n_places: u64,
}

enum Phase {
    Waiting,
    Prefill(#[expect(dead_code, reason = "ends as it drops")] Part),
    Decode { part: Part, n_tokens: u64, n_steps: u64, last: Instant, longest_ms: f64 },
}

impl Traced {
    pub(crate) fn new(trace: Option<TraceContext>) -> Self {
        let engine = part!(
            trace,
            "engine",
            llambo.finish_reason = Empty,
            llambo.input_tokens = Empty,
            llambo.cached_tokens = Empty,
            llambo.output_tokens = Empty,
            llambo.waited_ms = Empty,
            llambo.n_places = Empty,
        );
        let open = || Box::new(Open { phase: Phase::Waiting, engine, asked: Instant::now(), n_places: 0 });
        Self(trace.is_some_and(|trace| trace.is_sampled).then(open))
    }

    /// It has its place in the batch, and `n_cached` of its tokens are there.
    pub(crate) fn placed(&mut self, n_cached: usize) {
        let Some(open) = &mut self.0 else { return };
        open.n_places += 1;
        if matches!(open.phase, Phase::Waiting) {
            open.engine.record("llambo.waited_ms", open.asked.elapsed().as_secs_f64() * 1e3);
            open.phase = Phase::Prefill(part!(open.engine.context(), "prefill", llambo.cached_tokens = n_cached as u64));
        }
    }

    /// A token was chosen in the step that was measured at `now`.
    pub(crate) fn chose(&mut self, now: Instant) {
        let Some(open) = &mut self.0 else { return };
        if let Phase::Decode { n_tokens, n_steps, last, longest_ms, .. } = &mut open.phase {
            *n_tokens += 1;
            // guesses that were right come with the same step
            if now != *last {
                *n_steps += 1;
                *longest_ms = longest_ms.max(now.saturating_duration_since(*last).as_secs_f64() * 1e3);
                *last = now;
            }
            return;
        }
        // prefill ends first
        open.phase = Phase::Waiting;
        let part = part!(
            open.engine.context(),
            "decode",
            llambo.n_tokens = Empty,
            llambo.n_steps = Empty,
            llambo.longest_step_ms = Empty,
        );
        // the first token is the prefill's
        open.phase = Phase::Decode { part, n_tokens: 0, n_steps: 0, last: now, longest_ms: 0.0 };
    }

    /// It has said everything.
    pub(crate) fn ended(&mut self, usage: Usage, reason: FinishReason) {
        let Some(open) = &self.0 else { return };
        open.engine.record("llambo.finish_reason", reason.as_str());
        open.engine.record("llambo.input_tokens", u64::from(usage.input_tokens));
        open.engine.record("llambo.cached_tokens", u64::from(usage.cached_tokens));
        open.engine.record("llambo.output_tokens", u64::from(usage.output_tokens));
        self.0 = None;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.engine.record("llambo.n_places", self.n_places);
        if let Phase::Decode { part, n_tokens, n_steps, longest_ms, .. } = &self.phase {
            part.record("llambo.n_tokens", *n_tokens);
            part.record("llambo.n_steps", *n_steps);
            part.record("llambo.longest_step_ms", *longest_ms);
        }
    }
}
