//! The reference: chains as vectors in memory. It decides each command by the rules of the documents alone and makes
//! its own headers, so the engine's are compared with bytes that it did not make.

use std::collections::{BTreeMap, BTreeSet};

use qbc::chain::{
    Attributes, Authority, Birth, ChainId, ChainName, Constitution, Envelope, Frontier, Hash,
    HashAlg, Header, Meta, SigningKey, attributes_hash, genesis_header, payload_hash, state_root,
    tree_root,
};
use qbc::engine::{Banged, Injected, Outcome, REQUEST_KEPT_MS, Rejection, Sealed};
use qbc::store::{ChainNo, PoolRow, RequestRun, TxRow};

/// The node that seals.
pub const NODE: u64 = 7;

/// What a bang asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BangAsk {
    pub request_id: Vec<u8>,
    pub alg: HashAlg,
    pub constitution: Constitution,
}

/// One transaction to inject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub kind: u8,
    pub id: Vec<u8>,
    pub key: Option<Vec<u8>>,
    pub salt: Option<[u8; 32]>,
    pub payload: Vec<u8>,
}

/// What an inject asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectAsk {
    pub request_id: Vec<u8>,
    pub expected_next_index: Option<u64>,
    pub expected_head: Option<Hash>,
    pub items: Vec<Item>,
}

/// A seal as proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealAsk {
    pub request_id: Vec<u8>,
    pub body: Hash,
    pub header: Header,
    pub meta: Vec<u8>,
}

/// What a request_id stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Bang(HashAlg, Box<Constitution>),
    Inject(Option<u64>, Option<Hash>, Vec<Item>),
    Seal(Hash),
}

#[derive(Clone, Debug)]
struct Answered {
    time_ms: u64,
    asked: Asked,
    runs: Vec<RequestRun>,
}

/// A stored transaction.
#[derive(Clone, Debug)]
pub struct Tx {
    pub item: Item,
    pub inject_ms: u64,
}

/// What one entry added to a pool.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: u64,
    inject_ms: u64,
    bytes_before: u64,
}

/// One chain.
#[derive(Clone, Debug)]
pub struct Chain {
    pub no: ChainNo,
    pub alg: HashAlg,
    pub constitution: Constitution,
    pub headers: Vec<Header>,
    pub metas: Vec<Vec<u8>>,
    pub txs: Vec<Tx>,
    /// Leaf hashes of `txs`.
    pub leaves: Vec<Hash>,
    pub sealed_bytes: u64,
    pub first_ms: u64,
    bytes: u64,
    last_inject_ms: u64,
    ids: BTreeMap<Vec<u8>, u64>,
    parts: Vec<Part>,
    /// Where what this entry added begins.
    open: Option<Part>,
    history: Frontier,
}

/// All chains of a group.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub chains: Vec<Chain>,
    requests: BTreeMap<(u64, Vec<u8>), Answered>,
    times: BTreeSet<(u64, u64, Vec<u8>)>,
}

impl Item {
    pub fn attributes(&self) -> Vec<u8> {
        Attributes {
            id: (!self.id.is_empty()).then(|| self.id.clone()),
            key: self.key.clone(),
            ..Attributes::default()
        }
        .to_bytes()
    }
}

impl Tx {
    /// The stored bytes.
    pub fn row(&self, alg: HashAlg) -> Vec<u8> {
        TxRow {
            erased: None,
            kind: self.item.kind,
            inject_ms: self.inject_ms,
            payload_hash: payload_hash(alg, &self.item.payload, self.item.salt.as_ref()),
            attributes: &self.item.attributes(),
            salt: self.item.salt.as_ref(),
            payload: &self.item.payload,
        }
        .encode()
    }

    fn leaf(&self, alg: HashAlg, chain_id: ChainId, index: u64) -> Hash {
        Envelope {
            kind: self.item.kind,
            salted: self.item.salt.is_some(),
            chain_id,
            index,
            inject_ms: self.inject_ms,
            payload_len: self.item.payload.len() as u64,
            payload_hash: payload_hash(alg, &self.item.payload, self.item.salt.as_ref()),
            attributes_hash: attributes_hash(alg, &self.item.attributes()),
        }
        .leaf(alg)
    }
}

impl Chain {
    pub fn id(&self) -> ChainId {
        self.headers[0].id()
    }

