//! Which models are in memory, and which come back when somebody asks for them.
//!
//! Each model has a stand-in ([`Model`]) that is its engine to everybody. A request that meets a model in memory goes straight through;
//! one that meets a model that was put aside wakes it first, and waits for that no longer than it may. Where there is no room, the model
//! that was used longest ago goes, if it is idle and not pinned. Who uses a model is counted: none is taken away under a request.
//!
//! ```text
//!            put_aside, or room is needed           nobody uses it
//!    Awake ──────────────────────────────► Leaving ───────────────► Asleep
//!      ▲                                                              │ somebody asks, or `wake`
//!      └───────────────────────── Waking ◄───────────────────────────┘
//! ```
//!
//! Knows neither files nor llama.cpp: what loads is given to it ([`Loader`]).

mod choice;
mod error;
mod model;
mod shelf;

#[cfg(test)]
mod tests;

pub use error::ShelfError;
pub use model::{Model, Stage};
pub use shelf::{Loader, Settings, Shelf, Status, Woken};

/// Describes this room's metrics to the recorder.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "llambo_model_loads_total",
        "Models brought into memory, by model and outcome: done, failed, no_room"
    );
    metrics::describe_counter!("llambo_model_unloads_total", "Models taken out of memory, by model and cause: asked, room");
    metrics::describe_gauge!(
        "llambo_models_memory_bytes",
        metrics::Unit::Bytes,
        "Memory that the loaded models are counted with"
    );
}
