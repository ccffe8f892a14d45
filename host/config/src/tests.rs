mod scaling;
mod security;

use std::{fs, path::PathBuf, time::Duration};

use crate::{
    Config, ConfigErrors, DEFAULT, FilePath, KvType, LogFormat, MAX_FILE_BYTES, ModelSource, ModuleSource, Strategy, sections,
};

/// The smallest configuration; sections are appended to it.
const SMALL: &str = "models: [{path: 'builtin:demo'}]\ntypes: {tiny: {count: 1}}\n";

fn parse(text: &str) -> Config {
    Config::parse(text, "c.yaml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> Vec<String> {
    match Config::parse(text, "c.yaml") {
        Ok(config) => panic!("no error in {text:?}: {config:?}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// The only error in the smallest configuration with `section` appended.
fn error(section: &str) -> String {
    let found = errors(&format!("{SMALL}{section}"));
    assert_eq!(found.len(), 1, "{section:?}: {found:#?}");
    found[0].clone()
}

fn repeated(n_lines: usize, line: impl Fn(usize) -> String) -> String {
    (0..n_lines).map(line).collect::<Vec<_>>().concat()
}

// === the shipped file ===

#[test]
fn a_model_of_the_catalog_is_named_by_its_name() {
    let text = "models: [{path: 'catalog:qwen', draft: 'catalog:small'}]\ntypes: {t: {count: 1, model: qwen}}\n";
    let config = Config::parse(text, "c.yaml").unwrap();
    let model = &config.models[0];
    assert_eq!((model.name.as_str(), &model.source), ("qwen", &ModelSource::Catalog("qwen".into())));
    assert_eq!(model.draft, Some(ModelSource::Catalog("small".into())));
    let wrong = Config::parse(&text.replace("catalog:qwen", "catalog:"), "c.yaml").unwrap_err().to_string();
    assert!(wrong.contains("`catalog:NAME`"), "{wrong}");
}

#[test]
fn the_shipped_file_starts_a_thousand_tiny_isolates_on_the_built_in_model() {
    let config = Config::shipped();
    let types: Vec<_> = config.types.iter().map(|t| (t.name.as_str(), t.count, t.memory_bytes, t.cpu)).collect();
    assert_eq!(types, [("tiny", 1000, 128 << 20, 0.1), ("medium", 0, 1 << 30, 0.5), ("large", 0, 8 << 30, 1.0)]);
    assert!(config.types.iter().all(|t| config.model(&t.model).is_some_and(|m| m.source == ModelSource::Demo)));
    assert!(config.types.iter().all(|t| t.module == ModuleSource::Default));
    assert_eq!(config.types[2].linear_memory_bytes(), 4 << 30);
    assert_eq!(config.network.grpc.to_string(), "127.0.0.1:7400");
    assert_eq!(config.network.http.to_string(), "127.0.0.1:7480");
    assert!(config.network.page && !parse(&format!("{SMALL}network: {{page: false}}")).network.page);
}

#[test]
fn what_the_shipped_file_writes_out_are_the_defaults() {
    let (shipped, small) = (Config::shipped(), parse(SMALL));
    assert_eq!(shipped.models, small.models);
    assert_eq!(shipped.balancing, small.balancing);
    assert_eq!(shipped.queue, small.queue);
    assert_eq!(shipped.sessions, small.sessions);
    assert_eq!(shipped.network, small.network);
    assert_eq!(shipped.shutdown, small.shutdown);
    assert_eq!(shipped.logging, small.logging);
    assert_eq!((shipped.metrics, &shipped.tracing), (small.metrics, &small.tracing));
    assert_eq!(shipped.cache, small.cache);
    let mut tiny = shipped.types[0].clone();
    (tiny.count, tiny.cpu) = (1, 1.0);
    assert_eq!(tiny, small.types[0]);
}

#[test]
fn every_key_is_described_in_the_shipped_file() {
    for (section, keys) in sections::KEYS {
        let begin = if section.is_empty() { 0 } else { DEFAULT.find(&format!("\n{section}:\n")).expect(section) + 1 };
        let is_next = |line: &&str| !section.is_empty() && line.starts_with(char::is_alphabetic) && !line.starts_with(section);
        let lines: Vec<&str> = DEFAULT[begin..].lines().take_while(|line| !is_next(line)).collect();
        for key in *keys {
            let is_key = |line: &&str| line.trim_start_matches([' ', '-', '#']).starts_with(&format!("{key}:"));
            assert!(lines.iter().any(is_key), "`{key}` of section `{section}` is not in cluster-config.yaml");
        }
    }
}

// === what is accepted ===

#[test]
fn json_of_the_same_shape_is_the_same_configuration() {
    let json = "{\n\t\"models\": [{\"path\": \"builtin:demo\", \"kv-type\": \"q8_0\", \"context\": 512}],\n\
        \t\"types\": {\"tiny\": {\"count\": 3, \"cpu\": 0.25, \"memory\": \"64MB\", \"module\": \"caf\\u00e9\\/g.wasm\"}},\n\
        \t\"queue\": {\"max-wait\": \"250ms\"},\n\t\"network\": {\"insecure\": true, \"http\": \"[::]:0\"}\n}";
    let yaml = "models:\n- path: builtin:demo\n  kv-type: q8_0\n  context: 512\ntypes:\n  tiny:\n    count: 3\n    cpu: 0.25\n    \
        memory: 64MB\n    module: café/g.wasm\nqueue:\n  max-wait: 250ms\nnetwork:\n  insecure: true\n  http: '[::]:0'\n";
    assert_eq!(parse(json), parse(yaml));
    assert_eq!(parse(json).models[0].kv_type, KvType::Q8_0);
    assert_eq!(parse(json).queue.max_wait, Duration::from_millis(250));
    assert_eq!(errors("{\"models\": 1,\n \"types\": {\"tiny\": {\"count\": 1}}}").len(), 1);
}

#[test]
fn relative_paths_count_from_the_folder_of_the_file() {
    let text = "models: [{path: models/q.gguf}, {path: /m/q.gguf, name: q}]\ntypes: {tiny: {count: 1, module: g.wasm}}\n\
        cache: {modules: ../cache}\n";
    let config = Config::parse(text, "/etc/llambo/c.yaml").unwrap();
    let path = |written: &str, resolved: &str| FilePath { written: written.into(), resolved: PathBuf::from(resolved) };
    assert_eq!(config.models[0].source, ModelSource::File(path("models/q.gguf", "/etc/llambo/models/q.gguf")));
    assert_eq!(config.models[0].name, "models/q.gguf");
    assert_eq!(config.models[1].source, ModelSource::File(path("/m/q.gguf", "/m/q.gguf")));
    assert_eq!(config.types[0].model, "models/q.gguf");
    assert_eq!(config.types[0].module, ModuleSource::File(path("g.wasm", "/etc/llambo/g.wasm")));
    assert_eq!(config.cache.modules, Some(path("../cache", "/etc/llambo/../cache")));
    assert_eq!(parse(text).types[0].module, ModuleSource::File(path("g.wasm", "g.wasm")));
}

#[test]
fn anchors_and_merges_share_settings_between_types() {
    let text = "models: [{path: 'builtin:demo'}]\ntypes:\n  tiny: &base {count: 2, memory: 1MB, cpu: 0.5}\n  \
        small: {<<: *base, count: 3}\n  other: *base\n";
    let types = parse(text).types;
    assert_eq!(types.iter().map(|t| t.count).collect::<Vec<_>>(), [2, 3, 2]);
    assert!(types.iter().all(|t| t.memory_bytes == 1 << 20));
    // a mistake in what is shared is one place in the file, though it is wrong for each of them
    let found = errors(&text.replace("cpu: 0.5", "cpu: 0"));
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|e| e.starts_with("c.yaml:3:44: `types.")), "{found:#?}");
}

#[test]
fn every_choice_and_an_empty_section_are_accepted() {
    for (name, strategy) in Strategy::NAMES {
        assert_eq!(parse(&format!("{SMALL}balancing: {{strategy: {name}}}")).balancing.strategy, *strategy);
    }
    assert_eq!(parse(&format!("{SMALL}logging: {{format: json, level: 'warn, a::b=TRACE'}}")).logging.format, LogFormat::Json);
    assert_eq!(parse(&format!("\u{feff}{SMALL}cache:\nqueue: {{max-waiting: 1e3}}\r\n")).queue.max_waiting, 1000);
}

#[test]
fn a_hundred_and_fifty_types_may_share_one_anchor() {
    let types = repeated(150, |n| format!("  t{n}: *base\n"));
    assert_eq!(
        parse(&format!("models: [{{path: 'builtin:demo'}}]\ntypes:\n  base: &base {{count: 1}}\n{types}")).types.len(),
        151
    );
}

// === what is refused ===

#[test]
fn five_mistakes_are_five_errors_each_at_its_place() {
    let text = "\
models:
  - name: demo
    path: builtin:demo
    context: 32
    gpu_layers: 1
types:
  tiny:
    count: many
    memory: 128MB
    model: demoo
queue:
  max-wait: 30
";
    assert_eq!(
        errors(text),
        [
            "c.yaml:4:14: `models[0].context` is 32, but must be a whole number from 64 to 1048576; raise it",
            "c.yaml:5:5: `models[0].gpu_layers` is not a known key; did you mean `gpu-layers`?",
            "c.yaml:8:12: `types.tiny.count` is `many`, but must be a whole number from 0 to 200000; write a whole number",
            "c.yaml:10:12: `types.tiny.model` is `demoo`, but `models` has only `demo`; did you mean `demo`?",
            "c.yaml:12:13: `queue.max-wait` is 30, but must be a duration with ms, s, m or h, such as `30s`; write it like that",
        ]
    );
    let found = Config::parse(text, "c.yaml").unwrap_err();
    assert_eq!(found.as_slice()[3].path, "types.tiny.model");
    assert_eq!((found.as_slice()[3].line, found.as_slice()[3].column), (10, 12));
    assert_eq!(found.to_string().lines().count(), 5);
}

#[test]
fn a_wrong_value_is_reported_with_what_to_do() {
    for (section, expected) in [
        ("queue: {max-waiting: -1}", "`queue.max-waiting` is -1, but must be a whole number from 0 to 1000000; raise it"),
        ("queue: {max-in-flight: 1e20}", "must be a whole number from 1 to 100000; lower it"),
        ("queue: {max-in-flight: 0.5}", "is 0.5, but must be a whole number from 1 to 100000; write a whole number"),
        ("queue: {max-wait: 25h}", "is `25h`, but must be from 1ms to 24h; lower it"),
        ("queue: []", "`queue` is a list, but must be a map with keys such as `max-waiting`"),
        ("balancing: {strategy: least-load}", "did you mean `least-loaded`?"),
        ("balancing: {strategy: 7}", "is 7, but must be one of `round-robin`, `least-loaded`"),
        ("balancing: {attempts: }", "`balancing.attempts` is empty; give it a value"),
        ("network: {max-request-size: 65MB}", "is `65MB`, but must be from 1KB to 64MB; lower it"),
        ("network: {grpc: 'localhost:7400'}", "must be an IP address and a port; write it like `127.0.0.1:7400`"),
        (
            "network: {grpc: '0.0.0.0:1'}",
            "nobody has to show a token; use 127.0.0.1, give `tenants` tokens (`llamboctl token new`), or accept it",
        ),
        ("network: {insecure: yes, grpc: '0.0.0.0:1'}", "is `yes`, but must be `true` or `false`"),
        ("network: {http: '127.0.0.1:7400'}", "`network.http` is `127.0.0.1:7400`, but `network.grpc` has that port too"),
        ("network: {grpc: '127.0.0.1:7480'}", "`network.grpc` is `127.0.0.1:7480`, but `network.http` has that port too"),
        ("logging: {level: inof}", "did you mean `info`?"),
        ("tracing: {otlp: 'https://c:4317'}", "must be `http://` and where a collector listens"),
        ("tracing: {otlp: 'http://me:secret@c:4317'}", "without credentials"),
        ("tracing: {otlp: 'http://'}", "write it like `http://127.0.0.1:4317`"),
        ("tracing: {sample: 1.5}", "must be from 0 to 1; lower it"),
        ("tracing: {protocol: grcp}", "did you mean `grpc`?"),
        ("metrics: {alias: true}", "did you mean `aliases`?"),
        ("logging: {level: 'warn,=info'}", "each part must be a level"),
        ("cache: {modules: ~/x}", "`~` is not expanded here; write the whole path"),
        ("cache: {modules: 12}", "is 12, but must be text; put it in quotes"),
        ("cache: {modules: ''}", "is an empty text"),
        ("shutdwon: {drain: 1s}", "`shutdwon` is not a known key; did you mean `shutdown`?"),
        ("something: 1", "`something` is not a known key; remove it; known here: `models`, `gpu`, `catalog`, `types`"),
        ("queue: {max-wait: 1s}\nqueue: {max-wait: 2s}", "`queue` is already set in line 3; remove one of them"),
    ] {
        let found = error(section);
        assert!(found.contains(expected), "{section:?}: {found}");
        assert!(found.starts_with("c.yaml:3:") || found.starts_with("c.yaml:4:"), "{found}");
    }
}

#[test]
fn types_belong_to_tenants_with_weights() {
    let config =
        parse(&format!("{SMALL}tenants: {{acme: {{weight: 2.5}}, zoo: {{}}}}").replace("count: 1", "count: 1, tenant: acme"));
    assert_eq!(config.types[0].tenant, "acme");
    assert_eq!(["acme", "zoo", "default"].map(|name| config.tenant_weight(name).to_string()), ["2.5", "1", "1"]);
    assert!(error("tenants: {Acme: {}}").contains("is not a name for a tenant"));
    assert!(error("tenants: {acme: {weight: 0}}").contains("raise it"));
}

#[test]
fn the_smaller_budget_of_type_and_tenant_counts() {
    let config = parse(
        &format!("{SMALL}tenants: {{acme: {{max-tokens: 100, max-time: 5m, max-kv: 2MB}}}}")
            .replace("count: 1", "count: 1, tenant: acme, max-tokens: 200, max-time: 10s, max-kv: 1MB"),
    );
    let budget = config.budget(&config.types[0]);
    assert_eq!((budget.tokens, budget.time), (Some(100), Some(std::time::Duration::from_secs(10))));
    assert_eq!(budget.kv_bytes, Some(1 << 20));
    assert_eq!(parse(SMALL).budget(&parse(SMALL).types[0]), crate::RequestBudget::default());
}

#[test]
fn a_name_is_compared_even_where_its_model_is_wrong() {
    let found = errors("models: [{name: a, path: x}, {name: a, path: 'builtin:dmeo'}]\ntypes: {a: {count: 1}}");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("c.yaml:1:37: `models[1].name` is `a`, but `models[0]` has that name already"), "{found:#?}");
}

#[test]
fn a_wrong_type_or_model_is_reported_with_what_to_do() {
    for (models, types, expected) in [
        ("[]", "{a: {count: 1}}", "c.yaml:1:9: `models` is a list, but has no entry; list at least one"),
        ("[{}]", "{a: {count: 1}}", "`models[0].path` is missing; give a GGUF file"),
        ("[{pathh: x}]", "{a: {count: 1, model: x}}", "`models[0].pathh` is not a known key; did you mean `path`?"),
        ("[{path: 'builtin:dmeo'}]", "{a: {count: 1}}", "did you mean `builtin:demo`?"),
        ("[x.gguf]", "{a: {count: 1}}", "`models[0]` is `x.gguf`, but must be a map"),
        ("{path: x}", "{a: {count: 1}}", "`models` is a map, but must be a list"),
        (
            "[{path: x}, {path: x}]",
            "{a: {count: 1}}",
            "c.yaml:1:28: `models[1].path` is `x`, but `models[0]` has that name already",
        ),
        ("[{path: x, path: y}]", "{a: {count: 1}}", "c.yaml:1:20: `models[0].path` is already set in line 1"),
        ("[{path: x}]", "{}", "`types` is a map, but has no entry"),
        ("[{path: x}]", "{a: {}}", "c.yaml:2:9: `types.a.count` is missing"),
        ("[{path: x}]", "{A: {count: 1}}", "c.yaml:2:9: `types.A` is not a name for a type"),
        ("[{path: x}]", "{a: {count: 1}, a: {count: 2}}", "c.yaml:2:24: `types.a` is already set in line 2"),
        ("[{path: x}]", "{a: {count: 1, tenant: acme}}", "is `acme`, but `tenants` has only `default`; name one of them"),
        ("[{path: x}]", "{a: {count: 200001}}", "must be a whole number from 0 to 200000; lower it"),
        ("[{path: x}]", "{a: {count: 1, cpu: 65}}", "is 65, but must be from 0.001 to 64; lower it"),
        ("[{path: x}]", "{a: {count: 1, cpu: .inf}}", "is `.inf`, but must be a number"),
        ("[{path: x}]", "{a: {count: 1, memory: 65GB}}", "must be from 1MB to 64GB; lower it"),
        ("[{path: x}]", "{a: {count: 1, memory: 128M}}", "is `128M`, but must be a number of bytes or a size with KB, MB or GB"),
        ("[{path: x}]", "{a: {count: 1, stack: 1KB}}", "must be from 64KB to 1MB; raise it"),
        ("[{path: x}]", "{a: {count: 1, module: default}}", "must be `builtin:default` or the path of a module"),
        ("[{path: x}]", "{a: {count: 1, module: 'builtin:defualt'}}", "did you mean `builtin:default`?"),
    ] {
        let found = errors(&format!("models: {models}\ntypes: {types}\n"));
        assert_eq!(found.len(), 1, "{models} {types}: {found:#?}");
        assert!(found[0].contains(expected), "{models} {types}: {found:#?}");
    }
}

#[test]
fn a_document_that_is_no_map_is_told_what_it_is() {
    for text in ["", "# nothing\n", "---\n", "{}"] {
        let found = errors(text);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].contains(": `models` is missing;") && found[1].contains(": `types` is missing;"), "{found:#?}");
        assert!(found[0].starts_with("c.yaml:1:") || text.starts_with('#'), "{found:#?}");
    }
    let found = errors("- models\n");
    assert!(found[0].starts_with("c.yaml:1:1: the file is a list, but must be a map with keys such as"), "{found:#?}");
}

