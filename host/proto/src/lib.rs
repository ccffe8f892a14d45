//! The wire: generated messages and services, and their translation from and to [`llambo_inference`]'s vocabulary.
//!
//! Decides nothing. Which model a request without one goes to, and what a full queue says, is decided by the rooms that
//! know; here those decisions get the form that gRPC clients read.

pub mod convert;
pub mod deadline;
pub mod status;

/// Messages, clients and servers of package `llambo.v1`, generated from `proto/llambo/v1/llambo.proto`.
pub mod v1 {
    #![allow(missing_docs, reason = "messages whose names say it all carry no comment in the .proto file")]
    #![allow(unreachable_pub, unused_lifetimes, reason = "generated")]
    #![allow(clippy::pedantic, clippy::unwrap_used, clippy::allow_attributes_without_reason, reason = "generated")]
    #![allow(clippy::large_enum_variant, reason = "a message on its way is moved a few times, and never kept in numbers")]
    tonic::include_proto!("llambo.v1");
}

/// The encoded `FileDescriptorSet` of `llambo.v1`, comments included: what server reflection answers from.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Full names of the services, as health checks and reflection spell them.
pub const SERVICES: [&str; 7] = [
    "llambo.v1.Inference", "llambo.v1.Cluster", "llambo.v1.Modules", "llambo.v1.Models", "llambo.v1.Policies",
    "llambo.v1.Faults", "llambo.v1.Sessions",
];
