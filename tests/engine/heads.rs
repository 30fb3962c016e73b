//! The log of heads: what moved is in it once, in an order that every replica has, whatever restarts and shares a batch; it
//! comes with images, and an image that lies about it is not taken. The super log takes what its groups can show, and
//! nothing else.

use std::ops::ControlFlow;

use qbc::chain::{
    Authority, Frontier, GroupLeaf, Hash, HashAlg, HeadLeaf, LeafReader, SUPER_LOG_ALG,
    consistency_path, tree_root, verify_inclusion,
};
use qbc::engine::{
    CommandWriter, Engine, Founding, HEADS_PER_TICK, ImageError, ImageReceiver, META_GROUP,
    MemberCommand, Outcome, Reader, Report, ReportItem, replica_id, tick_command,
};
use qbc::store::{
    Cf, ChainNo, LOG_CHAIN, Slot, Store, View, head_log_key, history_edge_key, leaf_key,
    logged_key, moved_key, report_key,
};

use crate::image::{Group, moved, pieces, take};
use crate::replica::{Replica, entry, open, plain_inject};

const ALG: HashAlg = SUPER_LOG_ALG;

fn tick() -> Vec<u8> {
    entry(9000, &[tick_command()])
}

fn logged(outcomes: &[Vec<Outcome>]) -> Vec<u64> {
    let all = outcomes.iter().flatten();
    all.filter_map(|outcome| match outcome {
        Outcome::Logged(count) => Some(*count),
        _ => None,
    })
    .collect()
}

fn leaves(replica: &Replica) -> Vec<HeadLeaf> {
    let reader = Reader::new(&replica.store, replica.slot);
    let leaves = reader.log_leaves(0, usize::MAX).unwrap();
    let leaves = leaves.iter().map(|leaf| HeadLeaf::parse(leaf).unwrap());
    leaves.collect()
}

/// A moment of three chains: entries, and the ticks among them.
fn story() -> Vec<Vec<u8>> {
    let mut group = Group::new();
    let mut entries = vec![tick()];
    for name in ["a", "b", "c"] {
        entries.push(group.bang(name, HashAlg::Sha3_256));
    }
    entries.push(tick());
    for round in 0..3u8 {
        for chain in [1, 3] {
            entries.push(group.inject(chain, &plain_inject([vec![round, chain as u8]])));
            entries.push(group.leap(chain, false));
        }
        entries.push(tick());
    }
    entries.extend([tick(), tick()]);
    entries
}

#[test]
fn heads_that_moved_are_logged_once_and_alike_on_replicas_that_share_batches_and_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (one, mut two, three) = (
        Replica::new(&store, 1),
        Replica::new(&store, 2),
        Replica::new(&store, 3),
    );
    let entries = story();
    let counts = logged(&one.apply(&entries));
    assert_eq!(counts, [0, 3, 2, 2, 2, 0, 0]);
    let mut found = Vec::new();
    for each in &entries {
        found.extend(logged(&two.apply(std::slice::from_ref(each))));
        two.restart();
    }
    assert_eq!(found, counts);
    for some in entries.chunks(5) {
        three.apply(some);
    }
    assert!(one.rows() == two.rows() && one.rows() == three.rows());
    let heights: Vec<u64> = leaves(&one).iter().map(|leaf| leaf.height).collect();
    assert_eq!(heights, [0, 0, 0, 1, 1, 2, 2, 3, 3]);
    assert!(!one.engine.has_unlogged().unwrap());
}

#[test]
fn each_logged_head_is_found_and_proved_into_the_log_at_any_size_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    replica.apply(&story());
    let reader = Reader::new(&replica.store, replica.slot);
    let all = leaves(&replica);
    let hashes: Vec<Hash> = all.iter().map(|leaf| ALG.leaf(&leaf.to_bytes())).collect();
    assert_eq!(reader.log().unwrap().root(ALG), tree_root(ALG, &hashes));
    let chain = reader.chain("c").unwrap();
    for (height, at) in [(0, 0), (1, 1), (3, 3)] {
        let (found, index) = reader.logged(&chain, height).unwrap().unwrap();
        assert_eq!((found, all[index as usize].id), (at, chain.chain_id));
        for size in index + 1..=hashes.len() as u64 {
            let path = reader.log_path(index, size).unwrap();
            let root = reader.log_root(size).unwrap();
            verify_inclusion(ALG, &hashes[index as usize], index, size, &path, &root).unwrap();
        }
    }
    let quiet = reader.chain("b").unwrap();
    assert_eq!(
        reader.logged(&quiet, 0).unwrap().map(|found| found.0),
        Some(0)
    );
    assert_eq!(reader.logged(&quiet, 1).unwrap(), None);
}

