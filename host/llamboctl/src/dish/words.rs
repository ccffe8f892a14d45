//! What a statement asks for: a command of the shell itself, or one of llamboctl.

use std::time::Duration;

use clap::{ArgMatches, CommandFactory, FromArgMatches, parser::ValueSource};

use crate::args::{Args, Command, policy::Policy, session::Session, values};

/// How often `watch` repeats, unless it is told.
const INTERVAL: Duration = Duration::from_secs(2);
/// What the shell itself understands: name, what follows, what it does.
pub(super) const BUILT_IN: [(&str, &str, &str); 5] = [
    ("help", "[COMMAND]", "list commands, or tell about one"),
    ("watch", "[--interval TIME] [--times N] COMMAND", "repeat a command until Ctrl-C"),
    ("set", "-e|+e|-x|+x", "in a script: stop at the first failure; show each command"),
    ("echo", "WORDS", "print words"),
    ("exit", "[CODE]", "leave; so does Ctrl-D"),
];

/// A statement that is understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Help(Vec<String>),
    Watch(Watch),
    Set(Vec<Switch>),
    Echo(String),
    Exit(Option<u8>),
    /// Words of llamboctl's command line, without its name.
    Command(Vec<String>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) interval: Duration,
    /// So often; without it, until Ctrl-C.
    pub(super) times: Option<u64>,
    pub(super) command: Vec<String>,
}

/// A setting of scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    StopAtFailure(bool),
    ShowCommands(bool),
}

/// Reads a statement.
///
/// # Errors
/// What is wrong with a command of the shell itself.
pub(super) fn asked(words: Vec<String>) -> Result<Asked, String> {
    let rest = || words[1..].to_vec();
    match words.first().map(String::as_str) {
        Some("help") => Ok(Asked::Help(rest())),
        Some("watch") => watch(rest()).map(Asked::Watch),
        Some("set") => rest().iter().map(|word| switches(word)).collect::<Result<Vec<_>, _>>().and_then(|switches| {
            let switches = switches.concat();
            if switches.is_empty() {
                Err("write `set -e`, `set +e`, `set -x` or `set +x`".into())
            } else {
                Ok(Asked::Set(switches))
            }
        }),
        Some("echo") => Ok(Asked::Echo(rest().join(" "))),
        Some("exit" | "quit") => match rest().as_slice() {
            [] => Ok(Asked::Exit(None)),
            [code] => code
                .parse()
                .map(|code| Asked::Exit(Some(code)))
                .map_err(|_| format!("`{code}` is no exit code; write one from 0 to 255")),
            _ => Err("`exit` takes one code at most".into()),
        },
        _ => Ok(Asked::Command(words)),
    }
}

fn switches(word: &str) -> Result<Vec<Switch>, String> {
    let wrong = || format!("`set {word}` is not known; write `set -e`, `set +e`, `set -x` or `set +x`");
    let (is_on, letters) = match word.split_at_checked(1) {
        Some(("-", letters)) if !letters.is_empty() => (true, letters),
        Some(("+", letters)) if !letters.is_empty() => (false, letters),
        _ => return Err(wrong()),
    };
    let switch = |letter| match letter {
        'e' => Ok(Switch::StopAtFailure(is_on)),
        'x' => Ok(Switch::ShowCommands(is_on)),
        _ => Err(wrong()),
    };
    letters.chars().map(switch).collect()
}

/// Its own flags stand before the command, or at the very end.
fn watch(mut words: Vec<String>) -> Result<Watch, String> {
    let mut watch = Watch { interval: INTERVAL, times: None, command: Vec::new() };
    while let Some(n) = watch.flag(&words)? {
        words.drain(..n);
    }
    // `status --watch --interval 1s` has its own
    while words.len() > 2 {
        let at = words.len() - 2;
        let is_own = words[at] == "--interval" && words.iter().any(|word| word == "--watch");
        let n = if is_own { None } else { watch.flag(&words[at..])? };
        if n == Some(2) {
            words.truncate(at);
            continue;
        }
        let last = &words[words.len() - 1..];
        if last[0].contains('=') && !is_own && watch.flag(last)? == Some(1) {
            words.pop();
            continue;
        }
        break;
    }
    match words.first().map(String::as_str) {
        None => Err("write `watch [--interval TIME] COMMAND`, for example `watch status`".into()),
        Some(name @ ("watch" | "set" | "exit" | "quit" | "dish" | "top" | "limbot")) => {
            Err(format!("`{name}` cannot be watched"))
        }
        Some(_) => {
            watch.command = words;
            Ok(watch)
        }
    }
}

impl Watch {
    /// Takes one of its flags from the beginning of `words`; says how many words that were.
    fn flag(&mut self, words: &[String]) -> Result<Option<usize>, String> {
        let Some(word) = words.first() else { return Ok(None) };
        let (name, value, n) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value), 1),
            None => (word.as_str(), words.get(1).map(String::as_str), 2),
        };
        match (name, value) {
            ("--interval", Some(value)) => {
                self.interval = values::interval(value).map_err(|why| format!("`--interval {value}`: {why}"))?;
            }
            ("--times", Some(value)) => {
                let times = value.parse().ok().filter(|n| *n > 0);
                self.times = Some(times.ok_or_else(|| format!("`--times {value}`: write a number from 1"))?);
            }
            ("--interval" | "--times", None) => return Err(format!("`{name}` needs a value")),
            _ => return Ok(None),
        }
        Ok(Some(n))
    }
}

