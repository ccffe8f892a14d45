use std::{io, path::PathBuf};

/// Why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The file cannot be read.
    #[error("cannot read model file `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a whole, well-formed GGUF file.
    #[error("`{}` is not a usable GGUF file: {problem}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the numbers.
        problem: String,
    },
    /// No built-in model has that name.
    #[error("there is no built-in model `{name}`; there are {}", crate::BUILTINS.iter().map(|b| format!("`{}`", b.name())).collect::<Vec<_>>().join(" and "))]
    UnknownBuiltin {
        /// The name asked for.
        name: String,
    },
    /// A built-in model could not be unpacked.
    #[error("cannot write the built-in model to `{}`: {source}; set XDG_CACHE_HOME to a folder that can be written", path.display())]
    Unpack {
        /// Where it was to go.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
