//! `qbc leap`: seal a chain's pool.
use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        session::{Session, chain_name, say_first},
        shape,
    },
};

#[derive(clap::Args)]
pub(super) struct LeapArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// Text to keep in the Quant, at most 1024 bytes
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    note: String,
}

pub(super) async fn run(args: LeapArgs, mut session: Session) -> Result<(), CliError> {
    let (header, contact) = session
        .client
        .leap(args.name.as_ref(), args.note.as_bytes(), false)
        .await?;
    say_first(&contact);
    session.printer.object(&shape::header(&header))?;
    Ok(())
}
