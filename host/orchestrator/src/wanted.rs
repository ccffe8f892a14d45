//! What a choice may know of a request.

use std::sync::Arc;

use llambo_inference::{GenerateRequest, ModelName, TenantName, TypeName};
use llambo_strategy::{Cached, RequestView};

use crate::{error::DispatchError, turns::Claim};

/// What a choice may know of a request, for as long as it waits.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) model: ModelName,
    pub(crate) node_type: Option<TypeName>,
    n_prompt_bytes: usize,
    /// The tier that should serve it.
    pub(crate) tier: Option<u8>,
    /// Whether everybody else comes first.
    pub(crate) deferred: bool,
    /// What its turn depends on.
    pub(crate) claim: Claim,
    /// Requests of its tenant that may wait.
    pub(crate) max_waiting: Option<u32>,
    /// Numbers of nodes that have probably computed the beginning of its prompt, and how many bytes of it; the longest first.
    pub(crate) cached: Arc<[(u64, u32)]>,
}

// === impl Wanted ===

impl Wanted {
    pub(crate) fn by(request: &GenerateRequest) -> Self {
        Self {
            model: request.model.clone(),
            node_type: request.node_type.clone(),
            n_prompt_bytes: request.prompt.n_bytes(),
            tier: request.routing.tier,
            deferred: false,
            claim: Claim::of(request),
            max_waiting: None,
            cached: Arc::default(),
        }
    }

    /// Whose request it is.
    pub(crate) fn tenant(&self) -> &TenantName {
        &self.claim.flow.0
    }

    pub(crate) fn view<'a>(&'a self, cached: &'a [Cached]) -> RequestView<'a> {
        RequestView { model: &self.model, node_type: self.node_type.as_ref(), n_prompt_bytes: self.n_prompt_bytes, cached }
    }

    pub(crate) fn no_node(&self) -> DispatchError {
        DispatchError::NoNode { model: self.model.clone(), node_type: self.node_type.clone() }
    }
}
