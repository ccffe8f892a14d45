//! Programs that are measured: started, waited for, stopped.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longer than any model here takes to load.
const STARTS_WITHIN: Duration = Duration::from_mins(1);

/// A running llama-server. Killed when dropped.
pub(crate) struct LlamaServer {
    child: Child,
    pub(crate) address: String,
}

// === impl LlamaServer ===

impl LlamaServer {
    pub(crate) fn start(program: &Path, model: &Path, n_slots: u32, n_context: u32, n_threads: u32) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let number = |n: u32| n.to_string();
        let child = Command::new(program)
            .arg("-m")
            .arg(model)
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "-ngl", "0", "-b", "2048", "-ub", "512"])
            .args(["-np", &number(n_slots), "-c", &number(n_slots * n_context), "-t", &number(n_threads)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start `{}`: {e}", program.display()));
        let server = Self { child, address: format!("127.0.0.1:{port}") };
        let begun = Instant::now();
        while !server.is_ready() {
            assert!(begun.elapsed() < STARTS_WITHIN, "`{}` does not get ready", program.display());
            std::thread::park_timeout(Duration::from_millis(50));
        }
        server
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(&self.address) else { return false };
        let mut answer = [0; 15];
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer.ends_with(b"200 OK")
    }
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        // it is not asked to end well, and has nothing to lose
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What llama-batched-bench says of decoding: tokens a second, `n_sequences` at a time.
pub(crate) fn batched_bench(program: &Path, model: &Path, n_sequences: u32, n_tokens: u32, n_threads: u32) -> f64 {
    let number = |n: u32| n.to_string();
    let output = Command::new(program)
        .arg("-m")
        .arg(model)
        .args(["-ngl", "0", "-b", "2048", "-ub", "512", "-npp", "64"])
        .args(["-c", &number(n_sequences * (64 + n_tokens)), "-ntg", &number(n_tokens), "-npl", &number(n_sequences)])
        .args(["-t", &number(n_threads)])
        .output()
        .unwrap_or_else(|e| panic!("cannot start `{}`: {e}", program.display()));
    let text = String::from_utf8_lossy(&output.stdout);
    let row = text.lines().rfind(|line| line.starts_with('|') && line.contains(&format!(" {n_sequences} |")));
    let row = row.unwrap_or_else(|| panic!("`{}` printed no table:\n{text}", program.display()));
    // | PP | TG | B | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s | T s | S t/s |
    row.split('|').nth(8).and_then(|cell| cell.trim().parse().ok()).expect("the column S_TG")
}
