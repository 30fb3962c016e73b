//! What the pure parts cost: hashing, trees, proofs, headers, signatures.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qbc::chain::{
    Authority, Certificate, Claim, Envelope, Hash, HashAlg, HeadEvidence, HeadSignature, Header,
    LeafReader, NodeKey, NodeReader, Proof, SigAlg, SigningKey, StatePath, StatePlace, StateRows,
    StateTree, Step, TransactionEvidence, Trust, anchor_leaf, bare_kernel, find_nonce,
    genesis_header, head_message, inclusion_path, latest_value, payload_hash, tree_root, verify,
    verify_inclusion,
};

const ALG: HashAlg = HashAlg::Sha3_256;
const BATCH: usize = 1000;

criterion_group!(
    benches, hashing, trees, composed, states, headers, mining, signatures
);
criterion_main!(benches);

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("hashing");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, bytes) in [
        ("envelope", 128),
        ("payload-256", 256),
        ("payload-1k", 1024),
    ] {
        let data: Vec<Vec<u8>> = (0..BATCH).map(|i| vec![i as u8; bytes]).collect();
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        group.bench_function(format!("leaf_each/{name}"), |b| {
            b.iter(|| ALG.leaf_each(black_box(&data)));
        });
    }
    let level = leaves(2 * BATCH);
    group.bench_function("node_each", |b| b.iter(|| ALG.node_each(black_box(&level))));
    group.bench_function("node_each/sha2-256", |b| {
        b.iter(|| HashAlg::Sha2_256.node_each(black_box(&level)));
    });
    group.finish();
}

fn trees(c: &mut Criterion) {
    let leaves = leaves(100_000);
    c.bench_function("tree_root/100k", |b| {
        b.iter(|| tree_root(ALG, black_box(&leaves)));
    });
    let size = (1 << 24) - 1;
    let Ok(path) = inclusion_path(ALG, &SameNodes, 0, size);
    let (leaf, root) = (ALG.leaf(b"leaf"), climbed(&path));
    assert_eq!(path.len(), 24);
    c.bench_function("verify_inclusion/24-levels", |b| {
        b.iter(|| verify_inclusion(ALG, black_box(&leaf), 0, size, black_box(&path), &root));
    });
    let reader = LeafReader {
        alg: ALG,
        leaves: &leaves[..1000],
    };
    c.bench_function("inclusion_path/1000-leaves", |b| {
        b.iter(|| inclusion_path(ALG, &reader, black_box(421), 1000));
    });
}

/// A transaction of a subchain of a subchain, proved over two anchors into the topmost head. Each chain has a million
/// Quants, the transaction's one 1,000 transactions, each Quant with anchors 100 of them.
fn composed(c: &mut Criterion) {
    const QUANTS: u64 = 1_000_000;
    let [child, middle, top] = [1, 2, 3].map(|time_ms| genesis_header(ALG, time_ms, 0, b""));
    let (claim, mut steps, mut last) = sealed_transaction(&child);
    for (level, id) in [&child, &middle, &top]
        .into_iter()
        .map(Header::id)
        .enumerate()
    {
        if level > 0 {
            let leaf = ALG.leaf(&anchor_leaf(&last));
            let (root, path) = among(leaf, 100, 41);
            last = Header {
                anchor_count: 100,
                anchors_root: root,
                ..quant(id, QUANTS / 2, last.time_ms)
            };
            steps.push(Step::Anchor {
                header: last.to_bytes().to_vec(),
                index: 41,
                path,
            });
        }
        let (root, path) = among(last.hash(), QUANTS, last.height);
        last = Header {
            hist_root: root,
            tx_start: last.tx_end(),
            ..quant(id, QUANTS, last.time_ms)
        };
        steps.push(Step::History {
            header: last.to_bytes().to_vec(),
            path,
            borders: Vec::new(),
        });
    }
    let bytes = binary_bytes(&steps);
    assert!(bytes <= 5 << 10, "{bytes} bytes");
    let proof = Proof {
        claim,
        steps,
        log: None,
        head: HeadEvidence::default(),
    };
    let trust = [Trust::Head(last.hash())];
    verify(&proof, &trust).expect("the proof holds");
    // Without payload and signatures.
    let name = format!("verify/composed-2-over-1m/{bytes}-bytes");
    c.bench_function(&name, |b| {
        b.iter(|| verify(black_box(&proof), &trust));
    });
}

