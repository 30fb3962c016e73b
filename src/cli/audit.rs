//! `qbc audit`: recompute a whole chain through the API; of one that is split all chains below it too.
use serde_json::{Value, json};

use crate::{
    chain::{ChainName, subchain_name},
    cli::{
        exit::CliError,
        output::say,
        progress::Progress,
        session::{Session, chain_name},
    },
    client::{AuditReport, Contact, ContactKind, Trusted},
};

#[derive(clap::Args)]
pub(super) struct AuditArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
}

pub(super) async fn run(args: AuditArgs, mut session: Session) -> Result<(), CliError> {
    let name = args.name.as_ref();
    let contact = session.client.contact(name, false).await?;
    let (audited, _) = audit(&session, name, contact).await?;
    session.printer.object(&audited)?;
    Ok(())
}

/// Recomputes a chain, and all chains below it: those that its own Quant names, and no others.
async fn audit(
    session: &Session,
    name: &str,
    Contact { trusted, kind }: Contact,
) -> Result<(Value, AuditReport), CliError> {
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
    let mut shown = shown(&trusted, &report);
    if let Some((split, route)) = &report.route {
        let mut below = Vec::new();
        for (place, id) in (0..).zip(route) {
            let child = (place, *id);
            let contact = session.client.subchain(&trusted, child).await?;
            let head = contact.trusted.clone();
            let name = subchain_name(name, place);
            let (shown, found) = Box::pin(audit(session, &name, contact)).await?;
            let book = report.anchored.as_ref();
            let last = book.and_then(|book| book.last(place as usize));
            let checked = session.client.check_below(&head, (split, last), &found);
            checked.await?;
            below.push(shown);
        }
        shown["subchains"] = below.into();
    }
    Ok((shown, report))
}

fn shown(trusted: &Trusted, report: &AuditReport) -> Value {
    json!({
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
    })
}
