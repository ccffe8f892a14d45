//! What WasmEdge's examples do, one thing for each first word of the prompt: `complete`, `stream`, `stdout`, `embed`, `twice`, `unload`,
//! `missing`, `config`, `denied`, `surroundings`, `exit`, `panic`, `write`, `misuse`.

use std::{
    env,
    error::Error,
    fs,
    io::{self, Read, Write},
    net::TcpStream,
};

use wasmedge_wasi_nn::{
    BackendError, Error as NnError, ExecutionTarget, Graph, GraphBuilder, GraphEncoding, GraphExecutionContext, TensorType,
};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let args: Vec<String> = env::args().collect();
    let [_, model, prompt] = &args[..] else { return Err(format!("usage: wasmedge MODEL PROMPT, not {args:?}").into()) };
    let (what, rest) = prompt.split_once(' ').unwrap_or((prompt, ""));
    match what {
        "complete" => complete(&graph(model, "{}")?, rest),
        "stream" => stream(model, rest),
        "stdout" => {
            let mut context = asked(&graph(model, r#"{"stream-stdout": true, "n-predict": 8}"#)?, rest)?;
            Ok(context.compute()?)
        }
        "embed" => {
            let mut context = asked(&graph(model, r#"{"embedding": true}"#)?, rest)?;
            context.compute()?;
            println!("{}", output(&context, 0)?);
            Ok(())
        }
        "twice" => twice(model, rest),
        "unload" => unload(model, rest),
        "missing" => told(graph("not-there", "{}").map(drop)),
        "config" => {
            let mut context = asked(&graph(model, "{}")?, rest)?;
            context.set_input(1, TensorType::U8, &[1], br#"{"n-predict": 3, "temp": 0}"#)?;
            context.compute()?;
            println!("{}", output(&context, 1)?);
            told(context.set_input(1, TensorType::U8, &[1], b"{"))
        }
        "denied" => told(graph(model, r#"{"mmproj": "/etc/passwd"}"#).map(drop)),
        "surroundings" => surroundings(),
        "exit" => std::process::exit(rest.parse()?),
        "panic" => panic!("as asked: {rest}"),
        "write" => write_on(),
        "misuse" => misuse(model),
        other => Err(format!("there is no `{other}`").into()),
    }
}

fn graph(model: &str, options: &str) -> Result<Graph, NnError> {
    GraphBuilder::new(GraphEncoding::Ggml, ExecutionTarget::AUTO).config(options.to_owned()).build_from_cache(model)
}

fn asked(graph: &Graph, prompt: &str) -> Result<GraphExecutionContext, NnError> {
    let mut context = graph.init_execution_context()?;
    context.set_input(0, TensorType::U8, &[prompt.len()], prompt.as_bytes())?;
    Ok(context)
}

fn output(context: &GraphExecutionContext, index: usize) -> Result<String, NnError> {
    let mut buffer = vec![0u8; 64 << 10];
    let n = context.get_output(index, &mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n.min(buffer.len())]).into_owned())
}

fn complete(graph: &Graph, prompt: &str) -> Outcome {
    let mut context = asked(graph, prompt)?;
    println!("before {}", output(&context, 1)?);
    context.compute()?;
    println!("{}", output(&context, 0)?);
    println!("after {}", output(&context, 1)?);
    let mut small = [0u8; 2];
    let needed = context.get_output(0, &mut small)?;
    println!("needed {needed}");
    Ok(())
}

fn stream(model: &str, prompt: &str) -> Outcome {
    let mut context = asked(&graph(model, "{}")?, prompt)?;
    let mut buffer = [0u8; 4096];
    let mut n_pieces = 0;
    let end = loop {
        match context.compute_single() {
            Ok(()) => {}
            Err(NnError::BackendError(end)) => break end,
            Err(other) => return Err(other.into()),
        }
        n_pieces += 1;
        let n = context.get_output_single(0, &mut buffer)?;
        io::stdout().write_all(&buffer[..n])?;
        io::stdout().flush()?;
    };
    context.fini_single()?;
    println!("\n{n_pieces} pieces, then {end:?}");
    Ok(())
}

fn twice(model: &str, prompt: &str) -> Outcome {
    let mut context = asked(&graph(model, r#"{"n-predict": 4, "temp": 0}"#)?, prompt)?;
    context.compute()?;
    let first = output(&context, 0)?;
    context.set_input(0, TensorType::U8, &[prompt.len()], prompt.as_bytes())?;
    context.compute()?;
    println!("{}", if output(&context, 0)? == first { "the same" } else { "another" });
    Ok(())
}

fn unload(model: &str, prompt: &str) -> Outcome {
    for _ in 0..3 {
        let loaded = graph(model, "{}")?;
        complete(&loaded, prompt)?;
        loaded.unload()?;
        told(loaded.init_execution_context().map(drop))?;
    }
    Ok(())
}

/// Says which number came back.
fn told(done: Result<(), NnError>) -> Outcome {
    match done {
        Ok(()) => println!("no error"),
        Err(NnError::BackendError(error)) => println!("{error:?}"),
        Err(other) => return Err(other.into()),
    }
    Ok(())
}

fn surroundings() -> Outcome {
    let mut input = String::new();
    io::stdin().read_to_string(&mut input)?;
    println!("stdin {input:?}");
    println!("env {:?}", env::vars().collect::<Vec<_>>());
    println!("file {}", fs::read("/etc/passwd").is_ok());
    println!("folder {}", fs::read_dir(".").is_ok());
    println!("network {}", TcpStream::connect("127.0.0.1:22").is_ok());
    Ok(())
}

fn write_on() -> Outcome {
    loop {
        io::stdout().write_all(&[b'x'; 4096])?;
    }
}

fn misuse(model: &str) -> Outcome {
    let mut context = graph(model, "{}")?.init_execution_context()?;
    told(context.compute())?;
    told(context.set_input(2, TensorType::U8, &[1], b"x"))?;
    told(context.set_input(0, TensorType::U8, &[1], b"\xff"))?;
    told(GraphBuilder::new(GraphEncoding::Ggml, ExecutionTarget::AUTO).build_from_bytes([b"x"]).map(drop))?;
    told(GraphBuilder::new(GraphEncoding::Onnx, ExecutionTarget::AUTO).build_from_bytes([b"x"]).map(drop))?;
    let long = "word ".repeat(20_000);
    context.set_input(0, TensorType::U8, &[long.len()], long.as_bytes())?;
    match context.compute() {
        Err(NnError::BackendError(BackendError::PromptTooLong)) => println!("too long"),
        other => println!("{other:?}"),
    }
    Ok(())
}
