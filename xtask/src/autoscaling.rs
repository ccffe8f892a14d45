//! `cargo xtask autoscaling`: what the built-in scaler does under several loads, as a picture.

use std::{fs, path::PathBuf};

use crate::arguments::{Failure, Flags, Rest, parse};
use crate::picture::{self, Axis, BLUE, Curve, GREEN, Panel, RED};
use crate::{environment, step};

pub(crate) const SYNOPSIS: &str = "autoscaling [--svg FILE]";
const FLAGS: Flags = Flags { values: &["--svg"], switches: &[], rest: Rest::Refused };
const CAPTION: &str =
    "simulated: requests of half a second, one at a time on each node; the default rules; more than 100 waiting are drawn as 100";

/// One second of one load.
struct Second {
    at: f64,
    demanded: f64,
    nodes: f64,
    waiting: f64,
    wait: f64,
    changes: u32,
}

/// `cargo xtask autoscaling`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let parsed = parse(FLAGS, words)?;
    let svg = parsed.text("--svg").map_or_else(|| environment::root().join("host/autoscaling.svg"), PathBuf::from);
    let text = example("autoscaling")?;
    let loads = read(&text)?;
    println!("{:<22}{:>8}{:>12}{:>14}{:>16}", "load", "changes", "most nodes", "most waiting", "longest wait");
    for (name, seconds) in &loads {
        let most = |of: fn(&Second) -> f64| seconds.iter().map(of).fold(0.0, f64::max);
        let changes = seconds.last().map_or(0, |second| second.changes);
        println!("{name:<22}{changes:>8}{:>12}{:>14}{:>14.1} s", most(|s| s.nodes), most(|s| s.waiting), most(|s| s.wait));
    }
    let panels: Vec<Panel> = loads.iter().map(|(name, seconds)| panel(name, seconds)).collect();
    fs::write(&svg, picture::to_svg(&panels, CAPTION))
        .map_err(|error| Failure::because(format!("`{}` cannot be written", svg.display()), error))?;
    println!("drawn as {}", svg.display());
    Ok(())
}

/// What an example of llambo-strategy prints.
pub(crate) fn example(name: &str) -> Result<String, Failure> {
    let mut command = environment::cargo();
    command.args(["run", "--release", "--quiet", "-p", "llambo-strategy", "--example", name]);
    step::output(&mut command).ok_or_else(|| Failure::Failed(format!("`{}` failed", step::line(&command))))
}

fn panel(name: &str, seconds: &[Second]) -> Panel {
    let curve = |name, colour, of: fn(&Second) -> f64| Curve {
        name,
        colour,
        points: seconds.iter().step_by(5).map(|second| (second.at, of(second))).collect(),
    };
    let curves = vec![
        curve("nodes' worth of requests", BLUE, |second| second.demanded),
        curve("nodes", GREEN, |second| second.nodes),
        curve("waiting", RED, |second| second.waiting.min(100.0)),
    ];
    Panel { title: name.to_owned(), curves, axis: Axis::Minutes }
}

/// Loads by name, in order.
fn read(csv: &str) -> Result<Vec<(String, Vec<Second>)>, Failure> {
    let mut loads: Vec<(String, Vec<Second>)> = Vec::new();
    for line in csv.lines().skip(1) {
        let (name, second) = row(line).ok_or_else(|| Failure::Failed(format!("the example printed what is no row: {line}")))?;
        match loads.last_mut() {
            Some((last, seconds)) if last == name => seconds.push(second),
            _ => loads.push((name.to_owned(), vec![second])),
        }
    }
    Ok(loads)
}

fn row(line: &str) -> Option<(&str, Second)> {
    let quoted = line.split_once('"').map_or(line, |(before, _)| before);
    // the name of a load may have a comma
    let mut parts = quoted.trim_end_matches(',').rsplitn(7, ',').collect::<Vec<_>>();
    parts.reverse();
    let [name, at, demanded, nodes, waiting, wait, changes] = parts.as_slice() else { return None };
    let number = |text: &str| text.parse::<f64>().ok();
    let second = Second {
        at: number(at)?,
        demanded: number(demanded)?,
        nodes: number(nodes)?,
        waiting: number(waiting)?,
        wait: number(wait)?,
        changes: changes.parse().ok()?,
    };
    Some((name, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_load() {
        let csv = "scenario,second,...\nstep,0,4.00,2,1,0.50,3,\"the load is 0.9, above 0.85\"\non and off, to zero,0,1.00,0,9,2.00,0,\"x\"\n";
        let loads = read(csv).unwrap();
        assert_eq!(loads.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["step", "on and off, to zero"]);
        let second = &loads[0].1[0];
        assert!((second.demanded - 4.0).abs() < 1e-9 && (second.waiting - 1.0).abs() < 1e-9 && second.changes == 3);
        assert!(read("head\nnonsense").is_err());
    }
}
