//! Attacks are refused at once and with their place; what people write passes; what passes is compiled soon.

use std::time::{Duration, Instant};

use llguidance::{ParserFactory, api::TopLevelGrammar};
use proptest::prelude::*;
use serde_json::{Value, json};
use toktrie::ApproximateTokEnv;

use super::check;

/// Generous: machines that test are busy.
const SOON: Duration = Duration::from_secs(10);

/// On the stack that compilers have.
fn on_a_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(32 << 20).spawn_scoped(scope, work).expect("a thread");
        thread.join().expect("no panic")
    })
}

fn refused(schema: &Value) -> String {
    let begun = Instant::now();
    let error = on_a_large_stack(|| check(schema)).expect_err("refused");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    error
}

/// What llguidance says of what passes.
fn compiled(schema: &Value) -> Result<(), String> {
    let mut factory = ParserFactory::new_simple(&ApproximateTokEnv::single_byte_env()).expect("a factory");
    factory.quiet();
    let begun = Instant::now();
    let grammar = TopLevelGrammar::from_json_schema(schema.clone());
    let compiled = on_a_large_stack(|| factory.create_parser(grammar).map(drop).map_err(|e| e.to_string()));
    assert!(begun.elapsed() < SOON, "{:?} for {schema}", begun.elapsed());
    compiled
}

fn passes(schema: &Value) {
    on_a_large_stack(|| check(schema)).unwrap_or_else(|e| panic!("{e}: {schema}"));
    compiled(schema).unwrap_or_else(|e| panic!("{e}: {schema}"));
}

fn patterns(n: usize) -> Vec<Value> {
    ('a'..='z').take(n).map(|c| json!({ "type": "string", "pattern": format!(".*{c}.*") })).collect()
}

fn numbered(n: usize, schema: impl Fn(usize) -> Value) -> Value {
    Value::Object((0..n).map(|i| (format!("p{i}"), schema(i))).collect())
}

/// `d20` is `d19` and `d19`, and so on.
fn doubled(first: &Value) -> Value {
    let mut definitions = serde_json::Map::from_iter([("d0".to_owned(), first.clone())]);
    for i in 1..=20 {
        let before = json!({ "$ref": format!("#/$defs/d{}", i - 1) });
        definitions.insert(format!("d{i}"), json!({ "allOf": [before, before] }));
    }
    json!({ "$ref": "#/$defs/d20", "$defs": definitions })
}

#[test]
fn patterns_that_meet_are_refused_with_their_place() {
    let all = json!({ "allOf": patterns(26) });
    let referred: Vec<_> = (0..26).map(|i| json!({ "$ref": format!("#/$defs/p{i}") })).collect();
    let chosen: Vec<_> = patterns(26).into_iter().map(|p| json!({ "anyOf": [p, { "type": "null" }] })).collect();
    let objects = |keyword: &str| -> Vec<_> {
        patterns(26).into_iter().map(|p| json!({ "type": "object", keyword: { "x": p } })).collect::<Vec<_>>()
    };
    let rest: Vec<_> = patterns(26).into_iter().map(|p| json!({ "type": "object", "additionalProperties": p })).collect();
    let lists: Vec<_> = patterns(26).into_iter().map(|p| json!({ "type": "array", "items": p })).collect();
    let named =
        json!({ "patternProperties": { "^x": { "allOf": patterns(13) } }, "properties": { "x1": { "allOf": patterns(13) } } });
    let nested = patterns(26).into_iter().fold(json!({}), |inner, p| json!({ "allOf": [p, inner] }));
    for (schema, place) in [
        (all.clone(), "`#`"),
        (json!({ "properties": { "a/b": { "items": all } } }), "`#/properties/a~1b/items`"),
        (json!({ "allOf": referred, "$defs": numbered(26, |i| patterns(26)[i].clone()) }), "`#`"),
        (json!({ "properties": { "x": { "allOf": chosen } } }), "`#/properties/x`"),
        (json!({ "allOf": objects("properties") }), "`#/allOf/0/properties/x`"),
        (json!({ "allOf": objects("patternProperties") }), "`#/allOf/0/patternProperties/x`"),
        (json!({ "allOf": rest }), "`#/allOf/0/additionalProperties`"),
        (json!({ "allOf": lists }), "`#/allOf/0/items`"),
        (named, "`#/patternProperties/^x`"),
        (doubled(&json!({ "type": "string", "pattern": "^a$" })), "`#/$defs/d20`"),
        (doubled(&json!({ "const": { "a": "x" } })), "`#/$defs/d20`"),
    ] {
        let error = refused(&schema);
        assert!(error.contains(place) && error.contains("join them into one `pattern`"), "{place}: {error}");
    }
    // too deep before it is too much
    refused(&nested);
    // the reference may mean either
    let anchored = json!({ "allOf": [{ "$ref": "#here" }, { "$ref": "other#/a%62" }, { "$id": "other", "ab": { "allOf": patterns(4) } }],
        "$defs": { "x": { "$anchor": "here", "allOf": patterns(4) } } });
    assert!(refused(&anchored).contains("`#`"));
}

