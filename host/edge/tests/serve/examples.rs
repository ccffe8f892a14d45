//! The examples of the client library, run as they stand.

use crate::harness::{Running, within};

#[path = "../../../client/examples/chat.rs"]
mod chat;
#[path = "../../../client/examples/operate.rs"]
mod operate;
#[path = "../../../client/examples/stream.rs"]
mod stream;

#[tokio::test]
async fn the_example_streams_an_answer_and_calls_one_off() {
    let host = Running::start_fake().await;
    let mut told = Vec::new();
    let address = format!("http://{}", host.grpc);
    let text = within(stream::run(&address, "a", |line| told.push(line))).await.unwrap();
    assert!(text.starts_with("word1") && told.len() == 3, "{text:?} {told:?}");
    assert!(told[0].starts_with("served by fake-") && told[1].starts_with("length after"), "{told:?}");
    host.stop().await;
}

#[tokio::test]
async fn the_example_holds_a_conversation() {
    let host = Running::start_fake().await;
    let said = within(chat::run(&format!("http://{}", host.grpc))).await.unwrap();
    let roles: Vec<&str> = said.iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    host.stop().await;
}

#[tokio::test]
async fn the_example_operates_a_cluster() {
    let host = Running::start_fake().await;
    let seen = within(operate::run(&format!("http://{}", host.grpc), "fake")).await.unwrap();
    assert_eq!(seen[1..], ["5 nodes of type fake", "test-machine has 2 threads and 1 graphics cards", "2 go"]);
    host.stop().await;
}
