//! `qbc read`: show transactions in order; sealed ones are verified before they are shown. A chain that is split is shown
//! with all chains below it, by time.
use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        merge::{self, Cursor},
        session::{Session, chain_name},
        shape, tree,
    },
};

#[derive(clap::Args)]
pub(super) struct ReadArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The first index [default: 0]; of a chain that is split it reads the chain alone
    #[arg(long, value_name = "I")]
    from: Option<u64>,
    /// How many at most [default: all]
    #[arg(short = 'n', value_name = "N")]
    count: Option<u64>,
    /// Of a chain that is split: where to go on, as the read before said at its end
    #[arg(long, value_name = "C", value_parser = Cursor::parse, conflicts_with = "from")]
    cursor: Option<Cursor>,
}

pub(super) async fn run(args: ReadArgs, mut session: Session) -> Result<(), CliError> {
    let trusted = session.look(&args.name).await?;
    // From an index on it is the chain alone that is read.
    if args.from.is_none()
        && let Some(split) = session.client.split_of(&trusted).await?
    {
        let below = tree::flat(tree::below(&session, Some(&split)).await?);
        let chains: Vec<_> = [trusted].into_iter().chain(below).collect();
        let cursor = args.cursor.unwrap_or_default();
        return merge::run(&mut session, &chains, (cursor, args.count)).await;
    }
    if args.cursor.is_some() {
        let why = format!("{} is not split: read on with --from", trusted.name());
        return Err(CliError::Usage(why));
    }
    let content = trusted.constitution.content;
    let mut reader = session
        .client
        .read(&trusted, args.from.unwrap_or(0), args.count);
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
