//! A program written with the crate of the proposal itself, which knows neither streaming nor options.

use std::{env, error::Error};

use wasi_nn::{ExecutionTarget, GraphBuilder, GraphEncoding, TensorType};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().collect();
    let graph = GraphBuilder::new(GraphEncoding::Autodetec, ExecutionTarget::CPU).build_from_cache(&args[1])?;
    let mut context = graph.init_execution_context()?;
    context.set_input(0, TensorType::U8, &[1], args[2].as_bytes())?;
    context.compute()?;
    let mut buffer = vec![0u8; 64 << 10];
    let n = context.get_output(0, &mut buffer)?;
    print!("{}", String::from_utf8_lossy(&buffer[..n]));
    Ok(())
}
