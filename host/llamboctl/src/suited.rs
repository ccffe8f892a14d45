//! A configuration that suits a machine: what it has decides how many isolates and sequences there are, and each number
//! says in a comment where it came from. Whether all of it fits is for `llambo check` to say, which knows the model's file.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use llambo_hardware::Machine;

use crate::output;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The model inside the program.
const BUILTIN: &str = "builtin:demo";
/// What an idle isolate takes, measured with the default guest.
const IDLE_BYTES: u64 = 20 * KIB;
/// Mappings of an isolate where memories cannot share one, and what the host needs beside.
const MAPPINGS_EACH: u64 = 4;
const MAPPINGS_BESIDE: u64 = 5000;
/// From this version on all isolates of a size share two mappings.
const SHARES_MAPPINGS: (u32, u32) = (6, 13);
/// Tokens of a sequence, where the model knows as many.
const CONTEXT: u32 = 4096;
/// Keys and values of one token in a model whose file is not there: those of 8 billion parameters, of which most others have less.
const KV_PER_TOKEN: u64 = 128 * KIB;
/// What llama.cpp takes on a graphics card beside weights, keys and values.
const GPU_WORKING_BYTES: u64 = 512 * MIB;

/// What is to be in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) model: Model,
    /// Isolates; `None`: as many as suit the machine.
    pub(crate) nodes: Option<u32>,
    /// `tiny`, `medium` or `large`.
    pub(crate) node_type: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Model {
    /// One that is part of the program.
    Builtin(String),
    /// A file, with its size if it is there, and what its header says if it has one.
    File { path: PathBuf, bytes: Option<u64>, header: Option<Header> },
}

/// What a model's file says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Tokens that it was trained for.
    pub(crate) n_context: u32,
    pub(crate) kv_bytes_per_token: u64,
}

/// A number, and why it is that.
struct Chosen<T> {
    value: T,
    why: String,
}

// === impl Plan ===

impl Plan {
    /// The configuration, which [`llambo_config`] accepts.
    pub(crate) fn config(&self, machine: &Machine) -> String {
        let mut text = String::new();
        // a string takes whatever is written
        let _ = self.write(&mut text, machine);
        text
    }

    fn write(&self, out: &mut String, machine: &Machine) -> std::fmt::Result {
        writeln!(out, "# The configuration of a llambo host, written by llamboctl for this machine:\n#")?;
        for line in described(machine) {
            writeln!(out, "#   {}", printable(&line))?;
        }
        writeln!(out, "#\n# What it takes and what would stop it: `llambo check --config FILE`.")?;
        writeln!(out, "# Every key with its default and range: `llamboctl init --full`.\n")?;
        self.write_model(out, machine)?;
        self.write_types(out, machine)?;
        out.push_str(
            "\
# Loopback only: to serve other machines, give tenants tokens (`llamboctl token new`) and `network.tls`.
network:
  grpc: 127.0.0.1:7400
  http: 127.0.0.1:7480

# Time that requests under way have to finish when the host ends.
shutdown:
  drain: 10s
",
        );
        Ok(())
    }

    fn write_model(&self, out: &mut String, machine: &Machine) -> std::fmt::Result {
        let free = machine.memory.available_bytes;
        out.push_str("models:\n");
        match &self.model {
            Model::Builtin(name) => {
                writeln!(out, "  # part of the program; it shows that everything works, not what a language model can say")?;
                writeln!(out, "  - path: {name}")?;
            }
            Model::File { path, bytes, header } => {
                let name = path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
                let name: String = printable(&name).chars().take(128).collect();
                let name = if name.trim().is_empty() { "model".to_owned() } else { name };
                writeln!(out, "  - name: {}", quoted(&name))?;
                writeln!(out, "    path: {}", quoted(&path.to_string_lossy()))?;
                let known = match (bytes, header) {
                    (None, _) => "it was not there when this was written, so that nothing is known of its size".into(),
                    (Some(_), None) => "its header could not be read: a host may refuse it".into(),
                    (Some(_), Some(header)) => format!("trained for {} tokens", header.n_context),
                };
                writeln!(out, "    # {known}")?;
                writeln!(out, "    context: {:<14} # tokens of prompt and answer together, for each sequence", self.context())?;
            }
        }
        let sequences = self.sequences(free);
        writeln!(out, "    sequences: {:<12} # {}", sequences.value, sequences.why)?;
        writeln!(out, "    # threads: {:<12} # those that the host may use; this is the default", machine.processor.usable)?;
        self.write_gpu(out, machine)?;
        let kept = kept_beginnings(free, self.weight_bytes());
        writeln!(out, "    kv-memory: {:<12} # {}\n", kept.value, kept.why)
    }

