//! What the lines with a slash do.

use std::{
    env,
    fs::OpenOptions,
    io::{self, ErrorKind, Write},
    path::PathBuf,
};

use super::{Chat, Goes, new_id, note};
use crate::{
    args::values,
    commands::interruptible,
    exit::{Failure, OK},
    limbot::{
        slash::COMMANDS,
        talk::{self, Talk, Turn},
    },
    output, terminal,
};

impl Chat {
    pub(super) async fn command(&mut self, name: &str, rest: &str) -> Result<Goes, Failure> {
        match name {
            "/exit" => return Ok(Goes::Over),
            "/help" => help()?,
            "/history" => self.history(rest)?,
            "/clear" => {
                self.talk = Talk::new(new_id(), self.wishes.system.clone());
                self.last = None;
                note("a new conversation begins")?;
            }
            "/retry" => match self.last.clone() {
                Some(question) => {
                    let before = self.talk.take_back(&question);
                    self.ask(question, before).await?;
                }
                None => note("nothing was asked yet")?,
            },
            "/status" => self.watched(Self::status).await?,
            "/model" => self.watched(async |chat| chat.set_model(rest).await).await?,
            "/tier" => self.set_tier(rest)?,
            "/save" => self.save(rest)?,
            name => note(&format!("{name} does nothing"))?,
        }
        Ok(Goes::On)
    }

    /// Something that asks the host and may be interrupted; what goes wrong is told, and the conversation goes on.
    async fn watched(&mut self, what: impl AsyncFnOnce(&mut Self) -> Result<(), Failure>) -> Result<(), Failure> {
        let done = interruptible(async { what(self).await.map(|()| OK) }).await;
        match done {
            Ok(_) => Ok(()),
            Err(failure) => note(&output::for_terminal(failure.message())),
        }
    }

    async fn status(&mut self) -> Result<(), Failure> {
        let host = self.client.status().await;
        let told = self.refresh_models().await;
        let mut out = io::stdout();
        let address = self.client.address();
        match host {
            Ok(host) => {
                let of = |state: &str| host.nodes_by_state.get(state).copied().unwrap_or_default();
                let (version, up) = (&host.version, output::age(host.uptime_seconds));
                let waiting = host.queue.unwrap_or_default().waiting;
                let n: u32 = host.nodes_by_state.values().sum();
                let (ready, busy) = (of("ready"), of("busy"));
                let draining = if host.draining { ", draining" } else { "" };
                writeln!(out, "host          {address}, llambo {version}, up {up}{draining}")?;
                writeln!(out, "nodes         {n}: {ready} ready, {busy} busy; {waiting} requests wait")?;
            }
            Err(e) => writeln!(out, "host          {}", output::for_terminal(&e.to_string()))?,
        }
        let wanted = self.wishes.target.model.as_deref();
        match (self.model(), wanted) {
            (Some(model), wanted) => {
                let first = if wanted.is_none() { ", the host's first" } else { "" };
                writeln!(out, "model         {}{first}; it holds {} tokens", output::for_terminal(&model.name), model.n_context)?;
            }
            (None, Some(name)) => {
                let why = if told.is_ok() { ", which the host does not have" } else { "" };
                writeln!(out, "model         {name}{why}")?;
            }
            (None, None) => writeln!(out, "model         the host's first")?,
        }
        let tier = self.wishes.tier.map_or_else(|| "any".to_owned(), |tier| tier.to_string());
        let node_type =
            self.wishes.target.node_type.as_ref().map_or_else(String::new, |name| format!(", nodes of type {name} only"));
        writeln!(out, "tier          {tier}{node_type}")?;
        let (turns, left_out, tokens) = (self.talk.turns().len(), self.talk.n_left_out(), self.talk.tokens(""));
        let share = self.model().map_or_else(String::new, |model| {
            format!(", {} of the context", output::percent((tokens as f64 / f64::from(model.n_context.max(1))).min(9.99)))
        });
        let left_out = if left_out > 0 { format!("; the {left_out} oldest are left out") } else { String::new() };
        let turns = if turns == 1 { "1 turn".to_owned() } else { format!("{turns} turns") };
        writeln!(out, "conversation  {turns}, about {tokens} tokens{share}{left_out}")?;
        let kept = self.turns.as_ref().map_or_else(|| "not kept".to_owned(), |log| log.path().display().to_string());
        writeln!(out, "on disk       {kept}")?;
        Ok(())
    }

