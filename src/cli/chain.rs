//! `qbc chain`: show a chain. Id, head and constitution are verified, the constitution in force too where a Quant seals its
//! last change; the pool is the node's word. Of a chain that is split all chains below it are shown, each head verified.
use serde_json::{Value, json};

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        session::{Session, chain_name},
        shape, tree,
    },
    client::{ChainSummary, InForce, Trusted},
};

#[derive(clap::Args)]
pub(super) struct ChainArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
}

pub(super) async fn run(args: ChainArgs, mut session: Session) -> Result<(), CliError> {
    let trusted = session.look(&args.name).await?;
    let (summary, in_force) = session.client.chain(&trusted).await?;
    let mut object = shown(&trusted, &summary, &in_force);
    let Some(split) = &summary.split else {
        session.printer.object(&object)?;
        return Ok(());
    };
    let below = tree::below(&session, Some(split)).await?;
    let mut fields = object.clone();
    fields["split"] = json!({"height": split.height, "done": split.done});
    object["split"] = tree::split_shown(split, &below);
    let rows = tree::rows(&below);
    let table = (tree::COLUMNS, &rows[..]);
    session.printer.fields_and_table(&fields, table, &object)?;
    Ok(())
}

fn shown(trusted: &Trusted, summary: &ChainSummary, in_force: &InForce) -> Value {
    let mut shown = json!({
        "name": trusted.name(),
        "chain_id": trusted.chain_id.to_string(),
        "head": {"height": trusted.header.height, "quant_hash": hex::encode(trusted.hash)},
        "transactions": summary.transactions,
        "pool": summary.transactions - trusted.sealed(),
        "closed": trusted.header.is_final,
        "created_ms": trusted.constitution.created_ms,
        "constitution": shape::constitution(&trusted.constitution),
    });
    // Where nothing was ever changed, the constitution is in force as it stands.
    if let Some(index) = in_force.amended_index {
        shown["constitution_in_force"] = shape::constitution(&in_force.constitution);
        shown["amended"] = json!({
            "index": index,
            "height": in_force.amended_height,
            "proven": in_force.proven,
        });
    }
    if let Some(border) = trusted.borders.first() {
        // The name is the node's word; id and height are verified.
        let told = summary.forked_from.as_ref();
        shown["parent"] = json!({
            "name": told.map(|parent| parent.name.as_str()),
            "chain_id": border.header.chain_id.to_string(),
            "height": border.header.height - 1,
        });
    }
    if let Some(mining) = &summary.mining {
        shown["mining"] = shape::mining(mining);
    }
    shown
}
