//! The configurations that are shipped for containers and for Kubernetes.

use llambo_config::{Config, Permission};

const CONTAINER: &str = include_str!("../../llambo/packaging/container.yaml");
const KUBERNETES: &str = include_str!("../../llambo/packaging/kubernetes.yaml");

fn parsed(text: &str) -> Config {
    Config::parse(text, "cluster-config.yaml").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// The configuration inside of the manifests.
fn in_kubernetes() -> String {
    let (_, rest) = KUBERNETES.split_once("cluster-config.yaml: |\n").expect("it holds a configuration");
    let (inner, _) = rest.split_once("\n---").expect("another manifest follows");
    inner.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_container_starts_with_a_configuration_that_is_valid_and_open_to_nobody_else() {
    let config = parsed(CONTAINER);
    assert!(config.network.grpc.ip().is_loopback() && config.network.http.ip().is_loopback());
    assert!(config.tasks.folder.is_some() && config.sessions.folder.is_some());
}

#[test]
fn in_kubernetes_tokens_are_needed_and_the_hook_may_drain() {
    let config = parsed(&in_kubernetes());
    assert_eq!(config.network.access, llambo_config::Access::Tokens);
    let operator = config.tenants.iter().find(|tenant| tenant.name == "operator").expect("the hook shows its token");
    assert!(operator.may.contains(&Permission::Operate));
}

#[test]
fn a_pod_gets_the_time_that_its_host_needs_to_drain() {
    let drain = parsed(&in_kubernetes()).shutdown.drain.as_secs();
    let seconds = |before: &str, after: char| -> u64 {
        let (_, rest) = KUBERNETES.split_once(before).unwrap_or_else(|| panic!("`{before}` is there"));
        rest.split(after)
            .next()
            .and_then(|number| number.trim().parse().ok())
            .unwrap_or_else(|| panic!("`{before}` has a number"))
    };
    let (hook, grace) = (seconds("--wait=", 's'), seconds("terminationGracePeriodSeconds:", '\n'));
    assert!(drain <= hook && hook < grace, "{drain} <= {hook} < {grace}");
}
