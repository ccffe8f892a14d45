//! The page that the host serves: that what is compiled in is what its sources give, and that it works in a browser.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use llambo_tests::Host;
use sha2::{Digest, Sha256};

use crate::{SMALL, installed};

/// Names of the browsers that the suite can drive, as systems call them.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// Tokens of a host that wants one. They open nothing else.
const SEER: &str = "llambo_may-infer-and-observe-0123456789";
const ASKER: &str = "llambo_may-infer-and-no-more-0123456789";

fn passes(command: &mut Command) {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
}

#[test]
fn the_page_is_what_its_sources_give() {
    let folder = installed::page();
    let node = |words: &[&str]| {
        let mut command = Command::new("node");
        command.args(words).current_dir(&folder);
        command
    };
    let out = tempfile::tempdir().unwrap();
    passes(node(&["build.mjs"]).arg(out.path()));
    let committed = installed::page_sources().join("dist");
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(out.path()), names(&committed), "run `cargo xtask page`, and commit what it makes");
    for name in names(&committed) {
        let same = fs::read(out.path().join(&name)).unwrap() == fs::read(committed.join(&name)).unwrap();
        assert!(
            same,
            "host/edge/page/dist/{} is of other sources: run `cargo xtask page`, and commit what it makes",
            name.display()
        );
    }
    passes(&mut node(&["node_modules/typescript/bin/tsc", "--noEmit"]));
    passes(&mut node(&["test.mjs"]));
}

/// `LLAMBO_BROWSER`, or one that is found by its name.
fn browser() -> Option<PathBuf> {
    if let Some(named) = env::var_os("LLAMBO_BROWSER") {
        return Some(named.into());
    }
    let path = env::var_os("PATH")?;
    let all = env::split_paths(&path).flat_map(|folder| BROWSERS.map(|name| folder.join(name)));
    all.into_iter().find(|program| program.is_file())
}

#[test]
fn the_page_works_in_a_browser() {
    let Some(browser) = browser() else {
        eprintln!("NOT TESTED: the page in a browser, because there is no chromium; install it, or name one by LLAMBO_BROWSER");
        return;
    };
    let open = Host::start(&SMALL.replace("{count: 40}", "{count: 40}, agents: {count: 8}"));
    let hash = |token: &str| {
        Sha256::digest(token.as_bytes()).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    let guarded = Host::start(&format!(
        "models: [{{name: demo-small, path: builtin:demo-small}}]\ntypes: {{tiny: {{count: 8}}}}\ntenants:\n  seer: {{tokens: ['sha256:{}'], may: [infer, \
         observe]}}\n  asker: {{tokens: ['sha256:{}'], may: [infer]}}\n",
        hash(SEER),
        hash(ASKER)
    ));
    let mut suite = Command::new("node");
    suite.args(["--test", "page.test.mjs"]).current_dir(installed::browser_suite());
    suite.env("LLAMBO_HTTP", format!("http://{}", open.http())).env("LLAMBO_GUARDED", format!("http://{}", guarded.http()));
    suite.env("LLAMBO_TOKENS", format!("{SEER} {ASKER}")).env("LLAMBO_BROWSER", browser);
    // proxies are for what is elsewhere
    passes(suite.env("NO_PROXY", "127.0.0.1"));
}
