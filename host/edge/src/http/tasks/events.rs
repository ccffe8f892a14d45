//! A task as server-sent events. The id of an event is the number of bytes of text up to it, so that a reader that comes back goes on
//! exactly where it was, also after a restart of the host.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Path, State},
    http::{Extensions, HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::StreamExt;
use llambo_tasks::{TaskError, TaskEvent};
use serde::Serialize;

use super::{
    super::failure::{ApiError, ErrorBody},
    Told,
};
use crate::{caller::Caller, door::Door};

/// The id of the last event. Who comes back with it is told not to.
const END: &str = "end";
/// How often something is sent in any case: programs in between give up silent connections after a minute or so.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Started<'a> {
    id: &'a str,
    node: &'a str,
    model: &'a str,
}

#[derive(Serialize)]
struct Token<'a> {
    text: &'a str,
}

/// `started`, `token` for each piece of text, and `end` with how it ended. `Last-Event-ID` goes on behind that event, also after the end.
#[utoipa::path(
    get, path = "/v2/tasks/{id}/events", tag = "tasks",
    params(("id" = String, Path), ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was read")),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 204, description = "All events were read"),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    )
)]
pub(super) async fn events(
    State(door): State<Door>,
    extensions: Extensions,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&extensions);
    let from = match headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default()) {
        // what has no id yet is asked for with an empty one
        None | Some("") => None,
        Some(END) => {
            door.host.tasks.show(caller.tenant.as_str(), &id).await?;
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        Some(number) => Some(number.parse::<u64>().map_err(|_| {
            let what = format!("`Last-Event-ID` is {number:?}, but no event has that id; leave it out to begin anew");
            ApiError::invalid(what)
        })?),
    };
    let durable = door.host.tasks.is_durable();
    let followed = door.host.tasks.follow(caller.tenant.as_str(), &id, from).await?;
    let events = followed.map(move |event| Ok::<_, Infallible>(told(&id, event, durable)));
    Ok(Sse::new(events.take_until(door.closed())).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn told(id: &str, event: Result<TaskEvent, TaskError>, durable: bool) -> Event {
    match event {
        Ok(TaskEvent::Started { node, model }) => json("started", &Started { id, node: &node, model: &model }).id("0"),
        Ok(TaskEvent::Token { text, end }) => json("token", &Token { text: &text }).id(end.to_string()),
        Ok(TaskEvent::Ended(task)) => json(END, &Told::brief(*task, durable)).id(END),
        Err(error) => json("error", &ApiError::from(error).into_body()),
    }
}

fn json(name: &str, data: &impl Serialize) -> Event {
    // strings and numbers, which JSON has, and no line breaks, which events have not
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}
