//! Conversations, whatever their client speaks: gRPC and HTTP both come here, with the messages of `llambo.proto`.

mod ask;
mod fit;
mod wire;

use llambo_inference::{Message, ModelName, Prompt};
use llambo_proto::{
    convert::Asked,
    status::{self, Failure},
    v1,
};
use llambo_sessions::{NewSession, SessionError, Sessions, WhenFull};
use prost::Message as _;
use tonic::Status;

use crate::{
    caller::Caller,
    door::Door,
    grpc::{invalid_field, not_served},
};

/// Sessions on one page: unless told otherwise, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// The sessions of a host, and the door through which they ask.
#[derive(Clone)]
pub(crate) struct Conversing {
    pub(crate) door: Door,
}

impl Conversing {
    fn sessions(&self) -> &Sessions {
        &self.door.host.sessions
    }

    pub(crate) async fn create(&self, caller: &Caller, new: v1::CreateSessionRequest) -> Result<v1::Session, Status> {
        let named = (!new.model.is_empty()).then(|| ModelName::from(&new.model));
        let (model, engine) = self.door.engine_for(caller, named.as_ref()).map_err(|e| status::status(&e))?;
        let system = (!new.system.is_empty()).then(|| v1::Message { role: "system".into(), content: new.system });
        let mut said = messages_of(system.into_iter().collect())?;
        said.extend(messages_of(new.chat.map(|chat| chat.messages).unwrap_or_default())?);
        let when_full = match new.when_full.as_str() {
            "" => WhenFull::default(),
            name => WhenFull::parse(name)
                .ok_or_else(|| invalid_field("when_full", format_args!("{name:.32?}"), "`refuse` or `drop_oldest`"))?,
        };
        // what each of its questions will say is looked at now
        let question = asked(v1::GenerateRequest {
            r#type: new.r#type,
            tier: new.tier,
            labels: new.labels,
            options: new.options.clone(),
            prompt: Some(v1::generate_request::Prompt::Text("-".into())),
            ..v1::GenerateRequest::default()
        })?;
        if let Some(node_type) = &question.node_type {
            self.door.check_type(caller, node_type).map_err(|error| not_served(&error))?;
        }
        question.options.resolve(&engine.info().sampling).map_err(|e| status::status(&e.into()))?;
        let new = NewSession {
            model,
            node_type: question.node_type,
            tier: question.routing.tier,
            options: new.options.unwrap_or_default().encode_to_vec().into(),
            labels: question.routing.labels,
            ttl: (new.ttl_ms > 0).then(|| std::time::Duration::from_millis(new.ttl_ms)),
            token_budget: new.token_budget,
            when_full,
            messages: said,
        };
        let made = self.sessions().create(&caller.tenant, new).await.map_err(|e| refused(&e))?;
        Ok(wire::session(&made, self.sessions()))
    }

    pub(crate) async fn append(&self, caller: &Caller, request: v1::AppendMessagesRequest) -> Result<v1::Session, Status> {
        let new = messages_of(request.chat.map(|chat| chat.messages).unwrap_or_default())?;
        if new.is_empty() {
            return Err(invalid_field("chat.messages", "empty", "at least one message"));
        }
        let after = self.sessions().append(&caller.tenant, &request.session_id, new).await.map_err(|e| refused(&e))?;
        Ok(wire::session(&after, self.sessions()))
    }

    pub(crate) async fn fork(&self, caller: &Caller, request: v1::ForkSessionRequest) -> Result<v1::Session, Status> {
        let n_messages = request.at_message.map(|n| n as usize);
        let fork = self.sessions().fork(&caller.tenant, &request.session_id, n_messages).await.map_err(|e| refused(&e))?;
        Ok(wire::session(&fork, self.sessions()))
    }

    pub(crate) fn get(&self, caller: &Caller, id: &str) -> Result<v1::GetSessionResponse, Status> {
        let session = self.sessions().get(&caller.tenant, id).map_err(|e| refused(&e))?;
        let messages = session.messages.iter().map(|message| wire::message(message)).collect();
        Ok(v1::GetSessionResponse { session: Some(wire::session(&session, self.sessions())), messages })
    }

    pub(crate) fn list(&self, caller: &Caller, request: &v1::ListSessionsRequest) -> Result<v1::ListSessionsResponse, Status> {
        let limit = match request.limit as usize {
            0 => PAGE,
            limit if limit <= MAX_PAGE => limit,
            limit => return Err(invalid_field("limit", limit, "at most 1000")),
        };
        let page = self.sessions().list(&caller.tenant, &request.after, limit).map_err(|e| refused(&e))?;
        let sessions = page.sessions.iter().map(|session| wire::session(session, self.sessions())).collect();
        Ok(v1::ListSessionsResponse { sessions, next: page.next.unwrap_or_default() })
    }

    pub(crate) async fn delete(&self, caller: &Caller, id: &str) -> Result<(), Status> {
        self.sessions().delete(&caller.tenant, id).await.map_err(|e| refused(&e))
    }
}

/// Messages that were read and checked.
fn messages_of(messages: Vec<v1::Message>) -> Result<Vec<Message>, Status> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let prompt = v1::generate_request::Prompt::Chat(v1::Messages { messages });
    match asked(v1::GenerateRequest { prompt: Some(prompt), ..v1::GenerateRequest::default() })?.prompt {
        Prompt::Chat(messages) => Ok(messages),
        Prompt::Text(_) => Ok(Vec::new()),
    }
}

fn asked(request: v1::GenerateRequest) -> Result<Asked, Status> {
    Asked::try_from(request).map_err(|e| status::status(&e))
}

fn refused(error: &SessionError) -> Status {
    let failure = Failure::new(error.reason(), error.to_string());
    match error {
        SessionError::Unknown { id } | SessionError::Busy { id } => failure.with("session_id", id),
        SessionError::BudgetExhausted { budget, spent, .. } => {
            let what = format!("{spent} of {budget} tokens");
            failure.with("token_budget", budget).with("spent", spent).quota("token_budget", what)
        }
        SessionError::Full { n_messages, limit } => {
            let what = format!("{n_messages} messages, and {limit} are permitted");
            failure.with("n_messages", n_messages).with("limit", limit).quota("sessions.max-messages", what)
        }
        SessionError::TooMany { n, limit, key, .. } => {
            failure.with("sessions", n).with("limit", limit).quota(key, format!("{n} of {limit} sessions"))
        }
        SessionError::TooLarge { n_bytes, limit } => {
            failure.with("bytes", n_bytes).with("limit", limit).quota("sessions.max-bytes", format!("{n_bytes} of {limit} bytes"))
        }
        SessionError::NotKept(_) => {
            tracing::error!(%error, "a session could not be kept");
            failure
        }
        _ => failure,
    }
    .into_status()
}