/// llamboctl's commands, as they stand in a statement.
pub(super) fn commands() -> clap::Command {
    Args::command().no_binary_name(true)
}

/// Reads a command; the words of each flag that belongs to the connection say whether it was given here.
///
/// # Errors
/// What clap says, which may also be help.
pub(super) fn command(words: &[String]) -> Result<(Args, Given), clap::Error> {
    let matches = commands().try_get_matches_from(words)?;
    let given = Given::of(&matches);
    Ok((Args::from_arg_matches(&matches)?, given))
}

/// Which host a command goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// The shell's.
    Nothing,
    /// One of its own: `--host`, a token or a certificate stand in its words.
    Connection,
}

impl Given {
    fn of(matches: &ArgMatches) -> Self {
        let is_given = |id: &str| {
            // flags of the program may stand before and behind the name of a command
            let mut matches = Some(matches);
            while let Some(here) = matches {
                if here.try_contains_id(id).unwrap_or(false) && here.value_source(id) == Some(ValueSource::CommandLine) {
                    return true;
                }
                matches = here.subcommand().map(|(_, below)| below);
            }
            false
        };
        if ["host", "token", "token_file", "ca", "cert", "key"].into_iter().any(is_given) {
            Self::Connection
        } else {
            Self::Nothing
        }
    }
}

/// Whether a command reads standard input, which is the shell's own.
pub(super) fn reads_standard_input(command: &Command) -> bool {
    match command {
        Command::Infer(args) => args.prompt == "-",
        Command::Embed(args) => args.texts.as_slice() == ["-"],
        Command::Session(Session::Ask(args)) => args.text.as_deref() == Some("-"),
        _ => false,
    }
}

/// Whether a command knows itself what to do at Ctrl-C: it has something to print or to write before it goes.
pub(super) fn minds_interrupts(command: &Command) -> bool {
    matches!(
        command,
        Command::Infer(_)
            | Command::Limbot(_)
            | Command::Session(Session::Ask(_))
            | Command::Bench(_)
            | Command::Policy(Policy::Record(_) | Policy::Replay { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Asked, String> {
        asked(shell_words::split(line).unwrap())
    }

    fn watched(interval_ms: u64, times: Option<u64>, command: &str) -> Asked {
        let command = command.split(' ').map(ToOwned::to_owned).collect();
        Asked::Watch(Watch { interval: Duration::from_millis(interval_ms), times, command })
    }

    #[test]
    fn a_watch_has_its_flags_before_or_behind_its_command() {
        for (line, expected) in [
            ("watch status", watched(2000, None, "status")),
            ("watch --interval 500ms nodes list", watched(500, None, "nodes list")),
            ("watch nodes list --interval 1s", watched(1000, None, "nodes list")),
            ("watch nodes list --interval=1s --times 3", watched(1000, Some(3), "nodes list")),
            ("watch --times=2 status --watch --interval 1s", watched(2000, Some(2), "status --watch --interval 1s")),
        ] {
            assert_eq!(read(line), Ok(expected), "{line}");
        }
        for (line, why) in [
            ("watch", "write `watch"),
            ("watch --interval", "needs a value"),
            ("watch --interval 1h status", "between 100ms and 60s"),
            ("watch status --times 0", "from 1"),
            ("watch watch status", "cannot be watched"),
            ("watch exit", "cannot be watched"),
        ] {
            assert!(read(line).unwrap_err().contains(why), "{line}: {:?}", read(line));
        }
    }

    #[test]
    fn settings_are_those_of_sh() {
        use Switch::{ShowCommands, StopAtFailure};
        assert_eq!(read("set -e"), Ok(Asked::Set(vec![StopAtFailure(true)])));
        assert_eq!(read("set -ex +e"), Ok(Asked::Set(vec![StopAtFailure(true), ShowCommands(true), StopAtFailure(false)])));
        for bad in ["set", "set e", "set -", "set -u", "set --", "set ''"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_rest_are_commands_of_llamboctl() {
        assert_eq!(read("status"), Ok(Asked::Command(vec!["status".into()])));
        assert_eq!((read("exit"), read("quit 3")), (Ok(Asked::Exit(None)), Ok(Asked::Exit(Some(3)))));
        assert!(read("exit 256").is_err() && read("exit 1 2").is_err());
        assert_eq!(read("echo 'a  b' c"), Ok(Asked::Echo("a  b c".into())));
        let command = |line: &str| command(&shell_words::split(line).unwrap());
        let (args, given) = command("nodes list --type tiny").unwrap();
        assert!(matches!(args.command, Command::Nodes(_)) && given == Given::Nothing);
        assert_eq!(command("--host h:1 status").unwrap().1, Given::Connection);
        assert_eq!(command("status --host h:1").unwrap().1, Given::Connection);
        assert_eq!(command("nodes list --token t").unwrap().1, Given::Connection);
        assert!(command("nonsense").unwrap_err().use_stderr());
        assert!(!command("spawn --help").unwrap_err().use_stderr());
        let reads = |line: &str| reads_standard_input(&command(line).unwrap().0.command);
        assert!(reads("infer -") && reads("embed -") && reads("session ask x -") && !reads("infer x") && !reads("session ask x"));
    }
}
