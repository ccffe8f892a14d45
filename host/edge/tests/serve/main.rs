//! The edge as clients meet it: real ports, real connections, nodes without a model behind them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod examples;
mod harness;
mod openai;
mod operations;
mod page;
mod script;
mod sessions;
mod tasks;
mod watch;
mod web;
