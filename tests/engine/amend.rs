//! Who may write, and admins who change it: every decision, in any cut of the log into batches, after every restart, in an
//! image; and what comes out is what the audit accepts.

use qbc::chain::{
    Attributes, Auditor, ChainId, Constitution, ConstitutionChange, Edit, HashAlg, Header, Meta,
    SigningKey, author_message, payload_hash,
};
use qbc::engine::{
    AUTHORS_MAX, InForce, InjectHead, InjectItem, Outcome, POOL_CHANGES_MAX, Reader, Rejection,
    Seal, Sealed, Template, TemplateRequest,
};
use qbc::store::{Cf, ChainNo, Slot, View, amended_key, change_key};

use crate::image::moved;
use crate::model::NODE;
use crate::oneness::alike;
use crate::replica::{Replica, bang_bytes, entry, open, plain_bang};

const CHAIN: ChainNo = ChainNo(1);
const DATA: u8 = 0;
const CHANGE: u8 = 1;

/// A chain under way: each entry is applied at once, and kept for other replicas.
struct Course {
    replica: Replica,
    entries: Vec<Vec<u8>>,
    outcomes: Vec<Vec<Outcome>>,
    time_ms: u64,
    /// Items so far, for ids of their own.
    items: u64,
    _dir: tempfile::TempDir,
}

/// One transaction: type, id, who signs, payload.
#[derive(Clone)]
struct Tx {
    kind: u8,
    id: Vec<u8>,
    by: Option<u8>,
    payload: Vec<u8>,
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

fn keys(numbers: &[u8]) -> Vec<[u8; 32]> {
    numbers.iter().map(|number| key(*number).public()).collect()
}

fn authors(numbers: &[u8]) -> ConstitutionChange {
    ConstitutionChange {
        authors: Edit::Put(keys(numbers)),
        ..ConstitutionChange::default()
    }
}

impl Course {
    /// A chain of these authors and admins.
    fn new(authors: &[u8], admins: &[u8]) -> Self {
        Self::with(|constitution| {
            constitution.authors = keys(authors);
            constitution.admins = keys(admins);
        })
    }

    fn with(edit: impl FnOnce(&mut Constitution)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut course = Self {
            replica: Replica::new(&open(dir.path()), 1),
            entries: Vec::new(),
            outcomes: Vec::new(),
            time_ms: 2000,
            items: 0,
            _dir: dir,
        };
        let mut bang = plain_bang("c", HashAlg::Sha3_256);
        edit(&mut bang.constitution);
        course.entry(&[bang_bytes(&bang)]);
        course
    }

    fn id(&self) -> ChainId {
        let reader = Reader::new(&self.replica.store, self.replica.slot);
        reader.chain("c").unwrap().chain_id
    }

    fn entry(&mut self, commands: &[Vec<u8>]) -> Vec<Outcome> {
        let entry = entry(self.time_ms, commands);
        let outcomes = self.replica.apply(std::slice::from_ref(&entry)).remove(0);
        self.time_ms += 1;
        self.entries.push(entry);
        self.outcomes.push(outcomes.clone());
        outcomes
    }

    /// A transaction with an id of its own.
    fn tx(&mut self, kind: u8, by: Option<u8>, payload: &[u8]) -> Tx {
        self.items += 1;
        Tx {
            kind,
            id: self.items.to_be_bytes().to_vec(),
            by,
            payload: payload.to_vec(),
        }
    }

    fn data(&mut self, by: u8) -> Tx {
        self.tx(DATA, Some(by), b"data")
    }

    fn change(&mut self, by: u8, change: &ConstitutionChange) -> Tx {
        self.tx(CHANGE, Some(by), &change.to_bytes())
    }

