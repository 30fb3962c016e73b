//! `qbc keygen`: make a key for an author or an admin.
use std::path::PathBuf;

use serde_json::json;

use crate::cli::{Global, exit::CliError, key_file, output::Printer};

#[derive(clap::Args)]
pub(super) struct KeygenArgs {
    /// The file to make, of mode 0600; one that is there is never overwritten
    #[arg(short = 'o', value_name = "FILE", default_value = "author.key")]
    file: PathBuf,
}

pub(super) fn run(args: &KeygenArgs, global: &Global) -> Result<(), CliError> {
    let key = key_file::make(&args.file)?;
    Printer::stdout(global.output).object(&json!({
        "public_key": hex::encode(key.public()),
        "file": args.file.display().to_string(),
    }))?;
    Ok(())
}
