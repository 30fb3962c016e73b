//! `qbc export`: download a whole chain as one self-verifying file, verified on the way.
use std::{io::Write, path::PathBuf};

use serde_json::json;

use crate::{
    chain::{ChainName, ExportVerdict},
    cli::{
        exit::CliError,
        output::{say, stdout_is_terminal},
        session::{Session, chain_name},
    },
    client::{AtomicFile, ClientError, ExportStream},
};

#[derive(clap::Args)]
pub(super) struct ExportArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The file to write; it appears only when all of it is verified [default: stdout]
    #[arg(short = 'o', value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) async fn run(args: ExportArgs, mut session: Session) -> Result<(), CliError> {
    if args.file.is_none() && stdout_is_terminal() {
        let why = "an export is no text for a terminal: name a file with -o FILE, or send stdout somewhere";
        return Err(CliError::Usage(why.to_owned()));
    }
    let trusted = session.look(&args.name).await?;
    let stream = session.client.export(&trusted).await?;
    let Some(path) = args.file else {
        let verdict = Box::pin(to_stdout(stream, &mut session.printer)).await?;
        say(summary(&verdict));
        return Ok(());
    };
    let verdict = Box::pin(to_file(stream, &path)).await?;
    say(summary(&verdict));
    session.printer.object(&json!({
        "chain": verdict.name,
        "chain_id": verdict.chain_id.to_string(),
        "quants": verdict.quants,
        "transactions": verdict.transactions,
        "quant_hash": hex::encode(verdict.head_hash),
        "file": path.display().to_string(),
    }))?;
    Ok(())
}

async fn to_file(
    mut stream: ExportStream<'_>,
    path: &std::path::Path,
) -> Result<ExportVerdict, CliError> {
    let mut file = AtomicFile::create(path)?;
    while let Some(piece) = stream.next_piece().await? {
        file.write_all(&piece)
            .map_err(|e| ClientError::io(path, e))?;
    }
    let verdict = stream.finish().await?;
    file.commit()?;
    Ok(verdict)
}

async fn to_stdout(
    mut stream: ExportStream<'_>,
    printer: &mut crate::cli::output::Printer,
) -> Result<ExportVerdict, CliError> {
    while let Some(piece) = stream.next_piece().await? {
        printer.bytes(&piece)?;
    }
    printer.flush()?;
    Ok(stream.finish().await?)
}

fn summary(verdict: &ExportVerdict) -> String {
    format!(
        "verified {} Quants and {} transactions of {} up to head {}",
        verdict.quants,
        verdict.transactions,
        verdict.name,
        hex::encode(verdict.head_hash)
    )
}