    pub fn head(&self) -> &Header {
        self.headers.last().expect("a chain has a genesis")
    }

    pub fn name(&self) -> &str {
        &self.constitution.name
    }

    pub fn pooled(&self) -> u64 {
        self.txs.len() as u64 - self.head().tx_end()
    }

    pub fn pool_row(&self) -> PoolRow {
        PoolRow {
            next_index: self.txs.len() as u64,
            last_inject_ms: self.last_inject_ms,
            bytes: self.bytes,
            first_ms: self.first_ms,
            changes: 0,
        }
    }

    /// Over the heights below the head's.
    pub fn history_below_head(&self) -> Frontier {
        let mut history = Frontier::new();
        let below = &self.headers[..self.headers.len() - 1];
        for header in below {
            history.push(self.alg, header.hash());
        }
        history
    }

    /// Where the pool may be cut: the ends of what each entry added.
    pub fn cuts(&self) -> Vec<u64> {
        let mut cuts: Vec<u64> = self.parts.iter().skip(1).map(|part| part.first).collect();
        cuts.push(self.txs.len() as u64);
        cuts
    }

    /// The latest transaction of each key before `end`.
    pub fn latest(&self, end: u64) -> BTreeMap<Vec<u8>, u64> {
        let keys = self.txs[..end as usize].iter().zip(0..);
        keys.filter_map(|(tx, index)| Some((tx.item.key.clone()?, index)))
            .collect()
    }

    fn state_root(&self, end: u64) -> Option<(u8, Hash)> {
        let entry = |(key, index): (Vec<u8>, u64)| {
            let hash = self.alg.hash(&[&[1], &key]);
            (hash, index.to_be_bytes())
        };
        let entries: BTreeMap<Hash, [u8; 8]> = self.latest(end).into_iter().map(entry).collect();
        let root = state_root(self.alg, &entries);
        self.constitution.keyed.then_some((self.alg as u8, root))
    }

    /// The next header over the pool up to `end`.
    pub fn next_header(&self, end: u64, time_ms: u64, note: &[u8], is_final: bool) -> SealAsk {
        let head = self.head();
        let meta = Meta {
            sealing_node: Some(NODE),
            state_root: self.state_root(end),
            note: (!note.is_empty()).then(|| note.to_vec()),
            ..Meta::default()
        }
        .to_bytes();
        let mut history = self.history.clone();
        history.push(self.alg, head.hash());
        let header = Header {
            hash_alg: self.alg,
            genesis: false,
            fork_genesis: false,
            is_final,
            pow_bits: self.next_bits(),
            chain_id: self.id(),
            height: head.height + 1,
            time_ms: time_ms.max(head.time_ms).max(self.last_inject_ms),
            tx_start: head.tx_end(),
            tx_count: (end - head.tx_end()) as u32,
            meta_len: meta.len() as u32,
            anchor_count: 0,
            prev_hash: head.hash(),
            tx_root: tree_root(self.alg, &self.leaves[head.tx_end() as usize..end as usize]),
            hist_root: history.root(self.alg),
            anchors_root: self.alg.empty(),
            meta_hash: self.alg.hash(&[&meta]),
            nonce: 0,
        };
        let header = mined(&header);
        SealAsk {
            request_id: Vec::new(),
            body: [0; 32],
            header,
            meta,
        }
    }

    /// The bits that the next header needs: the rule of docs/FORMAT.md, from the first window on.
    pub fn next_bits(&self) -> u16 {
        let Some(work) = self.constitution.work else {
            return 0;
        };
        let minimum = i64::from(work.bits_min);
        let (mut bits, expected) = (minimum, 8 * u128::from(work.target_ms));
        for end in (8..self.headers.len()).step_by(8) {
            let span = u128::from(self.headers[end].time_ms - self.headers[end - 8].time_ms);
            bits += match () {
                () if expected == 0 => 0,
                () if 3 * span <= expected => 2,
                () if 3 * span <= 2 * expected => 1,
                () if span >= 3 * expected => -2,
                () if 2 * span >= 3 * expected => -1,
                () => 0,
            };
            bits = bits.min(255).max(minimum);
        }
        bits as u16
    }

