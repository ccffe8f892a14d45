//! The engine a node runs unless its type names another: the client's prompt and options go to the model as they came, and
//! the model's text goes to the client piece by piece.
//!
//! It lives a hundred thousand times in one host, so it keeps nothing: all that a request allocates is freed with it.

use llambo_guest::{Engine, Model, Options, Outcome, Request, emit, export};

struct Default;

impl Engine for Default {
    fn handle(request: Request) -> Outcome {
        let Request { model, prompt, options, .. } = request;
        let options = Options::parse(&options)?;
        let mut generation = Model::open(&model)?.generate(&prompt, &options)?;
        // the host has both now; a long answer need not hold a long prompt
        drop((prompt, options, model));
        for piece in &mut generation {
            // when the client is gone, returning drops the generation and so stops the model
            emit(piece?)?;
        }
        Ok(generation.finish()?.reason)
    }
}

export!(Default);
