//! What this machine has, for those who ask the host.

use std::sync::{Arc, OnceLock};

use llambo_edge::{ComputeDevice, Hardware, Look};
use llambo_hardware::Detector;
use llambo_llama::Device;

/// Looks at the machine. Drivers are loaded when it is first asked, and not by hosts that nobody asks.
pub(crate) fn look() -> Look {
    let detector = OnceLock::new();
    Arc::new(move || Hardware {
        machine: detector.get_or_init(Detector::new).machine(),
        devices: llambo_llama::devices().into_iter().map(device).collect(),
    })
}

fn device(device: Device) -> ComputeDevice {
    let Device { name, description, is_gpu, total_bytes, .. } = device;
    ComputeDevice { name, description, is_gpu, memory_bytes: total_bytes }
}
