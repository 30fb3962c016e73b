//! A group and, of all its chains, naive copies: a fork copies its parent up to the fork, in full. What is read of the group
//! is held against them.

use qbc::chain::{
    Attributes, ChainId, Constitution, Content, Frontier, HashAlg, Header, Meta, Mint, StateTree,
    TYPE_DATA, TYPE_TRANSFER, Transfer, balance_key, check_next, latest_key, state_key_hash,
    verify_history_link, verify_inclusion,
};
use qbc::engine::{
    Fork, InjectHead, InjectItem, Move, Outcome, Reader, Rejection, Seal, TemplateRequest,
    check_quant,
};
use qbc::store::{ChainNo, Store};

use crate::model::{BangAsk, NODE, constitution};
use crate::replica::{Replica, bang_bytes, entry};

pub const ALG: HashAlg = HashAlg::Sha3_256;
pub const KEYS: [&str; 3] = ["a", "b", "c"];
pub const ACCOUNTS: [&str; 3] = ["bank", "x", "y"];

/// A transaction of the naive copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tx {
    Data {
        key: usize,
        payload: Vec<u8>,
    },
    Moved {
        from: usize,
        to: usize,
        amount: u128,
    },
}

/// What a chain holds, written out in full.
#[derive(Clone, Debug)]
pub struct Copy {
    pub no: ChainNo,
    pub name: String,
    pub ledger: bool,
    pub headers: Vec<Header>,
    /// Each with the chain that it was injected into.
    pub txs: Vec<(Tx, ChainId)>,
}

impl Copy {
    pub fn id(&self) -> ChainId {
        let firsts = self.headers.iter().rev();
        let mut firsts = firsts.filter(|header| header.genesis || header.fork_genesis);
        firsts.next().unwrap().id()
    }

    pub fn head(&self) -> &Header {
        self.headers.last().unwrap()
    }

    pub fn balances(&self, end: u64) -> [u128; 3] {
        let mut balances = [1000, 0, 0];
        for (tx, _) in &self.txs[..end as usize] {
            if let Tx::Moved { from, to, amount } = tx {
                balances[*from] -= amount;
                balances[*to] += amount;
            }
        }
        balances
    }

    pub fn touching(&self, subject: usize) -> Vec<u64> {
        let touches = |tx: &Tx| match tx {
            Tx::Data { key, .. } => *key == subject,
            Tx::Moved { from, to, .. } => *from == subject || *to == subject,
        };
        let all = (0..).zip(&self.txs).filter(|(_, (tx, _))| touches(tx));
        all.map(|(index, _)| index).collect()
    }
}

/// A group and the copies of all its chains.
pub struct World {
    pub replica: Replica,
    pub copies: Vec<Copy>,
    pub time_ms: u64,
}

impl World {
    pub fn new() -> Self {
        Self {
            replica: Replica::new(&Store::memory(), 4),
            copies: Vec::new(),
            time_ms: 2000,
        }
    }

    pub fn apply(&mut self, commands: &[Vec<u8>]) -> Vec<Outcome> {
        self.time_ms += 1;
        let entry = entry(self.time_ms, commands);
        self.replica.apply(&[entry]).remove(0)
    }

    pub fn one(&mut self, command: Vec<u8>) -> Outcome {
        self.apply(&[command]).remove(0)
    }

    pub fn rules(name: &str, ledger: bool) -> Constitution {
        let plain = constitution(name, 1000);
        if !ledger {
            return Constitution {
                keyed: true,
                ..plain
            };
        }
        Constitution {
            content: Content::Json,
            ledger: true,
            mint: Some(Mint {
                limit: 1000,
                account: b"bank".to_vec(),
            }),
            ..plain
        }
    }

    pub fn bang(&mut self, name: &str, ledger: bool) -> usize {
        let ask = BangAsk {
            request_id: Vec::new(),
            alg: ALG,
            constitution: Self::rules(name, ledger),
        };
        let Outcome::Banged(Ok(banged)) = self.one(bang_bytes(&ask)) else {
            panic!("the name is new")
        };
        let slot = self.replica.slot;
        let row = Reader::new(&self.replica.store, slot);
        let view = row.chain_no(banged.chain).unwrap().unwrap();
        self.copies.push(Copy {
            no: banged.chain,
            name: name.to_owned(),
            ledger,
            headers: vec![view.head],
            txs: Vec::new(),
        });
        self.copies.len() - 1
    }

    pub fn inject(&mut self, at: usize, txs: Vec<Tx>) -> Outcome {
        let id = self.copies[at].id();
        let outcome = self.one(inject(self.copies[at].no, b"", &txs, &[]));
        if let Outcome::Injected(Ok(_)) = &outcome {
            let added = txs.into_iter().map(|tx| (tx, id));
            self.copies[at].txs.extend(added);
        }
        outcome
    }

    pub fn leap(&mut self, at: usize) {
        self.seal(at, false);
    }

