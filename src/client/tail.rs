//! Tails that are verified: what is there of a chain or of several, then what comes. A transaction of a pool is given out as
//! unproved; the Quant that seals it is checked against all transactions that were given out, and against a head that
//! extends the trusted one. Where the stream breaks it is resumed, on the next node if several are known.
use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::sleep;
use tonic::{Request, Streaming};

use crate::{
    chain::ChainId,
    client::{
        Client, ClientError, ReadTransaction, RpcCode,
        connect::in_time,
        convert, cursor_move,
        tail_chain::{Following, TailedQuant, Told},
    },
    proto::{self, tail_request, tail_response::Event},
};

/// Silence beyond this many heartbeats is a broken stream.
const HEARTBEATS_MISSED: u32 = 3;
/// Longest heartbeat, and the default.
const HEARTBEAT_MS: u32 = 10_000;
/// Pauses before a broken stream is resumed: the first, and the longest.
const RESUME_FIRST: Duration = Duration::from_millis(50);
const RESUME_LONGEST: Duration = Duration::from_secs(2);

/// What is tailed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailSubject {
    /// A chain; if it is split, with all chains below it.
    Chain(String),
    /// All chains whose names begin so.
    Prefix(String),
}

/// Where chains begin of which no token and no cursor says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TailFrom {
    /// With their first transaction.
    #[default]
    Start,
    /// With this one; of a single chain.
    Index(u64),
    /// With what comes after the call.
    Now,
}

/// How to tail.
#[derive(Clone, Debug, Default)]
pub struct TailOptions {
    /// Where to begin.
    pub from: TailFrom,
    /// Tokens of an earlier tail, one per chain: these chains go on there.
    pub resume: Vec<Bytes>,
    /// A cursor to begin at, and the chain that keeps it; none: the chain that is tailed.
    pub cursor: Option<(String, Option<String>)>,
    /// Whole Quants, and nothing of the pool.
    pub quants: bool,
    /// Of a chain that is split: only itself.
    pub alone: bool,
    /// The longest silence, in milliseconds; 0 is the longest allowed.
    pub heartbeat_ms: u32,
}

/// Something that happened on a chain.
#[derive(Clone, Debug)]
pub struct Tailed {
    /// The chain.
    pub chain: String,
    /// Its id.
    pub chain_id: ChainId,
    /// Goes on after this.
    pub resume_token: Bytes,
    /// What happened.
    pub event: TailEvent,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum TailEvent {
    /// The chain is in the tail from this transaction and Quant on.
    Begin {
        /// The next transaction.
        next_index: u64,
        /// The next Quant.
        next_height: u64,
    },
    /// Transactions, in order and without a gap; unproved until their Quant comes. Signatures of authors were checked.
    Transactions(Vec<ReadTransaction>),
    /// A Quant, verified; all transactions that it seals came before it, or are in it.
    Quant(Box<TailedQuant>),
    /// Nothing new; the node's word.
    Heartbeat {
        /// Transactions of the chain.
        next_index: u64,
        /// Its newest Quant.
        height: u64,
    },
    /// The chain was split at this height; its subchains follow.
    Split {
        /// The Quant that split it.
        height: u64,
        /// The names of its subchains.
        subchains: Vec<String>,
    },
}

/// A tail under way.
pub struct Tail<'a> {
    client: &'a Client,
    subject: TailSubject,
    options: TailOptions,
    chains: BTreeMap<ChainId, Following>,
    stream: Option<Streaming<proto::TailResponse>>,
    /// What came and was not taken yet.
    answer: Option<proto::TailResponse>,
    turn: usize,
    pause: Duration,
    /// How often it was resumed.
    resumed: u64,
}

impl Client {
    /// Begins a tail. What is wrong with the request is told here; after that it resumes by itself.
    pub async fn tail(
        &self,
        subject: TailSubject,
        options: TailOptions,
    ) -> Result<Tail<'_>, ClientError> {
        let mut tail = Tail {
            client: self,
            subject,
            options,
            chains: BTreeMap::new(),
            stream: None,
            answer: None,
            turn: self.turn(),
            pause: RESUME_FIRST,
            resumed: 0,
        };
        tail.know().await?;
        let stream = self.repeated(async |_| tail.open().await).await?;
        tail.stream = Some(stream);
        Ok(tail)
    }
}

