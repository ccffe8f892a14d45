//! What a host and its machine have, as it goes over the wire.

use llambo_hardware::{Gpu, Machine};
use llambo_proto::v1;

use crate::{ComputeDevice, Hardware};

/// This host.
pub(super) fn this(status: &v1::StatusResponse, hardware: Hardware) -> v1::Host {
    v1::Host {
        name: hardware.machine.name.clone(),
        version: status.version.clone(),
        uptime_seconds: status.uptime_seconds,
        draining: status.draining,
        nodes: status.nodes_by_state.values().sum(),
        resident_bytes: status.resident_bytes,
        hardware: Some(wire(hardware)),
    }
}

fn wire(Hardware { machine, devices }: Hardware) -> v1::Hardware {
    let Machine { system, architecture, processor, memory, gpus, .. } = machine;
    v1::Hardware {
        system,
        architecture,
        processor: processor.model,
        cpus: processor.usable,
        machine_cpus: processor.total,
        cpu_features: processor.features,
        memory_bytes: memory.total_bytes,
        memory_available_bytes: memory.available_bytes,
        memory_limit_bytes: memory.limit_bytes.unwrap_or(0),
        gpus: gpus.into_iter().map(gpu).collect(),
        devices: devices.into_iter().map(device).collect(),
    }
}

fn gpu(Gpu { name, memory_bytes, free_bytes, driver, .. }: Gpu) -> v1::Gpu {
    v1::Gpu { name, memory_bytes, memory_free_bytes: free_bytes, driver }
}

fn device(ComputeDevice { name, description, is_gpu, memory_bytes }: ComputeDevice) -> v1::Device {
    v1::Device { name, description, gpu: is_gpu, memory_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has_is_told_with_what_llama_cpp_uses_of_it() {
        let gpu = Gpu { name: "H100".into(), memory_bytes: 80, free_bytes: 79, driver: "570".into() };
        let mut machine = Machine { name: "a".into(), gpus: vec![gpu], ..Machine::default() };
        machine.memory.limit_bytes = Some(7);
        let device = ComputeDevice { name: "CUDA0".into(), description: "H100".into(), is_gpu: true, memory_bytes: 80 };
        let status =
            v1::StatusResponse { nodes_by_state: [("ready".into(), 2), ("busy".into(), 1)].into(), ..Default::default() };
        let host = this(&status, Hardware { machine, devices: vec![device] });
        let hardware = host.hardware.unwrap();
        assert_eq!((host.name.as_str(), host.nodes, hardware.memory_limit_bytes), ("a", 3, 7));
        assert_eq!((hardware.gpus[0].memory_free_bytes, hardware.devices[0].gpu), (79, true));
    }
}
