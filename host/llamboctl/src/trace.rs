//! Routing decisions on file, one JSON object on each line: `POLICY-TRACES.md` describes them.

use std::{
    collections::BTreeMap,
    io::{BufRead, Read},
};

use llambo_client::{self as wire, RouteRecord, route_record::Event};
use serde::{Deserialize, Serialize};

use crate::route::{Route, finite};

/// Bytes of a line: 32 candidates and 16 labels have about 20 KB.
const MAX_LINE: u64 = 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Decision(Box<Decision>),
    End(End),
    Missed(u64),
}

#[derive(Debug, Serialize, Deserialize)]
struct Decision {
    number: u64,
    at_ms: f64,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    tenant: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    prompt_bytes: u32,
    #[serde(default)]
    n_messages: u32,
    max_tokens: Option<u32>,
    #[serde(default)]
    constrained: bool,
    deadline_ms: Option<u32>,
    #[serde(default, with = "hexadecimal")]
    entropy: u64,
    route: Route,
}

#[derive(Debug, Serialize, Deserialize)]
struct End {
    number: u64,
    at_ms: f64,
    outcome: String,
    #[serde(default)]
    ttft_us: f64,
    latency_us: f64,
    #[serde(default)]
    input_tokens: u32,
    #[serde(default)]
    cached_tokens: u32,
    #[serde(default)]
    output_tokens: u32,
}

/// Reads a trace line by line. Blank lines are passed over; after an error nothing that it gives makes sense.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    from: R,
    /// As the user named it, for errors.
    name: String,
    n_lines: u64,
}

/// The line of an event, without its end; none for an event that a newer host knows and this program does not.
pub(crate) fn line(record: RouteRecord) -> Option<String> {
    let line = match record.event? {
        Event::Decision(d) => Line::Decision(Box::new(d.into())),
        Event::End(e) => Line::End(e.into()),
        Event::NMissed(n) => Line::Missed(n),
    };
    Some(serde_json::to_string(&line).expect("its keys are strings and its numbers are finite"))
}

/// Reads what [`line`] wrote.
///
/// # Errors
/// What is wrong with it, with its place in the line.
pub(crate) fn parse(line: &str) -> Result<RouteRecord, String> {
    let line: Line = serde_json::from_str(line).map_err(|e| {
        let (text, column) = (e.to_string(), e.column());
        let what = text.strip_suffix(&format!(" at line {} column {column}", e.line())).unwrap_or(&text);
        format!("column {column}: {what}")
    })?;
    let event = match line {
        Line::Decision(d) => Event::Decision((*d).into()),
        Line::End(e) => Event::End(e.into()),
        Line::Missed(n) => Event::NMissed(n),
    };
    Ok(RouteRecord { event: Some(event) })
}

// === impl Decision ===

impl From<wire::RouteDecision> for Decision {
    fn from(d: wire::RouteDecision) -> Self {
        Self {
            number: d.number,
            at_ms: finite(d.at_ms),
            request_id: d.request_id,
            model: d.model,
            r#type: d.r#type,
            tenant: d.tenant,
            labels: d.labels.into_iter().collect(),
            prompt_bytes: d.prompt_bytes,
            n_messages: d.n_messages,
            max_tokens: d.max_tokens,
            constrained: d.constrained,
            deadline_ms: d.deadline_ms,
            entropy: d.entropy,
            route: d.route.unwrap_or_default().into(),
        }
    }
}

impl From<Decision> for wire::RouteDecision {
    fn from(d: Decision) -> Self {
        Self {
            number: d.number,
            at_ms: d.at_ms,
            request_id: d.request_id,
            model: d.model,
            r#type: d.r#type,
            tenant: d.tenant,
            labels: d.labels.into_iter().collect(),
            prompt_bytes: d.prompt_bytes,
            n_messages: d.n_messages,
            max_tokens: d.max_tokens,
            constrained: d.constrained,
            deadline_ms: d.deadline_ms,
            route: Some(d.route.into()),
            entropy: d.entropy,
        }
    }
}

// === impl End ===

impl From<wire::RouteEnd> for End {
    fn from(e: wire::RouteEnd) -> Self {
        Self {
            number: e.number,
            at_ms: finite(e.at_ms),
            outcome: e.outcome,
            ttft_us: finite(e.ttft_us),
            latency_us: finite(e.latency_us),
            input_tokens: e.input_tokens,
            cached_tokens: e.cached_tokens,
            output_tokens: e.output_tokens,
        }
    }
}

impl From<End> for wire::RouteEnd {
    fn from(e: End) -> Self {
        let End { number, at_ms, outcome, ttft_us, latency_us, input_tokens, cached_tokens, output_tokens } = e;
        Self { number, at_ms, outcome, ttft_us, latency_us, input_tokens, cached_tokens, output_tokens }
    }
}