    async fn set_model(&mut self, name: &str) -> Result<(), Failure> {
        self.refresh_models().await?;
        if name.is_empty() {
            let present = self.model().map(|model| model.name.clone());
            let mut out = io::stdout();
            for model in &self.models {
                let mark = if Some(&model.name) == present.as_ref() { '*' } else { ' ' };
                writeln!(out, "{mark} {}  holds {} tokens", output::for_terminal(&model.name), model.n_context)?;
            }
            return Ok(());
        }
        if !self.models.iter().any(|model| model.name == name) {
            let mut names: Vec<_> = self.models.iter().map(|model| model.name.as_str()).collect();
            names.sort_by(|a, b| strsim::jaro_winkler(b, name).total_cmp(&strsim::jaro_winkler(a, name)));
            names.truncate(5);
            return note(&format!("the host has no model {name}; it has {}", output::for_terminal(&names.join(", "))));
        }
        self.wishes.target.model = Some(name.to_owned());
        // it may hold more than the one before
        self.talk.send_all_again();
        note(&format!("{name} answers from now on"))
    }

    fn set_tier(&mut self, text: &str) -> Result<(), Failure> {
        match text {
            "" => {
                let tier = self.wishes.tier.map_or_else(|| "any".to_owned(), |tier| tier.to_string());
                return note(&format!("tier {tier}; /tier 0, 1, 2 or any changes it"));
            }
            "any" => {
                self.wishes.tier = None;
                return note("nodes of any tier are asked from now on");
            }
            text => match values::tier(text) {
                Ok(tier) => self.wishes.tier = Some(tier),
                Err(why) => return note(&format!("a tier {why}, or `any`")),
            },
        }
        note(&format!("nodes of tier {text} are asked from now on, others only if none of them is free"))
    }

    fn history(&self, which: &str) -> Result<(), Failure> {
        match which {
            "" if self.talk.turns().is_empty() => note("nothing was said yet; `/history all` shows earlier conversations"),
            "" => {
                for (n, turn) in self.talk.turns().iter().enumerate() {
                    if n == self.talk.n_left_out() && n > 0 {
                        note("the turns above are left out of what the model is sent")?;
                    }
                    show(n + 1, turn)?;
                }
                Ok(())
            }
            "all" => self.all(),
            _ => note("write `/history`, or `/history all`"),
        }
    }

    fn all(&self) -> Result<(), Failure> {
        let Some(log) = &self.turns else { return note("nothing is kept on disk") };
        let records = match log.read() {
            Ok(records) => records,
            Err(e) => return note(&format!("`{}` cannot be read: {e}", log.path().display())),
        };
        let mut last = None;
        let mut n = 0;
        for (id, turn) in talk::of_records(&records) {
            if last != Some(id) {
                note(&format!("conversation {id}"))?;
                n = 0;
            }
            last = Some(id);
            n += 1;
            show(n, &turn)?;
        }
        if last.is_none() { note("no conversation is on disk yet") } else { Ok(()) }
    }

    fn save(&self, rest: &str) -> Result<(), Failure> {
        let path = match shell_words::split(rest) {
            Ok(words) if words.len() == 1 && !words[0].is_empty() => path(&words[0]),
            _ => return note("write `/save FILE`; a name with spaces stands in quotes"),
        };
        if self.talk.turns().is_empty() {
            return note("nothing was said yet that could be saved");
        }
        let written = OpenOptions::new().write(true).create_new(true).open(&path);
        let written = written.and_then(|mut file| file.write_all(self.talk.to_markdown().as_bytes()));
        match written {
            Ok(()) => note(&format!("wrote {}", path.display())),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => note(&format!("`{}` exists; give another name", path.display())),
            Err(e) => note(&format!("cannot write `{}`: {e}", path.display())),
        }
    }
}

/// A file's path; `~/` is the user's home.
fn path(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => text.into(),
    }
}

fn help() -> Result<(), Failure> {
    let mut out = io::stdout();
    for (name, argument, what) in COMMANDS {
        writeln!(out, "{:<20} {what}", format!("{name} {argument}"))?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "Everything else is for the model. Alt-Enter, or `\\` before Enter, begins a new line;\npasted lines stay together."
    )?;
    writeln!(out, "Ctrl-C stops an answer, the arrow keys bring back what was typed, Tab completes.")?;
    Ok(())
}

fn show(n: usize, turn: &Turn) -> Result<(), Failure> {
    let mark = terminal::aside(&format!("{n:>3}"));
    let text = |text: &str| output::for_terminal(text.trim()).replace('\n', "\n    ");
    writeln!(io::stdout(), "{mark} {}\n    {}", strong(&text(&turn.question)), text(&turn.answer))?;
    Ok(())
}

fn strong(text: &str) -> String {
    if terminal::may_style() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}
