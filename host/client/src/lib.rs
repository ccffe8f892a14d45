#![doc = include_str!("../README.md")]

mod ask;
mod client;
mod credentials;
mod error;
mod events;
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
pub use events::{EventFilter, EventStream, Happened};
pub use generation::{Event, Generation};
pub use llambo_proto::status::code_name;
/// The messages that answers are made of, as in `llambo.proto`.
pub use llambo_proto::v1::{
    ActiveFault, Device, DrainResponse, EmbedResponse, Event as ClusterEvent, Fault, Finished, GetBalancerResponse,
    GetSessionResponse, Gpu, Hardware, HibernateResponse, Host, InferResponse, ListPoliciesResponse, LoadModelResponse,
    LoadModuleResponse, LoadPolicyResponse, Message, Model, Module, Node, Piece, Policy, PolicyRef, PromotePolicyResponse,
    Refusal, ReplayDifference, ReplayOutcome, ReplayRoutesResponse, ResumePolicyResponse, RollBackModuleResponse,
    RollBackPolicyResponse, Route, RouteCandidate, RouteDecision, RouteEnd, RouteRecord, SamplingOptions, ScaleResponse, Session,
    SessionUsage, SetBalancerResponse, SpawnResponse, Started, StatusResponse, TierCount, TierServed, Totals, Trial,
    UnloadModelResponse, UnloadModuleResponse, UnloadPolicyResponse, Usage, WakeResponse, route_record,
};
pub use models::LoadModel;
pub use modules::NewModule;
pub use policies::{NewPolicy, PolicyRole, ReplayWith, RouteStream};
pub use sessions::{NewSession, Question};
pub use tonic::Code;