    /// When the chain must be sealed without being asked.
    pub fn due_ms(&self) -> Vec<u64> {
        let rules = &self.constitution;
        let pooled_bytes = self.bytes - self.sealed_bytes;
        let full = rules
            .leap_count
            .is_some_and(|count| self.pooled() >= u64::from(count))
            || rules.leap_bytes.is_some_and(|bytes| pooled_bytes >= bytes);
        let mut due = Vec::new();
        if self.pooled() > 0 {
            due.extend(full.then_some(0));
            due.extend(rules.leap_ms.map(|after| self.first_ms + after));
        }
        due
    }

    /// A transaction's bytes are the same again.
    fn same(&self, index: u64, item: &Item) -> bool {
        self.txs[index as usize].item == *item
    }
}

impl Model {
    pub fn chain(&self, no: ChainNo) -> Option<&Chain> {
        self.chains.get((no.0 as usize).checked_sub(1)?)
    }

    fn chain_mut(&mut self, no: ChainNo) -> Option<&mut Chain> {
        self.chains.get_mut((no.0 as usize).checked_sub(1)?)
    }

    /// Pools that are due, the longest due first, neighbours once.
    pub fn due(&self, now_ms: u64) -> Vec<ChainNo> {
        let each = self.chains.iter();
        let mut due: Vec<(u64, ChainNo)> = each
            .flat_map(|chain| chain.due_ms().into_iter().map(|due| (due, chain.no)))
            .filter(|(due, _)| *due <= now_ms)
            .collect();
        due.sort_unstable();
        let mut due: Vec<ChainNo> = due.into_iter().map(|(_, no)| no).collect();
        due.dedup();
        due
    }

    /// What stands at the end of every entry: the pools have their leaves, old requests are forgotten.
    pub fn end_entry(&mut self, time_ms: u64) {
        self.close_parts();
        let Some(before) = time_ms.checked_sub(REQUEST_KEPT_MS) else {
            return;
        };
        let old = self.times.iter().take_while(|(time, ..)| *time < before);
        for key in old.take(64).cloned().collect::<Vec<_>>() {
            self.times.remove(&key);
            self.requests.remove(&(key.1, key.2));
        }
    }

    fn close_parts(&mut self) {
        for chain in &mut self.chains {
            chain.parts.extend(chain.open.take());
        }
    }

    pub fn bang(&mut self, time_ms: u64, ask: &BangAsk) -> Outcome {
        if let Err(error) = ChainName::parse(&ask.constitution.name) {
            return Outcome::Banged(Err(Rejection::BadGenesis(error.to_string())));
        }
        let asked = Constitution {
            created_ms: 0,
            salt: [0; 16],
            ..ask.constitution.clone()
        };
        let asked = Asked::Bang(ask.alg, Box::new(asked));
        Outcome::Banged(match self.seen(ChainNo(0), &ask.request_id, &asked) {
            Some(Err(rejection)) => Err(rejection),
            Some(Ok(answered)) => {
                let chain = ChainNo(answered.runs[0].first);
                let chain_id = self.chain(chain).expect("it was banged").id();
                Ok(Banged {
                    chain,
                    chain_id,
                    duplicate: true,
                })
            }
            None => self.make(time_ms, ask, asked),
        })
    }

    fn make(&mut self, time_ms: u64, ask: &BangAsk, asked: Asked) -> Result<Banged, Rejection> {
        let name = &ask.constitution.name;
        if let Some(taken) = self.chains.iter().find(|chain| chain.name() == name) {
            return Err(Rejection::NameTaken {
                name: name.clone(),
                chain_id: taken.id(),
                same: taken.constitution.same_rules(&ask.constitution),
            });
        }
        let chain = new_chain(ChainNo(self.chains.len() as u64 + 1), ask);
        let banged = Banged {
            chain: chain.no,
            chain_id: chain.id(),
            duplicate: false,
        };
        let run = RequestRun {
            first: chain.no.0,
            count: 1,
            duplicate: false,
        };
        self.chains.push(chain);
        self.remember(time_ms, ChainNo(0), &ask.request_id, asked, vec![run]);
        Ok(banged)
    }

