//! `llamboctl hosts`: what machines have.

use std::io::{self, Write};

use llambo_client::{Gpu, Hardware, Host};
use llambo_hardware::{Detector, Machine};
use serde_json::{Value, json};

use super::Session;
use crate::{
    exit::{Failure, OK},
    output,
};

pub(crate) async fn hosts(session: &Session) -> Result<u8, Failure> {
    let hosts = session.client.hosts().await?;
    let mut out = output::stdout();
    if session.json {
        output::json(&mut out, &hosts.iter().map(to_json).collect())?;
        return Ok(OK);
    }
    for (i, host) in hosts.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        to_text(&mut out, host)?;
    }
    Ok(OK)
}

/// The machine that this program runs on.
pub(crate) fn here(json: bool) -> Result<u8, Failure> {
    let machine = Detector::new().machine();
    let mut out = output::stdout();
    if json {
        let mut value = hardware_json(&wire(&machine));
        value["name"] = machine.name.into();
        value["max_map_count"] = machine.max_map_count.into();
        output::json(&mut out, &value)?;
        return Ok(OK);
    }
    writeln!(out, "machine    {}", output::for_terminal(&machine.name))?;
    hardware_text(&mut out, &wire(&machine))?;
    if let Some(n) = machine.max_map_count {
        writeln!(out, "mappings   {n} for a process (vm.max_map_count)")?;
    }
    Ok(OK)
}

fn wire(machine: &Machine) -> Hardware {
    let Machine { system, architecture, processor, memory, gpus, .. } = machine.clone();
    let gpu = |gpu: llambo_hardware::Gpu| Gpu {
        name: gpu.name,
        memory_bytes: gpu.memory_bytes,
        memory_free_bytes: gpu.free_bytes,
        driver: gpu.driver,
    };
    Hardware {
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
        devices: Vec::new(),
    }
}

fn to_json(host: &Host) -> Value {
    json!({
        "name": host.name,
        "version": host.version,
        "uptime_seconds": host.uptime_seconds,
        "draining": host.draining,
        "nodes": host.nodes,
        "resident_bytes": host.resident_bytes,
        "hardware": hardware_json(&host.hardware.clone().unwrap_or_default()),
    })
}

fn hardware_json(h: &Hardware) -> Value {
    let gpu = |gpu: &Gpu| json!({ "name": gpu.name, "memory_bytes": gpu.memory_bytes, "memory_free_bytes": gpu.memory_free_bytes, "driver": gpu.driver });
    let device = |d: &llambo_client::Device| json!({ "name": d.name, "description": d.description, "gpu": d.gpu, "memory_bytes": d.memory_bytes });
    json!({
        "system": h.system,
        "architecture": h.architecture,
        "processor": h.processor,
        "cpus": h.cpus,
        "machine_cpus": h.machine_cpus,
        "cpu_features": h.cpu_features,
        "memory_bytes": h.memory_bytes,
        "memory_available_bytes": h.memory_available_bytes,
        "memory_limit_bytes": (h.memory_limit_bytes > 0).then_some(h.memory_limit_bytes),
        "gpus": h.gpus.iter().map(gpu).collect::<Value>(),
        "devices": h.devices.iter().map(device).collect::<Value>(),
    })
}

fn to_text(out: &mut impl Write, host: &Host) -> io::Result<()> {
    let draining = if host.draining { ", draining" } else { "" };
    let (name, age) = (output::for_terminal(&host.name), output::age(host.uptime_seconds));
    writeln!(out, "host       {name}, llambo {}, up {age}{draining}", host.version)?;
    writeln!(out, "nodes      {}, {} of memory resident", host.nodes, output::bytes(host.resident_bytes))?;
    hardware_text(out, &host.hardware.clone().unwrap_or_default())
}

