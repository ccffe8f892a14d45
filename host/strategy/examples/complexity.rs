//! Measures the built-in classifier on labelled prompts: `cargo run --release -p llambo-strategy --example complexity [FILE...]`.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{env, fs, process::ExitCode};

use llambo_strategy::labelled::{judge, parse};

const TUNED: &str = include_str!("../complexity/tuned.tsv");
const HELD_OUT: &str = include_str!("../complexity/held-out.tsv");

fn main() -> ExitCode {
    let files: Vec<String> = env::args().skip(1).collect();
    if files.is_empty() {
        return if [("Tuned on", TUNED), ("Held out", HELD_OUT)].iter().all(|(name, text)| told(name, text, false)) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let mut is_good = true;
    for file in files {
        match fs::read_to_string(&file) {
            Ok(text) => is_good &= told(&file, &text, true),
            Err(error) => {
                eprintln!("`{file}` cannot be read: {error}");
                is_good = false;
            }
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a table, and with `each` the prompts that were judged wrongly.
fn told(name: &str, text: &str, each: bool) -> bool {
    let prompts = match parse(text) {
        Ok(prompts) => prompts,
        Err(error) => {
            eprintln!("{name}: {error}");
            return false;
        }
    };
    let confusion = judge(&prompts);
    println!("### {name}\n\n{}", confusion.to_markdown());
    for (i, said) in confusion.wrong.iter().filter(|_| each) {
        if let Some(labelled) = prompts.get(*i) {
            println!("tier {}, judged {said}\n    {:.100}", labelled.tier, labelled.prompt.replace('\n', " "));
        }
    }
    true
}
