//! Tokens, permissions, and what a tenant may have.

use std::{fmt::Write, fs, time::Duration};

use llambo_client::{Ask, Client, Code, Credentials, Error, Health, NodeFilter};
use llambo_edge::{Permission, TenantAccess};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use crate::harness::{Running, for_tenants, tenant};

const TOKEN: &str = "llambo_the-right-one";

fn told(error: &Error) -> (Code, &str) {
    (error.code(), error.reason())
}

async fn ask(client: &Client) -> Result<String, Error> {
    client.infer(Ask::text("one two").max_tokens(4)).await.map(|answer| answer.text)
}

#[tokio::test]
async fn a_request_without_the_right_token_is_refused_on_both_ports() {
    let host = Running::start(for_tenants(vec![tenant("acme", TOKEN, &[Permission::Infer])])).await;
    let nobody = host.client(&Credentials::default());
    let error = ask(&nobody).await.unwrap_err();
    assert_eq!(told(&error), (Code::Unauthenticated, "UNAUTHENTICATED"));
    assert!(error.to_string().contains("authorization: Bearer TOKEN"), "{error}");
    let wrong = ask(&host.with_token("llambo_wrong")).await.unwrap_err();
    assert_eq!(told(&wrong), (Code::Unauthenticated, "UNAUTHENTICATED"));
    assert!(!wrong.to_string().contains("llambo_wrong"), "{wrong}");
    assert!(!ask(&host.with_token(TOKEN)).await.unwrap().is_empty());
    assert_eq!(nobody.health("").await.unwrap(), Health::Serving);

    let none = host.get("/v1/models", "").await;
    assert!(none.starts_with("HTTP/1.1 401 ") && none.contains("www-authenticate: Bearer realm=\"llambo\"\r\n"), "{none}");
    let wrong = host.get("/v1/models", "Authorization: Bearer llambo_wrong\r\n").await;
    assert!(wrong.starts_with("HTTP/1.1 401 ") && wrong.contains("invalid_token"), "{wrong}");
    assert!(wrong.contains("\"code\":\"unauthenticated\"") && !wrong.contains("llambo_wrong"), "{wrong}");
    for probe in ["/livez", "/readyz"] {
        assert!(host.get(probe, "").await.starts_with("HTTP/1.1 200 "), "{probe}");
    }
    for file in ["/", "/page/page.js"] {
        assert!(host.get(file, "").await.starts_with("HTTP/1.1 200 "), "{file}");
    }
    for told in ["/cluster/watch?times=1", "/cluster/cells/0"] {
        assert!(host.get(told, "").await.starts_with("HTTP/1.1 401 "), "{told}");
        let without = host.get(told, &format!("Authorization: Bearer {TOKEN}\r\n")).await;
        assert!(without.starts_with("HTTP/1.1 403 ") && without.contains("`observe`"), "{without}");
    }
    let metrics = host.get("/metrics", &format!("Authorization: Bearer {TOKEN}\r\n")).await;
    assert!(metrics.starts_with("HTTP/1.1 403 ") && metrics.contains("not_permitted"), "{metrics}");
    assert!(host.get("/metrics", "").await.starts_with("HTTP/1.1 401 "));
    host.stop().await;
}

#[tokio::test]
async fn a_tenant_does_what_it_may_and_no_more() {
    let tenants = vec![
        tenant("app", "llambo_app", &[Permission::Infer]),
        tenant("eye", "llambo_eye", &[Permission::Observe]),
        tenant("hand", "llambo_hand", &[Permission::Operate]),
    ];
    let host = Running::start(for_tenants(tenants)).await;
    let [app, eye, hand] = ["llambo_app", "llambo_eye", "llambo_hand"].map(|token| host.with_token(token));
    let refused = (Code::PermissionDenied, "NOT_PERMITTED");
    for (client, name) in [(&app, "app"), (&eye, "eye")] {
        let error = client.spawn("small", 1).await.unwrap_err();
        assert_eq!(told(&error), refused);
        assert!(error.to_string().contains(&format!("tenant `{name}`")) && error.to_string().contains("`operate`"), "{error}");
    }
    assert_eq!(told(&ask(&eye).await.unwrap_err()), refused);
    assert_eq!(told(&app.status().await.unwrap_err()), refused);
    assert_eq!(told(&hand.policies().await.unwrap_err()), refused);
    assert!(ask(&app).await.is_ok());
    assert!(eye.status().await.is_ok() && hand.status().await.is_ok());
    assert_eq!(hand.spawn("small", 1).await.unwrap().spawned, 1);
    assert_eq!(eye.nodes(&NodeFilter::default()).await.unwrap().len(), 7);
    let metrics = host.get("/metrics", "Authorization: Bearer llambo_eye\r\n").await;
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    host.stop().await;
}

