//! Stop strings, grammars, schemas and biases.

use llambo_inference::{Constraint, FinishReason, LogitBias};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_ends_the_text_before_it() {
    let engine = small();
    let (whole, _) = run(&engine, "The value of a variable", Sampling::greedy(40)).await;
    let stop: String = whole.chars().skip(12).take(5).collect();
    let sampling = Sampling { stop: vec![stop.clone()], ..Sampling::greedy(40) };
    let (text, finished) = run(&engine, "The value of a variable", sampling).await;
    assert_eq!(text, whole.split(&stop).next().unwrap());
    assert_eq!(finished.reason, FinishReason::Stop);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_makes_valid_json_of_any_sampling() {
    let engine = small();
    let schema = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "kind": {"enum": ["struct", "trait"]},
        "size": {"type": "integer", "minimum": 0, "maximum": 999}}, "required": ["name", "kind", "size"], "additionalProperties": false}"#;
    for seed in 0..5 {
        let constraint = Some(Constraint::JsonSchema(schema.into()));
        let sampling = Sampling { constraint, seed: Some(seed), max_tokens: Some(200), temperature: 1.0, ..Sampling::default() };
        let (text, finished) = run(&engine, "Describe a type as JSON:", sampling).await;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(["struct", "trait"].contains(&value["kind"].as_str().unwrap()), "{text}");
        assert!(value["size"].as_u64().unwrap() <= 999 && value["name"].is_string(), "{text}");
        assert_eq!(finished.reason, FinishReason::Stop);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grammar_allows_nothing_else() {
    let engine = small();
    let grammar = r#"root ::= ("yes" | "no") " " [0-9] [0-9]"#;
    for seed in 0..5 {
        let constraint = Some(Constraint::Gbnf(grammar.into()));
        let sampling = Sampling { constraint, seed: Some(seed), temperature: 1.5, max_tokens: Some(50), ..Sampling::default() };
        let (text, finished) = run(&engine, "Is it so?", sampling).await;
        let (word, number) = text.split_once(' ').unwrap();
        assert!(["yes", "no"].contains(&word) && number.len() == 2 && number.parse::<u8>().is_ok(), "{text}");
        assert_eq!(finished.reason, FinishReason::Stop);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grammar_of_endless_ways_holds_up_nobody() {
    let engine = small();
    let constrained = |grammar: &str, seed| {
        let constraint = Some(Constraint::Gbnf(grammar.into()));
        let sampling = Sampling { constraint, seed: Some(seed), temperature: 1.0, max_tokens: Some(60), ..Sampling::default() };
        read(engine.submit(ask("x", sampling)).unwrap())
    };
    let optional = |n: usize| format!("root ::= \"a\" {}", "[ab]? ".repeat(n));
    let attacks = async {
        // ways that go on alike are one: whether these end or are given up depends on what is written
        let many = [
            "root ::= e\ne ::= . e | . e \"b\" | . e \"c\" | .",
            "root ::= s\ns ::= . s s | . s | . s \"a\" | . s \"b\" s | .",
            "root ::= (\"-\" | \"-\" | \" \" | \" \"){1000} \"b\"",
            "root ::= \"a\"? \"a\"? \"a\"? [a-z]* [a-z]* [a-z ]* [^A]* .*",
            &optional(400),
        ];
        for (grammar, seed) in many.into_iter().zip(0..) {
            match constrained(grammar, seed).await {
                Ok(_) => {}
                Err(InferenceError::InvalidRequest(why)) => assert!(why.contains("too many ways"), "{why}"),
                Err(other) => panic!("{other}: {grammar:.40}"),
            }
        }
        // no vocabulary makes this one small
        let error = constrained(&optional(20_000), 0).await.unwrap_err();
        assert!(matches!(&error, InferenceError::InvalidRequest(why) if why.contains("too many ways")), "{error}");
    };
    let beside = read(engine.submit(ask("The value of a variable", Sampling::greedy(200))).unwrap());
    let (beside, ()) = tokio::join!(beside, attacks);
    beside.unwrap();
    run(&engine, "x", Sampling::greedy(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_cannot_be_read_is_the_clients_mistake() {
    let engine = small();
    let broken = [
        Constraint::Gbnf("root ::= (".into()),
        Constraint::Gbnf("start ::= \"a\"".into()),
        Constraint::JsonSchema("{not json".into()),
        Constraint::JsonSchema(r#"{"type": "no such type"}"#.into()),
    ];
    for constraint in broken {
        let refused = engine.submit(ask("x", Sampling { constraint: Some(constraint.clone()), ..Sampling::greedy(5) })).err();
        assert!(matches!(refused, Some(InferenceError::InvalidRequest(_))), "{constraint:?}: {refused:?}");
    }
    run(&engine, "x", Sampling::greedy(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_token_does_not_come() {
    let engine = small();
    let (with, _) = run(&engine, "The", Sampling::greedy(1)).await;
    let mut bias: Vec<LogitBias> = Vec::new();
    // forbid what comes first, again and again: each time something else must come
    let vocabulary = Builtin::DemoSmall.unpack().unwrap();
    let entries = vocabulary.header().text_list("tokenizer.ggml.tokens").unwrap();
    let id = entries.iter().position(|e| e.replace('Ġ', " ").replace('Ċ', "\n") == with).expect("a plain token");
    bias.push(LogitBias { token: u32::try_from(id).unwrap(), bias: -100.0 });
    let (without, _) = run(&engine, "The", Sampling { logit_bias: bias, ..Sampling::greedy(1) }).await;
    assert_ne!(with, without);
}
