//! `qbc fork`: create a chain that shares another one's history up to a height, and goes its own way from there.
use bytes::Bytes;
use serde_json::json;

use crate::{
    chain::{ChainName, Edit},
    cli::{
        amend::edit,
        exit::CliError,
        key_file::public_key,
        session::{Session, chain_name},
        shape,
    },
    client::ForkOptions,
    proto,
};

#[derive(clap::Args)]
pub(super) struct ForkArgs {
    /// The chain to fork
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The new chain's name
    #[arg(value_parser = chain_name)]
    new: ChainName,
    /// The last height that both share; what is in the pool stays with the parent
    #[arg(long, value_name = "HEIGHT")]
    at: u64,
    /// Public key of one who may inject into the fork (64 hex digits, or @FILE of qbc keygen); may be given many times
    /// [default: those of the parent at that height, as for all that follows]
    #[arg(long = "author", value_name = "PUBKEY", value_parser = public_key, conflicts_with = "open")]
    authors: Vec<Bytes>,
    /// Let everybody inject into the fork
    #[arg(long)]
    open: bool,
    /// Public key of one who may change authors and timers of the fork; may be given many times
    #[arg(long = "admin", value_name = "PUBKEY", value_parser = public_key)]
    admins: Vec<Bytes>,
    /// Leap by itself after this many transactions; none: not by count
    #[arg(long, value_name = "N|none", value_parser = edit::<u32>)]
    leap_count: Option<Edit<u32>>,
    /// Leap by itself after this many bytes; none: not by bytes
    #[arg(long, value_name = "B|none", value_parser = edit::<u64>)]
    leap_bytes: Option<Edit<u64>>,
    /// Leap by itself this many milliseconds after the first transaction in the pool; none: not by time
    #[arg(long, value_name = "T|none", value_parser = edit::<u64>)]
    leap_ms: Option<Edit<u64>>,
}

pub(super) async fn run(args: ForkArgs, mut session: Session) -> Result<(), CliError> {
    let parent = session.keep(&args.name).await?;
    let options = options(&args);
    let forked = session
        .client
        .fork(&parent, args.new.as_ref(), options)
        .await?;
    let trusted = &forked.trusted;
    session.printer.object(&json!({
        "name": trusted.name(),
        "chain_id": trusted.chain_id.to_string(),
        "parent": {
            "name": parent.name(),
            "chain_id": forked.genesis.chain_id.to_string(),
            "height": args.at,
        },
        "head": {"height": trusted.header.height, "quant_hash": hex::encode(trusted.hash)},
        "next_index": forked.genesis.tx_start,
        "duplicate": forked.duplicate,
        "constitution": shape::constitution(&trusted.constitution),
    }))?;
    Ok(())
}

fn options(args: &ForkArgs) -> ForkOptions {
    ForkOptions {
        at_height: args.at,
        constitution: proto::Constitution {
            authors: args.authors.clone(),
            admins: args.admins.clone(),
            leap_count: timer(args.leap_count.as_ref()),
            leap_bytes: timer(args.leap_bytes.as_ref()),
            leap_ms: timer(args.leap_ms.as_ref()),
            ..Default::default()
        },
        any_author: args.open,
    }
}

/// On the wire 0 takes a timer away.
fn timer<T: Copy + Default>(given: Option<&Edit<T>>) -> Option<T> {
    match given? {
        Edit::Put(number) => Some(*number),
        Edit::Remove => Some(T::default()),
        Edit::Keep => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_kept_set_or_taken_away() {
        assert_eq!(timer::<u32>(None), None);
        assert_eq!(timer(Some(&Edit::Put(7u32))), Some(7));
        assert_eq!(timer(Some(&Edit::<u64>::Remove)), Some(0));
    }
}
