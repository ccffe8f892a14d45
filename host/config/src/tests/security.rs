//! Tenants, and who reaches the host.

use std::{fs, path::PathBuf};

use super::{SMALL, error, errors, parse};
use crate::{Access, Config, Permission, Quota};

/// SHA-256 of the empty text, as good as any.
const HASH: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn a_tenant_is_read_with_all_it_has() {
    let config = parse(&format!(
        "{SMALL}tenants:\n  acme:\n    tokens: ['{HASH}']\n    tokens-file: acme.tokens\n    may: [infer, observe]\n    models: [a, b]\n    \
         types: [tiny]\n    requests-per-minute: 60\n    tokens-per-minute: 1000\n    max-in-flight: 4\n    max-waiting: 0\n  zoo: {{}}\n"
    ));
    let [acme, zoo] = &config.tenants[..] else { panic!("{:?}", config.tenants) };
    assert_eq!((acme.tokens.len(), acme.tokens[0][0], acme.tokens[0][31]), (1, 0xe3, 0x55));
    assert_eq!(acme.tokens_file.as_ref().unwrap().resolved, PathBuf::from("acme.tokens"));
    assert_eq!(acme.may, [Permission::Infer, Permission::Observe]);
    assert_eq!(
        (acme.models.as_deref().unwrap(), acme.types.as_deref().unwrap()),
        (&["a".into(), "b".into()][..], &["tiny".into()][..])
    );
    let quota =
        Quota { requests_per_minute: Some(60), tokens_per_minute: Some(1000), max_in_flight: Some(4), max_waiting: Some(0) };
    assert_eq!(acme.quota, quota);
    assert_eq!(zoo.may, [Permission::Infer, Permission::Tasks, Permission::Sessions]);
    assert_eq!((zoo.quota, zoo.models.clone(), zoo.is_known()), (Quota::default(), None, false));
}

#[test]
fn a_token_makes_every_request_need_one() {
    let with = |tenants: &str, network: &str| parse(&format!("{SMALL}tenants: {tenants}\nnetwork: {network}\n")).network;
    assert_eq!(with("{a: {}}", "{}").access, Access::Open);
    assert_eq!(with(&format!("{{a: {{tokens: ['{HASH}']}}}}"), "{}").access, Access::Tokens);
    assert_eq!(with("{a: {tokens-file: f}}", "{}").access, Access::Tokens);
    assert_eq!(with("{a: {tokens-file: f}}", "{access: open}").access, Access::Open);
    assert!(error("network: {access: tokens}").contains("no tenant has a token or a certificate; give one `tokens`"));
}

#[test]
fn metrics_are_open_where_only_this_machine_can_ask() {
    let network = |network: &str| parse(&format!("{SMALL}tenants: {{a: {{tokens-file: f}}}}\nnetwork: {network}\n")).network;
    assert!(network("{}").metrics_are_open());
    assert!(!network("{open-metrics: false}").metrics_are_open());
    assert!(!network("{http: '10.0.0.1:1', insecure: true}").metrics_are_open());
    assert!(network("{http: '10.0.0.1:1', insecure: true, open-metrics: true}").metrics_are_open());
    assert!(parse(&format!("{SMALL}network: {{open-metrics: false}}")).network.metrics_are_open());
}

#[test]
fn an_address_of_the_network_needs_tokens_and_encryption() {
    let with = |network: &str| format!("{SMALL}tenants: {{a: {{tokens-file: f}}}}\nnetwork: {network}\n");
    let tls = "tls: {certificate: c.pem, key: k.pem}";
    let found = errors(&with("{grpc: '0.0.0.0:1'}"));
    assert!(found.len() == 1 && found[0].contains("unencrypted; use 127.0.0.1, set `network.tls`"), "{found:?}");
    assert_eq!(parse(&with(&format!("{{grpc: '0.0.0.0:1', {tls}}}"))).network.exposure("10.1.1.1:1".parse().unwrap()), None);
    assert!(errors(&format!("{SMALL}network: {{grpc: '0.0.0.0:1', {tls}}}"))[0].contains("nobody has to show a token"));
    assert_eq!(parse(&with("{grpc: '0.0.0.0:1', insecure: true}")).network.grpc.port(), 1);
    assert_eq!(parse(&with("{grpc: '[::ffff:127.0.0.1]:1'}")).network.grpc.port(), 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    fs::write(&path, format!("{SMALL}network: {{grpc: '0.0.0.0:1'}}\n")).unwrap();
    assert!(Config::load(&path).is_err());
    assert!(Config::load_insecure(&path).unwrap().network.insecure);
}

#[test]
fn what_is_wrong_with_tenants_and_tls_is_told_at_its_place() {
    let token = "llambo_0123456789abcdef";
    for (section, expected) in [
        (format!("tenants: {{a: {{tokens: [{token}]}}}}"), "`tenants.a.tokens[0]` must be `sha256:` and 64 hexadecimal digits"),
        ("tenants: {a: {tokens: ['sha256:xyz']}}".into(), "make a token with `llamboctl token new`"),
        (format!("tenants: {{a: {{tokens: ['{HASH}']}}, b: {{tokens: ['{HASH}']}}}}"), "but `tenants.a` has it already"),
        ("tenants: {a: {may: [infre]}}".into(), "did you mean `infer`?"),
        ("tenants: {a: {max-in-flight: 0}}".into(), "raise it"),
        ("tenants: {a: {certificates: [x]}}".into(), "`tenants.a` has `certificates`, but no client is asked for one"),
        ("network: {tls: {certificate: c.pem}}".into(), "`network.tls.key` is missing; name the PEM file"),
        (
            "network: {tls: {certificate: c, key: k, require-client-certificate: true}}".into(),
            "there is no `client-ca` to check certificates against",
        ),
        ("network: {max-header-size: 1KB}".into(), "must be from 8KB to 1MB; raise it"),
        ("network: {max-connections: 0}".into(), "raise it"),
    ] {
        let found = error(&section);
        assert!(found.contains(expected), "{section:?}: {found}");
        assert!(!found.contains(token), "{found}");
    }
}