#[test]
fn text_that_is_not_yaml_is_one_error_with_its_place() {
    for (text, beginning) in [
        ("models: [\n", "c.yaml:1:9: this is not YAML: unclosed bracket"),
        ("models:\n  - path: x\n bad: 1\n", "c.yaml:3:2: this is not YAML: "),
        ("a: \u{1}\n", "c.yaml:1:4: this is not YAML: unexpected character"),
        ("models: *nowhere\n", "c.yaml:1:9: no anchor of that name"),
        ("a: 1\n---\nb: 2\n", "c.yaml:3:1: a second document"),
        ("models: !secret x\n", "c.yaml:1:17: unsupported tag `!secret`"),
        ("? [a, b]\n: 1\n", "c.yaml:1:3: this key is not text"),
        ("~: 1\n", "c.yaml:1:1: this key is not text"),
        ("a: &a [*a]\n", "c.yaml:1:8: the alias stands inside what it repeats"),
        ("a: {<<: 1}\n", "c.yaml:1:9: YAML merge value must be mapping"),
    ] {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(beginning) && !found[0].contains('\n'), "{text:?}: {found:#?}");
    }
}

#[test]
fn a_small_file_cannot_become_a_large_tree() {
    let nine = |n: usize| vec![format!("*a{n}"); 9].join(", ");
    let laughs = format!("a0: &a0 [l, o, l]\n{}", repeated(40, |n| format!("a{0}: &a{0} [{1}]\n", n + 1, nine(n))));
    let merges = repeated(2_000, |n| format!("b{n}: {{<<: *base}}\n"));
    let base = repeated(2_000, |n| format!("  k{n}: 1\n"));
    for (text, expected) in [
        (laughs, "the file has more than 100000 values"),
        (format!("base: &base\n{base}{merges}"), "the file has more than 100000 values"),
        ("[".repeat(1_000_000), "this is not YAML: "),
        ("- ".repeat(1_000_000), "or 32 levels"),
    ] {
        let found = errors(&text);
        assert!(found.len() == 1 && found[0].contains(expected) && found[0].len() < 500, "{:.500}", found[0]);
    }
}

