//! Texts as points, whatever the client speaks: permitted, counted against quotas, a few at a time.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use llambo_inference::{Embedding, InferenceEngine, InferenceError, ModelName};
use llambo_orchestrator::DispatchError;

use crate::{
    answer::Deadline,
    caller::Caller,
    door::{Door, known_to, within},
};

/// Texts of one call that are embedded at a time, so that one caller cannot fill an engine's queue.
const EMBEDS_AT_ONCE: usize = 8;

impl Door {
    /// The engine that embeds for somebody. `None` is the default model.
    pub(crate) fn embedder(&self, caller: &Caller, model: Option<&ModelName>) -> Result<Arc<dyn InferenceEngine>, DispatchError> {
        let name = model.unwrap_or(&self.host.default_model);
        caller.check_model(name)?;
        Ok(self.host.models.get(name).map_err(|error| known_to(caller, error))?)
    }

    /// Embeds texts. They count as one request, and their tokens as those of a prompt.
    pub(crate) async fn embed(
        &self,
        caller: &Caller,
        engine: &Arc<dyn InferenceEngine>,
        texts: Vec<String>,
        deadline: Option<Deadline>,
    ) -> Result<(Vec<Embedding>, u32), DispatchError> {
        let mut hold = self.host.cluster.dispatcher().hold(&caller.tenant)?;
        let mut n_tokens = 0u32;
        let embeds = async {
            let mut embeds = stream::iter(texts).map(|text| engine.embed(text)).buffered(EMBEDS_AT_ONCE);
            let mut all = Vec::new();
            while let Some(embedding) = embeds.try_next().await? {
                n_tokens = n_tokens.saturating_add(embedding.input_tokens);
                if let Some(hold) = &mut hold {
                    // what was computed counts, also when the rest is not waited for
                    hold.cost(n_tokens.into());
                }
                all.push(embedding);
            }
            Ok::<_, InferenceError>(all)
        };
        let all = tokio::select! {
            all = within(deadline, embeds) => all.flatten()?,
            () = self.closed() => return Err(DispatchError::Draining),
        };
        Ok((all, n_tokens))
    }
}
