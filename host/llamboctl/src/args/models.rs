//! Models of this machine, and of the host.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// List the models that can be asked
    List,
    /// List the models that are registered on this machine; needs no host
    Catalog(Where),
    /// Give a model that is on this machine a name; needs no host
    Register(Register),
    /// Fetch a model and give it a name; goes on after a cut; needs no host
    Download(Register),
    /// Forget a name; needs no host
    Unregister(Unregister),
    /// Say what a model is, and whether it fits into this machine's memory; needs no host
    Show(Show),
    /// Bring a model into the memory of the host, and into service if it was not
    Load(Load),
    /// Take a model out of the memory of the host once nobody uses it; who asks for it has it loaded again
    Unload {
        /// Its name
        name: String,
        /// Take it out of service: it cannot be asked any more
        #[arg(long)]
        retire: bool,
    },
    /// Keep a model in the memory of the host, also when room is needed for another one
    Pin {
        /// Its name
        name: String,
    },
    /// Let a model go again when room is needed
    Unpin {
        /// Its name
        name: String,
    },
}

/// Which catalog.
#[derive(Clone, Debug, Default, Group)]
pub(crate) struct Where {
    /// The catalog; without it, `llambo/catalog.json` in the user's data folder
    #[arg(long, env = "LLAMBO_CATALOG", value_name = "FILE")]
    pub(crate) catalog: Option<PathBuf>,
}

#[derive(Debug, Group)]
pub(crate) struct Register {
    /// A GGUF file, an address, `hf:OWNER/REPO[@REVISION][:FILE or QUANTIZATION]`, or `builtin:demo`
    pub(crate) source: String,
    /// What it is called; without it, a name made from where it comes from
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// SHA-256 that it must have
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<String>,
    /// Take the name from the model that has it
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) at: Where,
}

#[derive(Debug, Group)]
pub(crate) struct Unregister {
    /// The name
    pub(crate) name: String,
    /// Also delete the file, if it was downloaded from a plain address
    #[arg(long)]
    pub(crate) delete: bool,
    #[command(flatten)]
    pub(crate) at: Where,
}

#[derive(Debug, Group)]
pub(crate) struct Show {
    /// A registered name, a file, `builtin:demo`, or `hf:OWNER/REPO...` as far as it is on this machine
    pub(crate) model: String,
    /// Configuration that says `context`, `sequences` and `kv-type` of it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Tokens of context of each sequence; without it, what the model was trained for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    pub(crate) context: Option<u32>,
    /// Sequences that are decoded together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) sequences: Option<u32>,
    /// How the KV cache is kept
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    pub(crate) kv_type: Option<Kv>,
    #[command(flatten)]
    pub(crate) at: Where,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kv {
    /// 16-bit floats
    F16,
    /// 8-bit blocks
    #[value(name = "q8_0")]
    Q8,
}

#[derive(Debug, Group)]
pub(crate) struct Load {
    /// Its name in the catalog of the host's machine, or among the models of the host
    pub(crate) name: String,
    /// Node type whose limits, module and tenant its isolates take; without it, the first one that the host permits
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) node_type: Option<String>,
    /// Isolates that serve it; without it, as the host is configured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,
    /// Tokens of prompt and answer together; without it, as the host is configured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    pub(crate) context: Option<u32>,
    /// Sequences decoded together; without it, as the host is configured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) sequences: Option<u32>,
    /// Also pin it
    #[arg(long)]
    pub(crate) pin: bool,
}
