//! Erasures: who may, of what, and what is left; in any cut of the log into batches, after every restart, in an image; and
//! what comes out is what the audit accepts.

use qbc::chain::{
    Attributes, Auditor, ChainId, Erasure, HashAlg, SigningKey, author_message, payload_hash,
};
use qbc::engine::{
    ImageError, ImageReceiver, InjectHead, InjectItem, Outcome, Reader, Rejection, Seal,
    TemplateRequest,
};
use qbc::store::{Cf, ChainNo, PurgeKey, Slot, TxRow, View, tx_key};

use crate::image::{moved, pieces, take};
use crate::model::NODE;
use crate::oneness::alike;
use crate::replica::{Replica, bang_bytes, entry, open, plain_bang};

const CHAIN: ChainNo = ChainNo(1);
const ADMIN: u8 = 3;
const SECRET: &[u8] = b"a payload that nobody may find again";

/// A chain under way: each entry is applied at once, and kept for other replicas.
struct Course {
    replica: Replica,
    entries: Vec<Vec<u8>>,
    outcomes: Vec<Vec<Outcome>>,
    time_ms: u64,
    dir: tempfile::TempDir,
}

/// One transaction; what belongs to it in bytes of its own.
#[derive(Clone)]
struct Tx {
    kind: u8,
    attributes: Vec<u8>,
    id: Vec<u8>,
    salt: Option<[u8; 32]>,
    payload: Vec<u8>,
}

type Run = (u64, u32, bool);

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

impl Course {
    fn new(erasable: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut course = Self {
            replica: Replica::new(&open(dir.path()), 1),
            entries: Vec::new(),
            outcomes: Vec::new(),
            time_ms: 2000,
            dir,
        };
        let mut bang = plain_bang("c", HashAlg::Sha3_256);
        bang.constitution.erasable = erasable;
        bang.constitution.keyed = true;
        bang.constitution.admins = vec![key(ADMIN).public()];
        course.entry(&[bang_bytes(&bang)]);
        course
    }

    fn entry(&mut self, commands: &[Vec<u8>]) -> Vec<Outcome> {
        let entry = entry(self.time_ms, commands);
        let outcomes = self.replica.apply(std::slice::from_ref(&entry)).remove(0);
        self.time_ms += 1;
        self.entries.push(entry);
        self.outcomes.push(outcomes.clone());
        outcomes
    }

    fn id(&self) -> ChainId {
        let reader = Reader::new(&self.replica.store, self.replica.slot);
        reader.chain("c").unwrap().chain_id
    }

    /// A tombstone by one who holds this key.
    fn tombstone(&self, id: &[u8], by: Option<u8>, payload: Vec<u8>) -> Tx {
        let hash = payload_hash(HashAlg::Sha3_256, &payload, None);
        let some = (!id.is_empty()).then_some(id);
        let message = author_message(&self.id(), 2, 0, None, some, &hash);
        Tx {
            kind: 2,
            attributes: Attributes {
                id: some.map(<[u8]>::to_vec),
                author: by.map(|by| key(by).public()),
                signature: by.map(|by| key(by).sign(&message)),
                ..Attributes::default()
            }
            .to_bytes(),
            id: id.to_vec(),
            salt: None,
            payload,
        }
    }

    fn erases(&self, id: &[u8], index: u64) -> Tx {
        let payload = self.erasure(index).to_bytes();
        self.tombstone(id, Some(ADMIN), payload)
    }

    fn erasure(&self, index: u64) -> Erasure {
        let reader = Reader::new(&self.replica.store, self.replica.slot);
        let view = reader.chain("c").unwrap();
        let stored = reader.transaction(&view, index).unwrap();
        let row = stored.row().unwrap();
        let envelope = row.envelope(view.alg(), view.chain_id, index).to_bytes();
        Erasure::of(view.alg(), index, &envelope, "asked for by its subject")
    }

    fn inject(&mut self, txs: &[Tx]) -> Result<Vec<Run>, Rejection> {
        let command = command(txs);
        injected(self.entry(&[command]).remove(0))
    }

    fn leap(&mut self) {
        let asked = TemplateRequest {
            time_ms: self.time_ms,
            node_id: NODE,
            note: b"",
            is_final: false,
        };
        let template = self.replica.engine.template(CHAIN, &asked);
        let template = template.unwrap().unwrap();
        let command = Seal {
            chain: CHAIN,
            request_id: b"",
            request_body: [0; 32],
            header: &template.header.to_bytes(),
            meta: &template.meta,
        };
        let sealed = self.entry(&[command.encode()]).remove(0);
        assert!(matches!(sealed, Outcome::Sealed(Ok(_))), "{sealed:?}");
    }

