//! Token sequences by their beginnings: which of those kept has most in common with a given one. Pure.

use std::collections::BTreeMap;

use crate::ffi::Token;

/// Values looked at below the place where a search ends; all of them have equally much in common with what is searched.
const LOOKED_AT: usize = 32;

/// A radix tree. Every leaf holds a value.
pub(crate) struct Radix<V> {
    nodes: Vec<Node<V>>,
    free: Vec<usize>,
}

struct Node<V> {
    /// Tokens between the parent and this node.
    label: Vec<Token>,
    children: BTreeMap<Token, usize>,
    parent: usize,
    /// Whose sequences end here.
    values: Vec<V>,
}

const ROOT: usize = 0;

impl<V> Default for Radix<V> {
    fn default() -> Self {
        Self { nodes: vec![Node::new(Vec::new(), ROOT)], free: Vec::new() }
    }
}

// === impl Radix ===

impl<V: Copy + PartialEq> Radix<V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes[ROOT].children.is_empty() && self.nodes[ROOT].values.is_empty()
    }

    /// Adds a value under `tokens`, beside those already there.
    pub(crate) fn insert(&mut self, tokens: &[Token], value: V) {
        let (mut at, mut rest) = (ROOT, tokens);
        while let Some(&first) = rest.first() {
            let Some(&child) = self.nodes[at].children.get(&first) else {
                let leaf = self.add(Node::new(rest.to_vec(), at));
                self.nodes[at].children.insert(first, leaf);
                at = leaf;
                break;
            };
            let common = common(&self.nodes[child].label, rest);
            at = if common < self.nodes[child].label.len() { self.split(child, common) } else { child };
            rest = &rest[common..];
        }
        self.nodes[at].values.push(value);
    }

    /// Takes a value away from under `tokens`. False when it is not there.
    pub(crate) fn remove(&mut self, tokens: &[Token], value: V) -> bool {
        let Some(mut at) = self.node(tokens) else { return false };
        let Some(place) = self.nodes[at].values.iter().position(|v| *v == value) else { return false };
        self.nodes[at].values.swap_remove(place);
        // a node stays as long as it ends a sequence or parts two
        while at != ROOT && self.nodes[at].values.is_empty() {
            let parent = self.nodes[at].parent;
            match self.nodes[at].children.len() {
                0 => {
                    let first = self.nodes[at].label[0];
                    self.nodes[parent].children.remove(&first);
                    self.release(at);
                    at = parent;
                }
                1 => {
                    self.join(at);
                    break;
                }
                _ => break,
            }
        }
        true
    }

    /// Values under sequences that begin like `tokens`, each with the number of tokens in common, best first. Of those that
    /// have equally much in common only some are given.
    pub(crate) fn longest(&self, tokens: &[Token]) -> Vec<(usize, V)> {
        let (mut at, mut depth) = (ROOT, 0);
        let mut found: Vec<(usize, V)> = Vec::new();
        let mut below = ROOT;
        while let Some(first) = tokens.get(depth)
            && let Some(&child) = self.nodes[at].children.get(first)
        {
            found.extend(self.nodes[at].values.iter().map(|v| (depth, *v)));
            let label = &self.nodes[child].label;
            let common = common(label, &tokens[depth..]);
            (depth, below) = (depth + common, child);
            if common < label.len() {
                break;
            }
            at = child;
        }
        let mut best = Vec::new();
        let mut open = vec![below];
        while let Some(node) = open.pop()
            && best.len() < LOOKED_AT
            && depth > 0
        {
            best.extend(self.nodes[node].values.iter().map(|v| (depth, *v)));
            open.extend(self.nodes[node].children.values());
        }
        best.extend(found.into_iter().rev().filter(|(n, _)| *n > 0));
        best
    }

    /// The node where exactly `tokens` end.
    fn node(&self, tokens: &[Token]) -> Option<usize> {
        let (mut at, mut rest) = (ROOT, tokens);
        while let Some(first) = rest.first() {
            at = *self.nodes[at].children.get(first)?;
            rest = rest.strip_prefix(self.nodes[at].label.as_slice())?;
        }
        Some(at)
    }

    fn add(&mut self, node: Node<V>) -> usize {
        if let Some(place) = self.free.pop() {
            self.nodes[place] = node;
            return place;
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn release(&mut self, node: usize) {
        self.nodes[node] = Node::new(Vec::new(), ROOT);
        self.free.push(node);
    }

    /// Puts a node above `child` that ends after `n` tokens of its label, and returns it.
    fn split(&mut self, child: usize, n: usize) -> usize {
        let rest = self.nodes[child].label.split_off(n);
        let label = std::mem::replace(&mut self.nodes[child].label, rest);
        let (first, parent) = (label[0], self.nodes[child].parent);
        let upper = self.add(Node::new(label, parent));
        self.nodes[parent].children.insert(first, upper);
        let next = self.nodes[child].label[0];
        self.nodes[upper].children.insert(next, child);
        self.nodes[child].parent = upper;
        upper
    }

    /// Makes a node without values and its only child one.
    fn join(&mut self, node: usize) {
        let Some((_, child)) = self.nodes[node].children.pop_first() else { return };
        let mut label = std::mem::take(&mut self.nodes[node].label);
        let (first, parent) = (label[0], self.nodes[node].parent);
        label.append(&mut self.nodes[child].label);
        self.nodes[child].label = label;
        self.nodes[child].parent = parent;
        self.nodes[parent].children.insert(first, child);
        self.release(node);
    }
}

impl<V> Node<V> {
    fn new(label: Vec<Token>, parent: usize) -> Self {
        Self { label, children: BTreeMap::new(), parent, values: Vec::new() }
    }
}

/// Tokens that two sequences begin with alike.
pub(crate) fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<Token>),
        Remove(usize),
    }

    fn sequence() -> impl Strategy<Value = Vec<Token>> {
        // few different tokens, so that beginnings meet often
        prop::collection::vec(0..3, 0..9)
    }

    proptest! {
        #[test]
        fn it_finds_what_a_list_would_find(
            steps in prop::collection::vec(prop_oneof![3 => sequence().prop_map(Step::Insert), 1 => (0usize..40).prop_map(Step::Remove)], 1..60),
            asked in sequence(),
        ) {
            let (mut radix, mut list) = (Radix::default(), Vec::<(Vec<Token>, usize)>::new());
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(tokens) => {
                        radix.insert(&tokens, value);
                        list.push((tokens, value));
                    }
                    Step::Remove(i) if !list.is_empty() => {
                        let (tokens, value) = list.swap_remove(i % list.len());
                        prop_assert!(radix.remove(&tokens, value));
                        prop_assert!(!radix.remove(&tokens, value), "it was there once");
                    }
                    Step::Remove(_) => {}
                }
            }
            let best = list.iter().map(|(tokens, _)| common(tokens, &asked)).max().unwrap_or(0);
            let found = radix.longest(&asked);
            prop_assert_eq!(found.first().map_or(0, |f| f.0), best);
            for (n, value) in found {
                let (tokens, _) = list.iter().find(|(_, v)| *v == value).expect("what is found was put in");
                prop_assert_eq!(common(tokens, &asked), n);
            }
            for (tokens, value) in list {
                prop_assert!(radix.remove(&tokens, value));
            }
            prop_assert!(radix.is_empty() && radix.nodes.len() == radix.free.len() + 1, "nothing is left behind");
        }
    }
}
