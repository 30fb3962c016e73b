//! `qbc prove`: make a proof file, verified before it is written.
use std::path::PathBuf;

use serde_json::json;

use crate::{
    chain::{ChainName, Proof, Verdict, proof_to_json},
    cli::{
        exit::CliError,
        output::say,
        session::{Session, chain_name},
        shape,
        wallet::{Account, account},
    },
    client::{Subject, Trusted, parent_name, write_atomic},
};

#[derive(clap::Args)]
pub(super) struct ProveArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The transaction to prove
    #[arg(required_unless_present_any = ["extend", "key", "account", "agree", "whole"], conflicts_with_all = ["extend", "key", "account", "agree", "whole"])]
    index: Option<u64>,
    /// Prove the latest transaction of this key, or that there is none; only on keyed chains
    #[arg(long, value_name = "K", conflicts_with_all = ["extend", "account", "agree"])]
    key: Option<String>,
    /// Prove what this account (a name, or @FILE of qbc wallet new) has; only on ledgers
    #[arg(long, value_name = "ACCOUNT", conflicts_with_all = ["extend", "agree"], value_parser = account)]
    account: Option<Account>,
    /// Of a subchain: prove up to the head of this chain above it, or only to its own [default: the topmost chain]
    #[arg(long, value_name = "CHAIN", conflicts_with_all = ["extend", "agree", "key", "account"], value_parser = chain_name)]
    to: Option<ChainName>,
    /// Prove into the head of this height, of the chain that the proof leads to [default: the newest]
    #[arg(long, value_name = "HEIGHT", conflicts_with_all = ["extend", "agree"])]
    at: Option<u64>,
    /// Prove it into the log of all chains, whose root qbc head --all gives
    #[arg(long, conflicts_with_all = ["extend", "key", "account", "at"])]
    all: bool,
    /// Prove that the head at height TO extends the one at height FROM
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"])]
    extend: Option<Vec<u64>>,
    /// Prove that this fork of the chain has its history up to the fork, and that they part there
    #[arg(long, value_name = "FORK", conflicts_with = "extend", value_parser = chain_name)]
    agree: Option<ChainName>,
    /// Of a chain that is split: prove all its subchains, to any depth, each from its first transaction on
    #[arg(long, conflicts_with_all = ["extend", "key", "account", "agree", "to", "all"])]
    whole: bool,
    /// The file to write [default: stdout]
    #[arg(short = 'o', value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) async fn run(args: ProveArgs, mut session: Session) -> Result<(), CliError> {
    let trusted = session.look(&args.name).await?;
    let (proof, verdict) = prove(&args, &session, &trusted).await?;
    let text = proof_to_json(&proof);
    for step in &verdict.steps {
        say(step);
    }
    let Some(path) = &args.file else {
        session.printer.bytes(text.as_bytes())?;
        session.printer.bytes(b"\n")?;
        session.printer.flush()?;
        return Ok(());
    };
    let shown = verdict.transaction.as_ref();
    write_atomic(path, format!("{text}\n").as_bytes())?;
    session.printer.object(&json!({
        "chain": trusted.name(),
        "chain_id": trusted.chain_id.to_string(),
        "index": args.index.or(latest_of(&verdict)),
        // Payloads are left out only where they are gone.
        "erased": shown.is_some_and(|shown| !shown.payload_shown),
        "head": {"height": verdict.head.height, "quant_hash": hex::encode(verdict.head_hash)},
        "checkpoint": verdict.checkpoint.as_ref().map(shape::checkpoint),
        "whole": verdict.whole.as_ref().map(shape::whole),
        "file": path.display().to_string(),
    }))?;
    Ok(())
}

fn latest_of(verdict: &Verdict) -> Option<u64> {
    let transaction = verdict.transaction.as_ref()?;
    verdict.state.as_ref().map(|_| transaction.envelope.index)
}

