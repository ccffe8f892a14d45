//! One request to several nodes, and one answer out of theirs.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream, stream::FuturesUnordered};
use llambo_inference::{AnswerEvent, FinishReason, Finished, GenerateRequest, InferenceError, RequestId, Usage};
use llambo_strategy::{Fuse, Fused, Majority, NodeAnswer};
use tokio::time::Instant;

use crate::{
    dispatcher::Dispatcher,
    error::DispatchError,
    facts,
    route::{Route, Routed},
    tiers::TierNote,
};

/// Nodes that one request may ask.
pub const MAX_ANSWERS: u32 = 16;

/// A whole answer of one node.
struct Whole {
    node: llambo_inference::NodeId,
    route: Option<Box<Route>>,
    tier: Option<Arc<TierNote>>,
    text: String,
    finished: Finished,
    took: Duration,
}

type Asking = FuturesUnordered<BoxFuture<'static, Result<Whole, DispatchError>>>;

impl Dispatcher {
    /// Asks as many nodes as the request wants at once, and makes one answer of theirs: by the fusion policy, or the one that most agree on. Whoever has not
    /// answered by then is stopped. The answer comes as one piece; it costs what all of them cost.
    pub(crate) async fn fuse(&self, request: GenerateRequest) -> Result<Routed, DispatchError> {
        let n = request.routing.answers.min(MAX_ANSWERS);
        let mut asking: Asking = (0..n).map(|i| self.ask_whole(Box::new(share_of(&request, i)))).collect();
        let (mut answers, mut error): (Vec<Whole>, Option<DispatchError>) = (Vec::new(), None);
        while let Some(answer) = asking.next().await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(failed) => error = error.or(Some(failed)),
            }
            if answers.is_empty() {
                continue;
            }
            let outstanding = u32::try_from(asking.len()).unwrap_or(u32::MAX);
            if let Some(fused) = self.fused(&request, &answers, outstanding) {
                // those that are still at it are stopped
                drop(asking);
                return Ok(one(answers, fused));
            }
        }
        Err(error.unwrap_or_else(|| InferenceError::Backend("no answer came, and no error".into()).into()))
    }

    fn fused(&self, request: &GenerateRequest, answers: &[Whole], outstanding: u32) -> Option<Fused> {
        let policies = &self.shared().policies;
        let told = answers.iter().map(|answer| NodeAnswer {
            node: 0,
            text: answer.text.clone(),
            complete: answer.finished.reason == FinishReason::Stop,
            output_tokens: answer.finished.usage.output_tokens,
            latency_us: answer.took.as_secs_f32() * 1e6,
        });
        let facts = facts::of(request, self.shared().now_ms(), policies.grants_prompt);
        let ask = Arc::new(Fuse { request: facts, answers: told.collect(), outstanding });
        if policies.fusion.is_loaded() {
            let decision = policies.fusion.decide(&ask);
            if let Some(fused) = decision.answer {
                return fused;
            }
        }
        Majority.fuse(&ask).map(Fused::Pick)
    }

    fn ask_whole(&self, request: Box<GenerateRequest>) -> BoxFuture<'static, Result<Whole, DispatchError>> {
        let door = self.clone();
        Box::pin(async move {
            let began = Instant::now();
            let mut routed = door.dispatch_to_one(request).await?;
            let mut text = String::new();
            while let Some(event) = routed.events.next().await {
                match event? {
                    AnswerEvent::Piece { text: piece, .. } => text.push_str(&piece),
                    AnswerEvent::Finished(finished) => {
                        let (node, route, tier) = (routed.node, routed.route, routed.tier);
                        return Ok(Whole { node, route, tier, text, finished, took: began.elapsed() });
                    }
                }
            }
            Err(InferenceError::Stopped(routed.node.to_string()).into())
        })
    }
}

/// The `i`-th node's part: a name of its own, and a seed of its own, or they would all say the same.
fn share_of(request: &GenerateRequest, i: u32) -> GenerateRequest {
    let mut part = request.clone();
    part.id = RequestId::from(format!("{}.{i}", request.id));
    part.sampling.seed = part.sampling.seed.map(|seed| seed.wrapping_add(u64::from(i)));
    part
}

fn one(mut answers: Vec<Whole>, fused: Fused) -> Routed {
    let mut usage = Usage::default();
    for answer in &answers {
        usage += answer.finished.usage;
    }
    let picked = match fused {
        Fused::Pick(i) => answers.swap_remove((i as usize).min(answers.len() - 1)),
        Fused::Text(text) => Whole { text, ..answers.swap_remove(0) },
    };
    let Whole { node, route, tier, text, finished, .. } = picked;
    let piece = (!text.is_empty()).then_some(AnswerEvent::Piece { text, n_tokens: usage.output_tokens });
    let finished = AnswerEvent::Finished(Finished { usage, ..finished });
    Routed { node, events: stream::iter(piece.into_iter().chain([finished]).map(Ok)).boxed(), route, tier }
}
