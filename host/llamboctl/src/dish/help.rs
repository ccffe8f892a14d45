//! What can be typed, for people.

use std::io::{self, Write};

use clap::error::ErrorKind;

use super::words::{self, BUILT_IN};
use crate::{
    exit::{Failure, OK},
    terminal,
};

/// Lists commands, or tells about one of them.
pub(super) fn help(about: &[String]) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    if let Some((name, rest, what)) = about.first().and_then(|about| BUILT_IN.iter().find(|(name, ..)| name == about)) {
        writeln!(out, "{name} {rest}\n    {what}")?;
        return Ok(OK);
    }
    if !about.is_empty() {
        let words: Vec<_> = about.iter().cloned().chain(["--help".to_owned()]).collect();
        drop(out);
        // asked for help, clap says nothing else
        return words::command(&words).map_or_else(|e| of_clap(&e), |_| Ok(OK));
    }
    writeln!(out, "Of this shell:")?;
    for (name, rest, what) in BUILT_IN {
        writeln!(out, "  {name:<11} {what}{}", if rest.is_empty() { String::new() } else { format!(": {name} {rest}") })?;
    }
    writeln!(out, "\nOf llamboctl; `help COMMAND` tells more:")?;
    for command in words::commands().get_subcommands().filter(|command| command.get_name() != "dish") {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(out, "  {:<11} {about}", command.get_name())?;
    }
    writeln!(
        out,
        "\nWith `--json` behind it a command prints JSON; Ctrl-C stops a command, Tab completes, `#` begins a comment."
    )?;
    Ok(OK)
}

/// What clap says to a line: help goes to standard output and is a good end.
pub(super) fn of_clap(error: &clap::Error) -> Result<u8, Failure> {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Err(Failure::wrong_usage(format!("more is needed\n\n{}", shortened(error.to_string().trim()))));
    }
    if error.use_stderr() {
        return Err(Failure::wrong_usage(shortened(&Failure::usage(error).message().replace("llamboctl help", "help"))));
    }
    let text = error.render();
    let text = if terminal::may_style() { text.ansi().to_string() } else { text.to_string() };
    write!(io::stdout(), "{}", shortened(&text))?;
    Ok(OK)
}

/// Without the name of the program, which is not typed here.
fn shortened(text: &str) -> String {
    text.replacen("llamboctl ", "", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_that_of_the_shell() {
        let error = words::command(&["spawn".to_owned(), "--type".to_owned()]).unwrap_err();
        let failure = of_clap(&error).unwrap_err();
        assert!(failure.code() == 64 && !failure.message().contains("llamboctl"), "{failure:?}");
        let error = words::command(&["spwan".to_owned()]).unwrap_err();
        let failure = of_clap(&error).unwrap_err();
        assert!(failure.message().contains("'spawn'"), "{failure:?}");
    }
}
