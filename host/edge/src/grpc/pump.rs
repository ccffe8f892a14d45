//! Between an answer and a connection. A transport whose client takes nothing asks for nothing either, so that an answer
//! left to it would keep its node for as long as the connection lasts. A task of its own asks, and gives up.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt};
use llambo_inference::InferenceError;
use llambo_proto::{status, v1};
use tokio::{sync::mpsc, task::AbortHandle, time::timeout};
use tonic::Status;

/// Messages that wait for the transport: enough to fill a packet.
const WAITING_MESSAGES: usize = 16;

type Message = Result<v1::GenerateResponse, Status>;

/// The transport's end. Dropping it cancels the answer.
pub(super) struct Pumped {
    messages: mpsc::Receiver<Message>,
    task: AbortHandle,
}

/// Reads `answer` at its client's pace, and drops it when the client took nothing for as long as `patience`.
pub(super) fn pump(answer: impl Stream<Item = Message> + Send + 'static, patience: Duration) -> Pumped {
    let (sender, messages) = mpsc::channel(WAITING_MESSAGES);
    // ends with the answer, or is aborted by the drop of the other end
    let task = tokio::spawn(forward(answer, sender, patience)).abort_handle();
    Pumped { messages, task }
}

async fn forward(answer: impl Stream<Item = Message> + Send + 'static, sender: mpsc::Sender<Message>, patience: Duration) {
    let mut answer = Box::pin(answer);
    while let Some(message) = answer.next().await {
        match timeout(patience, sender.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                // its node is free from here on; the client is told when it reads again
                drop(answer);
                let _ = sender.send(Err(status::status(&InferenceError::stalled(patience)))).await;
                return;
            }
        }
    }
}

// === impl Pumped ===

impl Stream for Pumped {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.messages.poll_recv(cx)
    }
}

impl Drop for Pumped {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::stream;
    use llambo_proto::status::Details;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_gives_its_node_back_and_is_told() {
        let held = Arc::new(());
        let lease = Arc::clone(&held);
        let endless = stream::repeat_with(move || {
            let _ = &lease;
            Ok(v1::GenerateResponse::default())
        });
        let pumped = pump(endless, Duration::from_secs(5));
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(Arc::strong_count(&held), 1, "the answer is gone while its client still sleeps");
        let messages: Vec<_> = pumped.collect().await;
        assert_eq!(messages.len(), WAITING_MESSAGES + 1);
        let status = messages.last().unwrap().as_ref().unwrap_err();
        assert_eq!(Details::of(status).reason.as_deref(), Some("CLIENT_STALLED"));
    }
}
