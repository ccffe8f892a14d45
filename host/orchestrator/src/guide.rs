//! What policies are asked about one request on its way to a node, and what is told of that.

use std::{sync::Arc, time::Duration};

use llambo_inference::{GenerateRequest, NodeId, Share};
use llambo_strategy::{
    Balancing, Candidate, ChooseNode, Classify, Complexity, Decision, Fallback, LetIn, MAX_CANDIDATES, RequestFacts,
    TextFeatures, Verdict,
};
use tokio::time::Instant;

use crate::{
    entry::Entry,
    error::DispatchError,
    facts,
    homes::Prefix,
    lease::Lease,
    proposal::Proposal,
    registry::NodeKey,
    route::{Route, RouteCandidate, RouteRecord, by_place},
    shared::Shared,
    tiers::{TierNote, TierWhy},
    usage::Use,
    wanted::Wanted,
};

/// Goes along with a request until it has its node.
pub(crate) struct Guide {
    shared: Arc<Shared>,
    /// Only when somebody is to be asked or told.
    facts: Option<RequestFacts>,
    prefix: Option<Prefix>,
    explains: bool,
    records: bool,
    tier_why: Option<TierWhy>,
    deferred: Option<bool>,
    failed: Vec<NodeId>,
    /// When it came, if somebody is to be told.
    began: Option<Instant>,
}

/// A node was settled on.
#[derive(Default)]
pub(crate) struct Settled {
    /// If somebody asked why.
    pub(crate) route: Option<Box<Route>>,
    /// The decision's number in the record, if there is one.
    pub(crate) number: Option<u64>,
}

impl Guide {
    pub(crate) fn new(shared: &Arc<Shared>, request: &GenerateRequest) -> Self {
        let policies = &shared.policies;
        let explains = request.routing.explain;
        let records = shared.recorder.receiver_count() > 0;
        let asks = policies.balancer.is_loaded() || policies.admission.is_loaded() || policies.classifier.is_loaded();
        let facts = (asks || explains || records).then(|| {
            let mut facts = facts::of(request, shared.now_ms(), policies.grants_prompt);
            // what a tenant's isolates do is on its account
            let tenant = request.node_type.as_ref().and_then(|node_type| shared.lock().registry.tenant_of(node_type));
            facts.tenant = tenant.filter(|tenant| *tenant != Share::default().tenant).unwrap_or(facts.tenant);
            facts
        });
        let prefix = shared.wants_prefixes().then(|| Prefix::of(&request.share.tenant, &request.model, &request.prompt));
        let tier_why = request.routing.tier.map(|_| TierWhy::Request);
        Self {
            shared: Arc::clone(shared),
            facts,
            prefix,
            explains,
            records,
            tier_why,
            deferred: None,
            failed: Vec::new(),
            began: (explains || records).then(Instant::now),
        }
    }

    /// What the request wants, with what is known of its beginning and what a classifier says.
    pub(crate) fn wanted(&mut self, request: &GenerateRequest) -> Wanted {
        let mut wanted = Wanted::by(request);
        if let Some(prefix) = &self.prefix {
            wanted.cached = self.shared.homes.find(prefix).into();
        }
        let classifier = &self.shared.policies.classifier;
        if let Some(facts) = &mut self.facts
            && wanted.tier.is_none()
            && wanted.node_type.is_none()
            && classifier.is_loaded()
        {
            let features = TextFeatures::of(facts::wanted(&request.prompt));
            let decision = classifier.decide(&Arc::new(Classify { request: facts.clone(), features }));
            if let Some(tier) = decision.answer {
                (wanted.tier, facts.tier, self.tier_why) = (Some(tier), Some(tier), Some(TierWhy::Classifier(decision.by)));
            }
        }
        if wanted.tier.is_none() && wanted.node_type.is_none() && self.may_judge(&wanted) {
            let complexity = Complexity::of(&facts::to_judge(request));
            (wanted.tier, self.tier_why) = (Some(complexity.tier), Some(TierWhy::Heuristic(complexity)));
            if let Some(facts) = &mut self.facts {
                facts.tier = wanted.tier;
            }
        }
        wanted
    }

