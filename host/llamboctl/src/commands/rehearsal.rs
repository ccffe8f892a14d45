//! `llamboctl cluster test`: everything that a client needs, tried once.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use hyper::Method;
use llambo_client::{Ask, Health};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    Session,
    http::{self, Port},
};
use crate::{
    exit::{Failure, NO, OK},
    output::{
        self,
        Align::{Left, Right, State},
    },
};

/// One thing that was tried.
struct Step {
    what: String,
    /// What was found, or why it failed.
    found: Result<String, String>,
    took: Duration,
}

pub(crate) async fn test(session: &Session, port: &Port<'_>, limit: Duration) -> Result<u8, Failure> {
    // without a host there is nothing to try, and the usual error says what to do
    let status = session.client.status().await?;
    let client = &session.client;
    let mut steps = vec![
        Step::of("gRPC".into(), limit, async { Ok::<_, String>(format!("llambo {} at {}", status.version, client.address())) })
            .await,
        Step::of("health".into(), limit, async {
            match client.health("").await {
                Ok(Health::Serving) => Ok("takes requests".into()),
                Ok(Health::NotServing) => Err("does not take requests; is it draining?".to_owned()),
                Err(e) => Err(e.to_string()),
            }
        })
        .await,
        Step::of("HTTP".into(), limit, async {
            match port.whole(http::bare(Method::GET, "/readyz")?).await? {
                (status, _) if status.is_success() => Ok(format!("ready at {}", port.address())),
                (status, _) => Err(Failure::refused(format!("`{}/readyz` answered {status}", port.address()))),
            }
        })
        .await,
        Step::of("nodes".into(), limit, async {
            let n = |state: &str| status.nodes_by_state.get(state).copied().unwrap_or(0);
            let (able, failed) = (n("ready") + n("busy") + n("hibernated") + n("starting"), n("failed"));
            match (able, failed) {
                (0, _) => Err("none can serve; add some with `llamboctl spawn`".to_owned()),
                (able, 0) => Ok(format!("{able} can serve")),
                (able, failed) => {
                    Err(format!("{able} can serve, and {failed} failed; see `llamboctl nodes list --state failed`"))
                }
            }
        })
        .await,
    ];
    for model in &status.models {
        let ask = Ask::text("Hello").model(&model.name).max_tokens(4).temperature(0.0).timeout(limit);
        let answered = async { client.infer(ask).await.map(|answer| format!("answered by {}", answer.node)) };
        steps.push(Step::of(format!("model {}", model.name), limit, answered).await);
    }
    let n_failed = steps.iter().filter(|step| step.found.is_err()).count();
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &steps.iter().map(Step::to_json).collect())?;
    } else {
        let rows: Vec<_> = steps.iter().map(Step::row).collect();
        output::table(&mut out, [("STEP", Left), ("RESULT", State), ("TIME", Right), ("FOUND", Left)], &rows)?;
        if n_failed > 0 {
            writeln!(out, "{n_failed} of {} steps failed", steps.len())?;
        }
    }
    Ok(if n_failed == 0 { OK } else { NO })
}

// === impl Step ===

impl Step {
    async fn of<E: Told>(what: String, limit: Duration, work: impl Future<Output = Result<String, E>>) -> Self {
        let began = Instant::now();
        let found = match timeout(limit, work).await {
            Ok(found) => found.map_err(|e| e.told()),
            Err(_) => Err(format!("took longer than {} s", limit.as_secs_f64())),
        };
        Self { what, found, took: began.elapsed() }
    }

    fn row(&self) -> [String; 4] {
        let (result, found) = match &self.found {
            Ok(found) => ("ok", found),
            Err(why) => ("failed", why),
        };
        [self.what.clone(), result.into(), output::nanos(self.took.as_secs_f64() * 1e9), found.clone()]
    }

    fn to_json(&self) -> Value {
        let (Ok(found) | Err(found)) = &self.found;
        json!({ "step": self.what, "ok": self.found.is_ok(), "found": found, "ms": self.took.as_secs_f64() * 1e3 })
    }
}

/// What can say why a step failed.
trait Told {
    fn told(&self) -> String;
}

impl Told for String {
    fn told(&self) -> String {
        self.clone()
    }
}

impl Told for Failure {
    fn told(&self) -> String {
        self.message().to_owned()
    }
}

impl Told for llambo_client::Error {
    fn told(&self) -> String {
        self.to_string()
    }
}
