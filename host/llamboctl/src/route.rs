//! How a node was chosen: as JSON, which `JSON.md` and `POLICY-TRACES.md` describe, and as a text for people.

use std::io::{self, Write};

use llambo_client as wire;
use serde::{Deserialize, Serialize};

use crate::output::{
    self,
    Align::{Left, Right},
};

/// What the host says of a choice. What it leaves empty is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Route {
    #[serde(default)]
    pub(crate) strategy: String,
    pub(crate) policy: Option<PolicyRef>,
    pub(crate) fallback: Option<String>,
    pub(crate) candidates: Vec<Candidate>,
    #[serde(default)]
    pub(crate) n_eligible: u32,
    pub(crate) chosen: String,
    #[serde(default)]
    pub(crate) decision_ns: f64,
    #[serde(default)]
    pub(crate) failed: Vec<String>,
    #[serde(default)]
    pub(crate) waited_ms: f64,
    pub(crate) shadow: Option<String>,
    pub(crate) tier: Option<u32>,
    pub(crate) tier_by: Option<String>,
    #[serde(default)]
    pub(crate) tier_reason: Option<String>,
    pub(crate) admission: Option<String>,
}

/// Names one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PolicyRef {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) generation: u32,
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) sha256: String,
}

/// A node that could have served the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) node: String,
    #[serde(default)]
    pub(crate) r#type: String,
    pub(crate) in_flight: u32,
    pub(crate) capacity: u32,
    #[serde(default)]
    pub(crate) weight: f64,
    #[serde(default)]
    pub(crate) ttft_us: f64,
    #[serde(default)]
    pub(crate) latency_us: f64,
    #[serde(default)]
    pub(crate) failures: f64,
    #[serde(default)]
    pub(crate) cached_bytes: u32,
    #[serde(default)]
    pub(crate) tier: u32,
    pub(crate) score: Option<f64>,
}

// === impl Route ===

impl Route {
    /// Writes it as a block of lines and a table in which the chosen node has a mark.
    pub(crate) fn explain(&self, out: &mut impl Write) -> io::Result<()> {
        let took = output::nanos(self.decision_ns);
        let by = match (&self.policy, &self.fallback) {
            (Some(policy), None) => format!("{} {}", policy.kind, policy.shown()),
            (_, Some(why)) => format!("{}, because the policy did not decide: {why}", self.strategy),
            (None, None) => self.strategy.clone(),
        };
        let mut line = |name: &str, text: String| writeln!(out, "{name:<9}  {}", output::for_terminal(&text));
        line("node", self.chosen.clone())?;
        line("chosen by", format!("{by}; decided in {took}"))?;
        if let Some(tier) = self.tier {
            let by = self.tier_by.as_ref().map_or_else(String::new, |by| format!(", said by the {by}"));
            let why = self.tier_reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            line("tier", format!("{tier}{by}{why}"))?;
        }
        if let Some(verdict) = &self.admission {
            line("admission", verdict.clone())?;
        }
        if self.waited_ms > 0.0 {
            line("waited", format!("{:.1} ms", self.waited_ms))?;
        }
        if !self.failed.is_empty() {
            line("failed", self.failed.join(", "))?;
        }
        if let Some(node) = &self.shadow {
            line("shadow", format!("would have chosen {node}"))?;
        }
        line("among", format!("{} of {} nodes that could serve it", self.candidates.len(), self.n_eligible))?;
        let columns = [
            ("", Left),
            ("NODE", Left),
            ("TYPE", Left),
            ("IN FLIGHT", Right),
            ("WEIGHT", Right),
            ("FIRST TOKEN", Right),
            ("LATENCY", Right),
            ("FAILED", Right),
            ("CACHED", Right),
            ("TIER", Right),
            ("SCORE", Right),
        ];
        let average = |us: f64| if us > 0.0 { output::nanos(us * 1e3) } else { "-".to_owned() };
        let rows: Vec<_> = self
            .candidates
            .iter()
            .map(|c| {
                [
                    if c.node == self.chosen { "*".to_owned() } else { String::new() },
                    c.node.clone(),
                    c.r#type.clone(),
                    format!("{}/{}", c.in_flight, c.capacity),
                    c.weight.to_string(),
                    average(c.ttft_us),
                    average(c.latency_us),
                    output::percent(c.failures),
                    output::bytes(c.cached_bytes.into()),
                    c.tier.to_string(),
                    c.score.map_or_else(|| "-".to_owned(), |score| format!("{score:.3}")),
                ]
            })
            .collect();
        output::table(out, columns, &rows)
    }
}

