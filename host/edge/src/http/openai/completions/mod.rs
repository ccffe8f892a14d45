//! `POST /v1/completions`: text that goes on with a text.

mod answer;
mod request;

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};

pub(super) use answer::Completion;
pub(super) use request::CompletionBody;

use super::{choice, request::Received, sse};
use crate::{
    door::Door,
    http::failure::{ApiError, ErrorBody},
};

/// Goes on with texts.
#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "OpenAI",
    params(("llambo-tier" = Option<u8>, Header, description = "The tier that should serve it, 0 to 2")),
    request_body = CompletionBody,
    responses(
        (status = 200, description = "The texts; with `stream: true`, `data:` lines of the same form, the last `[DONE]`. The headers `llambo-node` and, where there are tiers, `llambo-tier`, `llambo-tier-wanted`, `llambo-tier-by` and `llambo-tier-reason` say who serves it", content(
            (Completion = "application/json"),
            (Completion = "text/event-stream"),
        )),
        (status = "4XX", description = "The request cannot be served as it stands", body = ErrorBody),
        (status = "5XX", description = "It cannot be served now, or failed", body = ErrorBody),
    )
)]
pub(super) async fn complete(State(door): State<Arc<Door>>, request: Request) -> Result<Response, ApiError> {
    let received = Received::read(&door, request).await?;
    let body = CompletionBody { own: received.fields()?, common: received.fields()? };
    let engine = received.engine(body.model().as_ref())?;
    let prompts = body.prompts(engine.as_ref())?;
    let (asks, tells_usage) = (body.asks(&received, &prompts)?, body.common.tells_usage()?);
    let about = body.about(&received, engine.as_ref(), asks.len());
    let streams = body.common.streams();
    let choices = choice::ask(&received, received.deadline(streams), asks);
    if streams {
        let begun = choice::begun(choices, received.must_begin()).await?;
        return Ok(received.served_by.tell(sse::respond(&received, begun, answer::Chunks::new(about, tells_usage))));
    }
    let whole = Json(answer::whole(about, choices).await?).into_response();
    Ok(received.served_by.tell(whole))
}
