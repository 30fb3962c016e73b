//! A replica of the group: an engine over a slot of a store, with the batches and restarts of its own.

use std::ops::ControlFlow;
use std::path::Path;

use qbc::chain::{
    Frontier, HashAlg, Meta, StateTree, latest_key, state_key_hash, verify_extension,
    verify_inclusion,
};
use qbc::engine::{
    Bang, CommandWriter, Engine, GroupId, InjectHead, InjectItem, Outcome, Reader, Rejection, Seal,
    TemplateRequest, check_quant,
};
use qbc::store::{ChainNo, DATA_FAMILIES, Slot, Store, StoreOptions, View};

use crate::model::{BangAsk, Chain, InjectAsk, Model, NODE, SealAsk, genesis_meta};

/// An engine with its slot.
pub struct Replica {
    pub engine: Engine,
    pub store: Store,
    pub slot: Slot,
}

/// The rows of the data families, without the slot.
pub type Rows = Vec<(u8, Vec<u8>, Vec<u8>)>;

pub fn open(dir: &Path) -> Store {
    let options = StoreOptions {
        cache_bytes: 8 << 20,
    };
    Store::open(dir, options).unwrap()
}

impl Replica {
    pub fn new(store: &Store, slot: u32) -> Self {
        let (slot, store) = (Slot(slot), store.clone());
        let engine = Engine::new(GroupId(1), slot, store.clone());
        Self {
            engine,
            store,
            slot,
        }
    }

    /// Forgets everything in memory.
    pub fn restart(&mut self) {
        self.engine = Engine::new(GroupId(1), self.slot, self.store.clone());
    }

    /// Applies entries as one batch.
    pub fn apply(&self, entries: &[Vec<u8>]) -> Vec<Vec<Outcome>> {
        let mut batch = self.store.batch();
        let each = entries.iter();
        let outcomes = each
            .map(|entry| self.engine.apply(entry, &mut batch).unwrap())
            .collect();
        self.store.write(batch).unwrap();
        self.engine.written();
        outcomes
    }

