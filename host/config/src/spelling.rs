//! Texts of the file inside messages: what was probably meant, and how it is shown.

/// The candidate that `written` was probably meant to be. `_` and capital letters are taken for slips.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer than any name that is known; also bounds the work on hostile input.
    const MAX_CHARS: usize = 64;
    let written: Vec<char> = written.chars().take(MAX_CHARS + 1).flat_map(char::to_lowercase).collect();
    if written.len() > MAX_CHARS {
        return None;
    }
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let slip = candidates
        .iter()
        .copied()
        .filter_map(|candidate| {
            let chars: Vec<char> = candidate.chars().take(MAX_CHARS).flat_map(char::to_lowercase).collect();
            let distance = distance(&written, &chars);
            // One slip in three letters, three at most: beyond that a suggestion misleads.
            (distance <= (chars.len() / 3).clamp(1, 3)).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate);
    // or the first word of one name alone: `target` for `target-load`
    let beginning: String = written.iter().chain(&['-']).collect();
    let mut longer = candidates.into_iter().filter(|candidate| candidate.starts_with(&beginning));
    slip.or_else(|| longer.next().filter(|_| longer.next().is_none()))
}

/// Edit distance with insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut edits = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                edits = edits.min(before_last[j - 2] + 1);
            }
            row.push(edits);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Text from a file as it may stand in a message: one line, at most `max_chars` long, nothing that moves a cursor.
pub(crate) fn shown(text: &str, max_chars: usize) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == max_chars {
            out.push('…');
            break;
        }
        // Debug escapes what is not printable, invisible and direction-changing characters included.
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// Names as a list for a message: `` `a`, `b` ``. Long lists are cut.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MAX_NAMES: usize = 16;
    let mut names = names.into_iter();
    let mut list: Vec<_> = names.by_ref().take(MAX_NAMES).map(|name| format!("`{}`", shown(name, 60))).collect();
    let n_more = names.count();
    if n_more > 0 {
        list.push(format!("{n_more} more"));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let keys = ["context", "gpu-layers", "kv-type", "stack"];
        assert_eq!(nearest("contxet", keys), Some("context"));
        assert_eq!(nearest("gpu_layers", keys), Some("gpu-layers"));
        assert_eq!(nearest("KV-Type", keys), Some("kv-type"));
        assert_eq!(nearest("stak", keys), Some("stack"));
        assert_eq!(nearest("temperature", keys), None);
        assert_eq!(nearest("gpu", keys), Some("gpu-layers"));
        assert_eq!(nearest("gpu", ["gpu-layers", "gpu-devices"]), None);
        assert_eq!(nearest(&"stack".repeat(100), keys), None);
    }

    #[test]
    fn what_is_shown_stays_on_one_line_and_short() {
        assert_eq!(shown("a\nb\u{1b}[31m\u{202e}", 60), "a\\nb\\u{1b}[31m\\u{202e}");
        assert_eq!(shown("c:\\it's \"so\"", 60), "c:\\it's \"so\"");
        assert_eq!(shown("äöüß", 3), "äöü…");
        assert_eq!(listed(["a", "b"]), "`a`, `b`");
        assert!(listed(["a"; 18]).ends_with("`a`, 2 more"));
    }
}
