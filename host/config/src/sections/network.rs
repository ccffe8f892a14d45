//! Where requests come in, and what keeps others out.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use super::{Accepted, DAY, KB, MB, MS, file_path};
use crate::{
    Access, Network, TenantConfig, Tls,
    decode::{Map, Value},
};

pub(super) const NETWORK: &[&str] = &[
    "grpc", "http", "max-request-size", "client-stall-timeout", "page", "insecure", "access", "open-metrics", "tls",
    "max-connections", "max-header-size", "header-timeout", "idle-timeout",
];
pub(super) const TLS: &[&str] = &["certificate", "key", "client-ca", "require-client-certificate"];

/// What HTTP/1 reads at once; a request's head is at least given that.
const SMALLEST_HEAD: u64 = 8 * KB;

pub(super) fn network(root: &Map<'_>, tenants: Option<&[TenantConfig]>, folder: &Path, accepted: Accepted) -> Network {
    let map = root.section("network", NETWORK);
    // A value that is neither true nor false is one mistake, not a second one at each address.
    let insecure = map.get("insecure").is_some_and(|value| value.switch().unwrap_or(true)) || accepted == Accepted::Insecure;
    let defaults = [7400, 7480].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let [grpc, http] = [("grpc", defaults[0]), ("http", defaults[1])].map(|(key, default)| address(&map, key, default));
    if let (Some(grpc), Some(http)) = (grpc, http)
        && grpc.port() == http.port()
        && grpc.port() != 0
        && (grpc.ip() == http.ip() || grpc.ip().is_unspecified() || http.ip().is_unspecified())
    {
        let (value, other) = match map.get("http") {
            Some(value) => (Some(value), "grpc"),
            None => (map.get("grpc"), "http"),
        };
        value.inspect(|value| value.wrong(format_args!("`network.{other}` has that port too"), "give it another port"));
    }
    let tls = map.get("tls").and_then(|value| tls(&value, folder));
    check_certificates_are_asked_for(root, &map, tenants, tls.as_ref());
    let network = Network {
        grpc: grpc.unwrap_or(defaults[0]),
        http: http.unwrap_or(defaults[1]),
        max_request_bytes: map.size("max-request-size", KB..=64 * MB).unwrap_or(4 * MB),
        client_stall_timeout: map.duration("client-stall-timeout", MS..=DAY).unwrap_or(Duration::from_secs(20)),
        page: map.switch("page").unwrap_or(true),
        insecure,
        access: access(&map, tenants),
        open_metrics: map.switch("open-metrics"),
        tls,
        max_connections: map.whole("max-connections", 1..=1_000_000).unwrap_or(4096),
        max_header_bytes: map
            .size("max-header-size", SMALLEST_HEAD..=MB)
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(32 << 10),
        header_timeout: map.duration("header-timeout", 100 * MS..=DAY).unwrap_or(Duration::from_secs(10)),
        idle_timeout: map.duration("idle-timeout", 100 * MS..=DAY).unwrap_or(Duration::from_secs(75)),
    };
    // with tenants that could not be read, or TLS that is wrong, it is not known how open the host is
    if tenants.is_some() && (network.tls.is_some() || map.get("tls").is_none()) {
        for key in ["grpc", "http"] {
            let Some(value) = map.get(key) else { continue };
            let at = if key == "grpc" { network.grpc } else { network.http };
            if let Some(exposure) = network.exposure(at) {
                value.wrong(exposure, exposure.advice());
            }
        }
    }
    network
}

/// `None` when it was wrong.
fn address(map: &Map<'_>, key: &'static str, default: SocketAddr) -> Option<SocketAddr> {
    let Some(value) = map.get(key) else { return Some(default) };
    let Ok(address) = value.text()?.parse::<SocketAddr>() else {
        value.wrong("must be an IP address and a port", format_args!("write it like `{default}` or `[::1]:{}`", default.port()));
        return None;
    };
    Some(address)
}

/// Who can show something has to: otherwise tokens would only seem to protect.
fn access(map: &Map<'_>, tenants: Option<&[TenantConfig]>) -> Access {
    let known = tenants.unwrap_or_default().iter().any(TenantConfig::is_known);
    let Some(access) = map.choice("access", Access::NAMES) else {
        return if known { Access::Tokens } else { Access::Open };
    };
    if access == Access::Tokens
        && !known
        && tenants.is_some()
        && let Some(value) = map.get("access")
    {
        let advice = "give one `tokens` (`llamboctl token new`), a `tokens-file` or `certificates`";
        value.wrong("no tenant has a token or a certificate", advice);
    }
    access
}

fn tls(value: &Value<'_>, folder: &Path) -> Option<Tls> {
    let map = value.map(TLS)?;
    let path = |value: Value<'_>| file_path(&value, value.text()?, folder);
    let certificate = map.require("certificate", "name the PEM file with the host's certificate").and_then(path);
    let key = map.require("key", "name the PEM file with its private key").and_then(path);
    let client_ca = map.get("client-ca").map(path);
    let require_client_certificate = map.switch("require-client-certificate").unwrap_or(false);
    if require_client_certificate && client_ca.is_none() {
        let value = map.get("require-client-certificate")?;
        value.wrong("there is no `client-ca` to check certificates against", "name the PEM file with the roots of your clients");
    }
    let client_ca = match client_ca {
        Some(path) => Some(path?),
        None => None,
    };
    Some(Tls { certificate: certificate?, key: key?, client_ca, require_client_certificate })
}

/// A tenant that is known by certificates would otherwise never be.
fn check_certificates_are_asked_for(root: &Map<'_>, network: &Map<'_>, tenants: Option<&[TenantConfig]>, tls: Option<&Tls>) {
    let is_unasked = match tls {
        Some(tls) => tls.client_ca.is_none(),
        None => network.get("tls").is_none(),
    };
    let with = tenants.unwrap_or_default().iter().find(|tenant| !tenant.certificates.is_empty());
    if let (true, Some(tenant), Some(value)) = (is_unasked, with, root.get("tenants")) {
        let entries = value.named().unwrap_or_default();
        let entry = entries.into_iter().find(|(name, _)| *name == tenant.name).map(|(_, entry)| entry);
        entry.inspect(|entry| {
            entry.wrong_key("has `certificates`, but no client is asked for one; set `network.tls.client-ca`, or remove them");
        });
    }
}
