//! `qbc read`: show transactions in order; sealed ones are verified before they are shown.
use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        session::{Session, chain_name},
        shape,
    },
};

#[derive(clap::Args)]
pub(super) struct ReadArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The first index
    #[arg(long, value_name = "I", default_value_t = 0)]
    from: u64,
    /// How many at most [default: all]
    #[arg(short = 'n', value_name = "N")]
    count: Option<u64>,
}

pub(super) async fn run(args: ReadArgs, mut session: Session) -> Result<(), CliError> {
    let trusted = session.look(&args.name).await?;
    let content = trusted.constitution.content;
    let mut reader = session.client.read(&trusted, args.from, args.count);
    // An error before the first transaction leaves stdout empty.
    let mut batch = reader.next_batch().await?;
    let mut rows = session.printer.rows(shape::TRANSACTION_COLUMNS)?;
    while let Some(transactions) = batch {
        for read in &transactions {
            rows.push(&shape::transaction(read, content))?;
        }
        batch = reader.next_batch().await?;
    }
    rows.finish()?;
    Ok(())
}
