//! The ledger against a model, with crashes; and the whole room on nodes that fail.

mod model;

use std::time::Duration;

use llambo_inference::{GenerateRequest, Priority, Prompt, Routing, Sampling, Share};

use crate::{NewTask, Work, counts::Limits};

fn limits() -> Limits {
    Limits { max_queued: 1000, max_bytes: 1 << 20, attempts: 3, keep: Duration::from_hours(1) }
}

fn request(prompt: &str, node_type: Option<&str>, priority: Priority) -> GenerateRequest {
    GenerateRequest {
        id: "x".into(),
        model: "m".into(),
        node_type: node_type.map(Into::into),
        prompt: Prompt::Text(prompt.into()),
        sampling: Sampling::greedy(8),
        share: Share::default(),
        deadline: None,
        routing: Routing::default(),
        priority,
        journal: None,
        log: None,
    }
}

fn new_task(tenant: &str, id: &str, prompt: &str) -> NewTask {
    let mut digest = [0; 32];
    digest.iter_mut().zip(prompt.bytes()).for_each(|(to, from)| *to = from);
    NewTask {
        id: id.into(),
        key: None,
        digest,
        tenant: tenant.into(),
        weight: 1.0,
        work: Work::of(&request(prompt, None, Priority::Batch), 1),
        timeout_ms: None,
    }
}
