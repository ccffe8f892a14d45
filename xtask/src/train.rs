//! `cargo xtask train-builtin`: makes the built-in models again from the toolchain's documentation, with the scripts in
//! `xtask/builtin-model`. Hours on a processor, minutes on a GPU. Nothing else needs Python.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arguments::{self, Failure, Flags, Rest};
use crate::{environment, step};

pub(crate) const SYNOPSIS: &str = "train-builtin [--work DIR]";
const FLAGS: Flags = Flags { values: &["--work"], switches: &[], rest: Rest::Refused };
/// Each model with the steps it was trained for; the model card beside the files has the figures.
const MODELS: [(&str, &str); 2] = [("demo", "3000"), ("demo-small", "3500")];

/// `cargo xtask train-builtin`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let parsed = arguments::parse(FLAGS, words)?;
    let root = environment::root();
    let work = parsed.text("--work").map_or_else(|| root.join("target/builtin-model"), PathBuf::from);
    let work =
        std::path::absolute(&work).map_err(|error| Failure::because(format!("`{}` is no folder", work.display()), error))?;
    let scripts = root.join("xtask/builtin-model");
    let python = environment_of_python(&work, &scripts)?;

    let script = |name: &str| {
        let mut command = Command::new(&python);
        command.current_dir(&root).arg(scripts.join(name)).arg("--work").arg(&work);
        command
    };
    step::run("gather the text and train the tokenizer", &mut script("corpus.py"))?;
    for (model, steps) in MODELS {
        let mut train = script("train.py");
        step::run(&format!("train builtin:{model}, {steps} steps"), train.args(["--model", model, "--steps", steps]))?;
    }
    step::run("write the GGUF files", script("export.py").arg("--out").arg("host/catalog/builtin"))?;
    println!("the built-in models stand in host/catalog/builtin; bring the figures in their model card up to date");
    Ok(())
}

/// A Python environment of its own in `work`, with what the scripts import. Returns its interpreter.
fn environment_of_python(work: &Path, scripts: &Path) -> Result<PathBuf, Failure> {
    let venv = work.join("venv");
    let python = venv.join("bin/python");
    if !python.is_file() {
        step::run("make a Python environment", Command::new("python3").args(["-m", "venv"]).arg(&venv)).map_err(|failure| {
            let Failure::Failed(why) = failure else { return failure };
            Failure::Failed(format!(
                "{why}\nPython 3 with its venv module is needed; on Debian or Ubuntu: apt-get install python3-venv"
            ))
        })?;
    }
    step::run(
        "install what the scripts import (torch is about 600 MB)",
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(scripts.join("requirements.txt")),
    )?;
    Ok(python)
}
