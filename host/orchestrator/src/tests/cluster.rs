use llambo_inference::NodeId;
use llambo_strategy::{Balancer, Candidates, RequestView, Slot};

use super::*;
use crate::{ClusterError, DrainTarget, NodeFilter, ScaleReport, StillBusy};

fn ids(page: &crate::NodePage) -> Vec<&str> {
    page.nodes.iter().map(|node| node.view.id.as_str()).collect()
}

#[tokio::test]
async fn spawned_nodes_are_reported_with_the_time_each_took() {
    let stage = Stage::open(0, settings()).await;
    let report = stage.cluster.spawn(&"large".into(), 100).await.unwrap();
    assert_eq!((report.nodes.len(), report.nodes[0].as_str()), (100, "large-00000"));
    assert!((report.spawn_p50_us - 50.0).abs() < 1e-9 && (report.spawn_p99_us - 99.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_spawn_that_fails_says_why() {
    let stage = Stage::open(0, settings()).await;
    let error = stage.cluster.spawn(&"small".into(), 1001).await.unwrap_err();
    assert_eq!(error.to_string(), "no room for 1001 more `small`: 1000 places in all");
    assert_eq!(error.reason(), "POOL_EXHAUSTED");
    let error = stage.cluster.scale(&"tiny".into(), 1).await.unwrap_err();
    assert_eq!(error.to_string(), "node type `tiny` is unknown; there are: `large`, `small`");
}

#[tokio::test]
async fn two_who_scale_at_once_do_not_add_up() {
    let stage = Stage::open(0, settings()).await;
    let small = TypeName::from("small");
    let (one, two) = tokio::join!(stage.cluster.scale(&small, 5), stage.cluster.scale(&small, 5));
    assert_eq!(one.unwrap(), ScaleReport { before: 0, after: 5 });
    assert_eq!(two.unwrap(), ScaleReport { before: 5, after: 5 });
}

#[tokio::test]
async fn scaling_down_takes_idle_nodes_first_and_lets_busy_ones_finish() {
    let stage = Stage::gated(4, settings()).await;
    let tasks = [stage.ask(request("a")), stage.ask(request("b"))];
    until(|| stage.load() == (2, 0)).await;
    let report = stage.cluster.scale(&"small".into(), 1).await.unwrap();
    assert_eq!(report, ScaleReport { before: 4, after: 1 });
    let stopped: Vec<_> = (0..4).map(|i| stage.node(i).is_stopped()).collect();
    assert_eq!(stopped, [false, false, true, true]);
    let by_state = stage.cluster.status().nodes_by_state;
    assert_eq!((by_state[&NodeState::Busy], by_state[&NodeState::Draining]), (1, 1));
    stage.gate.add_permits(2);
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), "word1 word2 word3");
    }
    assert!(!stage.node(0).is_stopped() && stage.node(1).is_stopped());
    assert_eq!(stage.cluster.status().nodes_by_type[&"small".into()], 1);
    stage.assert_at_rest();
}

#[tokio::test]
async fn scaling_lets_failed_nodes_go_and_does_not_count_them() {
    let stage = Stage::open(3, settings()).await;
    stage.node(1).set_state(NodeState::Failed);
    stage.cluster.refresh();
    let report = stage.cluster.scale(&"small".into(), 3).await.unwrap();
    assert_eq!(report, ScaleReport { before: 2, after: 3 });
    assert!(stage.node(1).is_stopped());
    assert_eq!(stage.cluster.status().nodes_by_state.get(&NodeState::Failed), None);
}

