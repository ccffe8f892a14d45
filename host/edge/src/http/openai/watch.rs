//! Finds calls of tools in an answer's text, while it comes.

use std::collections::BTreeSet;

use llambo_inference::FinishReason;
use serde_json::Value;

use super::choice::CallPart;

/// What a model writes around a call, in the form that Hermes models were the first to use.
pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";

/// What a text is watched for.
#[derive(Clone, Debug)]
pub(super) enum Watch {
    /// Nothing.
    Plain,
    /// Calls between tags, and text around them.
    Tagged(Tagged),
    /// The text is one call; its constraint sees to that.
    Forced(Forced),
}

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Text(String),
    Call(CallPart),
}

/// A text that may have calls in it.
#[derive(Clone, Debug)]
pub(super) struct Tagged {
    /// What may be called; other names are text.
    names: BTreeSet<String>,
    /// What may yet become a tag, with white space before it; or a call of which the end is not there.
    held: String,
    is_inside: bool,
    n_calls: usize,
}

/// `{"name": "...", "arguments": {...}}`, as it comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Forced {
    /// All of it before the arguments.
    head: String,
    arguments: Arguments,
    n_calls: usize,
}

/// Where in the JSON of the arguments the text is.
#[derive(Clone, Debug, Default)]
struct Arguments {
    depth: usize,
    in_string: bool,
    escaped: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Before,
    Within,
    Behind,
}

impl Watch {
    /// For calls of these tools between tags.
    pub(super) fn tagged(names: BTreeSet<String>) -> Self {
        Self::Tagged(Tagged { names, held: String::new(), is_inside: false, n_calls: 0 })
    }

    /// Text that came.
    pub(super) fn push(&mut self, text: String) -> Vec<Seen> {
        match self {
            Self::Plain => vec![Seen::Text(text)],
            Self::Tagged(tagged) => tagged.push(&text),
            Self::Forced(forced) => forced.push(&text),
        }
    }

    /// No more comes.
    pub(super) fn end(&mut self) -> Vec<Seen> {
        match self {
            Self::Tagged(tagged) => tagged.end(),
            Self::Plain | Self::Forced(_) => Vec::new(),
        }
    }

    /// Why the answer ended, in the words of OpenAI's interface.
    pub(super) fn finish_reason(&self, reason: FinishReason) -> &'static str {
        let n_calls = match self {
            Self::Plain => 0,
            Self::Tagged(tagged) => tagged.n_calls,
            Self::Forced(forced) => forced.n_calls,
        };
        if n_calls > 0 && reason == FinishReason::Stop { "tool_calls" } else { reason.as_str() }
    }
}

impl Tagged {
    fn push(&mut self, text: &str) -> Vec<Seen> {
        self.held.push_str(text);
        let mut seen = Vec::new();
        loop {
            let tag = if self.is_inside { CLOSE } else { OPEN };
            let Some(at) = self.held.find(tag) else { break };
            let rest = self.held.split_off(at + tag.len());
            let before = std::mem::replace(&mut self.held, rest);
            let before = before.get(..at).unwrap_or_default();
            if self.is_inside {
                self.call(before, true, &mut seen);
            } else {
                self.text(before.trim_end(), &mut seen);
            }
            self.is_inside = !self.is_inside;
        }
        if !self.is_inside {
            let keep = self.held.split_off(self.held.len() - undecided(&self.held));
            let text = std::mem::replace(&mut self.held, keep);
            self.text(&text, &mut seen);
        }
        seen
    }

    fn end(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let held = std::mem::take(&mut self.held);
        if self.is_inside {
            self.call(&held, false, &mut seen);
        } else {
            let held = if self.n_calls > 0 { held.trim_end() } else { &held };
            self.text(held, &mut seen);
        }
        seen
    }

    fn text(&self, text: &str, seen: &mut Vec<Seen>) {
        // lines between calls are no text
        let text = if self.n_calls > 0 { text.trim_start() } else { text };
        if !text.is_empty() {
            seen.push(Seen::Text(text.to_owned()));
        }
    }

    /// A call, or text where what stands between the tags is none.
    fn call(&mut self, json: &str, is_closed: bool, seen: &mut Vec<Seen>) {
        let Some((name, arguments)) = read_call(json).filter(|(name, _)| self.names.contains(name)) else {
            let close = if is_closed { CLOSE } else { "" };
            seen.push(Seen::Text(format!("{OPEN}{json}{close}")));
            return;
        };
        seen.push(Seen::Call(CallPart { index: self.n_calls, name: Some(name), arguments }));
        self.n_calls += 1;
    }
}

/// Bytes at the end of `text` that may become a tag, with the white space before them.
fn undecided(text: &str) -> usize {
    let begun = (1..OPEN.len()).rev().find(|n| text.ends_with(OPEN.get(..*n).unwrap_or(OPEN))).unwrap_or(0);
    let before = text.get(..text.len() - begun).unwrap_or_default();
    begun + before.len() - before.trim_end().len()
}

fn read_call(json: &str) -> Option<(String, String)> {
    let call: Value = serde_json::from_str(json).ok()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = match call.get("arguments") {
        None | Some(Value::Null) => "{}".to_owned(),
        // some models write them as text within the text
        Some(Value::String(text)) => serde_json::from_str::<serde_json::Map<String, Value>>(text).ok().map(|_| text.clone())?,
        Some(arguments) => arguments.is_object().then(|| arguments.to_string())?,
    };
    Some((name, arguments))
}

