//! `qbc cursors`: the named cursors that a chain keeps, and where they stand.
use serde_json::json;

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        output::{Column, Row},
        session::{Session, chain_name},
        tail::token_text,
    },
};

const COLUMNS: &[Column] = &[
    ("name", 12),
    ("chain_id", 64),
    ("next_index", 10),
    ("next_height", 11),
    ("moved_ms", 13),
];

#[derive(clap::Args)]
pub(super) struct CursorsArgs {
    /// The chain that keeps them
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// Only this cursor
    cursor: Option<String>,
    /// Delete it, with all its positions
    #[arg(long, requires = "cursor")]
    delete: bool,
}

pub(super) async fn run(args: CursorsArgs, mut session: Session) -> Result<(), CliError> {
    let keeper = args.name.as_ref();
    if let Some(cursor) = args.cursor.as_ref().filter(|_| args.delete) {
        let positions = session.client.delete_cursor(keeper, cursor).await?;
        if positions == 0 {
            return Err(CliError::NotFound(format!(
                "{keeper} keeps no cursor {cursor}"
            )));
        }
        session
            .printer
            .object(&json!({"chain": keeper, "cursor": cursor, "deleted": positions}))?;
        return Ok(());
    }
    let cursors = session
        .client
        .cursors(keeper, args.cursor.as_deref())
        .await?;
    let mut rows = session.printer.rows(COLUMNS)?;
    for one in &cursors {
        let id = hex::encode(&one.chain_id);
        let object = json!({
            "name": one.name,
            "chain_id": id,
            "next_index": one.next_index,
            "next_height": one.next_height,
            "moved_ms": one.moved_ms,
            "resume_token": token_text(&one.resume_token),
        });
        let cells = vec![
            one.name.clone(),
            id,
            one.next_index.to_string(),
            one.next_height.to_string(),
            one.moved_ms.to_string(),
        ];
        rows.push(&Row {
            json: object.to_string(),
            cells,
        })?;
    }
    rows.finish()?;
    Ok(())
}
