//! Conversations that the host keeps.

use llambo_inference::InferenceError;
use llambo_proto::{
    deadline, status,
    v1::{self, sessions_server::Sessions},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::{
    answer::Deadline,
    caller::Caller,
    pump::{Pumped, pump},
    sessions::Conversing,
};

pub(super) struct Service {
    pub(super) conversing: Conversing,
}

#[tonic::async_trait]
impl Sessions for Service {
    type AskStream = Pumped<Result<v1::GenerateResponse, Status>>;

    async fn create_session(&self, request: Request<v1::CreateSessionRequest>) -> Result<Response<v1::Session>, Status> {
        let caller = Caller::of(request.extensions());
        self.conversing.create(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn ask(&self, request: Request<v1::AskRequest>) -> Result<Response<Self::AskStream>, Status> {
        let received = Instant::now();
        let deadline = deadline::timeout(request.metadata()).map(|timeout| Deadline::new(received, timeout));
        let caller = Caller::of(request.extensions());
        let messages = self.conversing.ask(&caller, request.into_inner(), received, deadline).await?;
        let stalled = |waited| Err(status::status(&InferenceError::stalled(waited)));
        Ok(Response::new(pump(messages, self.conversing.door.patience, stalled)))
    }

    async fn append_messages(&self, request: Request<v1::AppendMessagesRequest>) -> Result<Response<v1::Session>, Status> {
        let caller = Caller::of(request.extensions());
        self.conversing.append(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn fork_session(&self, request: Request<v1::ForkSessionRequest>) -> Result<Response<v1::Session>, Status> {
        let caller = Caller::of(request.extensions());
        self.conversing.fork(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn get_session(&self, request: Request<v1::GetSessionRequest>) -> Result<Response<v1::GetSessionResponse>, Status> {
        let caller = Caller::of(request.extensions());
        self.conversing.get(&caller, &request.into_inner().session_id).map(Response::new)
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let caller = Caller::of(request.extensions());
        self.conversing.list(&caller, &request.into_inner()).map(Response::new)
    }

    async fn delete_session(
        &self,
        request: Request<v1::DeleteSessionRequest>,
    ) -> Result<Response<v1::DeleteSessionResponse>, Status> {
        let caller = Caller::of(request.extensions());
        self.conversing.delete(&caller, &request.into_inner().session_id).await?;
        Ok(Response::new(v1::DeleteSessionResponse {}))
    }
}
