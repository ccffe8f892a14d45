//! The end of a host while it serves.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all};
use llambo_client::{Ask, Client, Event, Generation, Health};
use llambo_proto::v1::{GenerateRequest, generate_request::Prompt};
use llambo_tests::{
    eventually,
    rehearsal::{Rehearsal, words},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::connect::narrow;

const DRAIN: Duration = Duration::from_secs(4);
/// What an end may take beyond the drain time where everybody listens.
const MARGIN: Duration = Duration::from_secs(3);
/// What connections get at the end (`CLOSE_GRACE` of the edge), and tasks that are left then.
const CLOSING: Duration = Duration::from_secs(6);
const N_STREAMS: u32 = 200;
/// Half of the streams are done in time: their words take a second.
const SHORT: u32 = 100;

/// Text up to the end, and how it ended.
async fn read(mut answer: Generation) -> (String, Result<(), llambo_client::Error>) {
    let mut text = String::new();
    while let Some(event) = answer.next().await {
        match event {
            Ok(Event::Piece(piece)) => text.push_str(&piece.text),
            Ok(Event::Finished(_)) => return (text, Ok(())),
            Ok(Event::Started(_)) => {}
            Err(error) => return (text, Err(error)),
        }
    }
    panic!("an answer ended without saying so, after {} bytes", text.len());
}

async fn readyz(http: &str) -> String {
    let mut stream = TcpStream::connect(http).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// New requests are refused, and everybody is told that they are.
async fn refuses(host: &Rehearsal, client: &Client) {
    eventually("it is not serving", async || client.health("").await.unwrap() == Health::NotServing).await;
    let error = client.infer(Ask::text("x").node_type("quick")).await.expect_err("nothing new is taken");
    assert_eq!(error.reason(), "DRAINING", "{error}");
    assert!(error.retry_after().is_some(), "it says when to try again");
    let answer = readyz(host.http()).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("draining"), "{answer}");
}

async fn ended_within(host: Rehearsal, began: Instant, limit: Duration) {
    let status = tokio::task::spawn_blocking(|| host.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    eprintln!("ended after {:?}", began.elapsed());
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_ends_finishes_each_stream_or_tells_it_why() {
    let drain_ms = DRAIN.as_millis().to_string();
    let host = Rehearsal::start(&["--quick", "8", "--paced", &N_STREAMS.to_string(), "--drain-ms", &drain_ms]);
    let client = host.client().await;
    let ask = |i| Ask::text("x").node_type("paced").max_tokens(if i % 2 == 0 { SHORT } else { 1_000_000 });
    let mut answers = Vec::new();
    for answer in join_all((0..N_STREAMS).map(|i| client.generate(ask(i)))).await {
        answers.push(answer.unwrap());
    }
    let began = Instant::now();
    host.terminate();
    // tasks of their own: in one task those who read all the time would leave the others no turn
    let reading = join_all(answers.into_iter().map(|answer| tokio::spawn(read(answer))));
    let (ends, ()) = futures::join!(reading, refuses(&host, &client));
    let told = began.elapsed();
    for (i, read) in ends.into_iter().enumerate() {
        let (text, end) = read.unwrap();
        if i % 2 == 0 {
            assert!(end.is_ok(), "there was time for stream {i}: {end:?}");
            assert_eq!(text, words(SHORT));
        } else {
            let error = end.expect_err("there was no time for that");
            assert_eq!(error.reason(), "DRAINING", "stream {i}: {error}");
            let n = u32::try_from(text.split(' ').count()).unwrap();
            assert_eq!(text, words(n), "what was sent is right");
        }
    }
    assert!(told >= DRAIN && told < DRAIN + MARGIN, "the last was told after {told:?}");
    ended_within(host, began, DRAIN + MARGIN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_listen_keep_no_host_from_ending() {
    let host = Rehearsal::start(&["--quick", "8", "--endless", "100", "--drain-ms", "500"]);
    let client = host.client().await;
    let silent = join_all((0..100).map(|_| Client::connect(host.grpc()))).await;
    let stuck = join_all((0..100).map(|_| async {
        let request =
            GenerateRequest { prompt: Some(Prompt::Text("x".into())), r#type: "endless".into(), ..GenerateRequest::default() };
        narrow(host.grpc()).await.generate(request).await.unwrap().into_inner()
    }))
    .await;
    assert_eq!(client.status().await.unwrap().queue.unwrap().in_flight, 100);
    let began = Instant::now();
    host.terminate();
    ended_within(host, began, Duration::from_millis(500) + CLOSING + MARGIN).await;
    drop((silent, stuck));
}
