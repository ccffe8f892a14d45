use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use openmetrics_parser::prometheus::parse_prometheus;

use super::*;

/// What a host's exporter writes after a few requests to two models, one with a name that has to be escaped.
fn page() -> String {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &[0.1, 1.0])
        .unwrap()
        .set_buckets_for_metric(Matcher::Suffix("_sequences".into()), &[1.0, 8.0])
        .unwrap()
        .build_recorder();
    metrics::with_local_recorder(&recorder, || {
        metrics::describe_counter!(PROMPT, "Prompt tokens computed, by model");
        for model in ["demo", "with \"quotes\""] {
            metrics::counter!(PROMPT, "model" => model).absolute(30);
            metrics::counter!(CACHED, "model" => model).absolute(10);
            metrics::counter!(GENERATED, "model" => model).absolute(8);
            metrics::gauge!(RUNNING, "model" => model).set(2.0);
            metrics::gauge!("llambo_llama_waiting_sequences", "model" => model).set(1.0);
            metrics::gauge!("llambo_orchestrator_pending_requests", "model" => model).set(4.0);
            metrics::gauge!(KV_USED, "model" => model).set(64.0);
            metrics::gauge!(KV_TOTAL, "model" => model).set(256.0);
            for seconds in [0.5, 1.5] {
                metrics::histogram!("llambo_llama_prefill_step_seconds", "model" => model).record(seconds);
                metrics::histogram!("llambo_orchestrator_ttft_seconds", "model" => model).record(seconds);
            }
            metrics::histogram!("llambo_llama_batch_sequences", "model" => model).record(3.0);
        }
        for (reason, n) in [("stop", 5), ("length", 2), ("cancelled", 1), ("failed", 3)] {
            metrics::counter!("llambo_orchestrator_ended_total", "model" => "demo", "reason" => reason).absolute(n);
        }
        metrics::counter!("llambo_edge_requests_total", "method" => "m", "code" => "OK").increment(1);
    });
    recorder.handle().render()
}

fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut found = samples(text).filter(|sample| sample.name == name && labels.iter().all(|(l, v)| sample.label(l) == Some(*v)));
    found.next().map(|sample| sample.value.parse().unwrap())
}

#[test]
fn dashboards_find_what_they_ask_for() {
    let text = aliases(&page());
    let llama = |name: &str| value(&text, &format!("llamacpp:{name}"), &[("model", "demo")]);
    assert_eq!(llama("prompt_tokens_total"), Some(30.0));
    assert_eq!(llama("prompt_seconds_total"), Some(2.0));
    assert_eq!(llama("prompt_tokens_seconds"), Some(15.0));
    assert_eq!(llama("n_decode_total"), Some(2.0));
    assert_eq!(llama("requests_deferred"), Some(5.0), "who waits for a node and who waits for the batch");
    assert_eq!(llama("kv_cache_usage_ratio"), Some(0.25));
    assert_eq!(llama("n_busy_slots_per_decode"), Some(3.0));
    let vllm = |name: &str| value(&text, &format!("vllm:{name}"), &[("model_name", "demo")]);
    assert_eq!(vllm("prompt_tokens_total"), Some(40.0));
    assert_eq!((vllm("prefix_cache_queries_total"), vllm("prefix_cache_hits_total")), (Some(40.0), Some(10.0)));
    assert_eq!(vllm("kv_cache_usage_perc"), vllm("gpu_cache_usage_perc"));
    assert_eq!(vllm("num_requests_waiting"), Some(5.0));
    let ended = |reason| value(&text, "vllm:request_success_total", &[("model_name", "demo"), ("finished_reason", reason)]);
    assert_eq!((ended("stop"), ended("length"), ended("abort"), ended("error")), (Some(5.0), Some(2.0), Some(1.0), Some(3.0)));
    let first = |le| value(&text, "vllm:time_to_first_token_seconds_bucket", &[("model_name", "demo"), ("le", le)]);
    assert_eq!((first("0.1"), first("1"), first("+Inf")), (Some(0.0), Some(1.0), Some(2.0)));
    assert_eq!(vllm("time_to_first_token_seconds_sum"), Some(2.0));
}

#[test]
fn the_whole_page_is_one_that_a_strict_parser_takes() {
    let page = page();
    let whole = format!("{page}{}", aliases(&page));
    // Prometheus lets names have colons, this parser does not
    let parsed = parse_prometheus(&whole.replace("llamacpp:", "llamacpp_").replace("vllm:", "vllm_")).unwrap();
    let histogram = &parsed.families["vllm_time_to_first_token_seconds"];
    assert_eq!(histogram.iter_samples().count(), 2, "one for each model");
    for head in ["# TYPE", "# HELP"] {
        let mut names: Vec<_> = whole.lines().filter(|l| l.starts_with(head)).filter_map(|l| l.split(' ').nth(2)).collect();
        let n_lines = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n_lines, "{head} once each");
    }
}

#[test]
fn a_host_that_has_measured_nothing_yet_says_nothing() {
    assert_eq!(aliases(""), "");
    assert_eq!(aliases("# HELP x y\n# TYPE x counter\nx 1\n"), "");
}
