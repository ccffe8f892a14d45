//! A server over HTTP/1.1 that does what a test tells it to, also what no server should.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// How many were asked before it.
    pub(crate) number: usize,
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The line is cut after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Nothing more is said then, and the line stays open.
    pub(crate) hangs: bool,
    pub(crate) length: Length,
}

/// What `Content-Length` says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Length {
    #[default]
    Truth,
    Lie(usize),
    Nothing,
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    _task: JoinSet<()>,
}

impl Told {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name.into(), format!("{value}")));
        self
    }

    /// A file as a good server sends it.
    pub(crate) fn file(asked: &Asked, file: &[u8], etag: &str) -> Self {
        let told = Self::status(200).with("etag", format!("\"{etag}\"")).with("accept-ranges", "bytes");
        let if_range = asked.headers.get("if-range").is_none_or(|wanted| *wanted == format!("\"{etag}\""));
        match asked.from().filter(|_| if_range) {
            None => Self { body: file.to_vec(), ..told },
            Some(from) if from >= file.len() => {
                Self { status: 416, ..told.with("content-range", format!("bytes */{}", file.len())) }
            }
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", file.len() - 1, file.len());
                Self { status: 206, body: file[from..].to_vec(), ..told.with("content-range", range) }
            }
        }
    }

    pub(crate) fn cut_after(self, n_bytes: usize) -> Self {
        Self { cut: Some(n_bytes), ..self }
    }
}

impl Asked {
    /// The first byte of the range.
    pub(crate) fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&asked));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                connections.spawn(async move { serve(stream, answer.as_ref(), &seen).await });
            }
        });
        Self { addr, asked, _task: task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request on each connection.
async fn serve(mut stream: TcpStream, answer: &(impl Fn(&Asked) -> Told + Sync), seen: &Mutex<Vec<Asked>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let asked = {
        let mut seen = seen.lock().unwrap();
        let asked = Asked { method, path, headers, number: seen.len() };
        seen.push(asked.clone());
        asked
    };
    let told = answer(&asked);
    let mut text = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", told.status);
    for (name, value) in &told.headers {
        text += &[name, ": ", value, "\r\n"].concat();
    }
    let length = match told.length {
        Length::Truth => Some(told.body.len()),
        Length::Lie(length) => Some(length),
        Length::Nothing => None,
    };
    text += &length.map_or_else(String::new, |length| format!("content-length: {length}\r\n"));
    text.push_str("\r\n");
    let body =
        if asked.method == "HEAD" { &[][..] } else { &told.body[..told.cut.unwrap_or(told.body.len()).min(told.body.len())] };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.write_all(body).await;
    if told.hangs {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}