    pub fn seal(&mut self, at: usize, is_final: bool) {
        let no = self.copies[at].no;
        let request = TemplateRequest {
            time_ms: self.time_ms,
            node_id: NODE,
            note: b"",
            is_final,
        };
        let template = self.replica.engine.template(no, &request).unwrap();
        let Ok(template) = template else { return };
        let command = Seal {
            chain: no,
            request_id: b"",
            request_body: [0; 32],
            header: &template.header.to_bytes(),
            meta: &template.meta,
        };
        let Outcome::Sealed(Ok(sealed)) = self.one(command.encode()) else {
            panic!("the template is the replica's own")
        };
        self.copies[at].headers.push(sealed.header);
    }

    pub fn fork_command(
        &self,
        at: usize,
        height: u64,
        constitution: &Constitution,
        (request_id, unnamed): (&[u8], bool),
    ) -> Result<Vec<u8>, Rejection> {
        let parent = self.copies[at].no;
        let made = (constitution, self.time_ms);
        let (header, meta) = self
            .replica
            .engine
            .fork_template(parent, height, made)
            .unwrap()?;
        let command = Fork {
            parent,
            request_id,
            unnamed,
            header: &header.to_bytes(),
            meta: &meta,
        };
        Ok(command.encode())
    }

    pub fn fork(&mut self, at: usize, height: u64, name: &str) -> Result<usize, Rejection> {
        let rules = Constitution {
            created_ms: self.time_ms,
            salt: [self.copies.len() as u8; 16],
            ..Self::rules(name, self.copies[at].ledger)
        };
        let command = self.fork_command(at, height, &rules, (b"", false))?;
        let Outcome::Forked(forked) = self.one(command) else {
            panic!("the answer is that of a fork")
        };
        let forked = forked?;
        let reader = Reader::new(&self.replica.store, self.replica.slot);
        let view = reader.chain(name).unwrap();
        let parent = &self.copies[at];
        let mut headers = parent.headers[..=height as usize].to_vec();
        let shared = headers.last().unwrap().tx_end();
        headers.push(view.head);
        let copy = Copy {
            no: forked.chain,
            name: name.to_owned(),
            ledger: parent.ledger,
            headers,
            txs: parent.txs[..shared as usize].to_vec(),
        };
        assert_eq!(copy.id(), forked.chain_id);
        self.copies.push(copy);
        Ok(self.copies.len() - 1)
    }

    pub fn check(&self) {
        let reader = Reader::new(&self.replica.store, self.replica.slot);
        for copy in &self.copies {
            check_headers(&reader, copy);
            check_transactions(&reader, copy);
            check_subjects(&reader, copy);
        }
        assert!(self.replica.engine.damages().is_empty());
    }
}

pub fn inject(no: ChainNo, request_id: &[u8], txs: &[Tx], ids: &[&[u8]]) -> Vec<u8> {
    let attributes = |at: usize, tx: &Tx| {
        let key = match tx {
            Tx::Data { key, .. } => Some(KEYS[*key].as_bytes().to_vec()),
            Tx::Moved { .. } => None,
        };
        let id = ids.get(at).map(|id| id.to_vec());
        let attributes = Attributes {
            key,
            id,
            ..Attributes::default()
        };
        if attributes == Attributes::default() {
            return Vec::new();
        }
        attributes.to_bytes()
    };
    let attributes: Vec<Vec<u8>> = (0..).zip(txs).map(|(at, tx)| attributes(at, tx)).collect();
    let payloads: Vec<Vec<u8>> = txs.iter().map(payload).collect();
    let items = (0..txs.len()).map(|at| InjectItem {
        kind: match txs[at] {
            Tx::Data { .. } => TYPE_DATA,
            Tx::Moved { .. } => TYPE_TRANSFER,
        },
        attributes: &attributes[at],
        id: ids.get(at).copied().unwrap_or_default(),
        salt: None,
        transfer: match &txs[at] {
            Tx::Data { .. } => None,
            Tx::Moved { from, to, amount } => Some(Move {
                sender: ACCOUNTS[*from].as_bytes(),
                receiver: ACCOUNTS[*to].as_bytes(),
                amount: *amount,
            }),
        },
        payload: &payloads[at],
    });
    let head = InjectHead {
        chain: no,
        request_id,
        expected_next_index: None,
        expected_head: None,
    };
    head.encode(items, 0)
}

pub fn payload(tx: &Tx) -> Vec<u8> {
    match tx {
        Tx::Data { payload, .. } => payload.clone(),
        Tx::Moved { from, to, amount } => Transfer {
            sender: ACCOUNTS[*from].into(),
            receiver: ACCOUNTS[*to].into(),
            amount: *amount,
            memo: None,
        }
        .to_json()
        .into_bytes(),
    }
}

