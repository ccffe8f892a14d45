//! What is known of the host, made into rows that can be sorted.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use llambo_client::{Node, StatusResponse, Totals};

use super::feed::News;
use crate::output;

/// Rates that are kept, for the picture of tokens over time.
const HISTORY: usize = 240;

/// What the table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Nodes,
    Types,
    Models,
}

/// A cell: what is shown, and what it is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    /// Largest first.
    Number(f64, String),
}

/// What happens in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) requests: f64,
    pub(super) failed: f64,
    pub(super) rejected: f64,
    pub(super) input_tokens: f64,
    pub(super) output_tokens: f64,
}

/// Nodes of one type or model, put together.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    nodes: u32,
    in_flight: u32,
    served: u64,
    served_before: u64,
    memory: u64,
    failures: f64,
    ttft: f64,
    /// Nodes that know their time to the first token.
    timed: u32,
}

/// Everything that is on the screen.
pub(super) struct Board {
    pub(super) address: String,
    pub(super) status: StatusResponse,
    pub(super) rates: Rates,
    /// Tokens generated in a second, the newest last.
    pub(super) history: VecDeque<u64>,
    /// Why the host does not answer, and since when.
    pub(super) lost: Option<(String, Instant)>,
    pub(super) is_paused: bool,
    heard: Instant,
    nodes: Vec<Node>,
    /// How many requests each node had served when the list before this one came.
    served: HashMap<String, u64>,
    listed: Instant,
    /// Between the last two lists.
    between: Duration,
    page: Page,
    /// Which column sorts, for each page; and whether it is turned around.
    sorting: [(usize, bool); 3],
    pub(super) first_row: usize,
}

// === impl Page ===

impl Page {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Nodes => Self::Types,
            Self::Types => Self::Models,
            Self::Models => Self::Nodes,
        }
    }

    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Nodes => &["ID", "TYPE", "STATE", "LOAD", "SERVED", "TTFT", "TIME", "FAILED", "MEMORY", "REPLACED"],
            Self::Types => &["TYPE", "NODES", "IN FLIGHT", "REQUESTS/S", "SERVED", "TTFT", "FAILED", "MEMORY"],
            Self::Models => &["MODEL", "RUNNING", "WAITING", "SEQUENCES", "NODES", "IN FLIGHT", "REQUESTS/S", "TTFT", "SIZE"],
        }
    }
}

// === impl Board ===

impl Board {
    pub(super) fn new(address: String, status: StatusResponse) -> Self {
        let now = Instant::now();
        Self {
            address,
            status,
            rates: Rates::default(),
            history: VecDeque::new(),
            lost: None,
            is_paused: false,
            heard: now,
            nodes: Vec::new(),
            served: HashMap::new(),
            listed: now,
            between: Duration::ZERO,
            page: Page::Nodes,
            // those with the most to do come first
            sorting: [(3, false), (2, false), (1, false)],
            first_row: 0,
        }
    }

    pub(super) fn hear(&mut self, news: News) {
        self.hear_at(news, Instant::now());
    }

    fn hear_at(&mut self, news: News, now: Instant) {
        match news {
            News::Lost(why) => {
                let since = self.lost.take().map_or(now, |(_, since)| since);
                self.lost = Some((why, since));
                self.rates = Rates::default();
            }
            News::Status(status) => {
                let was_lost = self.lost.take().is_some();
                // a host that began anew counts from 0, and one that was away has no rates
                let is_same = status.uptime_seconds >= self.status.uptime_seconds && !was_lost;
                let passed = now.duration_since(self.heard).as_secs_f64();
                self.heard = now;
                if self.is_paused {
                    return;
                }
                if is_same && passed > 0.0 {
                    self.rates = Rates::between(&self.status, &status, passed);
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative")]
                    self.history.push_back(self.rates.output_tokens.round() as u64);
                    if self.history.len() > HISTORY {
                        self.history.pop_front();
                    }
                }
                self.status = *status;
            }
            News::Nodes(nodes) if !self.is_paused => {
                let before = std::mem::replace(&mut self.nodes, nodes);
                self.served = before.into_iter().map(|node| (node.id, node.served)).collect();
                self.between = now.duration_since(self.listed);
                self.listed = now;
            }
            News::Nodes(_) => {}
        }
    }

