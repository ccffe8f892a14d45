use std::{collections::BTreeMap, fs, path::Path};

use llambo_inference::Usage;
use proptest::{collection::vec, prelude::*};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{limits, new_task};
use crate::{
    TaskError, TaskState,
    kept::Pieces,
    ledger::{Ledger, Return, Run, Sql, Standing, Update},
    rows::Record,
    schema,
    task::{Outcome, TaskFailure},
};

const TENANTS: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
enum Step {
    Submit {
        tenant: usize,
        id: u8,
        prompt: u8,
    },
    Take {
        n: usize,
    },
    Progress {
        run: usize,
    },
    Finish {
        run: usize,
    },
    Fail {
        run: usize,
    },
    Contradict {
        run: usize,
    },
    Unserved {
        run: usize,
    },
    Broken {
        run: usize,
    },
    Show {
        tenant: usize,
        id: u8,
    },
    Cancel {
        tenant: usize,
        id: u8,
    },
    Delete {
        tenant: usize,
        id: u8,
    },
    /// Killed between two transactions, or within one.
    Crash {
        within: Option<Box<Step>>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let name = (0..2usize, 0..5u8);
    let run = 0..4usize;
    let simple = prop_oneof![
        4 => (name.clone(), 0..2u8).prop_map(|((tenant, id), prompt)| Step::Submit { tenant, id, prompt }),
        3 => (1..4usize).prop_map(|n| Step::Take { n }),
        4 => run.clone().prop_map(|run| Step::Progress { run }),
        2 => run.clone().prop_map(|run| Step::Finish { run }),
        1 => run.clone().prop_map(|run| Step::Fail { run }),
        1 => run.clone().prop_map(|run| Step::Contradict { run }),
        1 => run.clone().prop_map(|run| Step::Unserved { run }),
        1 => run.prop_map(|run| Step::Broken { run }),
        2 => name.clone().prop_map(|(tenant, id)| Step::Show { tenant, id }),
        1 => name.clone().prop_map(|(tenant, id)| Step::Cancel { tenant, id }),
        1 => name.prop_map(|(tenant, id)| Step::Delete { tenant, id }),
    ];
    let crash = proptest::option::of(simple.clone().prop_map(Box::new)).prop_map(|within| Step::Crash { within });
    prop_oneof![10 => simple, 1 => crash]
}

/// What is expected of one task.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    prompt: u8,
    state: TaskState,
    attempts: u32,
    text: String,
    is_told: bool,
}

type Name = (usize, u8);

struct Bench {
    folder: TempDir,
    ledger: Ledger,
    expected: BTreeMap<Name, Expected>,
    /// Runs that were begun, the latest last; those of before a crash too.
    runs: Vec<(Run, Name, bool)>,
    n_pieces: u32,
}

fn open(folder: &Path) -> Ledger {
    let connection = Connection::open(folder.join("tasks.sqlite")).unwrap();
    schema::prepare(&connection).unwrap();
    Ledger::new(connection, limits()).unwrap()
}

