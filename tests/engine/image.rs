//! Images of a group: what arrives in the fresh slot is what the sender has, to the byte, and goes on like it; what the
//! receiver had already is not sent again; what is not as it was hashed is never taken.

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use qbc::chain::{Certificate, ChainId, Hash, HashAlg, SigningKey, StateTree, latest_value};
use qbc::engine::{
    Closing, GroupId, Holding, IMAGE_PIECE_BYTES_MAX, ImageClaim, ImageError, ImageReceiver,
    ImageSender, Put, drop_slot,
};
use qbc::store::{
    Cf, ChainNo, Lineage, Slot, StateAt, Store, chain_key, put_state, quant_key, tx_key,
};

use crate::model::{InjectAsk, Model};
use crate::operations::{State, Step, op};
use crate::replica::{
    Replica, bang_bytes, entry, inject_bytes, open, plain_bang, plain_inject, seal_bytes,
};

/// A chain that is no fork; its id decides nothing about its rows.
fn alone(no: ChainNo) -> Lineage {
    Lineage::new(no, ChainId([0; 32]), Vec::new())
}

/// What an image took.
pub struct Moved {
    pub replica: Replica,
    pub pieces: Vec<Vec<u8>>,
    pub holdings: u64,
    pub kept: usize,
}

impl Moved {
    fn bytes(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }
}

/// All pieces of a slot for a receiver.
pub fn pieces(sender: &Replica, receiver: &mut ImageReceiver) -> (Vec<Vec<u8>>, usize) {
    let snapshot = sender.store.snapshot();
    let mut image = ImageSender::new(&snapshot, sender.slot);
    while let Some(piece) = receiver.holdings().unwrap() {
        assert!(piece.len() <= 64 << 10);
        image.hear(&piece).unwrap();
    }
    let kept = image.kept();
    let mut pieces = Vec::new();
    while let Some(piece) = image.next_piece().unwrap() {
        assert!(piece.len() <= IMAGE_PIECE_BYTES_MAX);
        pieces.push(piece);
    }
    pieces.push(image.close(b""));
    (pieces, kept)
}

/// Takes pieces as one image.
pub fn take(receiver: &mut ImageReceiver, pieces: &[Vec<u8>]) -> Result<Closing, ImageError> {
    let mut closed = None;
    for piece in pieces {
        if let Put::Closed(closing) = receiver.put(piece)? {
            closed = Some(closing);
        }
    }
    receiver.finish()?;
    Ok(closed.expect("an image that is whole has an end"))
}

pub fn moved(sender: &Replica, store: &Store, fresh: u32, base: Option<Slot>) -> Moved {
    let mut receiver = ImageReceiver::new(store.clone(), Slot(fresh), base).unwrap();
    let (pieces, kept) = pieces(sender, &mut receiver);
    take(&mut receiver, &pieces).unwrap();
    let replica = Replica::new(store, fresh);
    let progress = receiver.progress();
    let rows = progress.rows.load(Ordering::Relaxed);
    let same = replica.rows();
    assert_eq!(rows, same.len() as u64);
    assert!(same == sender.rows(), "an image gives other bytes");
    Moved {
        replica,
        pieces,
        holdings: progress.offered.load(Ordering::Relaxed),
        kept,
    }
}

/// A group with its model, by entries that say what they do.
pub struct Group {
    pub model: Model,
    pub time_ms: u64,
}

impl Group {
    pub fn new() -> Self {
        Self {
            model: Model::default(),
            time_ms: 2000,
        }
    }

    pub fn bang(&mut self, name: &str, alg: HashAlg) -> Vec<u8> {
        let ask = plain_bang(name, alg);
        self.model.bang(self.time_ms, &ask);
        self.entry(&[bang_bytes(&ask)])
    }

    pub fn inject(&mut self, chain: u64, ask: &InjectAsk) -> Vec<u8> {
        self.model.inject(self.time_ms, ChainNo(chain), ask);
        self.entry(&[inject_bytes(ChainNo(chain), ask)])
    }

    pub fn leap(&mut self, chain: u64, is_final: bool) -> Vec<u8> {
        let own = self.model.chain(ChainNo(chain)).unwrap();
        let seal = own.next_header(own.txs.len() as u64, self.time_ms, b"n", is_final);
        self.model.seal(self.time_ms, ChainNo(chain), &seal);
        self.entry(&[seal_bytes(ChainNo(chain), &seal)])
    }

    fn entry(&mut self, commands: &[Vec<u8>]) -> Vec<u8> {
        self.model.end_entry(self.time_ms);
        let entry = entry(self.time_ms, commands);
        self.time_ms += 1;
        entry
    }
}