#[test]
fn too_many_of_what_is_cheap_alone_are_refused() {
    let options = |letter: &str| -> Vec<_> {
        (0..60).map(|i| json!({ "type": "string", "pattern": format!("{letter}.{{6}}{i}$") })).collect::<Vec<_>>()
    };
    let error = refused(&json!({ "allOf": [{ "anyOf": options("a") }, { "anyOf": options("b") }] }));
    assert!(error.contains("`#`"), "{error}");
    let error = refused(&json!({ "properties": { "x": { "patternProperties": numbered(300, |_| json!({})) } } }));
    assert!(error.contains("`#/properties/x`"), "{error}");
    let error = refused(&json!({ "properties": { "x": { "oneOf": vec![json!({ "type": "object" }); 3000] } } }));
    assert!(error.contains("`#/properties/x/oneOf` has 3000 options"), "{error}");
    let error = refused(&json!({ "items": { "type": "object", "properties": numbered(8000, |_| json!(true)) } }));
    assert!(error.contains("`#/items` has 8000 properties"), "{error}");
    let names: Vec<_> = (0..12_000).map(|i| format!("r{i}")).collect();
    assert!(refused(&json!({ "type": "object", "required": names })).contains("`#` has 12000 properties"));
    let objects = |letter: &str| -> Vec<_> {
        (0..60).map(|i| json!({ "type": "object", "properties": { "x": {}, format!("{letter}{i}"): {} } })).collect::<Vec<_>>()
    };
    let error = refused(&json!({ "allOf": [{ "anyOf": objects("y") }, { "anyOf": objects("z") }] }));
    assert!(error.contains("`#` joins alternatives into 3600"), "{error}");
    let long = format!("^{}$", r"\w".repeat(30_000));
    let error = refused(&json!({ "allOf": [{ "pattern": long }, { "pattern": "^a" }] }));
    assert!(error.contains("`#`"), "{error}");
    refused(&doubled(&json!({ "type": "object", "properties": { "a": { "type": "string" } } })));
}

