use std::sync::Arc;

use llambo_inference::{GenerateRequest, TenantName};
use tokio::time::Instant;

use crate::{
    course::Course, error::DispatchError, guide::Guide, lease::Lease, quota::Hold, record::Record, route::Routed, served::Served,
    shared::Shared,
};

/// The one door: brings a request to a node and its tokens back. Clones are the same door.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Finds a node, waiting for one if all are busy, and starts the generation on it. Returns with the first event, which
    /// the answer's stream repeats.
    ///
    /// A node that fails is replaced by another, up to [`crate::Settings::attempts`] in a row. In the middle of an answer the other one goes on from
    /// what was told: it writes the same again, of which nothing is told twice, and then the rest; where it comes to write something else the answer
    /// ends with the reason `NOT_RESUMABLE`. The stream has exactly one end: [`llambo_inference::AnswerEvent::Finished`] or one error, and `None` follows. The
    /// request's deadline ends it wherever it is. The node counts the request until the stream has told its end or is
    /// dropped.
    ///
    /// Dropping the future or the stream cancels the request and everything behind it. Runs within a tokio runtime.
    ///
    /// # Errors
    /// Before a node was found: [`DispatchError::QueueFull`], [`DispatchError::WaitExpired`], [`DispatchError::NoNode`],
    /// [`DispatchError::Draining`], [`DispatchError::UnknownType`], [`DispatchError::WrongModel`]. Otherwise what the last
    /// node said, or that the deadline passed, as [`DispatchError::Inference`].
    pub fn dispatch(&self, request: GenerateRequest) -> impl Future<Output = Result<Routed, DispatchError>> + Send + '_ {
        // what goes from one future into the next is copied each time
        let request = Box::new(request);
        async move {
            if request.routing.answers > 1 {
                return self.fuse(*request).await;
            }
            self.dispatch_to_one(request).await
        }
    }

    pub(crate) async fn dispatch_to_one(&self, request: Box<GenerateRequest>) -> Result<Routed, DispatchError> {
        let mut record = Record::open(&self.shared, &request);
        match Course::begin(&self.shared, request, &mut record).await {
            Ok((course, mut leg)) => {
                let (node, route, tier) = (leg.lease.node_id().clone(), leg.route.take(), leg.tier.take());
                Ok(Routed { node, events: Box::pin(Served::new(course, leg, record)), route, tier })
            }
            Err(error) => {
                record.refused(&error);
                Err(error)
            }
        }
    }

    /// Takes a free node without waiting and without sending it anything; `None` when there is none. It counts as one
    /// request in flight until the lease is dropped, and as no request served.
    pub fn try_lease(&self, request: &GenerateRequest) -> Option<Lease> {
        let mut guide = Guide::new(&self.shared, request);
        let wanted = guide.wanted(request);
        let pick = self.shared.lock().try_take(&wanted)?;
        Some(guide.settle(Lease::new(&self.shared, pick), &wanted, &[]).0)
    }

    /// Counts a request that no node serves, such as one for embeddings, against its tenant's quotas until the hold is dropped; `None` where there are none.
    ///
    /// # Errors
    /// [`DispatchError::Draining`], [`DispatchError::QuotaExceeded`].
    pub fn hold(&self, tenant: &TenantName) -> Result<Option<Hold>, DispatchError> {
        if self.shared.lock().is_draining() {
            return Err(DispatchError::Draining);
        }
        self.shared.quotas.open(tenant, Instant::now())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}
