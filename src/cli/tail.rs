//! `qbc tail`: transactions as they come, and the Quants that seal them, verified; it resumes by itself.
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde_json::Value;

use crate::{
    chain::{ChainId, Content},
    cli::{
        exit::CliError,
        merge::{self, of_chain},
        output::{OutputFormat, Printer, Row, say},
        session::{Session, chain_name},
        shape,
    },
    client::{
        Client, ReadTransaction, TailEvent, TailFrom, TailOptions, TailSubject, Tailed,
        TailedQuant, cursor_move,
    },
};

/// A cursor moves this often at most while much comes.
const CURSOR_EVERY: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct TailArgs {
    /// The chain; or with a slash at its end the beginning of names: all chains below it, / alone: all chains
    name: String,
    /// The first index [default: 0]
    #[arg(long, value_name = "I", conflicts_with_all = ["now", "resume"])]
    from: Option<u64>,
    /// Only what comes from now on
    #[arg(long)]
    now: bool,
    /// Where to go on, as the tail before said at its end
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', value_parser = token)]
    resume: Vec<Bytes>,
    /// Go on where this cursor stands, and move it along with what is shown
    #[arg(long, value_name = "C")]
    cursor: Option<String>,
    /// The chain that keeps the cursor [default: the chain that is tailed]
    #[arg(long, value_name = "NAME", requires = "cursor")]
    cursor_chain: Option<String>,
    /// Whole Quants with their transactions, nothing that is unsealed
    #[arg(long)]
    quants: bool,
    /// Of a chain that is split: only itself
    #[arg(long)]
    alone: bool,
    /// End after so many transactions, or Quants with --quants [default: never]
    #[arg(short = 'n', value_name = "N")]
    count: Option<u64>,
}

fn token(text: &str) -> Result<Bytes, String> {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.map(Bytes::from).map_err(|_| {
        "it is no token; give one as qbc tail said it at its end, or as qbc cursors shows it".into()
    })
}

/// A token as people and scripts pass it on.
pub(super) fn token_text(token: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(token)
}

pub(super) async fn run(args: TailArgs, mut session: Session) -> Result<(), CliError> {
    let (subject, options) = asked(&args)?;
    if let TailSubject::Chain(name) = &subject {
        session
            .keep(&chain_name(name).map_err(CliError::Usage)?)
            .await?;
    }
    let keeper = match (&args.cursor_chain, &subject) {
        (Some(keeper), _) | (None, TailSubject::Chain(keeper)) => keeper.clone(),
        (None, TailSubject::Prefix(_)) => String::new(),
    };
    let mut tail = session.client.tail(subject, options).await?;
    let mut show = Show {
        printer: &mut session.printer,
        contents: HashMap::new(),
        left: args.count.unwrap_or(u64::MAX),
    };
    show.begin()?;
    let mut place = Place::new(args.cursor.clone(), keeper);
    let mut resumed = 0;
    while show.left > 0 {
        let event = tokio::select! {
            event = tail.next() => event?,
            _ = tokio::signal::ctrl_c() => break,
        };
        if tail.resumed() > resumed {
            resumed = tail.resumed();
            say(format!(
                "the tail broke and was resumed, {resumed} times now"
            ));
        }
        let (id, token) = (event.chain_id, event.resume_token.clone());
        let counts = matches!(
            event.event,
            TailEvent::Transactions(_) | TailEvent::Quant(_)
        );
        if show.event(&session.client, event).await? {
            place.takes(&session.client, (id, token), counts).await?;
        }
    }
    place.ends(&session.client).await
}

/// Where the tail is, by what was shown whole.
struct Place {
    cursor: Option<String>,
    keeper: String,
    tokens: BTreeMap<ChainId, Bytes>,
    moved: Instant,
    behind: bool,
}

impl Place {
    fn new(cursor: Option<String>, keeper: String) -> Self {
        Self {
            cursor,
            keeper,
            tokens: BTreeMap::new(),
            moved: Instant::now(),
            behind: false,
        }
    }

    async fn takes(
        &mut self,
        client: &Client,
        (id, token): (ChainId, Bytes),
        counts: bool,
    ) -> Result<(), CliError> {
        self.tokens.insert(id, token);
        self.behind |= counts;
        if self.behind && self.moved.elapsed() >= CURSOR_EVERY {
            self.move_cursor(client).await?;
        }
        Ok(())
    }

    async fn move_cursor(&mut self, client: &Client) -> Result<(), CliError> {
        if let Some(cursor) = self.cursor.as_ref().filter(|_| self.behind) {
            let tokens = self.tokens.values();
            let moves = tokens.map(|token| cursor_move(cursor, token.clone()));
            client.move_cursor(&self.keeper, moves.collect()).await?;
        }
        (self.moved, self.behind) = (Instant::now(), false);
        Ok(())
    }

