//! Open files and connections that the system grants this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Besides connections: models, modules, caches, the runtime's own, and isolates that are being put aside.
const OTHERS: u64 = 1024;

/// Raises the limit to what `max_connections` needs, as far as the system lets it: many start processes with 1,024, of which they may take
/// more. Where that is not enough, connections are refused later than `network.max-connections` says.
pub(crate) fn raise(max_connections: u32) {
    let needed = u64::from(max_connections) + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // none is as many as there can be
    let Some(now) = current.filter(|now| *now < needed) else { return };
    let wanted = maximum.map_or(needed, |most| most.min(needed));
    if wanted > now
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::warn!(%error, now, wanted, "the limit of open files could not be raised");
    }
    if wanted < needed {
        tracing::warn!(
            limit = wanted,
            needed,
            max_connections,
            "fewer connections can be open than `network.max-connections`: raise `ulimit -n`"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_reaches_what_is_needed_and_never_falls() {
        let before = getrlimit(Resource::Nofile);
        raise(0);
        let small = getrlimit(Resource::Nofile).current;
        assert!(small.is_none() || small >= before.current, "{small:?}");
        let reachable = before.maximum.unwrap_or(u64::MAX).min(4096 + OTHERS);
        raise(4096);
        assert!(getrlimit(Resource::Nofile).current.is_none_or(|now| now >= reachable));
    }
}
