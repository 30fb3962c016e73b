//! `qbc audit`: recompute a whole chain through the API.
use serde_json::json;

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        output::say,
        progress::Progress,
        session::{Session, chain_name},
    },
    client::{Contact, ContactKind},
};

#[derive(clap::Args)]
pub(super) struct AuditArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
}

pub(super) async fn run(args: AuditArgs, mut session: Session) -> Result<(), CliError> {
    let name = args.name.as_ref();
    let Contact { trusted, kind } = session.client.contact(name, false).await?;
    let mut progress = Progress::of("audited", Some(trusted.sealed()));
    let report = session
        .client
        .audit(&trusted, |seen| progress.add(1, seen.payload.len() as u64));
    let report = report.await?;
    progress.finish();
    // Whoever is met for the first time is trusted only once all of it was recomputed.
    if kind == ContactKind::First {
        session.client.remember(name, &trusted).await?;
        let id = trusted.chain_id;
        say(format!(
            "first contact: chain id {id} is trusted from now on"
        ));
    }
    session.printer.object(&json!({
        "chain": trusted.name(),
        "chain_id": trusted.chain_id.to_string(),
        "verdict": "clean",
        "quants": report.quants,
        "transactions": report.transactions,
        "signed": report.signed,
        "amendments": report.changes,
        "erased": report.erased,
        "head": {"height": trusted.header.height, "quant_hash": hex::encode(trusted.hash)},
        "steps": report.steps,
        "receipts": {"sealed": report.receipts.sealed, "pooled": report.receipts.pooled},
    }))?;
    Ok(())
}