/// A transaction and the link to its Quant, which has 1,000.
fn sealed_transaction(child: &Header) -> (Claim, Vec<Step>, Header) {
    let payload = vec![7; 256];
    let envelope = Envelope {
        kind: 0,
        salted: false,
        chain_id: child.id(),
        index: 421,
        inject_ms: 5,
        payload_len: payload.len() as u64,
        payload_hash: payload_hash(ALG, &payload, None),
        attributes_hash: [0; 32],
    };
    let (root, path) = among(envelope.leaf(ALG), 1000, 421);
    let header = Header {
        tx_count: 1000,
        tx_root: root,
        ..quant(child.id(), 400_000, 5)
    };
    let evidence = TransactionEvidence {
        envelope: envelope.to_bytes().to_vec(),
        attributes: None,
        payload: Some(payload),
        salt: None,
    };
    let step = Step::Quant {
        header: header.to_bytes().to_vec(),
        path,
    };
    (Claim::Inclusion(evidence), vec![step], header)
}

/// A later Quant of a chain, without anything in it.
fn quant(chain_id: qbc::chain::ChainId, height: u64, time_ms: u64) -> Header {
    Header {
        genesis: false,
        chain_id,
        height,
        ..genesis_header(ALG, time_ms, 0, b"")
    }
}

/// The root of a tree that has a leaf among others, and the leaf's path.
fn among(leaf: Hash, size: u64, index: u64) -> (Hash, Vec<Hash>) {
    let mut all = leaves(size as usize);
    all[index as usize] = leaf;
    let reader = LeafReader {
        alg: ALG,
        leaves: &all,
    };
    let Ok(path) = inclusion_path(ALG, &reader, index, size);
    (tree_root(ALG, &all), path)
}

/// Envelope, headers and paths, with two bytes for what each step is.
fn binary_bytes(steps: &[Step]) -> usize {
    let of = |step: &Step| match step {
        Step::Quant { header, path } | Step::History { header, path, .. } => {
            header.len() + 32 * path.len() + 2
        }
        Step::Anchor { header, path, .. } => header.len() + 32 * path.len() + 6,
    };
    128 + steps.iter().map(of).sum::<usize>()
}

/// A batch of 100,000 keys into states of none and of a million, rows in memory; and proofs in the larger one.
fn states(c: &mut Criterion) {
    let mut group = c.benchmark_group("state");
    group.sample_size(10);
    let batch = state_writes(0..100_000);
    let mut rows = StoredRows::default();
    group.bench_function("update/100k-into-0", |b| {
        b.iter(|| tree_of(&rows).update(1, black_box(&batch)));
    });
    let million = state_writes(100_000..1_100_000);
    let change = tree_of(&rows).update(1, &million).expect("rows in memory");
    let made = change.rows().map(|(path, row)| (*path, row.to_vec()));
    rows.0.extend(made);
    group.bench_function("update/100k-into-1m", |b| {
        b.iter(|| tree_of(&rows).update(1, black_box(&batch)));
    });
    let (known, missing) = (ALG.leaf(&500_000u64.to_be_bytes()), batch[4711].0);
    for (name, key_hash) in [("value", known), ("absence", missing)] {
        group.bench_function(format!("prove/{name}-in-1m"), |b| {
            b.iter(|| tree_of(&rows).prove(black_box(&key_hash)));
        });
        let proof = tree_of(&rows).prove(&key_hash).expect("rows in memory");
        let root = change.root();
        group.bench_function(format!("verify/{name}-in-1m"), |b| {
            b.iter(|| proof.verify_at(ALG, black_box(&root), &key_hash));
        });
    }
    group.finish();
}

#[derive(Default)]
struct StoredRows(HashMap<StatePath, Vec<u8>>);

impl StateRows for StoredRows {
    type Error = Infallible;

    fn top(&self) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(&StatePath::TOP).cloned())
    }

    fn get(&self, (path, _): &StatePlace) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(path).cloned())
    }

    fn get_each(
        &self,
        places: &[StatePlace],
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), Infallible> {
        for (at, (path, _)) in places.iter().enumerate() {
            if let Some(row) = self.0.get(path) {
                each(at, row);
            }
        }
        Ok(())
    }
}

fn tree_of(rows: &StoredRows) -> StateTree<'_, StoredRows> {
    StateTree { alg: ALG, rows }
}

