//! `qbc head`: show the newest Quant of a chain, verified.
use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
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
    session.printer.object(&shape::header(&trusted.header))?;
    Ok(())
}
