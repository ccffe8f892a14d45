use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::gbnf::{Alternatives, Item, What};

/// What a grammar says of a text, found by going through every way of reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Refused,
    Open,
    Complete,
}

/// What is still to come in one way of reading: the next item last, each with how often it came.
type Way<'a> = Vec<(&'a Item, u64)>;

struct Naive {
    rules: Rules,
}

impl Naive {
    /// `None`: there are too many ways for this.
    fn verdict(&self, text: &str) -> Option<Verdict> {
        let mut ways = BTreeSet::new();
        let mut found = Vec::new();
        let root = &self.rules.bodies[self.rules.names["root"]];
        self.begin(root, &Vec::new(), &mut found, &mut ways);
        for c in text.chars() {
            let mut next = Vec::new();
            for (way, rest) in std::mem::take(&mut found) {
                let Some((first, others)) = rest.split_first() else { continue };
                if first.iter().any(|(from, to)| (*from..=*to).contains(&u32::from(c))) {
                    ways.clear();
                    self.go(way, others.to_vec(), &mut next, &mut ways);
                }
            }
            // the same way twice is one, or this test would take as long as what it tests must not
            next.sort_by_key(|(way, rest)| key(way, rest));
            next.dedup_by_key(|(way, rest)| key(way, rest));
            found = next;
            if found.len() > 200 {
                return None;
            }
        }
        Some(match found.iter().any(|(way, rest)| way.is_empty() && rest.is_empty()) {
            _ if found.is_empty() => Verdict::Refused,
            true => Verdict::Complete,
            false => Verdict::Open,
        })
    }

    fn begin<'a>(&'a self, alternatives: &'a Alternatives, way: &Way<'a>, found: &mut Vec<Found<'a>>, seen: &mut Seen) {
        for sequence in alternatives {
            let mut way = way.clone();
            way.extend(sequence.iter().rev().map(|item| (item, 0)));
            self.go(way, Vec::new(), found, seen);
        }
    }

    /// Goes on to the next character that must come, in all ways.
    fn go<'a>(&'a self, mut way: Way<'a>, rest: Vec<Characters>, found: &mut Vec<Found<'a>>, seen: &mut Seen) {
        if !seen.insert(key(&way, &rest)) {
            return;
        }
        let top = if rest.is_empty() { way.pop() } else { None };
        let Some((item, n)) = top else { return found.push((way, rest)) };
        if n >= item.min {
            self.go(way.clone(), Vec::new(), found, seen);
        }
        if item.max.is_none_or(|max| n < max) {
            if item.max != Some(n + 1) {
                way.push((item, n + 1));
            }
            match &item.what {
                What::Text(text) => self.go(way, text.clone(), found, seen),
                What::Rule(name) => self.begin(&self.rules.bodies[self.rules.names[name]], &way, found, seen),
                What::Group(inner) => self.begin(inner, &way, found, seen),
            }
        }
    }
}

type Characters = super::characters::Characters;
type Found<'a> = (Way<'a>, Vec<Characters>);
type Seen = BTreeSet<Key>;
type Key = (Vec<(usize, u64)>, Vec<Characters>);

fn key(way: &Way<'_>, rest: &[Characters]) -> Key {
    (way.iter().map(|(item, n)| (std::ptr::from_ref(*item).addr(), *n)).collect(), rest.to_vec())
}

fn verdict(walk: &mut Walk, text: &[u8]) -> Result<Verdict, String> {
    Ok(match walk.accept(text)? {
        false => Verdict::Refused,
        true if walk.can_end() => Verdict::Complete,
        true => Verdict::Open,
    })
}

