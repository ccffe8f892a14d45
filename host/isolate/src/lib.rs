//! Isolates: guest modules in wasmtime, each with its own memory, CPU and call budget, reaching models through `wasi:nn`.
//!
//! The way in is [`Sandbox`]: it makes a [`NodeType`] of a [`Module`] and [`Limits`], and the type spawns [`Isolate`]s, which are
//! [`llambo_inference::Node`]s. Guests see models as [`llambo_inference::Models`]; this crate knows no llama.cpp.
//!
//! `pool` is the room isolates live in, `slab` how it is laid out where the system can, `module` what runs in them, `guest` one running instance, `state`, `nn` and `branch` what a
//! guest can call, `limits`, `cpu`, `share`, `lane` and `ticker` what holds it back and ends it.

mod bindings;
#[expect(unreachable_pub, reason = "the generated bindings re-export the resource type")]
mod branch;
mod command;
mod cpu;
mod ephemeral;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guest;
mod health;
mod hibernate;
mod isolate;
mod journal;
mod lane;
mod lifecycle;
mod limits;
mod module;
#[expect(unreachable_pub, reason = "the generated bindings re-export the resource types")]
mod nn;
mod node_type;
mod output;
mod pool;
mod preflight;
mod serving;
mod share;
mod slab;
mod state;
mod ticker;
mod trial;

pub use self::{
    error::SandboxError,
    hibernate::{Dormitory, HibernateError, Origin, Sleeper},
    isolate::Isolate,
    limits::Limits,
    module::Module,
    node_type::{NodeType, Sandbox, Spawned, TypeSettings},
    pool::Layout,
    preflight::{Need, Shortage, preflight},
    trial::Trial,
};

/// Tells the metrics recorder what this crate's metrics mean. To be called once a recorder is there.
pub fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_histogram};
    describe_counter!("llambo_isolate_replaced_total", "Guests that ended badly and were replaced, by reason");
    describe_counter!("llambo_isolate_heavy_total", "Guests that computed without a wait and went on in the heavy lane, by type");
    describe_histogram!("llambo_isolate_spawn_seconds", Unit::Seconds, "Time from nothing to a ready isolate");
    describe_histogram!("llambo_isolate_guest_cpu_seconds", Unit::Seconds, "CPU time a guest took for one request");
    describe_histogram!("llambo_isolate_nn_compute_seconds", Unit::Seconds, "Time a guest waited in one `compute`");
}
