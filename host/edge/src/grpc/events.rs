//! What happens in the cluster, on the wire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt, future::Either, stream};
use llambo_inference::{EventKind, TypeName};
use llambo_orchestrator::{Event, EventFilter, Told};
use llambo_proto::v1::{self, watch_events_response};
use tonic::Status;

use super::invalid_field;
use crate::Host;

/// Kinds and types of one request.
const MAX_NAMES: usize = 64;

/// What happened, and unless the caller wants no more, what happens from now on.
pub(super) fn watch(
    host: &Host,
    request: v1::WatchEventsRequest,
) -> Result<impl Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send + use<>, Status> {
    let once = request.once;
    let mut watch = host.cluster.watch_events(filter(request)?);
    let told = if once {
        Either::Left(stream::iter(std::iter::from_fn(move || watch.now())))
    } else {
        Either::Right(stream::unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) }))
    };
    Ok(told.map(|told| Ok(message(&told))))
}

fn filter(request: v1::WatchEventsRequest) -> Result<EventFilter, Status> {
    let v1::WatchEventsRequest { after, since_ms, kinds, types, once: _ } = request;
    for (field, names) in [("kinds", &kinds), ("types", &types)] {
        if names.len() > MAX_NAMES {
            return Err(invalid_field(field, format!("a list of {}", names.len()), "64 names at most"));
        }
    }
    let mut meant = Vec::new();
    for name in kinds {
        let named = EventKind::named(&name);
        if named.is_empty() {
            let all = EventKind::ALL.map(EventKind::as_str).join(", ");
            return Err(invalid_field(
                "kinds",
                format!("{name:?}"),
                &format!("one of {all}, or what stands before the dot of one"),
            ));
        }
        meant.extend(named);
    }
    let since = (since_ms > 0).then(|| UNIX_EPOCH.checked_add(Duration::from_millis(since_ms)));
    let since = since.map(|since| since.ok_or_else(|| invalid_field("since_ms", since_ms, "a time")));
    Ok(EventFilter { after, since: since.transpose()?, kinds: meant, types: types.iter().map(TypeName::from).collect() })
}

fn message(told: &Told) -> v1::WatchEventsResponse {
    let told = match told {
        Told::Event(event) => watch_events_response::Told::Event(wire(event)),
        Told::Missed(n) => watch_events_response::Told::Missed(*n),
    };
    v1::WatchEventsResponse { told: Some(told) }
}

fn wire(event: &Event) -> v1::Event {
    let Event { number, at, what } = event;
    v1::Event {
        number: *number,
        at_ms: ms_since_1970(*at),
        kind: what.kind.as_str().to_owned(),
        subject: what.subject.clone(),
        r#type: what.node_type.as_ref().map_or_else(String::new, ToString::to_string),
        count: what.count,
        reason: what.reason.clone(),
    }
}

fn ms_since_1970(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
