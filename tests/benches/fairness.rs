//! Who gets what when there is not enough for all: `cargo bench --workspace --bench fairness -- --svg FILE`.
//!
//! Two tenants of a whole host, of weights 3 and 1. Each has more clients than there are places, and they ask again as soon as they have their answer; those of the smaller
//! tenant send long prompts. First the large one is alone, then both are there, then the small one alone. Once with few places in the queue, so that the
//! queue decides whose turn it is, and once with places for all, so that the model's batch does. What a tenant got is counted as the host counts it: a token that
//! was generated is one, and one of a prompt that had to be computed an eighth.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has nothing to report")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench speaks to whoever started it")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times and counts of a run, small and positive")]

use std::{
    fmt::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use futures::{StreamExt, future::join_all};
use llambo_client::{Ask, Client, Credentials, Event};
use llambo_tests::Host;
use sha2::{Digest, Sha256};

/// More than there are places.
const CLIENTS: usize = 24;
const TOKENS: u32 = 64;
const LONG: &str =
    "The compiler checks every reference that a program makes while it runs through its functions and modules, and ";
/// As the host counts tokens of prompts.
const PROMPT_PARTS: f64 = 8.0;
/// Of the picture, in seconds.
const BIN: f64 = 0.5;

const SETTINGS: [(&str, &str); 2] = [
    ("the queue decides: 8 places", "queue: {max-in-flight: 8}\nmodels: [{path: builtin:demo-small, sequences: 32}]"),
    ("the batch decides: places for all, 8 sequences", "models: [{path: builtin:demo-small, sequences: 8}]"),
];

#[derive(Debug, Parser)]
struct Args {
    /// Seconds in which one tenant is alone; both are there twice as long
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Draw what came out into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

struct Tenant {
    name: &'static str,
    weight: u32,
    /// Times that `LONG` stands before each question.
    n_long: usize,
    /// When it is there, in parts of four.
    there: [f64; 2],
}

const TENANTS: [Tenant; 2] = [
    Tenant { name: "large", weight: 3, n_long: 0, there: [0.0, 3.0] },
    Tenant { name: "small", weight: 1, n_long: 6, there: [1.0, 4.0] },
];

/// What a tenant got: when, and how much.
#[derive(Default)]
struct Got {
    parts: Vec<(f64, f64)>,
    n_answers: usize,
    n_failed: usize,
}

impl Tenant {
    fn token(&self) -> String {
        format!("llambo_bench_{}", self.name)
    }

    fn config(&self) -> String {
        let hash: String = Sha256::digest(self.token()).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        format!("  {}: {{weight: {}, tokens: [\"sha256:{hash}\"]}}\n", self.name, self.weight)
    }

    async fn run(&self, host: &Host, began: Instant, quarter: f64) -> Got {
        let credentials = Credentials::default().token(&self.token()).unwrap();
        let until = began + Duration::from_secs_f64(self.there[1] * quarter);
        tokio::time::sleep_until((began + Duration::from_secs_f64(self.there[0] * quarter)).into()).await;
        let n_asked = Arc::new(AtomicUsize::new(0));
        let clients = (0..CLIENTS).map(|_| {
            let (address, credentials, n_asked) = (host.grpc().to_owned(), credentials.clone(), Arc::clone(&n_asked));
            async move {
                let client = Client::connect_with(&address, &credentials).await.unwrap();
                let mut got = Got::default();
                while Instant::now() < until {
                    let n = n_asked.fetch_add(1, Ordering::Relaxed);
                    // no two begin alike, so that nothing of a prompt is there already
                    let prompt = format!("Number {n} of {}. {}A trait is", self.name, LONG.repeat(self.n_long));
                    got.ask(&client, &prompt, began).await;
                }
                got
            }
        });
        let mut all = Got::default();
        for got in join_all(clients).await {
            all.parts.extend(got.parts);
            all.n_answers += got.n_answers;
            all.n_failed += got.n_failed;
        }
        all
    }
}

impl Got {
    async fn ask(&mut self, client: &Client, prompt: &str, began: Instant) {
        let ask = Ask::text(prompt).max_tokens(TOKENS).options(|options| options.ignore_eos = true);
        let Ok(mut events) = client.generate(ask).await else {
            self.n_failed += 1;
            return;
        };
        let (mut first, mut n_failed) = (None, 1);
        while let Some(event) = events.next().await {
            let now = began.elapsed().as_secs_f64();
            match event {
                Ok(Event::Piece(_)) => {
                    first.get_or_insert(now);
                    self.parts.push((now, 1.0));
                }
                Ok(Event::Finished(end)) => {
                    let usage = end.usage.unwrap_or_default();
                    let computed = usage.input_tokens.saturating_sub(usage.cached_tokens);
                    self.parts.push((first.unwrap_or(now), f64::from(computed) / PROMPT_PARTS));
                    (self.n_answers, n_failed) = (self.n_answers + 1, 0);
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.n_failed += n_failed;
    }

    /// Between two times, for each second.
    fn rate(&self, from: f64, to: f64) -> f64 {
        self.parts.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, cost)| cost).sum::<f64>() / (to - from)
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let quarter = args.seconds;
    let mut panels = Vec::new();
    println!(
        "two tenants, weights 3 and 1, {CLIENTS} clients each; cost = generated tokens + computed prompt tokens / {PROMPT_PARTS}"
    );
    for (name, config) in SETTINGS {
        let tenants: String = TENANTS.iter().map(Tenant::config).collect();
        let host = Host::start(&format!("{config}\ntypes: {{tiny: {{count: 64}}}}\ntenants:\n{tenants}"));
        let began = Instant::now();
        let all = join_all(TENANTS.iter().map(|tenant| tenant.run(&host, began, quarter))).await;
        // who has just come fills its places first
        let (from, to) = (1.25 * quarter, 3.0 * quarter);
        let [large, small] = &all[..] else { unreachable!() };
        println!("\n{name}");
        for (tenant, got) in TENANTS.iter().zip(&all) {
            println!(
                "  {:<6} weight {}: {:>6} answers, {} failed; together with the other one {:>7.1} a second, alone {:>7.1}",
                tenant.name,
                tenant.weight,
                got.n_answers,
                got.n_failed,
                got.rate(from, to),
                if tenant.weight == 3 { got.rate(0.0, quarter) } else { got.rate(3.25 * quarter, 4.0 * quarter) }
            );
        }
        println!("  ratio  {:.2} : 1 (weights: 3 : 1)", large.rate(from, to) / small.rate(from, to));
        panels.push((name, all));
    }
    if let Some(path) = args.svg {
        std::fs::write(&path, to_svg(&panels, quarter)).unwrap_or_else(|e| panic!("cannot write `{}`: {e}", path.display()));
    }
}

fn to_svg(panels: &[(&str, Vec<Got>)], quarter: f64) -> String {
    const WIDTH: f64 = 640.0;
    const ROW: f64 = 210.0;
    const LEFT: f64 = 56.0;
    const COLOURS: [&str; 2] = ["#2f6f9f", "#b4583a"];
    let height = ROW * panels.len() as f64 + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (n, (name, all)) in panels.iter().enumerate() {
        let (top, bottom) = (ROW * n as f64 + 34.0, ROW * (n + 1) as f64 - 14.0);
        let bins = (4.0 * quarter / BIN) as usize;
        let rates: Vec<Vec<f64>> =
            all.iter().map(|got| (0..bins).map(|i| got.rate(i as f64 * BIN, (i + 1) as f64 * BIN)).collect()).collect();
        let highest = rates.iter().flatten().fold(1.0f64, |a, b| a.max(*b));
        let x = |seconds: f64| LEFT + (WIDTH - LEFT - 16.0) * seconds / (4.0 * quarter);
        let y = |rate: f64| bottom - (bottom - top) * rate / highest;
        let _ = writeln!(svg, "<text x=\"8\" y=\"{:.0}\" font-weight=\"bold\">{name}</text>", top - 16.0);
        for part in [0.0, 0.5, 1.0] {
            let at = y(highest * part);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>",
                WIDTH - 16.0,
                LEFT - 6.0,
                at + 4.0,
                highest * part
            );
        }
        for ((tenant, rates), colour) in TENANTS.iter().zip(&rates).zip(COLOURS) {
            let mut points = String::new();
            for (i, rate) in rates.iter().enumerate() {
                let _ = write!(points, "{:.1},{:.1} ", x((i as f64 + 0.5) * BIN), y(*rate));
            }
            let at = x((tenant.there[0] + 0.1) * quarter);
            let _ = writeln!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
                 <text x=\"{at:.0}\" y=\"{:.0}\" fill=\"{colour}\">{}, weight {}{}</text>",
                top - 2.0,
                tenant.name,
                tenant.weight,
                if tenant.n_long > 0 { ", long prompts" } else { "" }
            );
        }
    }
    let _ = writeln!(
        svg,
        "<text x=\"8\" y=\"{:.0}\" fill=\"#8a8a8a\">what each tenant got a second, over {:.0} s: generated tokens, and an eighth of a computed prompt token</text>\n</svg>",
        height - 8.0,
        4.0 * quarter
    );
    svg
}
