//! What is measured. Each figure is "how many times as good as the other", so that more is always better.

use std::{path::PathBuf, thread, time::Duration};

use llambo_tests::Host;
use tokio::runtime::Runtime;

use crate::{
    Args, alone,
    load::{Ask, Run, words},
    peer::{LlamaServer, batched_bench},
    target::Target,
};

/// Tokens of prompt and answer together.
const CONTEXT: u32 = 1024;

/// About 512 tokens of a vocabulary without many whole words.
const PROMPT_WORDS: usize = 280;

/// What all scenarios share.
pub(crate) struct Setting {
    pub(crate) model: String,
    pub(crate) path: PathBuf,
    pub(crate) n_threads: u32,
    pub(crate) pairs: u32,
    draft: Option<String>,
    llama_server: Option<PathBuf>,
    batched_bench: Option<PathBuf>,
}

/// One figure.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What it cannot be measured without.
    pub(crate) needs: &'static str,
    /// What both sides' numbers are in.
    pub(crate) unit: &'static str,
    pub(crate) run: fn(&Setting, &Runtime) -> Option<Vec<Pair>>,
}

/// Two runs, one right after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    pub(crate) ratio: f64,
}

const SERVER: &str = "--peer-llama-server";

pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "engine-decode-64",
        about: "decoding 64 sequences, the engine alone; llama-batched-bench",
        needs: "--peer-batched-bench",
        unit: "tokens/s",
        run: engine_decode,
    },
    Scenario {
        name: "clients-32",
        about: "32 streaming clients through gRPC and isolates; llama-server",
        needs: SERVER,
        unit: "tokens/s",
        run: |setting, runtime| clients(setting, runtime, 32),
    },
    Scenario {
        name: "clients-64",
        about: "64 streaming clients through gRPC and isolates; llama-server",
        needs: SERVER,
        unit: "tokens/s",
        run: |setting, runtime| clients(setting, runtime, 64),
    },
    Scenario {
        name: "ragged-32",
        about: "32 clients with answers of 8 to 96 tokens and pauses; llama-server",
        needs: SERVER,
        unit: "tokens/s",
        run: |setting, runtime| ragged(setting, runtime, Run::tokens_per_second, |ours, theirs| ours / theirs),
    },
    Scenario {
        name: "ragged-32-first-token",
        about: "the same, median time to the first token; llama-server",
        needs: SERVER,
        unit: "s",
        run: |setting, runtime| ragged(setting, runtime, Run::first_token_p50, |ours, theirs| theirs / ours),
    },
    Scenario {
        name: "wasm-tax-64",
        about: "64 streams through isolates; the same engine without guests",
        needs: "nothing",
        unit: "tokens/s",
        run: |setting, runtime| Some(wasm_tax(setting, runtime)),
    },
    Scenario {
        name: "draft-1",
        about: "one stream with a draft model (--draft) that is used where it pays; the same without",
        needs: "--draft",
        unit: "tokens/s",
        run: draft,
    },
    Scenario {
        name: "shared-prompt-64",
        about: "64 isolates with one new 512-token system prompt, time to the last first token; llama-server",
        needs: SERVER,
        unit: "s",
        run: shared_prompt,
    },
    Scenario {
        name: "best-of-8",
        about: "the guest best-of writes 8 answers of 32 tokens to one new 512-token prompt and gives the likeliest; 8 requests to llama-server",
        needs: SERVER,
        unit: "s",
        run: best_of_8,
    },
    Scenario {
        name: "stall-long-prompt",
        about: "longest time between two tokens of 8 streams while a prompt as long as the context allows comes in; llama-server",
        needs: SERVER,
        unit: "s",
        run: stall,
    },
    Scenario {
        name: "wake-256",
        about: "waking a parked conversation of 256 tokens; computing it again",
        needs: "nothing",
        unit: "s",
        run: |setting, runtime| Some(wake(setting, runtime)),
    },
];

// === impl Setting ===

