use std::{io, io::Write, path::Path};

use llambo_client::{NewPolicy, Policy as Loaded, PolicyRef as WireRef};
use serde_json::{Value, json};

use super::{Session, modules::seconds_since, template, traces, wasm};
use crate::{
    args::policy::{LoadPolicy, Place, Policy, Settings},
    exit::{Failure, OK},
    output::{
        self,
        Align::{Left, Right, State},
    },
    route::PolicyRef,
};

/// Bytes that `host.parameters` may answer with.
const MAX_PARAMETERS: u64 = 64 * 1024;

pub(crate) async fn policy(session: &Session, args: Policy) -> Result<u8, Failure> {
    match args {
        Policy::Load(args) => load(session, args).await,
        Policy::List => list(session).await,
        Policy::Promote { kind } => promote(session, &kind).await,
        Policy::Rollback { kind } => roll_back(session, &kind).await,
        Policy::Unload(place) => unload(session, &place).await,
        Policy::Resume(place) => resume(session, &place).await,
        Policy::Record(args) => traces::record(session, &args).await,
        Policy::Replay(args) => traces::replay(session, args).await,
        Policy::New(args) => template::new(&args, session.json),
    }
}

async fn load(session: &Session, args: LoadPolicy) -> Result<u8, Failure> {
    let LoadPolicy { file, kind, name, shadow, share, settings } = args;
    let name = name.unwrap_or_else(|| name_of(&file));
    let mut policy = NewPolicy::new(&kind, &name, wasm::read(&file)?)
        .parameters(parameters(&settings)?)
        .time_us(settings.time.unwrap_or(0))
        .memory_bytes(settings.memory.unwrap_or(0));
    if shadow {
        policy = policy.shadow();
    }
    if let Some(share) = share {
        policy = policy.share(share);
    }
    let done = session.client.load_policy(policy).await?;
    let policy = done.policy.unwrap_or_default();
    let mut out = io::stdout().lock();
    if session.json {
        let value = json!({
            "policy": policy_json(&policy),
            "replaced": ref_json(done.replaced),
            "compile_ms": done.compile_ms,
            "dry_run_calls": done.dry_run_calls,
            "dry_run_p50_ns": done.dry_run_p50_ns,
        });
        output::json(&mut out, &value)?;
        return Ok(OK);
    }
    let shown = named(&policy).shown();
    match policy.role.as_str() {
        "shadow" => writeln!(out, "{shown} is asked as {kind} beside what decides, and decides nothing")?,
        "canary" => writeln!(out, "{shown} decides as {kind} for {} of the requests", output::percent(policy.share))?,
        _ => writeln!(out, "{shown} decides as {kind} in the place of {}", replaced(done.replaced))?,
    }
    let (calls, each) = (done.dry_run_calls, output::nanos(done.dry_run_p50_ns));
    writeln!(out, "compiled in {:.0} ms; {calls} calls of the dry run took {each} each (median)", done.compile_ms)?;
    Ok(OK)
}

async fn list(session: &Session) -> Result<u8, Failure> {
    let listed = session.client.policies().await?;
    let mut out = io::stdout().lock();
    if session.json {
        let policies: Value = listed.policies.iter().map(policy_json).collect();
        output::json(&mut out, &json!({ "policies": policies, "built_in": listed.built_in }))?;
        return Ok(OK);
    }
    let columns = [
        ("KIND", Left),
        ("NAME", Left),
        ("GEN", Right),
        ("ROLE", State),
        ("STATE", State),
        ("CALLS", Right),
        ("FALLBACKS", Right),
        ("P50", Right),
        ("P99", Right),
        ("AGREED", Right),
        ("SHA256", Left),
        ("LOADED", Right),
    ];
    let rows: Vec<_> = listed.policies.iter().map(row).collect();
    output::table(&mut out, columns, &rows)?;
    for p in listed.policies.iter().filter(|p| p.state == "suspended" && p.role != "kept") {
        let flag = match p.role.as_str() {
            "shadow" => " --shadow",
            "canary" => " --canary",
            _ => "",
        };
        writeln!(
            out,
            "{} ({} {}) is suspended: {}; `llamboctl policy resume {}{flag}` lets it go on",
            p.name,
            p.role,
            p.kind,
            output::for_terminal(&p.reason),
            p.kind
        )?;
    }
    if !listed.built_in.is_empty() {
        writeln!(out, "what is built in decides: {}", listed.built_in.join(", "))?;
    }
    Ok(OK)
}

