//! `llamboctl task`: the host's `/v2/tasks`.

use std::io::{self, IsTerminal, Write};

use hyper::{Method, StatusCode, header::HeaderValue};
use serde_json::{Map, Value, json};

use super::{
    http::{self, Answer, Port},
    infer,
};
use crate::{
    args::task::{Submit, Task},
    exit::{Failure, NO, OK},
    output::{
        self,
        Align::{Left, Right, State},
    },
};

/// Tasks of one page, as the host limits them.
const PAGE: u32 = 1000;
/// Bytes of one event: a task's text comes in pieces, its end without text.
const MAX_EVENT: usize = 16 * 1024 * 1024;

/// What the host says of a task while it runs.
#[derive(Debug, PartialEq)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

/// Puts events together from the bytes of a body, as they come.
#[derive(Default)]
struct Events {
    waiting: Vec<u8>,
}

pub(crate) async fn task(port: &Port<'_>, task: Task, json: bool) -> Result<u8, Failure> {
    match task {
        Task::Submit(args) => submit(port, args, json).await,
        Task::Show { id } => {
            let task = port.json(http::bare(Method::GET, &of(&id, "")?)?).await?;
            show(&task, json)
        }
        Task::Events { id, after } => infer::interruptible(follow(port, &id, after.as_deref(), json)).await,
        Task::Cancel { id } => {
            let task = port.json(http::bare(Method::POST, &of(&id, "/cancel")?)?).await?;
            brief(&task, json)
        }
        Task::Delete { id } => {
            port.json(http::bare(Method::DELETE, &of(&id, "")?)?).await?;
            let mut out = io::stdout().lock();
            if json {
                output::json(&mut out, &json!({ "id": id, "deleted": true }))?;
            } else {
                writeln!(out, "{} is forgotten", output::for_terminal(&id))?;
            }
            Ok(OK)
        }
        Task::List { state, limit } => list(port, state.as_deref(), limit, json).await,
    }
}

async fn submit(port: &Port<'_>, args: Submit, json: bool) -> Result<u8, Failure> {
    let (follows, key) = (args.follow, args.key.clone());
    let mut request = http::with_json("/v2/tasks", &asked(args)?)?;
    if let Some(key) = key {
        let key = HeaderValue::from_str(&key).map_err(|_| Failure::bad_input("--key has characters that no key has"))?;
        request.headers_mut().insert("idempotency-key", key);
    }
    let task = port.json(request).await?;
    let id = task["id"].as_str().unwrap_or_default().to_owned();
    if follows {
        return infer::interruptible(follow(port, &id, None, json)).await;
    }
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &task)?;
    } else {
        // alone, for `$(...)`
        writeln!(out, "{id}")?;
    }
    Ok(OK)
}

/// What is sent: fields that were not given are left out, and the host fills them in.
fn asked(args: Submit) -> Result<Value, Failure> {
    let prompt = if args.prompt == "-" { infer::standard_input()? } else { args.prompt };
    let mut body = Map::new();
    if args.raw {
        body.insert("prompt".into(), prompt.into());
    } else {
        let system = args.system.map(|text| json!({ "role": "system", "content": text }));
        let messages = system.into_iter().chain([json!({ "role": "user", "content": prompt })]);
        body.insert("messages".into(), messages.collect());
    }
    let timeout_ms = args.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let fields = [
        ("id", args.id.map(Value::from)),
        ("model", args.target.model.map(Value::from)),
        ("type", args.target.node_type.map(Value::from)),
        ("max_tokens", args.options.max_tokens.map(Value::from)),
        ("temperature", args.options.temperature.map(Value::from)),
        ("seed", args.options.seed.map(Value::from)),
        ("tier", args.tier.map(Value::from)),
        ("priority", args.interactive.then(|| "interactive".into())),
        ("timeout_ms", timeout_ms.map(Value::from)),
    ];
    body.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    if !args.label.is_empty() {
        body.insert(
            "labels".into(),
            args.label.into_iter().map(|(key, value)| (key, Value::from(value))).collect::<Map<_, _>>().into(),
        );
    }
    Ok(body.into())
}

/// The path of a task. An id that could lead elsewhere is none.
fn of(id: &str, rest: &str) -> Result<String, Failure> {
    let is_name =
        id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !id.is_empty() && id != "." && id != "..";
    if is_name {
        Ok(format!("/v2/tasks/{id}"))
    } else {
        Err(Failure::bad_input(format!("`{id}` is no id of a task; `llamboctl task list` has them")))
    }
    .map(|path| path + rest)
}

