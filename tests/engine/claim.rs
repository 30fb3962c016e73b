//! The state of a chain over its splits, on replicas: what is claimed and credited is decided by evidence alone, each once,
//! alike in any batches and with any restarts; evidence that is forged, of another chain or shown twice changes nothing.

use qbc::chain::{
    ChainId, Constitution, Content, Credit, Debit, HashAlg, Mint, SplitEvidence, Splitting,
    StateClaim, StateTree, Transfer, balance_key, claimed_key, credited_key, latest_key, place_of,
    state_key_hash,
};
use qbc::engine::{
    InjectHead, InjectItem, Injected, Move, Outcome, Reader, Rejection, Seal, SplitCommand,
    SplitStep, TemplateRequest,
};
use qbc::store::{Branch, ChainNo, SubchainRow, TransitRow};

use crate::image::moved;
use crate::model::{BangAsk, constitution};
use crate::replica::{Replica, bang_bytes, entry, open};

const ALG: HashAlg = HashAlg::Sha3_256;
const TOP: ChainNo = ChainNo(1);
const MINT: u128 = 1000;

/// A group with one family of chains, and all entries that made it what it is.
struct World {
    replica: Replica,
    entries: Vec<Vec<u8>>,
    time_ms: u64,
    salt: u8,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(rules: Constitution) -> Self {
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

    fn keyed() -> Self {
        Self::new(Constitution {
            keyed: true,
            ..constitution("a", 1000)
        })
    }

    fn ledger() -> Self {
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

    fn apply(&mut self, command: Vec<u8>) -> Outcome {
        self.time_ms += 10;
        let entry = entry(self.time_ms, &[command]);
        let mut outcomes = self.replica.apply(std::slice::from_ref(&entry));
        self.entries.push(entry);
        outcomes.remove(0).remove(0)
    }

    fn step(&mut self, command: &SplitCommand<'_>) -> Result<SplitStep, Rejection> {
        match self.apply(command.encode()) {
            Outcome::Split(done) => done,
            other => panic!("{other:?}"),
        }
    }

    /// Splits a chain into two; gives their numbers.
    fn split(&mut self, no: ChainNo) -> [ChainNo; 2] {
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

    fn reader(&self) -> Reader<'_> {
        Reader::new(&self.replica.store, self.replica.slot)
    }

    fn sub(&self, no: ChainNo) -> Option<SubchainRow> {
        let view = self.reader().chain_no(no).unwrap().unwrap();
        self.reader().subchain(&view).unwrap()
    }

    fn above(&self, no: ChainNo) -> Vec<Branch> {
        self.sub(no).map_or_else(Vec::new, |sub| sub.above)
    }

    /// The split Quant of a chain, and those of the chains above it, the nearest first.
    fn evidence(&self, no: ChainNo) -> (Vec<u8>, Vec<Vec<u8>>) {
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

    fn leap(&mut self, no: ChainNo) {
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

    fn inject(&mut self, no: ChainNo, item: InjectItem<'_>) -> Result<Injected, Rejection> {
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

    fn put(&mut self, no: ChainNo, key: &str) -> Result<Injected, Rejection> {
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

    fn transfer(
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
    fn proofs(&self, no: ChainNo, state_key: &[u8]) -> Vec<Vec<u8>> {
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

    fn chain(&self, id: &ChainId) -> qbc::engine::ChainView {
        let reader = self.reader();
        let all = (1..100).map_while(|no| reader.chain_no(ChainNo(no)).unwrap());
        let mut found = all.filter(|view| view.chain_id == *id);
        found.next().expect("a chain of the family")
    }

    fn claim_of(&self, no: ChainNo, state_key: Vec<u8>) -> StateClaim {
        let proofs = self.proofs(no, &state_key);
        StateClaim { state_key, proofs }
    }

    fn claim(&mut self, no: ChainNo, claim: &StateClaim) -> Result<SplitStep, Rejection> {
        let bytes = claim.to_bytes();
        let claims = vec![bytes.as_slice()];
        self.step(&SplitCommand::Claim { chain: no, claims })
    }

    /// Does what the leaders do: claims what is not claimed, then tries again.
    fn transfer_claiming(&mut self, no: ChainNo, sides: (&str, &str), amount: u128) -> u64 {
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
    fn leaf(&self, routing_key: &str) -> ChainNo {
        let reader = self.reader();
        let mut view = reader.chain_no(TOP).unwrap().unwrap();
        while let Some(row) = reader.split(&view).unwrap() {
            let place = place_of(ALG, &view.chain_id, routing_key.as_bytes(), 2);
            view = self.chain(&row.children[place as usize].id);
        }
        view.no
    }

    fn names_in(&self, no: ChainNo, count: usize) -> Vec<String> {
        let names = (0..).map(|number| format!("name {number}"));
        names
            .filter(|name| self.leaf(name) == no)
            .take(count)
            .collect()
    }

    /// A debit as it is shown to a chain whose way parts from the debit's at a level.
    fn debit(&self, no: ChainNo, index: u64, parted: usize) -> Debit {
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

    fn credit_of(&self, no: ChainNo, debit: Debit) -> Credit {
        let key = credited_key(&debit.envelope.chain_id, debit.envelope.index);
        let absent = self.proofs(no, &key);
        Credit { debit, absent }
    }

    fn credit(&mut self, no: ChainNo, credit: &Credit) -> Result<SplitStep, Rejection> {
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

    fn balance(&self, no: ChainNo, account: &str) -> Option<u128> {
        let reader = self.reader();
        let view = reader.chain_no(no).unwrap().unwrap();
        reader.balance(&view, account.as_bytes()).unwrap()
    }

    fn transit(&self, no: ChainNo) -> TransitRow {
        self.reader().transit(no).unwrap()
    }

    /// The value that the state of a chain's head has under a key.
    fn state(&self, no: ChainNo, state_key: &[u8]) -> Option<Vec<u8>> {
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
    fn is_the_same_everywhere(&self) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (all, mut each) = (Replica::new(&store, 1), Replica::new(&store, 2));
        all.apply(&self.entries);
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

fn transfer(sender: &str, receiver: &str, amount: u128) -> Transfer {
    Transfer {
        sender: sender.to_owned(),
        receiver: receiver.to_owned(),
        amount,
        memo: None,
    }
}

#[track_caller]
fn refused_by<T: std::fmt::Debug>(done: Result<T, Rejection>, check: &str) {
    match done {
        Err(Rejection::BadEvidence(why)) => assert!(why.contains(check), "{why}"),
        other => panic!("{check} was expected: {other:?}"),
    }
}

fn unclaimed(done: Result<Injected, Rejection>) -> Vec<Vec<u8>> {
    match done {
        Err(Rejection::Unclaimed { state_keys, .. }) => state_keys,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_claimed_once_before_it_is_touched_also_two_splits_below() {
    let mut world = World::keyed();
    world.put(TOP, "old").unwrap();
    world.leap(TOP);
    let [first, second] = world.split(TOP);
    let (no, other) = match world.leaf("old") {
        no if no == first => (first, second),
        _ => (second, first),
    };
    let state_key = latest_key(b"old");
    assert_eq!(unclaimed(world.put(no, "old")), [state_key.clone()]);
    let claim = world.claim_of(no, state_key.clone());
    assert!(!world.claim(no, &claim).unwrap().duplicate);
    let before = world.replica.rows();
    assert!(world.claim(no, &claim).unwrap().duplicate, "once");
    assert!(world.replica.rows() == before);
    assert_eq!(world.put(no, "old").unwrap().runs[0].first, 2);
    world.leap(no);
    assert_eq!(
        world.state(no, &claimed_key(&state_key)),
        Some(1_u64.to_be_bytes().to_vec())
    );
    assert_eq!(
        world.state(no, &state_key),
        Some(2_u64.to_be_bytes().to_vec())
    );
    refused_by(world.claim(other, &claim), "another subchain");

    let [third, fourth] = world.split(no);
    let leaf = world.leaf("old");
    assert!(leaf == third || leaf == fourth);
    let claim = world.claim_of(leaf, state_key.clone());
    assert_eq!(claim.proofs.len(), 1, "the nearest chain had it");
    world.claim(leaf, &claim).unwrap();
    world.put(leaf, "old").unwrap();
    let new = world.names_in(leaf, 1).remove(0);
    let claim = world.claim_of(leaf, latest_key(new.as_bytes()));
    assert_eq!(claim.proofs.len(), 2, "no chain above had it");
    world.claim(leaf, &claim).unwrap();
    world.put(leaf, &new).unwrap();
    let view = world.reader().chain_no(leaf).unwrap().unwrap();
    assert_eq!(
        view.pool.next_index,
        2 + 2 + 2,
        "two split Quants, claims, data"
    );
    world.leap(leaf);
    world.is_the_same_everywhere();
}

#[test]
fn a_forged_claim_changes_nothing() {
    let mut world = World::keyed();
    world.put(TOP, "old").unwrap();
    world.split(TOP);
    let above = world.leaf("old");
    world.split(above);
    let no = world.leaf("old");
    let new = world.names_in(no, 2);
    let good = world.claim_of(no, latest_key(b"old"));
    let (absent, other) = (
        world.claim_of(no, latest_key(new[0].as_bytes())),
        world.claim_of(no, latest_key(new[1].as_bytes())),
    );
    let before = world.replica.rows();
    let with = |proofs: &[Vec<u8>], key: &[u8]| StateClaim {
        state_key: latest_key(key),
        proofs: proofs.to_vec(),
    };
    let mut changed = good.clone();
    let end = changed.proofs.last_mut().unwrap();
    let at = end.len() - 1;
    end[at] ^= 1;
    let cases = [
        (changed, "state-root"),
        (with(&good.proofs, new[0].as_bytes()), "state-"),
        (with(&other.proofs[..1], new[1].as_bytes()), "claim-above"),
        (with(&[], b"old"), "claim-above"),
        (
            with(
                &[absent.proofs.clone(), other.proofs.clone()].concat(),
                new[0].as_bytes(),
            ),
            "claim-above",
        ),
        (
            StateClaim {
                state_key: balance_key(b"bank"),
                proofs: world.proofs(no, &balance_key(b"bank")),
            },
            "another subchain, or of no state",
        ),
    ];
    for (claim, check) in cases {
        // More proofs than chains are above show nothing of any chain.
        if claim.proofs.len() > world.above(no).len() {
            refused_by(world.claim(no, &claim), "");
            continue;
        }
        refused_by(world.claim(no, &claim), check);
    }
    let bytes = good.to_bytes();
    for cut in [0, 1, 2, 5, bytes.len() - 1] {
        let claims = vec![&bytes[..cut]];
        let command = SplitCommand::Claim { chain: no, claims };
        refused_by(world.step(&command), "");
    }
    refused_by(world.claim(TOP, &good), "takes nothing over");
    assert!(world.replica.rows() == before, "nothing was decided");
    world.claim(no, &good).unwrap();
}

/// Names in both subchains and below one of them: `(chain, name)`.
fn spread(world: &World, leaves: &[ChainNo]) -> Vec<(ChainNo, String)> {
    let of = |no: &ChainNo| (*no, world.names_in(*no, 1).remove(0));
    leaves.iter().map(of).collect()
}

#[test]
fn an_amount_goes_to_another_subchain_once_and_the_sum_stays() {
    let mut world = World::ledger();
    let [first, second] = world.split(TOP);
    let [third, fourth] = world.split(first);
    let leaves = [second, third, fourth];
    let names = spread(&world, &leaves);
    let bank = world.leaf("bank");
    let sum = |world: &World| {
        let mut all: Vec<(ChainNo, &str)> = names
            .iter()
            .map(|(no, name)| (*no, name.as_str()))
            .collect();
        all.push((bank, "bank"));
        // The bank has the whole limit until it is taken over.
        let of = |(no, name): &(ChainNo, &str)| {
            let at_first = if *name == "bank" { MINT } else { 0 };
            world.balance(*no, name).unwrap_or(at_first)
        };
        let transit = leaves.iter().fold(0_u128, |sum, no| {
            let row = world.transit(*no);
            sum.wrapping_add(row.debited).wrapping_sub(row.credited)
        });
        (all.iter().map(of).sum::<u128>() + transit, transit)
    };
    assert_eq!(sum(&world), (MINT, 0));
    let mut moved = 0;
    for (to, name) in &names {
        let index = world.transfer_claiming(bank, ("bank", name), 100);
        if *to == bank {
            assert_eq!(world.balance(*to, name), Some(100));
            continue;
        }
        moved += 1;
        assert_eq!(sum(&world), (MINT, 100), "debited, not yet credited");
        assert_eq!(world.reader().debits(bank, 9).unwrap(), [index]);
        assert_eq!(world.replica.engine.debits_open().unwrap(), [bank]);
        world.leap(bank);
        let parted = if bank == second || *to == second {
            0
        } else {
            1
        };
        let credit = world.credit_of(*to, world.debit(bank, index, parted));
        let done = world.credit(*to, &credit);
        assert!(matches!(done, Err(Rejection::Unclaimed { .. })), "{done:?}");
        let claim = world.claim_of(*to, balance_key(name.as_bytes()));
        world.claim(*to, &claim).unwrap();
        assert!(!world.credit(*to, &credit).unwrap().duplicate);
        assert_eq!(sum(&world), (MINT, 0));
        assert!(world.credit(*to, &credit).unwrap().duplicate, "once");
        assert_eq!(world.balance(*to, name), Some(100));
        let settle = SplitCommand::SettleDebits {
            chain: bank,
            indexes: vec![index, index, 77],
        };
        assert!(!world.step(&settle).unwrap().duplicate);
        assert!(world.step(&settle).unwrap().duplicate);
        let row = world.transit(bank);
        assert_eq!((row.waiting, row.settled), (0, row.debited));
        assert!(world.replica.engine.debits_open().unwrap().is_empty());
        world.leap(*to);
        let key = credit.state_key();
        assert!(world.state(*to, &key).is_some(), "the state says it");
    }
    assert_eq!(moved, 2);
    assert_eq!(sum(&world), (MINT, 0));
    world.is_the_same_everywhere();
}

#[test]
fn a_credit_that_a_chain_had_before_its_split_is_not_given_again_below() {
    let mut world = World::ledger();
    let [first, second] = world.split(TOP);
    let bank = world.leaf("bank");
    let to = if bank == first { second } else { first };
    let name = world.names_in(to, 1).remove(0);
    let index = world.transfer_claiming(bank, ("bank", &name), 7);
    world.leap(bank);
    let credit = world.credit_of(to, world.debit(bank, index, 0));
    let claim = world.claim_of(to, balance_key(name.as_bytes()));
    world.claim(to, &claim).unwrap();
    world.credit(to, &credit).unwrap();
    world.split(to);
    assert!(matches!(
        world.credit(to, &credit),
        Err(Rejection::Split { .. })
    ));
    let leaf = world.leaf(&name);
    let claim = world.claim_of(leaf, balance_key(name.as_bytes()));
    world.claim(leaf, &claim).unwrap();
    assert_eq!(
        world.balance(leaf, &name),
        Some(7),
        "with what was credited"
    );
    let again = world.credit_of(leaf, world.debit(bank, index, 0));
    refused_by(world.credit(leaf, &again), "credit-once");
    let mut hidden = again.clone();
    hidden.absent = credit.absent.clone();
    refused_by(world.credit(leaf, &hidden), "state-root");
    assert_eq!(world.balance(leaf, &name), Some(7));
    world.is_the_same_everywhere();
}

#[test]
fn a_forged_credit_changes_nothing() {
    let mut world = World::ledger();
    let [first, second] = world.split(TOP);
    world.split(first);
    let (bank, other) = (world.leaf("bank"), world.leaf("name 0"));
    let to = (0..100)
        .map(|number| format!("name {number}"))
        .find(|name| {
            let leaf = world.leaf(name);
            leaf != bank && (leaf == second) != (bank == second)
        })
        .unwrap();
    let no = world.leaf(&to);
    let index = world.transfer_claiming(bank, ("bank", &to), 5);
    let local = world.names_in(bank, 1).remove(0);
    let inside = world.transfer_claiming(bank, ("bank", &local), 5);
    world.leap(bank);
    let claim = world.claim_of(no, balance_key(to.as_bytes()));
    world.claim(no, &claim).unwrap();
    let good = world.credit_of(no, world.debit(bank, index, 0));
    let before = world.replica.rows();
    let with = |change: &dyn Fn(&mut Credit)| {
        let mut credit = good.clone();
        change(&mut credit);
        credit
    };
    let more = transfer("bank", &to, 500).to_json().into_bytes();
    let from = transfer("name 99", &to, 5).to_json().into_bytes();
    let cases = [
        (
            with(&|one| one.debit.payload.clone_from(&more)),
            "credit-debit",
        ),
        (
            with(&|one| one.debit.payload.clone_from(&from)),
            "credit-debit",
        ),
        (with(&|one| one.debit.envelope.kind = 0), "inclusion-root"),
        (with(&|one| one.debit.envelope.index += 1), "in"),
        (with(&|one| one.debit.path.push([1; 32])), "inclusion-path"),
        (
            with(&|one| one.debit.header.tx_root = [9; 32]),
            "inclusion-root",
        ),
        (
            with(&|one| one.debit.header.chain_id = ChainId([9; 32])),
            "envelope-chain",
        ),
        (with(&|one| one.absent.clear()), "claim-above"),
        (
            with(&|one| one.debit = world.debit(bank, inside, 0)),
            "credit-route",
        ),
    ];
    for (credit, check) in cases {
        refused_by(world.credit(no, &credit), check);
    }
    if bank != second {
        refused_by(
            world.credit(no, &with(&|one| one.debit.ways.clear())),
            "credit-route",
        );
    }
    if other != no {
        let done = world.credit(other, &good);
        refused_by(done, "");
    }
    let bytes = good.to_bytes();
    for cut in [0, 1, 2, 300, bytes.len() - 1] {
        let command = SplitCommand::Credit {
            chain: no,
            transfer: Move {
                sender: b"bank",
                receiver: to.as_bytes(),
                amount: 5,
            },
            evidence: &bytes[..cut],
        };
        refused_by(world.step(&command), "");
    }
    assert!(world.replica.rows() == before, "nothing was decided");
    world.credit(no, &good).unwrap();
    let over = world.transfer(no, (&to, "bank"), 6);
    assert!(
        matches!(over, Err(Rejection::Overdraft { balance: 5, .. })),
        "{over:?}"
    );
}
