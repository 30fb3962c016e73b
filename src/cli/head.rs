//! `qbc head`: show the newest Quant of a chain, verified; of a quorum chain the newest final one, and what waits above it.
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
    name: ChainName,
}

pub(super) async fn run(args: HeadArgs, mut session: Session) -> Result<(), CliError> {
    let trusted = session.look(&args.name).await?;
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