#[test]
fn the_check_itself_is_cheap() {
    let deep = (0..5000).fold(json!({}), |inner, _| json!([inner]));
    assert!(refused(&deep).contains("64 deep"));
    // its own end would go down all of it
    std::mem::forget(deep);
    assert!(refused(&json!(vec![json!({ "$ref": "#" }); 201])).contains("201 `$ref`s"));
    let refer = |i: usize| json!({ "$ref": format!("#/$defs/p{}", i % 190) });
    let begun = Instant::now();
    for schema in [
        // cycles, with and without something beside them
        json!({ "allOf": [{ "$ref": "#" }, { "anyOf": [{ "$ref": "#" }, { "$ref": "#/allOf" }] }], "pattern": "a" }),
        json!({ "$ref": "#/$defs/p0", "$defs": numbered(190, |i| json!({ "allOf": [refer(i + 1)], "properties": { "x": {} } })) }),
        json!({ "allOf": [{ "$ref": "#/$defs/p0" }, { "$ref": "#/$defs/p1" }], "$defs": numbered(90, |i| {
            json!({ "properties": { "a": refer(i * 3 % 90), "b": refer((i * 5 + 1) % 90) } }) }) }),
        json!({ "anyOf": (0..1500).map(|i| json!({ "type": "object", "properties": { format!("x{i}"): { "pattern": "a" } } }))
            .collect::<Vec<_>>(), "properties": numbered(1500, |_| json!({})) }),
        json!({ "allOf": (0..1500).map(|_| json!({ "additionalProperties": { "pattern": "a" } })).collect::<Vec<_>>() }),
        json!({ "properties": numbered(3000, |_| json!({})), "patternProperties": numbered(1000, |_| json!({})) }),
        json!({ "properties": numbered(4000, |i| json!({ "pattern": format!("^[a-z]{i}") })) }),
        json!({ "allOf": (0..2000).map(|i| json!({ "$id": format!("u{i}"), "a": {} })).collect::<Vec<_>>(),
            "anyOf": vec![json!({ "$ref": "u1#/a" }); 199] }),
    ] {
        let _ = on_a_large_stack(|| check(&schema));
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[test]
fn what_people_write_passes() {
    passes(&json!({ "type": "string", "pattern": "^[a-z0-9_-]{3,32}$", "minLength": 3, "maxLength": 32 }));
    passes(&json!({ "type": "string", "pattern": r"^\+?[0-9 ()-]{5,20}$", "format": "unknown", "maxLength": 20 }));
    passes(&json!({ "allOf": patterns(3) }));
    for format in ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"] {
        passes(&json!({ "type": "string", "format": format, "pattern": "^[ -~]+$", "maxLength": 200 }));
    }
    let property =
        |i: usize| json!({ "type": "string", "pattern": format!("^x{i}-[A-Za-z0-9]+$"), "minLength": 4, "maxLength": 64 });
    passes(&json!({ "type": "object", "properties": numbered(400, property), "additionalProperties": false }));
    passes(&json!({ "type": "object", "properties": { "name": { "type": "string" } },
        "patternProperties": { "^x-": { "type": "string", "pattern": "^[a-z]+$" }, "^[0-9]+$": { "type": "integer" } },
        "additionalProperties": { "type": "string", "maxLength": 20 } }));
    passes(&json!({ "enum": (0..1500).map(|i| format!("value {i}")).collect::<Vec<_>>(), "type": "string", "maxLength": 40 }));
    passes(&json!({ "type": "string", "enum": (0..300).map(|i| format!("v{i}")).collect::<Vec<_>>(), "pattern": "^v[0-9]+$" }));
    // one of many kinds, each with patterns of its own
    let kind = |i: usize| {
        json!({ "type": "object", "properties": { "kind": { "const": format!("k{i}") },
            "name": { "type": "string", "pattern": format!("^{i}[a-z]+$") }, "when": { "type": "string", "format": "date-time" } },
            "required": ["kind", "name"], "additionalProperties": false })
    };
    passes(&json!({ "type": "array", "items": { "type": "object", "oneOf": (0..60).map(kind).collect::<Vec<_>>() } }));
    // a base and what extends it; a tree
    let base = json!({ "type": "object", "properties": { "id": { "type": "string", "format": "uuid" },
        "slug": { "type": "string", "pattern": "^[a-z]+(-[a-z]+)*$", "maxLength": 40 } }, "required": ["id"] });
    let page = json!({ "allOf": [{ "$ref": "#/$defs/base" }, { "type": "object", "properties": {
        "slug": { "type": "string", "minLength": 3 }, "parts": { "type": "array", "items": { "$ref": "#/$defs/page" } } } }] });
    passes(&json!({ "$ref": "#/$defs/page", "$defs": { "base": base, "page": page } }));
    // as an OpenAPI document has them
    let model = |_| {
        json!({ "type": "object", "properties": { "id": { "type": "string", "format": "uuid" },
            "email": { "type": "string", "format": "email", "maxLength": 254 }, "state": { "enum": ["on", "off"] },
            "name": { "anyOf": [{ "type": "string", "pattern": "^\\S+$", "maxLength": 80 }, { "type": "null" }] },
            "tags": { "type": "array", "items": { "type": "string", "pattern": "^[a-z-]+$" }, "maxItems": 20 } },
            "required": ["id"], "additionalProperties": false })
    };
    let uses = numbered(150, |i| json!({ "$ref": format!("#/$defs/p{}", i % 60) }));
    passes(&json!({ "type": "object", "properties": uses, "$defs": numbered(60, model) }));
}

#[test]
fn a_pattern_that_is_not_understood_is_left_to_llguidance_while_it_is_alone() {
    let alone = json!({ "type": "string", "pattern": "^(?=a)b" });
    assert_eq!(check(&alone), Ok(()));
    assert!(compiled(&alone).is_err());
    assert!(refused(&json!({ "allOf": [alone, { "pattern": "a" }] })).contains("`#`"));
}

fn part() -> impl Strategy<Value = Value> {
    let pattern = prop::sample::select(vec![
        ".*a.*", ".*b.{4}", "a.{12}$", "b.{20}", "^(a|b)*a(a|b){9}$", "^[a-z]+$", "([ab]x|[ac]y|[ad]z)+", r"\d+\.\w*",
        "(?i)[é-ü]+|a", "(a?b?c?d?){30}", r"^\S+@\S+$", r"(\p{L}|.a|[^b]c)*", "x",
    ]);
    let leaf = prop_oneof![
        4 => pattern.prop_map(|p| json!({ "type": "string", "pattern": p })),
        1 => Just(json!({ "type": "string", "format": "uri" })),
        1 => Just(json!({ "type": "string", "format": "date-time", "minLength": 3 })),
        1 => (0..9_u32, 9..300_u32).prop_map(|(a, b)| json!({ "minLength": a, "maxLength": b })),
        1 => Just(json!({ "enum": ["axb", "ab", "ba", 1, null, { "x": "ab" }] })),
        2 => (0..6_usize).prop_map(|i| json!({ "$ref": format!("#/$defs/p{i}") })),
        1 => Just(json!({ "multipleOf": 97, "minimum": 5 })),
    ];
    leaf.prop_recursive(4, 40, 7, |inner| {
        let name = prop::sample::select(vec!["x", "y", "xa"]);
        prop_oneof![
            4 => prop::collection::vec(inner.clone(), 1..7).prop_map(|all| json!({ "allOf": all })),
            1 => prop::collection::vec(inner.clone(), 1..7).prop_map(|any| json!({ "anyOf": any })),
            1 => prop::collection::vec(inner.clone(), 1..4).prop_map(|one| json!({ "oneOf": one })),
            1 => (name.clone(), inner.clone()).prop_map(|(n, p)| json!({ "type": "object", "properties": { n: p } })),
            1 => (name, inner.clone()).prop_map(|(n, p)| json!({ "type": "object", "patternProperties": { n: p, "^z.*a": true } })),
            1 => inner.clone().prop_map(|p| json!({ "type": "object", "additionalProperties": p })),
            1 => inner.prop_map(|p| json!({ "type": "array", "items": p })),
        ]
    })
}

proptest! {
    #[test]
    fn what_passes_is_compiled_soon(root in part(), definitions in prop::collection::vec(part(), 6)) {
        let schema = json!({ "allOf": [root], "$defs": numbered(6, |i| definitions[i].clone()) });
        if on_a_large_stack(|| check(&schema)).is_ok() {
            // that it cannot be compiled is an answer as well
            let _ = compiled(&schema);
        }
    }
}
