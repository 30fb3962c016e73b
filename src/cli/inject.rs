//! `qbc inject`: add transactions to a chain, one per line of a file or of stdin, as they come.
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    chain::ChainName,
    cli::{
        exit::CliError,
        input::{Format, Input, InputError, Numbered, Rules, Source},
        key_file,
        output::say,
        progress::Progress,
        session::{Session, chain_name},
    },
    client::{ClientError, InjectOptions, InjectTotals, Injector, RpcCode, Share},
};

/// The name of stdin on the command line.
const STDIN: &str = "-";
/// Lines read ahead.
const LINES_AHEAD: usize = 4096;
/// Input that pauses this long has what came so far sent.
const PAUSE: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 1 << 18;

#[derive(clap::Args)]
pub(super) struct InjectArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The file to read; - is stdin
    #[arg(default_value = "-", hide_default_value = true)]
    file: PathBuf,
    /// How a line holds a transaction
    #[arg(long, value_enum, default_value_t = Format::Lines)]
    format: Format,
    /// The key of every transaction
    #[arg(long, value_name = "K", conflicts_with = "key_field")]
    key: Option<String>,
    /// The field of the JSON line that is its key
    #[arg(long, value_name = "F")]
    key_field: Option<String>,
    /// The id of the one transaction
    #[arg(long, value_name = "I", conflicts_with = "id_field")]
    id: Option<String>,
    /// The field of the JSON line that is its id
    #[arg(long, value_name = "F")]
    id_field: Option<String>,
    /// Refuse unless the first transaction would get this index
    #[arg(long, value_name = "N")]
    expect_index: Option<u64>,
    /// Ask for signed receipts, check them, and keep them beside the trusted heads
    #[arg(long)]
    receipt: bool,
    /// Sign each transaction with the key in this file; those without an id get a random one
    #[arg(long, value_name = "KEYFILE")]
    sign: Option<PathBuf>,
}

type Lines = mpsc::Receiver<Result<Numbered, InputError>>;

pub(super) async fn run(args: InjectArgs, mut session: Session) -> Result<(), CliError> {
    let sign = args.sign.as_deref().map(key_file::signer).transpose()?;
    let input = open(&args.file)?;
    let trusted = session.keep(&args.name).await?;
    let rules = Rules {
        format: args.format,
        content: trusted.constitution.content,
        key: Source::new(args.key, args.key_field),
        id: Source::new(args.id, args.id_field),
    };
    let options = InjectOptions {
        expected_next_index: args.expect_index,
        receipt: args.receipt,
        sign: sign.map(Arc::new),
        ..InjectOptions::default()
    };
    let one_only = matches!(rules.id, Source::Fixed(_));
    let feed = Feed {
        injector: session.client.injector(&trusted, options),
        lines: read_ahead(input, rules),
        numbers: VecDeque::new(),
        forgotten: 0,
        progress: Progress::of("injected", None),
        one_only,
        may_pause: args.file == Path::new(STDIN),
    };
    let totals = feed.run().await?;
    session.printer.object(&shown(trusted.name(), &totals))?;
    Ok(())
}

/// Lines on their way into a chain.
struct Feed<'a> {
    injector: Injector<'a>,
    lines: Lines,
    /// Line numbers of what is not acknowledged yet.
    numbers: VecDeque<u64>,
    /// How many were acknowledged before the first of them.
    forgotten: u64,
    progress: Progress,
    /// An id was given for one transaction.
    one_only: bool,
    /// The input may pause; a file does not, however slow its disk.
    may_pause: bool,
}

impl Feed<'_> {
    async fn run(mut self) -> Result<InjectTotals, CliError> {
        let fed = self.feed().await;
        let Self {
            injector,
            numbers,
            forgotten,
            progress,
            ..
        } = self;
        if let Err(error) = fed {
            return Err(stop(injector, error, &numbers, forgotten).await);
        }
        let totals = injector.finish().await;
        let totals = totals.map_err(|error| place(error.into(), &numbers, forgotten))?;
        if totals.count == 0 {
            let why = "the input is empty: there is nothing to inject";
            return Err(CliError::Failed(why.to_owned()));
        }
        progress.finish();
        Ok(totals)
    }

    async fn feed(&mut self) -> Result<(), CliError> {
        loop {
            let Some(next) = self.next_line().await? else {
                return Ok(());
            };
            self.take(next.map_err(|error| bad_line(&error))?).await?;
        }
    }

    /// The next line; while it does not come, those before it are sent.
    async fn next_line(&mut self) -> Result<Option<Result<Numbered, InputError>>, CliError> {
        // With one id there may be only one line: its end is waited for.
        if !self.may_pause || self.one_only {
            return Ok(self.lines.recv().await);
        }
        if let Ok(next) = tokio::time::timeout(PAUSE, self.lines.recv()).await {
            return Ok(next);
        }
        self.injector.flush().await?;
        Ok(self.lines.recv().await)
    }

    async fn take(&mut self, next: Numbered) -> Result<(), CliError> {
        if self.one_only && !self.numbers.is_empty() {
            let why = "--id names one transaction, and there are more lines: use --id-field";
            return Err(CliError::Usage(why.to_owned()));
        }
        let bytes = next.item.payload.len() as u64;
        self.numbers.push_back(next.line);
        self.injector.push(next.item).await?;
        self.progress.add(1, bytes);
        let known = self.injector.acknowledged() - self.forgotten;
        self.numbers.drain(..known as usize);
        self.forgotten += known;
        Ok(())
    }
}

