//! What a machine has: processors and what they can do, memory and what of it may be taken, graphics cards.
//!
//! Looks, and changes nothing. What cannot be found out is left out: a container without `/sys`, a system that is no Linux
//! and a machine without graphics cards all have an answer. It knows nothing of models or isolates; whether they fit is for
//! those to say who know them.

mod cards;
mod memory;
mod processor;

use std::{fs, path::PathBuf};

pub use self::{cards::Gpu, memory::Memory, processor::Processor};

/// What a machine has, at the moment it was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its name; empty where it has none.
    pub name: String,
    /// The operating system with its version, such as `Linux 6.13.2`.
    pub system: String,
    /// As Rust calls it, such as `x86_64`.
    pub architecture: String,
    /// Its processors.
    pub processor: Processor,
    /// Its memory.
    pub memory: Memory,
    /// Its graphics cards, as far as their driver says; none without a driver.
    pub gpus: Vec<Gpu>,
    /// Memory mappings that a process may have (`vm.max_map_count`).
    pub max_map_count: Option<u64>,
}

/// Looks at this machine. The driver of graphics cards is loaded once, with the first one that is made, which may take a second where there is one.
pub struct Detector {
    root: PathBuf,
    cards: cards::Cards,
}

// === impl Detector ===

impl Detector {
    /// Loads the driver of graphics cards, if there is one. Blocks.
    pub fn new() -> Self {
        Self { root: "/".into(), cards: cards::Cards::load() }
    }

    /// What there is now. Blocks for some milliseconds.
    pub fn machine(&self) -> Machine {
        let text = |path: &str| fs::read_to_string(self.root.join(path)).unwrap_or_default();
        let release = text("proc/sys/kernel/osrelease");
        let system =
            if release.trim().is_empty() { std::env::consts::OS.to_owned() } else { format!("Linux {}", release.trim()) };
        Machine {
            name: text("proc/sys/kernel/hostname").trim().to_owned(),
            system,
            architecture: std::env::consts::ARCH.to_owned(),
            processor: Processor::of(&text("proc/cpuinfo")),
            memory: Memory::of(&self.root),
            gpus: self.cards.all(),
            max_map_count: text("proc/sys/vm/max_map_count").trim().parse().ok(),
        }
    }
}

impl Default for Detector {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector").field("root", &self.root).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let machine = Detector::new().machine();
        assert!(machine.processor.usable >= 1, "{machine:?}");
        if cfg!(target_os = "linux") {
            assert!(machine.memory.total_bytes > 0 && machine.system.starts_with("Linux "), "{machine:?}");
            assert!(machine.memory.available_bytes <= machine.memory.most_bytes(), "{machine:?}");
        }
    }

    #[test]
    fn a_machine_that_says_nothing_has_an_answer_too() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Detector { root: folder.path().into(), cards: cards::Cards::none() }.machine();
        assert_eq!((machine.memory.total_bytes, machine.memory.limit_bytes, machine.max_map_count), (0, None, None));
        assert_eq!((machine.name.as_str(), machine.gpus.len()), ("", 0));
        assert_eq!(machine.system, std::env::consts::OS);
    }
}
