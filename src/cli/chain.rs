//! `qbc chain`: show a chain. Id, head and constitution are verified; the pool is the node's word.
use serde_json::{Value, json};

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        session::{Session, chain_name},
        shape,
    },
    client::{ChainSummary, Trusted},
};

#[derive(clap::Args)]
pub(super) struct ChainArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
}

pub(super) async fn run(args: ChainArgs, mut session: Session) -> Result<(), CliError> {
    let trusted = session.look(&args.name).await?;
    let summary = session.client.chain(&trusted).await?;
    session.printer.object(&shown(&trusted, &summary))?;
    Ok(())
}

fn shown(trusted: &Trusted, summary: &ChainSummary) -> Value {
    let mut fields = json!({
        "name": trusted.name(),
        "chain_id": trusted.chain_id.to_string(),
        "head": {"height": trusted.header.height, "quant_hash": hex::encode(trusted.hash)},
        "transactions": summary.transactions,
        "pool": summary.transactions - trusted.sealed(),
        "closed": trusted.header.is_final,
        "created_ms": trusted.constitution.created_ms,
        "constitution": shape::constitution(&trusted.constitution),
    });
    if let (Some(mining), Value::Object(fields)) = (&summary.mining, &mut fields) {
        fields.insert("mining".to_owned(), shape::mining(mining));
    }
    fields
}
