//! `llamboctl models` without a host: the catalog as scripts meet it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use llambo_catalog::{Builtin, digest_of};
use serde_json::Value;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamboctl"));
        command.args(args).env_clear().env("HOME", self.path()).stdin(Stdio::null());
        command.output().expect("the program starts")
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[&["--json"], args].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {told}");
        serde_json::from_slice(&output.stdout).expect("JSON on standard output")
    }

    fn error(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(output.stdout.is_empty(), "{args:?}");
        (output.status.code().expect("it ends by itself"), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Sends the small model to whoever asks; the first time half of it.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = format!("http://{}/demo.gguf", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        let asked = AtomicUsize::new(0);
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut from = 0;
            for line in BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                    from = range.trim_end_matches('-').parse().expect("a number");
                }
            }
            let file = Builtin::DemoSmall.bytes();
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let (end, length) = (file.len() - 1, file.len() - from);
            let head = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\netag: \"a\"\r\ncontent-length: {length}\r\n\
                 content-range: bytes {from}-{end}/{}\r\n\r\n",
                file.len()
            );
            let until = if asked.fetch_add(1, Ordering::Relaxed) == 0 { file.len() / 2 } else { file.len() };
            // whoever went away wants no more
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&file[from..until]));
        }
    });
    address
}

#[test]
fn a_model_is_downloaded_shown_listed_and_forgotten() {
    let (home, url) = (Home::new(), serve());
    let digest = digest_of(Builtin::DemoSmall.bytes());
    let done = home.json(&["models", "download", &url, "--name", "small", "--sha256", &digest]);
    assert_eq!(
        (done["name"].as_str(), done["sha256"].as_str(), done["state"].as_str()),
        (Some("small"), Some(&*digest), Some("here"))
    );
    let path = done["path"].as_str().expect("a path").to_owned();
    assert!(path.starts_with(home.path().join(".local/share/llambo/models").to_str().expect("it is UTF-8")), "{path}");
    let listed = home.json(&["models", "catalog"]);
    assert_eq!((listed.as_array().map(Vec::len), listed[0]["source"].as_str()), (Some(1), Some(&*url)));

    let shown = home.json(&["models", "show", "small", "--context", "128", "--sequences", "2"]);
    assert_eq!((shown["quantization"].as_str(), shown["chat_template"].as_bool()), (Some("F16"), Some(true)));
    let (needed, weights, kv) = (shown["needed_bytes"].as_u64(), shown["weight_bytes"].as_u64(), shown["kv_bytes"].as_u64());
    assert_eq!(needed, weights.zip(kv).map(|(weights, kv)| weights + kv));
    let file = home.path().join("c.yaml");
    fs::write(&file, "models: [{path: 'catalog:small', context: 128, sequences: 2}]\ntypes: {t: {count: 1}}\n")
        .expect("it can be written");
    let configured = home.json(&["models", "show", "small", "--config", file.to_str().expect("it is UTF-8")]);
    assert_eq!(configured["needed_bytes"].as_u64(), needed);

    let gone = home.json(&["models", "unregister", "small", "--delete"]);
    assert_eq!((gone["deleted"].as_bool(), Path::new(&path).exists()), (Some(true), false));
    assert_eq!(home.json(&["models", "catalog"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn a_file_is_registered_and_never_deleted() {
    let home = Home::new();
    let file = home.path().join("My Model.gguf");
    fs::write(&file, Builtin::Demo.bytes()).expect("it can be written");
    let text = file.to_str().expect("it is UTF-8");
    assert_eq!(home.json(&["models", "register", text])["name"], "my-model");
    // twice is once, another file is another name
    home.json(&["models", "register", text]);
    let other = home.path().join("other.gguf");
    fs::write(&other, Builtin::DemoSmall.bytes()).expect("it can be written");
    let other = other.to_str().expect("it is UTF-8");
    let (code, told) = home.error(&["models", "register", other, "--name", "my-model"]);
    assert!(code == 65 && told.contains("--name"), "{told}");
    home.json(&["models", "register", other, "--name", "my-model", "--replace"]);
    let (code, told) = home.error(&["models", "unregister", "my-model", "--delete"]);
    assert!(code == 65 && told.contains("leave out `--delete`"), "{told}");
    home.json(&["models", "unregister", "my-model"]);
    assert!(file.exists());
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let home = Home::new();
    let text = home.path().join("text.gguf");
    fs::write(&text, "<html>").expect("it can be written");
    let text = text.to_str().expect("it is UTF-8");
    for (args, code, told) in [
        (&["models", "show", "nobody"][..], 65, "models download"),
        (&["models", "unregister", "nobody"], 65, "`nobody`"),
        (&["models", "register", text], 65, "GGUF"),
        (&["models", "register", "/nowhere.gguf"], 65, "/nowhere.gguf"),
        (&["models", "register", "https://example.com/x.gguf"], 65, "models download"),
        (&["models", "register", "hf:no"], 65, "OWNER/REPO"),
        (&["models", "download", "ftp://x/y"], 65, "http://"),
        (&["models", "register", text, "--name", "a/b"], 65, "is no name"),
        (&["models", "show", "builtin:demo", "--context", "1"], 64, "invalid value"),
        (&["models", "download"], 64, "required"),
    ] {
        let (exit, error) = home.error(args);
        assert!(exit == code && error.contains(told), "{args:?}: {exit} {error}");
    }
    // a catalog that is damaged stays as it is
    let catalog = home.path().join("broken.json");
    fs::write(&catalog, "{").expect("it can be written");
    let path = catalog.to_str().expect("it is UTF-8");
    for args in [&["models", "catalog"][..], &["models", "register", "builtin:demo"]] {
        let (code, told) = home.error(&[args, &["--catalog", path]].concat());
        assert!(code == 65 && told.contains("damaged"), "{told}");
    }
    assert_eq!(fs::read_to_string(&catalog).expect("it is there"), "{");
}

#[test]
fn what_the_program_contains_is_shown_without_a_catalog() {
    let shown = Home::new().json(&["models", "show", "builtin:demo"]);
    assert_eq!((shown["architecture"].is_string(), shown["path"].is_null()), (true, true));
}
