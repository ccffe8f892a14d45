//! Lines that are for limbot itself.

/// Commands as they are typed, with what follows them and what they do.
pub(super) const COMMANDS: [(&str, &str, &str); 9] = [
    ("/help", "", "what can be typed"),
    ("/history", "[all]", "what was said in this conversation, or in all that are on disk"),
    ("/clear", "", "begin anew; the model forgets what was said"),
    ("/retry", "", "ask the last question again"),
    ("/status", "", "the host, the model, and how full its context is"),
    ("/model", "[NAME]", "ask another model; without a name, list them"),
    ("/tier", "[0-2|any]", "prefer nodes of a tier"),
    ("/save", "FILE", "write the conversation into a file, as Markdown"),
    ("/exit", "", "leave; so does Ctrl-D"),
];
/// Names whose difference is at least so small are proposed.
const NEAR: f64 = 0.6;

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Empty,
    /// Something for the model.
    Question(String),
    /// A command's name, and what follows.
    Command(&'static str, &'a str),
    /// No command, and those that are spelled alike.
    Unknown(&'a str, Vec<&'static str>),
}

/// Reads a line. One that begins with `//` is a question that begins with `/`.
pub(super) fn line(text: &str) -> Line<'_> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Line::Empty;
    }
    if !text.starts_with('/') || text.starts_with("//") {
        let text = text.strip_prefix('/').unwrap_or(text);
        // a backslash joined these lines while they were typed
        return Line::Question(text.replace("\\\n", "\n").trim().to_owned());
    }
    let (name, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
    let lower = name.to_lowercase();
    match COMMANDS.iter().find(|(known, ..)| *known == lower || (lower == "/quit" && *known == "/exit")) {
        Some((known, ..)) => Line::Command(known, rest.trim()),
        None => Line::Unknown(name, near(&lower)),
    }
}

/// Whether a line goes on after Enter.
pub(super) fn goes_on(text: &str) -> bool {
    let backslashes = text.len() - text.trim_end_matches('\\').len();
    backslashes % 2 == 1 && !text.starts_with('/')
}

fn near(name: &str) -> Vec<&'static str> {
    let begins = |known: &str| name.len() > 1 && known.starts_with(name);
    let mut found: Vec<_> = COMMANDS
        .iter()
        .map(|(known, ..)| (if begins(known) { 1.0 } else { strsim::normalized_damerau_levenshtein(name, known) }, *known))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.into_iter().map(|(_, known)| known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_slash_is_a_command() {
        assert_eq!(line("/help"), Line::Command("/help", ""));
        assert_eq!(line("/SAVE  a file.md "), Line::Command("/save", "a file.md"));
        assert_eq!(line("/quit"), Line::Command("/exit", ""));
        assert_eq!(line("//etc/hosts?"), Line::Question("/etc/hosts?".into()));
        assert_eq!(line(" /help"), Line::Question("/help".into()));
        assert_eq!((line(""), line(" \n")), (Line::Empty, Line::Empty));
        assert_eq!(line("a\\\nb"), Line::Question("a\nb".into()));
    }

    #[test]
    fn an_unknown_command_names_those_that_are_near() {
        assert_eq!(line("/hlep"), Line::Unknown("/hlep", vec!["/help"]));
        assert_eq!(line("/hi"), Line::Unknown("/hi", vec!["/history"]));
        assert_eq!(line("/stats x"), Line::Unknown("/stats", vec!["/status"]));
        assert_eq!(line("/xyzzy"), Line::Unknown("/xyzzy", vec![]));
        assert_eq!(line("/"), Line::Unknown("/", vec![]));
    }

    #[test]
    fn a_backslash_at_the_end_goes_on() {
        assert!(goes_on("a\\") && goes_on("a\\\nb\\") && !goes_on("a\\\\") && !goes_on("a") && !goes_on("/save \\"));
    }
}