/// Ends an inject that failed: what is under way is awaited, what was not sent is not sent.
async fn stop(
    injector: Injector<'_>,
    error: CliError,
    numbers: &VecDeque<u64>,
    forgotten: u64,
) -> CliError {
    let failed_there = matches!(&error, CliError::Client(ClientError::Inject { .. }));
    let error = place(error, numbers, forgotten);
    let before = injector.acknowledged();
    let acknowledged = match injector.abandon(!failed_there).await {
        Ok(totals) => totals.count,
        Err(lost) => {
            say(lost.to_string());
            before
        }
    };
    say(format!(
        "{acknowledged} transactions before that were injected, none of the failed message or after it"
    ));
    error
}

/// Says which line an error is about, where it is about one.
fn place(error: CliError, numbers: &VecDeque<u64>, forgotten: u64) -> CliError {
    let CliError::Client(
        inject @ ClientError::Inject {
            first_item,
            items,
            bad_item,
            ..
        },
    ) = &error
    else {
        return error;
    };
    let line = |item: u64| {
        let position = usize::try_from(item.checked_sub(forgotten)?).ok()?;
        numbers.get(position).copied()
    };
    if let Some(bad) = bad_item.and_then(line) {
        return error.at(format!("line {bad}"));
    }
    let last = (first_item + u64::from(*items)).saturating_sub(1);
    match (line(*first_item), line(last)) {
        (Some(first), Some(last)) if is_about_content(inject) => {
            error.at(format!("lines {first} to {last}"))
        }
        _ => error,
    }
}

/// A refused request is about what is in it; other errors are about the chain or the node.
fn is_about_content(error: &ClientError) -> bool {
    matches!(error.root(), ClientError::Rpc(failure) if matches!(failure.code, RpcCode::Invalid | RpcCode::Auth))
}

fn bad_line(error: &InputError) -> CliError {
    CliError::Failed(error.to_string())
}

fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, CliError> {
    if path != Path::new(STDIN) {
        let file = File::open(path).map_err(|e| ClientError::io(path, e))?;
        return Ok(Box::new(BufReader::with_capacity(READ_BYTES, file)));
    }
    if io::stdin().is_terminal() {
        say("reading lines from the terminal; Ctrl-D ends them");
    }
    Ok(Box::new(BufReader::with_capacity(READ_BYTES, io::stdin())))
}

/// Reads in a thread of its own: a slow input must not hold up acknowledgements.
fn read_ahead(reader: Box<dyn BufRead + Send>, rules: Rules) -> Lines {
    let (lines, receiver) = mpsc::channel(LINES_AHEAD);
    thread::spawn(move || {
        for line in Input::new(reader, rules) {
            let last = line.is_err();
            if lines.blocking_send(line).is_err() || last {
                return;
            }
        }
    });
    receiver
}

fn shown(name: &str, totals: &InjectTotals) -> serde_json::Value {
    let mut shown = json!({
        "chain": name,
        "count": totals.count,
        "duplicates": totals.duplicates,
    });
    if let Some(first_index) = totals.first_index {
        shown["first_index"] = first_index.into();
    }
    if !totals.subchains.is_empty() {
        let told = totals.subchains.iter();
        shown["subchains"] = told.map(|(name, one)| share(name, one)).collect();
    }
    if totals.erased > 0 {
        shown["erased"] = totals.erased.into();
    }
    if totals.receipts > 0 {
        shown["receipts"] = totals.receipts.into();
    }
    shown
}

fn share(name: &str, one: &Share) -> serde_json::Value {
    let mut shown = json!({ "chain": name, "count": one.count });
    if let Some(first_index) = one.first_index {
        shown["first_index"] = first_index.into();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::RpcFailure;

    fn failed(code: RpcCode, bad_item: Option<u64>) -> CliError {
        let failure = RpcFailure {
            code,
            reason: "WHY".to_owned(),
            message: "no".to_owned(),
            retry: None,
            item: None,
        };
        CliError::Client(ClientError::Inject {
            first_item: 1000,
            items: 3,
            bad_item,
            acknowledged: 1000,
            source: Box::new(ClientError::Rpc(failure)),
        })
    }

    #[test]
    fn an_error_names_the_line_that_it_is_about() {
        let numbers = VecDeque::from([1001, 1003, 1004]);
        let cases = [
            (RpcCode::Invalid, Some(1001), "line 1003: no (WHY)"),
            (RpcCode::Exists, Some(1000), "line 1001: no (WHY)"),
            (RpcCode::Invalid, None, "lines 1001 to 1004: no (WHY)"),
            (RpcCode::Precondition, None, "no (WHY)"),
        ];
        for (code, bad_item, said) in cases {
            let error = place(failed(code, bad_item), &numbers, 1000);
            assert_eq!(error.to_string(), said);
        }
    }

    #[test]
    fn the_end_of_an_inject_has_the_fields_of_the_contract() {
        let totals = InjectTotals {
            count: 3,
            duplicates: 1,
            first_index: Some(5),
            ..InjectTotals::default()
        };
        assert_eq!(
            shown("a", &totals),
            json!({"chain": "a", "count": 3, "duplicates": 1, "first_index": 5})
        );
        let scattered = InjectTotals {
            first_index: None,
            ..totals
        };
        assert_eq!(
            shown("a", &scattered),
            json!({"chain": "a", "count": 3, "duplicates": 1})
        );
    }
}
