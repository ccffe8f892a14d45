//! The conversation at the terminal.

mod commands;

use std::{
    io::{self, Write},
    process,
    time::SystemTime,
};

use llambo_client::{Ask, Client, Model};

use super::{
    Wishes,
    answer::{self, Answer, End, Shown},
    completion::Completion,
    slash::{self, Line},
    talk::{self, Talk, Turn},
};
use crate::{
    commands::{closing_line, interruptible},
    exit::{Failure, INTERRUPTED, OK},
    output,
    terminal::{Editor, Hush, Log, Typed, aside},
};

const PROMPT: &str = "limbot> ";

/// A conversation, and all it needs.
struct Chat {
    client: Client,
    wishes: Wishes,
    talk: Talk,
    lines: Editor<Completion>,
    /// Where turns are kept; none if they are not.
    turns: Option<Log>,
    /// What the host had when it was asked last; none before it answered.
    models: Vec<Model>,
    /// The question that was asked last.
    last: Option<String>,
}

/// Whether the conversation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    On,
    Over,
}

pub(super) async fn chat(client: Client, wishes: Wishes, resume: bool, no_history: bool) -> Result<u8, Failure> {
    let kept = |name: &str| if no_history { None } else { Some(Log::of_user(name)) };
    let turns = match kept("limbot-turns.jsonl").transpose() {
        Ok(turns) => turns,
        Err(e) => {
            note(&format!("nothing is kept on disk: {e}"))?;
            None
        }
    };
    let lines = Editor::new(Completion::new(), kept("limbot-lines.jsonl").and_then(Result::ok))?;
    let talk = Talk::new(new_id(), wishes.system.clone());
    let mut chat = Chat { client, wishes, talk, lines, turns, models: Vec::new(), last: None };
    if resume {
        chat.resume()?;
    }
    chat.greet().await?;
    loop {
        let goes = match chat.lines.read(PROMPT).await? {
            Typed::Line(line) => chat.line(&line).await?,
            Typed::Interrupted => {
                note("Ctrl-D or /exit leaves")?;
                Goes::On
            }
            Typed::End => Goes::Over,
        };
        if goes == Goes::Over {
            return Ok(OK);
        }
    }
}

impl Chat {
    async fn greet(&mut self) -> Result<(), Failure> {
        match self.refresh_models().await {
            Ok(()) => {
                let model = self.model().map_or("the host's first model", |model| &model.name).to_owned();
                note(&format!("{} at {}; /help lists what can be typed", output::for_terminal(&model), self.client.address()))
            }
            // it may come
            Err(e) => note(&format!("{}; the conversation begins when it is there", e.message())),
        }
    }

    async fn line(&mut self, text: &str) -> Result<Goes, Failure> {
        match slash::line(text) {
            Line::Empty => return Ok(Goes::On),
            Line::Question(question) => {
                self.lines.keep(text);
                self.ask(question, None).await?;
            }
            Line::Command(name, rest) => {
                self.lines.keep(text);
                return self.command(name, rest).await;
            }
            Line::Unknown(name, near) => {
                self.lines.keep(text);
                let remedy = match near.as_slice() {
                    [] => "/help lists the commands; `//` begins a question with `/`".to_owned(),
                    near => format!("did you mean {}?", near.join(" or ")),
                };
                note(&format!("there is no command {}; {remedy}", output::for_terminal(name)))?;
            }
        }
        Ok(Goes::On)
    }

    /// Asks, shows the answer, and keeps both once there is an answer; in the place of `before` if there was one.
    async fn ask(&mut self, question: String, before: Option<Turn>) -> Result<(), Failure> {
        // what is typed meanwhile would stand in the middle of the answer
        let _hush = Hush::new();
        self.last = Some(question.clone());
        if self.models.is_empty() {
            let asked = interruptible(async { self.refresh_models().await.map(|()| OK) }).await;
            if asked.is_err_and(|failure| failure.code() == INTERRUPTED) {
                self.put_back(before);
                return note("stopped");
            }
            // of everything else the request itself says what is wrong
        }
        if let Some((n_context, name)) = self.model().map(|model| (model.n_context, model.name.clone())) {
            let n = self.talk.trim(&question, n_context, self.wishes.sampling.max_tokens);
            left_out(n, &format!("into the {n_context} tokens of {name}"))?;
        }
        let answer = loop {
            let ask = self.wishes.over(Ask::chat(self.talk.messages(&question)));
            let answer = answer::answer(&self.client, ask, Shown::here()).await?;
            match &answer.end {
                // counted here too low
                End::Failed(e) if e.reason() == "PROMPT_TOO_LONG" && answer.text.is_empty() => {
                    let n = self.talk.trim_harder();
                    if n == 0 {
                        break answer;
                    }
                    left_out(n, "into what the model holds, as the host counts,")?;
                }
                _ => break answer,
            }
        };
        self.end(question, answer, before)
    }

