//! Images that are not what the sender has: cut, swapped, repeated, garbled, or changed with their checksums made right.
//! Every one is refused, by the piece or at the end, and nothing panics.

use std::cell::Cell;

use proptest::prelude::*;
use qbc::chain::{HashAlg, StatePath};
use qbc::engine::{ImageError, ImageReceiver};
use qbc::store::{
    Cf, ChainNo, Slot, Store, View, pool_leaves_key, quant_key, state_row_key, tx_key,
};

use crate::image::{Group, pieces, put_state_of, take, varied};
use crate::model::Model;
use crate::replica::{Replica, open, plain_inject};

/// A sender, an older slot of its group, and the pieces for a receiver that has it.
struct Stage {
    store: Store,
    sender: Replica,
    base: Replica,
    pieces: Vec<Vec<u8>>,
    model: Model,
    /// The newest slot that a receiver got.
    slot: Cell<u32>,
    _dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (sender, base) = (Replica::new(&store, 1), Replica::new(&store, 2));
        let mut group = Group::new();
        let entries = varied(&mut group);
        sender.apply(&entries);
        base.apply(&entries);
        let more = [
            group.inject(1, &plain_inject([b"more".to_vec()])),
            group.leap(1, false),
            group.inject(1, &plain_inject([b"pooled".to_vec(), b"too".to_vec()])),
            group.bang("new", HashAlg::Sha3_256),
            group.inject(5, &plain_inject([b"x".to_vec()])),
            group.leap(5, false),
            // Rows of sixteen: one in Quant 2, more in the pool, whose leaves lie in two rows.
            group.inject(5, &plain_inject((1..41).map(|at| vec![at; 30]))),
            group.leap(5, false),
            group.inject(5, &plain_inject((0..300).map(|at| vec![at as u8; 30]))),
        ];
        sender.apply(&more);
        put_state_of(&store, sender.slot, ChainNo(1), 20);
        let mut stage = Self {
            store,
            sender,
            base,
            pieces: Vec::new(),
            model: group.model,
            slot: Cell::new(100),
            _dir: dir,
        };
        stage.pieces = pieces(&stage.sender, &mut stage.receiver()).0;
        stage
    }

    /// A receiver with a slot of its own.
    fn receiver(&self) -> ImageReceiver {
        self.slot.set(self.slot.get() + 1);
        let fresh = Slot(self.slot.get());
        ImageReceiver::new(self.store.clone(), fresh, Some(self.base.slot)).unwrap()
    }

    /// A receiver that has offered what it has.
    fn offered(&self) -> ImageReceiver {
        let mut receiver = self.receiver();
        while receiver.holdings().unwrap().is_some() {}
        receiver
    }

    fn take(&self, pieces: &[Vec<u8>]) -> Result<(), ImageError> {
        take(&mut self.offered(), pieces).map(drop)
    }

    /// The image of a sender with one row changed; `None` removes it.
    fn lie(&self, cf: Cf, key: &[u8], change: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> ImageError {
        let honest = self.store.get(cf, key).unwrap().unwrap();
        let mut batch = self.store.batch();
        match change(honest.clone()) {
            Some(row) => batch.put(cf, key, row),
            None => batch.delete(cf, key),
        }
        self.store.write(batch).unwrap();
        let mut receiver = self.receiver();
        let (pieces, _) = pieces(&self.sender, &mut receiver);
        let refused = take(&mut receiver, &pieces).unwrap_err();
        let mut batch = self.store.batch();
        batch.put(cf, key, honest);
        self.store.write(batch).unwrap();
        refused
    }
}

const STRIDE: usize = 37;

/// The key of the row that sixteen transactions of chain 5 lie in.
fn sixteen(slot: Slot, first: u64) -> Vec<u8> {
    [&tx_key(slot, ChainNo(5), first)[..], &[16]].concat()
}

/// The piece with its checksum made right.
fn sealed(mut piece: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&piece[4..]);
    piece[..4].copy_from_slice(&crc.to_be_bytes());
    piece
}

fn last_flipped(mut row: Vec<u8>) -> Vec<u8> {
    if let Some(last) = row.last_mut() {
        *last ^= 1;
    }
    row
}

#[test]
fn the_honest_image_is_taken() {
    let stage = Stage::new();
    assert!(stage.pieces.len() > 6);
    stage.take(&stage.pieces).unwrap();
    let replica = Replica::new(&stage.store, stage.slot.get());
    assert!(replica.rows() == stage.sender.rows());
    replica.check_all(&stage.model);
}

