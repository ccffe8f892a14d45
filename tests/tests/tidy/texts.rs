//! Rules about every file: nothing of the machine it was written on, and no link into the void.

use std::fs;
use std::path::Path;

use crate::{assert_none, files, path_of, texts_with};

/// What gives a particular machine away, with what to write in its place.
const OF_ONE_MACHINE: &[(&str, &str)] = &[
    ("/root/", "write the path relative to the project, or with `~` or $HOME"),
    ("/home/", "write the path relative to the project, or with `~` or $HOME"),
    ("/Users/", "write the path relative to the project, or with `~` or $HOME"),
    ("replace-with", "where crates come from is a setting of a machine: put it into the user's own cargo configuration"),
    ("[source.", "where crates come from is a setting of a machine: put it into the user's own cargo configuration"),
    ("--index-url", "where packages come from is a setting of a machine: put it into pip's own configuration"),
    ("--extra-index-url", "where packages come from is a setting of a machine: put it into pip's own configuration"),
];
/// The rules themselves have to name what they forbid.
const EXEMPT: &str = "tests/tests/tidy/";
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn nothing_tells_where_it_was_written() {
    let ours = files().into_iter().filter(|file| !file.starts_with(EXEMPT));
    // bytes and not text: compiled guests carry the paths of their sources too
    let complaints = ours.flat_map(|file| {
        let bytes = fs::read(path_of(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let found: Vec<String> = machine_complaints(&bytes).iter().map(|complaint| format!("{file}{complaint}")).collect();
        found
    });
    assert_none(&complaints.collect::<Vec<_>>());
}

fn machine_complaints(bytes: &[u8]) -> Vec<String> {
    let found = OF_ONE_MACHINE.iter().filter_map(|(pattern, remedy)| {
        let at = bytes.windows(pattern.len()).position(|window| window == pattern.as_bytes())?;
        let line = bytes[..at].split(|byte| *byte == b'\n').count();
        Some(format!(":{line}: contains `{pattern}`; {remedy}"))
    });
    found.collect()
}

#[test]
fn every_dependency_comes_from_crates_io() {
    for lock in files().into_iter().filter(|file| file.ends_with("Cargo.lock")) {
        let text = fs::read_to_string(path_of(&lock)).unwrap_or_else(|error| panic!("{lock}: {error}"));
        let sources = text.lines().filter_map(|line| line.strip_prefix("source = "));
        let complaints = sources.map(|source| source.trim_matches('"')).filter(|source| *source != CRATES_IO);
        let complaints = complaints.map(|source| format!("{lock}: `{source}`: only crates.io keeps what was released once"));
        assert_none(&complaints.collect::<Vec<_>>());
    }
}

#[test]
fn links_in_markdown_lead_somewhere() {
    let complaints = texts_with("md").into_iter().flat_map(|(file, text)| {
        let folder = path_of(&file).parent().map(Path::to_path_buf).unwrap_or_default();
        let dead = links(&text).into_iter().filter(move |link| {
            let target = link.split('#').next().unwrap_or_default();
            let path = target.strip_prefix('/').map_or_else(|| folder.join(target), path_of);
            !target.is_empty() && !path.exists()
        });
        let dead: Vec<String> = dead.map(|link| format!("{file}: `{link}` leads nowhere; correct it or take it out")).collect();
        dead
    });
    assert_none(&complaints.collect::<Vec<_>>());
}

/// Targets of inline links and of link definitions that are no web or mail addresses. Code is not looked at.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut in_fence = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        if in_fence {
            continue;
        }
        // every second part lies between backticks
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        let inline = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let definition = prose.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
        let targets = inline.chain(definition).map(|target| target.split_whitespace().next().unwrap_or_default());
        let ours = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:") && !target.is_empty());
        links.extend(ours.map(|target| target.trim_matches(['<', '>']).to_owned()));
    }
    links
}

#[test]
fn links_are_found_in_prose_and_not_in_code() {
    let text = "see [a](a.md#part), [web](https://x.y/z) and `[no](no.md)` ![i](<i.png>)\n```\n[no](no.md)\n```\n[ref]: ref.md\n";
    assert_eq!(links(text), ["a.md#part", "i.png", "ref.md"]);
}

#[test]
fn paths_of_a_machine_are_seen_with_their_line() {
    assert_eq!(machine_complaints(b"fine\n~/x and target/root\n"), Vec::<String>::new());
    let complaints = machine_complaints(b"one\ntwo \xff /home/me/x\n");
    assert!(complaints.len() == 1 && complaints[0].starts_with(":2: contains `/home/`"), "{complaints:?}");
}
