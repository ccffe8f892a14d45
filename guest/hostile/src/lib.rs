//! Test guest, never an engine: the prompt (in a chat, its last message) chooses one way to misbehave. Anything else is
//! echoed, so that a test can see an isolate work before and after.
//!
//! Rust cannot grow a table of functions; `leak` grows the table of handles that the host keeps for a guest.

use std::{
    hint::black_box,
    mem,
    sync::atomic::{AtomicU32, Ordering},
};

use llambo_guest::{
    Engine, FinishReason, Model, Options, Outcome, Prompt, Request,
    bindings::wasi::nn::{
        graph,
        tensor::{Tensor, TensorType},
    },
    emit, export,
};

/// Survives from one request to the next: shows which requests share an isolate.
static CALLS: AtomicU32 = AtomicU32::new(0);

struct Hostile;

impl Engine for Hostile {
    fn handle(request: Request) -> Outcome {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let prompt = match request.prompt {
            Prompt::Text(text) => text,
            Prompt::Chat(mut messages) => messages.pop().map(|m| m.content).unwrap_or_default(),
        };
        match prompt.as_str() {
            "loop" => spin(),
            "grow" => grow(),
            "recurse" => {
                black_box(descend(u64::MAX, 1));
            }
            // without a message: a panic would bring its formatting along
            "trap" => std::process::abort(),
            "flood" => flood(),
            "output" => output(),
            "leak" => leak(),
            "bad-model" => {
                Model::open("no-such-model")?;
            }
            "bad-options" => return compute_with_options(&request.model, b"not json"),
            "big-tensor" => {
                let text = "a".repeat(10 << 20);
                Model::open(&request.model)?.complete(&text, &Options::new().max_tokens(1))?;
            }
            "half-utf8" => {
                for byte in "🦙".bytes() {
                    emit([byte])?;
                }
            }
            "not-utf8" => emit(b"a\xff\xfeb\xf0\x9f")?,
            "stateful" => emit(calls.to_string())?,
            _ => emit(prompt)?,
        }
        Ok(FinishReason::Stop)
    }
}

export!(Hostile);

/// Never returns and calls nothing: only its CPU time can end it.
fn spin() -> ! {
    let mut n = 0u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

/// Takes memory and touches all of it until there is no more.
fn grow() -> ! {
    loop {
        mem::forget(black_box(vec![1u8; 64 << 10]));
    }
}

/// Recursion to depth `n` in locals alone, so that the call stack overflows and not the stack in linear memory.
#[inline(never)]
fn descend(n: u64, salt: u64) -> u64 {
    if n == 0 {
        return salt;
    }
    let left = descend(n - 1, salt.wrapping_mul(31));
    descend(n - 1, left) ^ salt
}

/// Host calls without end that leave nothing behind.
fn flood() -> ! {
    loop {
        drop(Tensor::new(&[1], TensorType::U8, &[0]));
    }
}

/// Handles without end, each with a little of the host's memory.
fn leak() -> ! {
    loop {
        mem::forget(Tensor::new(&[64], TensorType::U8, &[0; 64]));
    }
}

/// Text without end, also when nobody reads it any more.
fn output() -> ! {
    loop {
        let _ = emit([b'x'; 64]);
    }
}

/// What the SDK would not do: options that are not JSON.
fn compute_with_options(model: &str, options: &[u8]) -> Outcome {
    let byte_tensor = |data: &[u8]| Tensor::new(&[u32::try_from(data.len()).unwrap_or(0)], TensorType::U8, data);
    let context =
        graph::load_by_name(model).and_then(|graph| graph.init_execution_context()).map_err(llambo_guest::Error::from)?;
    let inputs = vec![("prompt".to_owned(), byte_tensor(b"a")), ("options".to_owned(), byte_tensor(options))];
    context.compute(inputs).map_err(llambo_guest::Error::from)?;
    Ok(FinishReason::Stop)
}
