//! A module on trial: one isolate, one request, before anybody is sent there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use llambo_inference::{AnswerEvent, GenerateRequest, InferenceError, Node, Priority, Prompt, Sampling, Share, shortened};

use crate::{NodeType, SandboxError};

/// Tokens a module on trial may ask for in one generation; its model has others to serve.
const TRIAL_TOKENS: u32 = 8;
/// Of its answer, what is told.
const TOLD_BYTES: usize = 512;

/// How a module did.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// What it answered, shortened.
    pub text: String,
    /// What it says went wrong, if it gave up in good order. Whether that is its fault only its author knows.
    pub gave_up: Option<String>,
    /// Tokens generated for it.
    pub output_tokens: u32,
    /// From the request to its end.
    pub took: Duration,
    /// Linear memory afterwards; 0 for a command, whose memory is gone then.
    pub memory_bytes: u64,
}

impl NodeType {
    /// Makes one isolate and asks it once.
    ///
    /// # Errors
    /// It cannot be made; it trapped, passed a limit, or took longer than `timeout`.
    pub async fn try_out(self: &Arc<Self>, prompt: &str, timeout: Duration) -> Result<Trial, SandboxError> {
        let failed = |detail| SandboxError::Trial { name: self.module_name().to_owned(), detail };
        let isolate = self.spawn(1).await?.isolates.remove(0);
        let began = Instant::now();
        let request = GenerateRequest {
            id: format!("trial-{}", self.settings().id_stem).into(),
            model: self.settings().model.clone(),
            node_type: None,
            prompt: Prompt::Text(prompt.to_owned()),
            sampling: Sampling { max_tokens: Some(TRIAL_TOKENS), seed: Some(0), ..Sampling::default() },
            share: Share::default(),
            deadline: Some(began + timeout),
            routing: llambo_inference::Routing::default(),
            priority: Priority::default(),
            journal: None,
            log: None,
        };
        let (mut text, mut output_tokens, mut gave_up) = (String::new(), 0, None);
        let answer = async {
            let mut events = isolate.generate(request).await?;
            while let Some(event) = events.next().await {
                match event? {
                    AnswerEvent::Piece { text: piece, .. } if text.len() <= TOLD_BYTES => text.push_str(&piece),
                    AnswerEvent::Piece { .. } => {}
                    AnswerEvent::Finished(finished) => output_tokens = finished.usage.output_tokens,
                }
            }
            Ok::<_, InferenceError>(())
        };
        match answer.await {
            Ok(()) => {}
            Err(InferenceError::Guest { reason, detail }) if reason != "GUEST_ERROR" => {
                return Err(failed(format!("{reason}: {detail}")));
            }
            Err(InferenceError::DeadlineExceeded { .. }) => {
                return Err(failed(format!("it did not answer {prompt:?} within {} s", timeout.as_secs_f32())));
            }
            Err(error) => gave_up = Some(error.to_string()),
        }
        let memory_bytes = isolate.view().memory_bytes;
        isolate.stop();
        let text = shortened(text, TOLD_BYTES);
        Ok(Trial { text, gave_up, output_tokens, took: began.elapsed(), memory_bytes })
    }
}
