//! Rules about Rust files.

use std::path::Path;

use crate::{assert_none, texts_with};

/// More than this and a file does more than one thing. Tests at its end do not count.
const MAX_LINES: usize = 400;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "manager", "helper", "helpers", "misc", "stuff"];
/// The only places of the host's `unsafe` code: calls into llama.cpp, and the memory that isolates live in.
const UNSAFE_PLACES: [&str; 2] = ["host/llama/src/ffi", "host/isolate/src/slab"];

#[test]
fn files_stay_short() {
    let complaints = texts_with("rs").into_iter().filter_map(|(file, text)| {
        let lines = lines_without_tests(&text);
        (lines > MAX_LINES).then(|| {
            format!("{file} has {lines} lines without its tests, and {MAX_LINES} is the limit: split it by what its parts own")
        })
    });
    assert_none(&complaints.collect::<Vec<_>>());
}

fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests =
        lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    tests.unwrap_or(lines.len())
}

#[test]
fn names_say_what_is_inside() {
    let complaints = texts_with("rs").into_iter().filter_map(|(file, _)| {
        let name = empty_name(&file)?;
        Some(format!("{file}: `{name}` says nothing; name it after what it owns or does"))
    });
    assert_none(&complaints.collect::<Vec<_>>());
}

/// The folder or file name, or a word of it, that says nothing.
fn empty_name(file: &str) -> Option<&str> {
    let words = Path::new(file).iter().filter_map(|part| part.to_str()).flat_map(|part| part.split(['_', '-', '.']));
    words.into_iter().find(|word| EMPTY_NAMES.contains(word))
}

#[test]
fn unsafe_code_stays_in_its_places() {
    // guests run in the sandbox, where `unsafe` endangers nobody else
    let ours = texts_with("rs")
        .into_iter()
        .filter(|(file, _)| !file.starts_with("guest/") && !UNSAFE_PLACES.iter().any(|place| file.starts_with(place)));
    let complaints = ours.flat_map(|(file, text)| {
        let lines = lines_with_word(&without_comments_and_strings(&text), "unsafe");
        lines.into_iter().map(move |line| {
            format!("{file}:{line}: `unsafe` belongs into {UNSAFE_PLACES:?}: give it a safe function there and call that")
        })
    });
    assert_none(&complaints.collect::<Vec<_>>());
}

fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    let is_there = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word);
    code.lines().enumerate().filter(|(_, line)| is_there(line)).map(|(n, _)| n + 1).collect()
}

/// The code of a Rust file: comments, strings and characters are left out, line breaks stay.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_word = false;
    while let Some(c) = rest.chars().next() {
        let skipped = if in_word && c != '"' && c != '\'' { 0 } else { length_of_non_code(rest) };
        let (part, next) = rest.split_at(if skipped == 0 { c.len_utf8() } else { skipped });
        if skipped == 0 {
            code.push_str(part);
        } else {
            code.push(' ');
            code.extend(part.chars().filter(|c| *c == '\n'));
        }
        in_word = skipped == 0 && (c.is_alphanumeric() || c == '_');
        rest = next;
    }
    code
}

/// Bytes of the comment, string or character that `text` begins with; 0 if it begins with code.
fn length_of_non_code(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    for prefix in ["br", "cr", "r"] {
        if let Some(length) = text.strip_prefix(prefix).and_then(raw_string) {
            return prefix.len() + length;
        }
    }
    for prefix in ["b\"", "c\"", "\""] {
        if let Some(inside) = text.strip_prefix(prefix) {
            return prefix.len() + quoted(inside, '"');
        }
    }
    match text.strip_prefix("b'").or_else(|| text.strip_prefix('\'')) {
        Some(inside) if is_character(inside) => text.len() - inside.len() + quoted(inside, '\''),
        _ => 0,
    }
}

/// Not a lifetime: `'a'` and `'\n'`, but not `'a`.
fn is_character(inside: &str) -> bool {
    let mut chars = inside.chars();
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// Bytes up to and with the closing quote.
fn quoted(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    inside.len()
}

/// Bytes of `#"..."#` after the `r`.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.len() - text.trim_start_matches('#').len();
    let inside = text[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(hashes + 1 + length)
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[test]
fn only_code_counts_as_code() {
    let text = r##"
        // unsafe in a comment
        /* unsafe /* nested unsafe */ unsafe */
        let a = "unsafe \" unsafe"; let b = r#"unsafe " unsafe"#; let c = b"unsafe"; let d = '"'; let e = b'\'';
        fn f<'unsafe_life>(x: &'unsafe_life str) { bar("x") } // unsafe
        #![deny(unsafe_code)] let r#for = 1;
        unsafe { g() }
    "##;
    assert_eq!(lines_with_word(&without_comments_and_strings(text), "unsafe"), [7]);
}

#[test]
fn tests_at_the_end_do_not_count_as_lines() {
    assert_eq!(lines_without_tests("fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(lines_without_tests("#[cfg(test)]\nmod tests;\nfn a() {}\n"), 3);
}

#[test]
fn empty_names_are_seen_wherever_they_stand() {
    for file in ["host/utils/src/lib.rs", "host/llama/src/kv_manager.rs", "tests/tests/common.rs", "a/helper.rs"] {
        assert!(empty_name(file).is_some(), "{file}");
    }
    assert_eq!(empty_name("host/llama/src/commonplace.rs"), None);
}
