//! The engine: one thread per loaded model owns its `llama_context` and decodes the sequences of all isolates in one batch.
//!
//! A request is checked and tokenized by whoever submits it ([`LlamaEngine`]), waits in a bounded inbox, is given the lowest
//! free sequence id, and from then on moves through the phases of [`step`] once per step until it ends. Nothing that a
//! client does (reading slowly, going away) makes the thread wait.

mod chat;
mod choose;
mod constraint;
mod cores;
mod draft;
mod embed;
mod ending;
mod engine;
mod error;
mod ffi;
mod gbnf;
mod hooked;
mod kv;
mod load;
mod measure;
mod sampler;
mod schema;
mod sequence;
mod step;
mod stream;
mod text;
mod traced;
mod turns;
mod worker;

pub use draft::DraftSettings;
pub use engine::LlamaEngine;
pub use error::LlamaError;
pub use ffi::{Device, cpu_variant, devices, max_sequences, modules_folder, system_info};
pub use load::{EngineSettings, KvType};
pub use step::speculate::MOST_SEQUENCES as MOST_DRAFTED_SEQUENCES;

/// Tells the metrics recorder what this crate's metrics mean. To be called once a recorder is there.
pub fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!("llambo_llama_prefill_step_seconds", Unit::Seconds, "Time of one prefill call, by model");
    describe_histogram!("llambo_llama_decode_step_seconds", Unit::Seconds, "Time of one decode call, by model");
    describe_histogram!("llambo_llama_batch_sequences", "Sequences decoded together in one call, by model");
    describe_gauge!("llambo_llama_running_sequences", "Sequences in the batch, by model");
    describe_gauge!("llambo_llama_waiting_sequences", "Sequences that wait for a place in the batch, by model");
    describe_gauge!("llambo_llama_kv_used_tokens", "Tokens of KV cache in use, by model");
    describe_gauge!("llambo_llama_kv_total_tokens", "Tokens of KV cache there are, by model");
    describe_counter!("llambo_llama_prompt_tokens_total", "Prompt tokens computed, by model");
    describe_gauge!("llambo_llama_kept_memory_bytes", Unit::Bytes, "Keys and values kept in memory for what may go on, by model");
    describe_gauge!("llambo_llama_kept_disk_bytes", Unit::Bytes, "Keys and values kept on disk for what may go on, by model");
    describe_counter!("llambo_llama_cached_tokens_total", "Tokens that were there and did not have to be computed, by model");
    describe_counter!("llambo_llama_displaced_sequences_total", "Sequences that made room for one that waited, by model");
    describe_counter!("llambo_llama_guessed_tokens_total", "Tokens that a draft model guessed, by model");
    describe_counter!("llambo_llama_guessed_right_tokens_total", "Tokens that it guessed as the model chose them, by model");
    describe_counter!("llambo_llama_generated_tokens_total", "Tokens generated, by model");
}

/// Brings an engine's gauges up to date with its load.
pub fn publish_gauges(engine: &dyn llambo_inference::InferenceEngine) {
    let (name, load) = (engine.info().name.to_string(), engine.load());
    for (gauge, value) in [
        ("llambo_llama_running_sequences", u64::from(load.n_running)),
        ("llambo_llama_waiting_sequences", u64::from(load.n_waiting)),
        ("llambo_llama_kv_used_tokens", load.n_kv_used),
        ("llambo_llama_kv_total_tokens", load.n_kv_total),
        ("llambo_llama_kept_memory_bytes", load.kv_memory_bytes),
        ("llambo_llama_kept_disk_bytes", load.kv_disk_bytes),
    ] {
        metrics::gauge!(gauge, "model" => name.clone()).set(value as f64);
    }
    metrics::counter!("llambo_llama_prompt_tokens_total", "model" => name.clone()).absolute(load.n_prompt_tokens);
    metrics::counter!("llambo_llama_cached_tokens_total", "model" => name.clone()).absolute(load.n_cached_tokens);
    metrics::counter!("llambo_llama_generated_tokens_total", "model" => name).absolute(load.n_generated_tokens);
}
