//! HTTP as plain as it gets: one request for each connection, and what comes back, also when it breaks off.

use std::{io, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
};

/// Status and body of an answer that is JSON; `None` when the connection broke off before its end.
pub async fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let n = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {n}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
}

/// Server-sent events of an answer. Dropping it closes the connection.
pub struct Events {
    /// As the server told it. Anything but 200 comes with one line, that of the error.
    pub status: u16,
    lines: Lines<BufReader<TcpStream>>,
}

/// One of them. What was not told is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its `event`.
    pub name: String,
    /// Its `id`.
    pub id: String,
    /// Its `data`, which the host tells in one line.
    pub data: String,
}

impl Events {
    /// Asks for them. `headers` are whole lines with their ends.
    ///
    /// # Errors
    /// The connection failed before there was an answer.
    pub async fn open(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let n = body.len();
        // HTTP/1.0 has no chunks: lines come as they are
        let head = format!("{method} {path} HTTP/1.0\r\nHost: test\r\nContent-Length: {n}\r\n{headers}\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut lines = BufReader::new(stream).lines();
        let none = || io::Error::other("the connection ended before there was an answer");
        let status = lines.next_line().await?.ok_or_else(none)?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(none)?;
        while !lines.next_line().await?.ok_or_else(none)?.is_empty() {}
        Ok(Self { status, lines })
    }

    /// The next whole event; `None` at the end.
    ///
    /// # Errors
    /// The connection broke off.
    pub async fn next(&mut self) -> io::Result<Option<Event>> {
        let mut event = Event::default();
        while let Some(line) = self.lines.next_line().await? {
            match line.split_once(": ") {
                Some(("event", value)) => value.clone_into(&mut event.name),
                Some(("id", value)) => value.clone_into(&mut event.id),
                Some(("data", value)) => value.clone_into(&mut event.data),
                _ if line.is_empty() && event != Event::default() => return Ok(Some(event)),
                _ => {}
            }
        }
        // an event counts once it is whole
        Ok(None)
    }

    /// What is left as JSON: the body of an error.
    ///
    /// # Errors
    /// The connection broke off, or that is not JSON.
    pub async fn error(mut self) -> io::Result<Value> {
        let mut text = String::new();
        while let Some(line) = self.lines.next_line().await? {
            text.push_str(&line);
        }
        Ok(serde_json::from_str(&text)?)
    }
}
