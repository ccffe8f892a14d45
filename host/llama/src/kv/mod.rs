//! KV cache that is kept when its sequence is done with it, so that whoever begins alike starts from there.
//!
//! A kept beginning is in the *stream* where it was computed until that stream is needed, then in *memory* as a copy, then
//! on *disk*, and then forgotten: whoever has the tokens can compute it again. Memory and disk have budgets; the beginning
//! that was used longest ago goes first. Tenants never share one, and who may hold only so much gives up its own.

pub(crate) mod allowance;
pub(crate) mod disk;
pub(crate) mod kept;
pub(crate) mod radix;
pub(crate) mod streams;
pub(crate) mod travel;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]
mod tests;
