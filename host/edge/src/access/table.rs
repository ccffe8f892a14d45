//! What each method needs: the one table for both protocols.

use std::fmt;

use super::Permission;

/// What somebody must be or have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Open to all: probes.
    Nothing,
    /// Whoever is known.
    Anyone,
    /// This permission.
    May(Permission),
    /// `observe`, or `operate`, which includes it.
    Observe,
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    Http,
}

const INFER: Need = Need::May(Permission::Infer);
const TASKS: Need = Need::May(Permission::Tasks);
const SESSIONS: Need = Need::May(Permission::Sessions);
const MODULES: Need = Need::May(Permission::Modules);
const POLICIES: Need = Need::May(Permission::Policies);
const OPERATE: Need = Need::May(Permission::Operate);

/// Paths and what they need; a path that ends in `*` stands for all that begin so. The first row that fits counts.
const GRPC: [(&str, Need); 41] = [
    ("/llambo.v1.Inference/Generate", INFER),
    ("/llambo.v1.Inference/Infer", INFER),
    ("/llambo.v1.Inference/Embed", INFER),
    ("/llambo.v1.Inference/ListModels", INFER),
    ("/llambo.v1.Cluster/Spawn", OPERATE),
    ("/llambo.v1.Cluster/Scale", OPERATE),
    ("/llambo.v1.Cluster/Drain", OPERATE),
    ("/llambo.v1.Cluster/Hibernate", OPERATE),
    ("/llambo.v1.Cluster/Wake", OPERATE),
    ("/llambo.v1.Cluster/ListNodes", Need::Observe),
    ("/llambo.v1.Cluster/ListHosts", Need::Observe),
    ("/llambo.v1.Cluster/Status", Need::Observe),
    ("/llambo.v1.Cluster/WatchStatus", Need::Observe),
    ("/llambo.v1.Cluster/WatchEvents", Need::Observe),
    ("/llambo.v1.Cluster/GetBalancer", Need::Observe),
    ("/llambo.v1.Cluster/SetBalancer", OPERATE),
    ("/llambo.v1.Modules/LoadModule", MODULES),
    ("/llambo.v1.Modules/ListModules", MODULES),
    ("/llambo.v1.Modules/UnloadModule", MODULES),
    ("/llambo.v1.Modules/RollBackModule", MODULES),
    ("/llambo.v1.Models/LoadModel", OPERATE),
    ("/llambo.v1.Models/UnloadModel", OPERATE),
    ("/llambo.v1.Models/PinModel", OPERATE),
    ("/llambo.v1.Policies/LoadPolicy", POLICIES),
    ("/llambo.v1.Policies/ListPolicies", POLICIES),
    ("/llambo.v1.Policies/PromotePolicy", POLICIES),
    ("/llambo.v1.Policies/RollBackPolicy", POLICIES),
    ("/llambo.v1.Policies/UnloadPolicy", POLICIES),
    ("/llambo.v1.Policies/ResumePolicy", POLICIES),
    ("/llambo.v1.Policies/RecordRoutes", POLICIES),
    ("/llambo.v1.Policies/ReplayRoutes", POLICIES),
    ("/llambo.v1.Faults/InjectFault", OPERATE),
    ("/llambo.v1.Faults/ListFaults", OPERATE),
    ("/llambo.v1.Faults/ClearFaults", OPERATE),
    ("/llambo.v1.Sessions/*", SESSIONS),
    ("/llambo.v1.Tasks/*", TASKS),
    // what somebody adds and forgets here is the operator's
    ("/llambo.*", OPERATE),
    ("/grpc.health.v1.Health/*", Need::Nothing),
    ("/grpc.reflection.v1.ServerReflection/*", Need::Anyone),
    ("/grpc.reflection.v1alpha.ServerReflection/*", Need::Anyone),
    ("*", Need::Anyone),
];
const HTTP: [(&str, Need); 15] = [
    ("/livez", Need::Nothing),
    ("/readyz", Need::Nothing),
    ("/health", Need::Nothing),
    ("/openapi.json", Need::Nothing),
    // the page is the same for everybody; what it shows it asks for with its reader's token
    ("/", Need::Nothing),
    ("/page/*", Need::Nothing),
    ("/metrics", Need::Observe),
    ("/v1/*", INFER),
    ("/v2/tasks", TASKS),
    ("/v2/tasks/*", TASKS),
    ("/v2/sessions", SESSIONS),
    ("/v2/sessions/*", SESSIONS),
    ("/cluster/execute", INFER),
    ("/cluster/*", Need::Observe),
    ("*", Need::Anyone),
];

// === impl Protocol ===

impl Protocol {
    pub(crate) fn need(self, path: &str) -> Need {
        let rows = match self {
            Self::Grpc => &GRPC[..],
            Self::Http => &HTTP[..],
        };
        let fits = |row: &str| row.strip_suffix('*').map_or(path == row, |begin| path.starts_with(begin));
        rows.iter().find(|(row, _)| fits(row)).map_or(Need::Anyone, |(_, need)| *need)
    }
}

// === impl Need ===

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Anyone => f.write_str("a token"),
            Self::May(permission) => write!(f, "`{permission}`"),
            Self::Observe => write!(f, "`{}`", Permission::Observe),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Methods of llambo's own services, as paths.
    fn methods() -> Vec<String> {
        let files = FileDescriptorSet::decode(llambo_proto::FILE_DESCRIPTOR_SET).unwrap().file;
        let services = files.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
        services
            .flat_map(|(package, service)| {
                service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
            })
            .collect()
    }

    #[test]
    fn every_method_of_the_protocol_has_a_row() {
        let methods = methods();
        assert!(methods.len() >= 26, "{methods:?}");
        for method in &methods {
            let service = format!("{}/*", method.rsplit_once('/').unwrap().0);
            let has_row = GRPC.iter().any(|(row, _)| *row == method.as_str() || *row == service.as_str());
            assert!(has_row, "`{method}` has no row: say what it needs");
        }
        for (row, _) in GRPC.iter().filter(|(row, _)| row.starts_with("/llambo") && !row.ends_with('*')) {
            assert!(methods.iter().any(|method| method == row), "`{row}` is no method");
        }
    }

    #[test]
    fn what_changes_the_host_is_the_operators() {
        for method in ["Spawn", "Drain", "SetBalancer", "ComesLater"] {
            assert_eq!(Protocol::Grpc.need(&format!("/llambo.v1.Cluster/{method}")), OPERATE);
        }
        assert_eq!(Protocol::Grpc.need("/llambo.v1.Cluster/Status"), Need::Observe);
        assert_eq!(Protocol::Grpc.need("/grpc.health.v1.Health/Watch"), Need::Nothing);
        assert_eq!(Protocol::Http.need("/v1/chat/completions"), INFER);
        assert_eq!(Protocol::Http.need("/livezz"), Need::Anyone);
        assert_eq!((Protocol::Http.need("/"), Protocol::Http.need("/page/page.js")), (Need::Nothing, Need::Nothing));
        assert_eq!((Protocol::Http.need("//"), Protocol::Http.need("/page")), (Need::Anyone, Need::Anyone));
        assert_eq!(Protocol::Http.need("/cluster/watch"), Need::Observe);
        assert_eq!(Protocol::Http.need("/cluster/cells/7"), Need::Observe);
        assert_eq!(Protocol::Http.need("//metrics"), Need::Anyone);
    }
}
