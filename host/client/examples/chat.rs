//! A conversation that the host keeps: each turn sends only what is new.
//!
//!     cargo run --release -p llambo-client --example chat

use futures::TryStreamExt;
use llambo_client::{Client, Error, Event, NewSession, Question};

/// Two turns, and the conversation as the host has it: (role, content).
pub(crate) async fn run(address: &str) -> Result<Vec<(String, String)>, Error> {
    let client = Client::connect(address).await?;
    let session = client.create_session(NewSession::new().system("You explain Rust.")).await?;
    for question in ["What is ownership?", "And borrowing?"] {
        let question = Question::new(&session.id, question).options(|options| options.max_tokens = Some(8));
        let mut events = client.ask_session(question).await?;
        while let Some(event) = events.try_next().await? {
            if let Event::Finished(finished) = event {
                let usage = finished.usage.unwrap_or_default();
                assert!(usage.output_tokens > 0, "it said something");
            }
        }
    }
    let kept = client.session(&session.id).await?;
    client.delete_session(&session.id).await?;
    Ok(kept.messages.into_iter().map(|message| (message.role, message.content)).collect())
}

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "tests use `run` alone")]
#[allow(clippy::print_stdout, reason = "an example prints")]
async fn main() -> Result<(), Error> {
    let address = std::env::var("LLAMBO_HOST").unwrap_or_else(|_| "http://127.0.0.1:7400".to_owned());
    for (role, content) in run(&address).await? {
        println!("{role}: {content}");
    }
    Ok(())
}
