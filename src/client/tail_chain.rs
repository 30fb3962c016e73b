//! One chain of a tail as the client follows it: what must come next, and the leaves of what came and is not sealed yet.
use crate::{
    chain::{Frontier, Hash, Header, check_meta, tree_root},
    client::{
        ClientError, ReadTransaction, TailEvent, Trusted, convert, query::check_in_history,
        read::leaves,
    },
    proto,
};

/// Bytes of a Quant that are held until it is whole.
const QUANT_BYTES_MAX: usize = 256 << 20;

/// A Quant that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailedQuant {
    /// Its header, which lies in the trusted history.
    pub header: Header,
    /// Its meta.
    pub meta: Vec<u8>,
    /// It is of a tail of Quants, and has its transactions.
    pub whole: bool,
    /// Of a tail of Quants: all that it seals, proved.
    pub transactions: Vec<ReadTransaction>,
}

/// What an answer comes to.
pub(super) enum Told {
    /// Something for the caller.
    Event(TailEvent),
    /// Nothing yet.
    Nothing,
}

/// A chain of a tail.
pub(super) struct Following {
    pub(super) trusted: Trusted,
    /// The token of the last event.
    pub(super) token: bytes::Bytes,
    quants: bool,
    begun: bool,
    next_index: u64,
    next_height: u64,
    /// Where the last Quant ended; none before the first one.
    sealed: Option<u64>,
    /// The first transaction that came.
    began: u64,
    /// Leaf hashes of those that came and are in no Quant yet; the first one is of index `leaves_from`.
    leaves: Vec<Hash>,
    leaves_from: u64,
    pieces: Option<Pieces>,
}

/// A Quant that comes in pieces.
struct Pieces {
    header: Header,
    meta: Vec<u8>,
    given: Vec<proto::Transaction>,
    bytes: usize,
}

impl Following {
    pub(super) fn new(trusted: Trusted, quants: bool) -> Self {
        Self {
            trusted,
            token: bytes::Bytes::new(),
            quants,
            begun: false,
            next_index: 0,
            next_height: 0,
            sealed: None,
            began: 0,
            leaves: Vec::new(),
            leaves_from: 0,
            pieces: None,
        }
    }

    /// The stream broke: a Quant that was not whole comes anew.
    pub(super) fn forget_pieces(&mut self) {
        self.pieces = None;
    }