fn show(task: &Value, json: bool) -> Result<u8, Failure> {
    brief(task, json)?;
    if !json && let Some(text) = task["text"].as_str() {
        let mut out = io::stdout().lock();
        writeln!(out)?;
        writeln!(out, "{}", output::for_terminal(text))?;
    }
    Ok(OK)
}

fn brief(task: &Value, json: bool) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, task)?;
        return Ok(OK);
    }
    writeln!(out, "{}", told(task))?;
    Ok(OK)
}

/// One line for people.
fn told(task: &Value) -> String {
    let text = |name: &str| task[name].as_str().unwrap_or_default();
    let usage = &task["usage"];
    let mut parts = vec![
        format!("{} is {}", text("id"), output::state(text("state"))),
        text("model").to_owned(),
        text("node").to_owned(),
        format!("{} + {} tokens", usage["input_tokens"], usage["output_tokens"]),
        text("finish_reason").to_owned(),
    ];
    if task["attempts"].as_u64().is_some_and(|n| n > 1) {
        parts.push(format!("{} attempts", task["attempts"]));
    }
    if task["durable"] == false {
        parts.push("gone when the host ends".to_owned());
    }
    if let Some(why) = task["error"]["message"].as_str() {
        parts.push(format!("{}: {why}", task["error"]["reason"].as_str().unwrap_or_default()));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" · ")
}

async fn list(port: &Port<'_>, state: Option<&str>, limit: u32, json: bool) -> Result<u8, Failure> {
    let mut tasks: Vec<Value> = Vec::new();
    loop {
        let wanted = (limit - u32::try_from(tasks.len()).unwrap_or(limit)).min(PAGE);
        let mut path = format!("/v2/tasks?limit={wanted}");
        path.extend(state.map(|state| format!("&state={state}")));
        path.extend(tasks.last().and_then(|task| task["id"].as_str()).map(|id| format!("&after={id}")));
        let mut page = port.json(http::bare(Method::GET, &path)?).await?;
        let Some(found) = page["tasks"].as_array_mut() else { break };
        let is_last = found.is_empty() || page_is_last(&page, tasks.len(), limit);
        if let Some(found) = page["tasks"].as_array_mut() {
            tasks.append(found);
        }
        if is_last || tasks.len() >= limit as usize {
            break;
        }
    }
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &tasks.into())?;
        return Ok(OK);
    }
    let columns =
        [("ID", Left), ("STATE", State), ("MODEL", Left), ("PRIORITY", Left), ("NODE", Left), ("TOKENS", Right), ("ERROR", Left)];
    let rows: Vec<_> = tasks
        .iter()
        .map(|task| {
            let text = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
            let tokens = task["usage"]["output_tokens"].to_string();
            let why = task["error"]["reason"].as_str().unwrap_or_default().to_owned();
            [text("id"), text("state"), text("model"), text("priority"), text("node"), tokens, why]
        })
        .collect();
    output::table(&mut out, columns, &rows)?;
    Ok(OK)
}

fn page_is_last(page: &Value, n_before: usize, limit: u32) -> bool {
    page["has_more"] != true || n_before >= limit as usize
}

/// Prints a task as it runs. Exits with 2 where it does not end well.
async fn follow(port: &Port<'_>, id: &str, after: Option<&str>, json: bool) -> Result<u8, Failure> {
    let mut request = http::bare(Method::GET, &of(id, "/events")?)?;
    if let Some(after) = after {
        let after = HeaderValue::from_str(after).map_err(|_| Failure::bad_input("--after has characters that no event has"))?;
        request.headers_mut().insert("last-event-id", after);
    }
    let mut answer = port.stream(request).await?;
    if answer.status() == StatusCode::NO_CONTENT {
        return Ok(OK);
    }
    let mut out = io::stdout();
    let shows = out.is_terminal();
    let mut last = String::new();
    let mut events = Events::default();
    while let Some(event) = events.next(&mut answer, port).await? {
        if json {
            output::json(&mut out, &json!({ "event": event.name, "id": event.id, "data": event.data }))?;
        }
        match event.name.as_str() {
            "token" if !json => {
                let piece = event.data["text"].as_str().unwrap_or_default();
                let piece = if shows { output::for_terminal(piece) } else { piece.into() };
                out.write_all(piece.as_bytes())?;
                out.flush()?;
                last = piece.into_owned();
            }
            "end" => {
                if !json {
                    if !last.is_empty() && !last.ends_with('\n') {
                        writeln!(out)?;
                    }
                    // beside the text, which a program may read from standard output
                    let _ = writeln!(io::stderr(), "{}", told(&event.data));
                }
                return Ok(if event.data["state"] == "finished" { OK } else { NO });
            }
            "error" => {
                let told = &event.data["error"];
                let code = told["code"].as_str().unwrap_or("task_failed").to_ascii_uppercase();
                return Err(Failure::because(&code, told["message"].as_str().unwrap_or("the host gave no reason")));
            }
            _ => {}
        }
    }
    let address = port.address();
    let next = format!("`llamboctl task events {id}` goes on");
    Err(Failure::unreachable(format!("the connection to `{address}` ended before the task did; {next}")))
}