    fn write_gpu(&self, out: &mut String, machine: &Machine) -> std::fmt::Result {
        let free: u64 = machine.gpus.iter().map(|gpu| gpu.free_bytes).sum();
        let needed =
            self.weight_bytes().saturating_add(self.kv_bytes(machine.memory.available_bytes)).saturating_add(GPU_WORKING_BYTES);
        match &self.model {
            _ if machine.gpus.is_empty() => Ok(()),
            Model::File { bytes: Some(_), .. } if needed <= free => {
                writeln!(
                    out,
                    "    # all of them: {} of {} are free there. Needs a build for graphics cards (`cargo xtask package --cuda`); others use the processor",
                    bytes(needed),
                    bytes(free)
                )?;
                writeln!(out, "    gpu-layers: 999")
            }
            _ => writeln!(
                out,
                "    # gpu-layers: 999       # {} are free on graphics cards; so many layers as fit there",
                bytes(free)
            ),
        }
    }

    fn write_types(&self, out: &mut String, machine: &Machine) -> std::fmt::Result {
        let count = self.count(machine);
        out.push_str("# Kinds of isolates. Memory is a limit, and taken only as a guest touches it.\ntypes:\n");
        for (name, cpu, memory) in [("tiny", "0.1", "128MB"), ("medium", "0.5", "1GB"), ("large", "1", "8GB")] {
            let (n, why) =
                if name == self.node_type { (count.value, count.why.as_str()) } else { (0, "added with `llamboctl spawn`") };
            writeln!(out, "  {name}:")?;
            writeln!(out, "    count: {n:<16} # {why}")?;
            writeln!(out, "    cpu: {cpu:<18} # share of a core over time")?;
            writeln!(out, "    memory: {memory}")?;
        }
        out.push('\n');
        Ok(())
    }

    fn weight_bytes(&self) -> u64 {
        match &self.model {
            Model::Builtin(_) => 16 * MIB,
            Model::File { bytes, .. } => bytes.unwrap_or(0),
        }
    }

    fn kv_bytes(&self, free: u64) -> u64 {
        match &self.model {
            Model::Builtin(_) => 0,
            Model::File { .. } => u64::from(self.sequences(free).value).saturating_mul(self.kv_bytes_each()),
        }
    }

    /// Tokens of a sequence: no more than the model knows.
    fn context(&self) -> u32 {
        match &self.model {
            Model::File { header: Some(header), .. } => header.n_context.clamp(64, CONTEXT),
            _ => CONTEXT,
        }
    }

    /// Keys and values of a whole sequence.
    fn kv_bytes_each(&self) -> u64 {
        let each = match &self.model {
            Model::File { header: Some(header), .. } => header.kv_bytes_per_token,
            _ => KV_PER_TOKEN,
        };
        u64::from(self.context()).saturating_mul(each).max(1)
    }

    fn sequences(&self, free: u64) -> Chosen<u32> {
        let together = "decoded together in one batch";
        match &self.model {
            _ if free == 0 => Chosen { value: 16, why: format!("{together}; how much memory there is could not be found out") },
            Model::Builtin(_) if free >= GIB => Chosen { value: 64, why: together.into() },
            Model::Builtin(_) => Chosen { value: 16, why: format!("{together}; few, since {} are available", bytes(free)) },
            Model::File { .. } => {
                // half of what the weights leave: the rest is for isolates, kept beginnings and the system
                let each = self.kv_bytes_each();
                let fit = free.saturating_sub(self.weight_bytes()) / 2 / each;
                let value = u32::try_from(fit).unwrap_or(u32::MAX).clamp(1, 32);
                Chosen { value, why: format!("{together}; about {} of keys and values each", bytes(each)) }
            }
        }
    }

