//! What a model is, and what it needs.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use llambo_catalog::{Builtin, Entry, Hub, Outline, Presence, Source, available_bytes, environment};
use llambo_config::{Config, KvType, ModelConfig, ModelSource};
use serde_json::json;

use super::catalog_at;
use crate::{
    args::models::{Kv, Show},
    exit::{Failure, OK},
    output,
};

/// As in the configuration.
const SEQUENCES: u32 = 64;

/// How it is to be loaded.
struct Load {
    context: u32,
    sequences: u32,
    kv: Kv,
}

/// What that takes, in bytes.
#[derive(Debug, PartialEq, Eq)]
struct Need {
    /// Keys and values of one sequence.
    sequence: u64,
    kv: u64,
    all: u64,
}

pub(crate) fn show(args: &Show, json: bool) -> Result<u8, Failure> {
    let (outline, path, entry) = find(args)?;
    let load = load(args, &outline)?;
    let need = need(&outline, &load);
    let available = available_bytes();
    let fits = available.map(|available| need.all <= available);
    let mut out = io::stdout().lock();
    if json {
        output::json(
            &mut out,
            &json!({
                "name": args.model,
                "path": path.as_ref().map(|path| path.display().to_string()),
                "source": entry.as_ref().map(|entry| &entry.source),
                "sha256": entry.as_ref().map(|entry| &entry.sha256),
                "architecture": outline.architecture,
                "title": outline.title,
                "n_params": outline.n_params,
                "n_layers": outline.n_layers,
                "n_embd": outline.n_embd,
                "n_vocab": outline.n_vocab,
                "n_context": outline.n_context,
                "quantization": outline.quantization,
                "chat_template": outline.has_chat_template,
                "size_bytes": outline.size_bytes,
                "weight_bytes": outline.weight_bytes,
                "context": load.context,
                "sequences": load.sequences,
                "kv_bytes_per_sequence": need.sequence,
                "kv_bytes": need.kv,
                "needed_bytes": need.all,
                "available_bytes": available,
                "fits": fits,
            }),
        )?;
        return Ok(OK);
    }
    let rows = [
        ("file", path.map_or_else(|| "inside the program".into(), |path| path.display().to_string())),
        ("source", entry.as_ref().map_or_else(String::new, |entry| entry.source.clone())),
        ("sha256", entry.map_or_else(String::new, |entry| entry.sha256)),
        ("title", outline.title.clone().unwrap_or_default()),
        ("architecture", outline.architecture.clone()),
        ("parameters", output::count(outline.n_params)),
        ("quantization", outline.quantization.clone()),
        ("layers", outline.n_layers.to_string()),
        ("embedding", format!("{} dimensions", outline.n_embd)),
        ("vocabulary", format!("{} tokens", outline.n_vocab)),
        ("context", format!("{} tokens", outline.n_context)),
        ("chat template", if outline.has_chat_template { "yes" } else { "no: prompts are continued as they stand" }.into()),
        ("weights", output::bytes(outline.weight_bytes)),
        ("KV cache", told_kv(&load, &need)),
        ("needs", output::bytes(need.all)),
        ("fits", told_fit(&outline, &load, &need, available)),
    ];
    for (what, text) in rows.into_iter().filter(|(_, text)| !text.is_empty()) {
        writeln!(out, "{what:<14} {}", output::for_terminal(&text))?;
    }
    Ok(OK)
}

fn told_kv(load: &Load, need: &Need) -> String {
    let (each, all) = (output::bytes(need.sequence), output::bytes(need.kv));
    format!("{each} for each sequence of {} tokens, {all} for {}", load.context, load.sequences)
}

fn told_fit(outline: &Outline, load: &Load, need: &Need, available: Option<u64>) -> String {
    let Some(available) = available else { return "unknown: this system does not say what memory it has".into() };
    let free = output::bytes(available);
    if need.all <= available {
        return format!("yes, {free} of memory are available");
    }
    let room = available.saturating_sub(outline.weight_bytes);
    match room.checked_div(need.sequence) {
        Some(n) if n > 0 && outline.weight_bytes < available => {
            format!("no, {free} of memory are available; {n} sequences of {} tokens would, or a smaller context", load.context)
        }
        _ if outline.weight_bytes < available => {
            format!("no, {free} of memory are available; a smaller context is needed (`--context`)")
        }
        _ => format!("no, {free} of memory are available, and the weights alone take more"),
    }
}

