//! Who asks, once that is known.

use std::sync::{Arc, LazyLock};

use llambo_inference::{InferenceError, ModelName, Share, TenantName, TypeName};
use tonic::codegen::http;

use crate::{access::Rights, trace::Incoming};

/// Whoever sent a request. The layer that finds out puts one among a request's extensions; without it there is no authentication, and all are alike.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: TenantName,
    /// The tenant's weight among tenants.
    pub(crate) weight: f64,
    /// What they may do and have.
    pub(crate) rights: Arc<Rights>,
    /// The trace that this request of theirs is part of.
    pub(crate) trace: Option<Incoming>,
}

/// Those of whom nothing is known where nothing has to be: made once, because every request there has it.
static ANYBODY: LazyLock<Caller> = LazyLock::new(|| {
    let Share { tenant, tenant_weight, .. } = Share::default();
    Caller { tenant, weight: tenant_weight, rights: Arc::new(Rights::all()), trace: None }
});

impl Caller {
    /// Who sent the request that these came with.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        Self { trace: extensions.get::<Incoming>().cloned(), ..extensions.get::<Self>().cloned().unwrap_or_default() }
    }

    /// Whose work a request of theirs is.
    pub(crate) fn share(&self) -> Share {
        Share { tenant: self.tenant.clone(), tenant_weight: self.weight, ..Share::default() }
    }

    /// Whether they may ask that model, and know that it is there.
    pub(crate) fn has_model(&self, model: &ModelName) -> bool {
        self.rights.has_model(model)
    }

    /// The same, with words for those who may not.
    pub(crate) fn check_model(&self, model: &ModelName) -> Result<(), InferenceError> {
        self.rights.check_model(&self.tenant, model)
    }

    /// Whether nodes of that type may serve them.
    pub(crate) fn check_type(&self, node_type: &TypeName) -> Result<(), InferenceError> {
        self.rights.check_type(&self.tenant, node_type)
    }
}

impl Default for Caller {
    fn default() -> Self {
        ANYBODY.clone()
    }
}
