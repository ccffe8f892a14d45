//! What the host writes about itself: to standard error, never a prompt or an answer.

use std::io::{self, IsTerminal};

use llambo_config::{LogFormat, Logging};
use tracing_subscriber::EnvFilter;

use crate::Failure;

pub(crate) fn start(logging: &Logging) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&logging.level).map_err(|e| Failure::Config(format!("logging.level: {e}")))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let started = match logging.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(Failure::machine)
}
