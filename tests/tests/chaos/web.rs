//! The same over HTTP: streams and whole answers of OpenAI's interface, readers that hang up, and tasks.

use std::{io, net::SocketAddr};

use llambo_tests::web::{self, Event, Events};
use serde_json::{Value, json};

use crate::clients::{TOKENS, Tally};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Streams,
    Whole,
    HangsUp,
    Tasks,
}

/// What is asked for over and over.
struct Asked<'a> {
    at: SocketAddr,
    dice: usize,
    wanted: &'a (String, String),
}

pub(crate) async fn one(at: SocketAddr, kind: Kind, dice: usize, wanted: &(String, String), tally: &mut Tally) {
    let asked = Asked { at, dice, wanted };
    let done = match kind {
        Kind::Streams | Kind::HangsUp => asked.stream(kind == Kind::HangsUp, tally).await,
        Kind::Whole => asked.whole(tally).await,
        Kind::Tasks => asked.task(tally).await,
    };
    if let Err(error) = done {
        tally.wrong.push(format!("{:?} broke off: {error}", wanted.0));
    }
}

impl Asked<'_> {
    fn body(&self, streams: bool) -> String {
        let (prompt, _) = self.wanted;
        let body = json!({"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "repeat_penalty": 1.0, "stream": streams});
        body.to_string()
    }

    async fn stream(&self, hangs_up: bool, tally: &mut Tally) -> io::Result<()> {
        let mut events = Events::open(self.at, "POST", "/v1/completions", "", &self.body(true)).await?;
        if events.status != 200 {
            tally.refusal(&events.error().await?);
            return Ok(());
        }
        let leaves_after = if hangs_up { self.dice % 8 } else { usize::MAX };
        let (mut text, mut reasons, mut is_done) = (String::new(), Vec::new(), false);
        for n_read in 0.. {
            if n_read == leaves_after {
                tally.cancelled += 1;
                return Ok(());
            }
            let Some(Event { data, .. }) = events.next().await? else { break };
            if is_done {
                tally.wrong.push(format!("something follows the end: {data}"));
            }
            if data == "[DONE]" {
                is_done = true;
                continue;
            }
            let told: Value = serde_json::from_str(&data)?;
            if told["error"].is_object() {
                tally.refusal(&told);
                return Ok(());
            }
            let choice = &told["choices"][0];
            text.push_str(choice["text"].as_str().unwrap_or_default());
            reasons.extend(choice["finish_reason"].as_str().map(str::to_owned));
        }
        match (is_done, reasons.len()) {
            (true, 1) => tally.text(&text, self.wanted),
            (is_done, n) => tally.wrong.push(format!("{n} ends ({is_done}) of {text:?}")),
        }
        Ok(())
    }

    async fn whole(&self, tally: &mut Tally) -> io::Result<()> {
        let (status, answer) = self.send("POST", "/v1/completions", &self.body(false)).await?;
        match status {
            200 => tally.text(answer["choices"][0]["text"].as_str().unwrap_or_default(), self.wanted),
            _ => tally.refusal(&answer),
        }
        Ok(())
    }

    /// Most are followed to their end, some are cancelled.
    async fn task(&self, tally: &mut Tally) -> io::Result<()> {
        let (prompt, _) = self.wanted;
        let task = json!({"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "repeat_penalty": 1.0});
        let (status, task) = self.send("POST", "/v2/tasks", &task.to_string()).await?;
        if status != 202 {
            tally.refusal(&task);
            return Ok(());
        }
        let path = format!("/v2/tasks/{}", task["id"].as_str().unwrap_or_default());
        if self.dice.is_multiple_of(5) {
            // it may have ended before
            self.send("POST", &format!("{path}/cancel"), "").await?;
        }
        let mut events = Events::open(self.at, "GET", &format!("{path}/events"), "", "").await?;
        let (mut text, mut ends) = (String::new(), Vec::<Value>::new());
        while let Some(event) = events.next().await? {
            match event.name.as_str() {
                "token" => text.push_str(serde_json::from_str::<Value>(&event.data)?["text"].as_str().unwrap_or_default()),
                "end" => ends.push(serde_json::from_str(&event.data)?),
                "error" => tally.wrong.push(format!("{path}: {}", event.data)),
                _ => {}
            }
        }
        let [end] = &ends[..] else {
            tally.wrong.push(format!("{path} has {} ends", ends.len()));
            return Ok(());
        };
        let (_, kept) = self.send("GET", &path, "").await?;
        match end["state"].as_str().unwrap_or_default() {
            "finished" if kept["text"] == json!(text) => tally.text(&text, self.wanted),
            "cancelled" => tally.cancelled += 1,
            "failed" => tally.reason(end["error"]["reason"].as_str().unwrap_or_default(), end, false),
            _ => tally.wrong.push(format!("{path} ended {end} and was told as {text:?}, and kept is {kept}")),
        }
        Ok(())
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> io::Result<(u16, Value)> {
        let broke_off = || io::Error::other(format!("{method} {path} was not answered to its end"));
        web::send(self.at, method, path, body).await.ok_or_else(broke_off)
    }
}

impl Tally {
    /// `error.code` is the reason in lower case.
    fn refusal(&mut self, told: &Value) {
        let code = told["error"]["code"].as_str().unwrap_or_default().to_ascii_uppercase();
        self.reason(&code, told, false);
    }
}
