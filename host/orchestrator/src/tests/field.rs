use super::*;
use crate::{Cell, DrainTarget, Look, Placed};

fn places(look: &Look) -> Vec<(u32, Option<NodeState>)> {
    look.cells.iter().map(|(place, cell)| (*place, cell.map(|cell| cell.state))).collect()
}

#[tokio::test]
async fn a_watcher_sees_all_nodes_once_and_then_what_changed() {
    let stage = Stage::gated(3, settings()).await;
    let mut watch = stage.cluster.watch_field();
    let first = watch.look();
    assert!(first.is_whole);
    assert_eq!(places(&first), [(0, Some(NodeState::Ready)), (1, Some(NodeState::Ready)), (2, Some(NodeState::Ready))]);
    assert_eq!((first.n_known_kinds, first.new_kinds[0].node_type.as_str()), (0, "small"));
    assert_eq!(watch.look(), Look { n_known_kinds: 1, ..Look::default() });

    let asked = stage.ask(request("a"));
    until(|| stage.load() == (1, 0)).await;
    assert_eq!(places(&watch.look()), [(0, Some(NodeState::Busy))]);
    stage.gate.add_permits(1);
    asked.await.unwrap().unwrap();
    assert_eq!(places(&watch.look()), [(0, Some(NodeState::Ready))], "its place is told though it is as before");
}

#[tokio::test]
async fn a_place_is_told_when_its_node_goes_and_when_another_takes_it() {
    let stage = Stage::open(2, settings()).await;
    let mut watch = stage.cluster.watch_field();
    watch.look();
    stage.cluster.drain(&DrainTarget::Nodes(vec!["small-00001".into()])).unwrap();
    let gone = watch.look();
    assert!(!gone.is_whole);
    assert_eq!(places(&gone), [(1, None)]);
    stage.cluster.spawn(&"large".into(), 1).await.unwrap();
    let taken = watch.look();
    let large: Placed = (1, Some(Cell { state: NodeState::Ready, kind: 1 }));
    assert_eq!(taken.cells, [large]);
    assert_eq!((taken.n_known_kinds, taken.new_kinds[0].node_type.as_str()), (1, "large"));
    assert_eq!(stage.cluster.node_at(1).unwrap().view.id.as_str(), "large-00002");
    assert!(stage.cluster.node_at(2).is_none() && stage.cluster.node_at(u32::MAX).is_none());
}

#[tokio::test]
async fn who_missed_more_than_is_remembered_sees_everything_anew() {
    let stage = Stage::open(4, settings()).await;
    let mut watch = stage.cluster.watch_field();
    watch.look();
    for _ in 0..=1 << 16 {
        stage.cluster.shared.lock().registry.feed.note(0);
    }
    let look = watch.look();
    assert!(look.is_whole && look.cells.len() == 4);
    assert!(!watch.look().is_whole);
}

#[tokio::test]
async fn the_pulse_counts_tokens_and_first_tokens_before_an_answer_ends() {
    let stage = Stage::gated(1, settings()).await;
    let before = stage.cluster.pulse();
    let asked = stage.ask(request("a"));
    until(|| stage.cluster.pulse().generated_tokens == 1).await;
    assert_eq!(stage.cluster.status().totals.output_tokens, 0, "its totals come with its end");
    stage.gate.add_permits(1);
    asked.await.unwrap().unwrap();
    let after = stage.cluster.pulse();
    assert_eq!((after.generated_tokens, after.ttft.since(&before.ttft).n()), (3, 1));
}
