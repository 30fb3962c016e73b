//! Verified reads: whole Quants are recomputed, single transactions proved; the pool is passed on as unproved.
use bytes::Bytes;
use tonic::Streaming;

use crate::{
    chain::{
        Credit, Hash, HashAlg, Header, Refused, TYPE_CREDIT, TYPE_TRANSFER, Transfer, tree_root,
    },
    client::{
        Client, ClientError, Erased, RpcCode, Trusted, author, convert, erase, error::not_denied,
    },
    proto,
};

/// A Quant is fetched whole if at least one in this many of its transactions is wanted; else each is proved alone.
const WHOLE_QUANT_SHARE: u64 = 32;

/// A Quant of more transactions is not held in memory: it is fetched once for its hashes, and again for its content.
const HELD_TRANSACTIONS_MAX: u32 = 65_536;

/// A transaction as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadTransaction {
    /// Its index.
    pub index: u64,
    /// The Quant that seals it; none in the pool.
    pub height: Option<u64>,
    /// True if it was proved into the trusted head.
    pub proven: bool,
    /// When it was injected, Unix milliseconds.
    pub inject_ms: u64,
    /// The envelope's type: 0 is client data.
    pub kind: u8,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its id.
    pub id: Option<Vec<u8>>,
    /// The public key of its author, whose signature was checked.
    pub author: Option<[u8; 32]>,
    /// Its content; empty where it is erased.
    pub payload: Bytes,
    /// Who erased the content, and why.
    pub erased: Option<Erased>,
}

impl ReadTransaction {
    /// What it moves: of a transfer, and of a credit the transfer that another subchain debited.
    pub fn transfer(&self) -> Option<Transfer> {
        match self.kind {
            TYPE_TRANSFER => Transfer::parse(&self.payload).ok(),
            TYPE_CREDIT => {
                let credit = Credit::parse(&self.payload).ok()?;
                Transfer::parse(&credit.debit.payload).ok()
            }
            _ => None,
        }
    }
}

/// Transactions of a chain in order, in batches that are verified before they are given out.
pub struct Reader<'a> {
    client: &'a Client,
    trusted: &'a Trusted,
    from: u64,
    next: u64,
    end: u64,
    /// The Quant that was read last, verified.
    quant: Option<Header>,
    pool: Option<Streaming<proto::ReadResponse>>,
    large: Option<Large>,
    pub(super) held_max: u32,
}

/// A Quant too large to hold, on its second way here.
struct Large {
    start: u64,
    /// Of all its transactions; they give its tx_root.
    leaves: Vec<Hash>,
    stream: Streaming<proto::ReadResponse>,
}

impl Client {
    /// One transaction: proved if it is sealed, else as the pool has it.
    pub async fn transaction(
        &self,
        trusted: &Trusted,
        index: u64,
    ) -> Result<ReadTransaction, ClientError> {
        if index < trusted.sealed() {
            return self.proven_transaction(trusted, index).await;
        }
        let given = self.raw_transaction(trusted, index).await?;
        Ok(ReadTransaction::of(trusted, &given, None)?)
    }

    /// Up to `limit` transactions from `from` on (none: all that there are).
    pub fn read<'a>(&'a self, trusted: &'a Trusted, from: u64, limit: Option<u64>) -> Reader<'a> {
        Reader {
            client: self,
            trusted,
            from,
            next: from,
            end: limit.map_or(u64::MAX, |limit| from.saturating_add(limit)),
            quant: None,
            pool: None,
            large: None,
            held_max: HELD_TRANSACTIONS_MAX,
        }
    }

    /// The node's stream of transactions, nothing verified.
    pub(super) async fn read_stream(
        &self,
        name: &str,
        from_index: u64,
        limit: u64,
    ) -> Result<Streaming<proto::ReadResponse>, ClientError> {
        let request = proto::ReadRequest {
            any_replica: false,
            follow: false,
            chain: name.to_owned(),
            from_index,
            limit,
        };
        let mut chains = self.chains.clone();
        let answer = self.in_time(chains.read(request)).await?;
        Ok(answer.into_inner())
    }

    /// The same, of transactions that the trusted head seals.
    pub(super) async fn sealed_stream(
        &self,
        trusted: &Trusted,
        from_index: u64,
        limit: u64,
    ) -> Result<Streaming<proto::ReadResponse>, ClientError> {
        let stream = self.read_stream(trusted.name(), from_index, limit).await;
        stream.map_err(|error| not_denied(error, true, "transaction", from_index))
    }

