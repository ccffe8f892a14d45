//! GBNF grammars: read, looked over, and walked beside a text, all in bounds that no grammar passes.
//!
//! llama.cpp's own way through a grammar is not used. It follows every way of reading a text by itself, and every way of going on from there
//! for each token that could be next: `("-" | "-"){40}` keeps its thread busy for days. Here ways that go on alike are one ([`stacks`]).

mod characters;
mod program;
mod read;
mod stacks;
mod vocabulary;
mod walk;

use std::collections::HashMap;

use self::{characters::Characters, read::Reader};
pub(crate) use self::{vocabulary::Vocabulary, walk::Walk};

/// Parentheses within each other.
const MAX_DEPTH: usize = 64;
const MAX_RULES: usize = 1000;
/// Characters and rules of the grammar once every repetition is written out.
const MAX_ELEMENTS: u64 = 65_536;
/// Ways in which one rule can begin: each is gone into.
const MAX_BEGINNINGS: u64 = 1000;

const REPEATS_NOTHING: &str = "it repeats something that can be empty";

type Alternatives = Vec<Vec<Item>>;

struct Item {
    what: What,
    min: u64,
    /// `None`: any number.
    max: Option<u64>,
}

enum What {
    /// Characters one after the other.
    Text(Vec<Characters>),
    Rule(String),
    Group(Alternatives),
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

fn elements(alternatives: &Alternatives) -> u64 {
    let one = |item: &Item| {
        let each = match &item.what {
            What::Text(text) => text.len() as u64,
            What::Rule(_) => 1,
            What::Group(inner) => elements(inner),
        };
        each.saturating_add(1).saturating_mul(item.max.unwrap_or(item.min).max(1))
    };
    alternatives.iter().flatten().map(one).fold(0, u64::saturating_add)
}

// === impl Rules ===

impl Rules {
    /// # Errors
    /// A sentence that says what is wrong, and where.
    fn checked(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("it contains a NUL byte".into());
        }
        let rules = Self::read(text)?;
        let size = rules.bodies.iter().map(elements).fold(0, u64::saturating_add);
        if size > MAX_ELEMENTS {
            return Err(format!("with its repetitions written out it has {size} parts, and may have {MAX_ELEMENTS}"));
        }
        let mut known = vec![Beginnings::Unknown; rules.bodies.len()];
        for rule in 0..rules.bodies.len() {
            rules.beginnings_of(rule, &mut known)?;
        }
        Ok(rules)
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader::new(text);
        let (mut names, mut bodies) = (HashMap::new(), Vec::new());
        reader.space(true);
        while !reader.is_at_end() {
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
        rules.bodies.iter().try_for_each(|body| rules.all_repeated(body))?;
        Ok(rules)
    }

    fn all_known(&self, alternatives: &Alternatives) -> Result<(), String> {
        alternatives.iter().flatten().try_for_each(|item| match &item.what {
            What::Rule(name) if !self.names.contains_key(name) => Err(format!("there is no rule `{name}`")),
            What::Group(inner) => self.all_known(inner),
            _ => Ok(()),
        })
    }

    /// Nothing is repeated without end that need not take a character.
    fn all_repeated(&self, alternatives: &Alternatives) -> Result<(), String> {
        alternatives.iter().flatten().try_for_each(|item| match &item.what {
            _ if item.max.is_none() && self.is_content_empty(item) => Err(REPEATS_NOTHING.into()),
            What::Group(inner) => self.all_repeated(inner),
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
            What::Text(text) => text.is_empty(),
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
                    return Err(REPEATS_NOTHING.into());
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

#[cfg(test)]
mod tests {
    use super::Rules;

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
            assert_eq!(Rules::checked(grammar).err(), None, "{grammar}");
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
            ("root ::= \"x\" (\"y\" (\"a\"? | b)+)\nb ::= \"b\"*", "can be empty"),
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
            (r#"root ::= "\d""#, "no such escape"),
            (r"root ::= [\x4]", "2 hexadecimal digits"),
            ("root ::= \"\0\"", "NUL"),
            ("root = \"a\"", "`::=` is missing"),
        ];
        for (grammar, says) in cases {
            let error = Rules::checked(grammar).err().unwrap();
            assert!(error.contains(says), "{error}: {}", &grammar[..grammar.len().min(60)]);
        }
    }
}