impl Setting {
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            model: args.model.clone(),
            path: alone::file(&args.model).path().to_owned(),
            n_threads: u32::try_from(thread::available_parallelism().map_or(1, std::num::NonZero::get)).unwrap_or(1),
            pairs: args.pairs,
            draft: args.draft.clone(),
            llama_server: args.peer_llama_server.clone(),
            batched_bench: args.peer_batched_bench.clone(),
        }
    }

    fn server(&self, n: u32) -> Option<(LlamaServer, Target)> {
        let server = LlamaServer::start(self.llama_server.as_ref()?, &self.path, n, CONTEXT, self.n_threads);
        let target = Target::LlamaServer { address: server.address.clone() };
        Some((server, target))
    }

    fn host(&self, runtime: &Runtime, n: u32) -> (Host, Target) {
        let host = Host::start(&alone::config(&self.path, n, CONTEXT, self.n_threads));
        let target = Target::Host(runtime.block_on(host.client()));
        (host, target)
    }

    /// Runs in turns, after one of each that is not counted.
    fn pairs(
        &self,
        mut ours: impl FnMut(u64) -> f64,
        mut theirs: impl FnMut(u64) -> f64,
        ratio: fn(f64, f64) -> f64,
    ) -> Vec<Pair> {
        let mut one = |seed: u64| {
            // who goes first changes, so that whoever comes second has no advantage
            let (a, b) = if seed.is_multiple_of(2) {
                let a = ours(seed);
                (a, theirs(seed))
            } else {
                let b = theirs(seed);
                (ours(seed), b)
            };
            Pair { ours: a, theirs: b, ratio: ratio(a, b) }
        };
        one(0);
        (1..=u64::from(self.pairs)).map(one).collect()
    }
}

fn ask(prompt: String, max_tokens: u32) -> Ask {
    Ask { prompt, max_tokens, temperature: 0.0, seed: 1, think: Duration::ZERO, node_type: "tiny" }
}

/// `n` clients that ask `n_asks` times for `n_tokens` each, always something new.
fn steady(seed: u64, n: u32, n_asks: u32, n_tokens: u32) -> Vec<Vec<Ask>> {
    let one = |client: u32, i: u32| ask(words(seed << 32 | u64::from(client << 8 | i), 24), n_tokens);
    (0..n).map(|client| (0..n_asks).map(|i| one(client, i)).collect()).collect()
}

fn engine_decode(setting: &Setting, runtime: &Runtime) -> Option<Vec<Pair>> {
    const TOKENS: u32 = 128;
    let program = setting.batched_bench.as_ref()?;
    // the peer's cache holds exactly what it computes
    let engine = Target::Engine(alone::engine(&setting.model, 64, 256, setting.n_threads));
    let clients = |seed: u64| (0u64..64).map(|i| vec![ask(words(seed << 32 | i, 48), TOKENS)]).collect();
    Some(setting.pairs(
        |seed| runtime.block_on(Run::of(&engine, clients(seed))).decode_per_second(),
        |_| batched_bench(program, &setting.path, 64, TOKENS, setting.n_threads),
        |ours, theirs| ours / theirs,
    ))
}

fn clients(setting: &Setting, runtime: &Runtime, n: u32) -> Option<Vec<Pair>> {
    let (_server, theirs) = setting.server(n)?;
    let (_host, ours) = setting.host(runtime, n);
    let run = |target: &Target, seed| runtime.block_on(Run::of(target, steady(seed, n, 4, 64))).tokens_per_second();
    Some(setting.pairs(|seed| run(&ours, seed), |seed| run(&theirs, seed), |ours, theirs| ours / theirs))
}