/// Every header, every link to the one before, every path into the head, over all borders.
pub fn check_headers(reader: &Reader<'_>, copy: &Copy) {
    let view = reader.chain(&copy.name).unwrap();
    assert_eq!((view.no, view.chain_id), (copy.no, copy.id()));
    assert_eq!(view.head, *copy.head());
    let borders = reader.borders(&view).unwrap();
    let borders: Vec<Header> = borders.iter().map(|b| Header::parse(b).unwrap()).collect();
    let mut history = Frontier::new();
    for (height, header) in (0u64..).zip(&copy.headers) {
        assert_eq!(
            reader.quant(&view, height).unwrap().header,
            header.to_bytes()
        );
        if let Some(before) = height.checked_sub(1) {
            let before = &copy.headers[before as usize];
            history.push(ALG, before.hash());
            check_next(before, &before.hash(), header, &history).unwrap();
            assert_eq!(reader.peaks(&view, height).unwrap(), history.peaks());
        }
        if height < copy.head().height {
            let path = reader
                .history_path(&view, height, copy.head().height)
                .unwrap();
            verify_history_link(header, copy.head(), &borders, &path).unwrap();
        }
        let first = view.lineage.first_height();
        if height >= first {
            let damage = check_quant(reader, &view, height, &header.hash()).unwrap();
            assert_eq!(damage, None);
        }
    }
    assert_eq!(view.history, history);
}

pub fn check_transactions(reader: &Reader<'_>, copy: &Copy) {
    let view = reader.chain(&copy.name).unwrap();
    let end = copy.txs.len() as u64;
    assert_eq!(view.pool.next_index, end);
    let all = reader.transactions(&view, 0, end, usize::MAX).unwrap();
    assert_eq!(all.len(), copy.txs.len());
    for ((index, stored), (tx, chain_id)) in (0u64..).zip(&all).zip(&copy.txs) {
        assert_eq!(stored.index, index);
        let row = stored.row().unwrap();
        assert_eq!(row.payload, payload(tx));
        assert_eq!(view.lineage.at_index(index).1, *chain_id);
        assert_eq!(reader.transaction(&view, index).unwrap(), *stored);
        if index < view.head.tx_end() {
            let quant = reader.height_of(&view, index, view.head.height).unwrap();
            let header = quant.parse().unwrap();
            let path = reader.tx_path(&view, &header, index).unwrap();
            let leaf = row.envelope(ALG, *chain_id, index).leaf(ALG);
            let (at, size) = (index - header.tx_start, u64::from(header.tx_count));
            verify_inclusion(ALG, &leaf, at, size, &path, &header.tx_root).unwrap();
        }
    }
    assert!(reader.transaction(&view, end).is_err());
}

/// History by key and account from both ends and in parts, balances, and what every Quant's state proves.
pub fn check_subjects(reader: &Reader<'_>, copy: &Copy) {
    let view = reader.chain(&copy.name).unwrap();
    let end = copy.txs.len() as u64;
    for subject in 0..3 {
        let state_key = if copy.ledger {
            balance_key(ACCOUNTS[subject].as_bytes())
        } else {
            latest_key(KEYS[subject].as_bytes())
        };
        let all = copy.touching(subject);
        for (from, to) in [(0, u64::MAX), (end / 3, end), (0, end / 2)] {
            let own = all.iter().copied().filter(|at| (from..to).contains(at));
            let own: Vec<u64> = own.collect();
            for limit in [usize::MAX, 2] {
                let found = |newest_first| {
                    let order = (newest_first, limit);
                    reader
                        .touching(&view, &state_key, (from, to), order)
                        .unwrap()
                };
                let oldest: Vec<u64> = own.iter().copied().take(limit).collect();
                let newest: Vec<u64> = own.iter().rev().copied().take(limit).collect();
                assert_eq!(
                    (found(false), found(true)),
                    (oldest, newest),
                    "{}",
                    copy.name
                );
            }
        }
        if copy.ledger {
            let balance = reader.balance(&view, ACCOUNTS[subject].as_bytes()).unwrap();
            let at_first = [1000, 0, 0][subject];
            let expected = copy.balances(end)[subject];
            assert_eq!(balance.unwrap_or(at_first), expected, "{}", copy.name);
        }
        for header in &copy.headers[1..] {
            check_state(reader, copy, header, (subject, &state_key));
        }
    }
}

pub fn check_state(
    reader: &Reader<'_>,
    copy: &Copy,
    header: &Header,
    (subject, state_key): (usize, &[u8]),
) {
    let view = reader.chain(&copy.name).unwrap();
    let quant = reader.quant(&view, header.height).unwrap();
    let (_, root) = Meta::parse(&quant.meta).unwrap().state_root.unwrap();
    let rows = reader.state(&view, header.height);
    let tree = StateTree {
        alg: ALG,
        rows: &rows,
    };
    let proof = tree.prove(&state_key_hash(ALG, state_key)).unwrap();
    let value = proof.verify(ALG, &root, state_key).unwrap();
    let touched: Vec<u64> = copy.touching(subject);
    let last = touched.iter().rfind(|index| **index < header.tx_end());
    let expected = last.map(|index| {
        if copy.ledger {
            copy.balances(header.tx_end())[subject]
                .to_be_bytes()
                .to_vec()
        } else {
            index.to_be_bytes().to_vec()
        }
    });
    assert_eq!(value, expected, "{} at {}", copy.name, header.height);
}
