//! Those who ask: patient ones, and ones that go away, hurry, or read slowly.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, future::join_all};
use llambo_client::{Ask, Client, Error, Event};
use llambo_tests::Host;

use crate::web;

/// Prompts with what follows them when nothing is in the way.
pub(crate) struct Expected(Vec<(String, String)>);

/// What became of requests.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) finished: usize,
    /// Gone by its own choice.
    pub(crate) cancelled: usize,
    /// Its own deadline passed.
    pub(crate) late: usize,
    /// Refused or ended with a reason that is to be expected, by it.
    pub(crate) refused: BTreeMap<String, usize>,
    /// What must not happen.
    pub(crate) wrong: Vec<String>,
}

pub(crate) const TOKENS: u32 = 24;
const SUBJECTS: [&str; 16] = [
    "A trait is", "Ownership is", "The borrow checker", "An iterator", "A closure", "The compiler", "A vector", "A string slice",
    "Pattern matching", "A lifetime", "The standard library", "A crate", "A module", "An enum", "A macro", "Error handling",
];
/// What a request may be told while nodes fail all the time and the queue is full: after as many attempts as there are, its last node's reason.
const REASONS: [&str; 4] = ["QUEUE_FULL", "GUEST_TRAP", "STOPPED", "NO_NODE"];

// === impl Expected ===

impl Expected {
    /// Asks each alone and all together, and keeps those that do not depend on the company they are in.
    pub(crate) async fn learn(client: &Client) -> Self {
        let ask = |subject: &str| client.infer(Self::ask(subject)).map(|answer| answer.unwrap().text);
        let together = join_all(SUBJECTS.iter().map(|subject| ask(subject))).await;
        let mut all = Vec::new();
        for (subject, text) in SUBJECTS.iter().zip(together) {
            if ask(subject).await == text {
                all.push(((*subject).to_owned(), text));
            }
        }
        assert!(all.len() > 8, "{} of {} texts are the same in any company", all.len(), SUBJECTS.len());
        Self(all)
    }

    /// They still are what they were.
    pub(crate) async fn hold(&self, client: &Client) {
        for (subject, text) in &self.0 {
            assert_eq!(client.infer(Self::ask(subject)).await.unwrap().text, *text);
        }
    }

    pub(crate) fn ask(subject: &str) -> Ask {
        Ask::text(subject).max_tokens(TOKENS).temperature(0.0).options(|options| options.repeat_penalty = Some(1.0))
    }

    fn nth(&self, n: usize) -> &(String, String) {
        &self.0[n % self.0.len()]
    }
}

// === impl Tally ===

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.finished += other.finished;
        self.cancelled += other.cancelled;
        self.late += other.late;
        for (reason, n) in &other.refused {
            *self.refused.entry(reason.clone()).or_default() += n;
        }
        self.wrong.extend(other.wrong.iter().cloned());
    }

    pub(crate) fn text(&mut self, told: &str, (subject, text): &(String, String)) {
        if told == text {
            self.finished += 1;
        } else {
            self.wrong.push(format!("{subject:?} was answered {told:?} instead of {text:?}"));
        }
    }

    fn error(&mut self, error: &Error, is_hurried: bool) {
        self.reason(error.reason(), error, is_hurried);
    }

    pub(crate) fn reason(&mut self, reason: &str, told: &impl fmt::Display, is_hurried: bool) {
        match reason {
            "DEADLINE_EXCEEDED" if is_hurried => self.late += 1,
            reason if REASONS.contains(&reason) => *self.refused.entry(reason.to_owned()).or_default() += 1,
            reason => self.wrong.push(format!("{reason}: {told}")),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { finished, cancelled, late, refused, wrong } = self;
        write!(f, "{finished} finished, {cancelled} cancelled, {late} late, {} wrong, refused {refused:?}", wrong.len())
    }
}

/// A little chance without a generator: different for each client and each of its requests.
pub(crate) fn dice(seed: usize, n: usize) -> usize {
    let mut x = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    usize::try_from((x >> 33) & 0xffff).unwrap_or(0)
}

