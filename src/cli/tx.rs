//! `qbc tx`: show a transaction; a sealed one is proved into the head.
use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        session::{Session, chain_name},
        shape,
    },
};

#[derive(clap::Args)]
pub(super) struct TxArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The transaction's index
    index: u64,
}

pub(super) async fn run(args: TxArgs, mut session: Session) -> Result<(), CliError> {
    let trusted = session.look(&args.name).await?;
    let read = session.client.transaction(&trusted, args.index).await?;
    let row = shape::transaction(&read, trusted.constitution.content);
    session.printer.row(shape::TRANSACTION_COLUMNS, &row)?;
    Ok(())
}
