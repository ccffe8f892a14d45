//! Clients that go away in every way there is.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all, stream};
use llambo_client::{Ask, Client, Event};
use llambo_proto::v1::{GenerateRequest, generate_request::Prompt};
use llambo_tests::{
    eventually,
    rehearsal::{Rehearsal, words},
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::{
    connect::{narrow, raise_descriptor_limit, torn},
    is_quiet_again, queue,
};

const N_REQUESTS: u64 = 500;
const AT_ONCE: usize = 150;
const N_NODES: u32 = 100;
/// A step of these nodes takes 5 ms. The rest is for the way of a reset through a machine that others use.
const FREE_WITHIN: Duration = Duration::from_secs(2);

fn long(node_type: &str) -> GenerateRequest {
    GenerateRequest { prompt: Some(Prompt::Text("x".into())), r#type: node_type.into(), ..GenerateRequest::default() }
}

/// One request that ends as its number says.
async fn one(host: &Rehearsal, client: &Client, number: u64) {
    let mut random = Pcg64Mcg::seed_from_u64(number);
    let n = random.random_range(1..40);
    let ask = Ask::text("x").node_type("paced").max_tokens(n);
    let early = Duration::from_millis(random.random_range(0..200));
    match number % 6 {
        0 => assert_eq!(client.infer(ask).await.expect("nobody disturbs it").text, words(n)),
        1 => {
            // called off after some words
            let mut events = client.generate(ask.max_tokens(4000)).await.unwrap();
            let mut text = String::new();
            for _ in 0..n {
                if let Event::Piece(piece) = events.next().await.unwrap().unwrap() {
                    text.push_str(&piece.text);
                }
            }
            assert!(words(n).starts_with(&text));
        }
        2 => {
            // called off at any moment, before its first word too
            let _ = tokio::time::timeout(early, client.infer(ask.max_tokens(4000))).await;
        }
        3 => {
            let error = client.infer(ask.max_tokens(4000).timeout(early)).await.expect_err("it has no time for that");
            assert_eq!(error.reason(), "DEADLINE_EXCEEDED", "{error}");
        }
        way => {
            let mut connection = if way == 4 { torn(host.grpc()).await } else { narrow(host.grpc()).await };
            let _ = tokio::time::timeout(early, async {
                let mut request = long("paced");
                request.options.get_or_insert_default().max_tokens = Some(4000);
                let mut messages = connection.generate(request).await.unwrap().into_inner();
                while messages.message().await.unwrap().is_some() {}
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_in_whatever_way_leaves_nothing_behind() {
    raise_descriptor_limit();
    let host = Rehearsal::start(&["--quick", "0", "--paced", &N_NODES.to_string(), "--step-ms", "5"]);
    let client = host.client().await;
    one(&host, &client, 0).await;
    let n_descriptors = host.n_descriptors();

    stream::iter(0..N_REQUESTS).for_each_concurrent(AT_ONCE, |number| one(&host, &client, number)).await;
    let gone = Instant::now();
    eventually("every place is free", async || queue(&client).await.in_flight == 0 && host.n_running(&client).await == 0).await;
    eprintln!("the last place was free {:?} after its client had gone", gone.elapsed());
    assert!(gone.elapsed() < FREE_WITHIN, "{:?}", gone.elapsed());
    is_quiet_again(&host, &client, n_descriptors).await;

    // every node serves again, all at the same time
    let answers = (0..N_NODES).map(|_| client.infer(Ask::text("x").node_type("paced").max_tokens(50)));
    let watched = eventually("all nodes are at it", async || host.n_running(&client).await == N_NODES);
    let (answers, ()) = futures::join!(join_all(answers), watched);
    for answer in answers {
        assert_eq!(answer.unwrap().text, words(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_free_as_soon_as_its_client_has_gone() {
    // a word takes far longer than what is measured: nobody waits for it
    let host = Rehearsal::start(&["--quick", "0", "--paced", "1", "--step-ms", "60000"]);
    let client = host.client().await;
    for way in 0..3u32 {
        let connection = if way == 0 { torn(host.grpc()).await } else { narrow(host.grpc()).await };
        let asked = tokio::spawn({
            let (mut connection, mut request) = (connection.clone(), tonic::Request::new(long("paced")));
            if way == 2 {
                request.set_timeout(Duration::from_millis(300));
            }
            async move { connection.generate(request).await.map(|_| ()) }
        });
        eventually("it is asked", async || host.n_running(&client).await == 1).await;
        let gone = Instant::now();
        if way < 2 {
            asked.abort();
        }
        drop(connection);
        eventually("its place is free", async || host.n_running(&client).await == 0).await;
        assert!(gone.elapsed() < FREE_WITHIN, "way {way}: {:?}", gone.elapsed());
        assert_eq!(queue(&client).await.in_flight, 0);
        let _ = asked.await;
    }
}