#[test]
fn a_tick_takes_so_many_heads_and_the_next_one_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    let mut group = Group::new();
    let count = HEADS_PER_TICK + 700;
    let bangs: Vec<Vec<u8>> = (0..count)
        .map(|i| group.bang(&format!("c{i}"), HashAlg::Sha2_256))
        .collect();
    replica.apply(&bangs);
    let first = replica.apply(&[tick()]);
    assert_eq!(logged(&first), [HEADS_PER_TICK as u64]);
    // The first chain moves again: it comes behind those that wait.
    let again = [
        group.inject(1, &plain_inject([b"x".to_vec()])),
        group.leap(1, false),
    ];
    replica.apply(&again);
    assert!(replica.engine.has_unlogged().unwrap());
    assert_eq!(logged(&replica.apply(&[tick(), tick()])), [701, 0]);
    let all = leaves(&replica);
    assert_eq!((all.len(), all[count].height), (count + 1, 1));
    let reader = Reader::new(&replica.store, replica.slot);
    let hashes: Vec<Hash> = all.iter().map(|leaf| ALG.leaf(&leaf.to_bytes())).collect();
    let tile = reader.log_tile(0, 2).unwrap();
    assert_eq!(tile, hashes[512..768].as_flattened());
    let upper = reader.log_tile(1, 0).unwrap();
    assert_eq!(upper.len(), count / 256 * 32);
    assert_eq!(upper[..32], tree_root(ALG, &hashes[..256]));
    assert_eq!(
        reader.log_root(count as u64 + 1).unwrap(),
        tree_root(ALG, &hashes)
    );
}

#[test]
fn an_image_brings_the_log_and_goes_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sender = Replica::new(&store, 1);
    let mut entries = story();
    let rest = entries.split_off(entries.len() - 4);
    sender.apply(&entries);
    let other = tempfile::tempdir().unwrap();
    let taken = moved(&sender, &open(other.path()), 7, None).replica;
    sender.apply(&rest);
    taken.apply(&rest);
    assert!(sender.rows() == taken.rows());
}

/// A change of rows after which an image is not taken.
fn refused_after(entries: &[Vec<u8>], what: &str, change: impl FnOnce(&Replica)) {
    let dir = tempfile::tempdir().unwrap();
    let sender = Replica::new(&open(dir.path()), 1);
    sender.apply(entries);
    change(&sender);
    let other = tempfile::tempdir().unwrap();
    let mut receiver = ImageReceiver::new(open(other.path()), Slot(3), None).unwrap();
    let (pieces, _) = pieces(&sender, &mut receiver);
    let taken = take(&mut receiver, &pieces);
    assert!(
        matches!(&taken, Err(ImageError::Differs(why)) if why.contains("log of heads")),
        "{what}: {taken:?}"
    );
}

fn put(replica: &Replica, cf: Cf, key: Vec<u8>, row: &[u8]) {
    let mut batch = replica.store.batch();
    batch.put(cf, key, row);
    replica.store.write(batch).unwrap();
}

#[test]
fn an_image_whose_log_is_not_that_of_its_chains_is_not_taken() {
    let entries = story();
    let forged = HeadLeaf {
        id: qbc::chain::ChainId([7; 32]),
        height: 1,
        quant_hash: [8; 32],
    };
    let forged = forged.to_bytes();
    refused_after(&entries, "another leaf", |sender| {
        put(sender, Cf::Quant, leaf_key(sender.slot, 3), &forged);
    });
    refused_after(&entries, "a leaf that is no head", |sender| {
        put(sender, Cf::Quant, leaf_key(sender.slot, 3), b"none");
    });
    refused_after(&entries, "a leaf beyond the end", |sender| {
        put(sender, Cf::Quant, leaf_key(sender.slot, 9), &forged);
    });
    refused_after(&entries, "another hash at the edge", |sender| {
        let key = history_edge_key(sender.slot, LOG_CHAIN, 0, 4);
        put(sender, Cf::Tree, key, &[9; 32]);
    });
    refused_after(&entries, "a head found at another's place", |sender| {
        let key = logged_key(sender.slot, ChainNo(1), 1);
        put(sender, Cf::Index, key, &0u64.to_be_bytes());
    });
    refused_after(&entries, "a head that waits and is none", |sender| {
        put(
            sender,
            Cf::Index,
            moved_key(sender.slot, ChainNo(2)),
            &forged,
        );
    });
    refused_after(&entries, "a log of another size", |sender| {
        let mut row = Frontier::new();
        (0..8u8).for_each(|i| row.push(ALG, ALG.leaf(&[i])));
        let row = [
            &row.size().to_be_bytes()[..],
            &[0; 8],
            row.peaks().as_flattened(),
        ]
        .concat();
        put(sender, Cf::State, head_log_key(sender.slot), &row);
    });
}

/// A meta group whose data group 1 has voters on nodes 1 and 2, and one that goes on node 3.
struct Meta {
    engine: Engine,
    store: Store,
    slot: Slot,
    _dir: tempfile::TempDir,
}

