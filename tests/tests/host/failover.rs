//! Isolates are lost in the middle of answers, which go on with others.

use futures::future::join_all;
use llambo_client::{Ask, Fault};
use llambo_tests::{Host, guest};

use super::read;

fn fault(kind: &str, node_type: &str, after_pieces: u32, times: u64) -> Fault {
    Fault { kind: kind.into(), r#type: node_type.into(), after_pieces, times, ..Fault::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_on_with_another_isolate_as_if_nothing_had_happened() {
    let (forks, search) = (guest("best-of"), guest("tree-search"));
    let host = Host::start(&format!(
        "models: [{{name: demo-small, path: builtin:demo-small, sequences: 32}}]
types:
  tiny: {{count: 8}}
  forks: {{count: 4, module: {forks:?}}}
  search: {{count: 4, module: {search:?}}}
balancing: {{attempts: 4, stall-timeout: 2s}}
faults: {{allow: true}}"
    ));
    let client = host.client().await;
    let schema =
        r#"{"type":"object","properties":{"a":{"type":"string","maxLength":20},"b":{"type":"integer"}},"required":["a","b"]}"#;
    let asks = || {
        // the likeliest token always: a draw may fall within rounding of the border between two
        let tiny = || Ask::text("A trait is").node_type("tiny").max_tokens(48).temperature(0.0);
        [
            ("text", tiny()),
            ("penalties", tiny().options(|o| o.presence_penalty = Some(1.0))),
            ("schema", tiny().json_schema(schema)),
            ("grammar", tiny().grammar("root ::= [a-z ]+ \".\"")),
            ("stop", tiny().options(|o| o.stop = vec![" of".into()])),
            ("best of several", Ask::text("A trait is").node_type("forks").max_tokens(24).temperature(0.0)),
            ("a search", Ask::text("A trait is").node_type("search").max_tokens(24).temperature(0.0)),
        ]
    };
    for (what, ask) in asks() {
        let (expected, _) = read(client.generate(ask.clone()).await.unwrap()).await.unwrap();
        for (kind, after, times) in [("trap", 1, 1), ("drop", 3, 2), ("stall", 2, 1), ("trap", 0, 3)] {
            client.inject_fault(fault(kind, "", after, times)).await.unwrap();
            let told = read(client.generate(ask.clone()).await.unwrap()).await;
            let (text, _) = told.unwrap_or_else(|e| panic!("{what}, {kind} after {after} pieces: {e}"));
            assert_eq!(text, expected, "{what}, {kind} after {after} pieces, {times} times");
            client.clear_faults(Vec::new()).await.unwrap();
        }
    }
    let status = client.status().await.unwrap();
    let (totals, queue) = (status.totals.unwrap(), status.queue.unwrap());
    assert!(totals.redispatched >= 30, "{totals:?}");
    assert_eq!((totals.failed, queue.in_flight, queue.waiting), (0, 0, 0));
    assert!(status.models.iter().all(|model| model.n_running == 0), "what was lost leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_seed_goes_on_from_what_it_said() {
    let host = Host::start(
        "models: [{name: demo-small, path: builtin:demo-small, sequences: 32}]
types: {tiny: {count: 16}}
balancing: {attempts: 10}
faults: {allow: true}",
    );
    let client = host.client().await;
    // nothing says what comes next but what was drawn: told twice, or begun anew, it would differ
    client.inject_fault(Fault { share: 0.5, ..fault("trap", "tiny", 4, 0) }).await.unwrap();
    let answers = join_all((0..40).map(|_| async {
        let ask = Ask::text("A trait is").max_tokens(40).options(|o| o.ignore_eos = true);
        client.infer(ask).await
    }));
    for answer in answers.await {
        assert_eq!(answer.unwrap().usage.unwrap().output_tokens, 40);
    }
    let totals = client.status().await.unwrap().totals.unwrap();
    assert!(totals.redispatched >= 10, "{totals:?}");
    assert_eq!((totals.finished, totals.output_tokens), (40, 1600), "each token counts once");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_cannot_go_on_it_says_why() {
    let host = Host::start(
        "models: [{name: demo-small, path: builtin:demo-small}]
types: {tiny: {count: 4}}
balancing: {attempts: 2}
faults: {allow: true}",
    );
    let client = host.client().await;
    client.inject_fault(fault("trap", "", 0, 0)).await.unwrap();
    let error = client.infer(Ask::text("A trait is").max_tokens(20).temperature(0.0)).await.unwrap_err();
    assert_eq!(error.reason(), "GUEST_TRAP", "{error}");
    client.clear_faults(Vec::new()).await.unwrap();
    super::is_well(&client).await;

    let careful = Host::start("models: [{path: builtin:demo-small}]\ntypes: {tiny: {count: 1}}");
    let refused = careful.client().await.inject_fault(fault("trap", "", 0, 0)).await.unwrap_err();
    assert_eq!(refused.reason(), "NOT_PERMITTED", "{refused}");
}
