//! A model behind `wasi:nn`, and what it generates.
//!
//! ```text
//! Generation:  Ready --next--> Running --next: `finish` came--> Finished
//!                 \               \--next: error--> Failed
//!                  \--next: error--> Failed
//! ```
//! Dropping a generation gives it up wherever it is.

use std::{fmt, mem};

use crate::{
    ErrorCode, FinishReason, Message, Options, Prompt,
    bindings::wasi::nn::{
        errors,
        graph::{self, Graph},
        inference::GraphExecutionContext,
        tensor::{Tensor, TensorType},
    },
    json,
};

/// A model that is loaded on this host. Opening one costs a look-up; no weights are read.
pub struct Model {
    graph: Graph,
}

/// What a model is given.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Continued as it stands.
    Text(&'a str),
    /// Put into the model's chat template.
    Chat(&'a [Message]),
}

/// An answer under way: an iterator over its pieces of text, none of them empty. It starts with the first `next`, and ends
/// after the last piece or after the first error. Dropping it stops the model.
#[must_use = "nothing is generated before the first piece is asked for"]
pub struct Generation {
    context: GraphExecutionContext,
    state: State,
}

/// How a generation ended and what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens of the prompt, template included.
    pub input_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// All of its text.
    pub text: String,
    /// How it ended.
    pub finish: Finish,
}

/// Why the host did not infer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The class: options or tensors, size, unknown model, deadline, anything else.
    pub code: ErrorCode,
    /// A sentence for people.
    pub message: String,
}

enum State {
    /// What the first `compute` will be given.
    Ready(Vec<(String, Tensor)>),
    Running,
    Finished(Finish),
    Failed(Error),
}

/// The tensors that came back from `compute`, by the names that have a meaning.
#[derive(Default)]
struct Returned {
    text: Option<String>,
    finish: Option<Finish>,
    embedding: Option<Vec<f32>>,
}

// === impl Model ===

impl Model {
    /// The model of that name; `Model::open(&request.model)` is the one the client asked for.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] when it is not loaded here.
    pub fn open(name: &str) -> Result<Self, Error> {
        Ok(Self { graph: graph::load_by_name(name)? })
    }

    /// Prepares an answer that comes in pieces. Several may be under way at once, each read when the guest likes.
    ///
    /// # Errors
    /// The host's, when it gives no context. What is wrong with the input or the options comes with the first piece.
    pub fn generate<'a>(&self, input: impl Into<Input<'a>>, options: &Options) -> Result<Generation, Error> {
        let inputs = tensors(input.into(), &options.to_json(("stream", "true")));
        Ok(Generation { context: self.graph.init_execution_context()?, state: State::Ready(inputs) })
    }

    /// The whole answer at once. The guest is suspended until it is there.
    ///
    /// # Errors
    /// By [`ErrorCode`]: `InvalidArgument` for the options, `TooLarge` for the prompt, `Timeout` for the deadline.
    pub fn complete<'a>(&self, input: impl Into<Input<'a>>, options: &Options) -> Result<Completion, Error> {
        let inputs = tensors(input.into(), &options.to_json(("stream", "false")));
        let returned = compute(&self.graph.init_execution_context()?, inputs)?;
        let finish = returned.finish.ok_or_else(|| Error::missing("finish"))?;
        Ok(Completion { text: returned.text.unwrap_or_default(), finish })
    }

    /// `text` as a point: `[n_embd]` f32 of length 1.
    ///
    /// # Errors
    /// As for [`Model::complete`].
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        let inputs = tensors(Input::Text(text), "{\"embedding\":true}");
        let returned = compute(&self.graph.init_execution_context()?, inputs)?;
        returned.embedding.ok_or_else(|| Error::missing("embedding"))
    }
}

// === impl Input ===

impl<'a> From<&'a Prompt> for Input<'a> {
    fn from(prompt: &'a Prompt) -> Self {
        match prompt {
            Prompt::Text(text) => Self::Text(text),
            Prompt::Chat(messages) => Self::Chat(messages),
        }
    }
}

impl<'a> From<&'a str> for Input<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Input<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [Message]> for Input<'a> {
    fn from(messages: &'a [Message]) -> Self {
        Self::Chat(messages)
    }
}

impl<'a> From<&'a Vec<Message>> for Input<'a> {
    fn from(messages: &'a Vec<Message>) -> Self {
        Self::Chat(messages)
    }
}

// === impl Generation ===

impl Generation {
    /// How it ended. What has not been read yet is generated and thrown away; to stop the model early, drop it instead.
    ///
    /// # Errors
    /// Why it could not be finished, also when the iterator said so before.
    pub fn finish(mut self) -> Result<Finish, Error> {
        loop {
            match self.state {
                State::Finished(finish) => return Ok(finish),
                State::Failed(error) => return Err(error),
                State::Ready(_) | State::Running => drop(self.next()),
            }
        }
    }
}

