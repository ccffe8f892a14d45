//! Tasks of a host that is killed again and again.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures::{StreamExt, future::join_all, stream};
use llambo_client::{Ask, Client};
use llambo_tests::{
    Host,
    web::{self, Events},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

const N_TASKS: usize = 300;
/// Of so many tasks, one is followed by a reader.
const READ_EVERY: usize = 4;
const N_TOKENS: u32 = 48;
/// What no step takes unless it hangs.
const PATIENCE: Duration = Duration::from_mins(2);

const WORDS: [&str; 8] =
    ["A trait", "The compiler", "A closure", "Ownership", "The borrow", "An iterator", "A thread", "The heap"];
const ENDS: [&str; 5] = [" is", " can be", " lets you", " does not", " and"];

fn config(folder: &std::path::Path) -> String {
    format!(
        "models: [{{path: builtin:demo-small, sequences: 16}}]
types: {{tiny: {{count: 16}}}}
tasks: {{folder: \"{}\", max-running: 16}}",
        folder.display()
    )
}

/// Where the host of the moment is; changes with each restart.
type Address = watch::Receiver<SocketAddr>;

fn addressed(host: &Host) -> SocketAddr {
    host.http().parse().unwrap()
}

/// Status and body; `None` when the host went away.
async fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    timeout(PATIENCE, web::send(address, method, path, body)).await.expect("an answer, or the end of the connection")
}

/// The same, from whichever host there is.
async fn surely(address: &mut Address, method: &str, path: &str, body: &str) -> (u16, Value) {
    loop {
        let at = *address.borrow_and_update();
        if let Some(answer) = send(at, method, path, body).await {
            return answer;
        }
        timeout(PATIENCE, address.changed()).await.expect("the host comes back").unwrap();
    }
}

/// What a reader was told of a task, over as many connections as it took.
#[derive(Default)]
struct Reader {
    text: String,
    last: String,
    n_started: u32,
    ends: Vec<Value>,
    /// Connections that broke off between two tokens.
    n_broken: u32,
}

impl Reader {
    async fn follow(mut self, id: &str, mut address: Address) -> Self {
        while self.ends.is_empty() {
            let at = *address.borrow_and_update();
            // a connection that breaks off is what this is about
            let _ = timeout(PATIENCE, self.read(id, at)).await.expect("events, or the end of the connection");
            if self.ends.is_empty() {
                self.n_broken += u32::from(!self.text.is_empty());
                // whether the next host is there already does not matter: it is looked for at the newest address
                let _ = timeout(Duration::from_millis(50), address.changed()).await;
            }
        }
        self
    }

    async fn read(&mut self, id: &str, at: SocketAddr) -> Option<()> {
        let behind = if self.last.is_empty() { String::new() } else { format!("Last-Event-ID: {}\r\n", self.last) };
        let mut events = Events::open(at, "GET", &format!("/v2/tasks/{id}/events"), &behind, "").await.ok()?;
        assert_eq!(events.status, 200, "{id} behind {:?}", self.last);
        while let Some(event) = events.next().await.ok()? {
            // what is sent while nothing happens is no event
            if !event.name.is_empty() {
                self.hear(&event.name, &event.id, &serde_json::from_str(&event.data).unwrap());
            }
        }
        Some(())
    }

    fn hear(&mut self, name: &str, last: &str, data: &Value) {
        assert!(self.ends.is_empty(), "nothing follows the end");
        last.clone_into(&mut self.last);
        match name {
            "started" => self.n_started += 1,
            "token" => {
                self.text.push_str(data["text"].as_str().unwrap());
                assert_eq!(last, self.text.len().to_string(), "no token is told twice or missed");
            }
            "end" => self.ends.push(data.clone()),
            other => panic!("{other}: {data}"),
        }
    }
}

/// Prompts with what an undisturbed run says.
async fn undisturbed(client: &Client) -> Vec<(String, String)> {
    let prompts: Vec<String> = WORDS.iter().flat_map(|word| ENDS.iter().map(move |end| format!("{word}{end}"))).collect();
    let ask = |prompt: &String| Ask::text(prompt).max_tokens(N_TOKENS).temperature(0.0).options(|o| o.ignore_eos = true);
    let answers = stream::iter(&prompts).map(|prompt| client.infer(ask(prompt))).buffered(16);
    let texts: Vec<String> = answers.map(|answer| answer.unwrap().text).collect().await;
    prompts.into_iter().zip(texts).collect()
}

/// Permits one text. Where two tokens are within rounding of each other, the company in the batch decides between them; this does instead.
fn grammar(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            c => c.to_string(),
        })
        .collect();
    format!("root ::= \"{escaped}\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_finished_once_however_often_the_host_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(&config(folder.path()));
    let known = undisturbed(&host.client().await).await;
    let (moved, address) = watch::channel(addressed(&host));

    let submitting = async {
        let submit = async |i: usize| {
            let (prompt, text) = &known[i % known.len()];
            let task = json!({"id": format!("task-{i}"), "prompt": prompt, "grammar": grammar(text), "temperature": 0});
            let (status, answer) = surely(&mut address.clone(), "POST", "/v2/tasks", &task.to_string()).await;
            assert!(status == 202 || status == 200, "{status} {answer}");
            assert_eq!(answer["durable"], true);
        };
        stream::iter(0..N_TASKS).map(submit).buffer_unordered(16).collect::<Vec<()>>().await;
    };
    let reading = async {
        let readers = (0..N_TASKS).step_by(READ_EVERY).map(|i| {
            let mut address = address.clone();
            async move {
                let id = format!("task-{i}");
                // it may not have been submitted yet
                while surely(&mut address, "GET", &format!("/v2/tasks/{id}"), "").await.0 == 404 {
                    sleep(Duration::from_millis(20)).await;
                }
                (i, Reader::default().follow(&id, address).await)
            }
        });
        join_all(readers).await
    };
    let killing = async {
        // a first time while tasks are submitted, then at other moments, the same for each run of the test and never at a round time
        for wait_ms in [137, 411, 733] {
            sleep(Duration::from_millis(wait_ms)).await;
            // dropping it sends SIGKILL
            host = tokio::task::spawn_blocking({
                let config = config(folder.path());
                move || {
                    drop(host);
                    Host::start(&config)
                }
            })
            .await
            .unwrap();
            moved.send_replace(addressed(&host));
        }
        host
    };
    let ((), readers, host) =
        timeout(PATIENCE, async { tokio::join!(submitting, reading, killing) }).await.expect("all of it ends");

    let began = Instant::now();
    let at = addressed(&host);
    let mut tasks = BTreeMap::new();
    while tasks.len() < N_TASKS {
        assert!(began.elapsed() < PATIENCE, "{} of {N_TASKS} have ended", tasks.len());
        for i in 0..N_TASKS {
            if tasks.contains_key(&i) {
                continue;
            }
            let (status, task) = send(at, "GET", &format!("/v2/tasks/task-{i}"), "").await.unwrap();
            assert_eq!(status, 200, "what was accepted is there: {task}");
            match task["state"].as_str().unwrap() {
                "queued" | "running" => break,
                _ => tasks.insert(i, task),
            };
        }
        sleep(Duration::from_millis(20)).await;
    }
    for (i, task) in &tasks {
        assert_eq!((&task["state"], &task["text"]), (&json!("finished"), &json!(known[i % known.len()].1)), "{i}: {task}");
    }
    let n_again = tasks.values().filter(|task| task["attempts"].as_u64() > Some(1)).count();
    assert!(n_again > 0, "no task was running when the host was killed");
    let n_broken: u32 = readers.iter().map(|(_, reader)| reader.n_broken).sum();
    for (i, reader) in readers {
        assert_eq!((reader.n_started, reader.ends.len()), (1, 1), "{i}");
        assert_eq!((&reader.ends[0]["state"], &json!(reader.text)), (&json!("finished"), &tasks[&i]["text"]), "{i}");
    }
    assert!(n_broken > 0, "no reader was in the middle of a text when the host was killed");
    drop(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_told_to_end_does_not_wait_for_tasks_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(&config(folder.path()));
    let at = addressed(&host);
    for i in 0..24 {
        let task = json!({"id": format!("task-{i}"), "prompt": "A trait is", "max_tokens": 200, "seed": i, "ignore_eos": true});
        assert_eq!(send(at, "POST", "/v2/tasks", &task.to_string()).await.unwrap().0, 202);
    }
    // lists tell no text, so that nobody has heard anything that a later run could contradict
    let all = async |at| send(at, "GET", "/v2/tasks", "").await.unwrap().1["tasks"].as_array().unwrap().clone();
    llambo_tests::eventually("something runs", async || all(at).await.iter().any(|task| task["node"].is_string())).await;
    let began = Instant::now();
    host.signal("TERM");
    let (status, said) = tokio::task::spawn_blocking(|| host.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", said.join("\n"));
    assert!(began.elapsed() < Duration::from_secs(8), "it waited for tasks: {:?}", began.elapsed());

    let host = Host::start(&config(folder.path()));
    let at = addressed(&host);
    assert!(all(at).await.iter().any(|task| task["ended_at_ms"].is_null()), "all had ended before the signal came");
    llambo_tests::eventually("all have ended", async || all(at).await.iter().all(|task| task["ended_at_ms"].is_number())).await;
    for task in all(at).await {
        assert_eq!((&task["state"], &task["attempts"]), (&json!("finished"), &json!(1)), "the host's end is no attempt: {task}");
        assert_eq!(task["usage"]["output_tokens"], 200);
    }
}

#[test]
fn a_folder_of_tasks_belongs_to_one_host() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let _host = Host::start(&config);
    let file = tempfile::NamedTempFile::new().unwrap();
    let network = "network: {grpc: 127.0.0.1:0, http: 127.0.0.1:0}";
    std::fs::write(file.path(), format!("{config}\n{network}\n")).unwrap();
    let other = llambo_tests::llambo(&["serve", "--config", file.path().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(other.status.code() == Some(69) && said.contains("another host uses"), "{said}");
}
