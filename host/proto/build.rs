//! Generates the wire types and services with a protobuf compiler written in Rust: nothing has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILE: &str = "../../proto/llambo/v1/llambo.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    let descriptors = protox::compile([FILE], ["../../proto"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().emit_rerun_if_changed(false).compile_fds(descriptors)?;
    Ok(())
}
