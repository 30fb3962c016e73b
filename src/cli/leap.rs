//! `qbc leap`: seal a chain's pool.
use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        session::{Session, chain_name, say_first, say_mining},
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
    let (client, name) = (&session.client, args.name.as_ref());
    let sealing = Box::pin(client.leap(name, args.note.as_bytes(), false));
    let (header, contact) = say_mining(client, name, sealing).await?;
    say_first(&contact);
    session.printer.object(&shape::header(&header))?;
    Ok(())
}