#[test]
fn pieces_that_are_missing_repeated_swapped_or_cut_are_refused() {
    let stage = Stage::new();
    let all = &stage.pieces;
    for at in 0..all.len() {
        let mut missing = all.clone();
        missing.remove(at);
        assert!(stage.take(&missing).is_err(), "without piece {at}");
        let mut twice = all.clone();
        twice.insert(at, all[at].clone());
        assert!(stage.take(&twice).is_err(), "piece {at} twice");
        let mut swapped = all.clone();
        swapped.swap(at, (at + 1) % all.len());
        assert!(stage.take(&swapped).is_err(), "piece {at} later");
        let mut cut = all.clone();
        let half = cut[at].len() / 2;
        cut[at].truncate(half);
        assert!(stage.take(&cut).is_err(), "piece {at} cut");
    }
    let mut receiver = stage.offered();
    assert!(receiver.put(b"").is_err());
    assert!(receiver.put(&all[0]).is_err(), "it failed once");
    assert!(receiver.finish().is_err());
}

#[test]
fn pieces_without_one_of_their_own_are_refused_though_numbers_and_checksums_are_right() {
    let stage = Stage::new();
    for at in 0..stage.pieces.len() - 1 {
        let mut fewer = stage.pieces.clone();
        fewer.remove(at);
        for (number, piece) in fewer.iter_mut().enumerate() {
            piece[4..12].copy_from_slice(&(number as u64).to_be_bytes());
            *piece = sealed(piece.clone());
        }
        assert!(stage.take(&fewer).is_err(), "without piece {at}");
    }
}

#[test]
fn a_sender_whose_sealed_data_is_damaged_is_refused_with_the_place() {
    let stage = Stage::new();
    let (slot, no) = (stage.sender.slot, ChainNo(1));
    let whole = "a group's image is not whole: chain ";
    let places: [(Cf, Vec<u8>, &str); 9] = [
        (
            Cf::Tx,
            sixteen(slot, 16),
            "new, Quant 2, transaction 31: its payload is not what was hashed",
        ),
        (
            Cf::Tx,
            sixteen(slot, 64),
            "new, Quant 3, transaction 79: its payload is not what was hashed",
        ),
        (
            Cf::Tx,
            tx_key(slot, no, 21),
            "a, Quant 3, transaction 21: its payload is not what was hashed",
        ),
        (
            Cf::Tx,
            tx_key(slot, no, 23),
            "a, Quant 4, transaction 23: its payload is not what was hashed",
        ),
        (
            Cf::Quant,
            quant_key(slot, no, 3),
            "a, Quant 3: its meta is not what its header says",
        ),
        (
            Cf::Tree,
            pool_leaves_key(slot, no, 22),
            "a, Quant 4, transaction 23: its row in the pool's tree is not what it gives",
        ),
        (
            Cf::Tree,
            pool_leaves_key(slot, ChainNo(5), 41),
            "new, Quant 3, transaction 280: its row in the pool's tree is not what it gives",
        ),
        (
            Cf::Tree,
            pool_leaves_key(slot, ChainNo(5), 281),
            "new, Quant 3, transaction 340: its row in the pool's tree is not what it gives",
        ),
        (
            Cf::Tree,
            qbc::store::history_edge_key(slot, no, 0, 3),
            "a, Quant 3: the edge of the history tree is not what it was",
        ),
    ];
    for (cf, key, told) in places {
        let refused = stage.lie(cf, &key, |row| Some(last_flipped(row)));
        let told = format!("{whole}{told}; ask another member for one");
        assert_eq!(refused.to_string(), told);
    }
}

#[test]
fn a_sender_that_lost_a_row_is_refused() {
    let stage = Stage::new();
    let (slot, no) = (stage.sender.slot, ChainNo(1));
    let rows = [
        (Cf::Tx, tx_key(slot, no, 21)),
        (Cf::Tx, tx_key(slot, no, 23)),
        (Cf::Tx, sixteen(slot, 16)),
        (Cf::Tx, sixteen(slot, 48)),
        (Cf::Quant, quant_key(slot, no, 3)),
        (Cf::Quant, quant_key(slot, ChainNo(5), 0)),
        (Cf::Tree, pool_leaves_key(slot, no, 22)),
        (Cf::Tree, pool_leaves_key(slot, ChainNo(5), 41)),
        (Cf::Tree, pool_leaves_key(slot, ChainNo(5), 281)),
        (Cf::Tree, qbc::store::history_edge_key(slot, no, 0, 1)),
        (Cf::Chain, qbc::store::pool_key(slot, no)),
        (Cf::Chain, qbc::store::chain_key(slot, no)),
    ];
    for (cf, key) in rows {
        let refused = stage.lie(cf, &key, |_| None);
        let told = refused.to_string();
        assert!(told.contains("ask another member"), "{told}");
    }
}

