//! Policies as scripts meet them: the program beside a host that is made up.

mod host;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::host::Asked;

/// A folder, and a host that was started for this test.
struct Place {
    folder: tempfile::TempDir,
    address: String,
    asked: Asked,
}

impl Place {
    async fn new() -> Self {
        Self::with(false).await
    }

    async fn with(endless: bool) -> Self {
        let (address, asked) = host::start(endless).await;
        Self { folder: tempfile::tempdir().expect("there is room"), address, asked }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file that begins as a module does.
    fn module(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, b"\0asm\x0d\0\x01\0").expect("it can be written");
        path
    }

    /// The program in the folder, without what the environment of the tests says.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamboctl"));
        command.args(["--host", &self.address]).args(line.split(' ')).env_clear().stdin(Stdio::null());
        command.current_dir(self.folder.path()).kill_on_drop(true);
        command
    }

    async fn run(&self, line: &str) -> Output {
        self.command(line).output().await.expect("the program starts")
    }

    /// What it prints when all goes well.
    async fn printed(&self, line: &str) -> String {
        let output = self.run(line).await;
        assert_eq!(output.status.code(), Some(0), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The same with `--json`, which is one line.
    async fn json(&self, line: &str) -> Value {
        let told = self.printed(&format!("--json {line}")).await;
        assert_eq!(told.lines().count(), 1, "{told}");
        serde_json::from_str(&told).expect("it is JSON")
    }

    /// Its exit code and what it complains about.
    async fn refused(&self, line: &str) -> (Option<i32>, String) {
        let output = self.run(line).await;
        assert_eq!(text(&output.stdout), "", "{line}");
        (output.status.code(), text(&output.stderr))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it prints UTF-8")
}

#[tokio::test]
async fn a_policy_is_loaded_as_the_command_line_says() {
    let place = Place::new().await;
    place.module("Latency_Aware.wasm");
    let told = place.printed("policy load Latency_Aware.wasm --as balancer --time 2ms --memory 2MB --parameters a=1").await;
    let expected = "\
latency-aware (generation 3, 9f1c2a7b43de) decides as balancer in the place of round-about (generation 2)
compiled in 12 ms; 100 calls of the dry run took 1.2 µs each (median)
";
    assert_eq!(told, expected);
    let asked = place.asked.last();
    for part in [
        "kind: \"balancer\"", "name: \"latency-aware\"", "shadow: false", "share: 0.0", "parameters: \"a=1\"", "time_us: 2000",
        "memory_bytes: 2097152", "wasm: [0, 97, 115, 109,",
    ] {
        assert!(asked.contains(part), "{part} is not in {asked}");
    }
    let told = place.printed("policy load Latency_Aware.wasm --as balancer --name p --share 10%").await;
    assert!(told.starts_with("p (generation 3, 9f1c2a7b43de) decides as balancer for 10% of the requests\n"), "{told}");
    assert!(place.asked.last().contains("share: 0.1,"), "{}", place.asked.last());
    let told = place.printed("policy load Latency_Aware.wasm --as balancer --shadow").await;
    assert!(told.contains("is asked as balancer beside what decides, and decides nothing\n"), "{told}");
    assert!(place.asked.last().contains("shadow: true"), "{}", place.asked.last());
    let told = place.json("policy load Latency_Aware.wasm --as balancer").await;
    assert_eq!(
        (&told["replaced"]["name"], &told["policy"]["sha256"]),
        (&"round-about".into(), &"9f1c2a7b43de00ff".into()),
        "{told}"
    );
    assert_eq!((&told["policy"]["share"], &told["dry_run_calls"]), (&Value::Null, &100.into()), "{told}");
}

#[tokio::test]
async fn what_cannot_be_a_policy_is_not_sent() {
    let place = Place::new().await;
    fs::write(place.path("p.txt"), "(component)").expect("it can be written");
    let (code, told) = place.refused("policy load p.txt --as balancer").await;
    assert!(code == Some(65) && told.contains("p.txt is not WebAssembly"), "{told}");
    assert_eq!(place.refused("policy load absent.wasm --as balancer").await.0, Some(65));
    assert_eq!(place.asked.last(), "");
    place.module("bad.wasm");
    let (code, told) = place.refused("--json policy load bad.wasm --as balancer").await;
    assert!(code == Some(1) && told.contains(r#""reason":"INVALID_MODULE""#), "{told}");
}

#[tokio::test]
async fn a_list_says_what_is_suspended_and_what_to_do() {
    let place = Place::new().await;
    let told = place.printed("policy list").await;
    let lines: Vec<&str> = told.lines().collect();
    assert!(
        lines[0].starts_with("KIND      NAME           GEN  ROLE    STATE      CALLS  FALLBACKS     P50     P99  AGREED  SHA256"),
        "{told}"
    );
    assert!(
        lines[1].starts_with(
            "balancer  latency-aware    3  live    suspended   1234         12  1.2 µs  4.0 µs       -  9f1c2a7b43de"
        ),
        "{told}"
    );
    assert!(lines[2].contains("  shadow  running        0          0       -       -   87.5%  9f1c2a7b43de"), "{told}");
    let expected = "latency-aware (live balancer) is suspended: 10 of its last 100 calls failed; `llamboctl policy resume balancer` lets it go on";
    assert_eq!(lines[3..], [expected, "what is built in decides: scaler, fusion"]);
    let told = place.json("policy list").await;
    assert_eq!(told["built_in"], json!(["scaler", "fusion"]));
    assert_eq!(told["policies"][0]["fallbacks"], json!({ "timeout": 2, "trap": 10 }));
    assert_eq!(
        (&told["policies"][0]["reason"], &told["policies"][1]["reason"]),
        (&"10 of its last 100 calls failed".into(), &Value::Null)
    );
}

#[tokio::test]
async fn changes_name_what_decides_now() {
    let place = Place::new().await;
    let (other, aware) = ("other (generation 3, 9f1c2a7b43de)", "latency-aware (generation 3, 9f1c2a7b43de)");
    for (line, expected, role) in [
        ("promote balancer", format!("{other} decides as balancer in the place of latency-aware (generation 2)"), None),
        ("rollback balancer", "what is built in decides as balancer in the place of latency-aware (generation 3)".into(), None),
        ("unload balancer", format!("{aware} is out; what is built in decides as balancer"), Some("live")),
        ("unload balancer --shadow", format!("{aware} is no longer asked as balancer"), Some("shadow")),
        ("resume balancer --canary", format!("{other} decides as balancer again"), Some("canary")),
        ("resume balancer --shadow", format!("{other} is asked as balancer again"), Some("shadow")),
    ] {
        assert_eq!(place.printed(&format!("policy {line}")).await, format!("{expected}\n"), "{line}");
        let asked = place.asked.last();
        assert!(asked.contains("kind: \"balancer\""), "{asked}");
        assert!(role.is_none_or(|role| asked.contains(&format!("role: \"{role}\""))), "{asked}");
    }
    let told = place.json("policy rollback balancer").await;
    assert_eq!((&told["policy"], &told["replaced"]["generation"]), (&Value::Null, &3.into()));
}

#[tokio::test]
async fn what_was_recorded_is_what_is_replayed() {
    let place = Place::new().await;
    let told = place.printed("policy record t.jsonl").await;
    assert!(told.starts_with("t.jsonl has 1 decisions and 1 ends of 0s; 2 were missed\n"), "{told}");
    let trace = fs::read_to_string(place.path("t.jsonl")).expect("it was written");
    assert_eq!(trace.lines().count(), 3);
    let (code, told) = place.refused("policy record t.jsonl").await;
    assert!(code == Some(73) && told.contains("--force"), "{told}");
    let told = place.json("policy record t.jsonl --force --max 1").await;
    assert_eq!((&told["decisions"], &told["missed"]), (&1.into(), &2.into()), "{told}");

    fs::write(place.path("t.jsonl"), trace).expect("it can be written");
    let told = place.printed("policy replay t.jsonl --with least-loaded").await;
    assert!(told.starts_with("1 decisions, 1 of them with a choice\n"), "{told}");
    let asked = place.asked.last();
    assert!(asked.starts_with("[Some(With(ReplayWith {") && asked.contains("Strategy(\"least-loaded\")"), "{asked}");
    for record in host::records() {
        let record = format!("Some(Record({record:?}))");
        assert!(asked.contains(&record), "{record} is not in {asked}");
    }
    place.module("p.wasm");
    place.printed("policy replay t.jsonl --with p.wasm --time 1ms").await;
    assert!(place.asked.last().contains("Wasm([0, 97, 115, 109") && place.asked.last().contains("time_us: 1000"));
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_is_replayed() {
    let place = Place::new().await;
    place.printed("policy record t.jsonl").await;
    let mut trace = fs::read_to_string(place.path("t.jsonl")).expect("it was written");
    trace.push_str("{\"end\": {\"number\": \"one\"}}\n");
    fs::write(place.path("t.jsonl"), &trace).expect("it can be written");
    let (code, told) = place.refused("policy replay t.jsonl --with random").await;
    assert!(code == Some(65) && told.contains("t.jsonl:4: column 24: invalid type: string \"one\", expected u64"), "{told}");
    assert_eq!(place.asked.last(), "", "the part before it was taken for the whole");
    fs::write(place.path("t.jsonl"), "\n").expect("it can be written");
    let (code, told) = place.refused("policy replay t.jsonl --with random").await;
    assert!(code == Some(65) && told.contains("has no decisions"), "{told}");
    let (code, told) = place.refused("policy replay t.jsonl --with random --time 1ms").await;
    assert!(code == Some(64) && told.contains("`random`"), "{told}");
    assert_eq!(place.refused("policy replay absent --with random").await.0, Some(65));
    assert_eq!(place.refused("policy replay t.jsonl --with absent.wasm").await.0, Some(65));
}

#[tokio::test]
async fn a_recording_ends_by_itself_when_its_time_is_over() {
    let place = Place::with(true).await;
    let told = place.printed("policy record t.jsonl --for 100ms").await;
    assert!(told.starts_with("t.jsonl has 1 decisions and 1 ends"), "{told}");
}

#[cfg(unix)]
#[tokio::test]
async fn ctrl_c_is_a_good_end_of_a_recording() {
    let place = Place::with(true).await;
    let child = place.command("policy record t.jsonl").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // what came is on file within a second, while the recording goes on
    let is_written = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while fs::metadata(place.path("t.jsonl")).map_or(0, |file| file.len()) == 0 {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), is_written).await.expect("it is flushed");
    let id = child.id().expect("it runs").to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().await.expect("there is `kill`");
    assert!(sent.success());
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("t.jsonl has 1 decisions and 1 ends"), "{}", text(&output.stdout));
    assert_eq!(fs::read_to_string(place.path("t.jsonl")).expect("it was written").lines().count(), 3);
}

#[tokio::test]
async fn an_explanation_stands_beside_the_answer() {
    let place = Place::new().await;
    let output = place.run("infer why --explain --label team=search --label team2= --tier 2 --answers 3").await;
    assert_eq!(text(&output.stdout), "It is blue\n");
    let told = text(&output.stderr);
    assert!(
        told.starts_with("node       tiny-2\nchosen by  balancer latency-aware (generation 3, 9f1c2a7b43de); decided in"),
        "{told}"
    );
    assert!(told.contains("\n*  tiny-2 "), "{told}");
    let asked = place.asked.last();
    for part in ["explain: true", "\"team\": \"search\"", "\"team2\": \"\"", "tier: Some(2)", "answers: 3"] {
        assert!(asked.contains(part), "{part} is not in {asked}");
    }
    let told = place.json("infer why --explain").await;
    assert_eq!((&told["route"]["chosen"], &told["route"]["policy"]["generation"]), (&"tiny-2".into(), &3.into()), "{told}");
    assert_eq!((&told["route"]["candidates"][1]["score"], &told["route"]["fallback"]), (&0.5.into(), &Value::Null), "{told}");
    let plain = place.run("infer why").await;
    assert_eq!((text(&plain.stdout), text(&plain.stderr)), ("It is blue\n".to_owned(), String::new()));
    assert_eq!(place.json("infer why").await["route"], Value::Null);
}

#[tokio::test]
async fn a_new_policy_is_a_crate_with_the_interfaces() {
    let place = Place::new().await;
    let told = place.printed("policy new my-policy --world tracking-balancer").await;
    assert!(told.contains("release/my_policy.wasm --as balancer\n"), "{told}");
    let read = |file: &str| fs::read_to_string(place.path("my-policy").join(file)).expect("it was written");
    assert!(read("Cargo.toml").contains("name = \"my-policy\""));
    assert!(read("wit/world.wit").contains("include llambo:policy/tracking-balancer@0.1.0;"));
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/policy.wit");
    assert_eq!(read("wit/policy.wit"), fs::read_to_string(wit).expect("it is in the project"));
    let (code, told) = place.refused("policy new my-policy --world fusion").await;
    assert!(code == Some(73) && told.contains("`my-policy` exists and is not empty"), "{told}");
    place.printed("policy new other --world fusion --path deep/folder").await;
    assert!(place.path("deep/folder/src/lib.rs").is_file());
}
