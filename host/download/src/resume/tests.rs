use proptest::prelude::*;

use super::*;

/// A server with several versions of a file, and its habits.
#[derive(Clone, Debug)]
struct Server {
    versions: Vec<Vec<u8>>,
    /// Whether ranges are answered, `If-Range` is looked at, and contents are named.
    ranges: bool,
    if_range: bool,
    names: bool,
}

/// One request: which version is there by then, and after how many bytes the line is cut.
#[derive(Clone, Copy, Debug)]
struct Visit {
    version: usize,
    cut: usize,
    /// Whether the process ended in between, so that only what is written down is known.
    is_killed: bool,
}

impl Server {
    fn name(&self, version: usize) -> Option<String> {
        self.names.then(|| format!("\"v{version}\""))
    }

    fn answer(&self, ask: &Ask, visit: Visit) -> (Reply, Vec<u8>) {
        let file = &self.versions[visit.version];
        let name = self.name(visit.version);
        let (total, from) = (file.len() as u64, usize::try_from(ask.from).unwrap());
        let is_same = !self.if_range || ask.if_range.is_none() || ask.if_range == name;
        if from == 0 || !self.ranges || !is_same {
            let reply = Reply { status: 200, content_length: Some(total), content_range: None, validator: name };
            return (reply, file[..visit.cut.min(file.len())].to_vec());
        }
        let range = |first| Some(ContentRange { first, total: Some(total) });
        if from >= file.len() {
            return (Reply { status: 416, content_range: range(None), ..Reply::default() }, Vec::new());
        }
        let rest = &file[from..];
        let reply =
            Reply { status: 206, content_length: Some(rest.len() as u64), content_range: range(Some(ask.from)), validator: name };
        (reply, rest[..visit.cut.min(rest.len())].to_vec())
    }
}

/// Goes on until all is there, as `fetch` does; what came of it, if that happened.
fn fetch(server: &Server, visits: &[Visit], known: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut there = Vec::new();
    let mut part = Part { is_known: known.is_some(), total: known.map(|file| file.len() as u64), ..Part::default() };
    for &visit in visits {
        if visit.is_killed {
            part = Part { n_bytes: there.len() as u64, ..part };
        }
        let ask = part.ask();
        let (reply, body) = server.answer(&ask, visit);
        let total = match part.judge(&ask, &reply) {
            Step::Complete => return Some(there),
            Step::Append { total } => total,
            Step::Begin { total } => {
                there.clear();
                part.validator = reply.validator;
                total
            }
            Step::Anew => {
                there.clear();
                part = Part { is_known: part.is_known, total: part.total.filter(|_| part.is_known), ..Part::default() };
                continue;
            }
            Step::Senseless => panic!("the server speaks HTTP: {reply:?}"),
        };
        there.extend(body);
        part = Part { n_bytes: there.len() as u64, total: part.total.filter(|_| part.is_known).or(total), ..part };
        if Some(part.n_bytes) == total {
            return Some(there);
        }
    }
    None
}

fn server() -> impl Strategy<Value = Server> {
    let version = prop::collection::vec(any::<u8>(), 1..40);
    (prop::collection::vec(version, 1..4), any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(versions, ranges, if_range, names)| Server { versions, ranges, if_range, names })
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let visit = (0..3usize, 0..30usize, any::<bool>());
    prop::collection::vec(visit.prop_map(|(version, cut, is_killed)| Visit { version, cut, is_killed }), 1..30)
}

proptest! {
    #[test]
    fn what_comes_of_it_is_one_version_and_never_a_mixture(server in server(), mut visits in visits()) {
        for visit in &mut visits {
            visit.version %= server.versions.len();
        }
        if let Some(file) = fetch(&server, &visits, None) {
            prop_assert!(server.versions.contains(&file), "{file:?}");
        }
    }

    #[test]
    fn a_patient_client_ends_with_the_file(mut server in server(), cut in 1..30usize, known in any::<bool>()) {
        server.versions.truncate(1);
        // ranges and names are what makes cuts bearable; without them one whole answer does it
        let cut = if server.ranges && (server.names || known) { cut } else { 40 };
        let visits = vec![Visit { version: 0, cut, is_killed: true }; 100];
        let wanted = server.versions[0].clone();
        prop_assert_eq!(fetch(&server, &visits, known.then_some(&wanted[..])), Some(wanted));
    }

    #[test]
    fn each_byte_is_fetched_once_where_ranges_are_known(file in prop::collection::vec(any::<u8>(), 1..60), cut in 1..60usize) {
        let n_bytes = file.len();
        let server = Server { versions: vec![file], ranges: true, if_range: true, names: true };
        let visits = vec![Visit { version: 0, cut, is_killed: false }; n_bytes.div_ceil(cut)];
        prop_assert!(fetch(&server, &visits, None).is_some());
    }
}

#[test]
fn content_ranges_are_read() {
    let range = |first, total| Some(ContentRange { first, total });
    assert_eq!(ContentRange::parse("bytes 5-9/10"), range(Some(5), Some(10)));
    assert_eq!(ContentRange::parse("bytes 5-9/*"), range(Some(5), None));
    assert_eq!(ContentRange::parse("bytes */10"), range(None, Some(10)));
    for bad in ["", "bytes", "items 1-2/3", "bytes 1-2", "bytes x-2/3", "bytes 1-2/x"] {
        assert_eq!(ContentRange::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_weak_etag_is_no_name_for_bytes() {
    assert_eq!(validator(Some("W/\"a\""), None), None);
    assert_eq!(validator(Some("W/\"a\""), Some("Tue")), Some("Tue".into()));
    assert_eq!(validator(Some("\"a\""), Some("Tue")), Some("\"a\"".into()));
}