    pub(super) fn page(&self) -> Page {
        self.page
    }

    pub(super) fn show(&mut self, page: Page) {
        self.page = page;
        self.first_row = 0;
    }

    pub(super) fn pause(&mut self) {
        self.is_paused = !self.is_paused;
    }

    /// The column that sorts, and whether it is turned around.
    pub(super) fn sorting(&self) -> (usize, bool) {
        self.sorting[self.page as usize]
    }

    pub(super) fn sort_by_next(&mut self, step: isize) {
        let n_columns = self.page.columns().len();
        let (column, _) = self.sorting();
        let next = column.checked_add_signed(step).unwrap_or(n_columns - 1) % n_columns;
        self.sorting[self.page as usize] = (next, false);
        self.first_row = 0;
    }

    pub(super) fn reverse(&mut self) {
        let sorting = &mut self.sorting[self.page as usize];
        sorting.1 = !sorting.1;
    }

    /// Not beyond the last row, which `rows` sees to.
    pub(super) fn scroll(&mut self, rows: isize) {
        self.first_row = self.first_row.saturating_add_signed(rows);
    }

    /// Nodes of the host, and those of which something is known here.
    pub(super) fn n_nodes(&self) -> (u32, usize) {
        (self.status.nodes_by_state.values().sum(), self.nodes.len())
    }

    /// The mean time to the first token over all nodes that know one, in microseconds.
    pub(super) fn ttft_us(&self) -> f64 {
        let mut sum = Sum::default();
        self.nodes.iter().for_each(|node| sum.add(node, 0));
        sum.ttft_us()
    }

    /// The rows of the page, sorted.
    pub(super) fn rows(&self) -> Vec<Vec<Cell>> {
        let mut rows = match self.page {
            Page::Nodes => self.nodes.iter().map(node_row).collect(),
            Page::Types => self.type_rows(),
            Page::Models => self.model_rows(),
        };
        let (column, reversed) = self.sorting();
        rows.sort_by(|a: &Vec<Cell>, b| {
            let order = a[column].before(&b[column]);
            // rows that are alike stand by name, and do not jump about
            if reversed { order.reverse() } else { order }.then_with(|| a[0].before(&b[0]))
        });
        rows
    }

    fn type_rows(&self) -> Vec<Vec<Cell>> {
        let mut sums = self.sums(|node| &node.r#type);
        // also types without nodes, or whose nodes are beyond those that were fetched
        for (name, n) in &self.status.nodes_by_type {
            sums.entry(name.clone()).or_default().nodes = *n;
        }
        let row = |(name, sum): (String, Sum)| {
            vec![
                Cell::Text(name),
                Cell::count(sum.nodes.into()),
                Cell::count(sum.in_flight.into()),
                self.rate(&sum),
                Cell::count(sum.served),
                Cell::time(sum.ttft_us()),
                Cell::share(sum.failures / f64::from(sum.nodes.max(1))),
                Cell::bytes(sum.memory),
            ]
        };
        sums.into_iter().map(row).collect()
    }

    fn model_rows(&self) -> Vec<Vec<Cell>> {
        let sums = self.sums(|node| &node.model);
        let models = self.status.models.iter();
        models
            .map(|model| {
                let sum = sums.get(&model.name).copied().unwrap_or_default();
                vec![
                    Cell::Text(model.name.clone()),
                    Cell::count(model.n_running.into()),
                    Cell::count(model.n_waiting.into()),
                    Cell::count(model.n_sequences.into()),
                    Cell::count(sum.nodes.into()),
                    Cell::count(sum.in_flight.into()),
                    self.rate(&sum),
                    Cell::time(sum.ttft_us()),
                    Cell::bytes(model.size_bytes),
                ]
            })
            .collect()
    }

    fn sums(&self, of: impl Fn(&Node) -> &String) -> BTreeMap<String, Sum> {
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        for node in &self.nodes {
            let before = self.served.get(&node.id).copied().unwrap_or(node.served);
            sums.entry(of(node).clone()).or_default().add(node, before);
        }
        sums
    }

    fn rate(&self, sum: &Sum) -> Cell {
        let seconds = self.between.as_secs_f64();
        let served = sum.served.saturating_sub(sum.served_before) as f64;
        let rate = if seconds > 0.0 { served / seconds } else { 0.0 };
        Cell::Number(rate, format!("{rate:.1}"))
    }
}

fn node_row(node: &Node) -> Vec<Cell> {
    let load = f64::from(node.in_flight) / f64::from(node.capacity.max(1));
    vec![
        Cell::Text(node.id.clone()),
        Cell::Text(node.r#type.clone()),
        Cell::Text(node.state.clone()),
        Cell::Number(load, format!("{}/{}", node.in_flight, node.capacity)),
        Cell::count(node.served),
        Cell::time(node.ttft_us),
        Cell::time(node.latency_us),
        Cell::share(node.failures),
        Cell::bytes(node.memory_bytes),
        Cell::count(node.replaced),
    ]
}

// === impl Cell ===

impl Cell {
    fn count(n: u64) -> Self {
        Self::Number(n as f64, output::count(n))
    }

    fn bytes(n: u64) -> Self {
        Self::Number(n as f64, output::bytes(n))
    }

    fn time(us: f64) -> Self {
        Self::Number(us, if us > 0.0 { output::nanos(us * 1e3) } else { "-".to_owned() })
    }

    fn share(share: f64) -> Self {
        Self::Number(share, output::percent(share))
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(_, text) => text,
        }
    }

    /// Texts by the alphabet, numbers with the largest first.
    fn before(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => natural(a, b),
            (Self::Number(a, _), Self::Number(b, _)) => b.total_cmp(a),
            (Self::Text(_), Self::Number(..)) => Ordering::Less,
            (Self::Number(..), Self::Text(_)) => Ordering::Greater,
        }
    }
}

