//! Which nodes a request may choose from: those of its model, or of the type that it names; of other tenants none.

use llambo_inference::{InferenceError, ModelName, Share, TenantName, TypeName};

use crate::{
    error::DispatchError,
    registry::{NodeKey, Registry, Scope, ScopeId, TypeRow},
    wanted::Wanted,
};

/// Whose nodes these are; `None`: everybody's.
pub(crate) type Owner = Option<TenantName>;

impl Registry {
    /// The nodes that a request may go to: of its tenant's own, where it has some for that model, else of those that are everybody's.
    pub(crate) fn resolve(&self, wanted: &Wanted) -> Result<ScopeId, DispatchError> {
        let (model, tenant) = (&wanted.model, wanted.tenant());
        let Some(name) = &wanted.node_type else {
            return self.scope_for(model, tenant).ok_or_else(|| {
                let named = self.by_model.keys().filter(|model| self.scope_for(model, tenant).is_some());
                let mut loaded: Vec<_> = named.cloned().collect();
                loaded.sort();
                InferenceError::UnknownModel { model: model.clone(), loaded }.into()
            });
        };
        let visible = |row: &TypeRow| row.may_be_named() && self.may_use(row, tenant);
        let row = self.types.get(name).filter(|row| visible(row)).ok_or_else(|| DispatchError::UnknownType {
            node_type: name.clone(),
            known: self.types.iter().filter(|(_, row)| visible(row)).map(|(name, _)| name.clone()).collect(),
        })?;
        row.models.iter().find(|(served, _)| served == model).map(|(_, scope)| *scope).ok_or_else(|| {
            let serves = row.models.iter().map(|(served, _)| served.clone()).collect();
            DispatchError::WrongModel { node_type: name.clone(), model: model.clone(), serves }
        })
    }

    /// Scopes of types that serve a model to a tenant, those of the tier asked for first, then stronger ones, then weaker ones.
    pub(crate) fn by_tier(&self, model: &ModelName, tenant: &TenantName, tier: u8) -> Vec<(u8, ScopeId)> {
        let of_type = |row: &TypeRow| row.models.iter().find(|(served, _)| served == model).map(|(_, scope)| (row.tier, *scope));
        let rows = self.types.values().filter(|row| self.may_use(row, tenant));
        let mut scopes: Vec<_> = rows.filter_map(of_type).collect();
        scopes.sort_by_key(|(has, _)| if *has >= tier { *has - tier } else { u8::MAX - *has });
        scopes
    }

    /// Whether there are types of different tiers.
    pub(crate) fn has_tiers(&self) -> bool {
        let mut tiers = self.types.values().filter(|row| row.may_be_named()).map(|row| row.tier);
        tiers.next().is_some_and(|first| tiers.any(|tier| tier != first))
    }

    /// Whether types of different tiers serve a model to a tenant.
    pub(crate) fn has_tiers_for(&self, model: &ModelName, tenant: &TenantName) -> bool {
        let scopes = self.by_tier(model, tenant, 0);
        scopes.first().is_some_and(|(first, _)| scopes.iter().any(|(tier, _)| tier != first))
    }

    /// Whether nodes come to a scope by themselves when somebody waits in it.
    pub(crate) fn may_wake(&self, scope: ScopeId) -> bool {
        self.any_wakes && self.types.iter().any(|(name, row)| row.wakes && row.is_known && self.scopes_of(name).contains(&scope))
    }

    /// Notes that a request would have gone to a type that has no nodes and can get some. Answers whether nobody else can serve it.
    pub(crate) fn miss(&mut self, scope: ScopeId, wanted: &Wanted) -> bool {
        let is_empty = self.scope(scope).live == 0;
        if !self.any_wakes || (!is_empty && (wanted.tier.is_none() || wanted.node_type.is_some())) {
            return false;
        }
        let missed = if wanted.node_type.is_some() {
            Some(scope)
        } else {
            let scopes = self.by_tier(&wanted.model, wanted.tenant(), wanted.tier.unwrap_or(0));
            let can = |(_, id): &(u8, ScopeId)| self.scope(*id).live > 0 || self.may_wake(*id);
            scopes.into_iter().find(can).map(|(_, id)| id)
        };
        if let Some(missed) = missed.filter(|id| self.scope(*id).live == 0) {
            self.scopes[missed.0].is_missed = true;
        }
        is_empty
    }