fn state_writes(numbers: std::ops::Range<u64>) -> Vec<(Hash, [u8; 8])> {
    let writes = numbers.map(|n| (ALG.leaf(&n.to_be_bytes()), latest_value(n)));
    let ascending: BTreeMap<Hash, [u8; 8]> = writes.collect();
    ascending.into_iter().collect()
}

fn headers(c: &mut Criterion) {
    let header = genesis_header(ALG, 1, 0, b"meta");
    let bytes = header.to_bytes();
    c.bench_function("header/parse", |b| {
        b.iter(|| Header::parse(black_box(&bytes)));
    });
    c.bench_function("header/hash", |b| b.iter(|| black_box(&header).hash()));
}

/// Tries per second of the miner's loop, and what the permutations alone would allow.
fn mining(c: &mut Criterion) {
    const TRIES: u64 = 1 << 14;
    let mut group = c.benchmark_group("mining");
    group.throughput(Throughput::Elements(TRIES));
    if bare_kernel(8).is_some() {
        group.bench_function("bare-kernel", |b| b.iter(|| bare_kernel(black_box(TRIES))));
    }
    for (name, alg) in [
        ("find_nonce", ALG),
        ("find_nonce/sha2-256", HashAlg::Sha2_256),
    ] {
        // Nobody finds so many bits: every call makes all of its tries.
        let header = genesis_header(alg, 1, 200, b"meta");
        let mut first = 0u64;
        group.bench_function(name, |b| {
            b.iter(|| {
                first += TRIES;
                assert_eq!(find_nonce(black_box(&header), first..first + TRIES), None);
            });
        });
    }
    let short: Vec<[u8; 54]> = (0..TRIES).map(|_| [7; 54]).collect();
    let short: Vec<&[u8]> = short.iter().map(<[u8; 54]>::as_slice).collect();
    group.bench_function("one-block-each/sha2-256", |b| {
        b.iter(|| HashAlg::Sha2_256.leaf_each(black_box(&short)));
    });
    group.finish();
}

fn signatures(c: &mut Criterion) {
    let root = SigningKey::from_seed([1; 32]);
    let authority = Authority {
        threshold: 1,
        roots: vec![root.public()],
    };
    let header = genesis_header(ALG, 1, 0, b"meta");
    for alg in SigAlg::ALL {
        let node = NodeKey::from_seed(alg, [2; 32]);
        let head = signed_head(&root, &node, &header);
        let cluster_id = head.certificate.cluster_id;
        // ML-DSA tries until a candidate fits: the mean over messages is what a node pays.
        let mut second = 0;
        c.bench_function(&format!("head/sign/{}", alg.name()), |b| {
            b.iter(|| {
                second += 1;
                node.sign(&head_message(&cluster_id, 1, second, &header))
            });
        });
        assert_eq!(head.verify(&header, &cluster_id, &authority), Ok(()));
        c.bench_function(&format!("head/verify/{}", alg.name()), |b| {
            b.iter(|| head.verify(black_box(&header), &cluster_id, &authority));
        });
    }
}

fn signed_head(root: &SigningKey, node: &NodeKey, header: &Header) -> HeadSignature {
    let mut certificate = Certificate {
        cluster_id: [3; 16],
        node_id: 1,
        alg: node.alg() as u8,
        public_key: node.public(),
        not_before_s: 0,
        not_after_s: u64::MAX,
        signatures: Vec::new(),
    };
    certificate.signatures = vec![(0, root.sign(&certificate.message()))];
    let message = head_message(&certificate.cluster_id, 1, 5, header);
    HeadSignature {
        alg: node.alg() as u8,
        key_id: certificate.key_id(),
        time_s: 5,
        signature: node.sign(&message),
        certificate,
    }
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|i| ALG.leaf(&i.to_be_bytes())).collect()
}

/// The first leaf's root under these right siblings.
fn climbed(path: &[Hash]) -> Hash {
    path.iter()
        .fold(ALG.leaf(b"leaf"), |below, right| ALG.node(&below, right))
}

/// A tree whose every stored node is the same: a path's cost does not depend on what stands in it.
struct SameNodes;

impl NodeReader for SameNodes {
    type Error = std::convert::Infallible;

    fn node(&self, level: u8, _: u64) -> Result<Hash, Self::Error> {
        Ok([level; 32])
    }
}