    fn put_back(&mut self, turn: Option<Turn>) {
        if let Some(turn) = turn {
            self.talk.add(turn);
        }
    }

    /// Tells how an answer ended, and keeps what there is of it.
    fn end(&mut self, question: String, answer: Answer, before: Option<Turn>) -> Result<(), Failure> {
        let Answer { text, started, end } = answer;
        let is_kept = match end {
            End::Finished(finished) => {
                self.talk.counted(&question, finished.usage.unwrap_or_default().input_tokens);
                if !self.wishes.is_quiet {
                    note(&closing_line(&started, &finished))?;
                }
                true
            }
            End::Stopped => {
                note("stopped")?;
                !text.is_empty()
            }
            End::Failed(e) => {
                let failure = Failure::from(e);
                let is_away = failure.code() == Failure::unreachable("").code();
                let remedy = if is_away { "; the conversation is kept, and /retry asks again when the host is back" } else { "" };
                note(&format!("{}{remedy}", output::for_terminal(failure.message())))?;
                // another host may be there then
                self.models.clear();
                false
            }
        };
        if is_kept {
            let turn = Turn { question, answer: text };
            self.keep(&started.model, &turn, before.is_some())?;
            self.talk.add(turn);
        } else {
            self.put_back(before);
        }
        Ok(())
    }

    /// On disk, if possible.
    fn keep(&mut self, model: &str, turn: &Turn, again: bool) -> Result<(), Failure> {
        let Some(log) = &self.turns else { return Ok(()) };
        if let Err(e) = log.append(&talk::record(&self.talk.id, now_ms(), model, turn, again)) {
            note(&format!("this is not kept on disk any more: `{}`: {e}", log.path().display()))?;
            self.turns = None;
        }
        Ok(())
    }

    /// Goes on with the last conversation on disk.
    fn resume(&mut self) -> Result<(), Failure> {
        let records = match &self.turns {
            Some(log) => log.read().map_err(|e| Failure::io(&format!("read `{}`", log.path().display()), &e))?,
            None => Vec::new(),
        };
        let turns = talk::of_records(&records);
        let Some(id) = turns.last().map(|(id, _)| (*id).to_owned()) else {
            return note("there is no conversation to go on with; this is a new one");
        };
        for (_, turn) in turns.into_iter().filter(|(other, _)| *other == id) {
            self.talk.add(turn);
        }
        self.talk.id = id;
        let n = self.talk.turns().len();
        note(&format!("{n} turn{} from before; /history shows them", if n == 1 { "" } else { "s" }))
    }

    async fn refresh_models(&mut self) -> Result<(), Failure> {
        self.models = self.client.models().await?;
        self.lines.helper().models = self.models.iter().map(|model| model.name.clone()).collect();
        Ok(())
    }

    /// The model that answers, if the host has told.
    fn model(&self) -> Option<&Model> {
        match &self.wishes.target.model {
            Some(name) => self.models.iter().find(|model| model.name == *name),
            None => self.models.first(),
        }
    }
}

/// Says something beside the conversation. To standard output, where the conversation is: a terminal shows both, in their order.
fn note(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{}", aside(text))?;
    Ok(())
}

fn left_out(n: usize, into: &str) -> Result<(), Failure> {
    match n {
        0 => Ok(()),
        1 => note(&format!("the oldest turn no longer fits {into} and is left out")),
        n => note(&format!("the {n} oldest turns no longer fit {into} and are left out")),
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The name of a new conversation, which no other on this machine has.
fn new_id() -> String {
    format!("{:x}-{:x}", now_ms(), process::id())
}
