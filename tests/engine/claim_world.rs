//! A family of chains in one group that is split again and again: what leaders and drivers do, step by step, and all entries
//! that they made.

use qbc::chain::{
    ChainId, Constitution, Content, Credit, Debit, HashAlg, Mint, SplitEvidence, Splitting,
    StateClaim, StateTree, Transfer, credited_key, place_of, state_key_hash,
};
use qbc::engine::{
    Fork, InjectHead, InjectItem, Injected, Move, Outcome, Reader, Rejection, Seal, SplitCommand,
    SplitStep, TemplateRequest, entry_forks,
};
use qbc::store::{Branch, ChainNo, TransitRow};

use crate::image::moved;
use crate::model::{BangAsk, constitution};
use crate::replica::{Replica, bang_bytes, entry, open};

pub const ALG: HashAlg = HashAlg::Sha3_256;
pub const TOP: ChainNo = ChainNo(1);
pub const MINT: u128 = 1000;

/// A group with one family of chains, and all entries that made it what it is.
pub struct World {
    pub replica: Replica,
    entries: Vec<Vec<u8>>,
    time_ms: u64,
    salt: u8,
    _dir: tempfile::TempDir,
}

impl World {
    pub fn new(rules: Constitution) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self {
            replica: Replica::new(&open(dir.path()), 1),
            entries: Vec::new(),
            time_ms: 2000,
            salt: 0,
            _dir: dir,
        };
        let bang = BangAsk {
            request_id: Vec::new(),
            alg: ALG,
            constitution: rules,
        };
        world.apply(bang_bytes(&bang));
        world
    }

    pub fn keyed() -> Self {
        Self::new(Constitution {
            keyed: true,
            ..constitution("a", 1000)
        })
    }

    pub fn ledger() -> Self {
        Self::new(Constitution {
            content: Content::Json,
            ledger: true,
            mint: Some(Mint {
                limit: MINT,
                account: b"bank".to_vec(),
            }),
            ..constitution("a", 1000)
        })
    }

    pub fn apply(&mut self, command: Vec<u8>) -> Outcome {
        self.time_ms += 10;
        let entry = entry(self.time_ms, &[command]);
        let mut outcomes = self.replica.apply(std::slice::from_ref(&entry));
        self.entries.push(entry);
        outcomes.remove(0).remove(0)
    }

    pub fn step(&mut self, command: &SplitCommand<'_>) -> Result<SplitStep, Rejection> {
        match self.apply(command.encode()) {
            Outcome::Split(done) => done,
            other => panic!("{other:?}"),
        }
    }

    /// Splits a chain into two; gives their numbers.
    pub fn split(&mut self, no: ChainNo) -> [ChainNo; 2] {
        self.salt += 2;
        let intend = SplitCommand::Intend {
            chain: no,
            request_id: b"",
            places: vec![(1, [self.salt; 16]), (1, [self.salt + 1; 16])],
        };
        self.step(&intend).unwrap();
        let (view, row, above) = {
            let reader = self.reader();
            let view = reader.chain_no(no).unwrap().unwrap();
            let row = reader.split(&view).unwrap().unwrap();
            (view, row, self.above(no))
        };
        let rules = self.replica.engine.inherited(no).unwrap().unwrap();
        let splitting = Splitting {
            alg: ALG,
            name: &view.name,
            constitution: &rules,
            parent: qbc::chain::ParentRef {
                id: view.chain_id,
                height: row.parent.0,
                quant_hash: row.parent.1,
            },
            created_ms: row.created_ms,
            of: 2,
        };
        let mut below = [ChainNo(0); 2];
        for (place, child) in (0..).zip(&row.children) {
            let (_, meta) = splitting.genesis(place, child.salt);
            let (id, of) = (view.chain_id, 2);
            let mut above = above.clone();
            above.push(Branch { id, place, of });
            let meta = &meta;
            let bang = SplitCommand::Bang {
                alg: ALG,
                above,
                meta,
            };
            below[place as usize] = self.step(&bang).unwrap().chain;
        }
        self.step(&SplitCommand::Freeze { chain: no }).unwrap();
        self.leap(no);
        let (evidence, further) = self.evidence(no);
        for chain in below {
            let activate = SplitCommand::Activate {
                chain,
                evidence: &evidence,
                above: further.iter().map(Vec::as_slice).collect(),
            };
            self.step(&activate).unwrap();
        }
        self.step(&SplitCommand::Finish { chain: no }).unwrap();
        below
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&self.replica.store, self.replica.slot)
    }

    /// The splits above it, also of a fork.
    pub fn above(&self, no: ChainNo) -> Vec<Branch> {
        let view = self.reader().chain_no(no).unwrap().unwrap();
        let heir = self.reader().heir(&view).unwrap();
        heir.map_or_else(Vec::new, |(_, row)| row.above)
    }

    /// Forks a chain above a height.
    pub fn fork(&mut self, no: ChainNo, height: u64, name: &str) -> Result<ChainNo, Rejection> {
        self.salt += 1;
        let rules = self.replica.engine.inherited(no).unwrap().unwrap();
        let rules = Constitution {
            name: name.to_owned(),
            created_ms: self.time_ms,
            salt: [self.salt; 16],
            family_id: None,
            place: rules.part(),
            ..rules
        };
        let made = (&rules, self.time_ms);
        let template = self.replica.engine.fork_template(no, height, made);
        let (header, meta) = template.unwrap()?;
        let command = Fork {
            parent: no,
            request_id: b"",
            unnamed: false,
            header: &header.to_bytes(),
            meta: &meta,
        };
        match self.apply(command.encode()) {
            Outcome::Forked(done) => done.map(|forked| forked.chain),
            other => panic!("{other:?}"),
        }
    }

    /// The split Quant of a chain, and those of the chains above it, the nearest first.
    pub fn evidence(&self, no: ChainNo) -> (Vec<u8>, Vec<Vec<u8>>) {
        let reader = self.reader();
        let view = reader.chain_no(no).unwrap().unwrap();
        let height = reader.split(&view).unwrap().unwrap().height;
        let quant = reader.quant(&view, height).unwrap();
        let header = quant.parse().unwrap();
        let own = SplitEvidence::of(header, quant.meta, Vec::new()).to_bytes();
        let further = (0..self.above(no).len() as u64).map(|index| {
            let one = reader.transaction(&view, index).unwrap();
            one.row().unwrap().payload.to_vec()
        });
        (own, further.collect())
    }

    pub fn leap(&mut self, no: ChainNo) {
        let asked = TemplateRequest {
            time_ms: self.time_ms + 5,
            node_id: 1,
            note: b"",
            is_final: false,
        };
        let template = self.replica.engine.template(no, &asked).unwrap().unwrap();
        let seal = Seal {
            chain: no,
            request_id: b"",
            request_body: [0; 32],
            header: &template.header.to_bytes(),
            meta: &template.meta,
        };
        let sealed = self.apply(seal.encode());
        assert!(matches!(sealed, Outcome::Sealed(Ok(_))), "{sealed:?}");
    }

    pub fn inject(&mut self, no: ChainNo, item: InjectItem<'_>) -> Result<Injected, Rejection> {
        let head = InjectHead {
            chain: no,
            request_id: b"",
            expected_next_index: None,
            expected_head: None,
        };
        match self.apply(head.encode([item].into_iter(), 0)) {
            Outcome::Injected(done) => done,
            other => panic!("{other:?}"),
        }
    }

    pub fn put(&mut self, no: ChainNo, key: &str) -> Result<Injected, Rejection> {
        let attributes = qbc::chain::Attributes {
            key: Some(key.into()),
            ..Default::default()
        }
        .to_bytes();
        self.inject(
            no,
            InjectItem {
                kind: 0,
                attributes: &attributes,
                id: b"",
                salt: None,
                transfer: None,
                payload: b"word",
            },
        )
    }

    pub fn transfer(
        &mut self,
        no: ChainNo,
        (from, to): (&str, &str),
        amount: u128,
    ) -> Result<u64, Rejection> {
        let payload = transfer(from, to, amount).to_json();
        let item = InjectItem {
            kind: 3,
            attributes: b"",
            id: b"",
            salt: None,
            transfer: Some(Move {
                sender: from.as_bytes(),
                receiver: to.as_bytes(),
                amount,
            }),
            payload: payload.as_bytes(),
        };
        let done = self.inject(no, item)?;
        Ok(done.runs[0].first)
    }

    /// Proofs of a state key in the chains above, the nearest first, up to the first with a value.
    pub fn proofs(&self, no: ChainNo, state_key: &[u8]) -> Vec<Vec<u8>> {
        let reader = self.reader();
        let mut proofs = Vec::new();
        for branch in self.above(no).iter().rev() {
            let view = self.chain(&branch.id);
            let height = reader.split(&view).unwrap().unwrap().height;
            let rows = reader.state(&view, height);
            let tree = StateTree {
                alg: ALG,
                rows: &rows,
            };
            let hash = state_key_hash(ALG, state_key);
            proofs.push(tree.prove(&hash).unwrap().to_bytes());
            if tree.get(&hash).unwrap().is_some() {
                break;
            }
        }
        proofs
    }

    pub fn chain(&self, id: &ChainId) -> qbc::engine::ChainView {
        let reader = self.reader();
        let all = (1..100).map_while(|no| reader.chain_no(ChainNo(no)).unwrap());
        let mut found = all.filter(|view| view.chain_id == *id);
        found.next().expect("a chain of the family")
    }

    pub fn claim_of(&self, no: ChainNo, state_key: Vec<u8>) -> StateClaim {
        let proofs = self.proofs(no, &state_key);
        StateClaim { state_key, proofs }
    }

    pub fn claim(&mut self, no: ChainNo, claim: &StateClaim) -> Result<SplitStep, Rejection> {
        let bytes = claim.to_bytes();
        let claims = vec![bytes.as_slice()];
        self.step(&SplitCommand::Claim { chain: no, claims })
    }

    /// Does what the leaders do: claims what is not claimed, then tries again.
    pub fn transfer_claiming(&mut self, no: ChainNo, sides: (&str, &str), amount: u128) -> u64 {
        match self.transfer(no, sides, amount) {
            Err(Rejection::Unclaimed { state_keys, .. }) => {
                for state_key in state_keys {
                    let claim = self.claim_of(no, state_key);
                    self.claim(no, &claim).unwrap();
                }
                self.transfer(no, sides, amount).unwrap()
            }
            done => done.unwrap(),
        }
    }

    /// The chain below all splits that a routing key leads to.
    pub fn leaf(&self, routing_key: &str) -> ChainNo {
        let reader = self.reader();
        let mut view = reader.chain_no(TOP).unwrap().unwrap();
        while let Some(row) = reader.split(&view).unwrap() {
            let place = place_of(ALG, &view.chain_id, routing_key.as_bytes(), 2);
            view = self.chain(&row.children[place as usize].id);
        }
        view.no
    }

    pub fn names_in(&self, no: ChainNo, count: usize) -> Vec<String> {
        let names = (0..).map(|number| format!("name {number}"));
        names
            .filter(|name| self.leaf(name) == no)
            .take(count)
            .collect()
    }

    /// A debit as it is shown to a chain whose way parts from the debit's at a level.
    pub fn debit(&self, no: ChainNo, index: u64, parted: usize) -> Debit {
        let reader = self.reader();
        let view = reader.chain_no(no).unwrap().unwrap();
        let header = reader
            .height_of(&view, index, view.head.height)
            .unwrap()
            .parse()
            .unwrap();
        let one = reader.transaction(&view, index).unwrap();
        let row = one.row().unwrap();
        let depth = self.above(no).len();
        let ways = (parted + 1..depth).map(|level| {
            let one = reader.transaction(&view, (depth - 1 - level) as u64);
            SplitEvidence::parse(one.unwrap().row().unwrap().payload).unwrap()
        });
        Debit {
            ways: ways.collect(),
            path: reader.tx_path(&view, &header, index).unwrap(),
            envelope: row.envelope(ALG, view.chain_id, index),
            payload: row.payload.to_vec(),
            header,
            signatures: Vec::new(),
        }
    }

    pub fn credit_of(&self, no: ChainNo, debit: Debit) -> Credit {
        let key = credited_key(&debit.envelope.chain_id, debit.envelope.index);
        let absent = self.proofs(no, &key);
        Credit { debit, absent }
    }

    pub fn credit(&mut self, no: ChainNo, credit: &Credit) -> Result<SplitStep, Rejection> {
        let transfer = Transfer::parse(&credit.debit.payload).unwrap();
        let evidence = credit.to_bytes();
        let command = SplitCommand::Credit {
            chain: no,
            transfer: Move {
                sender: transfer.sender.as_bytes(),
                receiver: transfer.receiver.as_bytes(),
                amount: transfer.amount,
            },
            evidence: &evidence,
        };
        self.step(&command)
    }

    pub fn balance(&self, no: ChainNo, account: &str) -> Option<u128> {
        let reader = self.reader();
        let view = reader.chain_no(no).unwrap().unwrap();
        reader.balance(&view, account.as_bytes()).unwrap()
    }

    pub fn transit(&self, no: ChainNo) -> TransitRow {
        self.reader().transit(no).unwrap()
    }

    /// The value that the state of a chain's head has under a key.
    pub fn state(&self, no: ChainNo, state_key: &[u8]) -> Option<Vec<u8>> {
        let reader = self.reader();
        let view = reader.chain_no(no).unwrap().unwrap();
        let rows = reader.state(&view, view.head.height);
        let tree = StateTree {
            alg: ALG,
            rows: &rows,
        };
        tree.get(&state_key_hash(ALG, state_key)).unwrap()
    }

    /// Other batches, other restarts and an image give the same bytes.
    pub fn is_the_same_everywhere(&self) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (all, mut each) = (Replica::new(&store, 1), Replica::new(&store, 2));
        // What a fork reads is written before it.
        let alone = |one: &Vec<u8>, next: &Vec<u8>| !entry_forks(one) && !entry_forks(next);
        for batch in self.entries.chunk_by(alone) {
            all.apply(batch);
        }
        for entry in &self.entries {
            each.apply(std::slice::from_ref(entry));
            each.restart();
        }
        assert!(all.rows() == each.rows());
        assert!(all.rows() == self.replica.rows());
        assert!(each.engine.damages().is_empty());
        let fresh = tempfile::tempdir().unwrap();
        moved(&all, &open(fresh.path()), 5, None);
    }
}

pub fn transfer(sender: &str, receiver: &str, amount: u128) -> Transfer {
    Transfer {
        sender: sender.to_owned(),
        receiver: receiver.to_owned(),
        amount,
        memo: None,
    }
}
