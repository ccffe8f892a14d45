//! The example agents, on the built-in model: what they promise, and that they compute a prompt once.

use llambo_client::Ask;
use llambo_tests::{Host, guest};
use serde_json::Value;

/// About 60 tokens.
const PROMPT: &str = "The ownership system decides when memory is freed. A value has one owner, and when the owner goes out of \
    scope the value is dropped. A reference borrows a value without owning it.";

fn config() -> String {
    let types = ["best-of", "tree-search", "chooser"].map(|name| {
        let module = guest(name);
        format!("{name}: {{count: 1, module: '{}'}}", module.display())
    });
    format!("models: [{{path: builtin:demo-small}}]\ntypes: {{{}}}", types.join(", "))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_of_eight_is_written_once_the_prompt_is_computed() {
    let host = Host::start(&config());
    let client = host.client().await;
    let ask = || Ask::text(PROMPT).max_tokens(12).temperature(0.8).seed(5).node_type("best-of");
    let answer = client.infer(ask()).await.unwrap();
    let (text, usage) = (answer.text, answer.usage.unwrap());
    assert!(!text.is_empty() && usage.output_tokens > 12, "{usage:?}");
    // eight answers read the prompt; one computed it
    let computed = usage.input_tokens - usage.cached_tokens;
    assert!(computed * 4 < usage.input_tokens, "{computed} of {} tokens computed", usage.input_tokens);
    assert_eq!(client.infer(ask()).await.unwrap().text, text, "a seed repeats it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_over_sentences_goes_on_from_what_it_has() {
    let host = Host::start(&config());
    let ask = Ask::text(PROMPT).temperature(0.8).seed(2).node_type("tree-search");
    let answer = host.client().await.infer(ask).await.unwrap();
    let (text, usage) = (answer.text, answer.usage.unwrap());
    assert!(text.ends_with('.') && text.matches('.').count() >= 2, "{text}");
    let computed = usage.input_tokens - usage.cached_tokens;
    assert!(computed * 3 < usage.input_tokens, "{computed} of {} tokens computed", usage.input_tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_is_one_of_those_given_with_its_probability() {
    let host = Host::start(&config());
    let client = host.client().await;
    let ask = |line: &str| Ask::text(format!("{PROMPT} When a value goes out of scope, it is\n{line}")).node_type("chooser");
    let text = client.infer(ask("| dropped | \"quoted\" zebra |")).await.unwrap().text;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["choice"], "dropped", "{text}");
    let total: f64 = told["probabilities"].as_object().unwrap().values().filter_map(Value::as_f64).sum();
    assert!((total - 1.0).abs() < 1e-3, "{text}");
    let error = client.infer(ask("no choices")).await.unwrap_err();
    assert!(error.to_string().contains("between bars"), "{error}");
}