fn item(depth: u32) -> BoxedStrategy<String> {
    let text = prop::sample::select(vec![r#""a""#, r#""b""#, r#""ab""#, r#""é""#, r#""""#, r#""\x61""#]);
    let set = prop::sample::select(vec!["[ab]", "[^a]", "[a-c]", "[^é]", "[]", "[^b-]", r"[\u00e9-\u00ea]", "."]);
    let rule = prop::sample::select(vec!["a", "b", "root"]);
    let plain = prop_oneof![text, set, rule].prop_map(String::from);
    let what = if depth == 0 {
        plain.boxed()
    } else {
        prop_oneof![4 => plain, 1 => alternatives(depth - 1).prop_map(|inner| format!("({inner})"))].boxed()
    };
    let repeated = prop_oneof![6 => Just(""), 6 => prop::sample::select(vec!["*", "+", "?", "{2}", "{1,3}", "{2,}", "{0,2}"])];
    (what, repeated).prop_map(|(what, repeated)| what + repeated).boxed()
}

fn alternatives(depth: u32) -> BoxedStrategy<String> {
    let sequence = prop::collection::vec(item(depth), 0..4).prop_map(|items| items.join(" "));
    prop::collection::vec(sequence, 1..3).prop_map(|sequences| sequences.join(" | ")).boxed()
}

fn grammar() -> impl Strategy<Value = String> {
    let rules = prop::collection::vec(alternatives(2), 3);
    let grammar = rules.prop_map(|r| format!("root ::= {}\na ::= {}\nb ::= {}\n", r[0], r[1], r[2]));
    grammar.prop_filter("can be used", |grammar| Walk::new(grammar).is_ok())
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "é", "ab"]), 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, max_local_rejects: 1_000_000, ..ProptestConfig::default() })]

    #[test]
    fn a_walk_goes_where_one_of_all_ways_goes(grammar in grammar(), texts in prop::collection::vec(text(), 8)) {
        let naive = Naive { rules: Rules::checked(&grammar).unwrap() };
        let walk = Walk::new(&grammar).unwrap();
        for text in texts {
            let Some(expected) = naive.verdict(&text) else { continue };
            prop_assert_eq!(verdict(&mut walk.clone(), text.as_bytes()), Ok(expected), "{} in {}", text, grammar);
            // byte by byte it is the same, and so it is when all but the place is forgotten in between
            let mut slow = walk.clone();
            let n_taken = text.bytes().take_while(|byte| {
                slow.known.clear();
                slow.place.set = slow.stacks.keep(slow.place.set);
                slow.accept(&[*byte]).unwrap()
            });
            prop_assert_eq!(n_taken.count() == text.len(), expected != Verdict::Refused, "{} in {}", text, grammar);
            prop_assert!(expected == Verdict::Refused || slow.can_end() == (expected == Verdict::Complete));
        }
    }

    #[test]
    fn what_a_mask_refuses_is_what_cannot_be_accepted(
        grammar in grammar(),
        start in text(),
        words in prop::collection::vec(prop::collection::vec(prop::sample::select(b"abc\xc3\xa9\xaa\x00".to_vec()), 0..5), 1..30),
    ) {
        let mut walk = Walk::new(&grammar).unwrap();
        prop_assume!(walk.accept(start.as_bytes()).unwrap());
        let vocabulary = Vocabulary::new(words.iter().map(|word| Some(&word[..])).chain([None]));
        let mut refused = BTreeSet::new();
        walk.refused(&vocabulary, |token| assert!(refused.insert(token), "twice")).unwrap();
        for (word, token) in words.iter().zip(0..) {
            let can_follow = !word.is_empty() && walk.clone().accept(word).unwrap();
            prop_assert_eq!(refused.contains(&token), !can_follow, "{:?} after {} in {}", word, start, grammar);
        }
        prop_assert_eq!(refused.contains(&u32::try_from(words.len()).unwrap()), !walk.can_end());
    }

    /// Whatever is written, the work for a token is bounded; every walk below ends, or says why not.
    #[test]
    fn no_grammar_takes_longer_than_it_may(grammar in grammar(), words in prop::collection::vec(text(), 1..20), n in 1usize..60) {
        let mut walk = Walk::new(&grammar).unwrap();
        let words: Vec<String> = words.iter().map(|word| word.repeat(n)).collect();
        let vocabulary = Vocabulary::new(words.iter().map(|word| Some(word.as_bytes())));
        for word in &words {
            let is_on = walk.refused(&vocabulary, |_| ()).and_then(|()| walk.accept(word.as_bytes()));
            prop_assert!(walk.size() <= MAX_SIZE + 2 * MAX_STEPS, "{} in {}", walk.size(), grammar);
            if let Err(why) = is_on {
                prop_assert!(why.contains("too many ways"), "{}", why);
                break;
            }
        }
    }
}

/// Tokens of all that a vocabulary has long runs of.
fn runs() -> Vec<Vec<u8>> {
    let of = |byte: u8| (1..=128).map(move |n| vec![byte; n]);
    b"ab- (*x".iter().flat_map(|byte| of(*byte)).chain((0x80..=0xff).map(|byte| vec![byte])).collect()
}

/// Masks and accepts the first of `words` that can follow, `n` times or until it is told why not.
fn write_on(grammar: &str, words: &[Vec<u8>], n: usize) -> Result<usize, String> {
    let mut walk = Walk::new(grammar)?;
    let vocabulary = Vocabulary::new(words.iter().map(|word| Some(&word[..])));
    for i in 0..n {
        let mut refused = BTreeSet::new();
        walk.refused(&vocabulary, |token| assert!(refused.insert(token), "twice"))?;
        let Some(token) = (0..).take(words.len()).find(|token| !refused.contains(token)) else { return Ok(i) };
        assert!(walk.accept(&words[token as usize])?);
    }
    Ok(n)
}

