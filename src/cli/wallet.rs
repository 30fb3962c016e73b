//! `qbc wallet`: accounts of a ledger: keys for them, balances, transfers, statements, statistics.
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    chain::{
        Balances, ChainName, TYPE_TRANSFER, Transfer, check_account, key_of_account, parse_amount,
    },
    cli::{
        Global,
        exit::CliError,
        key_file, merge, online,
        output::{Column, Printer, Row},
        session::{Session, chain_name},
        tree,
    },
    client::{
        ClientError, HistoryPage, InjectOptions, Item, ReadTransaction, Subject, Trusted,
        write_atomic,
    },
};

#[derive(clap::Args)]
pub(super) struct WalletArgs {
    #[command(subcommand)]
    verb: WalletVerb,
}

#[derive(clap::Subcommand)]
enum WalletVerb {
    /// Make a key and tell the account that belongs to it
    New {
        /// The key goes to NAME.key
        name: String,
    },
    /// What an account has
    Balance {
        /// The ledger
        #[arg(value_parser = chain_name)]
        chain: ChainName,
        /// The account, or @FILE for the one that belongs to the key in a file
        #[arg(value_parser = account)]
        account: Account,
    },
    /// Move an amount
    Transfer(TransferArgs),
    /// All transfers of an account, or of the ledger, in order
    List {
        /// The ledger
        #[arg(value_parser = chain_name)]
        chain: ChainName,
        /// The account, or @FILE [default: all]
        #[arg(value_parser = account)]
        account: Option<Account>,
        /// Write the statement to this file, a JSON object per line
        #[arg(short = 'o', value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// What is between the subchains of a ledger that is split: debited in one, not yet credited in another
    Transit {
        /// The ledger
        #[arg(value_parser = chain_name)]
        chain: ChainName,
    },
    /// With whom an account dealt, how often and how much, the largest first
    Stats {
        /// The ledger
        #[arg(value_parser = chain_name)]
        chain: ChainName,
        /// The account, or @FILE
        #[arg(value_parser = account)]
        account: Account,
    },
}

#[derive(clap::Args)]
struct TransferArgs {
    /// The ledger
    #[arg(value_parser = chain_name)]
    chain: ChainName,
    /// Whose it is, or @FILE
    #[arg(value_parser = account)]
    sender: Account,
    /// Whose it becomes, or @FILE
    #[arg(value_parser = account)]
    receiver: Account,
    /// How much: 1 to 2^128 - 1
    #[arg(value_parser = amount)]
    amount: u128,
    /// Your own words, at most 1024 bytes
    #[arg(long, value_name = "T")]
    memo: Option<String>,
    /// Sign with the key in this file: needed where the sender's account belongs to a key
    #[arg(long, value_name = "KEYFILE")]
    sign: Option<PathBuf>,
}

/// An account's name.
#[derive(Clone, Debug)]
pub(super) struct Account(pub(super) String);

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The columns of a statement.
const STATEMENT_COLUMNS: &[Column] = &[
    ("index", 8),
    ("height", 6),
    ("proven", 6),
    ("inject_ms", 13),
    ("sender", 12),
    ("receiver", 12),
    ("amount", 12),
    ("balance", 12),
    ("memo", 0),
];
/// The same over several chains.
const SPLIT_STATEMENT_COLUMNS: &[Column] = &[
    ("chain", 12),
    ("index", 8),
    ("height", 6),
    ("proven", 6),
    ("inject_ms", 13),
    ("sender", 12),
    ("receiver", 12),
    ("amount", 12),
    ("balance", 12),
    ("memo", 0),
];
/// The columns of statistics.
const STATS_COLUMNS: &[Column] = &[
    ("rank", 4),
    ("counterparty", 12),
    ("count", 7),
    ("sent", 12),
    ("received", 12),
    ("total", 12),
];

pub(super) fn run(args: WalletArgs, global: &Global) -> Result<(), CliError> {
    match args.verb {
        WalletVerb::New { name } => make(&name, global),
        WalletVerb::Balance { chain, account } => {
            online(global, async |s| balance(&chain, &account, s).await)
        }
        WalletVerb::Transfer(args) => online(global, async |s| transfer(args, s).await),
        WalletVerb::List {
            chain,
            account,
            file,
        } => online(global, async |s| {
            Box::pin(list(&chain, account, file.as_deref(), s)).await
        }),
        WalletVerb::Transit { chain } => online(global, async |s| transit(&chain, s).await),
        WalletVerb::Stats { chain, account } => {
            online(global, async |s| stats(&chain, account, s).await)
        }
    }
}

/// Needs no node.
fn make(name: &str, global: &Global) -> Result<(), CliError> {
    let path = PathBuf::from(format!("{name}.key"));
    let key = key_file::make(&path)?;
    Printer::stdout(global.output).object(&json!({
        "account": hex::encode(key.public()),
        "file": path.display().to_string(),
    }))?;
    Ok(())
}

async fn balance(
    chain: &ChainName,
    account: &Account,
    mut session: Session,
) -> Result<(), CliError> {
    let mut trusted = ledger(&session, chain).await?;
    let (mut balance, mut place) = session.client.balance(&trusted, &account.0).await?;
    // Of a ledger that is split, the subchain that has the account.
    while place != trusted.name() {
        let name = chain_name(&place).map_err(CliError::Failed)?;
        trusted = ledger(&session, &name).await?;
        (balance, place) = session.client.balance(&trusted, &account.0).await?;
    }
    let proven = session
        .client
        .proven_balance(&trusted, &account.0)
        .await?
        .map(|balance| balance.to_string());
    session.printer.object(&json!({
        "chain": trusted.name(),
        "account": account.0,
        "balance": balance.to_string(),
        "proven_balance": proven,
        "proven_at_height": trusted.header.height,
    }))?;
    Ok(())
}

/// What is between the subchains of a ledger, counted over all of them.
async fn transit(chain: &ChainName, mut session: Session) -> Result<(), CliError> {
    let trusted = ledger(&session, chain).await?;
    let (summary, _) = session.client.chain(&trusted).await?;
    let below = tree::below(&session, summary.split.as_ref()).await?;
    let sum = tree::transit(&below, summary.transit.unwrap_or_default());
    session.printer.object(&json!({
        "chain": trusted.name(),
        "in_transit": sum.between().to_string(),
        "waiting": sum.waiting,
        "debited": sum.debited.to_string(),
        "credited": sum.credited.to_string(),
    }))?;
    Ok(())
}

async fn transfer(args: TransferArgs, mut session: Session) -> Result<(), CliError> {
    let sign = args.sign.as_deref().map(key_file::signer).transpose()?;
    let transfer = Transfer {
        sender: args.sender.0,
        receiver: args.receiver.0,
        amount: args.amount,
        memo: args.memo,
    };
    let payload = transfer.to_json();
    // What the node would refuse is told before anything is sent.
    Transfer::parse(payload.as_bytes()).map_err(|error| CliError::Usage(error.to_string()))?;
    if sign.is_none() && key_of_account(&transfer.sender).is_some() {
        let why = "the sender's account belongs to a key: give --sign with the file of that key";
        return Err(CliError::Usage(why.to_owned()));
    }
    let trusted = ledger(&session, &args.chain).await?;
    let options = InjectOptions {
        sign: sign.map(Arc::new),
        ..InjectOptions::default()
    };
    let mut injector = session.client.injector(&trusted, options);
    let item = Item {
        payload: payload.into(),
        ..Item::default()
    };
    injector.push(item).await?;
    let totals = injector.finish().await?;
    session.printer.object(&json!({
        "chain": trusted.name(),
        "index": totals.first_index,
        "sender": transfer.sender,
        "receiver": transfer.receiver,
        "amount": transfer.amount.to_string(),
    }))?;
    Ok(())
}

async fn list(
    chain: &ChainName,
    account: Option<Account>,
    file: Option<&Path>,
    mut session: Session,
) -> Result<(), CliError> {
    let trusted = ledger(&session, chain).await?;
    let mut statement = Statement::of(&trusted, account);
    if let Some(path) = file {
        let mut lines = Vec::new();
        let (count, _) = statement
            .each(&session, trusted, &mut |row| {
                lines.extend_from_slice(row.json.as_bytes());
                lines.push(b'\n');
                Ok(())
            })
            .await?;
        write_atomic(path, &lines)?;
        session.printer.object(&json!({
            "chain": chain.as_ref(),
            "transfers": count,
            "file": path.display().to_string(),
        }))?;
        return Ok(());
    }
    let mut rows = Vec::new();
    let chains = statement
        .each(&session, trusted, &mut |row| {
            rows.push(row);
            Ok(())
        })
        .await?
        .1;
    let columns = if chains > 1 {
        SPLIT_STATEMENT_COLUMNS
    } else {
        STATEMENT_COLUMNS
    };
    let mut printed = session.printer.rows(columns)?;
    for row in &rows {
        printed.push(row)?;
    }
    printed.finish()?;
    Ok(())
}

async fn stats(chain: &ChainName, account: Account, mut session: Session) -> Result<(), CliError> {
    let trusted = ledger(&session, chain).await?;
    let mut dealings: BTreeMap<String, Dealings> = BTreeMap::new();
    let subject = Subject::Account(account.0.clone());
    let way = session.client.way(trusted, account.0.as_bytes()).await?;
    each_of(&session, &way, &subject, &mut |_, _, transfer| {
        let sent = transfer.sender == account.0;
        let other = if sent {
            &transfer.receiver
        } else {
            &transfer.sender
        };
        let with = dealings.entry(other.clone()).or_default();
        with.count += 1;
        let side = if sent {
            &mut with.sent
        } else {
            &mut with.received
        };
        *side = side.saturating_add(transfer.amount);
        Ok(())
    })
    .await?;
    let mut ranked: Vec<(String, Dealings)> = dealings.into_iter().collect();
    // Stable: equal totals stay in the order of their names.
    ranked.sort_by_key(|(_, with)| Reverse(with.total()));
    let shown = json!({
        "chain": chain.as_ref(),
        "account": account.0,
        "counterparties": (1..).zip(&ranked).map(|(rank, (name, with))| with.shown(rank, name)).collect::<Vec<_>>(),
    });
    let rows: Vec<Vec<String>> = (1..)
        .zip(&ranked)
        .map(|(rank, (name, with))| with.cells(rank, name))
        .collect();
    session
        .printer
        .table_or_object(STATS_COLUMNS, &rows, &shown)?;
    Ok(())
}

/// What went between two accounts.
#[derive(Default)]
struct Dealings {
    count: u64,
    sent: u128,
    received: u128,
}

impl Dealings {
    fn total(&self) -> u128 {
        self.sent.saturating_add(self.received)
    }