#[tokio::test]
async fn a_drained_node_finishes_what_it_has_and_gets_nothing_new() {
    let stage = Stage::gated(2, settings()).await;
    let running = stage.ask(request("a"));
    until(|| stage.load() == (1, 0)).await;
    let first = DrainTarget::Nodes(vec!["small-00000".into()]);
    assert_eq!((stage.cluster.drain(&first), stage.cluster.drain(&first)), (Ok(1), Ok(0)));
    let other = stage.ask(request("b"));
    until(|| stage.load() == (2, 0)).await;
    let waiting = stage.ask_and_queue(request("c")).await;
    stage.gate.add_permits(3);
    for task in [running, other, waiting] {
        task.await.unwrap().unwrap();
    }
    assert_eq!((stage.node(0).served(), stage.node(1).served()), (1, 2));
    assert!(stage.node(0).is_stopped());
    assert_eq!(stage.cluster.drain(&DrainTarget::Type("small".into())), Ok(1));
    assert_eq!(stage.door.dispatch(request("d")).await.err().unwrap().reason(), "NO_NODE");
}

#[tokio::test]
async fn what_does_not_exist_cannot_be_drained_and_changes_nothing() {
    let stage = Stage::open(2, settings()).await;
    let error = stage.cluster.drain(&DrainTarget::Nodes(vec!["small-00000".into(), "x".into()])).unwrap_err();
    assert_eq!(error.to_string(), "node `x` is unknown; the host has 2 nodes, the first are: `small-00000`, `small-00001`");
    assert_eq!(error.reason(), "UNKNOWN_NODE");
    assert!(matches!(stage.cluster.drain(&DrainTarget::Type("x".into())), Err(ClusterError::UnknownType { .. })));
    assert_eq!(stage.cluster.status().nodes_by_state[&NodeState::Ready], 2);
}

#[tokio::test(start_paused = true)]
async fn a_draining_host_refuses_new_requests_and_serves_those_it_has() {
    let stage = Stage::gated(1, settings()).await;
    let running = stage.ask(request("a"));
    until(|| stage.load() == (1, 0)).await;
    let waiting = stage.ask_and_queue(request("b")).await;
    stage.cluster.start_drain();
    assert!(stage.cluster.is_draining());
    let error = stage.door.dispatch(request("c")).await.err().unwrap();
    assert_eq!((error.reason(), error.retry_after()), ("DRAINING", Some(Duration::from_secs(1))));
    assert_eq!(stage.cluster.spawn(&"small".into(), 1).await, Err(ClusterError::Draining));
    let busy = stage.cluster.drained(Duration::from_secs(5)).await;
    assert_eq!(busy, Err(StillBusy { in_flight: 1, waiting: 1 }));
    stage.gate.add_permits(2);
    assert_eq!(stage.cluster.drained(Duration::from_secs(5)).await, Ok(()));
    assert!(running.await.unwrap().is_ok() && waiting.await.unwrap().is_ok());
    stage.cluster.stop_nodes();
    assert!(stage.node(0).is_stopped());
    assert_eq!(stage.cluster.status().nodes_by_type[&"small".into()], 0);
}

#[tokio::test]
async fn nodes_are_listed_in_order_of_id_by_type_and_state_and_in_parts() {
    let stage = Stage::gated(3, settings()).await;
    stage.cluster.spawn(&"large".into(), 2).await.unwrap();
    let _lease = stage.door.dispatch(typed("r", "small")).await.unwrap();
    let list = |filter: NodeFilter, offset, limit| stage.cluster.list(&filter, offset, limit).unwrap();
    let all = list(NodeFilter::default(), 0, 100);
    assert_eq!(ids(&all), ["large-00003", "large-00004", "small-00000", "small-00001", "small-00002"]);
    let part = list(NodeFilter::default(), 1, 2);
    assert_eq!((ids(&part), part.total), (vec!["large-00004", "small-00000"], 5));
    let busy = list(NodeFilter { state: Some(NodeState::Busy), ..NodeFilter::default() }, 0, 100);
    assert_eq!((ids(&busy), busy.nodes[0].in_flight), (vec!["small-00000"], 1));
    let ready = NodeFilter { node_type: Some("small".into()), state: Some(NodeState::Ready) };
    let rest = list(ready, 1, 100);
    assert_eq!((ids(&rest), rest.total), (vec!["small-00002"], 2));
    let unknown = NodeFilter { node_type: Some("x".into()), state: None };
    assert!(matches!(stage.cluster.list(&unknown, 0, 1), Err(ClusterError::UnknownType { .. })));
}

