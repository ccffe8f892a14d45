//! `llamboctl events`.

use std::time::Duration;

use clap::Args as Group;

use super::values::{Since, since};

#[derive(Debug, Group)]
pub(crate) struct Events {
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only from so long ago on, for example `10m`, or after the event of that number, for example `#42`
    #[arg(long, value_name = "TIME|#NUMBER", value_parser = since)]
    pub(crate) since: Option<Since>,
    /// Only this kind, for example `scale.up`, or all that begin so: `nodes`, `scale`, `breaker`, `policy`, `module`, `model`, `balancer`, `host`; may be given
    /// several times
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Vec<String>,
    /// Only what is about this node type; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) node_type: Vec<String>,
    /// End after so long, with `--follow`
    #[arg(long, value_name = "TIME", value_parser = super::values::duration, requires = "follow")]
    pub(crate) r#for: Option<Duration>,
}
