//! `qbc serve`: run a node in this process.
use std::{env, io::IsTerminal, path::PathBuf};

use crate::{
    chain::SigAlgs,
    cli::{exit::CliError, output::say},
    config::{Config, Flags},
    node,
};

/// Runs a node; without arguments one on 127.0.0.1:7420 that keeps its data in ./qbc-data.
#[derive(clap::Args)]
pub(super) struct ServeArgs {
    /// Where the node keeps its data [default: ./qbc-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the node listens [default: 127.0.0.1:7420]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where the other members reach this node [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Join the cluster of these members, HOST:PORT or HOST:FROM-TO [default: found one]
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<String>,
    /// The secret by which members know each other
    #[arg(long, value_name = "FILE")]
    cluster_secret_file: Option<PathBuf>,
    /// What the node signs heads with: ed25519, ml-dsa-44, or both with a comma between [default: ed25519]
    #[arg(long, value_name = "ALGS")]
    node_keys: Option<SigAlgs>,
    /// Listen outside of loopback although nobody has to show who they are
    #[arg(long)]
    insecure: bool,
    /// A file of settings; flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    let flags = Flags {
        data: args.data,
        listen: args.listen,
        advertise: args.advertise,
        join: args.join,
        cluster_secret_file: args.cluster_secret_file,
        node_keys: args.node_keys,
        insecure: args.insecure,
    };
    let config = Config::load(args.config.as_deref(), flags);
    let config = config.map_err(|error| CliError::Usage(error.to_string()))?;
    tell_events();
    let ready = |address| say(format!("qbc: listening on http://{address}"));
    let failed = |why: &str| {
        say(format!("qbc: the node stops: {why}"));
        say("qbc: nothing acknowledged is lost; mend the cause, then start it again");
    };
    node::serve(config, ready, failed).map_err(|error| CliError::Failed(error.to_string()))
}

/// What the node has to tell goes to stderr; `QBC_LOG` sets how much (as in `QBC_LOG=debug`).
fn tell_events() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("QBC_LOG")
        .unwrap_or_else(|_| "warn,openraft=error".into());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours())
        .with_writer(std::io::stderr)
        .try_init();
}

/// For people at a terminal who did not ask to be spared (<https://no-color.org>).
fn colours() -> bool {
    let spared = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !spared
}