/// Transactions with everything that one can have.
fn rich(number: u64) -> InjectAsk {
    let item = |at: u64| crate::model::Item {
        // Type 1 is signed by an admin: `amend` has those.
        kind: 4 * (at % 2) as u8,
        id: if at.is_multiple_of(3) {
            format!("id {number} {at}").into_bytes()
        } else {
            Vec::new()
        },
        key: at.is_multiple_of(2).then(|| b"key".to_vec()),
        salt: (at % 5 == 1).then_some([at as u8; 32]),
        payload: vec![number as u8; 20 * at as usize],
    };
    InjectAsk {
        request_id: format!("request {number}").into_bytes(),
        items: (0..6).map(item).collect(),
        ..plain_inject([])
    }
}

/// Chains of both algorithms: sealed, pooled, closed, without a transaction.
pub fn varied(group: &mut Group) -> Vec<Vec<u8>> {
    let mut entries = vec![
        group.bang("a", HashAlg::Sha3_256),
        group.bang("b/0", HashAlg::Sha2_256),
        group.bang("closed", HashAlg::Sha3_256),
        group.bang("empty", HashAlg::Sha3_256),
    ];
    for round in 0..3 {
        for chain in 1..=3 {
            entries.push(group.inject(chain, &rich(10 * chain + round)));
            entries.push(group.inject(chain, &plain_inject([vec![round as u8; 40]])));
            if round < 2 {
                entries.push(group.leap(chain, false));
            }
        }
    }
    entries.push(group.leap(3, true));
    entries
}

/// Quants with many transactions on one chain.
fn long(group: &mut Group, chain: u64, quants: u64, each: u64) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    for quant in 0..quants {
        let payload = |at: u64| [quant.to_be_bytes(), at.to_be_bytes()].concat().repeat(5);
        entries.push(group.inject(chain, &plain_inject((0..each).map(payload))));
        entries.push(group.leap(chain, false));
    }
    entries
}

fn flip(store: &Store, cf: Cf, key: &[u8]) {
    use qbc::store::View;
    let mut row = store.get(cf, key).unwrap().unwrap();
    *row.last_mut().unwrap() ^= 1;
    let mut batch = store.batch();
    batch.put(cf, key, row);
    store.write(batch).unwrap();
}

fn applied(store: &Store, slot: u32, entries: &[Vec<u8>]) -> Replica {
    let replica = Replica::new(store, slot);
    replica.apply(entries);
    replica
}

#[test]
fn an_image_into_an_empty_store_is_the_same_to_the_byte_and_goes_on_the_same() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut group = Group::new();
    let sender = applied(&open(dir.path()), 1, &varied(&mut group));
    let store = open(other.path());
    let moved = moved(&sender, &store, 9, None);
    assert_eq!((moved.holdings, moved.kept), (0, 0));
    moved.replica.check_all(&group.model);
    moved.replica.check_view(&group.model, group.time_ms);
    let more = [
        group.inject(1, &rich(10)),
        group.leap(1, false),
        group.inject(4, &rich(99)),
        group.leap(4, true),
        group.bang("late", HashAlg::Sha3_256),
    ];
    assert_eq!(moved.replica.apply(&more), sender.apply(&more));
    assert!(moved.replica.rows() == sender.rows());
    moved.replica.check_all(&group.model);
}

/// Puts a state of so many keys beside a chain, in two Quants' rows; its root.
pub fn put_state_of(store: &Store, slot: Slot, chain: ChainNo, keys: u64) -> Hash {
    let alg = HashAlg::Sha3_256;
    let mut root = alg.empty();
    for height in 1..=2 {
        let rows = StateAt {
            view: store,
            slot,
            lineage: alone(chain),
            height: height - 1,
        };
        let keys = (0..keys).filter(|key| height == 1 || key % 2 == 0);
        let mut writes: Vec<(Hash, [u8; 8])> = keys
            .map(|key| (alg.leaf(&key.to_be_bytes()), latest_value(height + key)))
            .collect();
        writes.sort_unstable();
        let change = StateTree { alg, rows: &rows }
            .update(height, &writes)
            .unwrap();
        root = change.root();
        let mut batch = store.batch();
        put_state(&mut batch, slot, chain, &change);
        store.write(batch).unwrap();
    }
    root
}

