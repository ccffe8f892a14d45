//! One step of the engine, phase by phase:
//!
//! `admit` (inbox to free sequence ids) -> `retire` (who is cancelled, late or stalled) -> `assemble` (one prefill batch, then one decode
//! batch) -> decode and sample -> `retire` (who has ended).
//!
//! Prompts and answers are computed in separate calls: mixed batches split into many small ones inside llama.cpp. Answers
//! take one token of each sequence, in ascending order of sequence id without holes, which llama.cpp computes as one.

pub(crate) mod admit;
pub(crate) mod assemble;
pub(crate) mod retire;