    fn count(&self, machine: &Machine) -> Chosen<u32> {
        let free = machine.memory.available_bytes;
        let by_mappings = most_by_mappings(machine);
        if let Some(value) = self.nodes {
            let idle = bytes(u64::from(value) * IDLE_BYTES);
            let mut why = format!("as asked for; about {idle} while idle");
            if by_mappings.is_some_and(|most| u64::from(value) > most) {
                let needed = u64::from(value) * MAPPINGS_EACH + MAPPINGS_BESIDE;
                let _ = write!(why, "; needs `sysctl -w vm.max_map_count={needed}` on this system");
            }
            return Chosen { value, why };
        }
        let by_memory: u32 = if free < GIB { 100 } else { 1000 };
        let value = by_memory.min(by_mappings.and_then(|most| u32::try_from(most).ok()).unwrap_or(u32::MAX));
        Chosen { value, why: format!("at the start; about {} each while idle", bytes(IDLE_BYTES)) }
    }
}

// === impl Model ===

impl Model {
    pub(crate) fn of(path: Option<&Path>) -> Self {
        let Some(path) = path else { return Self::Builtin(BUILTIN.into()) };
        match path.to_str() {
            Some(name) if name.starts_with("builtin:") => Self::Builtin(name.into()),
            _ => {
                let bytes = path.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
                let header = bytes
                    .and_then(|_| llambo_catalog::Outline::read(path).ok())
                    .map(|outline| Header { n_context: outline.n_context, kv_bytes_per_token: outline.kv_bytes_per_token });
                // the configuration may stand in another folder
                let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
                Self::File { path, bytes, header }
            }
        }
    }
}

/// What was found, for people.
fn described(machine: &Machine) -> Vec<String> {
    let mut lines = Vec::new();
    let processor = &machine.processor;
    let model = if processor.model.is_empty() { &machine.architecture } else { &processor.model };
    let of = if processor.usable < processor.total { format!(" of {}", processor.total) } else { String::new() };
    lines
        .push(format!("processor  {model}, {}{of} threads {}", processor.usable, processor.features.join(" ")).trim().to_owned());
    let memory = &machine.memory;
    if memory.total_bytes > 0 {
        let limit = memory.limit_bytes.map_or_else(String::new, |limit| format!(", limited to {}", bytes(limit)));
        lines.push(format!("memory     {} of {} available{limit}", bytes(memory.available_bytes), bytes(memory.total_bytes)));
    }
    lines.extend(
        machine
            .gpus
            .iter()
            .map(|gpu| format!("gpu        {}, {} of {} free", gpu.name, bytes(gpu.free_bytes), bytes(gpu.memory_bytes))),
    );
    lines.push(format!("system     {}", machine.system));
    lines
}

/// Isolates that the system has mappings for, where each needs some of its own.
fn most_by_mappings(machine: &Machine) -> Option<u64> {
    let version = machine.system.strip_prefix("Linux ")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next()?, numbers.next().unwrap_or(0));
    (version < SHARES_MAPPINGS).then_some(machine.max_map_count?.saturating_sub(MAPPINGS_BESIDE) / MAPPINGS_EACH)
}

/// An eighth of what the weights leave, at most 4 GB.
fn kept_beginnings(free: u64, weights: u64) -> Chosen<String> {
    let mib = (free.saturating_sub(weights) / 8 / MIB).min(4096);
    Chosen {
        value: format!("{mib}MB"),
        why: "for beginnings of prompts that may come again; an eighth of what is available, at most 4GB".into(),
    }
}

fn bytes(n: u64) -> String {
    output::bytes(n)
}