#[test]
fn the_state_of_a_chain_travels_with_it_at_all_its_heights() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    let sender = Replica::new(&store, 1);
    let mut group = Group::new();
    sender.apply(&varied(&mut group));
    let newest = put_state_of(&store, sender.slot, ChainNo(1), 200);
    let moved = moved(&sender, &open(other.path()), 3, None);
    let root = |replica: &Replica, height| {
        let rows = StateAt {
            view: &replica.store,
            slot: replica.slot,
            lineage: alone(ChainNo(1)),
            height,
        };
        let tree = StateTree {
            alg: HashAlg::Sha3_256,
            rows: &rows,
        };
        tree.root().unwrap()
    };
    assert_eq!(root(&moved.replica, 2), newest);
    assert_ne!(root(&moved.replica, 1), newest);
    assert_eq!(root(&moved.replica, 1), root(&sender, 1));
    let mut batch = store.batch();
    drop_slot(&mut batch, sender.slot);
    store.write(batch).unwrap();
    assert_eq!(root(&sender, 2), HashAlg::Sha3_256.empty());
}

#[test]
fn a_group_without_a_chain_has_an_image_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let moved = moved(&Replica::new(&store, 1), &store, 2, Some(Slot(3)));
    assert_eq!((moved.pieces.len(), moved.holdings), (1, 0));
}

#[test]
fn what_the_receiver_has_sealed_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut group = Group::new();
    let mut entries = varied(&mut group);
    entries.extend(long(&mut group, 1, 4, 600));
    let (sender, base) = (applied(&store, 1, &entries), applied(&store, 2, &entries));
    let mut more = long(&mut group, 1, 1, 20);
    more.push(group.inject(2, &rich(77)));
    sender.apply(&more);
    let whole = moved(&sender, &store, 3, None);
    let suffix = moved(&sender, &store, 4, Some(base.slot));
    assert_eq!((suffix.holdings, suffix.kept), (3, 3));
    assert!(suffix.bytes() * 10 < whole.bytes());
    suffix.replica.check_all(&group.model);
}

/// The key of a row of a chain.
type Key = fn(Slot, ChainNo) -> Vec<u8>;

#[test]
fn a_chain_that_is_damaged_in_the_base_is_sent_whole_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut group = Group::new();
    let entries = varied(&mut group);
    let sender = applied(&store, 1, &entries);
    let no = ChainNo(1);
    let places: [(Cf, Key); 5] = [
        (Cf::Tx, |slot, no| tx_key(slot, no, 3)),
        (Cf::Quant, |slot, no| quant_key(slot, no, 1)),
        (Cf::Tree, |slot, no| {
            qbc::store::quant_tile_key(slot, no, 2, 0, 0)
        }),
        (Cf::Chain, chain_key),
        (Cf::Quant, |slot, no| quant_key(slot, no, 0)),
    ];
    for (at, (cf, key)) in places.into_iter().enumerate() {
        let base = applied(&store, 10 + at as u32, &entries);
        flip(&store, cf, &key(base.slot, no));
        let before = base.rows();
        let moved = moved(&sender, &store, 20 + at as u32, Some(base.slot));
        assert_eq!((moved.holdings, moved.kept), (2, 2), "place {at}");
        assert!(base.rows() == before);
        let mut batch = store.batch();
        batch.delete(cf, key(base.slot, ChainNo(2)));
        store.write(batch).unwrap();
        let mut receiver = ImageReceiver::new(store.clone(), Slot(40), Some(base.slot)).unwrap();
        let held = receiver.holdings().unwrap().unwrap();
        assert_eq!(held.len(), 13 + Holding::BYTES, "place {at}");
    }
}

#[test]
fn a_chain_that_went_another_way_in_the_base_is_sent_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut group = Group::new();
    let entries = varied(&mut group);
    let sender = applied(&store, 1, &entries);
    let mut other = Group::new();
    let base = applied(&store, 2, &varied(&mut other));
    base.apply(&[other.inject(1, &rich(50)), other.leap(1, false)]);
    sender.apply(&[group.inject(1, &rich(51)), group.leap(1, false)]);
    let moved = moved(&sender, &store, 3, Some(base.slot));
    assert_eq!((moved.holdings, moved.kept), (3, 2));
    // The base is further than the sender: what the sender does not have is no agreement.
    let ahead = applied(&store, 4, &entries);
    let moved = self::moved(&ahead, &store, 5, Some(sender.slot));
    assert_eq!((moved.holdings, moved.kept), (3, 2));
}

