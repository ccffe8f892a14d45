//! Asks the host, again and again, and begins anew when it was lost.

use std::time::Duration;

use futures::StreamExt;
use llambo_client::{Client, Node, NodeFilter, StatusResponse};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// News that wait to be drawn: one status and one list; who draws slowly gets them later, and fewer.
const WAITING: usize = 2;
/// Nodes fetched at most; a list of more would cost the host and this terminal more than it tells.
pub(super) const MAX_NODES: u32 = 10_000;
/// A list is fetched no more often than so many times as long as the last one took.
const REST: u32 = 5;
/// Between two tries to find the host again.
const RETRY: Duration = Duration::from_secs(1);

/// What was learned.
pub(super) enum News {
    Status(Box<StatusResponse>),
    Nodes(Vec<Node>),
    /// The host does not answer, and why.
    Lost(String),
}

/// Asks until the tasks are dropped.
pub(super) fn start(tasks: &mut JoinSet<()>, client: Client, every: Duration) -> Receiver<News> {
    let (sender, receiver) = channel(WAITING);
    tasks.spawn(statuses(client.clone(), every, sender.clone()));
    tasks.spawn(nodes(client, every, sender));
    receiver
}

async fn statuses(client: Client, every: Duration, news: Sender<News>) {
    loop {
        let why = match client.watch(every).await {
            Ok(mut statuses) => loop {
                match statuses.next().await {
                    Some(Ok(status)) => {
                        if news.send(News::Status(Box::new(status))).await.is_err() {
                            return;
                        }
                    }
                    Some(Err(error)) => break error.to_string(),
                    None => break "it ended".to_owned(),
                }
            },
            Err(error) => error.to_string(),
        };
        if news.send(News::Lost(why)).await.is_err() {
            return;
        }
        sleep(RETRY).await;
    }
}

async fn nodes(client: Client, every: Duration, news: Sender<News>) {
    let filter = NodeFilter { limit: Some(MAX_NODES), ..NodeFilter::default() };
    loop {
        let began = Instant::now();
        // that the host is gone is told by its statuses
        let wait = match client.nodes(&filter).await {
            Ok(nodes) => {
                if news.send(News::Nodes(nodes)).await.is_err() {
                    return;
                }
                every.max(began.elapsed() * REST)
            }
            Err(_) => RETRY,
        };
        sleep_until(began + wait).await;
    }
}