fn row(p: &Loaded) -> [String; 12] {
    let time = |ns| if p.calls == 0 { "-".to_owned() } else { output::nanos(ns) };
    [
        p.kind.clone(),
        p.name.clone(),
        p.generation.to_string(),
        if p.role == "canary" { format!("canary {}", output::percent(p.share)) } else { p.role.clone() },
        p.state.clone(),
        output::count(p.calls),
        output::count(p.fallbacks.values().sum()),
        time(p.call_p50_ns),
        time(p.call_p99_ns),
        if p.compared == 0 { "-".to_owned() } else { output::percent(p.agreed as f64 / p.compared as f64) },
        p.sha256.chars().take(12).collect(),
        format!("{} ago", output::age(seconds_since(p.loaded_at))),
    ]
}

async fn promote(session: &Session, kind: &str) -> Result<u8, Failure> {
    let done = session.client.promote_policy(kind).await?;
    changed(session, kind, done.policy, done.replaced)
}

async fn roll_back(session: &Session, kind: &str) -> Result<u8, Failure> {
    let done = session.client.roll_back_policy(kind).await?;
    changed(session, kind, done.policy, done.replaced)
}

/// Tells what is live now, and what was.
fn changed(session: &Session, kind: &str, policy: Option<Loaded>, before: Option<WireRef>) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "policy": policy.as_ref().map(policy_json), "replaced": ref_json(before) }))?;
    } else {
        let now = policy.map_or_else(|| "what is built in".to_owned(), |policy| named(&policy).shown());
        writeln!(out, "{now} decides as {kind} in the place of {}", replaced(before))?;
    }
    Ok(OK)
}

async fn unload(session: &Session, place: &Place) -> Result<u8, Failure> {
    let kind = &place.kind;
    let unloaded = session.client.unload_policy(kind, place.role()).await?.unloaded;
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "unloaded": ref_json(unloaded) }))?;
        return Ok(OK);
    }
    let shown = PolicyRef::from(unloaded.unwrap_or_default()).shown();
    match place.role().as_str() {
        "shadow" => writeln!(out, "{shown} is no longer asked as {kind}")?,
        "canary" => writeln!(out, "{shown} no longer decides as {kind} for a share of the requests")?,
        _ => writeln!(out, "{shown} is out; what is built in decides as {kind}")?,
    }
    Ok(OK)
}

async fn resume(session: &Session, place: &Place) -> Result<u8, Failure> {
    let policy = session.client.resume_policy(&place.kind, place.role()).await?.policy.unwrap_or_default();
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "policy": policy_json(&policy) }))?;
    } else {
        let does = if policy.role == "shadow" { "is asked" } else { "decides" };
        writeln!(out, "{} {does} as {} again", named(&policy).shown(), place.kind)?;
    }
    Ok(OK)
}

/// The text of `--parameters` or of its file; empty without either.
pub(super) fn parameters(settings: &Settings) -> Result<String, Failure> {
    let (text, name) = match (&settings.parameters, &settings.parameters_file) {
        (Some(text), _) => (text.clone(), "`--parameters`".to_owned()),
        (None, Some(file)) => (super::infer::read(file)?, format!("`{}`", file.display())),
        (None, None) => return Ok(String::new()),
    };
    if text.len() as u64 > MAX_PARAMETERS {
        return Err(Failure::bad_input(format!(
            "{name} has {} bytes, and parameters may have {MAX_PARAMETERS}; give less",
            text.len()
        )));
    }
    Ok(text)
}

