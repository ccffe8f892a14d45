//! What the orchestrator makes of what policies say.

use llambo_strategy::{
    Admitting, Balancing, Candidate, ChooseNode, Decision, Fallback, Kind, LetIn, Policy, PolicyKind, PolicyRef, Role, Verdict,
};

use super::*;

type Answer<K> = Box<dyn Fn(&<K as Kind>::Ask) -> Option<<K as Kind>::Answer> + Send + Sync>;

/// Answers as a function does; counts what came too late.
struct Says<K: Kind> {
    answer: Answer<K>,
    gone: AtomicU32,
}

impl<K: Kind> Says<K> {
    fn new(answer: impl Fn(&K::Ask) -> Option<K::Answer> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { answer: Box::new(answer), gone: AtomicU32::new(0) })
    }
}

impl<K: Kind> Policy<K> for Says<K> {
    fn is_loaded(&self) -> bool {
        true
    }

    fn decide(&self, ask: &Arc<K::Ask>) -> Decision<K::Answer> {
        let by =
            PolicyRef { kind: PolicyKind::Balancer, name: "says".into(), sha256: "".into(), generation: 1, role: Role::Live };
        Decision { answer: (self.answer)(ask), by: Some(Arc::new(by)), ..Decision::built_in() }
    }

    fn gone(&self, _: &Decision<K::Answer>) {
        self.gone.fetch_add(1, Ordering::SeqCst);
    }
}

fn balancing(says: &Arc<Says<Balancing>>) -> Policies {
    Policies { balancer: Arc::clone(says) as _, ..Policies::default() }
}

fn explained(id: &str) -> GenerateRequest {
    GenerateRequest { routing: Routing { explain: true, ..Routing::default() }, ..request(id) }
}

#[tokio::test]
async fn a_request_goes_where_the_policy_says_and_its_first_place_is_free_again() {
    let says = Says::new(|ask: &ChooseNode| ask.candidates.last().map(|candidate| candidate.node));
    let stage = Stage::gated_with(4, settings(), balancing(&says)).await;
    let answer = stage.door.dispatch(explained("r")).await.unwrap();
    // in turn would have been the first of four
    assert_eq!(answer.node.as_str(), "small-00003");
    assert_eq!(stage.load(), (1, 0));
    let route = answer.route.unwrap();
    assert_eq!((route.candidates.len(), route.n_eligible, route.fallback), (4, 4, None));
    assert_eq!((route.chosen.as_str(), route.candidates[0].node.as_str()), ("small-00003", "small-00000"));
    assert!(route.candidates.iter().all(|row| row.candidate.in_flight == 0), "as it was before the request: {route:?}");
    drop(answer.events);
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_node_that_is_not_there_or_full_is_counted_and_the_strategys_choice_stays() {
    let busy = Arc::new(Mutex::new(None::<u64>));
    let says = Says::new({
        let busy = Arc::clone(&busy);
        // first whatever there is, then always the one that is taken
        move |ask: &ChooseNode| Some(*busy.lock().unwrap().get_or_insert(ask.candidates.last()?.node))
    });
    let stage = Stage::gated_with(3, settings(), balancing(&says)).await;
    let first = stage.door.dispatch(request("1")).await.unwrap();
    let second = stage.door.dispatch(explained("2")).await.unwrap();
    assert_ne!(first.node, second.node);
    let route = second.route.as_ref().unwrap();
    assert_eq!((says.gone.load(Ordering::SeqCst), route.fallback), (1, Some(Fallback::Gone)));
    *busy.lock().unwrap() = Some(u64::MAX);
    let third = stage.door.dispatch(request("3")).await.unwrap();
    assert_eq!(says.gone.load(Ordering::SeqCst), 2);
    drop((first.events, second.events, third.events));
    stage.assert_at_rest();
}

#[tokio::test]
async fn those_who_waited_are_placed_by_the_policy_too() {
    let says =
        Says::new(|ask: &ChooseNode| ask.candidates.iter().map(|candidate| candidate.node).max_by_key(|node| node & 0xffff_ffff));
    let settings = Settings { max_in_flight: 1, ..settings() };
    let stage = Stage::gated_with(4, settings, balancing(&says)).await;
    let running = stage.ask(request("0"));
    until(|| stage.load() == (1, 0)).await;
    let waiting = {
        let door = stage.door.clone();
        tokio::spawn(async move { door.dispatch(request("1")).await.unwrap() })
    };
    until(|| stage.load() == (1, 1)).await;
    stage.gate.add_permits(1);
    running.await.unwrap().unwrap();
    let answer = waiting.await.unwrap();
    // in turn would have been the second
    assert_eq!(answer.node.as_str(), "small-00003");
    assert_eq!(stage.load(), (1, 0));
    drop(answer.events);
    stage.assert_at_rest();
}

#[tokio::test]
async fn who_is_put_behind_comes_after_everybody_who_was_admitted() {
    let says = Says::<Admitting>::new(|ask: &LetIn| {
        Some(match ask.request.id.as_str().chars().next() {
            Some('b') => Verdict::Queue,
            Some('r') => Verdict::Reject { retry_after_ms: 250, reason: "no".into() },
            _ => Verdict::Admit,
        })
    });
    let policies = Policies { admission: Arc::clone(&says) as _, ..Policies::default() };
    let stage = Stage::gated_with(1, settings(), policies).await;
    let running = stage.ask(request("a0"));
    until(|| stage.load() == (1, 0)).await;
    let refused = stage.door.dispatch(request("r")).await.err().unwrap();
    assert_eq!((refused.reason(), refused.retry_after()), ("NOT_ADMITTED", Some(Duration::from_millis(250))));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (i, id) in ["b1", "a2", "b3", "a4"].into_iter().enumerate() {
        let (door, order) = (stage.door.clone(), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let answer = door.dispatch(request(id)).await.unwrap();
            order.lock().unwrap().push(id);
            read(answer).await.unwrap();
        }));
        until(|| stage.cluster.status().waiting == i + 1).await;
    }
    stage.gate.add_permits(5);
    for task in tasks {
        task.await.unwrap();
    }
    running.await.unwrap().unwrap();
    assert_eq!(*order.lock().unwrap(), ["a2", "a4", "b1", "b3"]);
    stage.assert_at_rest();
}

