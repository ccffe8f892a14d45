//! One step of the engine, phase by phase:
//!
//! `retire` (who is cancelled, late, stalled, or has ended) -> `admit` (by `fair` turns, to the lowest free sequence id) -> `assemble` (one
//! prefill batch, then one decode batch) -> decode and sample.
//!
//! Prompts and answers are computed in separate calls: mixed batches split into many small ones inside llama.cpp. Answers
//! take one token of each sequence, in ascending order of sequence id without holes, which llama.cpp computes as one.

pub(crate) mod admit;
pub(crate) mod assemble;
pub(crate) mod fair;
pub(crate) mod pace;
pub(crate) mod retire;
pub(crate) mod slots;
pub(crate) mod speculate;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]
mod tests;