/// What a comment or a name may hold.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// As a string of YAML, which takes those of JSON.
fn quoted(text: &str) -> String {
    // YAML takes fewer characters as they are than JSON does: no DEL, no control characters beyond it, no byte order mark
    let escaped = |c: char| match c {
        '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => format!("\\u{:04x}", u32::from(c)),
        c => c.into(),
    };
    serde_json::Value::from(text).to_string().chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use llambo_hardware::{Gpu, Memory, Processor};
    use proptest::prelude::*;

    use super::*;

    fn machine(free: u64, system: &str, max_map_count: Option<u64>) -> Machine {
        Machine {
            system: system.into(),
            processor: Processor { model: "AMD EPYC".into(), usable: 2, total: 8, features: vec!["avx2".into()] },
            memory: Memory { total_bytes: free * 2, available_bytes: free, limit_bytes: None },
            max_map_count,
            ..Machine::default()
        }
    }

    fn plan(model: Option<&str>, nodes: Option<u32>) -> Plan {
        Plan { model: Model::of(model.map(Path::new)), nodes, node_type: "tiny".into() }
    }

    fn parsed(text: &str) -> llambo_config::Config {
        llambo_config::Config::parse(text, "c.yaml").unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    #[test]
    fn a_usual_machine_gets_a_thousand_isolates() {
        let text = plan(None, None).config(&machine(16 * GIB, "Linux 6.13.2", Some(65_530)));
        let config = parsed(&text);
        assert_eq!((config.types[0].count, config.models[0].sequences, config.models[0].name.as_str()), (1000, 64, BUILTIN));
        assert!(text.contains("#   processor  AMD EPYC, 2 of 8 threads avx2"), "{text}");
    }

    #[test]
    fn few_mappings_mean_few_isolates() {
        let few = machine(16 * GIB, "Linux 5.15.0-91-generic", Some(6000));
        assert_eq!(parsed(&plan(None, None).config(&few)).types[0].count, 250);
        let asked = plan(None, Some(20_000)).config(&few);
        assert_eq!(parsed(&asked).types[0].count, 20_000);
        assert!(asked.contains("vm.max_map_count=85000"), "{asked}");
        assert!(!plan(None, Some(20_000)).config(&machine(16 * GIB, "Linux 6.13.0", Some(6000))).contains("sysctl"));
    }

    #[test]
    fn a_model_that_fits_onto_the_cards_is_put_there() {
        let file = |bytes| Plan {
            model: Model::File { path: "/m/q.gguf".into(), bytes: Some(bytes), header: None },
            ..plan(None, None)
        };
        let mut with_card = machine(64 * GIB, "Linux 6.13.0", None);
        with_card.gpus = vec![Gpu { name: "H100".into(), memory_bytes: 80 * GIB, free_bytes: 79 * GIB, driver: "570".into() }];
        assert_eq!(parsed(&file(8 * GIB).config(&with_card)).models[0].gpu_layers, 999);
        assert_eq!(parsed(&file(100 * GIB).config(&with_card)).models[0].gpu_layers, 0);
        assert_eq!(parsed(&file(8 * GIB).config(&machine(64 * GIB, "", None))).models[0].gpu_layers, 0);
    }

    #[test]
    fn a_large_model_leaves_room_for_few_sequences() {
        let file = |bytes| Plan {
            model: Model::File { path: "/m/q.gguf".into(), bytes: Some(bytes), header: None },
            ..plan(None, None)
        };
        let sequences = |bytes| parsed(&file(bytes).config(&machine(16 * GIB, "", None))).models[0].sequences;
        assert_eq!((sequences(8 * GIB), sequences(15 * GIB), sequences(90 * GIB)), (8, 1, 1));
    }

    #[test]
    fn a_models_own_header_says_how_long_a_sequence_may_be() {
        let header = Some(Header { n_context: 1024, kv_bytes_per_token: 6 * KIB });
        let model = Model::File { path: "/m/small.gguf".into(), bytes: Some(6 * MIB), header };
        let text = Plan { model, ..plan(None, None) }.config(&machine(16 * GIB, "", None));
        assert_eq!((parsed(&text).models[0].context, parsed(&text).models[0].sequences), (Some(1024), 32));
        assert!(text.contains("about 6.0 MiB of keys and values each"), "{text}");
    }

    proptest! {
        #[test]
        fn whatever_the_machine_it_can_be_read(
            free in any::<u64>(), weights in proptest::option::of(any::<u64>()), gpu in proptest::option::of(any::<u64>()),
            trained in proptest::option::of(any::<u32>()), name in "\\PC{0,40}", path in "[^\0]{1,60}", nodes in proptest::option::of(0u32..=200_000), maps in proptest::option::of(any::<u64>()),
            system in "(Linux )?[0-9.a-z]{0,12}", of in prop_oneof![Just("tiny"), Just("medium"), Just("large")],
        ) {
            let mut machine = machine(free / 2, &system, maps);
            machine.processor.model = name.clone();
            machine.gpus = gpu.into_iter().map(|free_bytes| Gpu { name: name.clone(), memory_bytes: free_bytes, free_bytes, driver: String::new() }).collect();
            let model = Model::File { path: PathBuf::from("/").join(&path), bytes: weights, header: trained.map(|n_context| Header { n_context, kv_bytes_per_token: free }) };
            let plan = Plan { model, nodes, node_type: of.into() };
            let text = plan.config(&machine);
            let config = llambo_config::Config::parse(&text, "c.yaml");
            prop_assert!(config.is_ok(), "{}\n{}", config.unwrap_err(), text);
            let count: u32 = config.unwrap().types.iter().map(|t| t.count).sum();
            prop_assert!(nodes.is_none_or(|nodes| nodes == count));
        }
    }
}
