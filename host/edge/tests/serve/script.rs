//! What a node does whose prompt tells it. The last message counts, or the whole text.
//!
//! | prompt | answer |
//! |---|---|
//! | `say X` | X, three characters at a time, each a token |
//! | `show` | how its request looks from there |
//! | `stall` | one word, then nothing more |
//! | `never` | nothing at all |
//! | `slow` | six words, one each 100 ms |
//! | `break` | one word, then a failure |

use std::time::Duration;

use futures::{StreamExt, stream};
use llambo_inference::{
    AnswerEvent, AnswerStream, FinishReason, Finished, GenerateRequest, InferenceError, Logged, Prompt, TokenLog, Usage,
};

const USAGE: Usage = Usage { input_tokens: 10, cached_tokens: 4, output_tokens: 5 };

pub(crate) fn answer(request: &GenerateRequest) -> Option<Result<AnswerStream, InferenceError>> {
    let prompt = match &request.prompt {
        Prompt::Text(text) => text,
        Prompt::Chat(messages) => &messages.last()?.content,
    };
    let word = || AnswerEvent::Piece { text: "word".into(), n_tokens: 1 };
    Some(Ok(match prompt.split_once(' ').unwrap_or((prompt, "")) {
        ("say", text) => say(text, request.journal.as_ref().map(|journal| journal.begin(0, 0, 0).log)),
        ("show", _) => say(&format!("{request:#?}"), None),
        ("stall", _) => stream::iter([Ok(word())]).chain(stream::pending()).boxed(),
        ("never", _) => stream::pending().boxed(),
        ("slow", _) => stream::iter(0..6)
            .then(move |_| async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok(word())
            })
            .chain(end())
            .boxed(),
        ("break", _) => stream::iter([Ok(word()), Err(InferenceError::Backend("a cable was pulled".into()))]).boxed(),
        _ => return None,
    }))
}

fn end() -> impl futures::Stream<Item = Result<AnswerEvent, InferenceError>> {
    stream::iter([Ok(AnswerEvent::Finished(Finished { reason: FinishReason::Stop, usage: USAGE }))])
}

fn say(text: &str, log: Option<TokenLog>) -> AnswerStream {
    let chars: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = chars.chunks(3).map(|piece| piece.iter().collect()).collect();
    let pieces = stream::iter(pieces).map(move |text: String| {
        let n_tokens = u32::try_from(text.len()).unwrap();
        for byte in text.bytes() {
            let top = log.as_ref().and_then(TokenLog::n_top).map(|n| (65..).map(|token| (token, -2.0)).take(n).collect());
            if let (Some(log), Some(top)) = (&log, top) {
                log.push(Logged { token: byte.into(), logprob: -0.5, top });
            }
        }
        Ok(AnswerEvent::Piece { text, n_tokens })
    });
    pieces.chain(end()).boxed()
}
