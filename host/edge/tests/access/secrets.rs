//! What must never be in a log.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, OnceLock},
};

use futures::TryStreamExt;
use llambo_client::{Ask, Credentials};
use llambo_edge::Permission;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::{Running, for_tenants, tenant};

const PROMPT: &str = "marzipan-prompt-marker";
/// The fake model says `word1 word2 ...`.
const ANSWER: &str = "word2";
const TOKEN: &str = "llambo_marzipan-token-marker";
const WRONG: &str = "llambo_marzipan-wrong-marker";

/// Everything that is logged, kept.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).with_ansi(false);
        lines.init();
        log
    })
}

#[tokio::test]
async fn no_prompt_no_answer_and_no_token_is_logged_at_any_level() {
    let log = log();
    let host = Running::start(for_tenants(vec![tenant("acme", TOKEN, &[Permission::Infer])])).await;
    let client = host.with_token(TOKEN);
    let asked = || Ask::user(PROMPT).max_tokens(4);
    let answer = client.infer(asked()).await.unwrap();
    assert!(answer.text.contains(ANSWER), "{}", answer.text);
    let events: Vec<_> = client.generate(asked()).await.unwrap().try_collect().await.unwrap();
    assert!(events.len() > 2);
    client.embed("one", vec![PROMPT.into()]).await.unwrap();
    assert!(client.infer(asked().temperature(99.0)).await.is_err());
    assert!(client.infer(asked().node_type("none")).await.is_err());
    assert!(host.client(&Credentials::default().token(WRONG).unwrap()).infer(asked()).await.is_err());
    for token in [TOKEN, WRONG] {
        host.get("/v1/models", &format!("Authorization: Bearer {token}\r\n")).await;
        host.get("/metrics", &format!("Authorization: {token}\r\n")).await;
    }
    host.stop().await;

    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("TRACE") && text.contains("not let in"), "the log is {} bytes long", text.len());
    for secret in [PROMPT, ANSWER, TOKEN, WRONG, "marzipan"] {
        let line = text.lines().find(|line| line.contains(secret)).unwrap_or_default();
        assert!(line.is_empty(), "`{secret}` is in: {line}");
    }
}
