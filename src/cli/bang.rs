//! `qbc bang`: create a chain.
use std::{fs, path::PathBuf};

use bytes::Bytes;
use serde_json::json;

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        key_file::public_key,
        session::{Session, chain_name},
        shape,
    },
    client::BangOptions,
    proto::{self, constitution},
};

#[derive(clap::Args)]
pub(super) struct BangArgs {
    /// The chain's name
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// What its transactions hold [default: bytes; of a ledger: json]
    #[arg(long, value_enum)]
    content: Option<ContentArg>,
    /// A JSON Schema that each transaction must satisfy
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Public key of one who may inject (64 hex digits, or @FILE of qbc keygen); may be given many times
    #[arg(long = "author", value_name = "PUBKEY", value_parser = public_key)]
    authors: Vec<Bytes>,
    /// Public key of one who may change authors and timers, in the same form; may be given many times
    #[arg(long = "admin", value_name = "PUBKEY", value_parser = public_key)]
    admins: Vec<Bytes>,
    /// Leap by itself after this many transactions
    #[arg(long, value_name = "N")]
    leap_count: Option<u32>,
    /// Leap by itself after this many bytes
    #[arg(long, value_name = "B")]
    leap_bytes: Option<u64>,
    /// Leap by itself this many milliseconds after the first transaction in the pool
    #[arg(long, value_name = "T")]
    leap_ms: Option<u64>,
    /// Proof of work: leading zero bits of each Quant's hash
    #[arg(long, value_name = "BITS")]
    difficulty: Option<u32>,
    /// Proof of work: aim at this many milliseconds between Quants
    #[arg(long, value_name = "T", requires = "difficulty")]
    target_ms: Option<u64>,
    /// How many distinct nodes must sign a Quant until it is final, at most the replication factor
    #[arg(long, value_name = "K")]
    quorum: Option<u32>,
    /// Index keys, and commit each Quant to the newest value of each
    #[arg(long)]
    keyed: bool,
    /// Let payloads be erased later
    #[arg(long)]
    erasable: bool,
    /// Rules that transactions must follow
    #[arg(long, value_enum)]
    rules: Option<RulesArg>,
    /// The account that may mint, and how much in all
    #[arg(long, value_name = "ACCOUNT[:LIMIT]", requires = "rules")]
    mint: Option<String>,
    /// The hash of the whole chain
    #[arg(long, value_enum, default_value_t = HashArg::Sha3)]
    hash: HashArg,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ContentArg {
    Bytes,
    Text,
    Json,
    Msgpack,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RulesArg {
    Ledger,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum HashArg {
    #[value(name = "sha3-256")]
    Sha3,
    #[value(name = "sha2-256")]
    Sha2,
}

pub(super) async fn run(args: BangArgs, mut session: Session) -> Result<(), CliError> {
    let options = BangOptions {
        constitution: constitution(&args)?,
    };
    let banged = session.client.bang(args.name.as_ref(), options).await?;
    let trusted = &banged.trusted;
    session.printer.object(&json!({
        "name": trusted.name(),
        "chain_id": trusted.chain_id.to_string(),
        "head": {"height": trusted.header.height, "quant_hash": hex::encode(trusted.hash)},
        "duplicate": banged.duplicate,
        "constitution": shape::constitution(&trusted.constitution),
    }))?;
    Ok(())
}

fn constitution(args: &BangArgs) -> Result<proto::Constitution, CliError> {
    let (mint_account, mint_limit) = mint(args.mint.as_deref());
    let mut rules = proto::Constitution {
        schema: schema(args)?,
        authors: args.authors.clone(),
        admins: args.admins.clone(),
        leap_count: args.leap_count,
        leap_bytes: args.leap_bytes,
        leap_ms: args.leap_ms,
        work_bits_min: args.difficulty,
        work_target_ms: args.target_ms,
        quorum: args.quorum,
        keyed: args.keyed,
        erasable: args.erasable,
        rules_ledger: args.rules.is_some(),
        mint_account,
        mint_limit,
        ..Default::default()
    };
    if let Some(given) = args.content {
        rules.set_content(content(given));
    }
    rules.set_hash_alg(match args.hash {
        HashArg::Sha3 => constitution::HashAlg::Sha3256,
        HashArg::Sha2 => constitution::HashAlg::Sha2256,
    });
    Ok(rules)
}

fn content(content: ContentArg) -> constitution::Content {
    match content {
        ContentArg::Bytes => constitution::Content::Bytes,
        ContentArg::Text => constitution::Content::Text,
        ContentArg::Json => constitution::Content::Json,
        ContentArg::Msgpack => constitution::Content::Msgpack,
    }
}

fn schema(args: &BangArgs) -> Result<Bytes, CliError> {
    let Some(path) = &args.schema else {
        return Ok(Bytes::new());
    };
    let text =
        fs::read(path).map_err(|e| CliError::Usage(format!("--schema {}: {e}", path.display())))?;
    Ok(text.into())
}

/// `ACCOUNT` or `ACCOUNT:LIMIT`; only digits after the last colon are a limit.
fn mint(given: Option<&str>) -> (Bytes, String) {
    let given = given.unwrap_or_default();
    let split = given.rsplit_once(':').filter(|(_, limit)| {
        !limit.is_empty() && limit.bytes().all(|digit| digit.is_ascii_digit())
    });
    let (account, limit) = split.unwrap_or((given, ""));
    (Bytes::copy_from_slice(account.as_bytes()), limit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mint_is_an_account_with_or_without_a_limit() {
        assert_eq!(mint(None), (Bytes::new(), String::new()));
        assert_eq!(mint(Some("bank")), (Bytes::from("bank"), String::new()));
        assert_eq!(
            mint(Some("bank:1000")),
            (Bytes::from("bank"), "1000".to_owned())
        );
        assert_eq!(
            mint(Some("eu:bank")),
            (Bytes::from("eu:bank"), String::new())
        );
    }
}