fn need(outline: &Outline, load: &Load) -> Need {
    let f16 = outline.kv_bytes_per_token.saturating_mul(u64::from(load.context));
    let sequence = match load.kv {
        Kv::F16 => f16,
        // blocks of 32 numbers take 34 bytes instead of 64
        Kv::Q8 => f16 / 32 * 17,
    };
    let kv = sequence.saturating_mul(u64::from(load.sequences));
    Need { sequence, kv, all: outline.weight_bytes.saturating_add(kv) }
}

fn find(args: &Show) -> Result<(Outline, Option<PathBuf>, Option<Entry>), Failure> {
    let name = args.model.strip_prefix("catalog:").unwrap_or(&args.model);
    let register = catalog_at(&args.at)?;
    if let Some(entry) = register.models()?.remove(name) {
        if entry.presence() == Presence::Missing {
            let (path, source) = (entry.path.display(), &entry.source);
            return Err(Failure::bad_input(format!("`{name}` is registered, but `{path}` is gone; it was from {source}")));
        }
        return Ok((Outline::read(&entry.path)?, Some(entry.path.clone()), Some(entry)));
    }
    match Source::parse(&args.model)? {
        Source::Builtin(builtin) => Ok((Outline::of_builtin(builtin)?, None, None)),
        Source::Hub(wanted) => {
            let found = Hub::of(&environment).and_then(|hub| hub.find(&wanted));
            let not_here = || {
                Failure::bad_input(format!("`{wanted}` is not on this machine; `llamboctl models download {wanted}` fetches it"))
            };
            let path = found.ok_or_else(not_here)?.path;
            Ok((Outline::read(&path)?, Some(path), None))
        }
        Source::Url(_) => Err(Failure::bad_input("an address is not looked into; download it first")),
        // what is neither a name nor looks like a file was meant as a name
        Source::File(path) if !path.exists() && llambo_catalog::is_model_name(name) => {
            Err(register.get(name).err().map_or_else(|| Failure::bad_input(format!("`{name}` is not registered")), Failure::from))
        }
        Source::File(path) => Ok((Outline::read(&path)?, Some(path), None)),
    }
}

/// What the command line says, else the configuration, else what the model was made for.
fn load(args: &Show, outline: &Outline) -> Result<Load, Failure> {
    let config =
        args.config.as_ref().map(|path| Config::load(path).map_err(|e| Failure::bad_config(e.to_string()))).transpose()?;
    let configured = config.as_ref().and_then(|config| config.models.iter().find(|model| is_meant(model, &args.model)));
    if config.is_some() && configured.is_none() {
        return Err(Failure::bad_input(format!("the configuration has no model `{}` in `models`", args.model)));
    }
    let kv = configured.map_or(Kv::F16, |model| match model.kv_type {
        KvType::F16 => Kv::F16,
        KvType::Q8_0 => Kv::Q8,
    });
    Ok(Load {
        context: args.context.or(configured.and_then(|model| model.context)).unwrap_or(outline.n_context),
        sequences: args.sequences.or(configured.map(|model| model.sequences)).unwrap_or(SEQUENCES),
        kv: args.kv_type.unwrap_or(kv),
    })
}

fn is_meant(model: &ModelConfig, named: &str) -> bool {
    let by_source = match &model.source {
        ModelSource::Demo => Builtin::Demo.name() == named,
        ModelSource::DemoSmall => Builtin::DemoSmall.name() == named,
        ModelSource::File(path) => path.written == named || path.resolved == Path::new(named),
        ModelSource::Catalog(name) => name == named,
    };
    by_source || model.name == named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_grows_with_sequences_and_context() {
        let outline = Outline::of_builtin(Builtin::Demo).unwrap();
        let need = |context, sequences, kv| super::need(&outline, &Load { context, sequences, kv });
        let one = need(512, 1, Kv::F16);
        assert_eq!(one.sequence, outline.kv_bytes_per_token * 512);
        assert_eq!(need(512, 8, Kv::F16).kv, 8 * one.kv);
        assert_eq!(need(1024, 1, Kv::F16).sequence, 2 * one.sequence);
        assert_eq!(need(512, 1, Kv::Q8).sequence * 32, one.sequence * 17);
        assert_eq!(one.all, outline.weight_bytes + one.kv);
    }

    #[test]
    fn what_would_fit_is_said() {
        let outline = Outline::of_builtin(Builtin::Demo).unwrap();
        let load = Load { context: 512, sequences: 100, kv: Kv::F16 };
        let need = super::need(&outline, &load);
        let told = |available| told_fit(&outline, &load, &need, Some(available));
        assert!(told(need.all).starts_with("yes"));
        assert!(told(outline.weight_bytes + 3 * need.sequence).contains("3 sequences of 512"));
        assert!(told(outline.weight_bytes + 1).contains("smaller context"));
        assert!(told(1).contains("weights alone"));
    }
}