#[tokio::test]
async fn who_keeps_count_is_told_of_every_node_and_then_of_what_changes() {
    use llambo_strategy::{NodeChange, Nodes};
    let stage = Stage::gated(3, settings()).await;
    let nodes: &dyn Nodes = &*stage.cluster.shared;
    let (all, change, is_all) = nodes.changes_since(None);
    let number = |change: &NodeChange| match change {
        NodeChange::Open(Candidate { node, .. }) | NodeChange::Closed(node) => *node,
    };
    assert!(is_all && all.len() == 3 && all.iter().all(|change| matches!(change, NodeChange::Open(_))), "{all:?}");
    assert_eq!(nodes.changes_since(Some(change)), (vec![], change, false));

    let answer = stage.door.dispatch(request("r")).await.unwrap();
    let (changes, later, is_all) = nodes.changes_since(Some(change));
    assert!(!is_all && later > change);
    assert_eq!(changes, [NodeChange::Closed(number(&all[0]))], "it holds one request, and has it");
    drop(answer.events);
    let (changes, ..) = nodes.changes_since(Some(later));
    assert!(
        matches!(changes[..], [NodeChange::Open(Candidate { node, in_flight: 0, .. })] if node == number(&all[0])),
        "{changes:?}"
    );
}

#[tokio::test]
async fn a_node_that_comes_in_the_place_of_another_has_another_number() {
    use llambo_strategy::{NodeChange, Nodes};
    let stage = Stage::open(1, settings()).await;
    let nodes: &dyn Nodes = &*stage.cluster.shared;
    let only = || match nodes.changes_since(None).0[..] {
        [NodeChange::Open(candidate)] => candidate.node,
        ref other => panic!("{other:?}"),
    };
    let first = only();
    assert_eq!(nodes.name(first).unwrap().as_str(), "small-00000");
    stage.cluster.scale(&"small".into(), 0).await.unwrap();
    stage.cluster.spawn(&"small".into(), 1).await.unwrap();
    assert!(only() != first && nodes.name(first).is_none());
}
