//! A crate to start a policy from.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    args::policy::New,
    exit::{Failure, OK},
    output,
};

/// The interfaces, as the host knows them.
const POLICY_WIT: &str = include_str!("../../../../wit/policy.wit");

/// Files beside the source, by where they go. In them, `{{name}}`, `{{crate}}`, `{{world}}` and `{{kind}}` are replaced.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("../policy-template/Cargo.toml.txt")),
    (".cargo/config.toml", include_str!("../policy-template/config.toml")),
    ("README.md", include_str!("../policy-template/README.md")),
    ("wit/world.wit", include_str!("../policy-template/world.wit")),
    (".gitignore", "/target/\n"),
];

/// `src/lib.rs` for each world.
const SOURCES: [(&str, &str); 7] = [
    ("balancer", include_str!("../policy-template/lib.balancer.rs")),
    ("tracking-balancer", include_str!("../policy-template/lib.tracking-balancer.rs")),
    ("admission", include_str!("../policy-template/lib.admission.rs")),
    ("classifier", include_str!("../policy-template/lib.classifier.rs")),
    ("scaler", include_str!("../policy-template/lib.scaler.rs")),
    ("fusion", include_str!("../policy-template/lib.fusion.rs")),
    ("token-hook", include_str!("../policy-template/lib.token-hook.rs")),
];

/// Writes the crate. Nothing that exists is overwritten.
pub(crate) fn new(args: &New, json: bool) -> Result<u8, Failure> {
    let New { name, world, path } = args;
    let folder = path.clone().unwrap_or_else(|| PathBuf::from(name));
    let shown = folder.display();
    match fs::read_dir(&folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => {
            return Err(Failure::cannot_create(format!("`{shown}` exists and is not empty; give another folder with `--path`")));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(Failure::cannot_create(format!("cannot write into `{shown}`: {e}"))),
    }
    let files = files(name, world);
    for (file, text) in &files {
        let path = folder.join(file);
        write(&path, text).map_err(|e| Failure::cannot_create(format!("cannot write `{}`: {e}", path.display())))?;
    }
    let mut out = io::stdout().lock();
    if json {
        let names: Vec<&str> = files.iter().map(|(file, _)| *file).collect();
        output::json(&mut out, &json!({ "folder": shown.to_string(), "name": name, "world": world, "files": names }))?;
        return Ok(OK);
    }
    let (file, kind) = (crate_name(name), kind_of(world));
    writeln!(out, "wrote {name}, a policy for the world {world}, to {shown}; what it does is in src/lib.rs. Next:")?;
    writeln!(out, "    cd {shown}")?;
    writeln!(out, "    cargo build --release")?;
    writeln!(out, "    llamboctl policy load target/wasm32-unknown-unknown/release/{file}.wasm --as {kind}")?;
    Ok(OK)
}

/// Paths within the folder, and what is in each file.
fn files(name: &str, world: &str) -> Vec<(&'static str, String)> {
    let (_, source) = SOURCES.iter().find(|(of, _)| *of == world).expect("the command line takes only worlds that are listed");
    let templates = FILES.iter().copied().chain([("src/lib.rs", *source)]);
    let mut files: Vec<_> = templates.map(|(file, text)| (file, filled(text, name, world))).collect();
    files.push(("wit/policy.wit", POLICY_WIT.to_owned()));
    files
}

fn filled(template: &str, name: &str, world: &str) -> String {
    let template = template.replace("{{name}}", name).replace("{{crate}}", &crate_name(name));
    template.replace("{{world}}", world).replace("{{kind}}", kind_of(world))
}

/// As cargo names the file that it builds.
fn crate_name(name: &str) -> String {
    name.replace('-', "_")
}

/// What a policy of a world is loaded as.
fn kind_of(world: &str) -> &str {
    if world == "tracking-balancer" { "balancer" } else { world }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // `create_new`: a file that appears meanwhile is not overwritten
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_world_has_a_crate_without_gaps() {
        for (world, _) in SOURCES {
            assert!(POLICY_WIT.contains(&format!("world {world} {{")), "{world}");
            for (file, text) in files("my-policy", world) {
                // Rust and TOML have such braces too, but none around a single word
                let gap = text
                    .split("{{")
                    .skip(1)
                    .filter_map(|rest| rest.split_once("}}"))
                    .find(|(word, _)| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()));
                assert_eq!(gap.map(|(word, _)| word), None, "{world}: {file}");
                assert!(!text.is_empty(), "{world}: {file}");
            }
            let files = files("my-policy", world);
            let text = |name: &str| &files.iter().find(|(file, _)| *file == name).unwrap().1;
            assert!(text("wit/world.wit").contains(&format!("include llambo:policy/{world}@0.1.0;")), "{world}");
            assert!(text("Cargo.toml").contains("name = \"my-policy\""), "{world}");
        }
        assert_eq!(SOURCES.len(), POLICY_WIT.matches("\n    world ").count(), "a world has no template");
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let args = New { name: "p".into(), world: "balancer".into(), path: Some(path.clone()) };
        fs::create_dir(&path).unwrap();
        assert!(new(&args, true).is_ok());
        assert!(fs::read_to_string(path.join("src/lib.rs")).unwrap().contains("fn choose("));
        fs::write(path.join("src/lib.rs"), "mine").unwrap();
        assert!(new(&args, true).is_err());
        assert_eq!(fs::read_to_string(path.join("src/lib.rs")).unwrap(), "mine");
    }
}
