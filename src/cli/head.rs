//! `qbc head`: show the newest Quant of a chain, verified, or with `--all` the one value for every chain; of a quorum chain the newest final one, and what waits above it.
use serde_json::json;

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        output::say,
        session::{Session, chain_name},
        shape,
    },
};

#[derive(clap::Args)]
pub(super) struct HeadArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    #[arg(required_unless_present = "all")]
    name: Option<ChainName>,
    /// One value for every chain of the cluster instead: the signed root of the log of all chains
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

pub(super) async fn run(args: HeadArgs, mut session: Session) -> Result<(), CliError> {
    let Some(name) = args.name else {
        return all(session).await;
    };
    let trusted = session.look(&name).await?;
    let mut shown = shape::header(&trusted.header);
    if let Some(quorum) = trusted.constitution.quorum.filter(|quorum| *quorum > 1) {
        let pending = session.client.pending(&trusted).await?;
        if let Some(pending) = &pending {
            say(format!(
                "{pending}; shown is Quant {}, the newest final one",
                trusted.header.height
            ));
        }
        shown["quorum"] = quorum.into();
        shown["pending"] = pending.map_or(json!(null), |pending| {
            json!({
                "height": pending.header.height,
                "quant_hash": hex::encode(pending.header.hash()),
                "signed_by": pending.nodes,
            })
        });
    }
    session.printer.object(&shown)?;
    Ok(())
}

/// The checkpoint of the super log: that a head was there, never that it is the latest.
async fn all(mut session: Session) -> Result<(), CliError> {
    let head = session.client.cluster_head().await?;
    let mut shown = shape::checkpoint(&head.checkpoint);
    let signature = head.signatures.first();
    shown["node_id"] = signature.map(|one| one.certificate.node_id).into();
    shown["time_s"] = signature.map(|one| one.time_s).into();
    shown["note"] = head.note.as_str().into();
    shown["vkey"] = head.vkey.as_str().into();
    shown["certified_by"] = head
        .certified_by
        .as_ref()
        .map(|trusted| trusted.chain_id.to_string())
        .into();
    if head.certified_by.is_none() {
        say(
            "not anchored: no chain of this cluster is trusted here (qbc audit NAME keeps one), so nobody vouches for the node that signed",
        );
    }
    session.printer.object(&shown)?;
    Ok(())
}
