//! Whoever answers: a host, an engine in this process with and without guests, llama-server.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use llambo_client::{Client, Event};
use llambo_inference::{
    AnswerEvent, AnswerStream, GenerateRequest, InferenceEngine, ModelName, Node, Priority, Prompt, Sampling, Share,
};
use llambo_isolate::Isolate;
use llambo_llama::LlamaEngine;
use tokio::net::TcpStream;

use crate::load::{Answer, Ask};

pub(crate) enum Target {
    Host(Client),
    Engine(Arc<LlamaEngine>),
    /// Those that are idle.
    Isolates(Mutex<Vec<Arc<Isolate>>>),
    LlamaServer {
        address: String,
    },
}

// === impl Target ===

impl Target {
    pub(crate) async fn ask(&self, ask: &Ask) -> Answer {
        let started = Instant::now();
        let mut times = Vec::new();
        let (first, n_tokens) = match self {
            Self::Host(client) => host(client, ask, &mut times).await,
            Self::Engine(engine) => read(engine.submit(request(ask, &engine.info().name)).unwrap(), &mut times).await,
            Self::Isolates(idle) => {
                let isolate = idle.lock().unwrap().pop().unwrap();
                let told = read(isolate.generate(request(ask, &isolate.view().model)).await.unwrap(), &mut times).await;
                idle.lock().unwrap().push(isolate);
                told
            }
            Self::LlamaServer { address } => llama_server(address, ask, &mut times).await,
        };
        Answer { started, first: first.unwrap_or_else(Instant::now), ended: Instant::now(), n_tokens, times }
    }
}

fn request(ask: &Ask, model: &ModelName) -> GenerateRequest {
    GenerateRequest {
        id: "bench".into(),
        model: model.clone(),
        node_type: None,
        prompt: Prompt::Text(ask.prompt.clone()),
        sampling: Sampling {
            temperature: ask.temperature,
            seed: Some(ask.seed),
            ignore_eos: true,
            ..Sampling::greedy(ask.max_tokens)
        },
        share: Share::default(),
        deadline: None,
        routing: llambo_inference::Routing::default(),
        priority: Priority::default(),
        journal: None,
        log: None,
    }
}

async fn host(client: &Client, ask: &Ask, times: &mut Vec<Instant>) -> (Option<Instant>, u32) {
    let wire = llambo_client::Ask::text(&ask.prompt).node_type(ask.node_type).options(|options| {
        options.max_tokens = Some(ask.max_tokens);
        options.temperature = Some(ask.temperature);
        options.repeat_penalty = Some(1.0);
        options.seed = Some(ask.seed);
        options.ignore_eos = true;
    });
    let mut events = client.generate(wire).await.unwrap();
    let mut n_tokens = 0;
    while let Some(event) = events.next().await {
        match event.unwrap() {
            Event::Piece(piece) => times.extend((0..piece.n_tokens).map(|_| Instant::now())),
            Event::Finished(finished) => n_tokens = finished.usage.unwrap_or_default().output_tokens,
            Event::Started(_) => {}
        }
    }
    (times.first().copied(), n_tokens)
}

async fn read(mut events: AnswerStream, times: &mut Vec<Instant>) -> (Option<Instant>, u32) {
    let mut n_answered = 0;
    while let Some(event) = events.next().await {
        match event.unwrap() {
            AnswerEvent::Piece { n_tokens, .. } => times.extend((0..n_tokens).map(|_| Instant::now())),
            AnswerEvent::Finished(finished) => n_answered = finished.usage.output_tokens,
        }
    }
    (times.first().copied(), n_answered)
}

/// One streamed completion. Looks into the events only as far as it must, so that the client takes little from the server.
async fn llama_server(address: &str, ask: &Ask, times: &mut Vec<Instant>) -> (Option<Instant>, u32) {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let body = serde_json::json!({
        "prompt": ask.prompt, "n_predict": ask.max_tokens, "temperature": ask.temperature, "seed": ask.seed, "stream": true,
        "ignore_eos": true, "repeat_penalty": 1.0, "top_k": 40, "top_p": 0.95, "min_p": 0.05,
    });
    let request = Request::post("/completion")
        .header(header::HOST, address)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert!(response.status().is_success(), "llama-server answered {}", response.status());
    let mut body = response.into_body();
    let mut last = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.unwrap().into_data() {
            // nearly always one token
            times.push(Instant::now());
            // the last event alone has the count; it may come in two frames
            if last.len() > 1 << 16 {
                last.drain(..1 << 15);
            }
            last.extend_from_slice(&data);
        }
    }
    connection.abort();
    let text = String::from_utf8_lossy(&last);
    let count = text.rfind("\"tokens_predicted\":").map(|at| &text[at + 19..]).unwrap_or_default();
    let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
    (times.first().copied(), digits.parse().expect("llama-server says how many tokens it predicted"))
}