    fn shown(&self, rank: u64, counterparty: &str) -> Value {
        json!({
            "rank": rank,
            "counterparty": counterparty,
            "count": self.count,
            "sent": self.sent.to_string(),
            "received": self.received.to_string(),
            "total": self.total().to_string(),
        })
    }

    fn cells(&self, rank: u64, counterparty: &str) -> Vec<String> {
        vec![
            rank.to_string(),
            counterparty.to_owned(),
            self.count.to_string(),
            self.sent.to_string(),
            self.received.to_string(),
            self.total().to_string(),
        ]
    }
}

/// A statement in the making: each transfer with what it left on the account.
struct Statement {
    account: Option<Account>,
    balances: Option<Balances>,
}

impl Statement {
    fn of(trusted: &Trusted, account: Option<Account>) -> Self {
        Self {
            account,
            balances: trusted.constitution.mint.clone().map(Balances::new),
        }
    }

    /// How many transfers there are, in how many chains.
    async fn each(
        &mut self,
        session: &Session,
        trusted: Trusted,
        row: &mut dyn FnMut(Row) -> Result<(), CliError>,
    ) -> Result<(u64, usize), CliError> {
        let (mut count, account) = (0, self.account.clone());
        let chains = if let Some(account) = &account {
            session.client.way(trusted, account.0.as_bytes()).await?
        } else {
            let (summary, _) = session.client.chain(&trusted).await?;
            let below = tree::below(session, summary.split.as_ref()).await?;
            let mut all = vec![trusted];
            all.extend(tree::flat(below));
            all
        };
        let several = chains.len() > 1;
        let mut each = |chain: &str, read: &ReadTransaction, transfer: &Transfer| {
            count += 1;
            let made = self.row(read, transfer);
            row(if several {
                merge::of_chain(chain, made)
            } else {
                made
            })
        };
        match account {
            Some(account) => {
                let subject = Subject::Account(account.0);
                each_of(session, &chains, &subject, &mut each).await?;
            }
            None => each_of_all(session, &chains, &mut each).await?,
        }
        Ok((count, chains.len()))
    }

