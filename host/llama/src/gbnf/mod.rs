//! Looks a GBNF grammar over before llama.cpp is given it, whose parser takes whatever is written: a repetition that
//! underflows, a left recursion hidden behind an empty rule or 2^40 ways to begin would cost the host its memory or a thread.

use std::collections::HashMap;

/// Parentheses within each other.
const MAX_DEPTH: usize = 64;
const MAX_RULES: usize = 1000;
/// Characters and rules of the grammar once every repetition is written out.
const MAX_ELEMENTS: u64 = 65_536;
/// Ways in which one rule can begin: llama.cpp follows each of them.
const MAX_BEGINNINGS: u64 = 1000;

type Alternatives = Vec<Vec<Item>>;

struct Item {
    what: What,
    min: u64,
    /// `None`: any number.
    max: Option<u64>,
}

enum What {
    /// So many characters one after the other.
    Text(u64),
    Rule(String),
    Group(Alternatives),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// What is known of a rule, or is being found out.
#[derive(Clone, Copy)]
enum Beginnings {
    Unknown,
    Open,
    Known(u64),
}

struct Rules {
    names: HashMap<String, usize>,
    bodies: Vec<Alternatives>,
    can_be_empty: Vec<bool>,
}

/// # Errors
/// A sentence that says what is wrong, and where.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let rules = Rules::read(text)?;
    let size = rules.bodies.iter().map(elements).fold(0, u64::saturating_add);
    if size > MAX_ELEMENTS {
        return Err(format!("with its repetitions written out it has {size} parts, and may have {MAX_ELEMENTS}"));
    }
    let mut known = vec![Beginnings::Unknown; rules.bodies.len()];
    for rule in 0..rules.bodies.len() {
        rules.beginnings_of(rule, &mut known)?;
    }
    Ok(())
}

fn elements(alternatives: &Alternatives) -> u64 {
    let one = |item: &Item| {
        let each = match &item.what {
            What::Text(n) => *n,
            What::Rule(_) => 1,
            What::Group(inner) => elements(inner),
        };
        each.saturating_add(1).saturating_mul(item.max.unwrap_or(item.min).max(1))
    };
    alternatives.iter().flatten().map(one).fold(0, u64::saturating_add)
}

// === impl Rules ===

