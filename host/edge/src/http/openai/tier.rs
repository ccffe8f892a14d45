//! Which tier a request wants and which one serves it, as headers: bodies are OpenAI's.

use std::sync::{Arc, OnceLock};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue},
    response::Response,
};
use llambo_inference::NodeId;
use llambo_orchestrator::{TierBy, TierNote};

use crate::{answer::Answering, http::failure::ApiError};

/// The tier that should serve a request; in an answer, the one that did.
const TIER: HeaderName = HeaderName::from_static("llambo-tier");
/// The node that serves.
const NODE: HeaderName = HeaderName::from_static("llambo-node");
/// The tier that it should have been, who said so, and why.
const WANTED: HeaderName = HeaderName::from_static("llambo-tier-wanted");
const BY: HeaderName = HeaderName::from_static("llambo-tier-by");
const REASON: HeaderName = HeaderName::from_static("llambo-tier-reason");

/// Who serves the first of the answers to a request, once one does.
#[derive(Clone, Debug, Default)]
pub(super) struct ServedBy(Arc<OnceLock<(NodeId, Option<Arc<TierNote>>)>>);

/// The tier that a request asks for.
///
/// # Errors
/// It is none.
pub(super) fn asked(headers: &HeaderMap) -> Result<Option<u8>, ApiError> {
    let Some(value) = headers.get(TIER) else { return Ok(None) };
    let tier = value.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|tier| *tier <= llambo_strategy::MAX_TIER);
    tier.map(Some).ok_or_else(|| ApiError::invalid("the header `llambo-tier` must be 0, 1 or 2"))
}

impl ServedBy {
    pub(super) fn note(&self, answering: &Answering) {
        let _ = self.0.set((answering.node.clone(), answering.tier.clone()));
    }

    /// Says so in the head of an answer. What is streamed may still go on with another node.
    pub(super) fn tell(&self, mut response: Response) -> Response {
        let Some((node, tier)) = self.0.get() else { return response };
        let node = tier.as_ref().map_or_else(|| node.clone(), |tier| tier.serves().0);
        let mut said = vec![(NODE, node.to_string())];
        if let Some(tier) = tier {
            said.push((TIER, tier.serves().1.to_string()));
            if let (Some(wanted), Some(by)) = (tier.wanted, tier.by()) {
                said.extend([(WANTED, wanted.to_string()), (BY, TierBy::as_str(by).to_owned()), (REASON, tier.reason())]);
            }
        }
        let said = said.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::from_str(&value).ok()?)));
        response.headers_mut().extend(said);
        response
    }
}