    fn row(&self, index: u64) -> Vec<u8> {
        let key = tx_key(self.replica.slot, CHAIN, index);
        let row = self.replica.store.get(Cf::Erasable, &key).unwrap();
        row.expect("a row of the erasable family")
    }

    fn is_erased_by(&self, index: u64, tombstone: u64) {
        let row = self.row(index);
        let row = TxRow::decode(&row).unwrap();
        let erased = row.erased.expect("erased");
        assert_eq!((erased.tombstone, row.salt), (tombstone, None));
        assert_eq!(erased.payload_len, SECRET.len() as u64);
        let rows = self.replica.rows();
        assert!(!rows.iter().any(|(_, _, row)| holds(row, SECRET)));
        let note = PurgeKey {
            slot: self.replica.slot,
            chain: CHAIN,
            index,
        };
        let noted = self.replica.store.get(Cf::Sys, &note.encode()).unwrap();
        assert_eq!(noted, Some(Vec::new()), "the purge is asked for");
    }

    /// Other replicas, other batches, an image: all the same. And the audit of what is sealed; gives erased, unexplained.
    fn ends_well(self) -> (u64, u64) {
        assert_eq!(alike(&self.entries), self.outcomes);
        let again = moved(&self.replica, &self.replica.store, 7, None).replica;
        let again = moved(&again, &self.replica.store, 8, Some(Slot(7))).replica;
        assert!(again.rows() == self.replica.rows());
        audit(&self.replica)
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn command(txs: &[Tx]) -> Vec<u8> {
    let items = txs.iter().map(|tx| InjectItem {
        kind: tx.kind,
        attributes: &tx.attributes,
        id: &tx.id,
        salt: tx.salt.as_ref(),
        transfer: None,
        payload: &tx.payload,
    });
    InjectHead {
        chain: CHAIN,
        request_id: b"",
        expected_next_index: None,
        expected_head: None,
    }
    .encode(items, 0)
}

fn injected(outcome: Outcome) -> Result<Vec<Run>, Rejection> {
    let Outcome::Injected(injected) = outcome else {
        panic!("{outcome:?}");
    };
    let runs = |all: qbc::engine::Injected| {
        let runs = all.runs.into_iter();
        runs.map(|run| (run.first, run.count, run.duplicate))
            .collect()
    };
    injected.map(runs)
}

fn salted(id: &[u8], salt: u8, payload: &[u8]) -> Tx {
    let attributes = Attributes {
        key: Some(b"k".to_vec()),
        id: (!id.is_empty()).then(|| id.to_vec()),
        ..Attributes::default()
    };
    Tx {
        kind: 0,
        attributes: attributes.to_bytes(),
        id: id.to_vec(),
        salt: Some([salt; 32]),
        payload: payload.to_vec(),
    }
}

fn audit(replica: &Replica) -> (u64, u64) {
    let reader = Reader::new(&replica.store, replica.slot);
    let view = reader.chain("c").unwrap();
    let mut auditor = Auditor::new();
    for height in 0..=view.head.height {
        let quant = reader.quant(&view, height).unwrap();
        auditor.quant(&quant.header, &quant.meta).unwrap();
        let header = quant.parse().unwrap();
        for index in header.tx_start..header.tx_end() {
            let stored = reader.transaction(&view, index).unwrap();
            let row = stored.row().unwrap();
            let envelope = row.envelope(view.alg(), view.chain_id, index).to_bytes();
            let payload = row.erased.is_none().then_some(row.payload);
            auditor
                .transaction(&envelope, row.attributes, payload, row.salt)
                .unwrap();
        }
    }
    let audited = auditor.finish().unwrap();
    (audited.erased, audited.unexplained)
}

#[test]
fn what_is_erased_is_gone_from_every_row_in_the_pool_as_in_a_quant() {
    let mut c = Course::new(true);
    let (first, second) = (salted(b"a", 1, SECRET), salted(b"b", 2, SECRET));
    let plain = salted(b"", 3, b"neighbour");
    let runs = c.inject(&[plain.clone(), first, plain]);
    assert_eq!(runs, Ok(vec![(0, 3, false)]));
    c.leap();
    c.inject(&[second]).unwrap();
    let (sealed, pooled) = (c.erases(b"1", 1), c.erases(b"2", 3));
    assert_eq!(c.inject(&[sealed]), Ok(vec![(4, 1, false)]));
    assert_eq!(c.inject(&[pooled]), Ok(vec![(5, 1, false)]));
    for _ in 0..2 {
        c.is_erased_by(1, 4);
        c.is_erased_by(3, 5);
        assert!(holds(&c.row(0), b"neighbour"));
        c.replica.restart();
        c.leap_or_not();
    }
    assert_eq!(c.ends_well(), (2, 0));
}

impl Course {
    fn leap_or_not(&mut self) {
        let reader = Reader::new(&self.replica.store, self.replica.slot);
        if reader.chain("c").unwrap().pooled() > 0 {
            self.leap();
        }
    }
}

#[test]
fn what_came_in_the_same_entry_is_erased_in_it() {
    let mut c = Course::new(true);
    let tx = salted(b"a", 1, SECRET);
    c.inject(std::slice::from_ref(&tx)).unwrap();
    // The same again in another chain's life: in one batch with its tombstone, at the indexes and times that follow.
    let next = Tx {
        id: b"b".to_vec(),
        ..salted(b"b", 4, SECRET)
    };
    let envelope = {
        let reader = Reader::new(&c.replica.store, c.replica.slot);
        let view = reader.chain("c").unwrap();
        let hash = payload_hash(HashAlg::Sha3_256, SECRET, Some(&[4; 32]));
        let row = TxRow {
            kind: 0,
            inject_ms: c.time_ms,
            payload_hash: hash,
            attributes: &next.attributes,
            salt: Some(&[4; 32]),
            payload: SECRET,
            erased: None,
        };
        row.envelope(view.alg(), view.chain_id, 1).to_bytes()
    };
    let erasure = Erasure::of(HashAlg::Sha3_256, 1, &envelope, "at once");
    let stone = c.tombstone(b"s", Some(ADMIN), erasure.to_bytes());
    let again = c.tombstone(b"t", Some(ADMIN), erasure.to_bytes());
    let commands = [command(&[next]), command(&[stone, again.clone()])];
    let outcomes = c.entry(&commands);
    let runs: Vec<_> = outcomes.into_iter().map(injected).collect();
    // The second tombstone of one request says what the first one did.
    let expected = vec![(2, 1, false), (2, 1, true)];
    assert_eq!(runs, [Ok(vec![(1, 1, false)]), Ok(expected)]);
    c.is_still(0);
    assert_eq!(c.inject(&[again]), Ok(vec![(2, 1, true)]));
    let stone = c.erases(b"u", 0);
    c.inject(&[stone]).unwrap();
    c.is_erased_by(0, 3);
    c.is_erased_by(1, 2);
    c.leap();
    assert_eq!(c.ends_well(), (2, 0));
}

impl Course {
    fn is_still(&self, index: u64) {
        assert!(holds(&self.row(index), SECRET));
    }
}

#[test]
fn a_retry_compares_payloads_without_salt_and_after_the_erasure_the_id_alone() {
    let mut c = Course::new(true);
    let first = salted(b"a", 1, SECRET);
    assert_eq!(c.inject(&[first]), Ok(vec![(0, 1, false)]));
    let (again, other) = (salted(b"a", 2, SECRET), salted(b"a", 2, b"another"));
    assert_eq!(
        c.inject(&[again.clone(), again.clone()]),
        Ok(vec![(0, 1, true), (0, 1, true)])
    );
    let reused = c.inject(std::slice::from_ref(&other));
    assert_eq!(reused, Err(Rejection::IdReused { item: 0, index: 0 }));
    // In one request too.
    let pair = [salted(b"p", 1, b"x"), salted(b"p", 2, b"x")];
    assert_eq!(c.inject(&pair), Ok(vec![(1, 1, false), (1, 1, true)]));
    let stone = c.erases(b"s", 0);
    assert_eq!(c.inject(&[stone]), Ok(vec![(2, 1, false)]));
    for retry in [again, other] {
        assert_eq!(c.inject(&[retry]), Ok(vec![(0, 1, true)]));
        c.replica.restart();
    }
    c.is_erased_by(0, 2);
    c.leap();
    assert_eq!(c.ends_well(), (1, 0));
}

#[test]
fn an_erasure_that_may_not_be_is_refused_and_changes_nothing() {
    let mut c = Course::new(true);
    c.inject(&[salted(b"a", 1, SECRET), salted(b"b", 1, b"x")])
        .unwrap();
    let stone = c.erases(b"s", 1);
    c.inject(&[stone]).unwrap();
    let good = c.erasure(0);
    let with = |index: u64, envelope: [u8; 32], reason: &str| {
        let reason = reason.to_owned();
        Erasure {
            index,
            envelope,
            reason,
        }
        .to_bytes()
    };
    let of_stone = c.erasure(2).to_bytes();
    let cases: [(Option<u8>, Vec<u8>, &str); 10] = [
        (Some(ADMIN), with(3, good.envelope, "r"), "beyond the end"),
        (
            Some(ADMIN),
            with(u64::MAX, good.envelope, "r"),
            "beyond the end",
        ),
        (Some(ADMIN), with(0, [7; 32], "r"), "not that of"),
        (Some(ADMIN), with(1, good.envelope, "r"), "not that of"),
        (Some(ADMIN), of_stone, "of type 2"),
        (Some(ADMIN), with(0, good.envelope, ""), "empty"),
        (
            Some(ADMIN),
            with(0, good.envelope, &"r".repeat(1025)),
            "1025 bytes",
        ),
        (Some(ADMIN), b"short".to_vec(), "index"),
        (Some(9), good.to_bytes(), "none of the admins"),
        (None, good.to_bytes(), "signed by one of its admins"),
    ];
    for (by, payload, words) in cases {
        let before = c.replica.rows();
        let tx = c.tombstone(b"bad", by, payload);
        let refused = c.inject(&[salted(b"n", 9, b"with it"), tx]).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains(words) && said.contains("[1]"), "{said}");
        assert!(c.replica.rows() == before, "{words}");
    }
    let nameless = Tx {
        id: Vec::new(),
        ..c.erases(b"", 0)
    };
    let refused = c.inject(&[nameless]);
    assert_eq!(refused, Err(Rejection::IdMissing { item: 0 }));
    c.is_still(0);
    c.leap();
    assert_eq!(c.ends_well(), (1, 0));
}

#[test]
fn a_chain_that_is_not_erasable_erases_nothing() {
    let mut c = Course::new(false);
    let plain = Tx {
        salt: None,
        ..salted(b"a", 1, SECRET)
    };
    c.inject(&[plain]).unwrap();
    let stone = c.erases(b"s", 0);
    let refused = c.inject(&[stone]).unwrap_err();
    assert!(matches!(refused, Rejection::NotErasable { item: 0, .. }));
    assert!(refused.to_string().contains("--erasable"));
    c.leap();
    assert_eq!(c.ends_well(), (0, 0));
}

/// What a receiver had before the erasure does not come back with the image that follows it.
#[test]
fn an_image_brings_the_erased_form_over_what_the_receiver_had() {
    let mut c = Course::new(true);
    c.inject(&[salted(b"a", 1, SECRET), salted(b"b", 1, b"x")])
        .unwrap();
    c.leap();
    let behind = moved(&c.replica, &c.replica.store, 5, None).replica;
    assert!(behind.rows().iter().any(|(_, _, row)| holds(row, SECRET)));
    let stone = c.erases(b"s", 0);
    c.inject(&[stone]).unwrap();
    let now = moved(&c.replica, &c.replica.store, 6, Some(Slot(5)));
    assert_eq!(now.kept, 1, "Quants and hashes are kept");
    assert!(
        !now.replica
            .rows()
            .iter()
            .any(|(_, _, row)| holds(row, SECRET))
    );
    c.leap();
    assert_eq!(c.ends_well(), (1, 0));
}

/// A sender that withholds a payload needs a tombstone for it, sealed or not.
#[test]
fn an_image_that_leaves_a_payload_out_without_a_tombstone_is_not_taken() {
    for (tombstone, pooled) in [(1, false), (2, false), (9, false), (1, true)] {
        let mut c = Course::new(true);
        c.inject(&[salted(b"a", 1, SECRET), salted(b"b", 1, b"x")])
            .unwrap();
        if !pooled {
            c.leap();
        }
        let stone = c.erases(b"s", 1);
        c.inject(&[stone]).unwrap();
        let key = tx_key(c.replica.slot, CHAIN, 0);
        let row = c.row(0);
        let lie = TxRow::decode(&row).unwrap().erase(tombstone).encode();
        let mut batch = c.replica.store.batch();
        batch.put(Cf::Erasable, &key, lie);
        c.replica.store.write(batch).unwrap();
        let other = tempfile::tempdir_in(c.dir.path()).unwrap();
        let store = open(other.path());
        let mut receiver = ImageReceiver::new(store, Slot(3), None).unwrap();
        let (pieces, _) = pieces(&c.replica, &mut receiver);
        let taken = take(&mut receiver, &pieces);
        let Err(ImageError::Damage(damage)) = taken else {
            panic!("tombstone {tombstone}: {taken:?}");
        };
        assert!(damage.to_string().contains("erased it"), "{damage}");
    }
}