/// A name made of the file's: `Latency_Aware.v2.wasm` becomes `latency-aware-v2`.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let plain: String = stem.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let name: String = plain.trim_start_matches(|c: char| !c.is_ascii_lowercase()).chars().take(32).collect();
    match name.trim_end_matches('-') {
        "" => "policy".to_owned(),
        name => name.to_owned(),
    }
}

fn named(p: &Loaded) -> PolicyRef {
    let Loaded { kind, name, generation, role, sha256, .. } = p.clone();
    PolicyRef { kind, name, generation, role, sha256 }
}

/// `round-about (generation 2)`
fn replaced(before: Option<WireRef>) -> String {
    before.map_or_else(|| "what is built in".to_owned(), |p| format!("{} (generation {})", p.name, p.generation))
}

pub(super) fn ref_json(policy: Option<WireRef>) -> Value {
    json!(policy.map(PolicyRef::from))
}

fn policy_json(p: &Loaded) -> Value {
    // ordered, so that two answers compare
    let fallbacks: std::collections::BTreeMap<_, _> = p.fallbacks.iter().collect();
    json!({
        "kind": p.kind,
        "name": p.name,
        "generation": p.generation,
        "role": p.role,
        "state": p.state,
        "reason": crate::route::some(p.reason.clone()),
        "sha256": p.sha256,
        "size_bytes": p.size_bytes,
        "loaded_at": p.loaded_at,
        "source": p.source,
        "interface": p.interface,
        "share": (p.share > 0.0).then_some(p.share),
        "calls": p.calls,
        "fallbacks": fallbacks,
        "call_p50_ns": p.call_p50_ns,
        "call_p99_ns": p.call_p99_ns,
        "instances": p.instances,
        "instance_bytes": p.instance_bytes,
        "compared": p.compared,
        "agreed": p.agreed,
        "missed": p.missed,
        "time_us": p.time_us,
        "memory_bytes": p.memory_bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::args::values::policy_name;

    #[test]
    fn a_file_gives_a_name_that_the_host_takes() {
        for (file, expected) in [
            ("target/release/latency_aware.wasm", "latency-aware"),
            ("Latency_Aware.v2.wasm", "latency-aware-v2"),
            ("2nd-try.wasm", "nd-try"),
            ("grün.wasm", "gr-n"),
            ("_.wasm", "policy"),
            ("42", "policy"),
        ] {
            assert_eq!(name_of(Path::new(file)), expected);
            assert!(policy_name(expected).is_ok(), "{expected}");
        }
        assert_eq!(name_of(Path::new(&format!("{}-b.wasm", "a".repeat(31)))), "a".repeat(31));
    }

    #[test]
    fn parameters_come_from_a_text_or_a_file_and_have_a_limit() {
        assert_eq!(parameters(&Settings::default()).as_deref(), Ok(""));
        let text = Settings { parameters: Some("a=1".into()), ..Settings::default() };
        assert_eq!(parameters(&text).as_deref(), Ok("a=1"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.txt");
        let settings = Settings { parameters_file: Some(file.clone()), ..Settings::default() };
        fs::write(&file, "b=2\n").unwrap();
        assert_eq!(parameters(&settings).as_deref(), Ok("b=2\n"));
        fs::write(&file, "x".repeat(65_537)).unwrap();
        assert!(format!("{:?}", parameters(&settings).unwrap_err()).contains("has 65537 bytes, and parameters may have 65536"));
    }

    #[test]
    fn a_row_says_how_a_policy_does() {
        let mut policy = Loaded { kind: "balancer".into(), role: "canary".into(), share: 0.25, ..Loaded::default() };
        assert_eq!((&row(&policy)[3], &row(&policy)[7], &row(&policy)[9]), (&"canary 25%".into(), &"-".into(), &"-".into()));
        (policy.calls, policy.call_p50_ns, policy.compared, policy.agreed) = (12_345, 1250.0, 8, 7);
        policy.fallbacks = [("trap".to_owned(), 3), ("timeout".to_owned(), 4)].into();
        let row = row(&policy);
        assert_eq!((&row[5][..], &row[6][..], &row[7][..], &row[9][..]), ("12.3k", "7", "1.2 µs", "87.5%"));
    }
}