    pub fn inject(&mut self, time_ms: u64, no: ChainNo, ask: &InjectAsk) -> Outcome {
        if self.chain(no).is_none() {
            return Outcome::Injected(Err(Rejection::UnknownChain(no.0)));
        }
        let asked = Asked::Inject(
            ask.expected_next_index,
            ask.expected_head,
            ask.items.clone(),
        );
        match self.seen(no, &ask.request_id, &asked) {
            Some(Err(rejection)) => return Outcome::Injected(Err(rejection)),
            Some(Ok(answered)) => {
                let again = |run: &RequestRun| RequestRun {
                    duplicate: true,
                    ..*run
                };
                let runs = answered.runs.iter().map(again).collect();
                return Outcome::Injected(Ok(Injected { runs, inject_ms: 0 }));
            }
            None => {}
        }
        let chain = self.chain_mut(no).expect("it is there");
        let injected = chain.add(time_ms, ask);
        if let Ok(injected) = &injected {
            self.remember(time_ms, no, &ask.request_id, asked, injected.runs.clone());
        }
        Outcome::Injected(injected)
    }

    pub fn seal(&mut self, time_ms: u64, no: ChainNo, ask: &SealAsk) -> Outcome {
        self.close_parts();
        let asked = Asked::Seal(ask.body);
        let seen = self.seen(no, &ask.request_id, &asked);
        let Some(chain) = self.chain_mut(no) else {
            return Outcome::Sealed(Err(Rejection::UnknownChain(no.0)));
        };
        let sealed = match seen {
            Some(Err(rejection)) => Err(rejection),
            Some(Ok(answered)) => {
                let header = chain.headers[answered.runs[0].first as usize].clone();
                Ok(sealed(header, true))
            }
            None => chain.seal(ask).inspect(|sealed| {
                let first = sealed.header.height;
                let run = RequestRun {
                    first,
                    count: 1,
                    duplicate: false,
                };
                self.remember(time_ms, no, &ask.request_id, asked, vec![run]);
            }),
        };
        Outcome::Sealed(sealed)
    }

    fn seen(
        &self,
        no: ChainNo,
        request_id: &[u8],
        asked: &Asked,
    ) -> Option<Result<Answered, Rejection>> {
        let answered = self.requests.get(&(no.0, request_id.to_vec()))?;
        Some(if answered.asked == *asked {
            Ok(answered.clone())
        } else {
            Err(Rejection::RequestReused)
        })
    }

    fn remember(
        &mut self,
        time_ms: u64,
        no: ChainNo,
        request_id: &[u8],
        asked: Asked,
        runs: Vec<RequestRun>,
    ) {
        if request_id.is_empty() {
            return;
        }
        let answered = Answered {
            time_ms,
            asked,
            runs,
        };
        self.times
            .insert((answered.time_ms, no.0, request_id.to_vec()));
        self.requests.insert((no.0, request_id.to_vec()), answered);
    }
}

impl Chain {
    fn add(&mut self, time_ms: u64, ask: &InjectAsk) -> Result<Injected, Rejection> {
        let places = self.places(&ask.items)?;
        if places.iter().any(Option::is_none) {
            self.allowed(ask)?;
        }
        let inject_ms = time_ms.max(self.last_inject_ms);
        let mut runs: Vec<RequestRun> = Vec::new();
        for (item, place) in ask.items.iter().zip(&places) {
            let index = place.unwrap_or(self.txs.len() as u64);
            if place.is_none() {
                self.push(item, inject_ms);
            }
            match runs.last_mut() {
                Some(run)
                    if run.duplicate == place.is_some()
                        && run.first + u64::from(run.count) == index =>
                {
                    run.count += 1;
                }
                _ => runs.push(RequestRun {
                    first: index,
                    count: 1,
                    duplicate: place.is_some(),
                }),
            }
        }
        Ok(Injected { runs, inject_ms })
    }