    fn command(&self, txs: &[Tx]) -> Vec<u8> {
        let attributes: Vec<Vec<u8>> = txs.iter().map(|tx| tx.attributes(&self.id())).collect();
        let items = txs.iter().zip(&attributes);
        let items = items.map(|(tx, attributes)| InjectItem {
            kind: tx.kind,
            attributes,
            id: &tx.id,
            salt: None,
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

    fn inject(&mut self, txs: &[Tx]) -> Result<(u64, bool), Rejection> {
        let command = self.command(txs);
        match self.entry(&[command]).remove(0) {
            Outcome::Injected(injected) => injected.map(|all| {
                let run = all.runs[0];
                (run.first, run.duplicate)
            }),
            other => panic!("{other:?}"),
        }
    }

    fn one(&mut self, tx: &Tx) -> Result<(u64, bool), Rejection> {
        self.inject(std::slice::from_ref(tx))
    }

    fn template(&self) -> Template {
        let asked = TemplateRequest {
            time_ms: self.time_ms,
            node_id: NODE,
            note: b"",
            is_final: false,
        };
        self.replica
            .engine
            .template(CHAIN, &asked)
            .unwrap()
            .unwrap()
    }

    fn seal(&mut self, header: &Header, meta: &[u8]) -> Result<Sealed, Rejection> {
        let command = Seal {
            chain: CHAIN,
            request_id: b"",
            request_body: [0; 32],
            header: &header.to_bytes(),
            meta,
        };
        match self.entry(&[command.encode()]).remove(0) {
            Outcome::Sealed(sealed) => sealed,
            other => panic!("{other:?}"),
        }
    }

    fn leap(&mut self) -> Meta {
        let template = self.template();
        self.seal(&template.header, &template.meta).unwrap();
        Meta::parse(&template.meta).unwrap()
    }

    fn in_force(&self) -> (InForce, Constitution) {
        in_force(&self.replica)
    }

    /// Other replicas, other batches, an image: all the same. And the audit of what is sealed.
    fn ends_well(self) -> Vec<Vec<Outcome>> {
        assert_eq!(alike(&self.entries), self.outcomes);
        let again = moved(&self.replica, &self.replica.store, 7, None).replica;
        assert_eq!(in_force(&again), in_force(&self.replica));
        let again = moved(&self.replica, &self.replica.store, 8, Some(Slot(7))).replica;
        assert!(again.rows() == self.replica.rows());
        audit(&self.replica);
        self.outcomes
    }
}

impl Tx {
    fn attributes(&self, chain: &ChainId) -> Vec<u8> {
        let id = (!self.id.is_empty()).then(|| self.id.clone());
        let signed = self.by.map(|by| {
            let hash = payload_hash(HashAlg::Sha3_256, &self.payload, None);
            let message = author_message(chain, self.kind, 0, None, id.as_deref(), &hash);
            (key(by).public(), key(by).sign(&message))
        });
        Attributes {
            key: None,
            id,
            author: signed.map(|(author, _)| author),
            signature: signed.map(|(_, signature)| signature),
        }
        .to_bytes()
    }
}

fn in_force(replica: &Replica) -> (InForce, Constitution) {
    let reader = Reader::new(&replica.store, replica.slot);
    let view = reader.chain("c").unwrap();
    let (genesis, _) = reader.constitution(&view).unwrap();
    let in_force = reader.in_force(&view, &genesis).unwrap();
    let constitution = Constitution::parse(&in_force.constitution).unwrap();
    (in_force, constitution)
}

/// What the replica has sealed, as an auditor sees it; gives the constitution at its end.
fn audit(replica: &Replica) -> Constitution {
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
            auditor
                .transaction(&envelope, row.attributes, Some(row.payload), row.salt)
                .unwrap();
        }
    }
    auditor.finish().unwrap().constitution
}

fn reason(result: Result<(u64, bool), Rejection>) -> (&'static str, usize) {
    match result {
        Err(Rejection::Unsigned { item, .. }) => ("unsigned", item),
        Err(Rejection::AuthorUnknown { item, .. }) => ("unknown", item),
        Err(Rejection::IdMissing { item }) => ("id", item),
        Err(Rejection::NotAdmin {
            item, any: true, ..
        }) => ("admin", item),
        Err(Rejection::NotAdmin { item, .. }) => ("no admins", item),
        Err(Rejection::BadChange { item, .. }) => ("change", item),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_author_who_is_removed_is_refused_from_the_next_transaction_on() {
    let mut c = Course::new(&[1, 2], &[3]);
    let first = c.data(1);
    assert_eq!(c.one(&first), Ok((0, false)));
    let removal = c.change(3, &authors(&[2]));
    let (before, after) = (c.data(1), c.data(1));
    // All or none: his last one keeps the others out too.
    let refused = c.inject(&[before.clone(), removal.clone(), after.clone()]);
    assert_eq!(reason(refused), ("unknown", 2));
    assert_eq!(c.in_force().0.index, None);
    assert_eq!(c.inject(&[before, removal.clone()]), Ok((1, false)));
    let (in_force, constitution) = c.in_force();
    assert_eq!((in_force.index, in_force.height), (Some(2), None));
    assert_eq!(constitution.authors, keys(&[2]));
    for _ in 0..2 {
        assert_eq!(reason(c.one(&after)), ("unknown", 0));
        let other = c.data(2);
        assert!(c.inject(&[other]).is_ok());
        // What he wrote before is answered as before, and so is the change, which does nothing again.
        assert_eq!(c.one(&first), Ok((0, true)));
        assert_eq!(c.one(&removal), Ok((2, true)));
        let meta = c.leap();
        let told = meta.constitution_in_force.map(|(_, height)| height);
        assert!(told.is_none() || told == Some(1));
        c.replica.restart();
    }
    let (in_force, _) = c.in_force();
    assert_eq!((in_force.index, in_force.height), (Some(2), Some(1)));
    assert_eq!(audit(&c.replica).authors, keys(&[2]));
    c.ends_well();
}

#[test]
fn what_is_unsigned_without_an_id_or_by_a_stranger_is_refused() {
    let mut c = Course::new(&[1], &[3]);
    let unsigned = c.tx(DATA, None, b"x");
    let nameless = Tx {
        id: Vec::new(),
        ..c.data(1)
    };
    let (stranger, admin) = (c.data(9), c.data(3));
    let (by_author, unsigned_change) = (
        c.change(1, &authors(&[1, 9])),
        Tx {
            by: None,
            ..c.change(3, &authors(&[9]))
        },
    );
    let nameless_change = Tx {
        id: Vec::new(),
        ..c.change(3, &authors(&[9]))
    };
    let nothing = c.tx(CHANGE, Some(3), b"");
    let of_admins = c.tx(CHANGE, Some(3), &[8, 0, 0, 0, 0]);
    let cases = [
        (unsigned, "unsigned"),
        (nameless, "id"),
        (stranger, "unknown"),
        (admin, "unknown"),
        (by_author, "admin"),
        (unsigned_change, "unsigned"),
        (nameless_change, "id"),
        (nothing, "change"),
        (of_admins, "change"),
    ];
    for (tx, why) in cases {
        let good = c.data(1);
        assert_eq!(reason(c.inject(&[good, tx])), (why, 1));
    }
    let many: Vec<[u8; 32]> = (0..=AUTHORS_MAX as u64)
        .map(|number| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        })
        .collect();
    for (count, fits) in [(AUTHORS_MAX + 1, false), (AUTHORS_MAX, true)] {
        let change = ConstitutionChange {
            authors: Edit::Put(many[..count].to_vec()),
            ..ConstitutionChange::default()
        };
        let tx = c.change(3, &change);
        assert_eq!(c.inject(&[tx]).is_ok(), fits, "{count}");
    }
    c.leap();
    c.ends_well();
}

#[test]
fn without_admins_a_constitution_stays_and_an_open_chain_may_have_some() {
    let mut c = Course::new(&[1], &[]);
    let change = c.change(1, &authors(&[2]));
    assert_eq!(reason(c.inject(&[change])), ("no admins", 0));
    let mut c = Course::new(&[], &[3]);
    let plain = Tx {
        kind: DATA,
        id: Vec::new(),
        by: None,
        payload: b"x".to_vec(),
    };
    assert!(c.one(&plain).is_ok());
    let (closing, inside) = (c.change(3, &authors(&[1])), c.data(1));
    assert_eq!(c.inject(&[plain.clone(), closing, inside]), Ok((1, false)));
    assert_eq!(reason(c.one(&plain)), ("unsigned", 0));
    let open = ConstitutionChange {
        authors: Edit::Remove,
        ..ConstitutionChange::default()
    };
    let opening = c.change(3, &open);
    assert_eq!(c.inject(&[opening, plain]), Ok((4, false)));
    let (in_force, constitution) = c.in_force();
    assert_eq!(
        (in_force.index, constitution.authors),
        (Some(4), Vec::new())
    );
    let meta = c.leap();
    // The constitution is again what it was: its hash says so, its height that it was changed.
    let (genesis, _) = genesis(&c.replica);
    let hash = Constitution::hash(HashAlg::Sha3_256, &genesis);
    assert_eq!(meta.constitution_in_force, Some((hash, 1)));
    c.ends_well();
}

fn genesis(replica: &Replica) -> (Vec<u8>, Constitution) {
    let reader = Reader::new(&replica.store, replica.slot);
    reader.constitution(&reader.chain("c").unwrap()).unwrap()
}

#[test]
fn a_quant_names_the_last_change_that_it_seals_and_later_ones_wait() {
    let mut c = Course::new(&[1], &[3]);
    let steps: Vec<Tx> = [&[1, 2][..], &[1, 4], &[1, 5]]
        .iter()
        .map(|numbers| c.change(3, &authors(numbers)))
        .collect();
    let one = c.data(1);
    c.inject(&[one, steps[0].clone()]).unwrap();
    c.one(&steps[1]).unwrap();
    let early = c.template();
    let two = c.data(1);
    c.inject(&[steps[2].clone(), two]).unwrap();
    let sealed = c.seal(&early.header, &early.meta).unwrap();
    assert_eq!(sealed.header.tx_end(), 3);
    let after = |numbers: &[u8]| {
        let (genesis, _) = genesis(&c.replica);
        let bytes = authors(numbers).apply(&genesis).unwrap();
        Constitution::hash(HashAlg::Sha3_256, &bytes)
    };
    let second = after(&[1, 4]);
    let third = after(&[1, 5]);
    let said = Meta::parse(&early.meta).unwrap().constitution_in_force;
    assert_eq!(said, Some((second, 1)));
    assert_eq!(audit(&c.replica).authors, keys(&[1, 4]));
    c.replica.restart();
    let (in_force, constitution) = c.in_force();
    assert_eq!((in_force.index, in_force.height), (Some(3), None));
    assert_eq!(constitution.authors, keys(&[1, 5]));
    let stale = c.data(4);
    assert_eq!(reason(c.inject(&[stale])), ("unknown", 0));
    assert_eq!(c.leap().constitution_in_force, Some((third, 2)));
    let plain = c.data(5);
    c.inject(&[plain]).unwrap();
    assert_eq!(c.leap().constitution_in_force, None);
    let (in_force, _) = c.in_force();
    assert_eq!((in_force.index, in_force.height), (Some(3), Some(2)));
    c.ends_well();
}

/// What a Quant says instead of its record 7.
type Lie = fn(&Meta) -> Option<([u8; 32], u64)>;

#[test]
fn a_quant_that_names_another_constitution_is_refused_and_changes_nothing() {
    let lies: [(&str, Lie); 3] = [
        ("none", |_| None),
        ("another hash", |_| Some(([7; 32], 1))),
        ("another height", |meta| {
            meta.constitution_in_force.map(|(hash, _)| (hash, 0))
        }),
    ];
    for (what, lie) in lies {
        let mut c = Course::new(&[1], &[3]);
        let change = c.change(3, &authors(&[2]));
        c.inject(&[change]).unwrap();
        refuses(&mut c, what, lie);
    }
    let mut c = Course::new(&[1], &[3]);
    let plain = c.data(1);
    c.inject(&[plain]).unwrap();
    refuses(&mut c, "nothing was changed", |_| Some(([7; 32], 1)));
}

fn refuses(c: &mut Course, what: &str, lie: Lie) {
    let honest = c.template();
    let meta = Meta::parse(&honest.meta).unwrap();
    let meta = Meta {
        constitution_in_force: lie(&meta),
        ..meta
    }
    .to_bytes();
    let header = Header {
        meta_len: meta.len() as u32,
        meta_hash: HashAlg::Sha3_256.hash(&[&meta]),
        ..honest.header.clone()
    };
    let before = c.replica.rows();
    let refused = c.seal(&header, &meta);
    let named = matches!(&refused, Err(Rejection::SealDiffers(why)) if why.contains("record 7"));
    assert!(named, "{what}: {refused:?}");
    assert!(c.replica.rows() == before, "{what}");
    c.replica.restart();
    assert!(c.seal(&honest.header, &honest.meta).is_ok());
}

#[test]
fn a_pool_is_due_by_the_timers_in_force() {
    let timers = |ms, count| ConstitutionChange {
        leap_ms: ms,
        leap_count: count,
        ..ConstitutionChange::default()
    };
    let mut c = Course::with(|constitution| {
        constitution.admins = keys(&[3]);
        constitution.leap_ms = Some(500);
    });
    let due = |c: &Course, now_ms| c.replica.engine.due(now_ms, 10).unwrap() == [CHAIN];
    let plain = c.tx(DATA, None, b"x");
    c.inject(&[plain]).unwrap();
    let first_ms = c.time_ms - 1;
    assert!(due(&c, first_ms + 500) && !due(&c, first_ms + 499));
    let later = c.change(3, &timers(Edit::Put(900), Edit::Keep));
    c.inject(&[later]).unwrap();
    assert!(due(&c, first_ms + 900) && !due(&c, first_ms + 899));
    let never = c.change(3, &timers(Edit::Remove, Edit::Keep));
    c.inject(&[never]).unwrap();
    assert!(!due(&c, u64::MAX / 2));
    let full = c.change(3, &timers(Edit::Keep, Edit::Put(4)));
    c.inject(&[full]).unwrap();
    assert!(due(&c, 0));
    let larger = c.change(3, &timers(Edit::Keep, Edit::Put(6)));
    c.inject(&[larger]).unwrap();
    assert!(!due(&c, u64::MAX / 2));
    c.replica.restart();
    let plain = c.tx(DATA, None, b"x");
    c.inject(&[plain]).unwrap();
    assert!(due(&c, 0));
    c.leap();
    assert!(!due(&c, u64::MAX / 2));
    assert_eq!(audit(&c.replica).leap_count, Some(6));
    c.ends_well();
}

#[test]
fn a_pool_takes_so_many_changes_and_a_closed_chain_none() {
    let mut c = Course::new(&[1], &[3]);
    let changes: Vec<Tx> = (0..=POOL_CHANGES_MAX as u8)
        .map(|number| c.change(3, &authors(&[1, 10 + number])))
        .collect();
    let refused = c.inject(&changes);
    assert!(
        matches!(refused, Err(Rejection::PoolFull { .. })),
        "{refused:?}"
    );
    assert!(c.inject(&changes[..40]).is_ok());
    assert!(c.inject(&changes[40..POOL_CHANGES_MAX]).is_ok());
    let more = &changes[POOL_CHANGES_MAX..];
    assert!(matches!(c.inject(more), Err(Rejection::PoolFull { .. })));
    c.leap();
    c.replica.restart();
    assert!(c.inject(more).is_ok());
    let asked = TemplateRequest {
        time_ms: c.time_ms,
        node_id: NODE,
        note: b"",
        is_final: true,
    };
    let last = c.replica.engine.template(CHAIN, &asked).unwrap().unwrap();
    c.seal(&last.header, &last.meta).unwrap();
    let late = c.change(3, &authors(&[1]));
    assert!(matches!(c.inject(&[late]), Err(Rejection::Closed(_))));
    c.ends_well();
}

#[test]
fn a_change_and_a_leap_in_one_entry_come_to_the_same() {
    let mut c = Course::new(&[1], &[3]);
    let (change, plain) = (c.change(3, &authors(&[2])), c.data(2));
    c.inject(&[change, plain]).unwrap();
    let template = c.template();
    // The same again on another course, as one entry.
    let mut other = Course::new(&[1], &[3]);
    let (change, plain) = (other.change(3, &authors(&[2])), other.data(2));
    other.time_ms = c.time_ms - 1;
    let seal = Seal {
        chain: CHAIN,
        request_id: b"",
        request_body: [0; 32],
        header: &template.header.to_bytes(),
        meta: &template.meta,
    };
    let commands = [other.command(&[change, plain]), seal.encode()];
    let outcomes = other.entry(&commands);
    assert!(
        matches!(&outcomes[1], Outcome::Sealed(Ok(_))),
        "{outcomes:?}"
    );
    c.seal(&template.header, &template.meta).unwrap();
    assert!(c.replica.rows() == other.replica.rows());
    other.ends_well();
}

/// Rows to write over those of the chain, given its amended row.
type Damage = fn(&mut Vec<(Vec<u8>, Option<Vec<u8>>)>, Vec<u8>);

#[test]
fn rows_of_a_changed_constitution_that_are_not_what_was_sealed_stop_the_chain() {
    let changed = || {
        let mut c = Course::new(&[1], &[3]);
        let (sealed, pooled) = (
            c.change(3, &authors(&[1, 2])),
            c.change(3, &authors(&[1, 4])),
        );
        c.inject(&[sealed]).unwrap();
        c.leap();
        c.inject(&[pooled]).unwrap();
        c
    };
    let damages: [(&str, Damage); 4] = [
        ("another constitution", |rows, mut row| {
            *row.last_mut().unwrap() ^= 1;
            rows.push((amended_key(Slot(1), CHAIN), Some(row)));
        }),
        ("no row", |rows, _| {
            rows.push((amended_key(Slot(1), CHAIN), None));
        }),
        ("a change that is none", |rows, _| {
            rows.push((change_key(Slot(1), CHAIN, 0), Some(Vec::new())));
        }),
        ("a change that is lost", |rows, _| {
            rows.push((change_key(Slot(1), CHAIN, 1), None));
        }),
    ];
    for (what, damage) in damages {
        let mut c = changed();
        let row = c.replica.store.get(Cf::Chain, &amended_key(Slot(1), CHAIN));
        let mut rows = Vec::new();
        damage(&mut rows, row.unwrap().unwrap());
        let mut batch = c.replica.store.batch();
        for (key, row) in rows {
            match row {
                Some(row) => batch.put(Cf::Chain, key, row),
                None => batch.delete(Cf::Chain, key),
            }
        }
        c.replica.store.write(batch).unwrap();
        c.replica.restart();
        let tx = c.data(1);
        let refused = c.inject(&[tx]);
        let stopped = matches!(refused, Err(Rejection::Damaged { .. }));
        assert!(stopped, "{what}: {refused:?}");
    }
}
