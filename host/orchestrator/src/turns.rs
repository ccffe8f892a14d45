//! Whose turn it is among those who wait: start-time fair queueing (Goyal et al. 1996) over tenants and priorities. Pure.
//!
//! Each tenant has two flows, one for what somebody waits for and one, with a sixteenth of its weight, for batch work. A request costs what it is
//! likely to take; each gets a turn behind those of its own flow, as far as cost and weight make it. The lowest turn goes first. Who was
//! away begins where those are who are there: being away saves nothing up.

use std::collections::{BTreeSet, HashMap};

use llambo_inference::{GenerateRequest, Priority, TenantName};

use crate::{queue::Ticket, registry::ScopeId};

/// Whose requests, of which kind.
pub(crate) type FlowKey = (TenantName, Priority);

/// Steps in a turn that a token of a tenant of weight 1 takes.
const STEPS: f64 = 4096.0;
/// What a request is taken for that does not say how long its answer may be.
const USUAL_TOKENS: u32 = 256;
/// What any request costs beside its tokens, and the most that one is taken for: what it says it may take is not what it takes.
const BASE_TOKENS: u32 = 16;
const MOST_TOKENS: u32 = 4096;
/// Bytes of a prompt's token, about; and what such a token costs beside a generated one.
const PROMPT_BYTES: usize = 4;
const PROMPT_PARTS: usize = 8;
/// Flows that are kept although nobody waits in them.
const IDLE_FLOWS: usize = 1024;

/// The flows.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    flows: HashMap<FlowKey, Flow>,
    /// The turn that was served last.
    now: u128,
}

#[derive(Debug, Default)]
struct Flow {
    /// The turn of whoever comes next.
    next: u128,
    weight: f64,
    waiting: BTreeSet<(Ticket, ScopeId)>,
}

/// What a request's turn depends on.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) flow: FlowKey,
    weight: f64,
    cost: u32,
}

// === impl Claim ===

impl Claim {
    pub(crate) fn of(request: &GenerateRequest) -> Self {
        let weight = request.share.tenant_weight * request.priority.factor();
        let n_prompt = u32::try_from(request.prompt.n_bytes() / (PROMPT_BYTES * PROMPT_PARTS)).unwrap_or(u32::MAX);
        let n_answer = request.sampling.max_tokens.unwrap_or(USUAL_TOKENS);
        let cost = BASE_TOKENS.saturating_add(n_prompt).saturating_add(n_answer).min(MOST_TOKENS);
        Self { flow: (request.share.tenant.clone(), request.priority), weight: weight.max(1e-6), cost }
    }
}

// === impl Turns ===

impl Turns {
    /// The turn of a request that comes now.
    pub(crate) fn turn(&mut self, claim: &Claim) -> u128 {
        if self.flows.len() > IDLE_FLOWS && !self.flows.contains_key(&claim.flow) {
            let now = self.now;
            self.flows.retain(|_, flow| !flow.waiting.is_empty() || flow.next > now);
        }
        let flow = self.flows.entry(claim.flow.clone()).or_default();
        let turn = flow.next.max(self.now);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and far below the largest")]
        let steps = (f64::from(claim.cost) * STEPS / claim.weight) as u128;
        (flow.next, flow.weight) = (turn + steps.max(1), claim.weight);
        turn
    }

    /// A request with this turn is served.
    pub(crate) fn served(&mut self, turn: u128) {
        self.now = self.now.max(turn);
    }

    pub(crate) fn waits(&mut self, flow: &FlowKey, ticket: Ticket, scope: ScopeId) {
        self.flows.entry(flow.clone()).or_default().waiting.insert((ticket, scope));
    }

    pub(crate) fn left(&mut self, flow: &FlowKey, ticket: Ticket, scope: ScopeId) {
        if let Some(flow) = self.flows.get_mut(flow) {
            flow.waiting.remove(&(ticket, scope));
        }
    }

    /// How many requests of a tenant wait.
    pub(crate) fn n_waiting(&self, tenant: &TenantName) -> usize {
        let flow = |priority| self.flows.get(&(tenant.clone(), priority)).map_or(0, |flow| flow.waiting.len());
        flow(Priority::Interactive) + flow(Priority::Batch)
    }