impl From<wire::Route> for Route {
    fn from(route: wire::Route) -> Self {
        Self {
            strategy: route.strategy,
            policy: route.policy.map(PolicyRef::from),
            fallback: some(route.fallback),
            candidates: route.candidates.into_iter().map(Candidate::from).collect(),
            n_eligible: route.n_eligible,
            chosen: route.chosen,
            decision_ns: finite(route.decision_ns),
            failed: route.failed,
            waited_ms: finite(route.waited_ms),
            shadow: some(route.shadow),
            tier: route.tier,
            tier_by: some(route.tier_by),
            tier_reason: some(route.tier_reason),
            admission: some(route.admission),
        }
    }
}

impl From<Route> for wire::Route {
    fn from(route: Route) -> Self {
        // a trace that somebody wrote need not repeat what its list says
        let n_eligible = route.n_eligible.max(u32::try_from(route.candidates.len()).unwrap_or(u32::MAX));
        Self {
            strategy: route.strategy,
            policy: route.policy.map(wire::PolicyRef::from),
            fallback: route.fallback.unwrap_or_default(),
            candidates: route.candidates.into_iter().map(wire::RouteCandidate::from).collect(),
            n_eligible,
            chosen: route.chosen,
            decision_ns: route.decision_ns,
            failed: route.failed,
            waited_ms: route.waited_ms,
            shadow: route.shadow.unwrap_or_default(),
            tier: route.tier,
            tier_by: route.tier_by.unwrap_or_default(),
            tier_reason: route.tier_reason.unwrap_or_default(),
            admission: route.admission.unwrap_or_default(),
        }
    }
}

// === impl PolicyRef ===

impl PolicyRef {
    /// `latency-aware (generation 3, 9f1c2a7b43de)`
    pub(crate) fn shown(&self) -> String {
        let digest: String = self.sha256.chars().take(12).collect();
        format!("{} (generation {}, {digest})", self.name, self.generation)
    }
}

impl From<wire::PolicyRef> for PolicyRef {
    fn from(policy: wire::PolicyRef) -> Self {
        let wire::PolicyRef { kind, name, sha256, generation, role } = policy;
        Self { kind, name, generation, role, sha256 }
    }
}

impl From<PolicyRef> for wire::PolicyRef {
    fn from(policy: PolicyRef) -> Self {
        let PolicyRef { kind, name, generation, role, sha256 } = policy;
        Self { kind, name, sha256, generation, role }
    }
}

// === impl Candidate ===

impl From<wire::RouteCandidate> for Candidate {
    fn from(c: wire::RouteCandidate) -> Self {
        Self {
            node: c.node,
            r#type: c.r#type,
            in_flight: c.in_flight,
            capacity: c.capacity,
            weight: finite(c.weight),
            ttft_us: finite(c.ttft_us),
            latency_us: finite(c.latency_us),
            failures: finite(c.failures),
            cached_bytes: c.cached_bytes,
            tier: c.tier,
            // a policy notes what it likes
            score: c.score.filter(|score| score.is_finite()),
        }
    }
}

impl From<Candidate> for wire::RouteCandidate {
    fn from(c: Candidate) -> Self {
        Self {
            node: c.node,
            r#type: c.r#type,
            in_flight: c.in_flight,
            capacity: c.capacity,
            weight: c.weight,
            ttft_us: c.ttft_us,
            latency_us: c.latency_us,
            failures: c.failures,
            cached_bytes: c.cached_bytes,
            tier: c.tier,
            score: c.score,
        }
    }
}

/// Which tier served an answer, and why, as a line.
pub(crate) fn tier(served: &wire::TierServed) -> String {
    let by = if served.by.is_empty() { String::new() } else { format!(", said by the {}", served.by) };
    match served.wanted {
        Some(wanted) if served.fell_back => {
            format!("served by {} of tier {} in the place of tier {wanted}{by}: {}", served.node, served.tier, served.reason)
        }
        _ => format!("served by {} of tier {}{by}: {}", served.node, served.tier, served.reason),
    }
}

