use std::{io, io::Write, time::SystemTime};

use llambo_client::{GetSessionResponse, NewSession, Question, SamplingOptions, Session as Kept};
use serde_json::{Value, json};

use super::{Session, infer};
use crate::{
    args::session::{Ask, Create, Options, Session as Command},
    exit::{Failure, OK},
    output::{
        self,
        Align::{Left, Right},
    },
};

pub(crate) async fn session(session: &Session, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Create(args) => create(session, args).await,
        Command::Ask(args) => ask(session, args).await,
        Command::Show { id } => show(session, &id).await,
        Command::List { limit } => list(session, limit).await,
        Command::Fork { id, at } => made(session, &session.client.fork_session(&id, at).await?),
        Command::Delete { id } => delete(session, &id).await,
    }
}

async fn create(session: &Session, args: Create) -> Result<u8, Failure> {
    let mut new = NewSession::new()
        .model(args.target.model.unwrap_or_default())
        .node_type(args.target.node_type.unwrap_or_default())
        .system(args.system.unwrap_or_default())
        .options(|options| set(options, &args.options));
    if let Some(ttl) = args.ttl {
        new = new.ttl(ttl);
    }
    if let Some(tokens) = args.token_budget {
        new = new.token_budget(tokens);
    }
    if args.drop_oldest {
        new = new.drop_oldest();
    }
    for (key, value) in args.label {
        new = new.label(key, value);
    }
    made(session, &session.client.create_session(new).await?)
}

fn set(options: &mut SamplingOptions, args: &Options) {
    options.max_tokens = args.max_tokens;
    options.temperature = args.temperature;
    options.seed = args.seed;
}

/// The id alone, for `$(...)`.
fn made(session: &Session, kept: &Kept) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &session_json(kept))?;
    } else {
        writeln!(out, "{}", kept.id)?;
    }
    Ok(OK)
}

async fn ask(session: &Session, args: Ask) -> Result<u8, Failure> {
    let mut question = match args.text.as_deref() {
        None => Question::waiting(&args.id),
        Some("-") => Question::new(&args.id, infer::standard_input()?),
        Some(text) => Question::new(&args.id, text),
    };
    question = question.options(|options| set(options, &args.options));
    if args.keep_partial {
        question = question.keep_partial();
    }
    if args.explain {
        question = question.explain();
    }
    if let Some(timeout) = args.timeout {
        question = question.timeout(timeout);
    }
    infer::interruptible(async { infer::print(session, session.client.ask_session(question).await?).await }).await
}

async fn show(session: &Session, id: &str) -> Result<u8, Failure> {
    let GetSessionResponse { session: kept, messages } = session.client.session(id).await?;
    let kept = kept.unwrap_or_default();
    let mut out = io::stdout().lock();
    if session.json {
        let mut value = session_json(&kept);
        value["messages"] = messages.iter().map(|message| json!({ "role": message.role, "content": message.content })).collect();
        output::json(&mut out, &value)?;
        return Ok(OK);
    }
    let usage = kept.usage.unwrap_or_default();
    let budget = kept.token_budget.map_or_else(String::new, |budget| format!(" of {budget}"));
    writeln!(
        out,
        "{} asks {} · {} turns · {}{budget} tokens, {} of them cached · gone in {} without use",
        kept.id,
        kept.model,
        kept.n_turns,
        usage.input_tokens + usage.output_tokens,
        usage.cached_tokens,
        output::age(seconds_until(kept.expires_at_ms))
    )?;
    if kept.n_forgotten > 0 {
        writeln!(out, "{} messages were forgotten", kept.n_forgotten)?;
    }
    for message in messages {
        writeln!(out, "{}: {}", message.role, output::for_terminal(&message.content))?;
    }
    Ok(OK)
}

async fn list(session: &Session, limit: Option<u32>) -> Result<u8, Failure> {
    let sessions = session.client.sessions(limit).await?;
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &sessions.iter().map(session_json).collect())?;
        return Ok(OK);
    }
    let columns = [
        ("ID", Left),
        ("MODEL", Left),
        ("MESSAGES", Right),
        ("TURNS", Right),
        ("TOKENS", Right),
        ("STATE", Left),
        ("EXPIRES", Right),
    ];
    let row = |kept: Kept| {
        let usage = kept.usage.unwrap_or_default();
        [
            kept.id,
            kept.model,
            kept.n_messages.to_string(),
            kept.n_turns.to_string(),
            output::count(usage.input_tokens + usage.output_tokens),
            if kept.busy { "in a turn" } else { "idle" }.to_owned(),
            format!("in {}", output::age(seconds_until(kept.expires_at_ms))),
        ]
    };
    let rows: Vec<_> = sessions.into_iter().map(row).collect();
    output::table(&mut out, columns, &rows)?;
    Ok(OK)
}

async fn delete(session: &Session, id: &str) -> Result<u8, Failure> {
    session.client.delete_session(id).await?;
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "id": id, "deleted": true }))?;
    } else {
        writeln!(out, "{} is deleted", output::for_terminal(id))?;
    }
    Ok(OK)
}

fn seconds_until(unix_ms: u64) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    unix_ms.saturating_sub(now_ms) as f64 / 1e3
}

fn session_json(kept: &Kept) -> Value {
    let usage = kept.usage.unwrap_or_default();
    json!({
        "id": kept.id,
        "model": kept.model,
        "type": (!kept.r#type.is_empty()).then_some(&kept.r#type),
        "tier": kept.tier,
        "ttl_ms": kept.ttl_ms,
        "token_budget": kept.token_budget,
        "when_full": kept.when_full,
        "labels": kept.labels,
        "parent": (!kept.parent.is_empty()).then_some(&kept.parent),
        "created_at_ms": kept.created_at_ms,
        "used_at_ms": kept.used_at_ms,
        "expires_at_ms": kept.expires_at_ms,
        "n_messages": kept.n_messages,
        "n_forgotten": kept.n_forgotten,
        "n_turns": kept.n_turns,
        "size_bytes": kept.size_bytes,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "busy": kept.busy,
        "durable": kept.durable,
    })
}