/// Each kind of client, a few of each, until the time is over.
pub(crate) fn all(
    host: &Host,
    n: usize,
    expected: &Arc<Expected>,
    until: Instant,
) -> Vec<BoxFuture<'static, (&'static str, Tally)>> {
    let kinds: [(&str, Kind); 9] = [
        ("streams", Kind::Patient),
        ("whole answers, batch", Kind::Batch),
        ("cancels", Kind::Fickle),
        ("deadlines", Kind::Hurried),
        ("slow readers", Kind::Slow),
        ("HTTP streams", Kind::Web(web::Kind::Streams)),
        ("HTTP whole answers", Kind::Web(web::Kind::Whole)),
        ("HTTP disconnects", Kind::Web(web::Kind::HangsUp)),
        ("tasks", Kind::Web(web::Kind::Tasks)),
    ];
    kinds
        .into_iter()
        .map(|(name, kind)| {
            let (expected, grpc, http) = (Arc::clone(expected), host.grpc().to_owned(), host.http().parse().unwrap());
            async move {
                let workers = (0..n).map(|seed| {
                    let (expected, grpc) = (Arc::clone(&expected), grpc.clone());
                    let work = async move {
                        let client = Client::connect(&grpc).await.unwrap();
                        Worker { client, http, kind, seed, expected }.work(until).await
                    };
                    tokio::spawn(work).map(Result::unwrap)
                });
                let mut all = Tally::default();
                for tally in join_all(workers).await {
                    all.add(&tally);
                }
                (name, all)
            }
            .boxed()
        })
        .collect()
}

#[derive(Clone, Copy)]
enum Kind {
    Patient,
    Batch,
    Fickle,
    Hurried,
    Slow,
    Web(web::Kind),
}

struct Worker {
    client: Client,
    http: SocketAddr,
    kind: Kind,
    seed: usize,
    expected: Arc<Expected>,
}

impl Worker {
    async fn work(self, until: Instant) -> Tally {
        let mut tally = Tally::default();
        for n in 0.. {
            if Instant::now() >= until {
                break;
            }
            self.one(dice(self.seed, n), self.expected.nth(self.seed + n), &mut tally).await;
            // who is refused does not come back at once
            tokio::time::sleep(Duration::from_millis(20 + dice(self.seed, n + 1) as u64 % 60)).await;
        }
        tally
    }

    async fn one(&self, dice: usize, wanted: &(String, String), tally: &mut Tally) {
        let Self { client, kind, .. } = self;
        let ask = Expected::ask(&wanted.0);
        match *kind {
            Kind::Batch => match client.infer(ask.batch()).await {
                Ok(answer) => tally.text(&answer.text, wanted),
                Err(error) => tally.error(&error, false),
            },
            Kind::Hurried => match client.infer(ask.timeout(Duration::from_millis(1 + dice as u64 % 300))).await {
                Ok(answer) => tally.text(&answer.text, wanted),
                Err(error) => tally.error(&error, true),
            },
            Kind::Patient => stream(client, ask, Reads::All, wanted, tally).await,
            Kind::Fickle => stream(client, ask, Reads::Some(dice % 8), wanted, tally).await,
            Kind::Slow => stream(client, ask, Reads::Slowly, wanted, tally).await,
            Kind::Web(kind) => web::one(self.http, kind, dice, wanted, tally).await,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Reads {
    All,
    Slowly,
    Some(usize),
}

async fn stream(client: &Client, ask: Ask, reads: Reads, wanted: &(String, String), tally: &mut Tally) {
    let mut events = match client.generate(ask).await {
        Ok(events) => events,
        Err(error) => return tally.error(&error, false),
    };
    let (mut text, mut n_ends) = (String::new(), 0);
    for n_read in 0.. {
        if reads == Reads::Some(n_read) {
            tally.cancelled += 1;
            return;
        }
        match events.next().await {
            Some(Ok(Event::Started(_))) => {}
            Some(Ok(Event::Piece(piece))) => text.push_str(&piece.text),
            Some(Ok(Event::Finished(_))) => n_ends += 1,
            Some(Err(error)) => return tally.error(&error, false),
            None => break,
        }
        if reads == Reads::Slowly {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    if n_ends == 1 {
        tally.text(&text, wanted);
    } else {
        tally.wrong.push(format!("{n_ends} ends of {text:?}"));
    }
}