#[tokio::test]
async fn a_list_longer_than_one_look_at_the_registry_is_complete() {
    let stage = Stage::open(0, settings()).await;
    for _ in 0..5 {
        stage.cluster.spawn(&"small".into(), 600).await.unwrap();
    }
    let page = stage.cluster.list(&NodeFilter::default(), 0, usize::MAX).unwrap();
    let ids = ids(&page);
    assert_eq!((ids.len(), page.total), (3000, 3000));
    assert!(ids.is_sorted());
    stage.cluster.scale(&"small".into(), 10).await.unwrap();
    assert_eq!(stage.cluster.status().nodes_by_state[&NodeState::Ready], 10);
}

#[tokio::test]
async fn an_id_that_is_taken_is_refused_and_the_newcomer_stopped() {
    let stage = Stage::open(1, settings()).await;
    let twin = Arc::new(FakeNode::new("small-00000", "small", 1, None));
    let remote = Arc::new(FakeNode::new("remote", "far", 1, None));
    let error = stage.cluster.add(vec![Arc::clone(&twin) as _, remote]).unwrap_err();
    assert_eq!(error, ClusterError::DuplicateNode { node: NodeId::from("small-00000") });
    assert!(twin.is_stopped() && !stage.node(0).is_stopped());
    assert_eq!(stage.door.dispatch(typed("r", "far")).await.unwrap().node.as_str(), "remote");
}

#[tokio::test]
async fn the_strategy_can_be_switched_and_its_report_begins_anew() {
    let stage = Stage::open(4, settings()).await;
    for _ in 0..8 {
        read(stage.door.dispatch(request("r")).await.unwrap()).await.unwrap();
    }
    let report = stage.cluster.balancer_report();
    assert_eq!((report.strategy, report.choices, report.served_min, report.served_max), ("round-robin", 8, 2, 2));
    assert!(report.choice_p50_ns > 0.0 && report.choice_p99_ns >= report.choice_p50_ns);
    let switch = stage.cluster.set_balancer("least-connections").unwrap();
    assert_eq!((switch.before, switch.after), ("round-robin", "least-loaded"));
    read(stage.door.dispatch(request("r")).await.unwrap()).await.unwrap();
    let report = stage.cluster.balancer_report();
    assert_eq!((report.choices, report.served_min, report.served_max), (1, 0, 1));
    assert_eq!(stage.cluster.set_balancer("best").unwrap_err().reason(), "UNKNOWN_STRATEGY");
}

#[tokio::test]
async fn a_choice_that_is_no_candidate_is_replaced() {
    struct Nonsense;
    impl Balancer for Nonsense {
        fn name(&self) -> &'static str {
            "nonsense"
        }
        fn pick(&self, _: &dyn Candidates, _: &RequestView<'_>, entropy: u64) -> Option<Slot> {
            entropy.is_multiple_of(2).then_some(Slot(99))
        }
    }
    let stage = Stage::open(2, settings()).await;
    assert_eq!(stage.cluster.use_balancer(Arc::new(Nonsense)), "round-robin");
    for _ in 0..10 {
        read(stage.door.dispatch(request("r")).await.unwrap()).await.unwrap();
    }
    assert_eq!(stage.cluster.shared.lock().balance.nonsense(), 10);
    assert_eq!((stage.node(0).served(), stage.node(1).served()), (5, 5));
}

#[tokio::test]
async fn publishing_gauges_needs_no_recorder() {
    let stage = Stage::open(1, settings()).await;
    stage.cluster.publish_gauges();
    crate::describe_metrics();
}