    fn row(&mut self, read: &ReadTransaction, transfer: &Transfer) -> Row {
        let balance = self.after(transfer).map(|balance| balance.to_string());
        let mut fields = json!({
            "index": read.index,
            "height": read.height,
            "proven": read.proven,
            "inject_ms": read.inject_ms,
            "sender": transfer.sender,
            "receiver": transfer.receiver,
            "amount": transfer.amount.to_string(),
            "memo": transfer.memo,
        });
        if let (Some(balance), Value::Object(fields)) = (&balance, &mut fields) {
            fields.insert("balance".to_owned(), balance.as_str().into());
        }
        let dash = || "-".to_owned();
        let cells = vec![
            read.index.to_string(),
            read.height.map_or_else(dash, |height| height.to_string()),
            read.proven.to_string(),
            read.inject_ms.to_string(),
            transfer.sender.clone(),
            transfer.receiver.clone(),
            transfer.amount.to_string(),
            balance.unwrap_or_else(dash),
            transfer.memo.clone().unwrap_or_default(),
        ];
        Row {
            json: fields.to_string(),
            cells,
        }
    }

    /// What the account has after its next transfer; its own transfers are all it takes to know.
    fn after(&mut self, transfer: &Transfer) -> Option<u128> {
        let account = self.account.as_ref()?.0.as_bytes().to_vec();
        let balances = self.balances.as_mut()?;
        balances.follow(transfer, &account)
    }
}

type EachTransfer<'a> =
    &'a mut dyn FnMut(&str, &ReadTransaction, &Transfer) -> Result<(), CliError>;

/// Calls `each` for the transfers of an account, the oldest first; the chains are those that it led through.
async fn each_of(
    session: &Session,
    chains: &[Trusted],
    subject: &Subject,
    each: EachTransfer<'_>,
) -> Result<(), CliError> {
    for trusted in chains {
        let mut token = String::new();
        loop {
            let page = session.client.history(trusted, subject, false, &token);
            let HistoryPage {
                transactions,
                next_page_token,
            } = page.await?;
            for read in &transactions {
                each(trusted.name(), read, &parsed(read)?)?;
            }
            token = next_page_token;
            if token.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

/// The same for all transfers of a ledger, by time; none can be left out of what is sealed. A transfer between subchains
/// stands where it was debited.
async fn each_of_all(
    session: &Session,
    chains: &[Trusted],
    each: EachTransfer<'_>,
) -> Result<(), CliError> {
    let mut all = Vec::new();
    for trusted in chains {
        let mut reader = session.client.read(trusted, 0, None);
        while let Some(transactions) = reader.next_batch().await? {
            let transfers = transactions.into_iter();
            let transfers = transfers.filter(|read| read.kind == TYPE_TRANSFER);
            for read in transfers {
                // One chain needs no order.
                if chains.len() == 1 {
                    each(trusted.name(), &read, &parsed(&read)?)?;
                } else {
                    all.push((trusted.name(), read));
                }
            }
        }
    }
    // Stable: equal times stay in the order of the chains.
    all.sort_by_key(|(_, read)| read.inject_ms);
    for (chain, read) in &all {
        each(chain, read, &parsed(read)?)?;
    }
    Ok(())
}

fn parsed(read: &ReadTransaction) -> Result<Transfer, CliError> {
    read.transfer().ok_or_else(|| {
        let why = format!("transaction {} is no transfer", read.index);
        CliError::Client(ClientError::refused("answer", why))
    })
}

async fn ledger(session: &Session, chain: &ChainName) -> Result<Trusted, CliError> {
    let trusted = session.look(chain).await?;
    if trusted.constitution.ledger {
        return Ok(trusted);
    }
    let why = format!("chain {chain} is no ledger; bang one with --rules ledger --mint ACCOUNT");
    Err(CliError::Precondition(why))
}

/// An account on the command line: its name, or `@FILE` for that of the key in a file.
pub(super) fn account(text: &str) -> Result<Account, String> {
    if text.starts_with('@') {
        return key_file::public_key(text).map(|key| Account(hex::encode(key)));
    }
    check_account(text)?;
    Ok(Account(text.to_owned()))
}

fn amount(text: &str) -> Result<u128, String> {
    parse_amount(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_a_name_or_the_key_in_a_file() {
        assert_eq!(account("bank").unwrap().0, "bank");
        assert!(account("").is_err());
        assert!(account("a\u{7}").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let key = key_file::make(&path).unwrap();
        let at = format!("@{}", path.display());
        assert_eq!(account(&at).unwrap().0, hex::encode(key.public()));
    }
}