impl Tail<'_> {
    /// What happens next; waits for it, however long that takes. An error is final: what a node says is not believed, or the
    /// request can't be served. Who stops waiting loses nothing: the next call goes on.
    pub async fn next(&mut self) -> Result<Tailed, ClientError> {
        loop {
            match self.step().await {
                Ok(Some(tailed)) => return Ok(tailed),
                Ok(None) => {}
                Err(error) if resumes(&error) => self.break_off(&error).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Tokens that resume this tail after the last event that [`next`](Self::next) gave, one per chain.
    pub fn resume_tokens(&self) -> Vec<Bytes> {
        let tokens = self.chains.values().map(|chain| chain.token.clone());
        tokens.filter(|token| !token.is_empty()).collect()
    }

    /// Moves of a cursor to where this tail is, one per chain: for [`Client::move_cursor`], or to ride in an inject.
    pub fn cursor_moves(&self, name: &str) -> Vec<proto::CursorMove> {
        let tokens = self.resume_tokens().into_iter();
        tokens.map(|token| cursor_move(name, token)).collect()
    }

    /// How often the stream broke and was resumed.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// A chain that is met for the first time is trusted from now on; what is known before the stream begins lets the first
    /// head come with a proof.
    async fn know(&mut self) -> Result<(), ClientError> {
        if let TailSubject::Chain(name) = &self.subject {
            let contact = self.client.contact(name, true).await?;
            let id = contact.trusted.chain_id;
            let chain = Following::new(contact.trusted, self.options.quants);
            self.chains.insert(id, chain);
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<Streaming<proto::TailResponse>, ClientError> {
        self.turn = self.client.turn();
        for chain in self.chains.values_mut() {
            chain.forget_pieces();
        }
        let request = Request::new(self.request());
        let mut tails = self.client.tails.clone();
        let answer = self.client.in_time(tails.tail(request)).await?;
        Ok(answer.into_inner())
    }

    fn request(&self) -> proto::TailRequest {
        let mut resume_tokens = self.resume_tokens();
        let known = |token: &Bytes| resume_tokens.iter().any(|own| same_chain(own, token));
        let given: Vec<Bytes> = self
            .options
            .resume
            .iter()
            .filter(|token| !known(token))
            .cloned()
            .collect();
        resume_tokens.extend(given);
        let (cursor, cursor_chain) = match &self.options.cursor {
            Some((name, chain)) => (name.clone(), chain.clone().unwrap_or_default()),
            None => (String::new(), String::new()),
        };
        let known_heads = self.chains.iter().map(|(id, chain)| proto::KnownHead {
            chain_id: Bytes::copy_from_slice(&id.0),
            height: Some(chain.trusted.header.height),
            began_index: chain.began(),
        });
        let unit = if self.options.quants {
            proto::TailUnit::Quants
        } else {
            proto::TailUnit::Transactions
        };
        proto::TailRequest {
            subject: Some(match &self.subject {
                TailSubject::Chain(name) => tail_request::Subject::Chain(name.clone()),
                TailSubject::Prefix(prefix) => tail_request::Subject::Prefix(prefix.clone()),
            }),
            unit: unit.into(),
            from: match self.options.from {
                // Chains that were in the tail have tokens; others came while the stream was broken.
                _ if self.chains.values().any(Following::has_begun) => None,
                TailFrom::Start => None,
                TailFrom::Index(index) => Some(tail_request::From::FromIndex(index)),
                TailFrom::Now => Some(tail_request::From::FromNow(true)),
            },
            resume_tokens,
            cursor,
            cursor_chain,
            alone: self.options.alone,
            evidence: true,
            known_heads: known_heads.collect(),
            without_transactions: false,
            heartbeat_ms: self.options.heartbeat_ms,
        }
    }

    /// Takes an answer, once all that has to be asked about it is answered.
    async fn step(&mut self) -> Result<Option<Tailed>, ClientError> {
        if self.answer.is_none() {
            let answer = self.next_answer().await?;
            self.answer = Some(answer);
            self.pause = RESUME_FIRST;
        }
        self.ask_about().await?;
        match self.answer.take() {
            Some(answer) => self.take(answer),
            None => Ok(None),
        }
    }

    async fn next_answer(&mut self) -> Result<proto::TailResponse, ClientError> {
        if self.stream.is_none() {
            let stream = self.open().await?;
            self.stream = Some(stream);
        }
        let ended = || tonic::Status::unavailable("the node ended the stream");
        let stream = self.stream.as_mut().ok_or_else(ended)?;
        let heartbeat = match self.options.heartbeat_ms {
            0 => HEARTBEAT_MS,
            ms => ms,
        };
        let longest = Duration::from_millis(u64::from(heartbeat)) * HEARTBEATS_MISSED;
        let longest = longest.max(self.client.config.deadline);
        let answer = in_time(longest, stream.message()).await?;
        Ok(answer.ok_or_else(ended)?)
    }

    /// Meets a chain that comes into the tail, and verifies a head.
    async fn ask_about(&mut self) -> Result<(), ClientError> {
        let Some(answer) = self
            .answer
            .as_ref()
            .filter(|answer| !answer.chain_id.is_empty())
        else {
            return Ok(());
        };
        let id = convert::chain_id(&answer.chain_id)?;
        let head = match &answer.event {
            Some(Event::Head(head)) => Some(head.clone()),
            _ => None,
        };
        if !self.chains.contains_key(&id) {
            let name = answer.chain.clone();
            self.meet(&name, id).await?;
        }
        if let (Some(head), Some(chain)) = (head, self.chains.get_mut(&id)) {
            let name = chain.trusted.name().to_owned();
            let head = self.client.told_head(&name, &chain.trusted, head).await?;
            chain.trusted = head;
        }
        Ok(())
    }

    async fn break_off(&mut self, error: &ClientError) {
        (self.stream, self.answer) = (None, None);
        self.resumed += 1;
        self.client.again(self.turn, error, &mut self.pause).await;
        self.pause = self.pause.min(RESUME_LONGEST);
        // A node that is asked at once by all who lost it would answer none of them.
        sleep(RESUME_FIRST).await;
    }

    fn take(&mut self, answer: proto::TailResponse) -> Result<Option<Tailed>, ClientError> {
        if answer.chain_id.is_empty() {
            return Ok(None);
        }
        let id = convert::chain_id(&answer.chain_id)?;
        let begins = self.begins(id);
        let Some(chain) = self.chains.get_mut(&id) else {
            return Ok(None);
        };
        let event = answer
            .event
            .ok_or_else(|| convert::bad("an event of the tail is empty"))?;
        let told = match event {
            Event::Begin(begin) => chain.begin(begin, begins)?,
            Event::Transactions(some) => chain.transactions(&convert::transactions(some.run)?)?,
            // It was verified when it came.
            Event::Head(_) => Told::Nothing,
            Event::Quant(quant) => chain.quant(quant)?,
            Event::Heartbeat(beat) => chain.heartbeat(&beat)?,
            Event::Split(split) => chain.split(&split)?,
        };
        let Told::Event(event) = told else {
            return Ok(None);
        };
        if answer.resume_token.is_empty() {
            return Err(ClientError::refused(
                "tail-token",
                "a whole event came without a token",
            ));
        }
        chain.token = answer.resume_token.clone();
        Ok(Some(Tailed {
            chain: chain.trusted.name().to_owned(),
            chain_id: id,
            resume_token: answer.resume_token,
            event,
        }))
    }

    /// A chain comes into the tail: its name must stand for it, and be one that was asked for.
    async fn meet(&mut self, name: &str, id: ChainId) -> Result<(), ClientError> {
        let (asked, below) = match &self.subject {
            TailSubject::Chain(chain) => (name == chain, format!("{chain}/")),
            TailSubject::Prefix(prefix) => (name.starts_with(prefix), "\0".to_owned()),
        };
        if !asked && !name.starts_with(&below) {
            let why = format!("a chain {name} came, which was not asked for");
            return Err(ClientError::refused("chain-name", why));
        }
        let contact = self.client.contact(name, true).await?;
        if contact.trusted.chain_id != id {
            let why = format!(
                "{name} is chain {}, and the tail says {id}",
                contact.trusted.chain_id
            );
            return Err(ClientError::refused("chain-id", why));
        }
        let chain = Following::new(contact.trusted, self.options.quants);
        self.chains.insert(id, chain);
        Ok(())
    }

    /// Where a chain must begin, as far as this client can know it: transaction and Quant.
    fn begins(&self, id: ChainId) -> (Option<u64>, Option<u64>) {
        let given = self
            .options
            .resume
            .iter()
            .find(|token| token.get(1..33) == Some(&id.0[..]));
        if let Some(token) = given {
            let number = |from: usize| {
                let bytes = token.get(from..from + 8)?;
                bytes.try_into().ok().map(u64::from_be_bytes)
            };
            return (number(33).filter(|_| !self.options.quants), number(41));
        }
        let first = matches!(&self.subject, TailSubject::Chain(name) if self.chains.get(&id).is_some_and(|chain| chain.trusted.name() == name));
        match self.options.from {
            _ if self.options.cursor.is_some() => (None, None),
            TailFrom::Index(index) if first && !self.options.quants => (Some(index), None),
            TailFrom::Start => (Some(0), Some(0)),
            _ => (None, None),
        }
    }
}

/// Tokens of one chain: version, then its id.
fn same_chain(one: &Bytes, other: &Bytes) -> bool {
    one.get(..33).is_some() && one.get(..33) == other.get(..33)
}

/// Whether the stream goes on on a node.
fn resumes(error: &ClientError) -> bool {
    let ClientError::Rpc(failure) = error else {
        return false;
    };
    let broken = match failure.code {
        RpcCode::Unavailable | RpcCode::Deadline => true,
        // Not a node's word, but the connection's.
        RpcCode::Internal => failure.reason.is_empty(),
        _ => false,
    };
    broken || error.is_retryable()
}
