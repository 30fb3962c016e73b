//! `qbc chains`: list chains. The list is the node's word; `qbc chain` and `qbc audit` check one.
use serde_json::json;

use crate::{
    cli::{
        exit::CliError,
        output::{Column, Row},
        session::Session,
    },
    client::ChainSummary,
};

const COLUMNS: &[Column] = &[
    ("name", 24),
    ("height", 8),
    ("transactions", 12),
    ("pool", 8),
    ("closed", 6),
    ("chain_id", 64),
];

#[derive(clap::Args)]
pub(super) struct ChainsArgs {
    /// Only names that begin so
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
}

pub(super) async fn run(args: ChainsArgs, mut session: Session) -> Result<(), CliError> {
    let mut page = session.client.chains(&args.prefix, 0, "").await?;
    let mut rows = session.printer.rows(COLUMNS)?;
    loop {
        for chain in &page.chains {
            rows.push(&row(chain))?;
        }
        if page.next_page_token.is_empty() {
            break;
        }
        page = session
            .client
            .chains(&args.prefix, 0, &page.next_page_token)
            .await?;
    }
    rows.finish()?;
    Ok(())
}

fn row(chain: &ChainSummary) -> Row {
    let json = json!({
        "name": chain.name,
        "chain_id": chain.chain_id.to_string(),
        "head": {"height": chain.height, "quant_hash": hex::encode(chain.quant_hash)},
        "transactions": chain.transactions,
        "pool": chain.pool,
        "closed": chain.closed,
        "created_ms": chain.created_ms,
    });
    Row {
        json: json.to_string(),
        cells: vec![
            chain.name.clone(),
            chain.height.to_string(),
            chain.transactions.to_string(),
            chain.pool.to_string(),
            chain.closed.to_string(),
            chain.chain_id.to_string(),
        ],
    }
}
