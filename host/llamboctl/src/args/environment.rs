//! An environment variable for every flag.
//!
//! Flags that mean the same for several commands have a name of their own, such as `LLAMBO_MODEL`. All others are named after
//! where they stand: `llamboctl bench load --rate` is `LLAMBO_BENCH_LOAD_RATE`. Flags with such a variable are given it here,
//! so that none is forgotten. A flag that may be given several times has one value in its variable.

use clap::{Arg, ArgAction, Command, builder::BoolishValueParser};

/// The command with a variable for each flag that has none.
pub(super) fn complete(command: Command) -> Command {
    named(command, "LLAMBO")
}

fn named(command: Command, prefix: &str) -> Command {
    let command = command.mut_args(|arg| variable(arg, prefix));
    command.mut_subcommands(|inner| {
        let prefix = format!("{prefix}_{}", upper(inner.get_name()));
        named(inner, &prefix)
    })
}

fn variable(arg: Arg, prefix: &str) -> Arg {
    let Some(long) = arg.get_long().map(ToOwned::to_owned) else { return arg };
    if ["help", "version"].contains(&long.as_str()) {
        return arg;
    }
    // `1` and `yes` are as good as `true`
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let arg = if is_switch { arg.value_parser(BoolishValueParser::new()) } else { arg };
    match arg.get_env() {
        Some(_) => arg,
        None => arg.env(format!("{prefix}_{}", upper(&long))).hide_env_values(true),
    }
}

fn upper(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::args;

    /// Calls `each` with every command, and what is typed for it.
    fn walk(command: &Command, typed: &str, each: &mut impl FnMut(&str, &Command)) {
        each(typed, command);
        for inner in command.get_subcommands() {
            walk(inner, &format!("{typed} {}", inner.get_name()), each);
        }
    }

    #[test]
    fn every_flag_has_a_variable() {
        let mut n_flags = 0;
        walk(&args::command(), "llamboctl", &mut |typed, command| {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
                let long = arg.get_long().unwrap_or_default();
                if ["help", "version"].contains(&long) {
                    continue;
                }
                n_flags += 1;
                let variable = arg.get_env().unwrap_or_else(|| panic!("`{typed} --{long}` has no environment variable"));
                assert!(variable.to_string_lossy().starts_with("LLAMBO_"), "`{typed} --{long}`: {variable:?}");
            }
        });
        assert!(n_flags > 80, "only {n_flags} flags were seen");
    }

    #[test]
    fn one_variable_means_one_flag() {
        let mut meanings: BTreeMap<String, String> = BTreeMap::new();
        walk(&args::command(), "llamboctl", &mut |typed, command| {
            for arg in command.get_arguments() {
                let (Some(variable), Some(long)) = (arg.get_env(), arg.get_long()) else { continue };
                let before = meanings.insert(variable.to_string_lossy().into_owned(), long.to_owned());
                assert!(before.is_none_or(|before| before == long), "{variable:?} is another flag's too: `{typed} --{long}`");
            }
        });
        assert_eq!(meanings["LLAMBO_BENCH_LOAD_RATE"], "rate");
        assert_eq!(meanings["LLAMBO_MODEL"], "model");
    }
}