// === impl Events ===

impl Events {
    async fn next(&mut self, answer: &mut Answer, port: &Port<'_>) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.take() {
                return Ok(Some(event));
            }
            let lost = |e| Failure::unreachable(format!("the connection to `{}` was lost: {e}", port.address()));
            match answer.more().await.map_err(lost)? {
                Some(bytes) if self.waiting.len() + bytes.len() <= MAX_EVENT => self.waiting.extend_from_slice(&bytes),
                Some(_) => return Err(Failure::refused(format!("`{}` sends events without an end", port.address()))),
                None => return Ok(None),
            }
        }
    }

    /// The first whole event that is here. Comments, which keep the connection open, are none.
    fn take(&mut self) -> Option<Event> {
        loop {
            let end = self.waiting.windows(2).position(|pair| pair == b"\n\n")?;
            let rest = self.waiting.split_off(end + 2);
            let block = std::mem::replace(&mut self.waiting, rest);
            let event = Event::of(&String::from_utf8_lossy(&block));
            if event.is_some() {
                return event;
            }
        }
    }
}

// === impl Event ===

impl Event {
    fn of(block: &str) -> Option<Self> {
        let (mut name, mut id, mut data) = (String::new(), String::new(), String::new());
        for line in block.lines() {
            let Some((field, value)) = line.split_once(':') else { continue };
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "id" => value.clone_into(&mut id),
                "data" => data.push_str(value),
                _ => {}
            }
        }
        let data = serde_json::from_str(&data).ok()?;
        Some(Self { name, id, data })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn submitted(line: &[&str]) -> Value {
        let line = ["llamboctl", "task", "submit"].iter().chain(line);
        let Command::Task(command) = Args::try_parse_from(line).unwrap().command else { panic!("it is a task") };
        let Task::Submit(args) = command.task else { panic!("it is submitted") };
        asked(args).unwrap()
    }

    #[test]
    fn what_was_not_given_is_left_to_the_host() {
        assert_eq!(submitted(&["hello"]), json!({ "messages": [{ "role": "user", "content": "hello" }] }));
        let all = submitted(&[
            "x", "--raw", "--model", "m", "--max-tokens", "3", "--seed", "7", "--label", "a=b", "--interactive", "--timeout",
            "2s", "--id", "i",
        ]);
        let expected = json!({
            "prompt": "x", "id": "i", "model": "m", "max_tokens": 3, "seed": 7, "priority": "interactive", "timeout_ms": 2000, "labels": { "a": "b" },
        });
        assert_eq!(all, expected);
    }

    #[test]
    fn an_id_leads_nowhere_else() {
        assert_eq!(of("a.b-1", "/events").unwrap(), "/v2/tasks/a.b-1/events");
        for bad in ["", ".", "..", "a/b", "a?b", "a b", "a%2f", "ä", "a\n"] {
            assert!(of(bad, "").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn events_are_put_together_wherever_they_were_cut() {
        let text =
            "event: started\nid: 0\ndata: {\"node\":\"n\"}\n\n: keep\n\nevent: token\nid: 2\ndata: {\"text\":\"\u{e4}\"}\n\n";
        for n in 1..text.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for part in text.as_bytes().chunks(n) {
                events.waiting.extend_from_slice(part);
                found.extend(std::iter::from_fn(|| events.take()));
            }
            let names: Vec<_> = found.iter().map(|event| (event.name.as_str(), event.id.as_str())).collect();
            assert_eq!(names, [("started", "0"), ("token", "2")], "cut every {n} bytes");
            assert_eq!(found[1].data["text"], "\u{e4}");
        }
    }

    #[test]
    fn a_task_is_told_in_one_line() {
        let task = json!({
            "id": "t1", "state": "failed", "model": "m", "durable": false, "attempts": 2, "usage": { "input_tokens": 3, "output_tokens": 0 },
            "error": { "reason": "GUEST_TRAP", "message": "it trapped" },
        });
        assert_eq!(
            told(&task),
            "t1 is failed · m · 3 + 0 tokens · 2 attempts · gone when the host ends · GUEST_TRAP: it trapped"
        );
    }
}