// === impl Reader ===

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(from: R, name: impl Into<String>) -> Self {
        Self { from, name: name.into(), n_lines: 0 }
    }

    fn next_line(&mut self) -> Option<Result<RouteRecord, String>> {
        loop {
            let mut bytes = Vec::new();
            match self.from.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) => self.n_lines += 1,
                Err(e) => return Some(Err(format!("cannot be read: {e}"))),
            }
            if bytes.len() as u64 > MAX_LINE {
                return Some(Err(format!(
                    "longer than {} MiB; give a file that `llamboctl policy record` wrote",
                    MAX_LINE >> 20
                )));
            }
            match str::from_utf8(&bytes).map(str::trim) {
                Ok("") => {}
                Ok(line) => return Some(parse(line)),
                Err(e) => return Some(Err(format!("column {}: not UTF-8 text", e.valid_up_to() + 1))),
            }
        }
    }
}

/// Each error names the file and the line.
impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<RouteRecord, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.next_line()?;
        Some(read.map_err(|what| format!("{}:{}: {what}", self.name, self.n_lines.max(1))))
    }
}

/// 64 bits as text: many readers of JSON keep only 53 bits of a number.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16)
            .map_err(|_| D::Error::custom(format!("`{text}` is not a number of 1 to 16 hexadecimal digits")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::route;

    fn decision() -> RouteRecord {
        let decision = wire::RouteDecision {
            number: u64::MAX,
            at_ms: 1234.5,
            request_id: "r-1".into(),
            model: "builtin:demo".into(),
            r#type: "tiny".into(),
            tenant: "a".into(),
            labels: [("team".to_owned(), "\"x\"\n".to_owned())].into(),
            prompt_bytes: 17,
            n_messages: 2,
            max_tokens: Some(0),
            constrained: true,
            deadline_ms: Some(900),
            route: Some(route()),
            entropy: 0xfedc_ba98_7654_3211,
        };
        RouteRecord { event: Some(Event::Decision(decision)) }
    }

    fn end() -> RouteRecord {
        let end = wire::RouteEnd {
            number: 7,
            at_ms: 2.0,
            outcome: "finished".into(),
            ttft_us: 10.5,
            latency_us: 99.0,
            input_tokens: 1,
            cached_tokens: 2,
            output_tokens: 3,
        };
        RouteRecord { event: Some(Event::End(end)) }
    }

    #[test]
    fn what_was_written_is_read_as_it_was() {
        for record in [decision(), end(), RouteRecord { event: Some(Event::NMissed(3)) }] {
            let text = line(record.clone()).unwrap();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(parse(&text), Ok(record), "{text}");
        }
        assert_eq!(line(RouteRecord { event: None }), None);
    }

    #[test]
    fn entropy_keeps_all_its_bits_in_readers_that_have_only_doubles() {
        assert!(line(decision()).unwrap().contains(r#""entropy":"fedcba9876543211""#));
    }

    #[test]
    fn a_trace_by_hand_needs_only_what_matters() {
        let by_hand = r#"{"decision": {"number": 1, "at_ms": 0, "later": true, "route": {"chosen": "a",
            "candidates": [{"node": "a", "in_flight": 0, "capacity": 1}]}}}"#;
        let Some(Event::Decision(decision)) = parse(by_hand).unwrap().event else { panic!("it is a decision") };
        assert_eq!((decision.max_tokens, decision.entropy), (None, 0));
        let route = decision.route.unwrap();
        assert_eq!((route.n_eligible, route.candidates[0].score, route.policy), (1, None, None));
    }

    #[test]
    fn a_bad_line_is_named_with_what_is_wrong() {
        let good = line(end()).unwrap();
        for (bad, what) in [
            (good.replace(r#""number":7,"#, ""), "missing field `number`"),
            (good.replace("99.0", "\"slow\""), "invalid type: string \"slow\", expected f64"),
            ("{\"start\": {}}".to_owned(), "unknown variant `start`, expected one of `decision`, `end`, `missed`"),
            ("{\"end\": {".to_owned(), "EOF"),
            ("nonsense".to_owned(), "expected value"),
            (line(decision()).unwrap().replace("fedcba", "xyz"), "`xyz9876543211` is not a number of 1 to 16 hexadecimal digits"),
        ] {
            let trace = format!("{good}\n\n{bad}\n");
            let mut reader = Reader::new(trace.as_bytes(), "t.jsonl");
            assert_eq!(reader.next(), Some(Ok(end())));
            let error = reader.next().unwrap().unwrap_err();
            assert!(error.starts_with("t.jsonl:3: column ") && error.contains(what), "{error}");
            assert!(!error.contains("at line 1"), "{error}");
        }
        let binary = Reader::new(&b"\xff\n"[..], "t").next().unwrap().unwrap_err();
        assert_eq!(binary, "t:1: column 1: not UTF-8 text");
        let endless = vec![b' '; 3 * 1024 * 1024];
        let error = Reader::new(&endless[..], "t").next().unwrap().unwrap_err();
        assert!(error.starts_with("t:1: longer than 1 MiB"), "{error}");
    }
}
