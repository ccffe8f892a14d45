//! The little JSON a guest needs: strings out, and the members of one object in. Values stay as they were written, so that
//! nothing is lost or rounded on the way through and no number parser or printer is linked in.

/// The members of an object in order: the key as written between its quotes, and the value's source text.
///
/// Only the object's own structure is checked; what is inside the values is for whoever reads them.
///
/// # Errors
/// What was expected, and the byte where something else was found.
pub(crate) fn members(source: &str) -> Result<Vec<(&str, &str)>, String> {
    let mut scan = Scan { source, at: 0 };
    let mut found = Vec::new();
    scan.expect(b'{', "`{`")?;
    if scan.peek() == Some(b'}') {
        scan.at += 1;
    } else {
        loop {
            if scan.peek() != Some(b'"') {
                return Err(scan.wanted("a key in quotes"));
            }
            let key = scan.value()?;
            scan.expect(b':', "`:`")?;
            found.push((part(key, 1, key.len() - 1), scan.value()?));
            match scan.peek() {
                Some(b',') => scan.at += 1,
                Some(b'}') => break scan.at += 1,
                _ => return Err(scan.wanted("`,` or `}`")),
            }
        }
    }
    match scan.peek() {
        None => Ok(found),
        Some(_) => Err(scan.wanted("nothing more")),
    }
}

/// Appends `text` as a JSON string with its quotes.
pub(crate) fn push_string(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(part(text, plain, at));
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => {
                out.push_str("\\u00");
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out.push_str(part(text, plain, text.len()));
    out.push('"');
}

/// `text[start..end]`, whose bounds are always characters here. Indexing would link the panic that prints the text around a
/// wrong bound with its Unicode tables: a sixth of the module, and 3 KB of memory in every isolate.
fn part(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

struct Scan<'a> {
    source: &'a str,
    at: usize,
}

// === impl Scan ===

impl<'a> Scan<'a> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.source.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.source.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, name: &str) -> Result<(), String> {
        if self.peek() != Some(byte) {
            return Err(self.wanted(name));
        }
        self.at += 1;
        Ok(())
    }

    /// Passes one value and gives its source text. Without recursion: depth is the sender's choice, the stack is 64 KiB.
    fn value(&mut self) -> Result<&'a str, String> {
        let first = self.peek();
        let (start, mut depth, mut in_string) = (self.at, 0u32, false);
        if matches!(first, None | Some(b',' | b':' | b'}' | b']')) {
            return Err(self.wanted("a value"));
        }
        let bytes = self.source.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' if in_string => self.at += 1,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => depth -= 1,
                _ => {}
            }
            let next = bytes.get(self.at);
            let ends = byte == b'"'
                || matches!(byte, b'}' | b']')
                || matches!(next, None | Some(b',' | b'}' | b']' | b':' | b' ' | b'\t' | b'\n' | b'\r'));
            if depth == 0 && !in_string && ends {
                return Ok(part(self.source, start, self.at));
            }
        }
        Err(self.wanted("the end of a value"))
    }

    fn wanted(&self, what: &str) -> String {
        format!("{what} was expected at byte {}", self.at.min(self.source.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_source_text() {
        let source = r#" { "a" : 1.50 , "b":"x\"},\\", "c":[1,{"d":"]"}] ,"e":{}, "f":null,"":true } "#;
        let expected =
            [("a", "1.50"), ("b", r#""x\"},\\""#), ("c", r#"[1,{"d":"]"}]"#), ("e", "{}"), ("f", "null"), ("", "true")];
        assert_eq!(members(source).unwrap(), expected);
        assert_eq!(members("{}").unwrap(), []);
        assert_eq!(members(" {\n} ").unwrap(), []);
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_place() {
        for (source, place) in [
            ("", 0),
            ("[]", 0),
            ("{", 1),
            (r#"{"a"}"#, 4),
            (r#"{"a":}"#, 5),
            (r#"{"a":1,}"#, 7),
            (r#"{"a":1 2}"#, 7),
            (r#"{"a":"x}"#, 8),
            (r#"{"a":"\"#, 7),
            (r#"{"a":[1}"#, 8),
            ("{a:1}", 1),
            (r#"{"a":1}x"#, 7),
        ] {
            let error = members(source).unwrap_err();
            assert!(error.ends_with(&format!("at byte {place}")), "{source}: {error}");
        }
    }

    #[test]
    fn a_cut_anywhere_is_an_error_and_never_a_panic() {
        let source = r#"{"é":"ü\n\"","b":[{"c":"🦙"}],"d":-1e3}"#;
        for at in (0..source.len()).filter(|&at| source.is_char_boundary(at)) {
            assert!(members(&source[..at]).is_err(), "{}", &source[..at]);
        }
        assert_eq!(members(source).unwrap().len(), 3);
    }

    #[test]
    fn deep_nesting_takes_no_stack() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(members(&deep).unwrap()[0].1.len(), 2_000_001);
    }

    #[test]
    fn strings_are_escaped_as_json_demands() {
        let mut out = String::new();
        push_string(&mut out, "a\"b\\c\n\t\r\u{1}\u{1f}é🦙/");
        assert_eq!(out, r#""a\"b\\c\n\t\r\u0001\u001fé🦙/""#);
    }
}
