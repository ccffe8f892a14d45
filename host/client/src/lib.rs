//! Talks to a llambo host over gRPC.
//!
//! ```no_run
//! use futures::TryStreamExt;
//! use llambo_client::{Ask, Client, Event};
//!
//! # async fn example() -> Result<(), llambo_client::Error> {
//! let client = Client::connect("http://127.0.0.1:7400").await?;
//! let mut events = client.generate(Ask::user("Why is the sky blue?").max_tokens(64)).await?;
//! while let Some(event) = events.try_next().await? {
//!     match event {
//!         Event::Started(started) => eprintln!("served by {}", started.node),
//!         Event::Piece(piece) => print!("{}", piece.text),
//!         Event::Finished(finished) => eprintln!("\nfirst token after {:.0} ms", finished.ttft_ms),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing native is behind it: it builds wherever tokio does.

mod ask;
mod client;
mod credentials;
mod error;
mod faults;
mod generation;
mod models;
mod modules;
mod policies;
mod sessions;

pub use ask::Ask;
pub use client::{Client, Health, NodeFilter, StatusStream};
pub use credentials::Credentials;
pub use error::Error;
pub use generation::{Event, Generation};
pub use llambo_proto::status::code_name;
/// The messages that answers are made of, as in `llambo.proto`.
pub use llambo_proto::v1::{
    ActiveFault, DrainResponse, EmbedResponse, Fault, Finished, GetBalancerResponse, GetSessionResponse, HibernateResponse,
    InferResponse, ListPoliciesResponse, LoadModelResponse, LoadModuleResponse, LoadPolicyResponse, Message, Model, Module, Node,
    Piece, Policy, PolicyRef, PromotePolicyResponse, Refusal, ReplayDifference, ReplayOutcome, ReplayRoutesResponse,
    ResumePolicyResponse, RollBackModuleResponse, RollBackPolicyResponse, Route, RouteCandidate, RouteDecision, RouteEnd,
    RouteRecord, SamplingOptions, ScaleResponse, Session, SessionUsage, SetBalancerResponse, SpawnResponse, Started,
    StatusResponse, Trial, UnloadModelResponse, UnloadModuleResponse, UnloadPolicyResponse, Usage, WakeResponse, route_record,
};
pub use models::LoadModel;
pub use modules::NewModule;
pub use policies::{NewPolicy, PolicyRole, ReplayWith, RouteStream};
pub use sessions::{NewSession, Question};
pub use tonic::Code;