/// What a machine has, a line for each thing.
pub(crate) fn hardware_text(out: &mut impl Write, h: &Hardware) -> io::Result<()> {
    let model = if h.processor.is_empty() { &h.architecture } else { &h.processor };
    let threads =
        if h.cpus < h.machine_cpus { format!("{} of {} threads", h.cpus, h.machine_cpus) } else { format!("{} threads", h.cpus) };
    writeln!(out, "system     {}, {}", output::for_terminal(&h.system), h.architecture)?;
    writeln!(out, "processor  {}, {threads}", output::for_terminal(model))?;
    if !h.cpu_features.is_empty() {
        writeln!(out, "features   {}", h.cpu_features.join(" "))?;
    }
    if h.memory_bytes > 0 {
        let limit = match h.memory_limit_bytes {
            0 => String::new(),
            limit => format!(", and a limit allows {} in all", output::bytes(limit)),
        };
        let (left, all) = (output::bytes(h.memory_available_bytes), output::bytes(h.memory_bytes));
        writeln!(out, "memory     {left} of {all} available{limit}")?;
    }
    for gpu in &h.gpus {
        let (free, all) = (output::bytes(gpu.memory_free_bytes), output::bytes(gpu.memory_bytes));
        writeln!(out, "gpu        {}: {free} of {all} free, driver {}", output::for_terminal(&gpu.name), gpu.driver)?;
    }
    if h.gpus.is_empty() {
        writeln!(out, "gpu        none that NVIDIA's driver knows")?;
    }
    for device in &h.devices {
        let name = output::for_terminal(&device.name);
        writeln!(
            out,
            "computes   {name}: {}, {}",
            if device.gpu { "graphics card" } else { "processor" },
            output::for_terminal(&device.description)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Host {
        let hardware = Hardware {
            system: "Linux 6.13.2".into(),
            architecture: "x86_64".into(),
            processor: "AMD EPYC 9R14".into(),
            cpus: 4,
            machine_cpus: 96,
            cpu_features: vec!["avx2".into(), "avx512f".into()],
            memory_bytes: 64 << 30,
            memory_available_bytes: 3 << 30,
            memory_limit_bytes: 8 << 30,
            gpus: vec![Gpu {
                name: "NVIDIA H100".into(),
                memory_bytes: 80 << 30,
                memory_free_bytes: 79 << 30,
                driver: "570.1".into(),
            }],
            devices: vec![llambo_client::Device {
                name: "CPU".into(),
                description: "AMD EPYC".into(),
                gpu: false,
                memory_bytes: 0,
            }],
        };
        Host {
            name: "alpha".into(),
            version: "0.1.0".into(),
            nodes: 1000,
            resident_bytes: 1 << 30,
            hardware: Some(hardware),
            ..Host::default()
        }
    }

    #[test]
    fn a_host_is_told_line_by_line() {
        let mut out = Vec::new();
        to_text(&mut out, &example()).unwrap();
        let expected = "\
host       alpha, llambo 0.1.0, up 0s
nodes      1000, 1.0 GiB of memory resident
system     Linux 6.13.2, x86_64
processor  AMD EPYC 9R14, 4 of 96 threads
features   avx2 avx512f
memory     3.0 GiB of 64.0 GiB available, and a limit allows 8.0 GiB in all
gpu        NVIDIA H100: 79.0 GiB of 80.0 GiB free, driver 570.1
computes   CPU: processor, AMD EPYC
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn json_has_null_where_there_is_no_limit() {
        let mut host = example();
        assert_eq!(to_json(&host)["hardware"]["memory_limit_bytes"], 8_u64 << 30);
        host.hardware.as_mut().unwrap().memory_limit_bytes = 0;
        assert_eq!(to_json(&host)["hardware"]["memory_limit_bytes"], Value::Null);
        assert_eq!(to_json(&host)["hardware"]["gpus"][0]["driver"], "570.1");
        assert_eq!(to_json(&Host::default())["hardware"]["cpus"], 0);
    }
}