    async fn ends(mut self, client: &Client) -> Result<(), CliError> {
        self.move_cursor(client).await?;
        let tokens: Vec<String> = self
            .tokens
            .values()
            .map(|token| token_text(token))
            .collect();
        if !tokens.is_empty() {
            say(format!(
                "go on from here with --resume {}",
                tokens.join(",")
            ));
        }
        Ok(())
    }
}

fn asked(args: &TailArgs) -> Result<(TailSubject, TailOptions), CliError> {
    let subject = match args.name.strip_suffix('/') {
        Some("") => TailSubject::Prefix(String::new()),
        Some(_) => TailSubject::Prefix(args.name.clone()),
        None => TailSubject::Chain(chain_name(&args.name).map_err(CliError::Usage)?.to_string()),
    };
    if matches!(subject, TailSubject::Prefix(_))
        && args.cursor.is_some()
        && args.cursor_chain.is_none()
    {
        let why = "a cursor of several chains needs --cursor-chain: the chain that keeps it";
        return Err(CliError::Usage(why.to_owned()));
    }
    let from = match args.from {
        Some(index) => TailFrom::Index(index),
        None if args.now => TailFrom::Now,
        None => TailFrom::Start,
    };
    let cursor = args
        .cursor
        .clone()
        .map(|name| (name, args.cursor_chain.clone()));
    let options = TailOptions {
        from,
        resume: args.resume.clone(),
        cursor,
        quants: args.quants,
        alone: args.alone,
        heartbeat_ms: 0,
    };
    Ok((subject, options))
}

/// What is shown, each event at once.
struct Show<'a> {
    printer: &'a mut Printer,
    contents: HashMap<String, Content>,
    left: u64,
}

impl Show<'_> {
    fn begin(&mut self) -> Result<(), CliError> {
        if self.printer.format() == OutputFormat::Table {
            self.printer.line(merge::COLUMNS, None)?;
        }
        Ok(())
    }

    /// Shows an event; true where it was shown whole.
    async fn event(&mut self, client: &Client, tailed: Tailed) -> Result<bool, CliError> {
        let chain = tailed.chain;
        let whole = match tailed.event {
            TailEvent::Transactions(some) => {
                let content = self.content(client, &chain).await?;
                let shown = some
                    .len()
                    .min(usize::try_from(self.left).unwrap_or(usize::MAX));
                for one in &some[..shown] {
                    self.transaction(&chain, one, content)?;
                }
                self.left -= shown as u64;
                shown == some.len()
            }
            TailEvent::Quant(quant) => {
                let content = self.content(client, &chain).await?;
                self.quant(&chain, &quant, content)?;
                true
            }
            TailEvent::Split { height, subchains } => {
                say(format!(
                    "{chain} was split by Quant {height}: {} follow",
                    subchains.join(", ")
                ));
                true
            }
            TailEvent::Begin { .. } | TailEvent::Heartbeat { .. } => true,
        };
        self.printer.flush()?;
        Ok(whole)
    }

    async fn content(&mut self, client: &Client, chain: &str) -> Result<Content, CliError> {
        if let Some(content) = self.contents.get(chain) {
            return Ok(*content);
        }
        let contact = client.contact(chain, false).await?;
        let content = contact.trusted.constitution.content;
        self.contents.insert(chain.to_owned(), content);
        Ok(content)
    }

    fn transaction(
        &mut self,
        chain: &str,
        one: &ReadTransaction,
        content: Content,
    ) -> Result<(), CliError> {
        let row = of_chain(chain, shape::transaction(one, content));
        self.printer.line(merge::COLUMNS, Some(&row))?;
        Ok(())
    }

    fn quant(
        &mut self,
        chain: &str,
        quant: &TailedQuant,
        content: Content,
    ) -> Result<(), CliError> {
        let header = &quant.header;
        if self.printer.format() == OutputFormat::Table {
            for one in &quant.transactions {
                self.transaction(chain, one, content)?;
            }
        }
        let transactions = quant.transactions.iter();
        let transactions =
            transactions.map(|one| serde_json::from_str(&shape::transaction(one, content).json));
        let transactions: Vec<Value> = transactions.collect::<Result<_, _>>().unwrap_or_default();
        let mut object = shape::header(header);
        object["chain"] = chain.into();
        object["quant"] = header.height.into();
        if !transactions.is_empty() {
            object["transactions"] = transactions.into();
        }
        let cells = [
            chain.to_owned(),
            format!("{}..{}", header.tx_start, header.tx_end()),
            header.height.to_string(),
            "true".to_owned(),
            header.time_ms.to_string(),
            "-".to_owned(),
            "-".to_owned(),
            "-".to_owned(),
            format!("Quant {}", hex::encode(header.hash())),
        ];
        let row = Row {
            json: object.to_string(),
            cells: cells.to_vec(),
        };
        self.printer.line(merge::COLUMNS, Some(&row))?;
        if quant.whole {
            self.left = self.left.saturating_sub(1);
        }
        Ok(())
    }
}
