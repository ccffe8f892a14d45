//! What does not start, and how it is told.

use std::{fs, process::Output};

use llambo_catalog::Builtin;
use llambo_tests::{Host, guest, llambo};

fn serve(config: &str) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    fs::write(&file, config).unwrap();
    let output = llambo(&["serve", "--config", file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{told}");
    assert!(!told.contains("panicked"), "{told}");
    (output, told)
}

const NETWORK: &str = "network: {grpc: 127.0.0.1:0, http: 127.0.0.1:0}\n";

#[test]
fn five_mistakes_in_a_configuration_are_told_together() {
    let (output, told) = serve(
        "models: [{path: builtin:demo-small, sequences: 0}]
types:
  tiny: {count: many, memroy: 1GB}
balancing: {strategy: fastest}
queue: {max-wait: 5}
",
    );
    assert_eq!(output.status.code(), Some(78));
    for place in [":1:", ":3:", ":4:", ":5:"] {
        assert!(told.contains(place), "{place} in {told}");
    }
    for named in ["sequences", "count", "memroy", "fastest", "max-wait"] {
        assert!(told.contains(named), "{named} in {told}");
    }
}

#[test]
fn a_broken_model_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Builtin::DemoSmall.bytes();
    let cases: [(&str, &[u8], &str); 4] = [
        ("cut.gguf", &whole[..whole.len() / 2], "cut.gguf"),
        ("text.gguf", b"this is no model", "GGUF"),
        ("empty.gguf", b"", "GGUF"),
        ("lies.gguf", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x7f", "GGUF"),
    ];
    for (name, bytes, says) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let (output, told) = serve(&format!("models: [{{path: {path:?}}}]\ntypes: {{tiny: {{count: 1}}}}\n{NETWORK}"));
        assert_eq!(output.status.code(), Some(69), "{told}");
        assert!(told.contains(says) && told.contains(name), "{told}");
    }
    let (_, told) = serve(&format!("models: [{{path: /no/such/model.gguf}}]\ntypes: {{tiny: {{count: 1}}}}\n{NETWORK}"));
    assert!(told.contains("/no/such/model.gguf"), "{told}");
}

#[test]
fn a_broken_module_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(guest("default-engine")).unwrap();
    let cases: [(&str, &[u8], &str); 4] = [
        ("cut.wasm", &whole[..whole.len() / 2], "cannot be used"),
        ("text.wasm", b"this is no module", "not WebAssembly"),
        ("core.wasm", b"\0asm\x01\0\0\0", "core module"),
        ("other.wasm", b"\0asm\x0d\0\x01\0", "handle"),
    ];
    for (name, bytes, says) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let (_, told) =
            serve(&format!("models: [{{path: builtin:demo-small}}]\ntypes: {{tiny: {{count: 1, module: {path:?}}}}}\n{NETWORK}"));
        assert!(told.contains(says) && told.contains("types.tiny"), "{told}");
    }
}

#[test]
fn more_isolates_than_there_is_room_for_are_refused_with_the_limit() {
    let config = format!("models: [{{path: builtin:demo-small}}]\ntypes: {{large: {{count: 200000, memory: 4GB}}}}\n{NETWORK}");
    let (_, told) = serve(&config);
    assert!(told.contains("vm.max_map_count") || told.contains("addresses"), "{told}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    fs::write(&file, config).unwrap();
    let check = llambo(&["check", "--config", file.to_str().unwrap()]);
    assert!(!check.status.success());
    assert!(String::from_utf8_lossy(&check.stdout).contains("problem"));
}

#[test]
fn a_port_in_use_is_named() {
    let host = Host::start("models: [{path: builtin:demo-small}]\ntypes: {tiny: {count: 1}}");
    let taken = host.grpc().trim_start_matches("http://").to_owned();
    let output = llambo(&["serve", "--grpc", &taken, "--http", "127.0.0.1:0"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(told.contains(&taken) && told.contains("another"), "{told}");
    let open = llambo(&["serve", "--grpc", "0.0.0.0:0"]);
    assert_eq!(open.status.code(), Some(78), "an open port without authentication is refused");
}

#[test]
fn a_host_that_others_could_misuse_does_not_start() {
    const HASH: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let config = |rest: &str| format!("models: [{{path: builtin:demo-small}}]\ntypes: {{tiny: {{count: 1}}}}\n{rest}\n");
    let open = "network: {grpc: 0.0.0.0:0, http: 127.0.0.1:0}";
    let with_tokens = format!("tenants: {{acme: {{tokens: ['{HASH}']}}}}\n");
    let clear = with_tokens.clone() + open;
    for (rest, says) in [(open, "nobody has to show a token"), (clear.as_str(), "unencrypted")] {
        let (output, told) = serve(&config(rest));
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.contains(says) && told.contains("c.yaml:") && told.contains("--insecure"), "{told}");
    }
    let tls = with_tokens + "network: {grpc: 127.0.0.1:0, http: 127.0.0.1:0, tls: {certificate: gone.pem, key: gone.key}}";
    let (output, told) = serve(&config(&tls));
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(told.contains("network.tls.certificate") && told.contains("gone.pem"), "{told}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    fs::write(&file, config(&(tls + "\n"))).unwrap();
    let check = llambo(&["check", "--config", file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&check.stdout);
    assert!(told.contains("problem  `network.tls.certificate`"), "{told}");
}

#[test]
fn check_compiles_what_serve_would_compile() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(guest("default-engine")).unwrap();
    for (i, bytes) in [&whole[..whole.len() / 2], b"this is no module"].into_iter().enumerate() {
        let module = folder.path().join(format!("{i}.wasm"));
        fs::write(&module, bytes).unwrap();
        let file = folder.path().join("c.yaml");
        let config = format!(
            "models: [{{path: builtin:demo-small, context: 4096}}]\ntypes: {{tiny: {{count: 1, module: {module:?}}}}}\n{NETWORK}"
        );
        fs::write(&file, config).unwrap();
        let output = llambo(&["check", "--config", file.to_str().unwrap()]);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains("problem  types.tiny") && told.contains("trained for 1024"), "{told}");
        assert_eq!(output.status.code(), Some(69));
    }
}

#[test]
fn check_tells_what_a_configuration_takes() {
    let output = llambo(&["check"]);
    let told = String::from_utf8_lossy(&output.stdout);
    for line in ["model    builtin:demo", "isolates 1000", "machine"] {
        assert!(told.contains(line), "{told}");
    }
}
