//! The command line: one file per verb, and the only room that prints.
//!
//! Data goes to stdout, talk to stderr; exit codes are in `exit`, JSON shapes in `shape`.

mod amend;
mod audit;
mod bang;
mod bench;
mod bench_bound;
mod bench_content;
mod bench_reads;
mod bench_report;
mod bench_scale;
mod bench_tail;
mod chain;
mod chains;
mod close;
mod completions;
#[cfg(test)]
mod contract;
mod cursors;
mod demo;
mod demo_traffic;
mod discover;
mod erase;
mod exit;
mod export;
mod fork;
mod head;
mod history;
mod inject;
mod input;
mod key_file;
mod keygen;
mod latest;
mod leap;
mod leave;
mod merge;
mod output;
mod progress;
mod prove;
mod quant;
mod read;
mod serve;
mod session;
mod shape;
mod split;
mod tail;
mod tree;
mod tx;
mod verify;
mod wallet;

use std::{ffi::OsString, future::Future, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::chain::SigAlgs;

use self::{exit::CliError, output::OutputFormat, session::Session};

/// A multi-chain ledger database: many independent append-only chains, provable by anyone.
#[derive(Parser)]
#[command(name = "qbc", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
#[derive(Args, Clone)]
struct Global {
    /// The node to speak to; several of a cluster with a comma between: when one fails, the next is asked
    #[arg(
        long,
        global = true,
        env = "QBC_ENDPOINT",
        default_value = "http://127.0.0.1:7420",
        value_name = "URL"
    )]
    endpoint: String,
    /// The form of what goes to stdout.
    #[arg(long, global = true, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
    /// Longest wait for one answer of the node, in seconds.
    #[arg(long, global = true, default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    deadline_s: u64,
    /// The file of trusted heads [default: $XDG_STATE_HOME/qbc/heads.json].
    #[arg(long, global = true, env = "QBC_HEADS", value_name = "FILE")]
    heads: Option<PathBuf>,
    /// Refuse heads, proofs and exports that are not signed with each of these: ed25519, ml-dsa-44, with a comma between
    #[arg(long, global = true, env = "QBC_REQUIRE_ALG", value_name = "ALGS")]
    require_alg: Option<SigAlgs>,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a node
    Serve(serve::ServeArgs),
    /// Run a cluster on this machine with chains that live, and a page to look at
    Demo(demo::DemoArgs),
    /// Create a chain
    Bang(bang::BangArgs),
    /// Add transactions to a chain, one per line
    Inject(inject::InjectArgs),
    /// Seal a chain's pool into its next Quant
    Leap(leap::LeapArgs),
    /// Seal a chain for good
    Close(close::CloseArgs),
    /// Create a chain that shares another one's history up to a height
    Fork(fork::ForkArgs),
    /// Spread a chain over subchains in other groups
    Split(split::SplitArgs),
    /// List chains
    Chains(chains::ChainsArgs),
    /// Show a chain
    Chain(chain::ChainArgs),
    /// Show a Quant
    Quant(quant::QuantArgs),
    /// Show the newest Quant of a chain
    Head(head::HeadArgs),
    /// Show a transaction
    Tx(tx::TxArgs),
    /// Show transactions in order
    Read(read::ReadArgs),
    /// Show transactions as they come, and the Quants that seal them
    Tail(tail::TailArgs),
    /// Show or delete the cursors that a chain keeps for those who tail
    Cursors(cursors::CursorsArgs),
    /// Show the transactions of a key
    History(history::HistoryArgs),
    /// Show the newest transaction of a key
    Latest(latest::LatestArgs),
    /// Download a whole chain as one self-verifying file
    Export(export::ExportArgs),
    /// Make a proof file
    Prove(prove::ProveArgs),
    /// Check a proof or export file, offline
    Verify(verify::VerifyArgs),
    /// Recompute a whole chain
    Audit(audit::AuditArgs),
    /// Make a key for an author or an admin
    Keygen(keygen::KeygenArgs),
    /// Change who may write to a chain, and when it seals by itself
    Amend(amend::AmendArgs),
    /// Erase the payload of a transaction, where the chain allows it
    Erase(erase::EraseArgs),
    /// Accounts of a ledger: keys, balances, transfers, statements, statistics
    Wallet(wallet::WalletArgs),
    /// Show the nodes of a cluster
    Discover(discover::DiscoverArgs),
    /// Take a node out of its cluster
    Leave(leave::LeaveArgs),
    /// Measure a running node
    Bench(bench::BenchArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
}

