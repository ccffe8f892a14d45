//! Who is let in, as clients meet it: real ports, real tokens, real certificates.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod certificates;
mod harness;
mod limits;
mod secrets;
mod tls;
mod tokens;
