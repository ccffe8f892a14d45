//! `llamboctl policy`.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args as Group, Subcommand};
use llambo_client::PolicyRole;

use super::values::{compute_time, duration, policy_name, share, size};

/// What policies decide.
const KINDS: [&str; 6] = ["balancer", "admission", "classifier", "scaler", "fusion", "token-hook"];
/// The worlds of `wit/policy.wit`; a balancer has two.
const WORLDS: [&str; 7] = ["balancer", "tracking-balancer", "admission", "classifier", "scaler", "fusion", "token-hook"];

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Check a policy, try it, and put it into its place
    Load(LoadPolicy),
    /// List what is loaded, how it does, and what can be put back
    List,
    /// Make the shadow or the canary of a kind its live policy
    Promote {
        /// What it decides
        #[arg(value_parser = KINDS)]
        kind: String,
    },
    /// Put the policy back that was live before; with none before it, what is built in decides
    Rollback {
        /// What it decides
        #[arg(value_parser = KINDS)]
        kind: String,
    },
    /// Take a policy out; what is built in decides then
    Unload(Place),
    /// Let a suspended policy decide again
    Resume(Place),
    /// Write every routing decision and how it ended to a file, until Ctrl-C
    Record(Record),
    /// Say what another policy or strategy would have done with recorded decisions
    Replay(Replay),
    /// Write a crate to start a policy from
    New(New),
}

#[derive(Debug, Group)]
#[command(group = ArgGroup::new("place").args(["shadow", "share"]))]
pub(crate) struct LoadPolicy {
    /// The policy: a component of one of the worlds in `wit/policy.wit`
    pub(crate) file: PathBuf,
    /// What it decides
    #[arg(long = "as", value_name = "KIND", value_parser = KINDS)]
    pub(crate) kind: String,
    /// For people: a lower-case letter, then at most 31 of `a-z`, `0-9` and `-`; without it, from the name of the file
    #[arg(long, value_name = "NAME", value_parser = policy_name)]
    pub(crate) name: Option<String>,
    /// Ask it beside the live policy, and let it decide nothing
    #[arg(long)]
    pub(crate) shadow: bool,
    /// Let it decide for this share of the requests, for example `10%` or `0.1`
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    pub(crate) share: Option<f64>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// What a policy is given.
#[derive(Debug, Default, Group)]
#[command(group = ArgGroup::new("parameters_from").args(["parameters", "parameters_file"]))]
pub(crate) struct Settings {
    /// What `host.parameters` answers to it, at most 64 KiB
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) parameters: Option<String>,
    /// The same, from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters_file: Option<PathBuf>,
    /// Computing time of a call, for example `1ms` or `200us`; without it, as the host is configured
    #[arg(long, value_name = "TIME", value_parser = compute_time)]
    pub(crate) time: Option<u32>,
    /// Memory of an instance, for example `1MB`; without it, as the host is configured
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
}

/// One policy of a kind.
#[derive(Debug, Group)]
#[command(group = ArgGroup::new("role").args(["shadow", "canary"]))]
pub(crate) struct Place {
    /// What it decides
    #[arg(value_parser = KINDS)]
    pub(crate) kind: String,
    /// The shadow, not the live policy
    #[arg(long)]
    pub(crate) shadow: bool,
    /// The canary, not the live policy
    #[arg(long)]
    pub(crate) canary: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Record {
    /// The file to write, one JSON object on each line
    pub(crate) file: PathBuf,
    /// End by itself after this long
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) time: Option<Duration>,
    /// End by itself when so many decisions and their ends are written
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000), allow_negative_numbers = true)]
    pub(crate) max: Option<u64>,
    /// Overwrite the file if it exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Replay {
    /// What `llamboctl policy record` wrote
    pub(crate) trace: PathBuf,
    /// A policy's file, or the name of a built-in strategy
    #[arg(long, value_name = "FILE|STRATEGY")]
    pub(crate) with: String,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Group)]
pub(crate) struct New {
    /// Of the policy and its crate: a lower-case letter, then at most 31 of `a-z`, `0-9` and `-`
    #[arg(value_parser = policy_name)]
    pub(crate) name: String,
    /// The world of `wit/policy.wit` that it implements
    #[arg(long, value_parser = WORLDS)]
    pub(crate) world: String,
    /// The folder to write; without it, one named as the policy
    #[arg(long, value_name = "DIR")]
    pub(crate) path: Option<PathBuf>,
}

// === impl Settings ===

impl Settings {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { parameters, parameters_file, time, memory } = self;
        parameters.is_none() && parameters_file.is_none() && time.is_none() && memory.is_none()
    }
}

// === impl Place ===

impl Place {
    pub(crate) fn role(&self) -> PolicyRole {
        match (self.shadow, self.canary) {
            (true, _) => PolicyRole::Shadow,
            (_, true) => PolicyRole::Canary,
            _ => PolicyRole::Live,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Args;

    #[test]
    fn a_policy_is_in_one_place_with_one_text() {
        let parse = |line: &str| Args::try_parse_from(format!("llamboctl policy {line}").split(' '));
        for good in [
            "load p.wasm --as balancer",
            "load p.wasm --as token-hook --shadow --time 1ms --memory 1MB",
            "unload balancer --canary",
            "load p.wasm --as balancer --share 10% --parameters -x",
            "replay t --with round-robin",
            "record f --for 30s --max 10",
            "new mine --world tracking-balancer",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good).err());
        }
        for bad in [
            "load p.wasm",
            "load p.wasm --as nonsense",
            "load p.wasm --as tracking-balancer",
            "load p.wasm --as balancer --shadow --share 10%",
            "load p.wasm --as balancer --share 10",
            "load p.wasm --as balancer --name P",
            "load p.wasm --as balancer --parameters a --parameters-file b",
            "promote",
            "promote x",
            "unload balancer --canary --shadow",
            "replay t",
            "record f --max 0",
            "new Mine --world balancer",
            "new mine",
            "new mine --world x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