    /// Where each item stands already, by its id.
    fn places(&self, items: &[Item]) -> Result<Vec<Option<u64>>, Rejection> {
        let mut own: BTreeMap<&[u8], (&Item, u64)> = BTreeMap::new();
        let mut next = self.txs.len() as u64;
        let mut places = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let known = match own.get(item.id.as_slice()) {
                Some((first, index)) => Some((*index, *first == item)),
                None => self
                    .ids
                    .get(&item.id)
                    .map(|index| (*index, self.same(*index, item))),
            };
            match known {
                Some((index, false)) => {
                    return Err(Rejection::IdReused {
                        item: number,
                        index,
                    });
                }
                Some((index, true)) => places.push(Some(index)),
                None => {
                    if !item.id.is_empty() {
                        own.insert(&item.id, (item, next));
                    }
                    next += 1;
                    places.push(None);
                }
            }
        }
        Ok(places)
    }

    fn allowed(&self, ask: &InjectAsk) -> Result<(), Rejection> {
        let (next, head) = (self.txs.len() as u64, self.head());
        if head.is_final {
            return Err(Rejection::Closed(self.name().to_owned()));
        }
        if let Some(expected) = ask.expected_next_index.filter(|index| *index != next) {
            return Err(Rejection::IndexConflict {
                expected,
                actual: next,
            });
        }
        if let Some(expected) = ask.expected_head.filter(|hash| *hash != head.hash()) {
            return Err(Rejection::HeadConflict {
                expected,
                actual: head.hash(),
                height: head.height,
            });
        }
        Ok(())
    }

    fn push(&mut self, item: &Item, inject_ms: u64) {
        let index = self.txs.len() as u64;
        if self.pooled() == 0 {
            self.first_ms = inject_ms;
        }
        let bytes_before = self.bytes;
        self.open.get_or_insert(Part {
            first: index,
            inject_ms,
            bytes_before,
        });
        let tx = Tx {
            item: item.clone(),
            inject_ms,
        };
        self.leaves.push(tx.leaf(self.alg, self.id(), index));
        self.txs.push(tx);
        self.bytes += item.payload.len() as u64;
        self.last_inject_ms = inject_ms;
        if !item.id.is_empty() {
            self.ids.insert(item.id.clone(), index);
        }
    }

    fn seal(&mut self, ask: &SealAsk) -> Result<Sealed, Rejection> {
        let (head, header) = (self.head(), &ask.header);
        if head.is_final {
            return Err(Rejection::Closed(self.name().to_owned()));
        }
        if header.height != head.height + 1 {
            return Err(Rejection::HeadMoved {
                expected: header.height - 1,
                actual: head.height,
            });
        }
        if header.tx_count == 0 && !header.is_final {
            return Err(Rejection::NothingToSeal(self.name().to_owned()));
        }
        if header.is_final && header.tx_end() < self.txs.len() as u64 {
            return Err(Rejection::PoolGrew {
                sealed: header.tx_end(),
                next: self.txs.len() as u64,
            });
        }
        self.history.push(self.alg, head.hash());
        self.parts.retain(|part| part.first >= header.tx_end());
        let rest = self.parts.first();
        self.sealed_bytes = rest.map_or(self.bytes, |part| part.bytes_before);
        self.first_ms = rest.map_or(0, |part| part.inject_ms);
        self.headers.push(header.clone());
        self.metas.push(ask.meta.clone());
        Ok(sealed(header.clone(), false))
    }
}

/// The header with the first nonce that gives it its bits, one by one.
pub fn mined(header: &Header) -> Header {
    let mut header = Header {
        nonce: 0,
        ..header.clone()
    };
    while header.zero_bits() < u32::from(header.pow_bits) {
        header.nonce += 1;
    }
    header
}

fn sealed(header: Header, duplicate: bool) -> Sealed {
    Sealed {
        quant_hash: header.hash(),
        header,
        duplicate,
    }
}

fn new_chain(no: ChainNo, ask: &BangAsk) -> Chain {
    let meta = genesis_meta(&ask.constitution);
    let header = genesis_header(ask.alg, ask.constitution.created_ms, 0, &meta);
    Chain {
        no,
        alg: ask.alg,
        constitution: ask.constitution.clone(),
        headers: vec![header],
        metas: vec![meta],
        txs: Vec::new(),
        leaves: Vec::new(),
        sealed_bytes: 0,
        first_ms: 0,
        bytes: 0,
        last_inject_ms: ask.constitution.created_ms,
        ids: BTreeMap::new(),
        parts: Vec::new(),
        open: None,
        history: Frontier::new(),
    }
}

/// The meta of a genesis.
pub fn genesis_meta(constitution: &Constitution) -> Vec<u8> {
    Meta {
        constitution: Some(constitution.to_bytes()),
        ..Meta::default()
    }
    .to_bytes()
}

/// A constitution with a name and nothing special.
pub fn constitution(name: &str, created_ms: u64) -> Constitution {
    Constitution::from(Birth {
        name: name.to_owned(),
        created_ms,
        salt: [3; 16],
        authority: Authority {
            threshold: 1,
            roots: vec![SigningKey::from_seed([9; 32]).public()],
        },
        cluster_id: [4; 16],
    })
}
