//! One turn: the question goes through the door as any other, and its end is kept before it is told.

use futures::{Stream, StreamExt, stream};
use llambo_inference::{AnswerEvent, Prompt, Usage};
use llambo_proto::{
    convert, status,
    v1::{self, ask_request, generate_request},
};
use llambo_sessions::Turn;
use tokio::time::Instant;
use tonic::Status;

use super::{Conversing, asked, fit::fit, messages_of, refused, wire};
use crate::{
    answer::{Answering, Deadline},
    caller::Caller,
    grpc::{not_served, route},
};

/// A turn that is under way, and what was answered so far. Its drop is what happens when a client goes.
struct Open {
    /// Gone once it has ended.
    turn: Option<Turn>,
    text: String,
    usage: Usage,
    keep_partial: bool,
}

impl Conversing {
    /// Asks; the answer's first event is there. Its messages are those of `Generate`.
    pub(crate) async fn ask(
        &self,
        caller: &Caller,
        request: v1::AskRequest,
        received: Instant,
        deadline: Option<Deadline>,
    ) -> Result<impl Stream<Item = Result<v1::GenerateResponse, Status>> + Send + use<>, Status> {
        let new = match request.prompt {
            Some(ask_request::Prompt::Text(content)) => vec![v1::Message { role: "user".into(), content }],
            Some(ask_request::Prompt::Chat(chat)) => chat.messages,
            None => Vec::new(),
        };
        let turn = self.sessions().ask(&caller.tenant, &request.session_id, messages_of(new)?).await;
        let mut turn = turn.map_err(|e| refused(&e))?;
        let session = turn.session().clone();
        let mut asked = asked(v1::GenerateRequest {
            model: session.model.to_string(),
            r#type: session.node_type.as_ref().map(ToString::to_string).unwrap_or_default(),
            // what is asked instead is known below
            prompt: Some(generate_request::Prompt::Text("-".into())),
            options: Some(wire::merged(wire::options(&session.options), request.options)),
            request_id: request.request_id,
            explain: request.explain,
            labels: session.labels.iter().cloned().collect(),
            tier: session.tier.map(u32::from),
            priority: request.priority,
            ..v1::GenerateRequest::default()
        })?;
        let (_, engine) = self.door.engine_for(caller, Some(&session.model)).map_err(|e| status::status(&e))?;
        let fit = fit(&turn, &engine, asked.options.max_tokens).await?;
        turn.forget(fit.n_forget);
        asked.options.max_tokens = fit.max_tokens;
        asked.prompt = Prompt::Chat(fit.messages);
        asked.routing.session = Some(session.id.shared());
        let usage = Usage { input_tokens: fit.n_prompt.unwrap_or(0), ..Usage::default() };
        let open = Open { turn: Some(turn), text: String::new(), usage, keep_partial: request.keep_partial };
        let answering = self.door.ask(asked, caller, received, deadline).await.map_err(|error| not_served(&error))?;
        Ok(messages(answering, open))
    }
}

/// As messages: `started`, pieces, `finished`; or an error in between.
fn messages(mut answering: Answering, open: Open) -> impl Stream<Item = Result<v1::GenerateResponse, Status>> + Send {
    let route = answering.route.take().map(|route| route::wire(&route));
    let started = convert::started(&answering.id, &answering.node, &answering.model, route);
    let told = stream::unfold(Some((answering, open)), async |state| {
        let (mut answering, mut open) = state?;
        let message = match answering.next().await? {
            Ok(event) => open.hear(&event).await.map(|()| convert::event(event, || answering.timing())),
            Err(error) => Err(not_served(&error)),
        };
        let goes_on = message.is_ok();
        Some((message, goes_on.then_some((answering, open))))
    });
    stream::iter([Ok(started)]).chain(told)
}

// === impl Open ===

impl Open {
    /// Takes part of the answer down. Its end is kept when this is done.
    async fn hear(&mut self, event: &AnswerEvent) -> Result<(), Status> {
        match event {
            AnswerEvent::Piece { text, n_tokens } => {
                self.text.push_str(text);
                self.usage.output_tokens = self.usage.output_tokens.saturating_add(*n_tokens);
            }
            AnswerEvent::Finished(finished) => {
                if let Some(turn) = self.turn.take() {
                    let answer = std::mem::take(&mut self.text);
                    turn.finish(answer, finished.usage).await.map_err(|e| refused(&e))?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // where nothing was said, the session stays as it was
        if self.text.is_empty() {
            return;
        }
        let Some(turn) = self.turn.take() else { return };
        if self.keep_partial {
            turn.keep_partial(std::mem::take(&mut self.text), self.usage);
        } else {
            turn.give_up(self.usage);
        }
    }
}
