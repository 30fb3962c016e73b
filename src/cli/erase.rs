//! `qbc erase`: erase the payload of a transaction, as one of the chain's admins.
use std::{path::PathBuf, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    chain::{ChainName, ERASURE_REASON_BYTES_MAX},
    cli::{
        Global,
        discover::{ClusterArgs, sorted},
        exit::CliError,
        key_file,
        output::say,
        session::{Session, chain_name},
    },
    proto::cluster::NodeState,
};

/// How often the nodes are asked how far they are.
const ASK_EVERY: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub(super) struct EraseArgs {
    /// The chain; it must be erasable
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The transaction whose payload goes
    index: u64,
    /// Why: kept in the chain for ever, so nothing of what is erased belongs into it
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// The file with the key of one of the chain's admins
    #[arg(long, value_name = "KEYFILE")]
    sign: PathBuf,
    /// Wait at most S seconds until no node has anything of what was erased in its files
    #[arg(long, value_name = "S", num_args = 0..=1, default_missing_value = "120")]
    wait: Option<u64>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) async fn run(
    args: EraseArgs,
    global: &Global,
    mut session: Session,
) -> Result<(), CliError> {
    let key = key_file::signer(&args.sign)?;
    let trusted = session.keep(&args.name).await?;
    let (index, reason) = (args.index, &args.reason);
    let erased = session.client.erase(&trusted, index, reason, &key).await?;
    let mut shown = json!({
        "chain": trusted.name(),
        "index": index,
        "tombstone": erased.index,
        "duplicate": erased.duplicate,
    });
    let purge = match args.wait {
        None => None,
        Some(seconds) => Some(purged(&args, global, Duration::from_secs(seconds)).await?),
    };
    shown["purged"] = purge.as_ref().map(Vec::is_empty).into();
    session.printer.object(&shown)?;
    match purge {
        None => {
            say(
                "the payload is gone for readers; the nodes take it out of their files now (qbc discover: unpurged), --wait waits for that",
            );
            Ok(())
        }
        Some(late) if late.is_empty() => Ok(()),
        Some(late) => Err(CliError::Unavailable(format!(
            "the tombstone stands, but {} may have the payload in their files still: a node that is away purges when it is back; qbc discover shows it",
            late.join(", ")
        ))),
    }
}

/// Waits until all nodes are done; else those that are not, in words.
async fn purged(
    args: &EraseArgs,
    global: &Global,
    limit: Duration,
) -> Result<Vec<String>, CliError> {
    let (contact, address) = args.cluster.contact(global).await?;
    let until = Instant::now() + limit;
    // What a node says of itself is a second old at most: the answer after that tells of this erasure.
    sleep(Duration::from_millis(1500)).await;
    loop {
        let deadline = Duration::from_secs(global.deadline_s);
        let found = sorted(contact.discover(&address, deadline).await?);
        let late = found.nodes.iter().filter_map(|node| {
            let out = matches!(node.state(), NodeState::Left | NodeState::Joining);
            let away = node.state() == NodeState::Unreachable;
            let what = if away { " (unreachable)" } else { "" };
            let whole = node.unpurged == 0 && node.groups_repaired.is_empty();
            let late = !out && (away || !whole);
            late.then(|| format!("node {}{what}", node.node_id))
        });
        let late: Vec<String> = late.collect();
        if late.is_empty() || Instant::now() >= until {
            return Ok(late);
        }
        sleep(ASK_EVERY).await;
    }
}

fn reason(text: &str) -> Result<String, String> {
    let bytes = text.len();
    if text.bytes().all(|byte| byte <= b' ') {
        return Err("it is empty: say why, for those who find the tombstone".to_owned());
    }
    if bytes > ERASURE_REASON_BYTES_MAX {
        return Err(format!(
            "it has {bytes} bytes, give at most {ERASURE_REASON_BYTES_MAX}"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_something_and_not_too_much() {
        assert_eq!(reason("art. 17"), Ok("art. 17".to_owned()));
        for bad in ["", "  ", &"x".repeat(ERASURE_REASON_BYTES_MAX + 1)] {
            assert!(reason(bad).is_err());
        }
    }
}