/// `tiny-2` before `tiny-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let split = |text: &str| -> (String, u64) {
        let stem = text.trim_end_matches(|c: char| c.is_ascii_digit());
        (stem.to_owned(), text[stem.len()..].parse().unwrap_or(0))
    };
    split(a).cmp(&split(b)).then_with(|| a.cmp(b))
}

// === impl Rates ===

impl Rates {
    fn between(before: &StatusResponse, after: &StatusResponse, seconds: f64) -> Self {
        let (before, after) = (before.totals.unwrap_or_default(), after.totals.unwrap_or_default());
        let rate = |of: fn(&Totals) -> u64| of(&after).saturating_sub(of(&before)) as f64 / seconds;
        Self {
            requests: rate(|t| t.finished),
            failed: rate(|t| t.failed),
            rejected: rate(|t| t.rejected),
            input_tokens: rate(|t| t.input_tokens),
            output_tokens: rate(|t| t.output_tokens),
        }
    }
}

// === impl Sum ===

impl Sum {
    fn add(&mut self, node: &Node, served_before: u64) {
        self.nodes += 1;
        self.in_flight += node.in_flight;
        self.served += node.served;
        self.served_before += served_before.min(node.served);
        self.memory += node.memory_bytes;
        self.failures += node.failures;
        if node.ttft_us > 0.0 {
            self.ttft += node.ttft_us;
            self.timed += 1;
        }
    }