/// The same as `JSON.md` describes it.
pub(crate) fn tier_json(served: &wire::TierServed) -> serde_json::Value {
    serde_json::json!({
        "node": served.node,
        "tier": served.tier,
        "wanted": served.wanted,
        "by": some(served.by.clone()),
        "reason": served.reason,
        "fell_back": served.fell_back,
    })
}

/// Text, if there is any.
pub(crate) fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// JSON has no other numbers.
pub(crate) fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn route() -> wire::Route {
        let candidate = |n: u32| wire::RouteCandidate {
            node: format!("tiny-{n}"),
            r#type: "tiny".into(),
            in_flight: n,
            capacity: 4,
            weight: 0.5,
            ttft_us: 1500.0,
            latency_us: 25_000.0,
            failures: 0.125,
            cached_bytes: 2048,
            tier: 1,
            score: (n != 1).then_some(0.75),
        };
        wire::Route {
            strategy: "round-robin".into(),
            policy: Some(wire::PolicyRef {
                kind: "balancer".into(),
                name: "latency-aware".into(),
                sha256: "9f1c2a7b43de00ff".into(),
                generation: 3,
                role: "live".into(),
            }),
            fallback: String::new(),
            candidates: vec![candidate(0), candidate(1)],
            n_eligible: 120,
            chosen: "tiny-1".into(),
            decision_ns: 1250.0,
            failed: vec!["tiny-7".into()],
            waited_ms: 3.5,
            shadow: "tiny-0".into(),
            tier: Some(0),
            tier_by: "classifier".into(),
            tier_reason: String::new(),
            admission: "queue".into(),
        }
    }

    #[test]
    fn a_tier_that_is_not_the_one_asked_for_is_called_that() {
        let (node, by, reason) = ("big-1".to_owned(), "heuristic".to_owned(), "simple; no node of tier 0 was free".to_owned());
        let served = wire::TierServed { node, tier: 2, wanted: Some(0), by, reason, fell_back: true };
        assert_eq!(
            tier(&served),
            "served by big-1 of tier 2 in the place of tier 0, said by the heuristic: simple; no node of tier 0 was free"
        );
        let any =
            wire::TierServed { wanted: None, by: String::new(), reason: "any tier would do".into(), fell_back: false, ..served };
        assert_eq!(tier(&any), "served by big-1 of tier 2: any tier would do");
        assert_eq!((&tier_json(&any)["wanted"], &tier_json(&any)["by"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    }

    fn explained(route: wire::Route) -> String {
        let mut out = Vec::new();
        Route::from(route).explain(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_explanation_names_who_decided_and_marks_the_node() {
        let text = explained(route());
        let expected = "\
node       tiny-1
chosen by  balancer latency-aware (generation 3, 9f1c2a7b43de); decided in 1.2 µs
tier       0, said by the classifier
admission  queue
waited     3.5 ms
failed     tiny-7
shadow     would have chosen tiny-0
among      2 of 120 nodes that could serve it
   NODE    TYPE  IN FLIGHT  WEIGHT  FIRST TOKEN  LATENCY  FAILED   CACHED  TIER  SCORE
   tiny-0  tiny        0/4     0.5       1.5 ms  25.0 ms   12.5%  2.0 KiB     1  0.750
*  tiny-1  tiny        1/4     0.5       1.5 ms  25.0 ms   12.5%  2.0 KiB     1      -
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_explanation_says_why_the_strategy_decided() {
        let fallen = explained(wire::Route { policy: None, fallback: "timeout".into(), ..route() });
        assert!(fallen.contains("chosen by  round-robin, because the policy did not decide: timeout; decided in"), "{fallen}");
        let plain = explained(wire::Route { policy: None, shadow: String::new(), tier: None, ..route() });
        assert!(plain.contains("chosen by  round-robin; decided in"), "{plain}");
        assert!(!plain.contains("shadow") && !plain.contains("tier  "), "{plain}");
    }

    #[test]
    fn numbers_that_json_lacks_do_not_spoil_it() {
        let mut wild = route();
        wild.decision_ns = f64::NAN;
        wild.candidates[0].score = Some(f64::INFINITY);
        wild.candidates[0].weight = f64::INFINITY;
        let text = serde_json::to_string(&Route::from(wild)).unwrap();
        let read: Route = serde_json::from_str(&text).unwrap();
        assert_eq!((read.decision_ns, read.candidates[0].score, read.candidates[0].weight), (0.0, None, 0.0));
    }
}
