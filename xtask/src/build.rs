//! `cargo xtask build`: the programs, in the one profile and target folder that tests and demo use too.

use std::path::PathBuf;

use crate::arguments::Failure;
use crate::{environment, setup, step};

pub(crate) const SYNOPSIS: &str = "build [CARGO ARGUMENTS]";

/// The programs as built.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) llambo: PathBuf,
    pub(crate) llamboctl: PathBuf,
}

/// `cargo xtask build`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    setup::run()?;
    let programs = build(words)?;
    println!("built {} and {}", programs.llambo.display(), programs.llamboctl.display());
    Ok(())
}

/// Builds the programs; `words` are further arguments for cargo.
///
/// # Errors
/// When cargo fails; it has said why.
pub(crate) fn build(words: &[String]) -> Result<Programs, Failure> {
    // the whole workspace and not two packages: cargo then unites the features of dependencies as it does for the tests, but for those that
    // tests alone ask for
    step::run(
        "build the programs (the first time also llama.cpp and wasmtime: 10 to 20 minutes on two cores)",
        environment::cargo().args(["build", "--release", "--workspace", "--bins"]).args(words),
    )?;
    let folder = setup::target_folder()?.join("release");
    Ok(Programs { llambo: folder.join("llambo"), llamboctl: folder.join("llamboctl") })
}
