//! One question, for the terminal's command line and for scripts.

use std::io::{self, IsTerminal, Write};

use llambo_client::Ask;
use tokio::sync::oneshot;

use super::{
    Wishes,
    answer::{self, Answer, End, Shown},
};
use crate::{
    commands::{Session, closing_line, standard_input, whole},
    exit::{Failure, OK},
    output, terminal,
};

/// Answers a question from the command line, from standard input, or one about the other.
pub(super) async fn once(session: &Session, wishes: Wishes, question: Option<String>) -> Result<u8, Failure> {
    let piped = if io::stdin().is_terminal() && question.is_some() { String::new() } else { piped().await? };
    let question = asked(&question.unwrap_or_default(), &piped)?;
    let messages = wishes.system.clone().map(|text| ("system", text)).into_iter().chain([("user", question)]);
    let ask = wishes.over(Ask::chat(messages));
    let shown = if session.json { Shown::Nothing } else { Shown::here() };
    let Answer { text, started, end } = answer::answer(&session.client, ask, shown).await?;
    match end {
        End::Finished(finished) if session.json => output::json(&mut io::stdout(), &whole(&text, &started, &finished))?,
        End::Finished(finished) => {
            let mut err = io::stderr();
            if !wishes.is_quiet && err.is_terminal() {
                let _ = writeln!(err, "{}", terminal::aside(&closing_line(&started, &finished)));
            }
        }
        End::Stopped => return Err(Failure::interrupted()),
        End::Failed(e) => return Err(e.into()),
    }
    Ok(OK)
}

/// Everything on standard input, unless Ctrl-C comes first.
async fn piped() -> Result<String, Failure> {
    let (tell, read) = oneshot::channel();
    // a thread that nobody joins: a pipe that stays open must not hold up the end of the program
    tokio::task::spawn_blocking(move || tell.send(standard_input()));
    tokio::select! {
        biased;
        interrupt = tokio::signal::ctrl_c() => {
            interrupt.map_err(|e| Failure::io("listen for Ctrl-C", &e))?;
            Err(Failure::interrupted())
        }
        text = read => text.unwrap_or_else(|_| Err(Failure::bad_input("standard input cannot be read"))),
    }
}

/// The question; where both are there, the piped text is its material.
fn asked(question: &str, piped: &str) -> Result<String, Failure> {
    let (question, piped) = (question.trim(), piped.trim_end());
    match (question.is_empty(), piped.trim().is_empty()) {
        (true, true) => Err(Failure::bad_input("nothing was asked; write the question as an argument, or to standard input")),
        (false, true) => Ok(question.to_owned()),
        (true, false) => Ok(piped.to_owned()),
        (false, false) => Ok(format!("{question}\n\n{piped}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_the_question_or_its_material() {
        assert_eq!(asked("Why?", "").as_deref(), Ok("Why?"));
        assert_eq!(asked("Why?", " \n").as_deref(), Ok("Why?"));
        assert_eq!(asked("", "Why?\n").as_deref(), Ok("Why?"));
        assert_eq!(asked("Sum up:", "  a\n  b\n").as_deref(), Ok("Sum up:\n\n  a\n  b"));
        assert_eq!(asked(" ", "\n").unwrap_err().code(), 65);
    }
}
