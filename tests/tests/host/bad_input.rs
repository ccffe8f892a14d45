use futures::future::join_all;
use llambo_client::{Ask, Client, Code, Error};
use llambo_proto::v1;
use llambo_tests::Host;

use super::{SMALL, is_well, read};

fn told(error: &Error, code: Code, reason: &str, says: &str) {
    assert_eq!((error.code(), error.reason()), (code, reason), "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_its_code_and_nobody_else_is_disturbed() {
    let host = Host::start(SMALL);
    let client = host.client().await;
    let good = join_all((0..8).map(|i| client.infer(Ask::text("A trait is").max_tokens(60).seed(i))));
    let bad = async {
        let a = || Ask::text("A trait is").max_tokens(4);
        let invalid = Code::InvalidArgument;
        let nested = format!("{}{{}}{}", r#"{"properties":{"a":"#.repeat(40), "}}".repeat(40));
        let definitions: Vec<String> = (0..600).map(|i| format!(r##""d{i}": {{"$ref": "#/$defs/d{}"}}"##, i + 1)).collect();
        let chained =
            format!(r##"{{"$ref": "#/$defs/d0", "$defs": {{{}, "d600": {{"type": "null"}}}}}}"##, definitions.join(","));
        let cases = [
            (Ask::text(""), invalid, "INVALID_REQUEST", "empty"),
            (a().max_tokens(0), invalid, "INVALID_OPTION", "max_tokens"),
            (a().temperature(-1.0), invalid, "INVALID_OPTION", "temperature"),
            (a().temperature(f32::NAN), invalid, "INVALID_OPTION", "temperature"),
            (a().options(|o| o.top_p = Some(2.0)), invalid, "INVALID_OPTION", "top_p"),
            (
                a().options(|o| o.logit_bias.push(v1::LogitBias { token: 1 << 20, bias: 1.0 })),
                invalid,
                "INVALID_OPTION",
                "logit_bias",
            ),
            (a().options(|o| o.stop = vec![String::new()]), invalid, "INVALID_OPTION", "stop"),
            (a().json_schema("not a schema"), invalid, "INVALID_REQUEST", ""),
            (a().grammar("root ::= ("), invalid, "INVALID_REQUEST", ""),
            (a().json_schema(nested), invalid, "INVALID_REQUEST", "nested"),
            (a().json_schema(chained), invalid, "INVALID_REQUEST", "$ref"),
            (a().json_schema(r##"{"$ref": "#"}"##), invalid, "INVALID_REQUEST", ""),
            (
                a().grammar(format!("root ::= {}\"a\"{}", "(".repeat(3000), ")".repeat(3000))),
                invalid,
                "INVALID_REQUEST",
                "parentheses",
            ),
            (a().grammar("root ::= \"a\"{2,1}"), invalid, "INVALID_REQUEST", "repetition"),
            (
                a().grammar("root ::= b root \"x\" | \"y\"\nb ::= c\nc ::= | \"z\""),
                invalid,
                "INVALID_REQUEST",
                "begins with itself",
            ),
            (a().model("m".repeat(100_000)), Code::NotFound, "UNKNOWN_MODEL", "mmm..."),
            (Ask::chat([("robot", "hello")]), invalid, "INVALID_REQUEST", "robot"),
            (a().model("no-such-model"), Code::NotFound, "UNKNOWN_MODEL", "demo-small"),
            (a().node_type("no-such-type"), Code::NotFound, "UNKNOWN_TYPE", "tiny"),
            (Ask::text("word ".repeat(3000)), invalid, "PROMPT_TOO_LONG", "shorten"),
            (Ask::text("a".repeat(10 << 20)), invalid, "PROMPT_TOO_LONG", ""),
        ];
        for (ask, code, reason, says) in cases {
            told(&client.infer(ask).await.unwrap_err(), code, reason, says);
        }
    };
    let (good, ()) = futures::join!(good, bad);
    assert!(good.iter().all(Result::is_ok));
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_right_input_is_answered() {
    let host = Host::start(SMALL);
    let client = host.client().await;
    let odd = ["\u{fffd}\u{fffd}", "\0\u{1}\u{7f}", "🦙🏽\u{200d}", "\u{202e}abc", " ", "<|endoftext|>"];
    for prompt in odd {
        let answer = client.infer(Ask::text(prompt).max_tokens(4)).await;
        assert!(answer.is_ok(), "{prompt:?}: {answer:?}");
    }
    // the largest number there is: to the end of the context, or of the text
    let answer = client.infer(Ask::text("A trait is").max_tokens(u32::MAX).options(|o| o.ignore_eos = true)).await.unwrap();
    assert_eq!(answer.finish_reason, "length");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_size_limit_is_refused_and_the_connection_goes_on() {
    let host = Host::start(SMALL);
    let client = host.client().await;
    let error = client.infer(Ask::text("a".repeat(17 << 20))).await.unwrap_err();
    told(&error, Code::InvalidArgument, "INVALID_REQUEST", "network.max-request-size");
    is_well(&client).await;
    let deadline = Ask::text("A trait is").options(|o| o.ignore_eos = true).timeout(std::time::Duration::from_millis(30));
    let late = match client.generate(deadline).await {
        Ok(answer) => read(answer).await.unwrap_err(),
        Err(error) => error,
    };
    told(&late, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_port_is_told_apart_from_a_host() {
    let host = Host::start(SMALL);
    let error = Client::connect(&format!("http://{}", host.http())).await.unwrap().status().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.to_string().contains("speaks no gRPC"), "{error}");
    let metrics = host.llamboctl(&["metrics", "--http", host.grpc()]);
    let said = String::from_utf8_lossy(&metrics.stderr).into_owned();
    assert_eq!(metrics.status.code(), Some(69), "{said}");
    assert!(said.contains("no HTTP/1 server"), "{said}");
}
