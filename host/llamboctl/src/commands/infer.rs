use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::Path,
};

use futures::StreamExt;
use llambo_client::{Ask, Event, Finished, Generation, Started, Usage};
use serde_json::json;

use super::Session;
use crate::{
    args::{
        chat::Sampling,
        infer::{Embed, Infer},
    },
    exit::{Failure, OK},
    output,
    route::{self, Route},
};

/// Bytes read from standard input or a file: far above what any host takes, far below what would hurt this machine.
const MAX_INPUT: u64 = 64 * 1024 * 1024;

/// Asks and prints the answer as it comes. Ctrl-C drops the stream, which cancels the request on the host.
pub(crate) async fn infer(session: &Session, args: Infer) -> Result<u8, Failure> {
    let ask = ask(args)?;
    interruptible(async { print(session, session.client.generate(ask).await?).await }).await
}

/// Prints an answer unless Ctrl-C comes first, which drops the stream.
pub(crate) async fn interruptible(answer: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    tokio::select! {
        biased;
        interrupt = tokio::signal::ctrl_c() => {
            interrupt.map_err(|e| Failure::io("listen for Ctrl-C", &e))?;
            if io::stdout().is_terminal() {
                writeln!(io::stdout())?;
            }
            Err(Failure::interrupted())
        }
        answer = answer => answer,
    }
}

/// Prints an answer as it comes.
pub(super) async fn print(session: &Session, mut events: Generation) -> Result<u8, Failure> {
    let mut out = io::stdout();
    let shows = out.is_terminal();
    let mut started = Started::default();
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Started(event)) => started = event,
            Ok(Event::Piece(piece)) if session.json => text.push_str(&piece.text),
            Ok(Event::Piece(piece)) => {
                let piece = if shows { output::for_terminal(&piece.text) } else { piece.text.into() };
                out.write_all(piece.as_bytes())?;
                out.flush()?;
                // only whether the line is ended matters
                text.clear();
                text.push_str(&piece);
            }
            Ok(Event::Finished(finished)) => {
                if session.json {
                    output::json(&mut out, &whole(&text, &started, &finished))?;
                } else {
                    end_line(&mut out, &text)?;
                    explanation(&started);
                    summary(&started, &finished);
                    tier(&started, &finished);
                }
            }
            Err(e) => {
                // what came so far stays readable above the error
                if !session.json {
                    end_line(&mut out, &text)?;
                    explanation(&started);
                }
                return Err(e.into());
            }
        }
    }
    Ok(OK)
}

fn end_line(out: &mut impl Write, last: &str) -> io::Result<()> {
    if !last.is_empty() && !last.ends_with('\n') {
        writeln!(out)?;
    }
    Ok(())
}

/// How the node was chosen, if that was asked for. Beside the answer, which a program may read from standard output.
fn explanation(started: &Started) {
    if let Some(route) = started.route.clone() {
        // an explanation that nobody can read changes nothing about the answer
        let _ = Route::from(route).explain(&mut io::stderr());
    }
}

fn summary(started: &Started, finished: &Finished) {
    let mut err = io::stderr();
    if err.is_terminal() {
        let _ = writeln!(err, "{}", closing_line(started, finished));
    }
}

/// Which tier served it, and why: where somebody looks, where that was asked for, and where it is not the one that it should be.
fn tier(started: &Started, finished: &Finished) {
    let mut err = io::stderr();
    if let Some(served) = finished.tier.as_ref().filter(|served| err.is_terminal() || started.route.is_some() || served.fell_back)
    {
        let _ = writeln!(err, "{}", output::for_terminal(&route::tier(served)));
    }
}

/// Who answered, and what it cost.
pub(crate) fn closing_line(started: &Started, finished: &Finished) -> String {
    let Usage { input_tokens, output_tokens, .. } = finished.usage.unwrap_or_default();
    let Finished { finish_reason, ttft_ms, total_ms, .. } = finished;
    format!(
        "{} · {} · {input_tokens} + {output_tokens} tokens · {finish_reason} · first after {ttft_ms:.0} ms, all after {total_ms:.0} ms",
        started.node, started.model
    )
}