impl Forced {
    fn push(&mut self, text: &str) -> Vec<Seen> {
        if self.n_calls > 0 {
            return self.more(None, text);
        }
        self.head.push_str(text);
        // `{`, `name`, `: `, the name, `, `, `arguments`, `: {...`; a name has no quotes
        let head = std::mem::take(&mut self.head);
        let mut parts = head.splitn(7, '"');
        let name = parts.nth(3);
        let rest = parts.nth(2).and_then(|rest| rest.find('{').and_then(|at| rest.get(at..)));
        if let (Some(name), Some(rest)) = (name, rest) {
            self.n_calls = 1;
            return self.more(Some(name.to_owned()), rest);
        }
        self.head = head;
        Vec::new()
    }

    fn more(&mut self, name: Option<String>, text: &str) -> Vec<Seen> {
        let arguments = self.arguments.take(text);
        if arguments.is_empty() && name.is_none() {
            return Vec::new();
        }
        vec![Seen::Call(CallPart { index: 0, name, arguments: arguments.to_owned() })]
    }
}

impl Arguments {
    /// As much of `text` as belongs to them.
    fn take<'a>(&mut self, text: &'a str) -> &'a str {
        if self.stage == Stage::Behind {
            return "";
        }
        for (at, c) in text.char_indices() {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' if self.in_string => self.escaped = true,
                '"' => self.in_string = !self.in_string,
                '{' | '[' if !self.in_string => {
                    self.depth += 1;
                    self.stage = Stage::Within;
                }
                '}' | ']' if !self.in_string => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        self.stage = Stage::Behind;
                        return text.get(..=at).unwrap_or(text);
                    }
                }
                _ => {}
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen of a text that comes in pieces of `n` characters: all text, and each call's name and arguments.
    fn seen(mut watch: Watch, text: &str, n: usize) -> (String, Vec<(String, String)>, &'static str) {
        let chars: Vec<char> = text.chars().collect();
        let mut all: Vec<Seen> = chars.chunks(n).flat_map(|piece| watch.push(piece.iter().collect())).collect();
        all.extend(watch.end());
        let (mut text, mut calls) = (String::new(), Vec::new());
        for seen in all {
            match seen {
                Seen::Text(more) => text.push_str(&more),
                Seen::Call(CallPart { index, name, arguments }) => {
                    if let Some(name) = name {
                        assert_eq!(index, calls.len());
                        calls.push((name, String::new()));
                    }
                    calls[index].1.push_str(&arguments);
                }
            }
        }
        (text, calls, watch.finish_reason(FinishReason::Stop))
    }

    fn tagged() -> Watch {
        Watch::tagged(["f".to_owned(), "g".to_owned()].into())
    }

    fn call(name: &str, arguments: &str) -> (String, String) {
        (name.into(), arguments.into())
    }

    #[test]
    fn calls_are_found_however_the_text_is_cut() {
        let text = "Well,\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"</x>\"}}\n</tool_call>\n\
                    <tool_call>{\"name\":\"g\"}</tool_call>\n";
        for n in 1..text.len() {
            let (text, calls, reason) = seen(tagged(), text, n);
            assert_eq!(text, "Well,", "{n}");
            assert_eq!(calls, [call("f", r#"{"a":"</x>"}"#), call("g", "{}")], "{n}");
            assert_eq!(reason, "tool_calls");
        }
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for text in [
            "a < b and <tool_car> \n",
            "<tool_call>nothing</tool_call> more",
            "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
            "<tool_call>{\"name\": \"f\"",
            "ends with <tool",
        ] {
            for n in [1, 3, 1000] {
                let (told, calls, reason) = seen(tagged(), text, n);
                assert_eq!((told.as_str(), calls.len(), reason), (text, 0, "stop"), "{n}");
            }
        }
    }

    #[test]
    fn a_call_that_a_stop_string_cut_is_a_call() {
        let (text, calls, _) = seen(tagged(), "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}\n", 4);
        assert_eq!((text.as_str(), calls), ("", vec![call("f", r#"{"a": 1}"#)]));
    }

    #[test]
    fn text_that_is_no_tag_is_not_held_back() {
        let mut watch = tagged();
        assert_eq!(watch.push("one two".into()), [Seen::Text("one two".into())]);
        assert_eq!(watch.push(" <".into()), []);
        assert_eq!(watch.push("b".into()), [Seen::Text(" <b".into())]);
    }

    #[test]
    fn a_forced_call_comes_as_it_is_written() {
        let json = r#"{"name": "arguments", "arguments": {"a": "}\"", "b": [{}]}}"#;
        for n in 1..json.len() {
            let (text, calls, reason) = seen(Watch::Forced(Forced::default()), json, n);
            assert_eq!((text.as_str(), reason), ("", "tool_calls"));
            assert_eq!(calls, [call("arguments", r#"{"a": "}\"", "b": [{}]}"#)], "{n}");
        }
        let mut watch = Watch::Forced(Forced::default());
        assert_eq!(watch.push(r#"{"name": "f", "arguments": "#.into()), []);
        let first = CallPart { index: 0, name: Some("f".into()), arguments: "{".into() };
        assert_eq!(watch.push("{".into()), [Seen::Call(first)]);
        assert_eq!(watch.finish_reason(FinishReason::Length), "length");
    }
}
