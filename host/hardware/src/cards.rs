//! Graphics cards, as NVIDIA's management library tells of them. It is part of the driver and loaded while the program runs: without it there are none.

use nvml_wrapper::{Device, Nvml, error::NvmlError};

/// What the driver installs; the first name comes with development packages only.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// A graphics card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// As its maker calls it.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// What of it is free.
    pub free_bytes: u64,
    /// The version of its driver.
    pub driver: String,
}

/// The way to the cards.
pub(crate) struct Cards(Option<Nvml>);

// === impl Cards ===

impl Cards {
    pub(crate) fn load() -> Self {
        // Windows keeps it under another name, which the crate knows
        let named = LIBRARIES.iter().find_map(|name| Nvml::builder().lib_path(name.as_ref()).init().ok());
        Self(named.or_else(|| Nvml::init().ok()))
    }

    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Those that answer. A card that is gone, or that this user may not ask, is left out.
    pub(crate) fn all(&self) -> Vec<Gpu> {
        let Some(nvml) = &self.0 else { return Vec::new() };
        let driver = nvml.sys_driver_version().unwrap_or_default();
        let n_cards = nvml.device_count().unwrap_or(0);
        (0..n_cards).filter_map(|i| gpu(&nvml.device_by_index(i).ok()?, &driver).ok()).collect()
    }
}

fn gpu(device: &Device<'_>, driver: &str) -> Result<Gpu, NvmlError> {
    let memory = device.memory_info()?;
    Ok(Gpu { name: device.name()?, memory_bytes: memory.total, free_bytes: memory.free, driver: driver.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_has_no_cards_and_no_error() {
        assert!(Cards::none().all().is_empty());
        // with a driver or without, asking is safe
        for card in Cards::load().all() {
            assert!(card.free_bytes <= card.memory_bytes, "{card:?}");
        }
    }
}
