//! `llamboctl bench`.

use std::{path::PathBuf, time::Duration};

use clap::{Args as Group, Subcommand};

use super::{
    Target,
    values::{duration, rate},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Send many requests and report latencies, throughput and how they spread over nodes
    Load(BenchLoad),
}

#[derive(Clone, Debug, Group)]
pub(crate) struct BenchLoad {
    /// Requests in flight at any time
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) concurrency: u32,
    /// Requests in all
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: u64,
    /// Start this many requests a second instead, whether or not earlier ones are done
    #[arg(long, value_name = "R", value_parser = rate, conflicts_with_all = ["concurrency", "requests"])]
    pub(crate) rate: Option<f64>,
    /// For how long, instead of `--requests`; with `--rate`, 10s where it is left out
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "requests")]
    pub(crate) duration: Option<Duration>,
    /// Tokens generated at most by each request
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_tokens: u32,
    /// What each request asks, continued as it stands
    #[arg(long, default_value = "Once upon a time", value_name = "TEXT")]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Give up on a request after this long
    #[arg(long, env = "LLAMBO_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// HTTP/2 connections the requests are spread over; without it, one for every 64 in flight, at most 16
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) connections: Option<u32>,
    /// Also write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json_file: Option<PathBuf>,
}
