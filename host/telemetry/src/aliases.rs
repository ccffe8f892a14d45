//! The same numbers under the names that dashboards of llama-server and of vLLM ask for, made from our own page of metrics.
//!
//! A name with a colon is none that instruments should use, so these are not recorded but written beside what was. Counters and histograms stay what
//! they are; the shares and averages that those programs publish as gauges are computed from the same samples.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::page::{Sample, samples};

/// The label of every sample of ours that belongs to one model.
const MODEL: &str = "model";

struct Alias {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    from: Source,
}

#[derive(Clone, Copy)]
enum Source {
    /// The sum of these samples of a model.
    Sum(&'static [&'static str]),
    /// One sum divided by another; 0 where nothing was counted yet.
    Ratio(&'static [&'static str], &'static [&'static str]),
    /// A histogram of ours as it is.
    Histogram(&'static str),
    /// A counter of ours with another name for its label and for some of its values.
    ByReason(&'static str),
}

use Source::{ByReason, Histogram, Ratio, Sum};

const PREFILL_SECONDS: &str = "llambo_llama_prefill_step_seconds_sum";
const DECODE_SECONDS: &str = "llambo_llama_decode_step_seconds_sum";
const PREFILLS: &str = "llambo_llama_prefill_step_seconds_count";
const DECODES: &str = "llambo_llama_decode_step_seconds_count";
const PROMPT: &str = "llambo_llama_prompt_tokens_total";
const CACHED: &str = "llambo_llama_cached_tokens_total";
const GENERATED: &str = "llambo_llama_generated_tokens_total";
const RUNNING: &str = "llambo_llama_running_sequences";
const WAITING: &[&str] = &["llambo_llama_waiting_sequences", "llambo_orchestrator_pending_requests"];
const KV_USED: &str = "llambo_llama_kv_used_tokens";
const KV_TOTAL: &str = "llambo_llama_kv_total_tokens";
const BATCH_SUM: &str = "llambo_llama_batch_sequences_sum";
const BATCH_COUNT: &str = "llambo_llama_batch_sequences_count";

const fn alias(name: &'static str, kind: &'static str, help: &'static str, from: Source) -> Alias {
    Alias { name, kind, help, from }
}

/// As llama-server's `/metrics` has them.
const OF_LLAMA_SERVER: &[Alias] = &[
    alias("llamacpp:prompt_tokens_total", "counter", "Prompt tokens computed", Sum(&[PROMPT])),
    alias("llamacpp:prompt_seconds_total", "counter", "Time of prefill calls", Sum(&[PREFILL_SECONDS])),
    alias("llamacpp:tokens_predicted_total", "counter", "Tokens generated", Sum(&[GENERATED])),
    alias("llamacpp:tokens_predicted_seconds_total", "counter", "Time of decode calls", Sum(&[DECODE_SECONDS])),
    alias(
        "llamacpp:prompt_tokens_seconds",
        "gauge",
        "Prompt tokens a second, since the start",
        Ratio(&[PROMPT], &[PREFILL_SECONDS]),
    ),
    alias(
        "llamacpp:predicted_tokens_seconds",
        "gauge",
        "Tokens generated a second, since the start",
        Ratio(&[GENERATED], &[DECODE_SECONDS]),
    ),
    alias("llamacpp:requests_processing", "gauge", "Sequences in the batch", Sum(&[RUNNING])),
    alias("llamacpp:requests_deferred", "gauge", "Requests that wait", Sum(WAITING)),
    alias("llamacpp:n_decode_total", "counter", "Calls of llama_decode", Sum(&[PREFILLS, DECODES])),
    alias(
        "llamacpp:n_busy_slots_per_decode",
        "gauge",
        "Sequences in a decode call, on average since the start",
        Ratio(&[BATCH_SUM], &[BATCH_COUNT]),
    ),
    alias("llamacpp:kv_cache_usage_ratio", "gauge", "Share of the KV cache in use, 0 to 1", Ratio(&[KV_USED], &[KV_TOTAL])),
    alias("llamacpp:kv_cache_tokens", "gauge", "Tokens of KV cache in use", Sum(&[KV_USED])),
];

/// As vLLM's `/metrics` has them.
const OF_VLLM: &[Alias] = &[
    alias("vllm:num_requests_running", "gauge", "Sequences in the batch", Sum(&[RUNNING])),
    alias("vllm:num_requests_waiting", "gauge", "Requests that wait", Sum(WAITING)),
    alias("vllm:kv_cache_usage_perc", "gauge", "Share of the KV cache in use, 0 to 1", Ratio(&[KV_USED], &[KV_TOTAL])),
    alias("vllm:gpu_cache_usage_perc", "gauge", "An older name for vllm:kv_cache_usage_perc", Ratio(&[KV_USED], &[KV_TOTAL])),
    alias("vllm:prompt_tokens_total", "counter", "Prompt tokens, those that were cached included", Sum(&[PROMPT, CACHED])),
    alias("vllm:generation_tokens_total", "counter", "Tokens generated", Sum(&[GENERATED])),
    alias("vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked for in the cache", Sum(&[PROMPT, CACHED])),
    alias("vllm:prefix_cache_hits_total", "counter", "Prompt tokens found in the cache", Sum(&[CACHED])),
    alias(
        "vllm:num_preemptions_total",
        "counter",
        "Sequences that made room for others",
        Sum(&["llambo_llama_displaced_sequences_total"]),
    ),
    alias(
        "vllm:spec_decode_num_draft_tokens_total",
        "counter",
        "Tokens a draft model guessed",
        Sum(&["llambo_llama_guessed_tokens_total"]),
    ),
    alias(
        "vllm:spec_decode_num_accepted_tokens_total",
        "counter",
        "Of these, the right ones",
        Sum(&["llambo_llama_guessed_right_tokens_total"]),
    ),
    alias("vllm:request_success_total", "counter", "Requests that ended, by reason", ByReason("llambo_orchestrator_ended_total")),
    alias(
        "vllm:time_to_first_token_seconds",
        "histogram",
        "Arrival to first token",
        Histogram("llambo_orchestrator_ttft_seconds"),
    ),
    alias("vllm:e2e_request_latency_seconds", "histogram", "Arrival to end", Histogram("llambo_orchestrator_request_seconds")),
    alias(
        "vllm:request_queue_time_seconds",
        "histogram",
        "Arrival to a node",
        Histogram("llambo_orchestrator_queue_wait_seconds"),
    ),
    alias(
        "vllm:inter_token_latency_seconds",
        "histogram",
        "Between two tokens",
        Histogram("llambo_orchestrator_token_interval_seconds"),
    ),
    alias(
        "vllm:time_per_output_token_seconds",
        "histogram",
        "An older name for vllm:inter_token_latency_seconds",
        Histogram("llambo_orchestrator_token_interval_seconds"),
    ),
];

/// What is to be written below `page`, which is our own page of metrics. Ends with a line feed, unless there is nothing to say.
pub fn aliases(page: &str) -> String {
    let wanted: BTreeSet<&str> = OF_LLAMA_SERVER.iter().chain(OF_VLLM).flat_map(|alias| alias.from.sources()).collect();
    let mut by_name: BTreeMap<&str, Vec<Sample<'_>>> = BTreeMap::new();
    for sample in samples(page).filter(|sample| sample.label(MODEL).is_some()) {
        if wanted.contains(sample.name) || wanted.contains(base(sample.name)) {
            by_name.entry(sample.name).or_default().push(sample);
        }
    }
    let mut text = String::new();
    for (aliases, label) in [(OF_LLAMA_SERVER, MODEL), (OF_VLLM, "model_name")] {
        for alias in aliases {
            alias.write(&by_name, label, &mut text);
        }
    }
    text
}

/// The histogram that a sample belongs to, or its own name.
fn base(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

impl Source {
    fn sources(self) -> Vec<&'static str> {
        match self {
            Sum(names) => names.to_vec(),
            Ratio(over, under) => [over, under].concat(),
            Histogram(name) | ByReason(name) => vec![name],
        }
    }
}

impl Alias {
    fn write(&self, samples: &BTreeMap<&str, Vec<Sample<'_>>>, model_label: &str, text: &mut String) {
        let mut lines = String::new();
        match self.from {
            Sum(names) => {
                for (model, value) in sums(samples, names) {
                    line(&mut lines, self.name, &[(model_label, model)], &value.to_string());
                }
            }
            Ratio(over, under) => {
                let over = sums(samples, over);
                for (model, under) in sums(samples, under) {
                    let over = over.get(model).copied().unwrap_or_default();
                    let value = if under > 0.0 { over / under } else { 0.0 };
                    line(&mut lines, self.name, &[(model_label, model)], &value.to_string());
                }
            }
            Histogram(name) => {
                for suffix in ["_bucket", "_sum", "_count"] {
                    for sample in samples.get(format!("{name}{suffix}").as_str()).into_iter().flatten() {
                        let relabelled: Vec<_> = sample
                            .labels
                            .iter()
                            .map(|(label, value)| (if *label == MODEL { model_label } else { label }, *value))
                            .collect();
                        line(&mut lines, &format!("{}{suffix}", self.name), &relabelled, sample.value);
                    }
                }
            }
            ByReason(name) => {
                for sample in samples.get(name).into_iter().flatten() {
                    let (Some(model), Some(reason)) = (sample.label(MODEL), sample.label("reason")) else { continue };
                    let reason = match reason {
                        "cancelled" => "abort",
                        "failed" => "error",
                        reason => reason,
                    };
                    line(&mut lines, self.name, &[(model_label, model), ("finished_reason", reason)], sample.value);
                }
            }
        }
        if !lines.is_empty() {
            // writing into a String cannot fail
            let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {}\n{lines}", self.name, self.help, self.name, self.kind);
        }
    }
}

fn sums<'a>(samples: &BTreeMap<&str, Vec<Sample<'a>>>, names: &[&str]) -> BTreeMap<&'a str, f64> {
    let mut sums = BTreeMap::new();
    for sample in names.iter().filter_map(|name| samples.get(name)).flatten() {
        if let (Some(model), Ok(value)) = (sample.label(MODEL), sample.value.parse::<f64>()) {
            *sums.entry(model).or_insert(0.0) += value;
        }
    }
    sums
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: &str) {
    let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    let _ = writeln!(text, "{name}{{{}}} {value}", labels.join(","));
}

#[cfg(test)]
mod tests;
