//! Names and identities. Each is its own type, so that a model's name is never taken for a node's.

use std::{fmt, sync::Arc};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl<T: AsRef<str>> From<T> for $name {
            fn from(text: T) -> Self {
                Self(Arc::from(text.as_ref()))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// What a client calls a model, for example `builtin:demo`.
    ModelName
}
name! {
    /// A node type of the configuration, for example `tiny`.
    TypeName
}
name! {
    /// Whose requests these are. What one tenant's requests left in a cache is never used for another's.
    TenantName
}
name! {
    /// One place that serves requests: an isolate of this host or a remote host.
    NodeId
}
name! {
    /// One request, as its client or the edge named it. Appears in logs and answers, never as a metric label.
    RequestId
}
