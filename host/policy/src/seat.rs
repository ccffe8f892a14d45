//! Where decisions of one kind are taken: by the live policy, or the canary for its share, with the shadow looking on.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use llambo_strategy::{Decision, Fallback, Kind, Policy, Role};

use crate::{
    installed::Installed,
    instance::Failure,
    occupants::Occupants,
    runner::{Ran, Runner},
    shadow::{Look, Shadows},
};

/// A policy that answers questions of a kind.
pub(crate) type Answering<K> = Installed<dyn Runner<K>>;

/// A policy whose turn it is, and in which role.
type Decider<K> = (Role, Arc<Answering<K>>);

/// The seat of one kind.
pub(crate) struct Seat<K: Kind> {
    pub(crate) occupants: Occupants<dyn Runner<K>>,
    shadows: Shadows<K>,
    /// Draws whose turn a canary is.
    lots: RandomState,
}

impl<K: Kind> Seat<K> {
    pub(crate) fn new() -> Self {
        Self { occupants: Occupants::none(), shadows: Shadows::default(), lots: RandomState::new() }
    }

    /// Whose turn it is, and who looks on.
    fn decider(&self, ask: &K::Ask) -> (Option<Decider<K>>, Option<Arc<Answering<K>>>) {
        self.occupants.look(|table| {
            let shadow = table.shadow.as_ref().map(|entry| Arc::clone(&entry.policy));
            let canary = table.canary.as_ref().filter(|(share, _)| self.draws(ask) < *share);
            let decider = match (canary, &table.live) {
                (Some((_, canary)), _) => Some((Role::Canary, Arc::clone(&canary.policy))),
                (None, Some(live)) => Some((Role::Live, Arc::clone(&live.policy))),
                (None, None) => None,
            };
            (decider, shadow)
        })
    }

    /// A number from 0 to 1 for a request: the same each time it is asked about.
    fn draws(&self, ask: &K::Ask) -> f64 {
        let lot = self.lots.hash_one(K::request(ask).map(|request| request.id.as_str()));
        lot as f64 / u64::MAX as f64
    }
}

/// Asks one policy and checks what it says.
pub(crate) fn answer<K: Kind>(policy: &Answering<K>, role: Role, ask: &Arc<K::Ask>) -> Result<Ran<K::Answer>, Fallback> {
    let ran = policy.watch(role, |runner| runner.run(ask))?;
    if let Some(answer) = &ran.answer
        && let Err(detail) = K::check(ask, answer)
    {
        return Err(policy.failed(role, &Failure::new(Fallback::Nonsense, detail), Duration::ZERO));
    }
    Ok(ran)
}

impl<K: Kind> Policy<K> for Seat<K> {
    fn is_loaded(&self) -> bool {
        self.occupants.is_taken()
    }

    fn decide(&self, ask: &Arc<K::Ask>) -> Decision<K::Answer> {
        let (decider, shadow) = self.decider(ask);
        let mut decision = Decision::built_in();
        if let Some((role, policy)) = decider {
            decision.by = Some(Arc::clone(policy.by(role)));
            match answer(&policy, role, ask) {
                Ok(Ran { answer: Some(answer), scores }) => (decision.answer, decision.scores) = (Some(answer), scores),
                Ok(Ran { answer: None, scores }) => {
                    policy.fell_back(Fallback::Declined);
                    (decision.fallback, decision.scores) = (Some(Fallback::Declined), scores);
                }
                Err(cause) => decision.fallback = Some(cause),
            }
        }
        if let Some(shadow) = shadow {
            let look = Look { shadow, ask: Arc::clone(ask), decided: decision.answer.clone() };
            if K::request(ask).is_some_and(|request| request.explain) {
                // somebody waits to read it
                decision.shadow = look.compare();
            } else {
                self.shadows.look(look);
            }
        }
        decision
    }

    fn gone(&self, decision: &Decision<K::Answer>) {
        let Some(by) = &decision.by else { return };
        let policy = self.occupants.look(|table| {
            let mut all = table.all();
            all.find(|(_, entry)| entry.generation == by.generation).map(|(_, entry)| Arc::clone(&entry.policy))
        });
        if let Some(policy) = policy {
            policy.fell_back(Fallback::Gone);
        }
    }
}
