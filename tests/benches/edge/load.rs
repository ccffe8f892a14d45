//! Clients: some that wait for each answer, and some that ask when it is time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use llambo_proto::v1::{
    GenerateRequest, SamplingOptions, generate_request::Prompt, generate_response::Event, inference_client::InferenceClient,
};
use llambo_tests::rehearsal::{Rehearsal, words};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rustix::{
    fs::Timespec,
    thread::{ClockId, clock_nanosleep_absolute},
    time::clock_gettime,
};
use tokio::{runtime::Runtime, sync::mpsc};
use tonic::transport::{Channel, Endpoint};

const CONNECTIONS: usize = 8;
/// Requests under way in closed loop.
const CLIENTS: usize = 64;
const N_TOKENS: u32 = 8;
const PROMPT_BYTES: usize = 200;
/// Of each run, and not counted.
const WARM_UP: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    /// Answered with one message.
    Infer,
    /// Answered with ten: the start, eight tokens, the end.
    Generate,
}

/// Connections to one server.
pub(crate) struct Load {
    server: Rehearsal,
    runtime: Runtime,
    connections: Vec<InferenceClient<Channel>>,
}

/// What one run showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) requests_per_second: f64,
    /// Of the server.
    pub(crate) cpu_us_per_request: f64,
    /// Milliseconds, in open loop.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Load {
    pub(crate) fn on(server: Rehearsal) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let connect = async {
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS {
                let endpoint = Endpoint::from_shared(server.grpc().to_owned()).unwrap().tcp_nodelay(true);
                connections.push(InferenceClient::new(endpoint.connect().await.unwrap()));
            }
            connections
        };
        let connections = runtime.block_on(connect);
        Self { server, runtime, connections }
    }

    /// Everybody asks again as soon as the answer is there.
    pub(crate) fn closed(&self, call: Call, seconds: f64) -> Run {
        let (counts, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let n_done = Arc::new(AtomicUsize::new(0));
        self.runtime.block_on(async {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|i| {
                    let mut client = self.connections[i % CONNECTIONS].clone();
                    let (counts, stop, n_done) = (Arc::clone(&counts), Arc::clone(&stop), Arc::clone(&n_done));
                    tokio::spawn(async move {
                        while !stop.load(Ordering::Relaxed) {
                            ask(&mut client, call).await;
                            n_done.fetch_add(usize::from(counts.load(Ordering::Relaxed)), Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            tokio::time::sleep(WARM_UP).await;
            let (cpu, began) = (self.server.cpu_time(), Instant::now());
            counts.store(true, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            let (n, wall) = (n_done.load(Ordering::Relaxed) as f64, began.elapsed());
            let cpu = self.server.cpu_time().saturating_sub(cpu);
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.await.unwrap();
            }
            let cpu_us_per_request = cpu.as_secs_f64() * 1e6 / n;
            Run { requests_per_second: n / wall.as_secs_f64(), cpu_us_per_request, p50: 0.0, p99: 0.0, p999: 0.0 }
        })
    }

    /// Requests come at random, so many a second on average, whether or not those before have been answered.
    pub(crate) fn open(&self, call: Call, rate: f64, seconds: f64) -> Run {
        let n_warm = (rate * WARM_UP.as_secs_f64()) as usize;
        let n = n_warm + (rate * seconds) as usize;
        let (told, mut latencies) = mpsc::channel(n);
        let cpu = self.server.cpu_time();
        let began = Instant::now();
        // a thread of its own: a runtime's timers are a millisecond apart
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Pcg64Mcg::seed_from_u64(1);
                let (mut due, zero) = (0.0, now());
                for i in 0..n {
                    due += -(1.0 - random.random::<f64>()).ln() / rate;
                    let at = zero + Duration::from_secs_f64(due);
                    sleep_until(at);
                    let mut client = self.connections[i % CONNECTIONS].clone();
                    let told = told.clone();
                    self.runtime.spawn(async move {
                        ask(&mut client, call).await;
                        let late = now().saturating_sub(at);
                        told.try_send((i, late)).unwrap();
                    });
                }
            });
        });
        drop(told);
        let mut times: Vec<Duration> = Vec::with_capacity(n);
        while let Some((i, late)) = latencies.blocking_recv() {
            if i >= n_warm {
                times.push(late);
            }
        }
        let (wall, cpu) = (began.elapsed(), self.server.cpu_time().saturating_sub(cpu));
        times.sort_unstable();
        let at = |part: f64| times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e3;
        Run {
            requests_per_second: n as f64 / wall.as_secs_f64(),
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / n as f64,
            p50: at(0.50),
            p99: at(0.99),
            p999: at(0.999),
        }
    }
}

/// Since some moment in the past.
fn now() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    Duration::new(tv_sec.try_into().unwrap(), tv_nsec.try_into().unwrap())
}

fn sleep_until(at: Duration) {
    let at = Timespec { tv_sec: at.as_secs().try_into().unwrap(), tv_nsec: at.subsec_nanos().into() };
    while clock_nanosleep_absolute(ClockId::Monotonic, &at).is_err() {}
}

async fn ask(client: &mut InferenceClient<Channel>, call: Call) {
    let options = SamplingOptions { max_tokens: Some(N_TOKENS), temperature: Some(0.0), ..SamplingOptions::default() };
    let prompt = Some(Prompt::Text("x".repeat(PROMPT_BYTES)));
    let request = GenerateRequest { prompt, options: Some(options), ..GenerateRequest::default() };
    let mut text = String::new();
    match call {
        Call::Infer => text = client.infer(request).await.unwrap().into_inner().text,
        Call::Generate => {
            let mut messages = client.generate(request).await.unwrap().into_inner();
            while let Some(message) = messages.message().await.unwrap() {
                if let Some(Event::Piece(piece)) = message.event {
                    text.push_str(&piece.text);
                }
            }
        }
    }
    assert_eq!(text, words(N_TOKENS));
}
