//! Texts held as tokens: going on with them, forks, cuts, masks, and how likely they are.

use futures::future::join_all;
use llambo_inference::{ExtendRequest, Mask, MeasureRequest, TokenId, TokenLog};

use super::*;

fn extend(tokens: &[TokenId], sampling: Sampling, mask: Option<Mask>) -> (ExtendRequest, TokenLog) {
    let log = TokenLog::default();
    let request = ExtendRequest {
        id: "branch".into(),
        tokens: tokens.to_vec(),
        sampling,
        mask,
        share: Share::default(),
        deadline: None,
        log: log.clone(),
    };
    (request, log)
}

fn tokens(log: &TokenLog) -> Vec<TokenId> {
    log.from(0, usize::MAX).into_iter().map(|logged| logged.token).collect()
}

async fn grown(engine: &LlamaEngine, tokens: &[TokenId], n: u32, mask: Option<Mask>) -> (Vec<TokenId>, Finished) {
    let (request, log) = extend(tokens, Sampling { ignore_eos: true, ..Sampling::greedy(n) }, mask);
    let (_, finished) = read(engine.extend(request).unwrap()).await.unwrap();
    (self::tokens(&log), finished)
}

fn measure(tokens: &[TokenId], n_given: usize, n_top: usize) -> MeasureRequest {
    MeasureRequest { id: "measure".into(), tokens: tokens.to_vec(), n_given, n_top, share: Share::default(), deadline: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn going_on_with_tokens_says_what_going_on_with_the_text_says() {
    let engine = small();
    let sampling = Sampling { ignore_eos: true, ..Sampling::greedy(24) };
    let (text, _) = run(&engine, "A closure is", sampling).await;
    let prompt = engine.tokens(&Prompt::Text("A closure is".into())).unwrap();
    let (tokens, finished) = grown(&engine, &prompt, 24, None).await;
    assert_eq!(String::from_utf8_lossy(&engine.bytes_of(&tokens)), text);
    assert_eq!((tokens.len(), finished.usage.input_tokens as usize), (24, prompt.len()));
    // cut in the middle and gone on with, alone and as one of many forks: the same again
    let cut = [&prompt[..], &tokens[..10]].concat();
    let forks = join_all((0..8).map(|_| grown(&engine, &cut, 14, None))).await;
    for (rest, finished) in forks {
        assert_eq!(rest, tokens[10..]);
        assert!(finished.usage.cached_tokens as usize + 16 >= cut.len(), "{finished:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_measured_is_what_greedy_would_take_and_adds_up() {
    let engine = small();
    let prompt = engine.tokens(&Prompt::Text("The borrow checker".into())).unwrap();
    let (tokens, _) = grown(&engine, &prompt, 12, None).await;
    let whole = [&prompt[..], &tokens[..]].concat();
    let measured = engine.measure(measure(&whole, prompt.len(), 3)).await.unwrap();
    assert_eq!((measured.logprobs.len(), measured.next.top.len()), (12, 3));
    let (next, _) = grown(&engine, &whole, 1, None).await;
    assert_eq!(measured.next.top[0].0, next[0]);
    assert!(measured.next.entropy > 0.0 && measured.next.entropy < (engine.info().n_vocab as f32).ln());
    // step by step it is the same: each token is the likeliest, with the same probability
    for (n, logprob) in measured.logprobs.iter().enumerate() {
        let step = engine.measure(measure(&whole[..prompt.len() + n], prompt.len() + n, 1)).await.unwrap();
        let (token, alone) = step.next.top[0];
        assert_eq!((token, step.logprobs.len()), (tokens[n], 0));
        assert!((alone - logprob).abs() < 1e-2, "{alone} and {logprob} for token {n}");
    }
    // and it was told when they were chosen, whatever the sampler did to them
    let sampling = Sampling { ignore_eos: true, repeat_penalty: 1.3, temperature: 2.0, seed: Some(7), ..Sampling::greedy(12) };
    let (mut request, _) = extend(&prompt, sampling, None);
    request.log = TokenLog::with_logprobs(0);
    let log = request.log.clone();
    read(engine.extend(request).unwrap()).await.unwrap();
    let whole = [&prompt[..], &self::tokens(&log)[..]].concat();
    let measured = engine.measure(measure(&whole, prompt.len(), 0)).await.unwrap();
    for (logged, logprob) in log.from(0, 12).iter().zip(&measured.logprobs) {
        assert!((logged.logprob - logprob).abs() < 1e-2, "{logged:?} and {logprob}");
    }
    // all probabilities together are 1
    let all = engine.measure(measure(&prompt, prompt.len(), usize::MAX)).await.unwrap().next;
    let total: f32 = all.top.iter().map(|(_, logprob)| logprob.exp()).sum();
    let entropy: f32 = all.top.iter().map(|(_, logprob)| -logprob.exp() * logprob).sum();
    assert!((total - 1.0).abs() < 1e-3 && (entropy - all.entropy).abs() < 1e-2, "{total} {entropy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_is_measured_in_many_calls_and_beside_others() {
    let engine = engine_with(Builtin::DemoSmall, |settings| settings.n_context = Some(1024));
    let text = "A string slice borrows a part of a string, and an iterator gives one item after the other. ".repeat(24);
    let tokens = engine.tokens(&Prompt::Text(text)).unwrap();
    assert!(tokens.len() > 400, "{}", tokens.len());
    let beside = engine.submit(ask("Run", Sampling { ignore_eos: true, ..Sampling::greedy(200) })).unwrap();
    let asked = [1, tokens.len() / 2, tokens.len() - 1].map(|n_given| engine.measure(measure(&tokens, n_given, 1)));
    let (measured, beside) = tokio::join!(join_all(asked), read(beside));
    assert_eq!(beside.unwrap().1.usage.output_tokens, 200);
    let measured: Vec<_> = measured.into_iter().map(Result::unwrap).collect();
    for (one, n_given) in measured.iter().zip([1, tokens.len() / 2, tokens.len() - 1]) {
        assert_eq!(one.logprobs.len(), tokens.len() - n_given);
        // the text repeats itself, so its end is easier than its beginning
        let whole = &measured[0].logprobs[n_given - 1..];
        let apart = one.logprobs.iter().zip(whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 0.05, "{apart} apart from {n_given} on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_holds_whatever_the_model_would_rather_say() {
    let engine = small();
    let prompt = engine.tokens(&Prompt::Text("A vector".into())).unwrap();
    let (free, _) = grown(&engine, &prompt, 1, None).await;
    let others: Vec<TokenId> = engine.tokens_within(" yes no").unwrap();
    let (only, _) = grown(&engine, &prompt, 5, Some(Mask::Only(others.clone()))).await;
    assert!(only.iter().all(|token| others.contains(token)) && only.len() == 5, "{only:?}");
    let (without, _) = grown(&engine, &prompt, 1, Some(Mask::Without(free.clone()))).await;
    assert_ne!(without, free);
    // with nothing left there is no next token
    let (request, _) = extend(&prompt, Sampling::greedy(1), Some(Mask::Only(Vec::new())));
    let error = read(engine.extend(request).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("can follow"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_within_another_gets_no_beginning() {
    let engine = small();
    let whole = engine.tokens(&Prompt::Text("A vector is a list".into())).unwrap();
    let mut joined = engine.tokens(&Prompt::Text("A vector".into())).unwrap();
    joined.extend(engine.tokens_within(" is a list").unwrap());
    assert_eq!(joined, whole);
    assert_eq!(engine.bytes_of(&engine.tokens_within("x\u{1f980}").unwrap()), "x\u{1f980}".as_bytes());
    assert!(engine.tokens_within("").unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_cannot_be_are_refused() {
    let engine = small();
    let n_vocab = engine.info().n_vocab;
    let refused = |tokens: &[TokenId]| engine.extend(extend(tokens, Sampling::greedy(1), None).0).err().unwrap().to_string();
    assert!(refused(&[]).contains("there are no tokens"));
    assert!(refused(&[n_vocab]).contains(&format!("no token {n_vocab}")));
    assert!(refused(&vec![5; 512]).contains("has 512 tokens"));
    for (tokens, n_given) in [(&[][..], 0), (&[5][..], 0), (&[5][..], 2), (&[u32::MAX][..], 1)] {
        let error = engine.measure(measure(tokens, n_given, 1)).await.unwrap_err();
        assert!(matches!(error, InferenceError::InvalidRequest(_)), "{error}");
    }
    // all of the context may be measured: nothing is added to it
    assert_eq!(engine.measure(measure(&vec![5; 512], 1, 0)).await.unwrap().logprobs.len(), 511);
}
