//! `cargo xtask complexity`: how often the built-in classifier is right, into host/COMPLEXITY.md. A test fails while the two differ.

use std::fs;

use crate::arguments::Failure;
use crate::{autoscaling, environment};

pub(crate) const SYNOPSIS: &str = "complexity";
const FILE: &str = "host/COMPLEXITY.md";
/// What follows this is written by the command.
const FROM: &str = "### Tuned on\n";

/// `cargo xtask complexity`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::Usage("there are no arguments".into()));
    }
    let tables = autoscaling::example("complexity")?;
    let path = environment::root().join(FILE);
    let text = fs::read_to_string(&path).map_err(|error| Failure::because(format!("{FILE} cannot be read"), error))?;
    let (before, _) = text.split_once(FROM).ok_or_else(|| Failure::Failed(format!("{FILE} has no line `{}`", FROM.trim())))?;
    fs::write(&path, format!("{before}{}\n", tables.trim_end()))
        .map_err(|error| Failure::because(format!("{FILE} cannot be written"), error))?;
    println!("{tables}\nwrote {FILE}");
    Ok(())
}
