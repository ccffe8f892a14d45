use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all};
use llambo_client::{Ask, Error};
use llambo_tests::Host;

use super::read;

fn config(drain: &str) -> String {
    format!(
        "models: [{{name: demo-small, path: builtin:demo-small, sequences: 16}}]
types: {{tiny: {{count: 16}}}}
shutdown: {{drain: {drain}}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_when_the_signal_comes_is_finished() {
    let host = Host::start(&config("60s"));
    let client = host.client().await;
    let long = |i| Ask::text("A trait is").max_tokens(200).seed(i).options(|o| o.ignore_eos = true);
    let mut answers =
        join_all((0..16).map(|i| client.generate(long(i)))).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    for answer in &mut answers {
        assert!(answer.next().await.unwrap().is_ok());
    }
    host.signal("TERM");
    // refused from the moment the signal is seen; a request that was faster is answered as the others are
    loop {
        match client.infer(Ask::text("A trait is").max_tokens(1)).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => {
                assert!(["DRAINING", "UNREACHABLE", "CONNECTION_LOST"].contains(&error.reason()), "{error}");
                break;
            }
        }
    }
    for answer in answers {
        let (text, _) = read(answer).await.expect("an answer under way is finished");
        assert!(!text.is_empty());
    }
    let (status, said) = tokio::task::spawn_blocking(|| host.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", said.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_finished_in_time_ends_with_a_reason() {
    let module = llambo_tests::guest("hostile");
    let host = Host::start(&format!(
        "models: [{{path: builtin:demo-small}}]
types: {{hostile: {{count: 4, module: {module:?}, cpu-seconds: 600}}}}
shutdown: {{drain: 300ms}}"
    ));
    let client = host.client().await;
    let stuck = join_all((0..4).map(|_| client.infer(Ask::text("loop"))));
    let ended = async {
        llambo_tests::eventually("all four run", async || client.status().await.unwrap().queue.is_some_and(|q| q.in_flight == 4))
            .await;
        host.signal("TERM");
        let began = Instant::now();
        let (status, _) = tokio::task::spawn_blocking(|| host.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    };
    let (answers, ()) = futures::join!(stuck, ended);
    let reasons: Vec<_> = answers.iter().map(|a| a.as_ref().map_err(Error::reason).map(|_| ()).unwrap_err()).collect();
    assert_eq!(reasons, ["DRAINING"; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_can_drain_the_host() {
    let host = Host::start(&config("10s"));
    let output = host.llamboctl(&["drain", "--all"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (status, _) = tokio::task::spawn_blocking(|| host.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}