/// Parses the command line, runs its verb and says how it went.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => exit::report(dispatch(cli)),
        Err(error) => exit::usage(&error),
    }
}

fn dispatch(cli: Cli) -> Result<(), CliError> {
    let global = cli.global;
    match cli.verb {
        Verb::Serve(args) => serve::run(args),
        Verb::Demo(args) => in_runtime(demo::run(args, global)),
        Verb::Verify(args) => verify::run(&args, &global),
        Verb::Completions(args) => completions::run(&args),
        Verb::Keygen(args) => keygen::run(&args, &global),
        Verb::Amend(args) => online(&global, async |s| amend::run(args, s).await),
        Verb::Bang(args) => online(&global, async |s| bang::run(args, s).await),
        Verb::Inject(args) => online(&global, async |s| inject::run(args, s).await),
        Verb::Leap(args) => online(&global, async |s| leap::run(args, s).await),
        Verb::Close(args) => online(&global, async |s| close::run(args, s).await),
        Verb::Fork(args) => online(&global, async |s| fork::run(args, s).await),
        Verb::Split(args) => online(&global, async |s| split::run(args, s).await),
        Verb::Chains(args) => online(&global, async |s| chains::run(args, s).await),
        Verb::Chain(args) => online(&global, async |s| chain::run(args, s).await),
        Verb::Quant(args) => online(&global, async |s| quant::run(args, s).await),
        Verb::Head(args) => online(&global, async |s| head::run(args, s).await),
        Verb::Tx(args) => online(&global, async |s| tx::run(args, s).await),
        Verb::Read(args) => online(&global, async |s| read::run(args, s).await),
        Verb::Tail(args) => online(&global, async |s| Box::pin(tail::run(args, s)).await),
        Verb::Cursors(args) => online(&global, async |s| cursors::run(args, s).await),
        Verb::History(args) => online(&global, async |s| history::run(args, s).await),
        Verb::Latest(args) => online(&global, async |s| latest::run(args, s).await),
        Verb::Export(args) => online(&global, async |s| Box::pin(export::run(args, s)).await),
        Verb::Prove(args) => online(&global, async |s| prove::run(args, s).await),
        Verb::Audit(args) => online(&global, async |s| Box::pin(audit::run(args, s)).await),
        Verb::Erase(args) => online(&global, async |s| erase::run(args, &global, s).await),
        Verb::Wallet(args) => wallet::run(args, &global),
        Verb::Discover(args) => in_runtime(discover::run(args, global)),
        Verb::Leave(args) => in_runtime(leave::run(args, global)),
        Verb::Bench(args) => in_runtime(bench::run(args, global)),
    }
}

/// Runs a verb that speaks to a node.
fn online(
    global: &Global,
    verb: impl AsyncFnOnce(Session) -> Result<(), CliError>,
) -> Result<(), CliError> {
    in_runtime(async { verb(Session::open(global).await?).await })
}

fn in_runtime(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::Failed(format!("no threads to work with: {e}")))?;
    let outcome = runtime.block_on(work);
    // A thread that reads a terminal may wait for ever; the process need not.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_of_the_contract_is_there() {
        let command = Cli::command();
        let verbs: Vec<&str> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        let contract = "serve demo bang inject leap close fork split chains chain quant head tx read tail cursors history latest export prove verify audit keygen amend erase wallet discover leave bench completions";
        assert_eq!(verbs, contract.split(' ').collect::<Vec<_>>());
    }
}