#[test]
fn a_row_that_belongs_to_no_chain_is_refused() {
    let stage = Stage::new();
    let slot = stage.sender.slot;
    let rows = [
        (Cf::Tx, tx_key(slot, ChainNo(1), 500)),
        (Cf::Tx, tx_key(slot, ChainNo(70), 0)),
        (Cf::Tx, tx_key(slot, ChainNo(5), 20)),
        (Cf::Tx, sixteen(slot, 336)),
        (Cf::Tx, sixteen(slot, 17)),
        (Cf::Quant, quant_key(slot, ChainNo(1), 9)),
        (
            Cf::Tree,
            qbc::store::quant_tile_key(slot, ChainNo(1), 3, 1, 0),
        ),
        (
            Cf::Tree,
            qbc::store::history_tile_key(slot, ChainNo(1), 0, 0),
        ),
        (
            Cf::Tree,
            qbc::store::history_edge_key(slot, ChainNo(1), 1, 0),
        ),
        (Cf::Tree, pool_leaves_key(slot, ChainNo(2), 700)),
        (Cf::Tree, pool_leaves_key(slot, ChainNo(4), 0)),
    ];
    for (cf, key) in rows {
        let mut batch = stage.store.batch();
        batch.put(cf, &key, [0; 48]);
        stage.store.write(batch).unwrap();
        let mut receiver = stage.receiver();
        let (pieces, _) = pieces(&stage.sender, &mut receiver);
        assert!(take(&mut receiver, &pieces).is_err(), "{cf:?} {key:?}");
        let mut batch = stage.store.batch();
        batch.delete(cf, &key);
        stage.store.write(batch).unwrap();
    }
    stage.take(&stage.pieces).unwrap();
}

#[test]
fn a_key_that_no_state_row_has_is_refused() {
    let stage = Stage::new();
    let path = StatePath::of(&[7; 32], 3);
    let key = state_row_key(stage.sender.slot, ChainNo(1), &(path, 5));
    for key in [&key[..key.len() - 1], &[&key[..], &[0]].concat()] {
        let mut batch = stage.store.batch();
        batch.put(Cf::State, key, b"row");
        stage.store.write(batch).unwrap();
        let mut receiver = stage.receiver();
        let (pieces, _) = pieces(&stage.sender, &mut receiver);
        let refused = take(&mut receiver, &pieces).unwrap_err().to_string();
        assert!(refused.contains("has a key that no row has"), "{refused}");
        let mut batch = stage.store.batch();
        batch.delete(Cf::State, key);
        stage.store.write(batch).unwrap();
    }
}

#[test]
fn any_byte_changed_under_a_right_checksum_is_noticed() {
    let stage = Stage::new();
    // Every 37th byte over all pieces, another bit each time.
    let places = stage.pieces.iter().enumerate();
    let places = places.flat_map(|(at, piece)| (4..piece.len()).map(move |byte| (at, byte)));
    for (turn, (at, byte)) in places.step_by(STRIDE).enumerate() {
        let mut lie = stage.pieces.clone();
        lie[at][byte] ^= 1 << (turn % 8);
        lie[at] = sealed(lie[at].clone());
        assert!(stage.take(&lie).is_err(), "piece {at}, byte {byte}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_refused_without_panic(kind in 0u8..6, body in prop::collection::vec(any::<u8>(), 0..120)) {
        thread_local! { static STAGE: Stage = Stage::new(); }
        let piece = sealed([[0; 12].as_slice(), &[kind], &body].concat());
        STAGE.with(|stage| {
            let mut receiver = stage.offered();
            let _ = receiver.put(&piece);
            let _ = receiver.put(&stage.pieces[0]);
            let snapshot = stage.store.snapshot();
            let mut sender = qbc::engine::ImageSender::new(&snapshot, stage.sender.slot);
            let _ = sender.hear(&piece);
            while sender.next_piece().unwrap().is_some() {}
        });
    }
}
