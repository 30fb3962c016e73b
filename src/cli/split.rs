//! `qbc split`: spread a chain over subchains. The Quant that splits it is verified, and the ids are those of its route.
use serde_json::json;

use crate::{
    chain::{ChainName, SPLIT_MAX, SPLIT_MIN},
    cli::{
        exit::CliError,
        session::{Session, chain_name, say_first},
    },
};

#[derive(clap::Args)]
pub(super) struct SplitArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// How many subchains, 2 to 100; a subchain can be split again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(i64::from(SPLIT_MIN)..=i64::from(SPLIT_MAX)))]
    into: u32,
}

pub(super) async fn run(args: SplitArgs, mut session: Session) -> Result<(), CliError> {
    let name = args.name.as_ref();
    let (split, contact) = session.client.split(name, args.into).await?;
    say_first(&contact);
    let subchains = split.subchains.iter().map(|one| {
        json!({
            "name": one.name,
            "chain_id": one.chain_id.to_string(),
            "group": one.group,
        })
    });
    session.printer.object(&json!({
        "chain": name,
        "height": split.header.height,
        "quant_hash": hex::encode(split.header.hash()),
        "subchains": subchains.collect::<Vec<_>>(),
    }))?;
    Ok(())
}
