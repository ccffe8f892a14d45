use std::fmt;

/// One mistake in a configuration: where, about which key, what was found and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{}: {message}", self.place())]
pub struct ConfigError {
    /// The file as it was named by whoever asked for it.
    pub file: String,
    /// Line, from 1; 0 when the mistake is the file as a whole.
    pub line: u32,
    /// Column in characters, from 1; 0 when the mistake is the file as a whole.
    pub column: u32,
    /// The key, for example `models[0].context`; empty when the mistake is not a key's or its value's.
    pub path: String,
    /// What was found and what to do. Lower-case, no full stop, one line; names the key.
    pub message: String,
}

/// Everything that is wrong with one file: at least one error, in the order in which they stand in the file.
///
/// Displayed as one error a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

// === impl ConfigError ===

impl ConfigError {
    fn place(&self) -> String {
        match self.line {
            0 => self.file.clone(),
            line => format!("{}:{line}:{}", self.file, self.column),
        }
    }
}

// === impl ConfigErrors ===

impl ConfigErrors {
    /// `None` when there are none.
    pub(crate) fn new(mut errors: Vec<ConfigError>) -> Option<Self> {
        errors.sort_by_key(|error| (error.line, error.column));
        (!errors.is_empty()).then_some(Self(errors))
    }

    pub(crate) fn one(error: ConfigError) -> Self {
        Self(vec![error])
    }

    pub(crate) fn whole_file(file: &str, message: String) -> Self {
        Self::one(ConfigError { file: file.to_owned(), line: 0, column: 0, path: String::new(), message })
    }

    /// The errors, in the order in which they stand in the file.
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.0
    }

    /// The errors one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
