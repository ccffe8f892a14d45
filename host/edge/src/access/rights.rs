//! What a tenant may do and have.

use std::fmt;

use llambo_inference::{InferenceError, ModelName, TenantName, TypeName};

use super::table::Need;

/// What a method can need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Ask models.
    Infer,
    /// Give tasks.
    Tasks,
    /// Hold sessions.
    Sessions,
    /// Publish guest modules.
    Modules,
    /// Load policies.
    Policies,
    /// Change nodes and balancing, and end the host.
    Operate,
    /// See status, nodes and metrics.
    Observe,
}

/// What somebody may do, and which models and types they may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// `None`: everything.
    may: Option<Vec<Permission>>,
    models: Option<Vec<ModelName>>,
    types: Option<Vec<TypeName>>,
}

// === impl Permission ===

impl Permission {
    /// All of them, in the order of the configuration's description.
    pub const ALL: [Self; 7] =
        [Self::Infer, Self::Tasks, Self::Sessions, Self::Modules, Self::Policies, Self::Operate, Self::Observe];

    /// As the configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Tasks => "tasks",
            Self::Sessions => "sessions",
            Self::Modules => "modules",
            Self::Policies => "policies",
            Self::Operate => "operate",
            Self::Observe => "observe",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Rights ===

impl Rights {
    pub(crate) fn new(may: &[Permission], models: Option<&[ModelName]>, types: Option<&[TypeName]>) -> Self {
        Self { may: Some(may.to_vec()), models: models.map(<[_]>::to_vec), types: types.map(<[_]>::to_vec) }
    }

    /// Of those who show nothing where nothing is required.
    pub(crate) fn all() -> Self {
        Self { may: None, models: None, types: None }
    }

    pub(super) fn meet(&self, need: Need) -> bool {
        let Some(may) = &self.may else { return true };
        match need {
            Need::Nothing | Need::Anyone => true,
            Need::May(permission) => may.contains(&permission),
            // who may change it must see it
            Need::Observe => may.contains(&Permission::Observe) || may.contains(&Permission::Operate),
        }
    }

    pub(crate) fn has_model(&self, model: &ModelName) -> bool {
        self.models.as_ref().is_none_or(|models| models.contains(model))
    }

    pub(crate) fn check_model(&self, tenant: &TenantName, model: &ModelName) -> Result<(), InferenceError> {
        if self.has_model(model) {
            return Ok(());
        }
        let known = self.models.as_deref().unwrap_or_default();
        Err(InferenceError::NotPermitted(format!("tenant `{tenant}` may not ask model `{model}`; it may ask: {}", listed(known))))
    }

    pub(crate) fn check_type(&self, tenant: &TenantName, node_type: &TypeName) -> Result<(), InferenceError> {
        let Some(types) = &self.types else { return Ok(()) };
        if types.contains(node_type) {
            return Ok(());
        }
        let known = listed(types);
        Err(InferenceError::NotPermitted(format!(
            "tenant `{tenant}` may not be served by type `{node_type}`; it may be by: {known}"
        )))
    }

    /// Types that may serve, if not all may.
    pub(crate) fn types(&self) -> Option<&[TypeName]> {
        self.types.as_deref()
    }
}

fn listed<T: fmt::Display>(names: &[T]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
