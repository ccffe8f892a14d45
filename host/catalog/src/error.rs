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
    /// Where a model comes from is written in none of the forms there are.
    #[error("`{text}` does not say where a model comes from: {problem}")]
    BadSource {
        /// What was written.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The catalog cannot be read or written.
    #[error("the catalog `{}` cannot be used: {source}; LLAMBO_CATALOG names another file", path.display())]
    Catalog {
        /// The catalog.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The catalog is not what was written.
    #[error("the catalog `{}` is damaged: {problem}; mend it, or move it away and register the models again", path.display())]
    DamagedCatalog {
        /// The catalog.
        path: PathBuf,
        /// What is wrong, with its place.
        problem: String,
    },
    /// The catalog has no such model.
    #[error("no model is registered as `{name}` in `{}`; there {}", path.display(), listed(known))]
    NotRegistered {
        /// The name asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
        /// The catalog.
        path: PathBuf,
    },
    /// A name that no model may have.
    #[error("`{name}` is no name for a model; use a letter or digit, then at most 63 of letters, digits, `.`, `_` and `-`")]
    BadName {
        /// The name.
        name: String,
    },
    /// Another model has that name.
    #[error("`{name}` is registered already, for `{}`; give another name with `--name`, or unregister it first", path.display())]
    NameTaken {
        /// The name.
        name: String,
        /// The file of that model.
        path: PathBuf,
    },
}

fn listed(known: &[String]) -> String {
    match known {
        [] => "are none yet: `llamboctl models download` and `register` add some".into(),
        [one] => format!("is `{one}`"),
        several => format!("are {}", several.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}
