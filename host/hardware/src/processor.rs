use std::{num::NonZero, thread};

/// What llama.cpp has code of its own for, as Linux spells it; the order in which they are shown.
const FEATURES: [&str; 22] = [
    "sse4_2", "avx", "f16c", "fma", "bmi2", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
];

/// The processors of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// As its maker calls it; empty where it does not say.
    pub model: String,
    /// Threads that this process can run at once: what affinity and the CPU quota of its control group leave.
    pub usable: u32,
    /// Those of the machine.
    pub total: u32,
    /// Of its features, those that llama.cpp has code of its own for.
    pub features: Vec<String>,
}

// === impl Processor ===

impl Processor {
    /// From the text of `/proc/cpuinfo`.
    pub(crate) fn of(cpuinfo: &str) -> Self {
        let field = |names: &[&str]| {
            let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            let mut fitting = fields.filter(|(name, _)| names.contains(&name.trim())).map(|(_, value)| value.trim());
            fitting.find(|value| !value.is_empty())
        };
        let flags: Vec<&str> = field(&["flags", "Features"]).unwrap_or_default().split_whitespace().collect();
        let total = cpuinfo.lines().filter(|line| line.split(':').next().is_some_and(|name| name.trim() == "processor")).count();
        let usable = u32::try_from(thread::available_parallelism().map_or(1, NonZero::get)).unwrap_or(u32::MAX);
        Self {
            model: field(&["model name", "Model", "cpu model"]).unwrap_or_default().to_owned(),
            usable,
            total: u32::try_from(total).unwrap_or(u32::MAX).max(usable),
            features: FEATURES.iter().filter(|name| flags.contains(name)).map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_processor_is_read_from_what_linux_says() {
        let one = "processor\t: 0\nmodel name\t: AMD EPYC 9R14\nflags\t\t: fpu avx sse4_2 avx2 avx512f xyz\nbogomips: 1\n\n";
        let text = one.repeat(3000).replace("processor\t: 0", "processor\t: 7");
        let found = Processor::of(&text);
        assert_eq!((found.model.as_str(), found.total), ("AMD EPYC 9R14", 3000));
        assert_eq!(found.features, ["sse4_2", "avx", "avx2", "avx512f"]);
    }

    #[test]
    fn an_arm_has_no_model_name() {
        let found =
            Processor::of("processor\t: 0\nBogoMIPS\t: 48.00\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x41\n");
        assert_eq!((found.model.as_str(), found.features.join(" ").as_str()), ("", "asimd asimddp i8mm"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(processor|flags|model name|:|\t|\n|[a-z0-9 ]|\\PC){0,200}") {
            let found = Processor::of(&text);
            prop_assert!(found.usable >= 1 && found.total >= found.usable);
        }
    }
}
