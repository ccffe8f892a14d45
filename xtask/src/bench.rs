//! `cargo xtask bench`: llambo beside llama.cpp's own programs, in turns on this machine.
//!
//! The bench itself is `tests/benches/peers`; what needs a peer is left out when none is given. How to build one so that the comparison
//! measures programs and not compilers is in `host/BENCHMARKS.md`.

use crate::arguments::{self, Failure, Flags, Rest};
use crate::{build, environment, setup, step};

pub(crate) const SYNOPSIS: &str = "bench [--peer-llama-server PATH] [--peer-batched-bench PATH] [--model MODEL] [--draft MODEL] [--pairs N] [--only TEXT] \
                                   [--json FILE] [--svg FILE]";
/// Those that name files. Cargo starts benches in the folder of their package.
const PATHS: [&str; 6] = ["--peer-llama-server", "--peer-batched-bench", "--model", "--draft", "--json", "--svg"];
const FLAGS: Flags = Flags {
    values: &["--peer-llama-server", "--peer-batched-bench", "--model", "--draft", "--json", "--svg", "--pairs", "--only"],
    switches: &[],
    rest: Rest::Refused,
};

/// `cargo xtask bench`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let parsed = arguments::parse(FLAGS, words)?;
    let pairs = parsed.count("--pairs", 5)?;
    let mut passed_on = vec!["--pairs".to_owned(), pairs.to_string()];
    for flag in FLAGS.values.iter().filter(|flag| **flag != "--pairs") {
        if let Some(value) = parsed.text(flag) {
            passed_on
                .extend([(*flag).to_owned(), if PATHS.contains(flag) { arguments::from_here(value) } else { value.to_owned() }]);
        }
    }
    setup::run()?;
    build::build(&[])?;
    let mut bench = environment::cargo();
    bench.args(["bench", "--workspace", "--bench", "peers", "--"]).args(passed_on);
    step::run("measure (a minute for each pair of runs)", &mut bench)
}