    /// Who gives up a place in a full queue for one more of this claim: the last of the flow that has the most places for its weight, if it would
    /// still have more than the claim's flow.
    pub(crate) fn displaced(&self, claim: &Claim) -> Option<(Ticket, ScopeId)> {
        let mine = self.flows.get(&claim.flow).map_or(0, |flow| flow.waiting.len()) + 1;
        let largest = self.flows.iter().max_by(|a, b| a.1.load(0).total_cmp(&b.1.load(0)).then_with(|| a.0.cmp(b.0)))?.1;
        let takes = largest.load(1) >= mine as f64 / claim.weight;
        largest.waiting.last().copied().filter(|_| takes)
    }
}

// === impl Flow ===

impl Flow {
    /// Places for its weight, with so many fewer.
    fn load(&self, fewer: usize) -> f64 {
        if self.waiting.is_empty() { 0.0 } else { (self.waiting.len() - fewer) as f64 / self.weight }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn claim(tenant: u8, weight: f64, priority: Priority, cost: u32) -> Claim {
        Claim { flow: (format!("t{tenant}").into(), priority), weight: weight * priority.factor(), cost }
    }

    /// Serves by turn what all flows always have more of; answers what each was served.
    fn serve(claims: &[Claim], n: usize) -> Vec<u64> {
        let mut turns = Turns::default();
        let mut waiting: BTreeSet<(u128, usize)> = BTreeSet::new();
        for _ in 0..3 {
            waiting.extend(claims.iter().enumerate().map(|(i, claim)| (turns.turn(claim), i)));
        }
        let mut served = vec![0; claims.len()];
        for _ in 0..n {
            let (turn, i) = waiting.pop_first().unwrap();
            turns.served(turn);
            served[i] += u64::from(claims[i].cost);
            waiting.insert((turns.turn(&claims[i]), i));
        }
        served
    }

    proptest! {
        #[test]
        fn what_flows_are_served_is_as_their_weights(flows in vec((1u8..8, 16u32..512), 2..6)) {
            let claims: Vec<Claim> = (0u8..).zip(&flows).map(|(i, (w, cost))| claim(i, f64::from(*w), Priority::Interactive, *cost)).collect();
            let served = serve(&claims, 4000);
            let share = |i: usize| served[i] as f64 / claims[i].weight;
            for i in 1..claims.len() {
                let of_one = claims.iter().map(|c| f64::from(c.cost) / c.weight).fold(0.0, f64::max);
                prop_assert!((share(i) - share(0)).abs() <= 2.0 * of_one, "{:?}", served);
            }
        }
    }

    #[test]
    fn batch_work_gets_a_seventeenth_beside_others_and_is_never_forgotten() {
        let served = serve(&[claim(0, 1.0, Priority::Interactive, 100), claim(0, 1.0, Priority::Batch, 100)], 1700);
        assert!((95..=105).contains(&(served[1] / 100)), "{served:?}");
    }

    #[test]
    fn one_that_was_away_begins_where_the_others_are() {
        let mut turns = Turns::default();
        let (busy, late) = (claim(0, 1.0, Priority::Interactive, 100), claim(1, 1.0, Priority::Interactive, 100));
        let last = (0..1000).map(|_| turns.turn(&busy)).last().unwrap();
        turns.served(last);
        assert_eq!(turns.turn(&late), last, "neither before what was served, nor behind all that waits");
    }

    #[test]
    fn a_full_queue_gives_a_place_to_who_has_fewer_for_its_weight() {
        let mut turns = Turns::default();
        let (flood, other) = (claim(0, 1.0, Priority::Interactive, 1), claim(1, 2.0, Priority::Interactive, 1));
        let tickets: Vec<Ticket> = (0..6).map(|n| Ticket::new(false, turns.turn(&flood), n)).collect();
        for ticket in &tickets {
            turns.waits(&flood.flow, *ticket, ScopeId(0));
        }
        assert_eq!(turns.displaced(&flood), None, "not for itself");
        let (mut n, mut left) = (0, 6);
        while let Some((ticket, scope)) = turns.displaced(&other) {
            turns.left(&flood.flow, ticket, scope);
            (n, left) = (n + 1, left - 1);
            let ticket = Ticket::new(false, turns.turn(&other), 100 + n);
            turns.waits(&other.flow, ticket, ScopeId(0));
        }
        assert_eq!((n, left), (4, 2), "twice the weight, twice the places");
    }
}