#[test]
fn grammars_of_endless_ways_are_walked() {
    let optional = format!("root ::= {}", r#""a"? "#.repeat(100));
    let nested =
        "root ::= e\ne ::= t | t \"+\" e | t \"-\" e | t \"*\" e\nt ::= \"x\" | \"(\" e \")\" | \"(\" e \"]\" | \"((\" e \"))\"";
    for (grammar, n) in [
        ("root ::= e\ne ::= . e | . e \"b\" | . e \"c\" | .", 300),
        (&optional, 100),
        (r#"root ::= ("-" | "-"){1000} "b""#, 300),
        (r#"root ::= ([a-z] | [a-w] | "a" "b"?)* "!" "#, 300),
        ("root ::= s\ns ::= \"a\" s s | \"a\" s | \"a\"", 300),
        (nested, 100),
        ("root ::= i\ni ::= \"a\" i | \"a\" i \"b\" i | \"x\"", 300),
    ] {
        assert_eq!(write_on(grammar, &runs(), n), Ok(n), "{grammar}");
    }
}

#[test]
fn grammars_that_people_write_stay_far_below_the_bound() {
    let json = r#"
root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}"#;
    let sum = "root ::= (expr \"=\" ws term \"\\n\")+\nexpr ::= term ([-+*/] ws term)*\nterm ::= [a-z]+ ws | [0-9]+ ws | \"(\" ws expr \")\" ws\n\
               ws ::= [ \\t\\n]*";
    let list = "root ::= item+\nitem ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ \"\\n\"";
    let japanese = "root ::= c+ ([ \\t\\n] c+)*\nc ::= [ぁ-ゟ] | [ァ-ヿ] | [、-〾] | [一-鿿]";
    for (grammar, text) in [
        (json, "{\"a b\": [1.5e3, -2, {\"ü\": [[[null]]]}],\n  \"text\": \"日本\\u00e9 \\n x\"}"),
        (sum, "((a+ 3) * (b - ((((c)))))) / 12 = 7\n1+1=2\n"),
        (list, "- eggs\n- 牛乳 and more\n"),
        (japanese, "これは 日本語、です"),
    ] {
        let mut words = runs();
        words.extend(text.char_indices().map(|(at, _)| text[at..].chars().take(5).collect::<String>().into_bytes()));
        let mut walk = Walk::new(grammar).unwrap();
        let vocabulary = Vocabulary::new(words.iter().map(|word| Some(&word[..])));
        for byte in text.bytes() {
            walk.refused(&vocabulary, |_| ()).unwrap();
            assert_eq!(walk.accept(&[byte]), Ok(true), "{text}");
        }
        assert!(walk.can_end() && walk.stacks.tops(walk.place.set).len() < 20, "{text}");
        assert!(walk.size() < MAX_SIZE / 3, "{}: {text}", walk.size());
    }
}

#[test]
fn a_grammar_of_too_many_ways_is_given_up_with_a_sentence() {
    let wide = format!("root ::= \"a\" {}", "[ab]? ".repeat(20_000));
    let deep = format!("root ::= \"a\" {}", "(\"a\" | \"a\" \"b\")? ".repeat(9_000));
    // fewer, but a token of 128 letters goes through them 128 times
    let long = format!("root ::= {}", r#""a"? "#.repeat(400));
    for grammar in [&wide, &deep, &long] {
        let why = write_on(grammar, &runs(), 1000).unwrap_err();
        assert!(why.contains("after 0 characters there are too many ways") && why.contains("so that the next"), "{why}");
    }
    let open = write_on("root ::= \"(\" root \")\" | \"x\"", &[vec![b'('; 1000]], 1000).unwrap_err();
    assert!(open.contains("nest less"), "{open}");
}

#[test]
fn texts_may_be_cut_anywhere_but_must_be_texts() {
    let walk = Walk::new("root ::= [é-ü] [^é] . .*").unwrap();
    let takes = |parts: &[&[u8]]| {
        let mut walk = walk.clone();
        parts.iter().all(|part| walk.accept(part).unwrap())
    };
    assert!(takes(&[b"\xc3", b"\xa9", b"\xc3", b"\xa8\xf0\x9f", b"\xa6\x80"]));
    assert!(!takes(&[b"\xc4"]), "nothing from `é` to `ü` begins so");
    assert!(!takes(&["éé".as_bytes()]));
    let invalid: [&[u8]; 9] =
        [b"\0", b"\x80", b"\xc1\x81", b"\xe0\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf0\x80", b"\xf4\x90\x80\x80", b"\xc3a"];
    assert!(!invalid.iter().any(|invalid| takes(&["üa".as_bytes(), invalid])));
    assert!(!Walk::new("root ::= .").unwrap().can_end());
    assert_eq!(Walk::new("root ::= []").map(|walk| walk.can_end()), Ok(true));
}
