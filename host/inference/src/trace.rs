//! Where a request stands in a distributed trace, and the parts of it that are measured.
//!
//! A part is a span of the crate `tracing` with the target [`TARGET`] and ids of its own, so that whoever measures knows nothing of how traces leave
//! the house. It is made only for requests that are sampled: all others cost one comparison. Parts hold names, numbers and times, and never what was
//! asked or said.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
};

#[doc(hidden)]
pub use tracing;

/// The target of every span that is part of a trace.
pub const TARGET: &str = "llambo::trace";

/// A place in a trace, as W3C's `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace_id: u128,
    /// Whose children are begun here; 0 where nobody asked for a trace and a new one begins.
    pub span_id: u64,
    /// Whether its parts are to be written down.
    pub is_sampled: bool,
}

/// One measured part of a request. Ends as it drops. Nothing at all where the request is not sampled.
#[derive(Debug, Default)]
pub struct Part(Option<Box<(tracing::Span, TraceContext)>>);

/// Opens a [`Part`] under a place in a trace: `part!(parent, "name", field = value, other = Empty)`. A field that is recorded later must be named here
/// with [`tracing::field::Empty`].
#[macro_export]
macro_rules! part {
    ($parent:expr, $name:literal $(, $($fields:tt)*)?) => {
        $crate::trace::Part::open($parent, |parent, own| {
            use $crate::trace::tracing::field::Empty;
            $crate::trace::tracing::info_span!(
                target: "llambo::trace", parent: None, $name,
                trace_id = own.trace_id, span_id = own.span_id, parent_id = parent.span_id, "error.type" = Empty, $($($fields)*)?
            )
        })
    };
}

// === impl TraceContext ===

impl TraceContext {
    /// A trace that begins here.
    pub fn begun(is_sampled: bool) -> Self {
        let trace_id = (u128::from(random_id()) << 64) | u128::from(random_id());
        Self { trace_id, span_id: 0, is_sampled }
    }

    /// Reads the header `traceparent`. `None` for what W3C says is none.
    pub fn parse(header: &str) -> Option<Self> {
        let mut fields = header.trim().split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        // later versions may add fields, and this one has none
        let is_known = match version {
            "ff" => false,
            "00" => fields.next().is_none(),
            version => hex(version, 2).is_some(),
        };
        let (trace_id, span_id, flags) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?, hex(flags, 2)?);
        let is_sampled = flags & 1 == 1;
        (is_known && trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, is_sampled })
    }

    fn child(self) -> Self {
        Self { span_id: random_id(), ..self }
    }
}

/// As the header `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

fn hex(text: &str, n_digits: usize) -> Option<u128> {
    let is_hex = text.len() == n_digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| is_hex)
}

/// The standard library's hasher has keys of its own in each process and for each call; that is all an id needs.
fn random_id() -> u64 {
    RandomState::new().hash_one(0).max(1)
}

// === impl Part ===

impl Part {
    /// What [`part!`](crate::part) makes.
    #[doc(hidden)]
    pub fn open(parent: Option<TraceContext>, make: impl FnOnce(TraceContext, TraceContext) -> tracing::Span) -> Self {
        let Some(parent) = parent.filter(|parent| parent.is_sampled) else { return Self(None) };
        let own = parent.child();
        let span = make(parent, own);
        // nobody listens
        Self((!span.is_disabled()).then(|| Box::new((span, own))))
    }

    /// Where this part's own parts belong.
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_deref().map(|(_, context)| *context)
    }

    /// Whether anything is written down.
    pub fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Notes what was not known when it was opened.
    pub fn record(&self, field: &'static str, value: impl tracing::Value) {
        if let Some((span, _)) = self.0.as_deref() {
            span.record(field, value);
        }
    }

    /// It failed, for a reason of the contract.
    pub fn failed(&self, reason: &str) {
        self.record("error.type", reason);
    }

    /// Ends now.
    pub fn end(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_it_is_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = TraceContext::parse(text).unwrap();
        assert_eq!(read.to_string(), text);
        assert!(read.is_sampled);
        assert!(!TraceContext::parse(&text.replace("-01", "-00")).unwrap().is_sampled);
        // a later version may have more fields
        assert!(TraceContext::parse(&format!("cc{}-what-comes", &text[2..])).is_some());
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            "00".into(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{zeros}-{span}-01"),
            format!("00-{trace}-{}-01", &zeros[..16]),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-+{}-{span}-01", &trace[1..]),
            format!("00-{trace}-{span}-zz"),
            format!("0-{trace}-{span}-01"),
        ] {
            assert_eq!(TraceContext::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn traces_that_begin_here_differ() {
        let (one, two) = (TraceContext::begun(true), TraceContext::begun(true));
        assert_ne!(one.trace_id, two.trace_id);
        assert_ne!(one.child().span_id, one.child().span_id);
    }

    #[test]
    fn a_request_that_is_not_sampled_has_no_parts() {
        let unsampled = TraceContext::begun(false);
        for parent in [None, Some(unsampled)] {
            let part = Part::open(parent, |_, _| unreachable!("a span costs something"));
            assert!(part.context().is_none() && !part.is_open());
        }
    }
}
