//! `qbc latest`: the newest transaction of a key.
use bytes::Bytes;

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        session::{Session, chain_name},
        shape,
    },
};

#[derive(clap::Args)]
pub(super) struct LatestArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The key
    key: String,
}

pub(super) async fn run(args: LatestArgs, mut session: Session) -> Result<(), CliError> {
    let trusted = session.look(&args.name).await?;
    let key = Bytes::from(args.key);
    let Some(read) = session.client.latest(&trusted, &key).await? else {
        let why = format!(
            "no transaction of chain {} has this key; qbc prove {} --key proves that, on a keyed chain",
            args.name, args.name
        );
        return Err(CliError::NotFound(why));
    };
    let row = shape::transaction(&read, trusted.constitution.content);
    session.printer.row(shape::TRANSACTION_COLUMNS, &row)?;
    Ok(())
}