    pub fn rows(&self) -> Rows {
        let (from, to) = (self.slot.0.to_be_bytes(), (self.slot.0 + 1).to_be_bytes());
        let mut rows = Vec::new();
        for (number, cf) in DATA_FAMILIES.into_iter().enumerate() {
            self.store
                .scan(cf, &from, &to, &mut |key, row| {
                    rows.push((number as u8, key[4..].to_vec(), row.to_vec()));
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        rows
    }

    /// Everything that is read cheaply: what any client would see at once.
    pub fn check_view(&self, model: &Model, now_ms: u64) {
        let reader = Reader::new(&self.store, self.slot);
        for chain in &model.chains {
            self.check_chain(&reader, chain, now_ms);
        }
        let due = self.engine.due(now_ms, 1000).unwrap();
        assert_eq!(due, model.due(now_ms), "due pools at {now_ms}");
        let names = reader.names("", "", 1000).unwrap();
        let mut expected: Vec<(String, ChainNo)> = model
            .chains
            .iter()
            .map(|chain| (chain.name().to_owned(), chain.no))
            .collect();
        expected.sort();
        assert_eq!(names, expected);
        assert!(self.engine.damages().is_empty());
    }

    fn check_chain(&self, reader: &Reader<'_>, chain: &Chain, now_ms: u64) {
        let view = reader.chain(chain.name()).unwrap();
        assert_eq!((view.no, view.chain_id), (chain.no, chain.id()));
        assert_eq!(view.head_bytes, chain.head().to_bytes());
        assert_eq!(view.head, *chain.head());
        assert_eq!(view.history, chain.history_below_head());
        assert_eq!(view.pool, chain.pool_row());
        assert_eq!(view.sealed_bytes, chain.sealed_bytes);
        assert_eq!(view.pooled(), chain.pooled());
        let work = (chain.head().height + 1, chain.next_bits());
        assert_eq!(self.engine.next_work(chain.no).unwrap(), Ok(work));
        let due = chain.due_ms().into_iter().any(|due| due <= now_ms);
        let is_due = self.engine.is_due(chain.no, now_ms).unwrap();
        assert_eq!(is_due, Ok(due), "chain {} at {now_ms}", chain.no.0);
        let asked = TemplateRequest {
            time_ms: now_ms,
            node_id: NODE,
            note: b"n",
            is_final: false,
        };
        let template = self.engine.template(chain.no, &asked).unwrap();
        if chain.head().is_final {
            assert!(matches!(template, Err(Rejection::Closed(_))));
        } else if chain.pooled() == 0 {
            assert!(matches!(template, Err(Rejection::NothingToSeal(_))));
        } else {
            let mut own = chain.next_header(chain.txs.len() as u64, now_ms, b"n", false);
            own.header.nonce = 0;
            let template = template.unwrap();
            assert_eq!((template.header, template.meta), (own.header, own.meta));
        }
    }

    /// Every row, every header byte, every path of every chain.
    pub fn check_all(&self, model: &Model) {
        let reader = Reader::new(&self.store, self.slot);
        for chain in &model.chains {
            check_quants(&reader, chain, 0);
            check_rows(&reader, chain);
        }
    }
}

/// The Quants of a chain from a height on, with their transactions' paths and the paths of the history.
pub fn check_quants(reader: &Reader<'_>, chain: &Chain, from: u64) {
    let view = reader.chain(chain.name()).unwrap();
    for (header, meta) in chain.headers.iter().zip(&chain.metas).skip(from as usize) {
        let quant = reader.quant(&view, header.height).unwrap();
        assert_eq!(quant.header, header.to_bytes());
        assert_eq!(quant.meta, *meta);
        let damage = check_quant(reader, &view, header.height, &header.hash()).unwrap();
        assert_eq!(damage, None);
        for index in header.tx_start..header.tx_end() {
            let path = reader.tx_path(&view, header, index).unwrap();
            let (at, size) = (index - header.tx_start, u64::from(header.tx_count));
            let leaf = &chain.leaves[index as usize];
            verify_inclusion(chain.alg, leaf, at, size, &path, &header.tx_root).unwrap();
            let top = chain.head().height;
            let sealed_by = reader.height_of(&view, index, top).unwrap();
            assert_eq!(sealed_by.header, header.to_bytes());
        }
    }
    check_history(reader, chain, &[chain.head().height]);
}

/// The paths from every height to the given ones, and the peaks at each of them.
pub fn check_history(reader: &Reader<'_>, chain: &Chain, tops: &[u64]) {
    let view = reader.chain(chain.name()).unwrap();
    for top in tops {
        let later = &chain.headers[*top as usize];
        let mut history = Frontier::new();
        for header in &chain.headers[..*top as usize] {
            history.push(chain.alg, header.hash());
            let path = reader.history_path(&view, header.height, *top).unwrap();
            verify_extension(header, later, &path).unwrap();
        }
        assert_eq!(history.root(chain.alg), later.hist_root);
        assert_eq!(reader.peaks(&view, *top).unwrap(), history.peaks());
    }
}

fn check_rows(reader: &Reader<'_>, chain: &Chain) {
    let view = reader.chain(chain.name()).unwrap();
    let all = chain.txs.len() as u64;
    let stored = if all == 0 {
        Vec::new()
    } else {
        reader.transactions(&view, 0, all, usize::MAX).unwrap()
    };
    assert_eq!(stored.len(), chain.txs.len());
    for (tx, stored) in chain.txs.iter().zip(&stored) {
        assert_eq!(stored.row, tx.row(chain.alg), "index {}", stored.index);
    }
    assert!(reader.transaction(&view, all).is_err());
    check_keys(reader, chain);
}

/// Every key is found with all its transactions, from both ends, and proved at every height, as is one that is absent.
fn check_keys(reader: &Reader<'_>, chain: &Chain) {
    let view = reader.chain(chain.name()).unwrap();
    let all = (0, u64::MAX);
    for key in chain.latest(chain.txs.len() as u64).keys() {
        let of_key = |(index, tx): (u64, &crate::model::Tx)| {
            (tx.item.key.as_ref() == Some(key)).then_some(index)
        };
        let mut expected: Vec<u64> = (0..).zip(&chain.txs).filter_map(of_key).collect();
        let state_key = latest_key(key);
        let found = |order| reader.touching(&view, &state_key, all, order).unwrap();
        assert_eq!(found((false, usize::MAX)), expected);
        assert_eq!(found((false, 2)), expected[..expected.len().min(2)]);
        expected.reverse();
        assert_eq!(found((true, usize::MAX)), expected);
    }
    let absent = latest_key(b"no such key");
    let none = reader.touching(&view, &absent, all, (true, 1)).unwrap();
    assert!(none.is_empty());
    if !chain.constitution.keyed {
        return;
    }
    for header in &chain.headers[1..] {
        let latest = chain.latest(header.tx_end());
        for key in latest
            .keys()
            .map(|key| latest_key(key))
            .chain([absent.clone()])
        {
            let value = proved(reader, chain, header.height, &key);
            let index = latest
                .get(&key[1..])
                .map(|index| index.to_be_bytes().to_vec());
            assert_eq!(value, index, "height {}", header.height);
        }
    }
}

/// What the state root of a height proves of a key.
pub fn proved(
    reader: &Reader<'_>,
    chain: &Chain,
    height: u64,
    state_key: &[u8],
) -> Option<Vec<u8>> {
    let view = reader.chain(chain.name()).unwrap();
    let rows = reader.state(&view, height);
    let tree = StateTree {
        alg: chain.alg,
        rows: &rows,
    };
    let hash = state_key_hash(chain.alg, state_key);
    let proof = tree.prove(&hash).unwrap();
    let meta = Meta::parse(&chain.metas[height as usize]).unwrap();
    let (alg, root) = meta.state_root.unwrap();
    assert_eq!(alg, chain.alg as u8);
    let value = proof.verify(chain.alg, &root, state_key).unwrap();
    assert_eq!(tree.get(&hash).unwrap(), value);
    value
}

/// An entry from encoded commands.
pub fn entry(time_ms: u64, commands: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = CommandWriter::new(time_ms, 0);
    for command in commands {
        writer.push(command);
    }
    writer.finish()
}

pub fn bang_bytes(ask: &BangAsk) -> Vec<u8> {
    Bang {
        request_id: &ask.request_id,
        alg: ask.alg,
        meta: &genesis_meta(&ask.constitution),
    }
    .encode()
}

pub fn inject_bytes(no: ChainNo, ask: &InjectAsk) -> Vec<u8> {
    let attributes: Vec<Vec<u8>> = ask
        .items
        .iter()
        .map(crate::model::Item::attributes)
        .collect();
    let items = ask.items.iter().zip(&attributes);
    let items = items.map(|(item, attributes)| InjectItem {
        kind: item.kind,
        attributes,
        id: &item.id,
        salt: item.salt.as_ref(),
        transfer: None,
        payload: &item.payload,
    });
    InjectHead {
        chain: no,
        request_id: &ask.request_id,
        expected_next_index: ask.expected_next_index,
        expected_head: ask.expected_head,
    }
    .encode(items, 0)
}

pub fn seal_bytes(no: ChainNo, ask: &SealAsk) -> Vec<u8> {
    Seal {
        chain: no,
        request_id: &ask.request_id,
        request_body: ask.body,
        header: &ask.header.to_bytes(),
        meta: &ask.meta,
    }
    .encode()
}

/// A bang of a plain chain.
pub fn plain_bang(name: &str, alg: HashAlg) -> BangAsk {
    BangAsk {
        request_id: Vec::new(),
        alg,
        constitution: crate::model::constitution(name, 1000),
    }
}

/// An inject of payloads without anything else.
pub fn plain_inject(payloads: impl IntoIterator<Item = Vec<u8>>) -> InjectAsk {
    let item = |payload| crate::model::Item {
        kind: 0,
        id: Vec::new(),
        key: None,
        salt: None,
        payload,
    };
    InjectAsk {
        request_id: Vec::new(),
        expected_next_index: None,
        expected_head: None,
        items: payloads.into_iter().map(item).collect(),
    }
}