    fn ttft_us(&self) -> f64 {
        self.ttft / f64::from(self.timed.max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(id: &str, node_type: &str, in_flight: u32, served: u64) -> Node {
        let (id, r#type) = (id.into(), node_type.into());
        Node {
            id,
            r#type,
            model: "m".into(),
            state: "ready".into(),
            in_flight,
            capacity: 4,
            served,
            ttft_us: 2000.0,
            ..Node::default()
        }
    }

    fn status(uptime_seconds: f64, output_tokens: u64) -> StatusResponse {
        let totals = Totals { output_tokens, ..Totals::default() };
        StatusResponse { uptime_seconds, totals: Some(totals), ..StatusResponse::default() }
    }

    fn column(board: &Board, n: usize) -> Vec<String> {
        board.rows().iter().map(|row| row[n].text().to_owned()).collect()
    }

    #[test]
    fn rates_come_from_two_statuses_and_not_across_a_restart() {
        let begin = Instant::now();
        let mut board = Board::new("h".into(), status(10.0, 100));
        board.heard = begin;
        board.hear_at(News::Status(Box::new(status(12.0, 300))), begin + Duration::from_secs(2));
        assert!((board.rates.output_tokens - 100.0).abs() < 1e-9, "{:?}", board.rates);
        board.hear_at(News::Status(Box::new(status(1.0, 5))), begin + Duration::from_secs(3));
        assert_eq!(board.history, [100]);
        board.hear_at(News::Lost("gone".into()), begin + Duration::from_secs(4));
        board.hear_at(News::Lost("still gone".into()), begin + Duration::from_secs(9));
        assert_eq!(board.lost, Some(("still gone".into(), begin + Duration::from_secs(4))));
        board.hear_at(News::Status(Box::new(status(9.0, 1005))), begin + Duration::from_secs(10));
        assert!(board.lost.is_none() && board.history == [100], "{:?}", board.history);
    }

    #[test]
    fn nodes_are_sorted_by_any_column_and_stay_where_they_are() {
        let mut board = Board::new("h".into(), StatusResponse::default());
        board.hear(News::Nodes(vec![node("a-10", "tiny", 1, 5), node("a-2", "tiny", 1, 9), node("b-1", "large", 4, 1)]));
        assert_eq!(column(&board, 0), ["b-1", "a-2", "a-10"]);
        board.reverse();
        assert_eq!(column(&board, 0), ["a-2", "a-10", "b-1"]);
        board.sort_by_next(1);
        assert_eq!(column(&board, 4), ["9", "5", "1"]);
        for _ in 0..4 {
            board.sort_by_next(-1);
        }
        assert_eq!(column(&board, 0), ["a-2", "a-10", "b-1"]);
        board.sort_by_next(-1);
        assert_eq!(board.sorting().0, Page::Nodes.columns().len() - 1);
    }

    #[test]
    fn types_and_models_are_sums_of_their_nodes() {
        let begin = Instant::now();
        let model = llambo_client::Model { name: "m".into(), n_running: 3, ..Default::default() };
        let status = StatusResponse {
            nodes_by_type: [("tiny".into(), 7), ("empty".into(), 0)].into(),
            models: vec![model],
            ..Default::default()
        };
        let mut board = Board::new("h".into(), status);
        board.listed = begin;
        board.hear_at(News::Nodes(vec![node("a-1", "tiny", 1, 5), node("a-2", "tiny", 2, 9)]), begin);
        board.hear_at(News::Nodes(vec![node("a-1", "tiny", 1, 15), node("a-2", "tiny", 2, 19)]), begin + Duration::from_secs(2));
        board.show(Page::Types);
        assert_eq!(column(&board, 0), ["tiny", "empty"]);
        assert_eq!((column(&board, 1), column(&board, 3)), (vec!["7".into(), "0".into()], vec!["10.0".into(), "0.0".into()]));
        board.show(Page::Models);
        assert_eq!(
            (column(&board, 1), column(&board, 4), column(&board, 7)),
            (vec!["3".into()], vec!["2".into()], vec!["2.0 ms".into()])
        );
    }

    #[test]
    fn a_paused_screen_stays_as_it_is() {
        let mut board = Board::new("h".into(), status(1.0, 0));
        board.pause();
        board.hear(News::Nodes(vec![node("a-1", "tiny", 1, 5)]));
        board.hear(News::Status(Box::new(status(2.0, 7))));
        assert_eq!((board.rows().len(), board.status.uptime_seconds), (0, 1.0));
        // that the host is gone is told all the same
        board.hear(News::Lost("x".into()));
        assert!(board.lost.is_some());
    }

    proptest! {
        #[test]
        fn sorting_is_an_order_whatever_the_numbers(
            rows in proptest::collection::vec((any::<u32>(), any::<u64>(), any::<f64>(), "[a-z]{0,2}-?[0-9]{0,25}"), 0..40), column in 0_usize..10, turned: bool,
        ) {
            let nodes = rows.iter().map(|(in_flight, served, ttft_us, id)| Node { ttft_us: *ttft_us, ..node(id, "t", *in_flight / 64, *served >> 8) }).collect();
            let mut board = Board::new("h".into(), StatusResponse::default());
            board.hear(News::Nodes(nodes));
            board.sorting[0] = (column, turned);
            prop_assert_eq!(board.rows().len(), rows.len());
            board.show(Page::Types);
            prop_assert!(board.rows().len() <= 1);
        }
    }
}