impl Rules {
    fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text, at: 0 };
        let (mut names, mut bodies) = (HashMap::new(), Vec::new());
        reader.space(true);
        while reader.at < text.len() {
            let name = reader.name()?;
            reader.space(false);
            reader.expect("::=")?;
            reader.space(true);
            let body = reader.alternatives(0)?;
            reader.end_of_rule()?;
            if let Some(&rule) = names.get(&name) {
                bodies[rule] = body;
            } else {
                names.insert(name, bodies.len());
                bodies.push(body);
            }
            if bodies.len() > MAX_RULES {
                return Err(format!("it has more than {MAX_RULES} rules"));
            }
        }
        if !names.contains_key("root") {
            return Err("it has no rule `root`".into());
        }
        let mut rules = Self { can_be_empty: vec![false; bodies.len()], names, bodies };
        rules.bodies.iter().try_for_each(|body| rules.all_known(body))?;
        rules.find_empty();
        Ok(rules)
    }

    fn all_known(&self, alternatives: &Alternatives) -> Result<(), String> {
        alternatives.iter().flatten().try_for_each(|item| match &item.what {
            What::Rule(name) if !self.names.contains_key(name) => Err(format!("there is no rule `{name}`")),
            What::Group(inner) => self.all_known(inner),
            _ => Ok(()),
        })
    }

    /// Which rules can be empty, to the fixed point.
    fn find_empty(&mut self) {
        loop {
            let now: Vec<bool> = self.bodies.iter().map(|body| self.is_empty(body)).collect();
            if now == self.can_be_empty {
                return;
            }
            self.can_be_empty = now;
        }
    }

    fn is_empty(&self, alternatives: &Alternatives) -> bool {
        alternatives.iter().any(|sequence| sequence.iter().all(|item| item.min == 0 || self.is_content_empty(item)))
    }

    fn is_content_empty(&self, item: &Item) -> bool {
        match &item.what {
            What::Text(n) => *n == 0,
            What::Rule(name) => self.can_be_empty[self.names[name]],
            What::Group(inner) => self.is_empty(inner),
        }
    }

    fn beginnings_of(&self, rule: usize, known: &mut [Beginnings]) -> Result<u64, String> {
        let name = || self.names.iter().find(|(_, at)| **at == rule).map_or("", |(name, _)| name);
        match known[rule] {
            Beginnings::Known(n) => return Ok(n),
            Beginnings::Open => return Err(format!("the rule `{}` begins with itself", name())),
            Beginnings::Unknown => known[rule] = Beginnings::Open,
        }
        let n = self.beginnings(&self.bodies[rule], known)?;
        if n > MAX_BEGINNINGS {
            return Err(format!("the rule `{}` can begin in more than {MAX_BEGINNINGS} ways", name()));
        }
        known[rule] = Beginnings::Known(n);
        Ok(n)
    }

    fn beginnings(&self, alternatives: &Alternatives, known: &mut [Beginnings]) -> Result<u64, String> {
        let mut all = 0u64;
        for sequence in alternatives {
            let mut is_over = true;
            for item in sequence {
                let n = match &item.what {
                    What::Text(_) => 1,
                    What::Rule(name) => self.beginnings_of(self.names[name], known)?,
                    What::Group(inner) => self.beginnings(inner, known)?,
                };
                all = all.saturating_add(n);
                if item.max != Some(1) && self.is_content_empty(item) {
                    return Err("it repeats something that can be empty".into());
                }
                if item.min > 0 && !self.is_content_empty(item) {
                    is_over = false;
                    break;
                }
            }
            all = all.saturating_add(u64::from(is_over));
        }
        Ok(all)
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn wrong<T>(&self, what: &str) -> Result<T, String> {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Err(format!("{what} at {line}:{column}"))
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        if !self.rest().starts_with(wanted) {
            return self.wrong(&format!("`{wanted}` is missing"));
        }
        self.at += wanted.len();
        Ok(())
    }

    /// White space and comments, and with `lines` also what ends a line.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\r' | '\n' if lines => self.at += 1,
                '#' => self.at += self.rest().find(['\r', '\n']).unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    fn end_of_rule(&mut self) -> Result<(), String> {
        self.space(false);
        if !matches!(self.peek(), None | Some('\r' | '\n')) {
            return self.wrong("the rule does not end");
        }
        self.space(true);
        Ok(())
    }

    fn name(&mut self) -> Result<String, String> {
        let rest = self.rest();
        let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
        if len == 0 {
            return self.wrong("the name of a rule is missing");
        }
        let name = rest[..len].to_owned();
        self.at += len;
        Ok(name)
    }

    fn alternatives(&mut self, depth: usize) -> Result<Alternatives, String> {
        if depth > MAX_DEPTH {
            return self.wrong(&format!("there are more than {MAX_DEPTH} parentheses within each other"));
        }
        let mut all = vec![self.sequence(depth)?];
        while self.peek() == Some('|') {
            self.at += 1;
            self.space(true);
            all.push(self.sequence(depth)?);
        }
        Ok(all)
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Item>, String> {
        let mut items: Vec<Item> = Vec::new();
        while let Some(c) = self.peek() {
            let what = match c {
                '"' => self.literal()?,
                '[' => self.class()?,
                '.' => {
                    self.at += 1;
                    What::Text(1)
                }
                '(' => {
                    self.at += 1;
                    self.space(true);
                    let inner = self.alternatives(depth + 1)?;
                    self.expect(")")?;
                    What::Group(inner)
                }
                c if c.is_ascii_alphanumeric() || c == '-' => What::Rule(self.name()?),
                '*' | '+' | '?' | '{' => {
                    let (min, max) = self.repetition()?;
                    match items.last_mut() {
                        Some(item) if (item.min, item.max) == (1, Some(1)) => (item.min, item.max) = (min, max),
                        _ => return self.wrong("nothing that could be repeated stands before this"),
                    }
                    self.space(depth > 0);
                    continue;
                }
                _ => break,
            };
            items.push(Item { what, min: 1, max: Some(1) });
            self.space(depth > 0);
        }
        Ok(items)
    }

    fn literal(&mut self) -> Result<What, String> {
        self.at += 1;
        let mut n = 0;
        loop {
            match self.next() {
                Some('"') => return Ok(What::Text(n)),
                Some('\\') => drop(self.next()),
                Some(_) => {}
                None => return self.wrong("a text is not closed"),
            }
            n += 1;
        }
    }

    fn class(&mut self) -> Result<What, String> {
        self.at += 1;
        let mut n = 0;
        loop {
            match self.next() {
                Some(']') => return Ok(What::Text(n.min(1))),
                Some('\\') => drop(self.next()),
                Some(_) => {}
                None => return self.wrong("a set of characters is not closed"),
            }
            n += 1;
        }
    }

    fn repetition(&mut self) -> Result<(u64, Option<u64>), String> {
        match self.next() {
            Some('*') => return Ok((0, None)),
            Some('+') => return Ok((1, None)),
            Some('?') => return Ok((0, Some(1))),
            _ => {}
        }
        self.space(false);
        let min = self.number()?;
        self.space(false);
        let max = if self.peek() == Some(',') {
            self.at += 1;
            self.space(false);
            if self.peek() == Some('}') { None } else { Some(self.number()?) }
        } else {
            Some(min)
        };
        self.space(false);
        self.expect("}")?;
        if max.is_some_and(|max| max < min) {
            return self.wrong("a repetition has a larger first number than its second");
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Result<u64, String> {
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let Ok(number) = rest[..len].parse() else { return self.wrong("a number is missing or too large") };
        self.at += len;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn grammars_that_people_write_pass() {
        let json = r#"
# JSON, as everybody writes it
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value
    ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"#;
        for grammar in [
            json,
            r#"root ::= "a""#,
            "root ::= item+\nitem ::= [a-z]\n",
            r#"root ::= . "é"? list-1 | list-1
list-1 ::= "x"{2} "y"{1,} "z"{0,3}"#,
        ] {
            assert_eq!(check(grammar), Ok(()), "{grammar}");
        }
    }

    #[test]
    fn grammars_that_would_not_end_are_refused() {
        let each = |i: usize| format!("a{i} ::= a{} | a{}", i + 1, i + 1);
        let ways = format!("root ::= a0 | a0\n{}\na40 ::= \"x\"\n", (0..40).map(each).collect::<Vec<_>>().join("\n"));
        let deep = format!("root ::= {}\"a\"{}", "(".repeat(700), ")".repeat(700));
        let large = format!("root ::= \"{}\"{{2000}}", "a".repeat(100_000));
        let nested = r#"root ::= ((("a"{100}){100}){100}){100}"#;
        let many = (0..1001).map(|i| format!("r{i} ::= \"a\"")).collect::<Vec<_>>().join("\n");
        let cases = [
            (r#"root ::= "a"{2,1}"#, "larger first number"),
            ("root ::= b root \"x\" | \"y\"\nb ::= c\nc ::= | \"z\"", "begins with itself"),
            ("root ::= root \"a\" | \"b\"", "begins with itself"),
            ("root ::= (\"a\"*)*", "can be empty"),
            (&ways, "ways"),
            (&deep, "parentheses"),
            (&large, "parts"),
            (nested, "parts"),
            (&many, "rules"),
            ("other ::= \"a\"", "no rule `root`"),
            ("root ::= missing", "`missing`"),
            ("root ::= \"a", "not closed"),
            ("root ::= (", "`)` is missing at 1:11"),
            ("root ::= *", "before this"),
            ("root = \"a\"", "`::=` is missing"),
        ];
        for (grammar, says) in cases {
            let error = check(grammar).unwrap_err();
            assert!(error.contains(says), "{error}: {}", &grammar[..grammar.len().min(60)]);
        }
    }
}