impl Meta {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, slot) = (open(dir.path()), Slot(1));
        let meta = Self {
            engine: Engine::new(META_GROUP, slot, store.clone()),
            store,
            slot,
            _dir: dir,
        };
        let authority = Authority {
            threshold: 1,
            roots: vec![[1; 32]],
        };
        let seats = |epoch, voters: &[u64]| {
            let command = MemberCommand::Seat {
                group: 1,
                class: 3,
                epoch,
                voters: voters.to_vec(),
                learners: vec![4],
            };
            command.encode()
        };
        let founding = Founding {
            cluster_id: [9; 16],
            groups: 2,
            authority: &authority.to_bytes(),
        };
        meta.apply(&[
            founding.encode(),
            seats(0, &[1, 3, 5]),
            seats(1, &[1, 2, 5]),
        ]);
        assert_eq!(replica_id(0, 3), 3);
        meta
    }

    fn apply(&self, commands: &[Vec<u8>]) -> Vec<Outcome> {
        let mut writer = CommandWriter::new(5000, 0);
        for command in commands {
            writer.push(command);
        }
        let mut batch = self.store.batch();
        let outcomes = self.engine.apply(&writer.finish(), &mut batch).unwrap();
        self.store.write(batch).unwrap();
        self.engine.written();
        outcomes
    }

    fn report(&self, items: Vec<ReportItem>) -> u64 {
        match self.apply(&[Report { items }.encode()])[..] {
            [Outcome::Logged(kept)] => kept,
            ref other => panic!("{other:?}"),
        }
    }

    fn size(&self) -> u64 {
        Reader::new(&self.store, self.slot).log().unwrap().size()
    }
}

/// The log of group 1 at a size, as a node reports it after another size.
fn report(from: usize, to: usize, node_id: u64) -> ReportItem {
    let leaves: Vec<Hash> = (0..to as u64).map(|i| ALG.leaf(&i.to_be_bytes())).collect();
    let reader = LeafReader {
        alg: ALG,
        leaves: &leaves,
    };
    let Ok(path) = consistency_path(ALG, &reader, from as u64, to as u64);
    ReportItem {
        leaf: GroupLeaf {
            group: 1,
            size: to as u64,
            root: tree_root(ALG, &leaves),
        },
        node_id,
        signature: vec![5; 64],
        path,
    }
}

#[test]
fn the_super_log_takes_logs_that_only_grew_from_nodes_that_vote_in_them() {
    let meta = Meta::new();
    let first = report(0, 5, 1);
    let of = |change: &dyn Fn(&mut ReportItem)| {
        let mut item = report(0, 5, 1);
        change(&mut item);
        item
    };
    let bad = [
        ("a stranger", of(&|item| item.node_id = 6)),
        ("a follower", of(&|item| item.node_id = 4)),
        ("an unknown group", of(&|item| item.leaf.group = 2)),
        ("the meta group itself", of(&|item| item.leaf.group = 0)),
        (
            "a path where none is due",
            of(&|item| item.path.push([1; 32])),
        ),
        ("nothing", report(0, 0, 1)),
    ];
    for (what, item) in bad {
        assert_eq!(meta.report(vec![item]), 0, "{what}");
    }
    // Twice in one command: the second is old by then.
    assert_eq!(meta.report(vec![first.clone(), first.clone()]), 1);
    let next = report(5, 9, 2);
    let mut forged = next.clone();
    forged.leaf.root[0] ^= 1;
    assert_eq!(
        meta.report(vec![forged, report(0, 9, 2), report(4, 9, 2)]),
        0
    );
    assert_eq!(meta.report(vec![report(0, 3, 1)]), 0, "it shrank");
    assert_eq!(meta.report(vec![next.clone()]), 1);
    assert_eq!(
        meta.report(vec![report(9, 11, 3)]),
        1,
        "its seat is going, not gone"
    );
    assert_eq!(meta.size(), 3);
    let reader = Reader::new(&meta.store, meta.slot);
    let found = |size| reader.reported(1, size).unwrap();
    assert_eq!(
        found(1).map(|found| (found.leaf, found.index)),
        Some((first.leaf, 0))
    );
    assert_eq!(
        found(6).map(|found| (found.leaf, found.node_id)),
        Some((next.leaf, 2))
    );
    assert_eq!(found(12), None);
    assert_eq!(
        reader.reported_last(1).unwrap().map(|leaf| leaf.size),
        Some(11)
    );
    let row = meta
        .store
        .get(Cf::Index, &report_key(meta.slot, 1, 9))
        .unwrap();
    assert!(row.unwrap().ends_with(&[5; 64]), "the signature is kept");
}

#[test]
fn a_meta_group_that_was_restarted_knows_what_was_reported() {
    let mut meta = Meta::new();
    assert_eq!(meta.report(vec![report(0, 5, 1)]), 1);
    meta.engine = Engine::new(META_GROUP, meta.slot, meta.store.clone());
    assert_eq!(meta.report(vec![report(0, 6, 1)]), 0);
    assert_eq!(meta.report(vec![report(5, 6, 1)]), 1);
    let mut rows = Vec::new();
    let (from, to) = (meta.slot.0.to_be_bytes(), (meta.slot.0 + 1).to_be_bytes());
    let mut each = |key: &[u8], _: &[u8]| {
        rows.push(key.to_vec());
        ControlFlow::Continue(())
    };
    meta.store.scan(Cf::Quant, &from, &to, &mut each).unwrap();
    assert_eq!(rows, [leaf_key(meta.slot, 0), leaf_key(meta.slot, 1)]);
}