async fn prove(
    args: &ProveArgs,
    session: &Session,
    trusted: &Trusted,
) -> Result<(Proof, Verdict), CliError> {
    let client = &session.client;
    if let Some(fork) = &args.agree {
        let fork = session.look(fork).await?;
        return Ok(client.prove_agreement(trusted, &fork).await?);
    }
    if args.whole {
        return Ok(client.prove_whole(trusted, args.at).await?);
    }
    if let Some(&[from, to]) = args.extend.as_deref() {
        if from >= to {
            let why = format!("--extend {from} {to}: FROM must be lower than TO");
            return Err(CliError::Usage(why));
        }
        return Ok(client.prove_extension(trusted, from, Some(to)).await?);
    }
    let subject = match (&args.key, &args.account) {
        (Some(key), _) => Some(Subject::Key(key.clone().into())),
        (_, Some(account)) => Some(Subject::Account(account.0.clone())),
        _ => None,
    };
    if let Some(subject) = subject {
        return prove_state(args, session, (trusted, &subject)).await;
    }
    let index = args
        .index
        .expect("clap asks for the index where --extend is not given");
    if args.all {
        return Ok(client.prove_logged(trusted, index).await?);
    }
    let above = above(args, session, trusted).await?;
    let composed = client.prove_composed(trusted, &above, (index, args.at));
    Ok(composed.await?)
}

/// What a chain's state holds. A chain that is split keeps the state that it had, and a subchain has of it what was touched
/// since: neither is passed off as the newest state of the key.
async fn prove_state(
    args: &ProveArgs,
    session: &Session,
    (trusted, subject): (&Trusted, &Subject),
) -> Result<(Proof, Verdict), CliError> {
    let (what, client) = (subject_words(subject), &session.client);
    let split = client.split_of(trusted).await?;
    let height = split.as_ref().and_then(|split| split.height);
    if let (Some(height), None) = (height, args.at) {
        let why = format!(
            "chain {0} is split: prove {what} in the subchain that it leads to, or give --at {height} for what {0} had at its split",
            trusted.name()
        );
        return Err(CliError::Precondition(why));
    }
    let part = Box::pin(client.part_of(trusted)).await?;
    let parent = part.as_ref().and_then(parent_name);
    let absent = |parent: &str| {
        let why = format!(
            "{} has not taken over {what}: what it has is what {parent} had at its split; prove it there, with --at",
            trusted.name()
        );
        Err(CliError::NotFound(why))
    };
    // Before its first leap a subchain has sealed nothing.
    if let (Some(parent), 0) = (parent, trusted.header.height) {
        return absent(parent);
    }
    let (proof, verdict) = client.prove_state(trusted, subject, args.at).await?;
    let has_none = verdict
        .state
        .as_ref()
        .is_some_and(|state| state.value.is_none());
    if let Some(parent) = parent.filter(|_| has_none) {
        return absent(parent);
    }
    Ok((proof, verdict))
}

fn subject_words(subject: &Subject) -> String {
    match subject {
        Subject::Key(key) => format!("the key {}", String::from_utf8_lossy(key)),
        Subject::Account(account) => format!("account {account}"),
    }
}

/// The chains above a subchain, from its parent up to the one that is asked for, else the topmost.
async fn above(
    args: &ProveArgs,
    session: &Session,
    trusted: &Trusted,
) -> Result<Vec<Trusted>, CliError> {
    let mut above: Vec<Trusted> = Vec::new();
    loop {
        let last = above.last().unwrap_or(trusted);
        let reached = args.to.as_ref().map(|to| to.as_ref() == last.name());
        let parent = match (parent_name(last), reached) {
            (_, Some(true)) | (None, None) => return Ok(above),
            (Some(parent), _) => parent.to_owned(),
            (None, Some(false)) => {
                let to = args.to.as_ref().map_or("", ChainName::as_ref);
                let why = format!(
                    "--to {to}: it is not {} nor a chain above it",
                    trusted.name()
                );
                return Err(CliError::Usage(why));
            }
        };
        let parent =
            ChainName::parse(&parent).map_err(|error| CliError::Usage(error.to_string()))?;
        above.push(session.look(&parent).await?);
    }
}