#[test]
fn text_of_the_file_cannot_spoil_a_message() {
    let found = error("\"a\\nb\\u001b[31m\": 1");
    assert!(found.contains("`a\\nb\\u{1b}[31m` is not a known key"), "{found}");
    assert!(error(&format!("{}: 1", "k".repeat(900))).len() < 500);
}

// === files ===

fn load(name: &str, bytes: &[u8]) -> Result<Config, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    Config::load(&path)
}

fn load_error(bytes: &[u8]) -> String {
    let found = load("c.yaml", bytes).unwrap_err();
    assert_eq!(found.as_slice().len(), 1, "{found}");
    let text = found.to_string();
    text[text.find("c.yaml").unwrap()..].to_owned()
}

#[test]
fn a_file_is_loaded_and_its_folder_is_where_paths_begin() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.json");
    fs::write(&path, r#"{"models": [{"path": "m.gguf"}], "types": {"a": {"count": 1}}}"#).unwrap();
    let ModelSource::File(model) = &Config::load(&path).unwrap().models[0].source.clone() else { panic!("not a file") };
    assert_eq!(model.resolved, folder.path().join("m.gguf"));
    assert_eq!(load("c.yaml", DEFAULT.as_bytes()).unwrap(), Config::shipped());
}

#[test]
fn a_file_that_cannot_be_used_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().display();
    assert_eq!(
        Config::load(folder.path()).unwrap_err().to_string(),
        format!("{name}: is a folder; give the path of the file in it")
    );
    let missing = Config::load(folder.path().join("x")).unwrap_err();
    assert_eq!(missing.to_string(), format!("{name}/x: does not exist; check the path"));
    assert_eq!(load_error(b"models:\n  \xc3\xa4\xff\n"), "c.yaml:2:4: byte 0xff is not UTF-8; save the file as UTF-8");
    assert_eq!(load("c.yaml", b"").unwrap_err().as_slice().len(), 2);
}

#[test]
fn a_file_may_have_four_mebibytes_and_not_a_byte_more() {
    let mut bytes = SMALL.as_bytes().to_vec();
    bytes.resize(usize::try_from(MAX_FILE_BYTES).unwrap(), b'\n');
    assert!(load("c.yaml", &bytes).is_ok());
    bytes.push(b'\n');
    assert!(load_error(&bytes).starts_with("c.yaml: is larger than 4MB,"));
    bytes.resize(5 << 20, b'#');
    assert!(load_error(&bytes).starts_with("c.yaml: is larger than 4MB,"));
}
