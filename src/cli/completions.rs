//! `qbc completions`: the script that lets a shell complete commands.
use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{
    Cli,
    exit::CliError,
    output::{OutputFormat, Printer},
};

#[derive(clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "qbc", &mut script);
    let mut printer = Printer::stdout(OutputFormat::Table);
    let written = printer.bytes(&script).and_then(|()| printer.flush());
    written.map_err(|error: io::Error| CliError::Stdout(error))
}
