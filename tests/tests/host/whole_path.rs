use std::collections::HashSet;

use futures::{StreamExt, future::join_all};
use llambo_catalog::Builtin;
use llambo_client::{Ask, Event};
use llambo_inference::{AnswerEvent, GenerateRequest, InferenceEngine, Priority, Prompt, Sampling, Share};
use llambo_llama::{EngineSettings, LlamaEngine};
use llambo_tests::{Host, eventually, guest};

use super::{SMALL, read};

/// What the engine says by itself, without guest, orchestrator or network.
async fn by_the_engine_alone(prompts: &[String]) -> Vec<String> {
    let settings = EngineSettings { n_sequences: 32, ..EngineSettings::new("demo-small") };
    let engine = LlamaEngine::load(&Builtin::DemoSmall.unpack().unwrap(), &settings).unwrap();
    let mut texts = Vec::new();
    for prompt in prompts {
        let request = GenerateRequest {
            id: "alone".into(),
            model: "demo-small".into(),
            node_type: None,
            prompt: Prompt::Text(prompt.clone()),
            sampling: Sampling { max_tokens: Some(12), temperature: 0.0, ..engine.info().sampling.clone() },
            share: Share::default(),
            deadline: None,
            routing: llambo_inference::Routing::default(),
            priority: Priority::default(),
            journal: None,
            log: None,
        };
        let mut text = String::new();
        let mut events = engine.submit(request).unwrap();
        while let Some(event) = events.next().await {
            if let AnswerEvent::Piece { text: piece, .. } = event.unwrap() {
                text.push_str(&piece);
            }
        }
        texts.push(text);
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_through_everything_is_the_engines_own() {
    let host = Host::start(SMALL);
    let client = host.client().await;
    let prompts: Vec<String> = ["A trait is", "The borrow checker", "Each crate"].map(str::to_owned).into();
    let expected = by_the_engine_alone(&prompts).await;
    for (prompt, expected) in prompts.iter().zip(expected) {
        let answer = client.generate(Ask::text(prompt).max_tokens(12).temperature(0.0)).await.unwrap();
        assert_eq!(read(answer).await.unwrap().0, expected, "{prompt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_comes_in_pieces_from_start_to_end() {
    let host = Host::start(SMALL);
    let ask = Ask::user("What is ownership?").max_tokens(800).seed(1).options(|o| o.ignore_eos = true);
    let mut answer = host.client().await.generate(ask).await.unwrap();
    let Some(Ok(Event::Started(started))) = answer.next().await else { panic!("the first message tells who serves") };
    assert!(started.node.starts_with("tiny-") && started.model == "demo-small");
    let (mut pieces, mut tokens) = (0, 0);
    let finished = loop {
        match answer.next().await.unwrap().unwrap() {
            Event::Piece(piece) => (pieces, tokens) = (pieces + 1, tokens + piece.n_tokens),
            Event::Finished(finished) => break finished,
            Event::Started(_) => panic!("an answer starts once"),
        }
    };
    let usage = finished.usage.unwrap();
    assert_eq!((usage.output_tokens, finished.finish_reason.as_str()), (800, "length"));
    // a guest that had to wait gets up to 1 KiB at once
    assert!(pieces > 1 && tokens <= 800, "{pieces} pieces of {tokens} tokens");
    assert!(finished.ttft_ms > 0.0 && finished.ttft_ms <= finished.total_ms);
    assert!(answer.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_spread_over_isolates_and_a_stateful_guest_keeps_its_state() {
    let module = guest("hostile");
    let host = Host::start(&format!("models: [{{path: builtin:demo-small}}]\ntypes: {{odd: {{count: 5, module: {module:?}}}}}"));
    let client = host.client().await;
    client.set_balancer("round-robin").await.unwrap();
    let mut seen = HashSet::new();
    for turn in 1..=3 {
        for _ in 0..5 {
            let (text, node) = read(client.generate(Ask::text("stateful")).await.unwrap()).await.unwrap();
            assert_eq!(text, turn.to_string(), "{node} counts its own requests");
            seen.insert(node);
        }
    }
    assert_eq!(seen.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_reach_the_sampler_and_an_agent_calls_twice() {
    let module = guest("draft-and-refine");
    let host = Host::start(&format!(
        "models: [{{name: demo-small, path: builtin:demo-small}}]\ntypes: {{tiny: {{count: 4}}, agent: {{count: 2, module: {module:?}}}}}"
    ));
    let client = host.client().await;
    let ask = || Ask::text("A list: ").node_type("tiny").max_tokens(60).seed(5);
    let schema = r#"{"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2}"#;
    let json = client.infer(ask().json_schema(schema)).await.unwrap().text;
    let list: Vec<u8> = serde_json::from_str(&json).unwrap();
    assert_eq!(list.len(), 2, "{json}");
    let grammar = client.infer(ask().grammar("root ::= \"yes\" | \"no\"")).await.unwrap().text;
    assert!(grammar == "yes" || grammar == "no", "{grammar}");
    let one = client.infer(Ask::text("A trait is").node_type("tiny").max_tokens(16).seed(9)).await.unwrap();
    let same = client.infer(Ask::text("A trait is").node_type("tiny").max_tokens(16).seed(9)).await.unwrap();
    assert_eq!(one.text, same.text);

    let agent = client.infer(Ask::text("A trait is").node_type("agent").max_tokens(16).seed(9)).await.unwrap();
    assert!(agent.node.starts_with("agent-"));
    let (alone, twice) = (one.usage.unwrap(), agent.usage.unwrap());
    assert!(twice.input_tokens > 2 * alone.input_tokens, "both calls are paid for: {twice:?}");

    let embeddings = client.embed("", vec!["the borrow checker".into(), "cargo".into()]).await.unwrap();
    assert_eq!(embeddings.embeddings.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_frees_its_place_and_harms_nobody() {
    let host = Host::start("models: [{name: demo-small, path: builtin:demo-small, sequences: 4}]\ntypes: {tiny: {count: 4}}");
    let client = host.client().await;
    let long = || Ask::text("A trait is").options(|o| o.ignore_eos = true);
    for _ in 0..5 {
        let answers = join_all((0..4).map(|_| client.generate(long()))).await;
        for answer in answers {
            assert!(answer.unwrap().next().await.is_some());
        }
    }
    eventually("no sequence is left", async || {
        let status = client.status().await.unwrap();
        status.queue.is_some_and(|q| q.in_flight == 0) && status.models.iter().all(|m| m.n_running == 0)
    })
    .await;
    super::is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn llamboctl_prints_the_documented_json() {
    let host = Host::start(SMALL);
    let answer = host.json(&["infer", "A trait is", "--max-tokens", "5", "--temperature", "0", "--type", "tiny"]);
    assert_eq!(answer["usage"]["output_tokens"], 5);
    assert!(answer["node"].as_str().unwrap().starts_with("tiny-") && answer["text"].is_string());
    assert!(answer["ttft_ms"].as_f64().unwrap() <= answer["total_ms"].as_f64().unwrap());
    assert_eq!((&answer["model"], &answer["finish_reason"]), (&"demo-small".into(), &"length".into()));

    let spawned = host.json(&["spawn", "--type", "tiny", "--count", "5"]);
    assert_eq!(spawned["spawned"], 5);
    let nodes = host.json(&["nodes", "list"]);
    assert_eq!(nodes.as_array().unwrap().len(), 25);
    for key in ["id", "type", "state", "in_flight", "served", "memory_bytes"] {
        assert!(nodes[0].get(key).is_some(), "{key} of {}", nodes[0]);
    }
    assert!(nodes[0]["memory_bytes"].as_u64().unwrap() >= 65536);
    let refused = host.llamboctl(&["spawn", "--type", "tiny", "--count", "4294967295"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("vm.max_map_count") || told.contains("no more addresses"), "{told}");
    let scaled = host.json(&["scale", "--type", "tiny", "--count", "10"]);
    assert_eq!((&scaled["before"], &scaled["after"]), (&25.into(), &10.into()));
    assert_eq!(host.json(&["balancer", "--strategy", "random"])["after"], "random");
    let status = host.json(&["status"]);
    assert_eq!((&status["strategy"], &status["nodes"]["total"]), (&"random".into(), &10.into()));
    assert_eq!(status["tokens"]["output"], 5);
    assert_eq!(host.json(&["health"])["serving"], true);
    let metrics = host.json(&["metrics", "--http", &format!("http://{}", host.http())]);
    let named = |name: &str| metrics.as_array().unwrap().iter().any(|m| m["name"] == name);
    for name in ["llambo_llama_generated_tokens_total", "llambo_orchestrator_nodes", "llambo_orchestrator_requests_total"] {
        assert!(named(name), "{name}");
    }
}
