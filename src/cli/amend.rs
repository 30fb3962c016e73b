//! `qbc amend`: change who may write to a chain, and when it seals by itself, as one of its admins.
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::json;

use crate::{
    chain::{ChainName, ConstitutionChange, Edit},
    cli::{
        exit::CliError,
        key_file,
        session::{Session, chain_name},
        shape,
    },
};

/// What takes a timer away.
const NONE: &str = "none";

#[derive(clap::Args)]
pub(super) struct AmendArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// Public key of one who may inject from now on (64 hex digits, or @FILE); all of them are given: whoever is left out is
    /// out
    #[arg(long = "author", value_name = "PUBKEY", value_parser = key_file::public_key, conflicts_with = "open")]
    authors: Vec<Bytes>,
    /// Let everybody inject from now on
    #[arg(long)]
    open: bool,
    /// Leap by itself after this many transactions; none: not any more
    #[arg(long, value_name = "N|none", value_parser = edit::<u32>)]
    leap_count: Option<Edit<u32>>,
    /// Leap by itself after this many bytes; none: not any more
    #[arg(long, value_name = "B|none", value_parser = edit::<u64>)]
    leap_bytes: Option<Edit<u64>>,
    /// Leap by itself this many milliseconds after the first transaction in the pool; none: not any more
    #[arg(long, value_name = "T|none", value_parser = edit::<u64>)]
    leap_ms: Option<Edit<u64>>,
    /// The file with the key of one of the chain's admins
    #[arg(long, value_name = "KEYFILE")]
    sign: PathBuf,
}

pub(super) async fn run(args: AmendArgs, mut session: Session) -> Result<(), CliError> {
    let change = change(&args)?;
    let key = key_file::signer(&args.sign)?;
    let trusted = session.keep(&args.name).await?;
    let amendment = session.client.amend(&trusted, &change, &key).await?;
    session.printer.object(&json!({
        "chain": trusted.name(),
        "index": amendment.index,
        "duplicate": amendment.duplicate,
        "change": shape::change(&change),
    }))?;
    Ok(())
}

fn change(args: &AmendArgs) -> Result<ConstitutionChange, CliError> {
    let keys = args.authors.iter();
    let keys: Vec<[u8; 32]> = keys
        .filter_map(|key| key.as_ref().try_into().ok())
        .collect();
    let authors = match (args.open, keys.is_empty()) {
        (true, _) => Edit::Remove,
        (false, false) => Edit::Put(keys),
        (false, true) => Edit::Keep,
    };
    let change = ConstitutionChange {
        authors,
        leap_count: args.leap_count.clone().unwrap_or_default(),
        leap_bytes: args.leap_bytes.clone().unwrap_or_default(),
        leap_ms: args.leap_ms.clone().unwrap_or_default(),
    };
    ConstitutionChange::parse(&change.to_bytes()).map_err(|refused| {
        let why = format!(
            "{}; give --author, --open, --leap-count, --leap-bytes or --leap-ms",
            refused.why
        );
        CliError::Usage(why)
    })
}

pub(super) fn edit<T: std::str::FromStr + Default + PartialEq>(
    text: &str,
) -> Result<Edit<T>, String> {
    if text == NONE {
        return Ok(Edit::Remove);
    }
    let number = text.parse().ok().filter(|number| *number != T::default());
    number
        .map(Edit::Put)
        .ok_or_else(|| format!("give a number from 1 on, or {NONE} to take the timer away"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_a_number_from_1_on_or_none() {
        assert_eq!(edit::<u32>("7"), Ok(Edit::Put(7)));
        assert_eq!(edit::<u64>("none"), Ok(Edit::Remove));
        for bad in ["0", "-1", "x", "", "4294967296"] {
            assert!(edit::<u32>(bad).is_err(), "{bad:?}");
        }
    }
}