#[tokio::test]
async fn a_tenant_sees_and_asks_only_its_models_and_types() {
    let bound = TenantAccess {
        models: Some(vec!["one".into()]),
        types: Some(vec!["other".into(), "big".into()]),
        ..tenant("bound", "llambo_bound", &[Permission::Infer, Permission::Sessions, Permission::Tasks])
    };
    let host = Running::start(for_tenants(vec![bound, tenant("free", "llambo_free", &[Permission::Infer])])).await;
    let (bound, free) = (host.with_token("llambo_bound"), host.with_token("llambo_free"));
    let names = |models: Vec<llambo_client::Model>| {
        let mut names: Vec<_> = models.into_iter().map(|model| model.name).collect();
        names.sort();
        names
    };
    assert_eq!(names(bound.models().await.unwrap()), ["one"]);
    assert_eq!(names(free.models().await.unwrap()), ["one", "two"]);

    let refused = (Code::PermissionDenied, "NOT_PERMITTED");
    let error = bound.infer(Ask::text("x").model("two").max_tokens(1)).await.unwrap_err();
    assert_eq!(told(&error), refused);
    assert!(error.to_string().contains("may not ask model `two`; it may ask: `one`"), "{error}");
    assert_eq!(told(&bound.embed("two", vec!["x".into()]).await.unwrap_err()), refused);
    // what is not there is as good as forbidden: nothing of what is there is told
    assert_eq!(told(&bound.infer(Ask::text("x").model("three").max_tokens(1)).await.unwrap_err()), refused);
    assert_eq!(told(&bound.infer(Ask::text("x").node_type("small").max_tokens(1)).await.unwrap_err()), refused);
    // the same over HTTP
    for (path, body) in [
        ("/v1/embeddings", r#"{"input": "x", "model": "two"}"#),
        ("/v1/completions", r#"{"prompt": "x", "model": "two"}"#),
        ("/v2/sessions", r#"{"model": "two"}"#),
        ("/v2/sessions", r#"{"model": "three"}"#),
        ("/v2/sessions", r#"{"type": "small"}"#),
        ("/v2/tasks", r#"{"prompt": "x", "type": "small"}"#),
    ] {
        let answer = host.post(path, "llambo_bound", body).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("not_permitted"), "{path} {body}: {answer}");
        // only `three` may be named, which is what was asked for
        assert!(!answer.contains("`two`") || body.contains("two"), "{answer}");
    }
    let listed = host.get("/v1/models", "Authorization: Bearer llambo_bound\r\n").await;
    assert!(listed.contains(r#""id":"one""#) && !listed.contains("two"), "{listed}");
    assert!(host.get("/v1/models/two", "Authorization: Bearer llambo_bound\r\n").await.starts_with("HTTP/1.1 404 "));
    assert!(host.post("/v1/embeddings", "llambo_bound", r#"{"input": "x"}"#).await.starts_with("HTTP/1.1 200 "));
    for _ in 0..6 {
        // of its types, the one that serves the model
        let answer = bound.infer(Ask::text("x").max_tokens(1)).await.unwrap();
        assert!(answer.node.starts_with("big-"), "{}", answer.node);
    }
    assert!(free.infer(Ask::text("x").model("two").max_tokens(1)).await.is_ok());
    host.stop().await;
}

#[tokio::test]
async fn embeddings_count_as_requests_do() {
    let host = Running::start(for_tenants(vec![tenant("thrifty", "llambo_t", &[Permission::Infer])])).await;
    let client = host.with_token("llambo_t");
    client.embed("one", vec!["a b".into(), "c".into()]).await.unwrap();
    assert!(host.post("/v1/embeddings", "llambo_t", r#"{"input": "x"}"#).await.starts_with("HTTP/1.1 200 "));
    ask(&client).await.unwrap();
    let refused = client.embed("one", vec!["a".into()]).await.unwrap_err();
    assert_eq!(told(&refused), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
    let refused = host.post("/v1/embeddings", "llambo_t", r#"{"input": "x"}"#).await;
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("retry-after"), "{refused}");
    host.stop().await;
}

#[tokio::test]
async fn tokens_are_added_and_revoked_while_the_host_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let line = |token: &str| {
        Sha256::digest(token).iter().fold("sha256:".to_owned(), |mut line, byte| {
            write!(line, "{byte:02x}").unwrap();
            line
        })
    };
    fs::write(&path, line("llambo_first")).unwrap();
    let acme = TenantAccess { tokens: Vec::new(), tokens_file: Some(path.clone()), ..tenant("acme", "", &[Permission::Infer]) };
    let host = Running::start(for_tenants(vec![acme])).await;
    let (first, second) = (host.with_token("llambo_first"), host.with_token("llambo_second"));
    assert!(ask(&first).await.is_ok() && ask(&second).await.is_err());

    fs::write(&path, format!("{}\n{} # laptop\n", line("llambo_first"), line("llambo_second"))).unwrap();
    until(async || ask(&second).await.is_ok()).await;
    fs::write(&path, line("llambo_second")).unwrap();
    until(async || ask(&first).await.is_err()).await;
    assert_eq!(told(&ask(&first).await.unwrap_err()), (Code::Unauthenticated, "UNAUTHENTICATED"));
    assert!(ask(&second).await.is_ok());
    host.stop().await;
}

/// Waits until it is so.
pub(crate) async fn until(so: impl AsyncFn() -> bool) {
    let begin = Instant::now();
    while !so().await {
        assert!(begin.elapsed() < Duration::from_secs(15), "it did not come about");
        sleep(Duration::from_millis(100)).await;
    }
}
