//! `qbc history`: the transactions of a key. Where the chain is split, or a subchain, those of all chains that the key led
//! through.
use bytes::Bytes;

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        merge,
        session::{Session, chain_name},
        shape,
    },
    client::Subject,
};

#[derive(clap::Args)]
pub(super) struct HistoryArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The key
    key: String,
    /// The newest first
    #[arg(long)]
    newest_first: bool,
    /// How many at most [default: all]
    #[arg(short = 'n', value_name = "N")]
    count: Option<u64>,
}

pub(super) async fn run(args: HistoryArgs, mut session: Session) -> Result<(), CliError> {
    let trusted = session.look(&args.name).await?;
    let content = trusted.constitution.content;
    let key = Bytes::from(args.key);
    let mut way = session.client.way(trusted, &key).await?;
    let several = way.len() > 1;
    let subject = Subject::Key(key);
    if args.newest_first {
        way.reverse();
    }
    let mut left = args.count.unwrap_or(u64::MAX);
    // An error on the first page leaves stdout empty.
    let mut first = Some(
        session
            .client
            .history(&way[0], &subject, args.newest_first, "")
            .await?,
    );
    let columns = if several {
        merge::COLUMNS
    } else {
        shape::TRANSACTION_COLUMNS
    };
    let mut rows = session.printer.rows(columns)?;
    for trusted in &way {
        let mut token = String::new();
        while left > 0 {
            let page = if let Some(page) = first.take() {
                page
            } else {
                let client = &session.client;
                client
                    .history(trusted, &subject, args.newest_first, &token)
                    .await?
            };
            for read in page.transactions.iter().take(left as usize) {
                let row = shape::transaction(read, content);
                let row = if several {
                    merge::of_chain(trusted.name(), row)
                } else {
                    row
                };
                rows.push(&row)?;
                left -= 1;
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
    }
    rows.finish()?;
    Ok(())
}
