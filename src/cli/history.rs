//! `qbc history`: the transactions of a key.
use bytes::Bytes;

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
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
    let subject = Subject::Key(Bytes::from(args.key));
    let (mut left, mut token) = (args.count.unwrap_or(u64::MAX), String::new());
    // An error on the first page leaves stdout empty.
    let ask = async |token: &str| {
        let page = session
            .client
            .history(&trusted, &subject, args.newest_first, token);
        page.await
    };
    let mut page = ask(&token).await?;
    let mut rows = session.printer.rows(shape::TRANSACTION_COLUMNS)?;
    loop {
        for read in &page.transactions {
            if left == 0 {
                break;
            }
            rows.push(&shape::transaction(read, trusted.constitution.content))?;
            left -= 1;
        }
        token.clone_from(&page.next_page_token);
        if token.is_empty() || left == 0 {
            break;
        }
        page = ask(&token).await?;
    }
    rows.finish()?;
    Ok(())
}
