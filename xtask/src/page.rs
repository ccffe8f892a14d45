//! `cargo xtask page`: what the host serves to browsers, made of its sources. A test fails while the two differ.

use std::process::Command;

use crate::arguments::Failure;
use crate::{environment, setup, step};

pub(crate) const SYNOPSIS: &str = "page";
const FOLDER: &str = "host/edge/page";

/// `cargo xtask page`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::Usage("there are no arguments".into()));
    }
    setup::clients()?;
    let folder = environment::root().join(FOLDER);
    step::run(
        "install what the page is made with",
        Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder),
    )?;
    step::run(
        "check the page's types",
        Command::new("node").args(["node_modules/typescript/bin/tsc", "--noEmit"]).current_dir(&folder),
    )?;
    step::run("make the page", Command::new("node").arg("build.mjs").current_dir(&folder))?;
    println!("wrote {FOLDER}/dist; commit it with its sources, and build the host again");
    Ok(())
}
