//! `qbc latest`: the newest transaction of a key, in whichever chain above or below it stands.
use bytes::Bytes;

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        merge,
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
    let content = trusted.constitution.content;
    let way = session.client.way(trusted, &key).await?;
    // What a chain below has came after what those above had.
    let mut found = None;
    for trusted in way.iter().rev() {
        found = session.client.latest(trusted, &key).await?;
        if let Some(read) = &found
            && trusted.name() != args.name.as_ref()
        {
            let row = merge::of_chain(trusted.name(), shape::transaction(read, content));
            session.printer.row(merge::COLUMNS, &row)?;
            return Ok(());
        }
        if found.is_some() {
            break;
        }
    }
    let Some(read) = found else {
        let why = format!(
            "no transaction of chain {} has this key; qbc prove {} --key proves that, on a keyed chain",
            args.name, args.name
        );
        return Err(CliError::NotFound(why));
    };
    let row = shape::transaction(&read, content);
    session.printer.row(shape::TRANSACTION_COLUMNS, &row)?;
    Ok(())
}
