use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use llambo_client::{Ask, Code, Error, Event, Generation};

use crate::harness::{MAX_REQUEST_BYTES, MODEL, Running, within};

/// An answer of the `stuck` node, its one word read.
async fn stuck(host: &Running, ask: Ask) -> Generation {
    let mut events = within(host.client.generate(ask.node_type("stuck"))).await.unwrap();
    assert!(matches!(within(events.next()).await, Some(Ok(Event::Started(_)))));
    assert!(matches!(within(events.next()).await, Some(Ok(Event::Piece(_)))));
    events
}

fn reason(error: &Error) -> (Code, &str) {
    (error.code(), error.reason())
}

#[tokio::test]
async fn an_answer_starts_goes_on_and_finishes() {
    let host = Running::start().await;
    let ask = Ask::user("hello").max_tokens(3).request_id("mine");
    let events: Vec<Event> = within(host.client.generate(ask).await.unwrap().try_collect()).await.unwrap();
    let [Event::Started(started), pieces @ .., Event::Finished(end)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((started.request_id.as_str(), started.model.as_str()), ("mine", MODEL));
    assert!(started.node.starts_with("fake-"), "{started:?}");
    let text: String = pieces.iter().map(|event| if let Event::Piece(p) = event { p.text.as_str() } else { "?" }).collect();
    assert_eq!(text, "word1 word2 word3");
    assert_eq!((end.finish_reason.as_str(), end.usage.unwrap().output_tokens), ("length", 3));
    assert!(0.0 < end.ttft_ms && end.ttft_ms <= end.total_ms, "{end:?}");
    host.stop().await;
}

#[tokio::test]
async fn a_whole_answer_says_the_same_as_the_stream() {
    let host = Running::start().await;
    let whole = within(host.client.infer(Ask::text("hello").max_tokens(2).model(MODEL))).await.unwrap();
    assert_eq!((whole.text.as_str(), whole.finish_reason.as_str(), whole.model.as_str()), ("word1 word2", "length", MODEL));
    assert_eq!(whole.request_id.len(), 16, "the host made one: {whole:?}");
    host.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_frees_its_node() {
    let host = Running::start().await;
    let first = stuck(&host, Ask::text("x")).await;
    // there is one such node, and it serves one request at a time: the second waits until the first is called off
    let (second, ()) = tokio::join!(stuck(&host, Ask::text("x")), async {
        tokio::task::yield_now().await;
        drop(first);
    });
    drop(second);
    host.cluster.start_drain();
    host.cluster.drained(Duration::from_secs(20)).await.unwrap();
    assert_eq!(host.cluster.status().totals.cancelled, 2);
    host.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_a_stream_and_says_how_far_it_came() {
    let host = Running::start().await;
    let mut events = stuck(&host, Ask::text("x").timeout(Duration::from_millis(300))).await;
    let error = within(events.next()).await.unwrap().unwrap_err();
    assert_eq!(reason(&error), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(error.to_string().contains("after 1 generated"), "{error}");
    host.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_a_request_that_waits_for_a_node() {
    let host = Running::start().await;
    let holder = stuck(&host, Ask::text("x")).await;
    let waiting = host.client.infer(Ask::text("x").node_type("stuck").timeout(Duration::from_millis(300)));
    assert_eq!(reason(&within(waiting).await.unwrap_err()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    drop(holder);
    host.stop().await;
}

#[tokio::test]
async fn an_unknown_model_is_named_with_those_there_are() {
    let host = Running::start().await;
    let error = within(host.client.infer(Ask::text("x").model("gpt-9"))).await.unwrap_err();
    assert_eq!(reason(&error), (Code::NotFound, "UNKNOWN_MODEL"));
    assert!(error.to_string().contains("`gpt-9`") && error.to_string().contains(MODEL), "{error}");
    host.stop().await;
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_its_reason() {
    let host = Running::start().await;
    let cases = [
        (Ask::text(""), "INVALID_REQUEST"),
        (Ask::text("x").temperature(11.0), "INVALID_OPTION"),
        (Ask::chat([("robot", "x")]), "INVALID_REQUEST"),
    ];
    for (ask, expected) in cases {
        let error = within(host.client.infer(ask)).await.unwrap_err();
        assert_eq!(reason(&error), (Code::InvalidArgument, expected));
    }
    let error = within(host.client.infer(Ask::text("x").node_type("huge"))).await.unwrap_err();
    assert_eq!(reason(&error), (Code::NotFound, "UNKNOWN_TYPE"));
    host.stop().await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_told_the_limit() {
    let host = Running::start().await;
    let error = within(host.client.infer(Ask::text("x".repeat(MAX_REQUEST_BYTES + 1)))).await.unwrap_err();
    assert_eq!(reason(&error), (Code::InvalidArgument, "INVALID_REQUEST"));
    assert!(error.to_string().contains(&MAX_REQUEST_BYTES.to_string()), "{error}");
    host.stop().await;
}

#[tokio::test]
async fn texts_are_embedded_in_order() {
    let host = Running::start().await;
    let answer = within(host.client.embed("", vec!["a".into(), "bc".into()])).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.embeddings.len(), answer.usage.unwrap().input_tokens), (MODEL, 2, 3));
    for bad in [vec![], vec![String::new()], vec!["x".into(); 257]] {
        let error = within(host.client.embed("", bad)).await.unwrap_err();
        assert_eq!(reason(&error), (Code::InvalidArgument, "INVALID_REQUEST"));
    }
    host.stop().await;
}