    /// Whether it makes a difference how demanding a request is.
    fn may_judge(&self, wanted: &Wanted) -> bool {
        let shared = &self.shared;
        shared.settings.judges_tiers && shared.has_tiers() && shared.lock().registry.has_tiers_for(&wanted.model, wanted.tenant())
    }

    /// What is told of the tier that serves a request, where there are several.
    pub(crate) fn tier_note(&self, wanted: &Wanted, lease: &Lease) -> Option<Arc<TierNote>> {
        let is_told = wanted.tier.is_some() || self.shared.has_tiers();
        let note = || TierNote::new(wanted.tier, self.tier_why.clone(), lease.node_id().clone(), lease.tier());
        is_told.then(|| Arc::new(note()))
    }

    /// Asks whether it is let in. Answers with its share of what its tenant uses, while that is counted.
    pub(crate) fn let_in(&mut self, wanted: &mut Wanted) -> Result<Option<Use>, DispatchError> {
        let admission = &self.shared.policies.admission;
        let Some(facts) = self.facts.as_ref().filter(|_| admission.is_loaded()) else { return Ok(None) };
        let load = self.shared.lock().load_for(wanted, Instant::now());
        let usage = self.shared.usages.of(&facts.tenant);
        match admission.decide(&Arc::new(LetIn { request: facts.clone(), load, usage })).answer {
            Some(Verdict::Reject { retry_after_ms, reason }) => {
                let retry_after = Duration::from_millis(u64::from(retry_after_ms));
                return Err(DispatchError::NotAdmitted { reason, retry_after });
            }
            Some(Verdict::Queue) => (wanted.deferred, self.deferred) = (true, Some(true)),
            Some(Verdict::Admit) => self.deferred = Some(false),
            None => {}
        }
        Ok(Some(self.shared.usages.open(&facts.tenant)))
    }

    /// Lets the balancer policy choose among the node that the request has and others, and moves it there.
    pub(crate) fn settle(&mut self, lease: Lease, wanted: &Wanted, failed: &[NodeKey]) -> (Lease, Settled) {
        let (lease, settled) = self.choose(lease, wanted, failed);
        if let Some(prefix) = &self.prefix {
            self.shared.homes.note(prefix, lease.home());
        }
        (lease, settled)
    }

    /// A node has failed it.
    pub(crate) fn failed(&mut self, lease: &Lease) {
        if let Some(prefix) = &self.prefix {
            // whoever fails may have lost what it had
            self.shared.homes.forget(prefix, lease.home());
        }
        if let Some(facts) = &mut self.facts {
            facts.n_failed += 1;
            self.failed.push(lease.node_id().clone());
        }
    }

    fn choose(&self, lease: Lease, wanted: &Wanted, failed: &[NodeKey]) -> (Lease, Settled) {
        let balancer = &self.shared.policies.balancer;
        let asks = balancer.is_loaded();
        let Some(facts) = self.facts.as_ref().filter(|_| asks || self.explains || self.records) else {
            return (lease, Settled::default());
        };
        let began = self.began.map(|came| (came.elapsed(), Instant::now()));
        let proposal = self.shared.lock().propose(lease.key(), wanted, failed);
        let Some(Proposal { candidates, n_eligible, kinds }) = proposal else { return (lease, Settled::default()) };
        let ask = Arc::new(ChooseNode {
            // it may have waited since it came
            request: facts::at(facts, self.shared.now_ms()),
            candidates,
            kinds,
            nodes: Arc::clone(&self.shared) as _,
            entropy: rand::random(),
        });
        let mut decision = if asks { balancer.decide(&ask) } else { Decision::built_in() };
        let lease = self.moved(lease, &mut decision, &ask, wanted, failed);
        let Some((in_queue, began)) = began else { return (lease, Settled::default()) };
        let decision_time = began.elapsed() + lease.choice();
        let route = self.route(&lease, &decision, &ask, n_eligible, decision_time, in_queue);
        let number = self.records.then(|| self.record(&ask, &route));
        (lease, Settled { route: self.explains.then(|| Box::new(route)), number })
    }

