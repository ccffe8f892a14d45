//! What isolates will need of this machine, computed before any is made.

use crate::{
    Layout, Limits,
    pool::{ADDRESS_BYTES, MAPS_PER_ISOLATE, MAPS_RESERVED, SMALLEST_POOL, address_bytes, max_map_count},
};

/// What an idle isolate takes beyond the memory its guest touched: store, handles and parked stack.
const HOST_BYTES_PER_ISOLATE: u64 = 32 << 10;
/// What a small guest touches before its first request.
const TOUCHED_BYTES_PER_ISOLATE: u64 = 64 << 10;

/// What a set of isolates needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// How they are laid out here.
    pub layout: Layout,
    /// Isolates.
    pub n_isolates: u64,
    /// Addresses reserved.
    pub address_bytes: u64,
    /// Memory mappings.
    pub n_maps: u64,
    /// Resident memory while all are idle; each may grow to its type's `memory`.
    pub idle_bytes: u64,
}

/// A limit that stops a set of isolates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What is short, and by how much.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// What the given isolates need, type by type, and what of it this machine does not have.
pub fn preflight(types: &[(u32, Limits)]) -> (Need, Vec<Shortage>) {
    check(types, Layout::detect(), max_map_count())
}

fn check(types: &[(u32, Limits)], layout: Layout, max_maps: u64) -> (Need, Vec<Shortage>) {
    let n_isolates = types.iter().map(|(count, _)| u64::from(*count)).sum();
    // a type that begins with none has a small pool all the same
    let places = |count: u32| u64::from(count.max(SMALLEST_POOL));
    let maps_each = if layout == Layout::Mapped { MAPS_PER_ISOLATE } else { 0 };
    let need = Need {
        layout,
        n_isolates,
        address_bytes: types.iter().map(|(count, limits)| places(*count).saturating_mul(address_bytes(layout, limits))).sum(),
        n_maps: types.iter().map(|(count, _)| places(*count) * maps_each).sum(),
        idle_bytes: n_isolates * (HOST_BYTES_PER_ISOLATE + TOUCHED_BYTES_PER_ISOLATE),
    };
    let mut shortages = Vec::new();
    let maps = max_maps.saturating_sub(MAPS_RESERVED);
    if need.n_maps > maps {
        shortages.push(Shortage {
            what: format!(
                "{n_isolates} isolates take {} memory mappings, and vm.max_map_count leaves {maps} ({} isolates)",
                need.n_maps,
                maps / MAPS_PER_ISOLATE
            ),
            remedy: format!(
                "`sysctl -w vm.max_map_count={}`, Linux 6.13 or newer, or fewer isolates",
                need.n_maps + MAPS_RESERVED
            ),
        });
    }
    if need.address_bytes > ADDRESS_BYTES {
        let gib = |bytes: u64| bytes >> 30;
        shortages.push(Shortage {
            what: format!(
                "the isolates reserve {} GiB of addresses, and there are {} GiB",
                gib(need.address_bytes),
                gib(ADDRESS_BYTES)
            ),
            remedy: "a smaller `memory` for the largest types, or fewer isolates".into(),
        });
    }
    (need, shortages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_named_with_its_remedy() {
        let small = |count| [(count, Limits::default())];
        let check = |types: &[_], max_maps| check(types, Layout::Mapped, max_maps);
        assert_eq!(check(&small(15_000), 65_530).1, []);
        assert_eq!(super::check(&small(200_000), Layout::Slab, 65_530).1, []);
        let short = check(&small(16_000), 65_530).1;
        assert_eq!(short.len(), 1);
        assert!(short[0].remedy.contains("vm.max_map_count=68096"), "{short:?}");
        let large = [(20_000, Limits { memory_bytes: 4 << 30, ..Limits::default() })];
        assert!(check(&large, 1 << 30).1[0].what.contains("addresses"));
    }
}