    /// The scopes of a type's own nodes.
    pub(crate) fn own_scopes(&self, node_type: &TypeName) -> Vec<ScopeId> {
        self.types.get(node_type).map_or_else(Vec::new, |row| row.models.iter().map(|(_, scope)| *scope).collect())
    }

    /// They have nodes: nobody misses any.
    pub(crate) fn was_looked_at(&mut self, scopes: &[ScopeId]) {
        for id in scopes {
            self.scopes[id.0].is_missed = false;
        }
    }

    /// Types that have nodes in a scope.
    pub(crate) fn n_types_in(&self, scope: ScopeId) -> usize {
        let is_in = |(name, row): &(&TypeName, &TypeRow)| {
            row.models.iter().any(|(_, own)| self.scope(*own).live > 0) && self.scopes_of(name).contains(&scope)
        };
        self.types.iter().filter(is_in).count()
    }

    /// The scopes that requests for a type's nodes may wait in: its own and its models'.
    pub(crate) fn scopes_of(&self, node_type: &TypeName) -> Vec<ScopeId> {
        let Some(row) = self.types.get(node_type) else { return Vec::new() };
        let owner = row.tenant.as_ref().and_then(|tenant| self.owner(tenant));
        row.models.iter().flat_map(|(model, scope)| [Some(*scope), self.owned(model, owner.as_ref())]).flatten().collect()
    }

    pub(crate) fn model_scope(&mut self, model: &ModelName, tenant: &TenantName) -> ScopeId {
        let owner = self.owner(tenant);
        if let Some(scope) = self.owned(model, owner.as_ref()) {
            return scope;
        }
        let scope = self.new_scope();
        self.by_model.entry(model.clone()).or_default().push((owner, scope));
        scope
    }

    pub(crate) fn type_scope(&mut self, node_type: &TypeName, model: &ModelName) -> ScopeId {
        let row = self.types.entry(node_type.clone()).or_default();
        if let Some((_, scope)) = row.models.iter().find(|(served, _)| served == model) {
            return *scope;
        }
        let scope = self.new_scope();
        self.types.entry(node_type.clone()).or_default().models.push((model.clone(), scope));
        scope
    }

    fn new_scope(&mut self) -> ScopeId {
        self.scopes.push(Scope::default());
        ScopeId(self.scopes.len() - 1)
    }

    fn owner(&self, tenant: &TenantName) -> Owner {
        (self.is_separate && *tenant != Share::default().tenant).then(|| tenant.clone())
    }

    fn owned(&self, model: &ModelName, owner: Option<&TenantName>) -> Option<ScopeId> {
        self.by_model.get(model)?.iter().find(|(of, _)| of.as_ref() == owner).map(|(_, scope)| *scope)
    }

    /// The nodes of a model that a tenant's requests go to, if it may be asked.
    fn scope_for(&self, model: &ModelName, tenant: &TenantName) -> Option<ScopeId> {
        let own = self.owner(tenant);
        let owners = [own.as_ref(), None];
        owners.into_iter().find_map(|owner| self.owned(model, owner).filter(|scope| self.may_be_asked(model, *scope, owner)))
    }

    /// Whether requests may name a model: some node of that owner serves it, or a known type does once it has nodes.
    fn may_be_asked(&self, model: &ModelName, scope: ScopeId, owner: Option<&TenantName>) -> bool {
        let is_owners = |row: &TypeRow| row.tenant.as_ref().and_then(|tenant| self.owner(tenant)).as_ref() == owner;
        let serves = |row: &TypeRow| row.is_known && is_owners(row) && row.models.iter().any(|(served, _)| served == model);
        self.scope(scope).live > 0 || self.types.values().any(serves)
    }

    /// Whether a node that fails may rest: not so many that less than half of those who could do its work are left.
    pub(crate) fn may_rest(&self, key: NodeKey) -> bool {
        let places = self.entry(key).map(|entry| entry.places);
        places.is_some_and(|places| {
            places.into_iter().map(|(scope, _)| self.scope(scope)).all(|scope| (scope.resting + 1) * 2 <= scope.live)
        })
    }

    /// Whether a type's nodes work for a tenant.
    fn may_use(&self, row: &TypeRow, tenant: &TenantName) -> bool {
        row.tenant.as_ref().and_then(|tenant| self.owner(tenant)).is_none_or(|owner| owner == *tenant)
    }
}
