//! What connections may take up.

use std::time::Duration;

use llambo_client::{Client, Code, Credentials};
use llambo_edge::{Limits, Security};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    harness::{MAX_REQUEST_BYTES, Running, told, within},
    tokens::until,
};

const SHORT: Duration = Duration::from_millis(400);

async fn limited(limits: Limits) -> Running {
    Running::start(Security { limits, ..Security::default() }).await
}

/// Says something of a request again and again until the other side closes; how long that took.
async fn trickle(mut stream: TcpStream, begin: &[u8], more: &[u8]) -> Duration {
    let started = Instant::now();
    stream.write_all(begin).await.unwrap();
    let (mut read, mut write) = stream.split();
    let talking = async {
        while write.write_all(more).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let mut buffer = [0; 1024];
    let closed = async { while read.read(&mut buffer).await.is_ok_and(|n| n > 0) {} };
    within(async {
        tokio::select! { () = talking => {}, () = closed => {} }
    })
    .await;
    started.elapsed()
}

#[tokio::test]
async fn a_head_that_comes_in_drops_is_not_waited_for() {
    let host = limited(Limits { header_timeout: SHORT, ..Limits::default() }).await;
    let slow = trickle(TcpStream::connect(host.http).await.unwrap(), b"GET /livez HTTP/1.1\r\n", b"a: b\r\n").await;
    assert!(slow >= SHORT && slow < Duration::from_secs(10), "{slow:?}");
    let silent = TcpStream::connect(host.http).await.unwrap();
    assert_eq!(told(silent).await, "");
    // the second head of a connection is timed as the first was
    let mut stream = TcpStream::connect(host.http).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 16];
    within(stream.read_exact(&mut answer)).await.unwrap();
    let second = trickle(stream, b"GET /livez HTTP/1.1\r\n", b"a: b\r\n").await;
    assert!(second >= SHORT && second < Duration::from_secs(10), "{second:?}");
    host.stop().await;
}

#[tokio::test]
async fn a_grpc_client_that_says_nothing_is_not_waited_for_and_an_idle_one_is() {
    let host = limited(Limits { header_timeout: SHORT, ..Limits::default() }).await;
    let client = Client::connect(&format!("http://{}", host.grpc)).await.unwrap();
    let silent = trickle(TcpStream::connect(host.grpc).await.unwrap(), b"", b"").await;
    assert!(silent >= SHORT, "{silent:?}");
    let slow = trickle(TcpStream::connect(host.grpc).await.unwrap(), b"PRI * HTTP/2.0\r\n", b"").await;
    assert!(slow >= SHORT, "{slow:?}");
    // connected long before those
    client.models().await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn an_http_connection_without_requests_is_closed() {
    let host = limited(Limits { header_timeout: SHORT / 2, idle_timeout: SHORT, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(host.http).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let begin = Instant::now();
    let answer = told(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("alive\n"), "{answer}");
    assert!(begin.elapsed() >= SHORT, "{:?}", begin.elapsed());
    host.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_and_closed_and_places_come_back() {
    let host = limited(Limits { max_connections: 3, ..Limits::default() }).await;
    let client = Client::connect(&format!("http://{}", host.grpc)).await.unwrap();
    client.models().await.unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(host.http).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        within(stream.read_exact(&mut [0; 12])).await.unwrap();
        held.push(stream);
    }
    let refused = told(TcpStream::connect(host.http).await.unwrap()).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("TOO_MANY_CONNECTIONS"), "{refused}");
    let another = Client::connect_lazily(&format!("http://{}", host.grpc)).unwrap();
    assert_eq!(within(another.models()).await.unwrap_err().code(), Code::Unavailable);
    // those who are in stay in
    client.models().await.unwrap();
    drop(held.pop());
    until(async || host.get("/livez", "").await.starts_with("HTTP/1.1 200 ")).await;
    drop(client);
    host.stop().await;
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused() {
    let host = limited(Limits { max_header_bytes: 8 << 10, ..Limits::default() }).await;
    let large = "x".repeat(20 << 10);
    let answer = host.get("/livez", &format!("a: {large}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{answer}");
    let many = (0..500).map(|n| format!("a{n}: b\r\n")).collect::<Vec<_>>().concat();
    let answer = host.get("/livez", &many).await;
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(host.get("/livez", &format!("a: {}\r\n", "x".repeat(4 << 10))).await.starts_with("HTTP/1.1 200 "));

    let token = format!("llambo_{large}");
    let client = host.client(&Credentials::default().token(&token).unwrap());
    assert!(within(client.models()).await.is_err());
    assert!(host.client(&Credentials::default()).models().await.is_ok());
    host.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let host = limited(Limits::default()).await;
    let mut stream = TcpStream::connect(host.http).await.unwrap();
    let length = MAX_REQUEST_BYTES + 1;
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = told(stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("network.max-request-size"), "{answer}");
    host.stop().await;
}

#[tokio::test]
async fn open_connections_end_well_when_the_host_does() {
    let host = limited(Limits::default()).await;
    let mut idle = TcpStream::connect(host.http).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    within(idle.read_exact(&mut [0; 12])).await.unwrap();
    let client = Client::connect(&format!("http://{}", host.grpc)).await.unwrap();
    client.models().await.unwrap();
    let silent = TcpStream::connect(host.http).await.unwrap();
    let took = host.stop().await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    drop(silent);
}
