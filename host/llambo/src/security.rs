//! Who is let in, and with what terms, from the configuration.

use std::collections::HashMap;

use llambo_config::{Access, Config, TenantConfig};
use llambo_edge::{AccessSettings, Limits, Permission, Security, TenantAccess, TlsSettings, TokenHash, check_tls, read_tokens};
use llambo_inference::{ModelName, TenantName, TypeName};
use llambo_orchestrator::Terms;

use crate::plan::Problem;

pub(crate) fn security(config: &Config) -> Security {
    let network = &config.network;
    Security {
        access: AccessSettings {
            required: network.access == Access::Tokens,
            open_metrics: network.metrics_are_open(),
            tenants: config.tenants.iter().map(access).collect(),
        },
        tls: tls(config),
        limits: Limits {
            max_connections: network.max_connections,
            max_header_bytes: network.max_header_bytes,
            header_timeout: network.header_timeout,
            idle_timeout: network.idle_timeout,
        },
    }
}

fn tls(config: &Config) -> Option<TlsSettings> {
    config.network.tls.as_ref().map(|tls| TlsSettings {
        certificate: tls.certificate.resolved.clone(),
        key: tls.key.resolved.clone(),
        client_ca: tls.client_ca.as_ref().map(|path| path.resolved.clone()),
        require_client_certificate: tls.require_client_certificate,
    })
}

fn access(tenant: &TenantConfig) -> TenantAccess {
    // both lists have the same names; a test holds them together
    let may = tenant.may.iter().filter_map(|may| Permission::ALL.into_iter().find(|known| known.as_str() == may.as_str()));
    TenantAccess {
        name: TenantName::from(&tenant.name),
        weight: tenant.weight,
        tokens: tenant.tokens.iter().copied().map(TokenHash::from).collect(),
        tokens_file: tenant.tokens_file.as_ref().map(|path| path.resolved.clone()),
        certificates: tenant.certificates.clone(),
        may: may.collect(),
        models: tenant.models.as_ref().map(|names| names.iter().map(ModelName::from).collect()),
        types: tenant.types.as_ref().map(|names| names.iter().map(TypeName::from).collect()),
    }
}

/// What each tenant's requests together may use.
pub(crate) fn terms(config: &Config) -> HashMap<TenantName, Terms> {
    let terms = |tenant: &TenantConfig| {
        let quota = tenant.quota;
        let terms = Terms {
            weight: tenant.weight,
            requests_per_minute: quota.requests_per_minute,
            tokens_per_minute: quota.tokens_per_minute,
            max_in_flight: quota.max_in_flight,
            max_waiting: quota.max_waiting,
        };
        (TenantName::from(&tenant.name), terms)
    };
    config.tenants.iter().map(terms).collect()
}

/// Files that cannot be used.
pub(crate) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(Err(error)) = tls(config).as_ref().map(check_tls) {
        problems.push(Problem { what: error.to_string(), remedy: "without it nobody can connect".into() });
    }
    for tenant in &config.tenants {
        if let Some(Err(error)) = tenant.tokens_file.as_ref().map(|path| read_tokens(&path.resolved)) {
            let what = format!("tenants.{}: {error}", tenant.name);
            problems.push(Problem { what, remedy: "the host does not start without it".into() });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_of_the_configuration_is_known_to_the_edge() {
        let names = Permission::ALL.map(Permission::as_str).join(", ");
        let text = format!(
            "models: [{{path: 'builtin:demo'}}]\ntypes: {{t: {{count: 1}}}}\ntenants: {{a: {{may: [{names}], max-in-flight: 7}}}}\n"
        );
        let config = Config::parse(&text, "c.yaml").unwrap();
        assert_eq!(access(&config.tenants[0]).may, Permission::ALL);
        assert_eq!(terms(&config)[&TenantName::from("a")].max_in_flight, Some(7));
        assert_eq!(security(&Config::shipped()).limits, Limits::default());
    }
}
