use std::path::PathBuf;

use llambo_catalog::CatalogError;
use llambo_inference::InferenceError;

/// Why a model could not be loaded or a sequence not be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LlamaError {
    /// The file is not usable.
    #[error(transparent)]
    File(#[from] CatalogError),
    /// llama.cpp refused the file.
    #[error("llama.cpp cannot load `{}`: {problem}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What it logged.
        problem: String,
    },
    /// The model is of a kind that cannot be continued token by token.
    #[error("`{}` is an encoder; llambo serves decoder-only models", path.display())]
    NotADecoder {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to compute with.
    #[error("no module of llama.cpp in `{}` runs on this processor; name the folder that has them by {variable}{}", folder.display(), because(problem))]
    NoModules {
        /// Where they were looked for.
        folder: PathBuf,
        /// What names another folder.
        variable: &'static str,
        /// What llama.cpp logged, if anything.
        problem: String,
    },
    /// A GPU that is not there.
    #[error("there is no GPU `{name}` here; {}", listed(there))]
    NoDevice {
        /// What was asked for.
        name: String,
        /// Those there are.
        there: Vec<String>,
    },
    /// A setting is out of range for the model.
    #[error("{0}")]
    Settings(String),
    /// No room for the KV cache.
    #[error("llama.cpp cannot hold {n_sequences} sequences of {n_context} tokens; lower `sequences` or `context`")]
    Context {
        /// Sequences asked for.
        n_sequences: u32,
        /// Tokens for each.
        n_context: u32,
    },
    /// The engine thread could not be started.
    #[error("cannot start the engine thread: {0}")]
    Thread(std::io::Error),
    /// The folder for keys and values on disk cannot be used.
    #[error("the folder `{}` for KV copies cannot be used: {error}", folder.display())]
    KvFolder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A text that no tokenizer call takes.
    #[error("a text of {n_bytes} bytes cannot be tokenized")]
    TextTooLong {
        /// Its size.
        n_bytes: usize,
    },
    /// A batch that llama.cpp would abort over: a defect of llambo.
    #[error("refused a batch: {0}")]
    BadBatch(&'static str),
    /// `llama_decode` failed.
    #[error("llama_decode returned {code}")]
    Decode {
        /// Its code.
        code: i32,
    },
    /// The model computed what no number is.
    #[error("the model computed values that are not numbers; its file is damaged, or the model does not suit its context")]
    NotNumbers,
    /// A grammar or schema that cannot be used.
    #[error("the grammar cannot be used: {0}")]
    Grammar(String),
    /// Too many grammars and schemas are being compiled.
    #[error("{in_flight} of {capacity} grammars and schemas are being compiled; try again later")]
    Busy {
        /// Compiled or waiting for it.
        in_flight: usize,
        /// As many as may be.
        capacity: usize,
    },
}

fn because(problem: &str) -> String {
    if problem.is_empty() { String::new() } else { format!(" ({problem})") }
}

fn listed(there: &[String]) -> String {
    if there.is_empty() { "this build or this machine has none".into() } else { format!("there is {}", there.join(", ")) }
}

impl From<LlamaError> for InferenceError {
    fn from(error: LlamaError) -> Self {
        match error {
            LlamaError::Grammar(_) | LlamaError::TextTooLong { .. } => Self::InvalidRequest(error.to_string()),
            LlamaError::Busy { in_flight, capacity } => {
                Self::Full { what: "the compiler of grammars and schemas".into(), in_flight, capacity }
            }
            other => Self::Backend(other.to_string()),
        }
    }
}