    fn moved(
        &self,
        lease: Lease,
        decision: &mut Decision<u64>,
        ask: &Arc<ChooseNode>,
        wanted: &Wanted,
        failed: &[NodeKey],
    ) -> Lease {
        let own = ask.candidates.first().map(|own| own.node);
        let Some(node) = decision.answer.filter(|node| Some(*node) != own) else { return lease };
        lease.move_to(node, wanted, failed).unwrap_or_else(|lease| {
            self.shared.policies.balancer.gone(decision);
            (decision.answer, decision.fallback) = (None, Some(Fallback::Gone));
            lease
        })
    }

    fn route(
        &self,
        lease: &Lease,
        decision: &Decision<u64>,
        ask: &ChooseNode,
        n_eligible: usize,
        decision_time: Duration,
        waited: Duration,
    ) -> Route {
        let (noted, strategy) = (by_place(&decision.scores), self.shared.lock().balance.balancer());
        let is_policys = decision.by.is_some();
        let row = |(place, candidate): (u32, &Candidate)| RouteCandidate {
            node: ask.nodes.name(candidate.node).unwrap_or_else(|| "gone".into()),
            candidate: *candidate,
            score: if is_policys { noted.get(&place).copied() } else { strategy.score(candidate) },
        };
        let mut candidates: Vec<RouteCandidate> = (0..).zip(&ask.candidates).map(row).collect();
        if candidates.iter().all(|candidate| candidate.node != *lease.node_id()) {
            // a policy that keeps count may choose a node that was not proposed
            candidates.truncate(MAX_CANDIDATES - 1);
            let chosen = self.shared.lock().registry.entry(lease.key()).map(Entry::candidate).unwrap_or_default();
            let chosen = Candidate { in_flight: chosen.in_flight.saturating_sub(1), ..chosen };
            candidates.push(RouteCandidate { node: lease.node_id().clone(), candidate: chosen, score: None });
        }
        Route {
            strategy: strategy.name(),
            policy: decision.by.clone(),
            fallback: decision.fallback,
            candidates,
            kinds: Arc::clone(&ask.kinds),
            n_eligible,
            chosen: lease.node_id().clone(),
            decision: decision_time,
            failed: self.failed.clone(),
            waited,
            shadow: decision.shadow.and_then(|node| ask.nodes.name(node)),
            tier: ask.request.tier,
            tier_by: self.tier_why.as_ref().map(TierWhy::by),
            tier_why: self.tier_why.as_ref().map(ToString::to_string),
            deferred: self.deferred,
        }
    }

    fn record(&self, ask: &Arc<ChooseNode>, route: &Route) -> u64 {
        let (number, at) = (self.shared.next_number(), self.shared.started.elapsed());
        let record = RouteRecord::Decision { number, at, ask: Arc::clone(ask), route: Box::new(route.clone()) };
        // nobody may be listening any more
        let _ = self.shared.recorder.send(Arc::new(record));
        number
    }
}

/// Who decides what, beside what is built in.
#[derive(Clone)]
pub struct Policies {
    /// Which node serves a request.
    pub balancer: Arc<dyn llambo_strategy::Policy<Balancing>>,
    /// Whether a request is let in.
    pub admission: Arc<dyn llambo_strategy::Policy<llambo_strategy::Admitting>>,
    /// How demanding it is.
    pub classifier: Arc<dyn llambo_strategy::Policy<llambo_strategy::Classifying>>,
    /// How many nodes a type has.
    pub scaler: Arc<dyn llambo_strategy::Policy<llambo_strategy::Scaling>>,
    /// What several answers become.
    pub fusion: Arc<dyn llambo_strategy::Policy<llambo_strategy::Fusing>>,
    /// Whether policies see prompts.
    pub grants_prompt: bool,
}

impl Default for Policies {
    /// Nobody: what is built in decides.
    fn default() -> Self {
        let nobody = Arc::new(llambo_strategy::NoPolicy);
        Self {
            balancer: Arc::clone(&nobody) as _,
            admission: Arc::clone(&nobody) as _,
            classifier: Arc::clone(&nobody) as _,
            scaler: Arc::clone(&nobody) as _,
            fusion: nobody,
            grants_prompt: false,
        }
    }
}