#[test]
fn a_group_of_many_rows_comes_in_many_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut group = Group::new();
    let mut entries = vec![
        group.bang("many", HashAlg::Sha3_256),
        group.bang("small", HashAlg::Sha3_256),
    ];
    entries.extend(long(&mut group, 1, 3, 9_000));
    entries.extend(long(&mut group, 2, 700, 1));
    let pooled = (0..3_000u64).map(|at| at.to_be_bytes().to_vec());
    entries.push(group.inject(1, &plain_inject(pooled)));
    entries.extend((0..40).map(|at| group.inject(2, &plain_inject([vec![at]]))));
    let sender = applied(&store, 1, &entries);
    let whole = moved(&sender, &store, 2, None);
    assert!(whole.pieces.len() > 8, "{} pieces", whole.pieces.len());
    let longest = whole.pieces.iter().map(Vec::len).max();
    assert!(longest < Some((1 << 20) + 4096), "{longest:?}");
    let again = moved(&sender, &store, 3, Some(whole.replica.slot));
    assert!(again.bytes() * 5 < whole.bytes());
    // The leaves of one entry lie in several rows: read again they are what the sender has in memory, and all go.
    let more = [group.leap(1, false), group.leap(2, false)];
    assert_eq!(whole.replica.apply(&more), sender.apply(&more));
    assert!(whole.replica.rows() == sender.rows());
    whole.replica.check_all(&group.model);
}

#[test]
fn a_dropped_slot_has_no_rows_and_its_neighbours_have_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let entries = varied(&mut Group::new());
    let replicas: Vec<Replica> = (1..4).map(|slot| applied(&store, slot, &entries)).collect();
    let refused = ImageReceiver::new(store.clone(), Slot(2), None);
    assert!(matches!(refused, Err(ImageError::Differs(_))));
    let mut batch = store.batch();
    drop_slot(&mut batch, Slot(2));
    store.write(batch).unwrap();
    assert!(replicas[1].rows().is_empty());
    assert!(replicas[0].rows() == replicas[2].rows() && !replicas[0].rows().is_empty());
    assert!(ImageReceiver::new(store, Slot(2), None).is_ok());
}

#[test]
fn a_claim_holds_for_the_node_that_signed_it_and_for_nothing_else() {
    let key = SigningKey::from_seed([1; 32]);
    let certificate = Certificate {
        cluster_id: [4; 16],
        node_id: 7,
        alg: 1,
        public_key: key.public().to_vec(),
        not_before_s: 0,
        not_after_s: u64::MAX,
        signatures: Vec::new(),
    };
    let claim = ImageClaim {
        cluster_id: [4; 16],
        node_id: 7,
        group: GroupId(3),
        applied: (5, 1 << 32 | 7, 900),
        state: [1; 32],
        heads: [2; 32],
    };
    let message = claim.message();
    assert!(message.starts_with(b"qbc/snapshot/v1\n\0") && message.len() == 17 + 116);
    let signature = key.sign(&message);
    claim.verify(&certificate, &signature).unwrap();
    let others = [
        ImageClaim {
            node_id: 8,
            ..claim
        },
        ImageClaim {
            group: GroupId(4),
            ..claim
        },
        ImageClaim {
            applied: (5, 7, 901),
            ..claim
        },
        ImageClaim {
            state: [3; 32],
            ..claim
        },
        ImageClaim {
            heads: [3; 32],
            ..claim
        },
        ImageClaim {
            cluster_id: [5; 16],
            ..claim
        },
    ];
    for other in others {
        let refused = other.verify(&certificate, &signature);
        assert!(matches!(refused, Err(ImageError::Signature(_))));
    }
    assert!(claim.verify(&certificate, b"").is_err());
}

/// The entries of these operations; what is no entry is left out.
fn entries(state: State, ops: &[crate::operations::Op]) -> (State, Vec<Vec<u8>>) {
    let mut all = Vec::new();
    let state = ops.iter().fold(state, |state, op| {
        let state = state.apply(op);
        if let Step::Entries { entries, .. } = &state.last {
            all.extend(entries.clone());
        }
        state
    });
    (state, all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_group_moves_as_a_whole_and_onto_any_earlier_state_and_goes_on_the_same(
        before in prop::collection::vec(op(), 1..25),
        between in prop::collection::vec(op(), 0..25),
        after in prop::collection::vec(op(), 1..15),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (sender, base) = (Replica::new(&store, 1), Replica::new(&store, 2));
        let (state, first) = entries(State::new(), &before);
        sender.apply(&first);
        base.apply(&first);
        let (state, second) = entries(state, &between);
        sender.apply(&second);
        let whole = moved(&sender, &store, 3, None);
        let suffix = moved(&sender, &store, 4, Some(base.slot));
        prop_assert_eq!(suffix.holdings as usize, suffix.kept);
        let (state, third) = entries(state, &after);
        let outcomes = sender.apply(&third);
        for replica in [&whole.replica, &suffix.replica] {
            prop_assert_eq!(&replica.apply(&third), &outcomes);
            prop_assert!(replica.rows() == sender.rows());
            replica.check_all(&state.model);
        }
    }
}