    /// The first transaction that came, of all streams of this tail.
    pub(super) fn began(&self) -> Option<u64> {
        self.begun.then_some(self.began)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    pub(super) fn begin(
        &mut self,
        begin: proto::TailBegin,
        (index, height): (Option<u64>, Option<u64>),
    ) -> Result<Told, ClientError> {
        let (index, height) = if self.begun {
            (
                Some(self.next_index).filter(|_| !self.quants),
                Some(self.next_height),
            )
        } else {
            (index, height)
        };
        let other = |wanted: Option<u64>, told| wanted.is_some_and(|wanted| wanted != told);
        if other(index, begin.next_index) || other(height, begin.next_height) {
            let why = format!(
                "it begins at transaction {} and Quant {}, not at {} and {}",
                begin.next_index,
                begin.next_height,
                index.map_or("any".to_owned(), |index| index.to_string()),
                height.map_or("any".to_owned(), |height| height.to_string()),
            );
            return Err(self.refuse("tail-gap", &why));
        }
        if self.begun {
            return Ok(Told::Nothing);
        }
        self.begun = true;
        self.next_index = begin.next_index;
        self.next_height = begin.next_height;
        (self.began, self.leaves_from) = (begin.next_index, begin.next_index);
        Ok(Told::Event(TailEvent::Begin {
            next_index: begin.next_index,
            next_height: begin.next_height,
        }))
    }

    pub(super) fn transactions(
        &mut self,
        given: &[proto::Transaction],
    ) -> Result<Told, ClientError> {
        if !self.begun || self.quants || given.is_empty() {
            return Err(self.refuse("tail-gap", "transactions came that should not"));
        }
        for (one, index) in given.iter().zip(self.next_index..) {
            if one.index != index {
                let why = format!("transaction {index} should follow, {} came", one.index);
                return Err(self.refuse("tail-gap", &why));
            }
        }
        self.leaves.extend(leaves(&self.trusted, given)?);
        let read = given
            .iter()
            .map(|one| ReadTransaction::of(&self.trusted, one, None));
        let read = read.collect::<Result<Vec<_>, _>>()?;
        self.next_index += given.len() as u64;
        Ok(Told::Event(TailEvent::Transactions(read)))
    }

    pub(super) fn quant(&mut self, quant: proto::TailQuant) -> Result<Told, ClientError> {
        if quant.quant.is_none() {
            return self.piece(quant.transactions, quant.more);
        }
        let (header, meta) = self.header(&quant)?;
        if self.quants {
            self.pieces = Some(Pieces {
                header,
                meta,
                given: Vec::new(),
                bytes: 0,
            });
            return self.piece(quant.transactions, quant.more);
        }
        let left = convert::path(&quant.left_peaks)?;
        self.check_sealed(&header, left)?;
        self.sealed_by(&header);
        Ok(Told::Event(TailEvent::Quant(Box::new(TailedQuant {
            header,
            meta,
            whole: false,
            transactions: Vec::new(),
        }))))
    }

    /// The header that must come next, in the trusted history.
    fn header(&self, quant: &proto::TailQuant) -> Result<(Header, Vec<u8>), ClientError> {
        let (bytes, meta) = convert::quant_bytes(quant.quant.clone())?;
        let header = Header::parse(&bytes)?;
        if !self.begun || header.height != self.next_height {
            let why = format!(
                "Quant {} should follow, {} came",
                self.next_height, header.height
            );
            return Err(self.refuse("tail-gap", &why));
        }
        if header.height > self.trusted.header.height {
            let why = format!(
                "Quant {} came, and the newest head is at {}",
                header.height, self.trusted.header.height
            );
            return Err(self.refuse("tail-head", &why));
        }
        check_meta(&header, &meta)?;
        check_in_history(&self.trusted, &header, &convert::path(&quant.path)?)?;
        if self.sealed.is_some_and(|sealed| sealed != header.tx_start) {
            let why = format!(
                "Quant {} does not begin where the last one ended",
                header.height
            );
            return Err(self.refuse("tail-gap", &why));
        }
        Ok((header, meta))
    }

    /// That a Quant seals exactly the transactions that came. Of those before the first one the node gave the peaks: they give
    /// the Quant's root only together with the rest.
    fn check_sealed(&mut self, header: &Header, left: Vec<Hash>) -> Result<(), ClientError> {
        let (start, end) = (header.tx_start, header.tx_end());
        let from = self.began.clamp(start, end);
        if self.next_index < end {
            let why = format!(
                "Quant {} seals transactions up to {end}, and they came up to {}",
                header.height, self.next_index
            );
            return Err(self.refuse("tail-gap", &why));
        }
        let alg = self.trusted.alg();
        let count = (end.max(self.leaves_from) - self.leaves_from) as usize;
        let Some(mut tree) = Frontier::from_parts(from - start, left) else {
            return Err(self.refuse("tx-root", "the peaks before the first transaction are none"));
        };
        let sealed = count.min(self.leaves.len());
        let (size, root) = if from == start {
            // Whole trees are hashed eight nodes at a time.
            (sealed as u64, tree_root(alg, &self.leaves[..sealed]))
        } else {
            for leaf in &self.leaves[..sealed] {
                tree.push(alg, *leaf);
            }
            (tree.size(), tree.root(alg))
        };
        self.leaves.drain(..sealed);
        self.leaves_from = self.leaves_from.max(end);
        if size != u64::from(header.tx_count) || root != header.tx_root {
            let why = format!(
                "the transactions that came are not those that Quant {} seals: their tree has another root",
                header.height
            );
            return Err(self.refuse("tx-root", &why));
        }
        Ok(())
    }

    fn sealed_by(&mut self, header: &Header) {
        self.sealed = Some(header.tx_end());
        self.next_height = header.height + 1;
    }

    fn piece(&mut self, given: Vec<proto::Transaction>, more: bool) -> Result<Told, ClientError> {
        let Some(pieces) = &mut self.pieces else {
            return Err(self.refuse("tail-gap", "a piece came of a Quant that did not begin"));
        };
        let start = pieces.header.tx_start + pieces.given.len() as u64;
        let in_order = given
            .iter()
            .zip(start..)
            .all(|(one, index)| one.index == index);
        pieces.bytes += given
            .iter()
            .map(|one| one.payload.len() + 256)
            .sum::<usize>();
        pieces.given.extend(given);
        if !in_order || pieces.given.len() > pieces.header.tx_count as usize {
            return Err(self.refuse("tail-gap", "its transactions do not follow each other"));
        }
        if pieces.bytes > QUANT_BYTES_MAX {
            let why = format!(
                "Quant {} holds more than {QUANT_BYTES_MAX} bytes, which is the limit of a tail of Quants; tail transactions",
                pieces.header.height
            );
            return Err(ClientError::Usage(why));
        }
        if more {
            return Ok(Told::Nothing);
        }
        let Some(Pieces {
            header,
            meta,
            given,
            ..
        }) = self.pieces.take()
        else {
            return Ok(Told::Nothing);
        };
        self.whole(header, meta, &given).map(Told::Event)
    }

    fn whole(
        &mut self,
        header: Header,
        meta: Vec<u8>,
        given: &[proto::Transaction],
    ) -> Result<TailEvent, ClientError> {
        (self.began, self.leaves_from) = (header.tx_start, header.tx_start);
        self.leaves = leaves(&self.trusted, given)?;
        self.next_index = header.tx_start + given.len() as u64;
        self.check_sealed(&header, Vec::new())?;
        let height = Some(header.height);
        let read = given
            .iter()
            .map(|one| ReadTransaction::of(&self.trusted, one, height));
        let transactions = read.collect::<Result<Vec<_>, _>>()?;
        self.sealed_by(&header);
        Ok(TailEvent::Quant(Box::new(TailedQuant {
            header,
            meta,
            whole: true,
            transactions,
        })))
    }

    pub(super) fn heartbeat(&self, beat: &proto::TailHeartbeat) -> Result<Told, ClientError> {
        if !self.begun {
            return Err(self.refuse("tail-gap", "a heartbeat came before the begin"));
        }
        Ok(Told::Event(TailEvent::Heartbeat {
            next_index: beat.next_index,
            height: beat.height,
        }))
    }

    /// The subchains' names by the node's word; each is checked when it comes.
    pub(super) fn split(&self, split: &proto::TailSplit) -> Result<Told, ClientError> {
        let below = format!("{}/", self.trusted.name());
        if !split
            .subchains
            .iter()
            .all(|one| one.name.starts_with(&below))
        {
            return Err(self.refuse("chain-name", "a subchain came that is none of this chain"));
        }
        let names = split.subchains.iter().map(|one| one.name.clone());
        Ok(Told::Event(TailEvent::Split {
            height: split.height,
            subchains: names.collect(),
        }))
    }

    fn refuse(&self, check: &'static str, why: &str) -> ClientError {
        ClientError::refused(check, format!("the tail of {}: {why}", self.trusted.name()))
    }
}