#[tokio::test]
async fn a_type_that_is_replaced_serves_on_and_one_that_is_retired_is_not_there_any_more() {
    let stage = Stage::gated(0, settings()).await;
    let info = crate::TypeInfo {
        name: "agent".into(),
        model: "agent".into(),
        tenant: "default".into(),
        bounds: None,
        scaling: None,
        tier: 0,
    };
    let make = |ids: &'static [&str]| {
        let gate = stage.gate.clone();
        async move {
            let node = |id: &&str| -> Arc<dyn Node> {
                let mut node = FakeNode::new(id, "agent", 1, Some(gate.clone()));
                node.view.model = "agent".into();
                Arc::new(node)
            };
            Ok(crate::SpawnOutcome { nodes: ids.iter().map(node).collect(), spawn_us: vec![1.0; ids.len()] })
        }
    };
    let asking = |id| GenerateRequest { model: "agent".into(), ..request(id) };
    assert_eq!(stage.ask(asking("early")).await.unwrap().unwrap_err().reason(), "UNKNOWN_MODEL");
    assert_eq!(
        stage.cluster.replace(&info, "a module was published", make(&["agent.1-1", "agent.1-2"])).await.unwrap().nodes.len(),
        2
    );
    let running = stage.ask(asking("a"));
    until(|| stage.load() == (1, 0)).await;
    stage.cluster.replace(&info, "a module was published", make(&["agent.2-1"])).await.unwrap();
    let later = stage.ask(asking("b"));
    until(|| stage.load() == (2, 0)).await;
    assert_eq!(ids(&stage.cluster.list(&NodeFilter::default(), 0, 10).unwrap()), ["agent.1-1", "agent.2-1"]);
    let refused = stage.cluster.replace(&info, "a module was published", async {
        Err(crate::SpawnError::Failed { node_type: "agent".into(), detail: "no".into() })
    });
    assert_eq!(refused.await.unwrap_err().reason(), "BACKEND_FAILED");

    assert_eq!(stage.cluster.retire(&info, || ()).await, 1, "the one of before drained already");
    let refused = stage.ask(asking("late")).await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "model `agent` is not loaded; loaded are: `m`");
    assert_eq!(stage.cluster.drain(&DrainTarget::Type("agent".into())), Ok(0));
    stage.gate.add_permits(2);
    for task in [running, later] {
        assert_eq!(task.await.unwrap().unwrap(), "word1 word2 word3");
    }
    assert_eq!(stage.cluster.drain(&DrainTarget::Type("agent".into())).unwrap_err().reason(), "UNKNOWN_TYPE");
    assert!(!stage.cluster.status().nodes_by_type.contains_key(&"agent".into()));
    stage.cluster.replace(&info, "a module was published", make(&["agent.3-1"])).await.unwrap();
    stage.gate.add_permits(1);
    assert!(stage.ask(asking("again")).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_tenants_nodes_serve_it_alone_and_come_before_those_of_everybody() {
    let stage = Stage::open(1, Settings { separate_tenants: true, ..settings() }).await;
    let info =
        crate::TypeInfo { name: "own".into(), model: "m".into(), tenant: "acme".into(), bounds: None, scaling: None, tier: 0 };
    let make = async {
        let mut node = FakeNode::new("own-0", "own", 1, None);
        node.view.traits.tenant = "acme".into();
        Ok(SpawnOutcome { nodes: vec![Arc::new(node) as Arc<dyn Node>], spawn_us: vec![1.0] })
    };
    stage.cluster.replace(&info, "a module was published", make).await.unwrap();
    let of = |tenant: &str, node_type: Option<&str>| GenerateRequest {
        share: Share { tenant: tenant.into(), ..Share::default() },
        node_type: node_type.map(TypeName::from),
        ..request("r")
    };
    let node = async |request| stage.door.dispatch(request).await.map(|answer| answer.node.to_string()).map_err(|e| e.reason());
    for _ in 0..3 {
        assert_eq!(node(of("acme", None)).await, Ok("own-0".into()));
        assert_eq!(node(of("other", None)).await, Ok("small-00000".into()));
    }
    assert_eq!(node(of("acme", Some("small"))).await, Ok("small-00000".into()));
    assert_eq!(node(of("other", Some("own"))).await, Err("UNKNOWN_TYPE"));
    assert_eq!(node(of("default", Some("own"))).await, Err("UNKNOWN_TYPE"));
    stage.cluster.retire(&info, || ()).await;
    assert_eq!(node(of("acme", None)).await, Ok("small-00000".into()), "without nodes of its own it has those of everybody");
}