impl Iterator for Generation {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let inputs = match &mut self.state {
                State::Ready(inputs) => mem::take(inputs),
                State::Running => Vec::new(),
                State::Finished(_) | State::Failed(_) => return None,
            };
            let returned = match compute(&self.context, inputs) {
                Ok(returned) => returned,
                Err(error) => {
                    self.state = State::Failed(error.clone());
                    return Some(Err(error));
                }
            };
            self.state = returned.finish.map_or(State::Running, State::Finished);
            match returned.text {
                Some(text) if !text.is_empty() => return Some(Ok(text)),
                _ => {}
            }
        }
    }
}

// === impl Finish ===

impl Finish {
    /// From the JSON of the `finish` tensor. Counts that are absent are 0.
    fn parse(source: &str) -> Result<Self, Error> {
        let members = json::members(source).map_err(Error::host)?;
        let get = |key| members.iter().find(|(k, _)| *k == key).map_or("", |(_, value)| *value);
        let reason = match get("finish_reason") {
            "\"stop\"" => FinishReason::Stop,
            "\"length\"" => FinishReason::Length,
            other => return Err(Error::host(format!("`finish_reason` is {other}"))),
        };
        let count = |key| get(key).parse().unwrap_or(0);
        Ok(Self { reason, input_tokens: count("input_tokens"), output_tokens: count("output_tokens") })
    }
}

// === impl Error ===

impl Error {
    /// The host broke its contract; a sentence, not a panic, so that the client hears of it.
    fn host(what: impl fmt::Display) -> Self {
        Self { code: ErrorCode::RuntimeError, message: format!("unexpected answer of the host: {what}") }
    }

    fn missing(tensor: &str) -> Self {
        Self::host(format_args!("no tensor `{tensor}`"))
    }
}

impl From<errors::Error> for Error {
    fn from(error: errors::Error) -> Self {
        Self { code: error.code(), message: error.data() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// What `compute` is given: the input under its name, and the options.
fn tensors(input: Input<'_>, options: &str) -> Vec<(String, Tensor)> {
    let input = match input {
        Input::Text(text) => bytes("prompt", text.as_bytes()),
        Input::Chat(messages) => bytes("messages", chat(messages).as_bytes()),
    };
    vec![input, bytes("options", options.as_bytes())]
}

fn bytes(name: &str, data: &[u8]) -> (String, Tensor) {
    // wasm32: a length fits in u32
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    (name.to_owned(), Tensor::new(&[len], TensorType::U8, data))
}

/// `[{"role":"user","content":"..."}]`
fn chat(messages: &[Message]) -> String {
    let mut out = String::from("[");
    for message in messages {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str("{\"role\":\"");
        out.push_str(message.role.as_str());
        out.push_str("\",\"content\":");
        json::push_string(&mut out, &message.content);
        out.push('}');
    }
    out.push(']');
    out
}

/// One call of the host: suspends until it has an answer or a piece of one.
fn compute(context: &GraphExecutionContext, inputs: Vec<(String, Tensor)>) -> Result<Returned, Error> {
    let mut returned = Returned::default();
    for (name, tensor) in context.compute(inputs)? {
        match name.as_str() {
            "text" => returned.text = Some(utf8(tensor.data())?),
            "finish" => returned.finish = Some(Finish::parse(&utf8(tensor.data())?)?),
            "embedding" => returned.embedding = Some(floats(&tensor.data())),
            // a later host may say more
            _ => {}
        }
    }
    Ok(returned)
}

fn utf8(data: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(data).map_err(|_| Error::host("text that is not UTF-8"))
}

fn floats(data: &[u8]) -> Vec<f32> {
    data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finish_is_read_from_the_hosts_json() {
        let finish = Finish::parse(r#"{"finish_reason": "length", "input_tokens": 5, "output_tokens": 17}"#).unwrap();
        assert_eq!(finish, Finish { reason: FinishReason::Length, input_tokens: 5, output_tokens: 17 });
        let finish = Finish::parse(r#"{"output_tokens":3,"llama_build_number":9000,"finish_reason":"stop"}"#).unwrap();
        assert_eq!(finish, Finish { reason: FinishReason::Stop, input_tokens: 0, output_tokens: 3 });
    }

    #[test]
    fn a_finish_without_a_known_reason_is_an_error() {
        for source in ["", "{}", r#"{"finish_reason":"tool_calls"}"#, r#"{"finish_reason":stop"#] {
            assert_eq!(Finish::parse(source).unwrap_err().code, ErrorCode::RuntimeError, "{source}");
        }
    }

    #[test]
    fn messages_are_written_as_the_chat_tensor_wants_them() {
        let messages = [Message::system("be \"brief\""), Message::user("a\nb"), Message::assistant("🦙")];
        let expected = concat!(
            r#"[{"role":"system","content":"be \"brief\""},{"role":"user","content":"a\nb"},"#,
            r#"{"role":"assistant","content":"🦙"}]"#,
        );
        assert_eq!(chat(&messages), expected);
        assert_eq!(chat(&[]), "[]");
    }

    #[test]
    fn an_embedding_is_little_endian() {
        assert_eq!(floats(&[0, 0, 128, 63, 0, 0, 0, 192, 1]), [1.0, -2.0]);
    }
}
