//! Streams an answer, then cancels another one in its middle.
//!
//!     cargo run --release -p llambo-client --example stream -- "What a trait is"

use futures::TryStreamExt;
use llambo_client::{Ask, Client, Error, Event};

/// Asks, and gives back the text. What is told on the way goes to `tell`.
pub(crate) async fn run(address: &str, prompt: &str, mut tell: impl FnMut(String)) -> Result<String, Error> {
    let client = Client::connect(address).await?;
    let mut text = String::new();
    let mut events = client.generate(Ask::text(prompt).max_tokens(8)).await?;
    while let Some(event) = events.try_next().await? {
        match event {
            Event::Started(started) => tell(format!("served by {}", started.node)),
            Event::Piece(piece) => text.push_str(&piece.text),
            Event::Finished(finished) => tell(format!("{} after {:.0} ms", finished.finish_reason, finished.total_ms)),
        }
    }

    // dropping the stream is the way to cancel: the host stops decoding within one step
    let mut events = client.generate(Ask::text(prompt)).await?;
    while let Some(event) = events.try_next().await? {
        if matches!(event, Event::Piece(_)) {
            break;
        }
    }
    drop(events);
    tell("the second one was called off".to_owned());
    Ok(text)
}

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "tests use `run` alone")]
#[allow(clippy::print_stdout, reason = "an example prints")]
async fn main() -> Result<(), Error> {
    let address = std::env::var("LLAMBO_HOST").unwrap_or_else(|_| "http://127.0.0.1:7400".to_owned());
    let prompt = std::env::args().nth(1).unwrap_or_else(|| "What a trait is".to_owned());
    let text = run(&address, &prompt, |line| println!("[{line}]")).await?;
    println!("{text}");
    Ok(())
}
