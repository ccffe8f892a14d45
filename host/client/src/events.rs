//! What happens in a cluster, as a stream.

use std::{pin::Pin, time::SystemTime};

use futures::{Stream, StreamExt};
use llambo_proto::v1::{self, cluster_client::ClusterClient, watch_events_response::Told};

use crate::{Client, Error};

/// Which events are told. By default all that the host still knows, and all that come.
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing until it is given to `Client::events`"]
pub struct EventFilter {
    request: v1::WatchEventsRequest,
}

/// Something that happened, or how many events were forgotten before they could be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// The next event.
    Event(v1::Event),
    /// So many were missed.
    Missed(u64),
}

/// Events as they happen. Dropping it ends the watch.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Happened, Error>> + Send>>;

impl EventFilter {
    /// All events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only events after the one of this number.
    pub fn after(mut self, number: u64) -> Self {
        self.request.after = number;
        self
    }

    /// Only events from this time on.
    pub fn since(mut self, time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.request.since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Only this kind, or all that begin so: `scale.up`, `scale`. Several may be named.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.request.kinds.push(kind.into());
        self
    }

    /// Only what is about this node type. Several may be named.
    pub fn node_type(mut self, node_type: impl Into<String>) -> Self {
        self.request.types.push(node_type.into());
        self
    }

    /// End with what there is now.
    pub fn once(mut self) -> Self {
        self.request.once = true;
        self
    }
}

impl Client {
    /// What happened in the cluster and what happens from now on: nodes, scaling, breakers, policies, modules. Who reads too slowly is told how many
    /// events were missed.
    pub async fn events(&self, filter: EventFilter) -> Result<EventStream, Error> {
        let mut cluster = ClusterClient::new(self.channel());
        let events = self.done(cluster.watch_events(filter.request).await)?;
        let address = self.address().to_owned();
        let told = events.filter_map(move |message| {
            let happened = match message.map(|message| message.told) {
                Ok(Some(Told::Event(event))) => Some(Ok(Happened::Event(event))),
                Ok(Some(Told::Missed(n))) => Some(Ok(Happened::Missed(n))),
                // what a newer host tells and this client does not know
                Ok(None) => None,
                Err(status) => Some(Err(Error::of(&status, &address))),
            };
            std::future::ready(happened)
        });
        Ok(told.boxed())
    }
}