    pub(super) async fn raw_transaction(
        &self,
        trusted: &Trusted,
        index: u64,
    ) -> Result<proto::Transaction, ClientError> {
        let request = proto::GetTransactionRequest {
            any_replica: false,
            chain: trusted.name().to_owned(),
            index,
        };
        let get = |r| async { self.chains.clone().get_transaction(r).await };
        let sealed = index < trusted.sealed();
        let answer = self.call(request, get).await;
        let answer = answer.map_err(|error| not_denied(error, sealed, "transaction", index))?;
        let given = answer.transaction;
        let given =
            given.ok_or_else(|| convert::bad("the transaction is missing in the answer"))?;
        check_index(&given, index)?;
        Ok(given)
    }
}

/// A stretch of received transactions, in order; of one Quant, or of the pool.
struct Stretch {
    given: Vec<proto::Transaction>,
    height: Option<u64>,
}

impl Reader<'_> {
    /// The next transactions, in order and without a gap; none at the end.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<ReadTransaction>>, ClientError> {
        if self.next >= self.end {
            return Ok(None);
        }
        if let Some(wanted) = self.few_wanted().await? {
            return self.proved_one_by_one(wanted).await.map(Some);
        }
        let stretch = self.stretch().await?;
        let read = stretch
            .given
            .iter()
            .map(|given| ReadTransaction::of(self.trusted, given, stretch.height));
        let batch = read.collect::<Result<Vec<_>, _>>()?;
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// The same as the node sent them, verified too.
    pub(super) async fn next_raw_batch(&mut self) -> Result<Vec<proto::Transaction>, ClientError> {
        Ok(self.stretch().await?.given)
    }

    /// How many are wanted of the next Quant, where these are so few that each is better proved alone.
    async fn few_wanted(&mut self) -> Result<Option<u64>, ClientError> {
        if self.next >= self.trusted.sealed() {
            return Ok(None);
        }
        if self.end - self.next == 1 {
            return Ok(Some(1));
        }
        let header = self.quant_of_next().await?;
        let wanted = self.end.min(header.tx_end()) - self.next;
        let few = wanted.saturating_mul(WHOLE_QUANT_SHARE) < u64::from(header.tx_count);
        Ok(few.then_some(wanted))
    }

    /// Read from a stream, and anew where that one breaks: nothing of the stretch was given out yet.
    async fn stretch(&mut self) -> Result<Stretch, ClientError> {
        let client = self.client;
        let stretch = client
            .repeated(async |_| {
                let stretch = self.received().await;
                if stretch.is_err() {
                    (self.pool, self.large) = (None, None);
                }
                stretch
            })
            .await?;
        self.next += stretch.given.len() as u64;
        Ok(stretch)
    }

    async fn received(&mut self) -> Result<Stretch, ClientError> {
        if self.next < self.trusted.sealed() {
            return self.sealed_stretch().await;
        }
        Ok(Stretch {
            given: self.pool_page().await?,
            height: None,
        })
    }

    async fn sealed_stretch(&mut self) -> Result<Stretch, ClientError> {
        let header = self.quant_of_next().await?;
        if header.tx_count > self.held_max {
            return self.large_stretch(&header).await;
        }
        let mut given = self
            .fetch(header.tx_start, u64::from(header.tx_count))
            .await?;
        check_root(self.trusted, &header, &leaves(self.trusted, &given)?)?;
        given.truncate((self.end.min(header.tx_end()) - header.tx_start) as usize);
        given.drain(..(self.next - header.tx_start) as usize);
        Ok(Stretch {
            given,
            height: Some(header.height),
        })
    }

    async fn large_stretch(&mut self, header: &Header) -> Result<Stretch, ClientError> {
        let begun = self.large.take();
        let mut large = match begun.filter(|large| large.start == header.tx_start) {
            Some(large) => large,
            None => self.begin_large(header).await?,
        };
        let page = self.client.in_time(large.stream.message()).await?;
        let given = convert::transactions(page.unwrap_or_default().run)?;
        let sealed = &large.leaves[(self.next - large.start) as usize..];
        for (given, index) in given.iter().zip(self.next..) {
            check_index(given, index)?;
        }
        let leaves = leaves(self.trusted, &given)?;
        if given.is_empty() || !sealed.starts_with(&leaves) {
            return Err(other_root(header).into());
        }
        self.large = Some(large);
        Ok(Stretch {
            given,
            height: Some(header.height),
        })
    }

    /// The first way: hashes only.
    async fn begin_large(&self, header: &Header) -> Result<Large, ClientError> {
        let (start, count) = (header.tx_start, u64::from(header.tx_count));
        let (client, trusted) = (self.client, self.trusted);
        let mut stream = client.sealed_stream(trusted, start, count).await?;
        let mut all = Vec::with_capacity(header.tx_count as usize);
        while let Some(page) = self.client.in_time(stream.message()).await? {
            let given = convert::transactions(page.run)?;
            for (given, index) in given.iter().zip(start + all.len() as u64..) {
                check_index(given, index)?;
            }
            all.extend(leaves(self.trusted, &given)?);
        }
        check_root(self.trusted, header, &all)?;
        let wanted = self.end.min(header.tx_end()) - self.next;
        Ok(Large {
            start,
            leaves: all,
            stream: client.sealed_stream(trusted, self.next, wanted).await?,
        })
    }

    /// The verified header of the Quant that seals transaction `next`.
    async fn quant_of_next(&mut self) -> Result<Header, ClientError> {
        if let Some(header) = self.quant.take_if(|header| header.tx_end() > self.next) {
            return Ok(self.quant.insert(header).clone());
        }
        let known = self.quant.as_ref().map(|header| header.height + 1);
        let mut height = match known {
            Some(height) => height,
            None => self.height_of_next().await?,
        };
        loop {
            if height > self.trusted.header.height {
                return Err(self.gap("no Quant of the trusted history seals it"));
            }
            let (header, _) = self.client.quant(self.trusted, height).await?;
            if header.tx_start <= self.next && self.next < header.tx_end() {
                return Ok(self.quant.insert(header).clone());
            }
            // Quants without transactions may stand between.
            if known.is_none() || header.tx_end() != self.next {
                return Err(self.gap("the Quant that should seal it does not"));
            }
            height += 1;
        }
    }

    /// The node's hint where `next` is; the header shows whether it is true.
    async fn height_of_next(&self) -> Result<u64, ClientError> {
        let given = self.client.raw_transaction(self.trusted, self.next).await?;
        let unsealed = "the node says that it is in the pool, the trusted head that it is sealed";
        given.height.ok_or_else(|| self.gap(unsealed))
    }

    async fn proved_one_by_one(
        &mut self,
        wanted: u64,
    ) -> Result<Vec<ReadTransaction>, ClientError> {
        let mut batch = Vec::with_capacity(wanted as usize);
        for index in self.next..self.next + wanted {
            batch.push(self.client.proven_transaction(self.trusted, index).await?);
        }
        self.next += wanted;
        Ok(batch)
    }

    /// Exactly the transactions `from .. from + count`.
    async fn fetch(&self, from: u64, count: u64) -> Result<Vec<proto::Transaction>, ClientError> {
        let mut stream = self.client.sealed_stream(self.trusted, from, count).await?;
        let mut all: Vec<proto::Transaction> = Vec::new();
        while let Some(page) = self.client.in_time(stream.message()).await? {
            for given in convert::transactions(page.run)? {
                check_index(&given, from + all.len() as u64)?;
                all.push(given);
            }
        }
        if all.len() as u64 == count {
            return Ok(all);
        }
        let why = format!(
            "asked for {count} transactions from {from} on, got {}",
            all.len()
        );
        Err(ClientError::refused("read-gap", why))
    }

    /// The next page of the pool; empty at its end.
    async fn pool_page(&mut self) -> Result<Vec<proto::Transaction>, ClientError> {
        match self.pool_answer().await {
            Ok(Some(page)) => self.check_pool_page(convert::transactions(page.run)?),
            Ok(None) => Ok(Vec::new()),
            // Right after the sealed transactions, "nothing there" says only that the pool is empty.
            Err(error) if self.may_end_here() && is_end(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn may_end_here(&self) -> bool {
        self.next == self.trusted.sealed() || self.next > self.from
    }

    async fn pool_answer(&mut self) -> Result<Option<proto::ReadResponse>, ClientError> {
        let stream = match &mut self.pool {
            Some(stream) => stream,
            none => {
                let limit = if self.end == u64::MAX {
                    0
                } else {
                    self.end - self.next
                };
                let name = self.trusted.name();
                none.insert(self.client.read_stream(name, self.next, limit).await?)
            }
        };
        self.client.in_time(stream.message()).await
    }

    fn check_pool_page(
        &self,
        mut given: Vec<proto::Transaction>,
    ) -> Result<Vec<proto::Transaction>, ClientError> {
        given.truncate(usize::try_from(self.end - self.next).unwrap_or(usize::MAX));
        for (given, index) in given.iter().zip(self.next..) {
            check_index(given, index)?;
        }
        Ok(given)
    }

    fn gap(&self, why: &str) -> ClientError {
        ClientError::refused("read-gap", format!("transaction {}: {why}", self.next))
    }
}

impl ReadTransaction {
    /// What a received transaction says, by its hashed bytes only; a signature on it holds.
    pub(super) fn of(
        trusted: &Trusted,
        given: &proto::Transaction,
        height: Option<u64>,
    ) -> Result<Self, Refused> {
        let attributes = convert::attributes(&given.attributes)?;
        author::check(trusted, given, &attributes)?;
        let erased = given.erasure.as_ref().map(|erasure| {
            let envelope =
                convert::envelope(trusted.alg(), trusted.owner_of(given.index).0, given)?;
            erase::check(trusted, given.index, &envelope.to_bytes(), erasure)
        });
        Ok(Self {
            index: given.index,
            height,
            proven: height.is_some(),
            inject_ms: given.inject_ms,
            kind: convert::kind(given)?,
            key: attributes.key,
            id: attributes.id,
            author: attributes.author,
            payload: given.payload.clone(),
            erased: erased.transpose()?,
        })
    }
}

/// That the node knows nothing at an index because the chain ends before it.
fn is_end(error: &ClientError) -> bool {
    matches!(error, ClientError::Rpc(failure) if failure.code == RpcCode::NotFound)
}

fn check_index(given: &proto::Transaction, index: u64) -> Result<(), Refused> {
    if given.index == index {
        return Ok(());
    }
    let why = format!("transaction {index} should follow, {} came", given.index);
    Err(Refused::new("read-gap", why))
}

/// That the transactions with these leaf hashes are those that a Quant seals.
fn check_root(trusted: &Trusted, header: &Header, leaves: &[Hash]) -> Result<(), Refused> {
    if leaves.len() as u64 == u64::from(header.tx_count)
        && tree_root(trusted.alg(), leaves) == header.tx_root
    {
        return Ok(());
    }
    Err(other_root(header))
}

fn other_root(header: &Header) -> Refused {
    let why = format!(
        "the transactions given for Quant {} are not the sealed ones: their tree has another root",
        header.height
    );
    Refused::new("tx-root", why)
}

/// Leaf hashes of received transactions, as the trusted chain would have them.
pub(super) fn leaves(
    trusted: &Trusted,
    given: &[proto::Transaction],
) -> Result<Vec<Hash>, Refused> {
    let alg = trusted.alg();
    let hashes = payload_hashes(alg, given)?;
    let envelopes = given.iter().zip(hashes).map(|(given, payload_hash)| {
        let envelope =
            convert::envelope_with(alg, trusted.owner_of(given.index).0, given, payload_hash);
        envelope.map(|envelope| envelope.to_bytes())
    });
    let envelopes = envelopes.collect::<Result<Vec<_>, _>>()?;
    let datas: Vec<&[u8]> = envelopes.iter().map(<[u8; 128]>::as_slice).collect();
    Ok(alg.leaf_each(&datas))
}

fn payload_hashes(alg: HashAlg, given: &[proto::Transaction]) -> Result<Vec<Hash>, Refused> {
    let plain = |given: &proto::Transaction| given.salt.is_empty() && given.erasure.is_none();
    if given.iter().all(plain) {
        let payloads: Vec<&[u8]> = given.iter().map(|given| given.payload.as_ref()).collect();
        return Ok(alg.hash_each(&payloads));
    }
    let hashed = given.iter();
    hashed
        .map(|given| convert::hash_of_payload(alg, given))
        .collect()
}
