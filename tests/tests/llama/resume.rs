//! A generation that goes on behind its log says what it would have said.

use llambo_inference::{Constraint, ExtendRequest, Logged, TokenLog};

use super::*;

/// What is generated, with the tokens that it was made of.
async fn whole(engine: &LlamaEngine, prompt: &str, sampling: &Sampling, log: TokenLog) -> (String, Finished, Vec<Logged>) {
    let request = GenerateRequest { log: Some(log.clone()), ..ask(prompt, sampling.clone()) };
    let (text, finished) = read(engine.submit(request).unwrap()).await.unwrap();
    (text, finished, log.from(0, usize::MAX))
}

fn holding(tokens: &[Logged]) -> TokenLog {
    let log = TokenLog::default();
    for logged in tokens {
        log.push(logged.clone());
    }
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_from_any_token_as_if_it_had_never_been_interrupted() {
    let engine = small();
    let schema =
        r#"{"type":"object","properties":{"a":{"type":"string","maxLength":12},"b":{"type":"integer"}},"required":["a","b"]}"#;
    let seeded = |seed| Sampling { seed: Some(seed), max_tokens: Some(24), temperature: 1.2, ..Sampling::default() };
    // within the answer, so that it is met in the middle
    let (free, _, _) = whole(&engine, "A trait is", &seeded(3), TokenLog::default()).await;
    let stop: String = free.chars().skip(free.chars().count() / 2).take(4).collect();
    let cases = [
        ("greedy", Sampling::greedy(24)),
        ("seed and penalties", Sampling { presence_penalty: 1.0, frequency_penalty: 0.5, ..seeded(7) }),
        ("a schema", Sampling { constraint: Some(Constraint::JsonSchema(schema.into())), max_tokens: Some(64), ..seeded(11) }),
        ("a grammar", Sampling { constraint: Some(Constraint::Gbnf("root ::= [a-z ]+ \".\"".into())), ..seeded(5) }),
        ("a stop string", Sampling { stop: vec![stop, "zzz".into()], ..seeded(3) }),
        ("to the end of the context", Sampling { max_tokens: None, ignore_eos: true, ..seeded(9) }),
    ];
    for (what, sampling) in cases {
        let (text, finished, tokens) = whole(&engine, "A trait is", &sampling, TokenLog::default()).await;
        assert!(tokens.len() > 3, "{what}: {text:?}");
        let places = [0, 1, tokens.len() / 2, tokens.len() - 1, tokens.len()];
        for n in places {
            let (again, ended, logged) = whole(&engine, "A trait is", &sampling, holding(&tokens[..n])).await;
            assert_eq!(again, text, "{what}, from token {n}");
            assert_eq!(logged, tokens, "{what}, from token {n}");
            assert_eq!((ended.reason, ended.usage.output_tokens), (finished.reason, finished.usage.output_tokens), "{what}");
            assert_eq!(ended.usage.input_tokens, finished.usage.input_tokens, "{what}: what it said is no prompt");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_goes_on_behind_its_log_as_well() {
    let engine = small();
    let tokens = engine.tokens(&Prompt::Text("A trait is".into())).unwrap();
    let sampling = Sampling { seed: Some(4), max_tokens: Some(16), ..Sampling::default() };
    let grow = async |log: TokenLog| {
        let (id, share) = ("test".into(), Share::default());
        let request = ExtendRequest {
            id,
            tokens: tokens.clone(),
            sampling: sampling.clone(),
            mask: None,
            share,
            deadline: None,
            log: log.clone(),
        };
        let (text, _) = read(engine.extend(request).unwrap()).await.unwrap();
        (text, log.from(0, usize::MAX))
    };
    let (text, logged) = grow(TokenLog::default()).await;
    assert_eq!(grow(holding(&logged[..5])).await, (text, logged));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_likeliest_tokens_are_told_beside_each() {
    let engine = small();
    let log = TokenLog::with_logprobs(3);
    let (_, _, tokens) = whole(&engine, "A trait is", &Sampling::greedy(8), log).await;
    for Logged { token, logprob, top } in tokens {
        assert_eq!(top.len(), 3);
        assert_eq!((top[0].0, top[0].1.to_bits()), (token, logprob.to_bits()), "the likeliest is taken");
        assert!(top.windows(2).all(|pair| pair[0].1 >= pair[1].1) && logprob < 0.0, "{top:?}");
    }
}
