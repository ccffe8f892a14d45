//! Clients that hold connections and answers without taking much.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all, stream};
use llambo_client::{Ask, Client};
use llambo_proto::{
    status::Details,
    v1::{GenerateRequest, GenerateResponse, generate_request::Prompt, generate_response::Event},
};
use llambo_tests::{eventually, rehearsal::Rehearsal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};
use tonic::{Status, Streaming};

use crate::{
    all_are_served,
    connect::{narrow, raise_descriptor_limit},
    is_quiet_again, queue,
};

const STALL: Duration = Duration::from_secs(5);
/// Connected, and silent: half of them to each port.
const N_IDLE: usize = 1000;
/// Take a message each [`SLOWLY`].
const N_SLOW: usize = 500;
/// The transport takes 32 KiB at a time, 16 messages of an `endless` node, and only that is seen to be taken: three times before [`STALL`] has passed.
const SLOWLY: Duration = Duration::from_millis(100);
/// Take nothing.
const N_STUCK: usize = 500;
const CONNECTING_AT_ONCE: usize = 64;
/// No good request takes longer, whoever else is there: it would if it waited for one that is given up after [`STALL`]. Alone they take a few milliseconds; the rest
/// is for what else runs on a machine.
const LONGEST: Duration = Duration::from_secs(2);
/// What the host may hold with a crowd beyond what it held with the one before: a tenth. What the first one left behind for good would double it.
const GROWN_BYTES: u64 = 24 << 20;

/// A new client whose answer has begun.
async fn asks_endless(grpc: &str) -> Streaming<GenerateResponse> {
    let request =
        GenerateRequest { prompt: Some(Prompt::Text("x".into())), r#type: "endless".into(), ..GenerateRequest::default() };
    let mut messages = narrow(grpc).await.generate(request).await.expect("there is a node for each").into_inner();
    let first = messages.message().await.unwrap().unwrap();
    assert!(matches!(first.event, Some(Event::Started(_))));
    messages
}

async fn connect_all<T>(n: usize, one: impl AsyncFn() -> T) -> Vec<T> {
    stream::iter(0..n).map(|_| one()).buffer_unordered(CONNECTING_AT_ONCE).collect().await
}

/// A kept-alive HTTP connection that has asked once.
async fn idle_http(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    stream
}

/// Takes a message now and then until told to stop; how many came. Each is the next word.
async fn takes_slowly(mut messages: Streaming<GenerateResponse>, mut stop: watch::Receiver<bool>) -> usize {
    let mut n = 0;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return n,
            () = tokio::time::sleep(SLOWLY) => {}
        }
        let message = messages.message().await.expect("who takes something is served").expect("it has no end");
        let Some(Event::Piece(piece)) = message.event else { panic!("{message:?}") };
        n += 1;
        assert_eq!(piece.text.trim(), format!("word{n}"), "no word is lost and none comes twice");
    }
}

/// What stands at the end of what was sent.
async fn end_of(mut messages: Streaming<GenerateResponse>) -> Status {
    loop {
        match messages.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an answer without an end ended well"),
            Err(status) => return status,
        }
    }
}

fn start(words: &[&str]) -> Rehearsal {
    raise_descriptor_limit();
    let stall_ms = STALL.as_millis().to_string();
    Rehearsal::start(&[&["--stall-ms", &stall_ms], words].concat())
}

/// A thousand idle and a thousand slow clients come, good ones ask among them, and all go again. Bytes that the host held for them and itself.
async fn crowd(host: &Rehearsal, client: &Client, n_descriptors: usize) -> u64 {
    let idle_grpc = connect_all(N_IDLE / 2, async || Client::connect(host.grpc()).await.unwrap()).await;
    let idle_http = connect_all(N_IDLE / 2, async || idle_http(host.http()).await).await;
    let stuck = connect_all(N_STUCK, async || asks_endless(host.grpc()).await).await;
    let (tell, told) = watch::channel(false);
    let slow: Vec<_> = connect_all(N_SLOW, async || asks_endless(host.grpc()).await)
        .await
        .into_iter()
        .map(|messages| tokio::spawn(takes_slowly(messages, told.clone())))
        .collect();
    let among_all = all_are_served(client).await;
    assert!(host.n_descriptors() >= n_descriptors + N_IDLE + N_SLOW + N_STUCK, "all of them are connected");
    eventually("those that take nothing are given up", async || host.n_running(client).await as usize == N_SLOW).await;
    let among_slow = all_are_served(client).await;
    eprintln!("longest of {} good requests: {among_all:?} among all, {among_slow:?} among the slow", crate::N_GOOD);
    let resident_bytes = host.resident_bytes();
    eprintln!("{} descriptors and {} MiB are held", host.n_descriptors(), resident_bytes >> 20);
    assert!(among_all < LONGEST && among_slow < LONGEST, "{among_all:?}, {among_slow:?}");

    for end in join_all(stuck.into_iter().map(end_of)).await {
        let details = Details::of(&end);
        assert_eq!(details.reason.as_deref(), Some("CLIENT_STALLED"), "{end:?}");
    }
    tell.send_replace(true);
    for taken in join_all(slow).await {
        assert!(taken.unwrap() > 0, "who takes a message gets one");
    }
    drop((idle_grpc, idle_http));
    is_quiet_again(host, client, n_descriptors).await;
    resident_bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_and_a_thousand_slow_clients_disturb_nobody() {
    let host = start(&["--quick", "64", "--endless", "1000"]);
    let client = host.client().await;
    let alone = all_are_served(&client).await;
    eprintln!("longest of {} good requests: {alone:?} alone", crate::N_GOOD);
    let n_descriptors = host.n_descriptors();
    let first = crowd(&host, &client, n_descriptors).await;
    // the allocator keeps pages of the first crowd, and the second has to do with them
    let second = crowd(&host, &client, n_descriptors).await;
    assert!(second < first + GROWN_BYTES, "{} MiB with one crowd, {} with the next", first >> 20, second >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_holds_others_up_no_longer_than_the_stall_timeout() {
    let host = start(&["--endless", "32"]);
    let client = host.client().await;
    let _stuck = connect_all(32, async || asks_endless(host.grpc()).await).await;
    let began = Instant::now();
    let waiting = join_all((0..64).map(|_| client.infer(Ask::text("x").node_type("endless").max_tokens(2))));
    let watched = eventually("every node is held, and others wait", async || queue(&client).await.waiting == 64);
    let (answers, ()) = futures::join!(waiting, watched);
    for answer in answers {
        let text = answer.expect("whoever waits is served").text;
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["word1", "word2"]);
    }
    assert!(began.elapsed() < STALL + LONGEST, "{:?}", began.elapsed());
}
