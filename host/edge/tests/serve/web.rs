//! A client of HTTP that knows nothing but bytes.

use std::collections::HashMap;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Running, within};

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The error object.
    pub(crate) fn error(&self) -> Value {
        self.json()["error"].take()
    }

    /// What its `data:` lines say; the last one may be no JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream; charset=utf-8");
        let events = self.body.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
        events.map(|event| serde_json::from_str(event).unwrap_or_else(|_| event.into())).collect()
    }
}

impl Running {
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, "", &body.to_string()).await
    }

    /// `headers` are lines that end with `\r\n`.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let mut stream = self.open(method, path, headers, body).await;
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()));
        Reply { status, headers: headers.collect(), body: body.to_owned() }
    }

    /// A connection on which a request was sent and nothing read. HTTP/1.0, so that the answer ends with the connection.
    pub(crate) async fn open(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let kind = if headers.to_ascii_lowercase().contains("content-type") { "" } else { "Content-Type: application/json\r\n" };
        let n_bytes = body.len();
        let request = format!("{method} {path} HTTP/1.0\r\nHost: test\r\n{kind}{headers}Content-Length: {n_bytes}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}