/// An answer as JSON.
pub(crate) fn whole(text: &str, started: &Started, finished: &Finished) -> serde_json::Value {
    let usage = finished.usage.unwrap_or_default();
    json!({
        "request_id": started.request_id,
        "text": text,
        "node": started.node,
        "model": started.model,
        "finish_reason": finished.finish_reason,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "ttft_ms": finished.ttft_ms,
        "total_ms": finished.total_ms,
        "tier": finished.tier.as_ref().map(route::tier_json),
        "route": started.route.clone().map(Route::from),
    })
}

fn ask(args: Infer) -> Result<Ask, Failure> {
    let prompt = if args.prompt == "-" { standard_input()? } else { args.prompt };
    let mut ask = if args.raw {
        Ask::text(prompt)
    } else {
        Ask::chat(args.system.into_iter().map(|text| ("system", text)).chain([("user", prompt)]))
    };
    if let Some(model) = args.target.model {
        ask = ask.model(model);
    }
    if let Some(node_type) = args.target.node_type {
        ask = ask.node_type(node_type);
    }
    if args.explain {
        ask = ask.explain();
    }
    for (key, value) in args.label {
        ask = ask.label(key, value);
    }
    if let Some(tier) = args.tier {
        ask = ask.tier(tier);
    }
    if let Some(answers) = args.answers {
        ask = ask.answers(answers);
    }
    if args.batch {
        ask = ask.batch();
    }
    if let Some(file) = args.json_schema {
        ask = ask.json_schema(read(&file)?);
    }
    if let Some(file) = args.grammar {
        ask = ask.grammar(read(&file)?);
    }
    Ok(args.sampling.over(ask))
}

impl Sampling {
    /// Asks so.
    pub(crate) fn over(self, mut ask: Ask) -> Ask {
        let Self { max_tokens, temperature, top_p, top_k, seed, stop, timeout } = self;
        if let Some(timeout) = timeout {
            ask = ask.timeout(timeout);
        }
        ask.options(|options| {
            options.max_tokens = max_tokens;
            options.temperature = temperature;
            options.top_p = top_p;
            options.top_k = top_k;
            options.seed = seed;
            options.stop = stop;
        })
    }
}

/// Prints the embedding of each text: one line of numbers each, or one JSON object.
pub(crate) async fn embed(session: &Session, args: Embed) -> Result<u8, Failure> {
    let texts = match args.texts.as_slice() {
        [dash] if dash == "-" => standard_input()?.lines().map(ToOwned::to_owned).collect(),
        _ => args.texts,
    };
    let answer = session.client.embed(&args.model.unwrap_or_default(), texts).await?;
    let mut out = io::stdout().lock();
    if session.json {
        let embeddings: Vec<_> = answer.embeddings.iter().map(|embedding| &embedding.values).collect();
        let input_tokens = answer.usage.unwrap_or_default().input_tokens;
        let value = json!({ "model": answer.model, "embeddings": embeddings, "usage": { "input_tokens": input_tokens } });
        output::json(&mut out, &value)?;
    } else {
        for embedding in answer.embeddings {
            let numbers: Vec<String> = embedding.values.iter().map(f32::to_string).collect();
            writeln!(out, "{}", numbers.join(" "))?;
        }
    }
    Ok(OK)
}

pub(crate) fn standard_input() -> Result<String, Failure> {
    text_of(io::stdin().lock(), "standard input")
}

/// The text of a file, not larger than [`MAX_INPUT`].
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let name = format!("`{}`", path.display());
    let file = fs::File::open(path).map_err(|e| Failure::bad_input(format!("cannot read {name}: {e}")))?;
    text_of(file, &name)
}

fn text_of(from: impl Read, name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(MAX_INPUT + 1).read_to_end(&mut bytes).map_err(|e| Failure::bad_input(format!("cannot read {name}: {e}")))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(Failure::bad_input(format!("{name} has more than {} MiB; give less", MAX_INPUT >> 20)));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::bad_input(format!("{name} is not UTF-8 text: byte {at} cannot be read; convert it first"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_that_is_no_text_names_the_byte() {
        assert_eq!(text_of("grün".as_bytes(), "x").as_deref(), Ok("grün"));
        let failure = text_of(&b"ab\xff"[..], "`f.txt`").unwrap_err();
        assert!(format!("{failure:?}").contains("`f.txt` is not UTF-8 text: byte 2"), "{failure:?}");
    }
}