fn ragged(setting: &Setting, runtime: &Runtime, figure: fn(&Run) -> f64, ratio: fn(f64, f64) -> f64) -> Option<Vec<Pair>> {
    let (_server, theirs) = setting.server(32)?;
    let (_host, ours) = setting.host(runtime, 32);
    let clients = |seed: u64| {
        let mut clients = steady(seed, 32, 6, 0);
        for (i, ask) in (0u64..).zip(clients.iter_mut().flatten()) {
            let dice = words(seed << 32 | i << 8, 8).bytes().fold(i, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
            ask.max_tokens = 8 + u32::try_from(dice % 89).unwrap();
            ask.think = Duration::from_millis(dice / 89 % 300);
        }
        clients
    };
    let run = |target: &Target, seed| figure(&runtime.block_on(Run::of(target, clients(seed))));
    Some(setting.pairs(|seed| run(&ours, seed), |seed| run(&theirs, seed), ratio))
}

fn wasm_tax(setting: &Setting, runtime: &Runtime) -> Vec<Pair> {
    let engine = alone::engine(&setting.model, 64, CONTEXT, setting.n_threads);
    let isolates = runtime.block_on(alone::isolates(engine.clone(), 64));
    let engine = Target::Engine(engine);
    let run = |target: &Target, seed, who: u64| {
        runtime.block_on(Run::of(target, steady(seed << 1 | who, 64, 4, 64))).tokens_per_second()
    };
    setting.pairs(|seed| run(&isolates, seed, 0), |seed| run(&engine, seed, 1), |with, without| with / without)
}

fn draft(setting: &Setting, runtime: &Runtime) -> Option<Vec<Pair>> {
    let with = alone::engine_with(&setting.model, 1, CONTEXT, setting.n_threads, Some(setting.draft.as_ref()?));
    let without = alone::engine(&setting.model, 1, CONTEXT, setting.n_threads);
    let (with, without) = (Target::Engine(with), Target::Engine(without));
    let run = |target: &Target, seed| runtime.block_on(Run::of(target, steady(seed, 1, 2, 400))).tokens_per_second();
    Some(setting.pairs(|seed| run(&with, seed), |seed| run(&without, seed), |with, without| with / without))
}

fn shared_prompt(setting: &Setting, runtime: &Runtime) -> Option<Vec<Pair>> {
    let (_server, theirs) = setting.server(64)?;
    let (_host, ours) = setting.host(runtime, 64);
    let clients = |seed: u64| {
        let system = words(seed, PROMPT_WORDS);
        (0u64..64).map(|i| vec![ask(format!("{system}. {}", words(seed << 8 | i, 6)), 4)]).collect()
    };
    let run = |target: &Target, seed| runtime.block_on(Run::of(target, clients(seed))).last_first_token();
    Some(setting.pairs(|seed| run(&ours, seed), |seed| run(&theirs, seed), |ours, theirs| theirs / ours))
}

fn best_of_8(setting: &Setting, runtime: &Runtime) -> Option<Vec<Pair>> {
    let (_server, theirs) = setting.server(8)?;
    let (_host, ours) = setting.host(runtime, 8);
    let ask = |seed: u64, i| Ask { temperature: 0.8, seed: i, ..ask(words(seed, PROMPT_WORDS), 32) };
    let run = |target: &Target, asks| runtime.block_on(Run::of(target, asks)).wall.as_secs_f64();
    Some(setting.pairs(
        |seed| run(&ours, vec![vec![Ask { node_type: "best", ..ask(seed, 0) }]]),
        |seed| run(&theirs, (0..8).map(|i| vec![ask(seed, i)]).collect()),
        |ours, theirs| theirs / ours,
    ))
}

fn stall(setting: &Setting, runtime: &Runtime) -> Option<Vec<Pair>> {
    const STREAMED: u32 = 160;
    let n_context = alone::file(&setting.model).header().context_length().min(4096);
    let theirs = LlamaServer::start(setting.llama_server.as_ref()?, &setting.path, 9, n_context, setting.n_threads);
    let theirs_target = Target::LlamaServer { address: theirs.address.clone() };
    let host = Host::start(&alone::config(&setting.path, 9, n_context, setting.n_threads));
    let ours = Target::Host(runtime.block_on(host.client()));
    // words are two tokens at most
    let n_words = (n_context / 2 - 64) as usize;
    let clients = |seed: u64| {
        let mut clients: Vec<Vec<Ask>> = (0u64..8).map(|i| vec![ask(words(seed << 8 | i, 16), STREAMED)]).collect();
        clients.push(vec![Ask { think: Duration::from_millis(200), ..ask(words(seed << 8 | 9, n_words), 4) }]);
        clients
    };
    let run = |target: &Target, seed| runtime.block_on(Run::of(target, clients(seed))).longest_gap(STREAMED);
    Some(setting.pairs(|seed| run(&ours, seed), |seed| run(&theirs_target, seed), |ours, theirs| theirs / ours))
}

/// Times to the first token, less that of a conversation whose keys and values are still in their stream.
fn wake(setting: &Setting, runtime: &Runtime) -> Vec<Pair> {
    let engine = Target::Engine(alone::engine(&setting.model, 4, CONTEXT, setting.n_threads));
    let first = |prompt: &str| {
        let run = runtime.block_on(Run::of(&engine, vec![vec![ask(prompt.to_owned(), 1)]]));
        run.first_token_p50()
    };
    // enough conversations of others to need every stream
    let displace = |seed: u64| {
        let others = (0..8).map(|i| vec![ask(words((seed << 16) | (i + 1), 64), 2)]).collect();
        runtime.block_on(Run::of(&engine, others));
    };
    let mut pairs = Vec::new();
    for seed in 0..=u64::from(setting.pairs) {
        let prompt = words(0xa11 << 20 | seed, 256);
        let cold = first(&prompt);
        let live = (0..9).map(|_| first(&prompt)).fold(f64::INFINITY, f64::min);
        let mut woken: Vec<f64> = (0..9)
            .map(|i| {
                displace(seed << 8 | i);
                first(&prompt)
            })
            .collect();
        woken.sort_by(f64::total_cmp);
        let (woken, computed) = ((woken[4] - live).max(1e-6), cold - live);
        pairs.push(Pair { ours: woken, theirs: computed, ratio: computed / woken });
    }
    pairs.remove(0);
    pairs
}