fn within<T>(ledger: &mut Ledger, work: impl FnOnce(&mut Ledger) -> Sql<T>) -> T {
    ledger.connection.execute_batch("BEGIN").unwrap();
    let done = work(ledger).unwrap();
    ledger.connection.execute_batch("COMMIT").unwrap();
    done
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(folder.path());
        Self { folder, ledger, expected: BTreeMap::new(), runs: Vec::new(), n_pieces: 0 }
    }

    /// The run that a step is about, and its task as long as the run counts.
    fn run(&mut self, i: usize) -> Option<(Run, Option<&mut Expected>)> {
        let i = self.runs.len().checked_sub(1 + i)?;
        let (run, name, counts) = self.runs[i];
        Some((run, self.expected.get_mut(&name).filter(|task| counts && task.state == TaskState::Running)))
    }

    fn piece(&mut self, at_byte: usize) -> Update {
        self.n_pieces += 1;
        let mut pieces = Pieces::default();
        pieces.push(&format!("w{} ", self.n_pieces));
        Update { node: Some("n".into()), at_byte, pieces, addition: None, n_tokens: self.n_pieces }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each step")]
    fn does(&mut self, step: Step) {
        match step {
            Step::Submit { tenant, id, prompt } => {
                let task = new_task(TENANTS[tenant], &id.to_string(), &prompt.to_string());
                let submitted = within(&mut self.ledger, |ledger| ledger.submit(&task, 1));
                match self.expected.get(&(tenant, id)) {
                    Some(before) if before.prompt == prompt => assert!(!submitted.unwrap().1, "it was there"),
                    Some(_) => assert!(matches!(submitted, Err(TaskError::Conflict { .. }))),
                    None => {
                        assert!(submitted.unwrap().1, "it is new");
                        let state = TaskState::Queued;
                        let new = Expected { prompt, state, attempts: 0, text: String::new(), is_told: false };
                        self.expected.insert((tenant, id), new);
                    }
                }
            }
            Step::Take { n } => {
                let (taken, _) = within(&mut self.ledger, |ledger| ledger.take(n, 2));
                for task in taken {
                    let name = (TENANTS.iter().position(|t| *t == task.tenant).unwrap(), task.id.parse().unwrap());
                    let expected = self.expected.get_mut(&name).unwrap();
                    assert_eq!(expected.state, TaskState::Queued, "a task runs once at a time");
                    assert_eq!(task.kept.text, expected.text, "a run goes on from what was kept");
                    expected.state = TaskState::Running;
                    expected.attempts += 1;
                    assert!(expected.attempts <= limits().attempts);
                    self.runs.iter_mut().filter(|(_, other, _)| *other == name).for_each(|(.., counts)| *counts = false);
                    self.runs.push((task.run, name, true));
                }
                // those that were tried too often fail when their turn comes
                for ((tenant, id), task) in self.expected.iter_mut().filter(|(_, task)| task.state == TaskState::Queued) {
                    let record = Record::by_id(&self.ledger.connection, TENANTS[*tenant], &id.to_string()).unwrap().unwrap();
                    if task.attempts == limits().attempts && record.task.state == TaskState::Failed {
                        assert_eq!(record.task.failure.unwrap().reason, "ATTEMPTS_EXHAUSTED");
                        task.state = TaskState::Failed;
                    }
                }
            }
            Step::Progress { run } => {
                let at_byte = self.run(run).and_then(|(_, task)| task.map(|task| task.text.len())).unwrap_or(0);
                let update = self.piece(at_byte);
                let Some((run, task)) = self.run(run) else { return };
                let counts = task.map(|task| task.text.push_str(&update.pieces.text)).is_some();
                assert_eq!(within(&mut self.ledger, |ledger| ledger.progress(run, &update)) == Standing::Counts, counts);
            }
            Step::Finish { run } => {
                let usage = Usage { output_tokens: 3, ..Usage::default() };
                self.ends(run, &Outcome::Finished { reason: "stop", usage }, TaskState::Finished);
            }
            Step::Fail { run } => self.ends(run, &Outcome::failed("BACKEND_FAILED", "x"), TaskState::Failed),
            Step::Contradict { run } => {
                let Some((run, task)) = self.run(run) else { return };
                let stands = match task {
                    None => Standing::Over,
                    Some(task) if task.is_told => {
                        task.state = TaskState::Failed;
                        Standing::Over
                    }
                    Some(task) => {
                        task.text.clear();
                        Standing::Counts
                    }
                };
                assert_eq!(within(&mut self.ledger, |ledger| ledger.contradict(run, 3)), stands);
            }
            Step::Unserved { run } => {
                let Some((run, task)) = self.run(run) else { return };
                let counts = task.map(|task| (task.state, task.attempts) = (TaskState::Queued, task.attempts - 1)).is_some();
                self.returns(run, counts, &Return::Unserved(std::time::Duration::ZERO));
            }
            Step::Broken { run } => {
                let failure = TaskFailure { reason: "GUEST_TRAP".into(), message: "x".into() };
                let Some((run, task)) = self.run(run) else { return };
                let is_last = |task: &Expected| task.attempts >= limits().attempts;
                let counts =
                    task.map(|task| task.state = if is_last(task) { TaskState::Failed } else { TaskState::Queued }).is_some();
                self.returns(run, counts, &Return::Broken(std::time::Duration::ZERO, failure));
            }
            Step::Show { tenant, id } => {
                let shown = within(&mut self.ledger, |ledger| ledger.show(TENANTS[tenant], &id.to_string()));
                let expected = self.expected.get_mut(&(tenant, id));
                assert_eq!(shown.map(|task| task.text), expected.as_ref().map(|task| task.text.clone()));
                if let Some(task) = expected {
                    task.is_told |= !task.state.is_ended() && !task.text.is_empty();
                }
            }
            Step::Cancel { tenant, id } => {
                let done = within(&mut self.ledger, |ledger| ledger.cancel(TENANTS[tenant], &id.to_string(), 4));
                let expected = self.expected.get_mut(&(tenant, id));
                assert_eq!(done.is_some(), expected.is_some());
                if let Some(task) = expected.filter(|task| !task.state.is_ended()) {
                    task.state = TaskState::Cancelled;
                }
            }
            Step::Delete { tenant, id } => {
                let done = within(&mut self.ledger, |ledger| ledger.delete(TENANTS[tenant], &id.to_string()));
                match self.expected.get(&(tenant, id)).map(|task| task.state.is_ended()) {
                    None => assert!(matches!(done, Err(TaskError::Unknown { .. }))),
                    Some(false) => assert!(matches!(done, Err(TaskError::NotEnded { .. }))),
                    Some(true) => {
                        done.unwrap();
                        self.expected.remove(&(tenant, id));
                    }
                }
            }
            Step::Crash { within } => self.crashes(within),
        }
    }

    fn ends(&mut self, run: usize, outcome: &Outcome, state: TaskState) {
        let at_byte = self.run(run).and_then(|(_, task)| task.map(|task| task.text.len())).unwrap_or(0);
        let update = self.piece(at_byte);
        let Some((run, task)) = self.run(run) else { return };
        let counts = task
            .map(|task| {
                task.text.push_str(&update.pieces.text);
                task.state = state;
            })
            .is_some();
        let stands = within(&mut self.ledger, |ledger| ledger.end(run, &update, outcome, 3));
        assert_eq!(stands == Standing::Counts, counts, "a task ends once");
    }

    fn returns(&mut self, run: Run, counts: bool, why: &Return) {
        let stands = within(&mut self.ledger, |ledger| ledger.release(run, &Update::default(), why, 3));
        assert_eq!(stands == Standing::Counts, counts);
    }

    /// What the disk has at some moment is all that is left.
    fn crashes(&mut self, during: Option<Box<Step>>) {
        let after = tempfile::tempdir().unwrap();
        let copy = |from: &Path| {
            for file in fs::read_dir(from).unwrap() {
                let file = file.unwrap();
                // the index of the log is memory that processes share: another one makes it anew
                if !file.file_name().to_string_lossy().ends_with("-shm") {
                    fs::copy(file.path(), after.path().join(file.file_name())).unwrap();
                }
            }
        };
        if during.is_some() {
            // a transaction that writes much and is never committed
            self.ledger.connection.execute_batch("PRAGMA cache_size = 1; BEGIN").unwrap();
            for tenant in TENANTS {
                self.ledger.submit(&new_task(tenant, "lost", &"x".repeat(9000)), 9).unwrap().unwrap();
                self.ledger.cancel(tenant, "0", 9).unwrap();
            }
            self.ledger.take(5, 9).unwrap();
            copy(self.folder.path());
            self.ledger.connection.execute_batch("ROLLBACK").unwrap();
        } else {
            copy(self.folder.path());
        }
        self.ledger = open(after.path());
        self.folder = after;
        self.runs.iter_mut().for_each(|(.., counts)| *counts = false);
        for task in self.expected.values_mut().filter(|task| task.state == TaskState::Running) {
            task.state = TaskState::Queued;
        }
        if let Some(step) = during {
            self.does(*step);
        }
    }

    /// All that is there is what is expected, and what is counted in memory is what is there.
    fn check(&mut self) {
        let all: Vec<(String, Expected, bool)> = {
            let mut all = Vec::new();
            for ((tenant, id), task) in &self.expected {
                let record =
                    Record::by_id(&self.ledger.connection, TENANTS[*tenant], &id.to_string()).unwrap().expect("it is there");
                let (_, pieces) = record.pieces(&self.ledger.connection, 0).unwrap();
                assert_eq!(pieces.from(0).map(|(text, _)| text).collect::<String>(), pieces.text, "cuts and text agree");
                let found = Expected {
                    state: record.task.state,
                    attempts: record.task.attempts,
                    text: pieces.text,
                    is_told: record.is_told,
                    ..task.clone()
                };
                all.push((format!("{tenant}/{id}"), found, record.task.times.ended_ms.is_some()));
            }
            all
        };
        for ((name, found, has_ended), task) in all.iter().zip(self.expected.values()) {
            assert_eq!((found, *has_ended), (task, task.state.is_ended()), "{name}");
        }
        let n: u64 = self.ledger.connection.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
        assert_eq!(n, self.expected.len() as u64);
        let counted = std::mem::take(&mut self.ledger.counts);
        let orphans: u64 = self
            .ledger
            .connection
            .query_row("SELECT count(*) FROM progress WHERE task NOT IN (SELECT key FROM tasks WHERE state < 2)", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(orphans, 0, "what ended is in one place");
        self.ledger.reload().unwrap();
        assert_eq!(counted, self.ledger.counts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_and_whenever_it_is_killed_each_task_ends_once_with_its_own_text(steps in vec(step(), 1..80)) {
        let mut bench = Bench::new();
        for step in steps {
            bench.does(step);
            bench.check();
        }
    }
}

#[test]
fn what_is_kept_long_enough_is_forgotten_and_what_waits_too_long_ends() {
    let mut bench = Bench::new();
    let ledger = &mut bench.ledger;
    let late = crate::NewTask { timeout_ms: Some(5), ..new_task("a", "late", "x") };
    within(ledger, |ledger| ledger.submit(&late, 0)).unwrap();
    within(ledger, |ledger| ledger.submit(&new_task("a", "ends", "x"), 0)).unwrap();
    within(ledger, |ledger| ledger.cancel("a", "ends", 0));
    within(ledger, |ledger| ledger.sweep(4));
    let state = |ledger: &mut Ledger, id| within(ledger, |ledger| ledger.show("a", id)).map(|task| task.state);
    assert_eq!((state(ledger, "late"), state(ledger, "ends")), (Some(TaskState::Queued), Some(TaskState::Cancelled)));
    within(ledger, |ledger| ledger.sweep(5));
    assert_eq!(state(ledger, "late"), Some(TaskState::Expired));
    within(ledger, |ledger| ledger.sweep(3_600_000));
    assert_eq!((state(ledger, "late"), state(ledger, "ends")), (Some(TaskState::Expired), None));
    within(ledger, |ledger| ledger.sweep(3_600_005));
    assert_eq!((state(ledger, "late"), ledger.counts.bytes), (None, 0));
}

#[test]
fn a_tenant_cannot_fill_the_queue_and_nobody_can_fill_the_disk() {
    let mut bench = Bench::new();
    let ledger = &mut bench.ledger;
    let mut submit = |tenant: &str, i: u32, prompt: &str| {
        within(ledger, |ledger| ledger.submit(&new_task(tenant, &i.to_string(), prompt), 0)).map(|_| ())
    };
    let n = (0..2000).find(|i| submit("a", *i, "x").is_err()).unwrap();
    assert_eq!(n, 900, "a tenth is for others");
    assert!(matches!(submit("a", n, "x"), Err(TaskError::Full { of_tenant: true, queued: 900, limit: 1000 })));
    let others = (0..2000).find(|i| submit("b", *i, "x").is_err()).unwrap();
    assert_eq!(others, 50, "half of that tenth, since two share it");
    assert!(matches!(submit("c", 0, &"x".repeat(1 << 20)), Err(TaskError::NoRoom { .. })));
    assert_eq!(submit("c", 0, "x"), Ok(()));
}
