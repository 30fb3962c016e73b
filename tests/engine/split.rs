//! Splits on replicas: the same steps in other batches and with other restarts give the same bytes, they come with images,
//! each step that was done is answered as done, and each that is out of turn is refused.

use qbc::chain::{ChainId, HashAlg, Meta, SplitEvidence, TYPE_CLAIM, place_of, verify_inclusion};
use qbc::engine::{
    Before, InjectHead, InjectItem, Outcome, Reader, Rejection, Seal, SplitCommand, SplitStep,
    TemplateRequest,
};
use qbc::store::{Branch, ChainNo, SplitPhase};

use crate::image::moved;
use crate::replica::{Replica, bang_bytes, entry, inject_bytes, open, plain_bang, plain_inject};

pub const PARENT: ChainNo = ChainNo(1);
pub const FIRST: ChainNo = ChainNo(2);
pub const SECOND: ChainNo = ChainNo(3);
const ALG: HashAlg = HashAlg::Sha3_256;

fn step(
    replica: &Replica,
    time_ms: u64,
    command: &SplitCommand<'_>,
) -> Result<SplitStep, Rejection> {
    match replica.apply(&[entry(time_ms, &[command.encode()])])[0][..] {
        [Outcome::Split(ref done)] => done.clone(),
        ref other => panic!("{other:?}"),
    }
}

fn inject(replica: &Replica, chain: ChainNo, id: &str) -> Result<u64, Rejection> {
    match replica.apply(&[entry(9000, &[with_id(chain, id)])])[0][..] {
        [Outcome::Injected(ref done)] => done.clone().map(|done| done.runs[0].first),
        ref other => panic!("{other:?}"),
    }
}

pub fn with_id(chain: ChainNo, id: &str) -> Vec<u8> {
    let head = InjectHead {
        chain,
        request_id: b"",
        expected_next_index: None,
        expected_head: None,
    };
    let attributes = qbc::chain::Attributes {
        id: Some(id.into()),
        ..Default::default()
    }
    .to_bytes();
    let item = InjectItem {
        kind: 0,
        attributes: &attributes,
        id: id.as_bytes(),
        salt: None,
        transfer: None,
        payload: id.as_bytes(),
    };
    head.encode([item].into_iter(), id.len())
}

fn seal(replica: &Replica, time_ms: u64) -> Vec<u8> {
    let asked = TemplateRequest {
        time_ms,
        node_id: 1,
        note: b"",
        is_final: false,
    };
    let template = replica.engine.template(PARENT, &asked).unwrap().unwrap();
    let seal = Seal {
        chain: PARENT,
        request_id: b"",
        request_body: [0; 32],
        header: &template.header.to_bytes(),
        meta: &template.meta,
    };
    entry(time_ms, &[seal.encode()])
}

pub fn id_that_leads_to(parent: &ChainId, place: u32) -> String {
    let ids = (0..).map(|number| format!("id {number}"));
    let mut leads = ids.filter(|id| place_of(ALG, parent, id.as_bytes(), 2) == place);
    leads.next().expect("half of them do")
}

/// The bangs of the subchains that were decided.
fn bangs(replica: &Replica) -> Vec<Vec<u8>> {
    let reader = Reader::new(&replica.store, replica.slot);
    let view = reader.chain("a").unwrap();
    let row = reader.split(&view).unwrap().unwrap();
    let constitution = replica.engine.inherited(PARENT).unwrap().unwrap();
    let splitting = qbc::chain::Splitting {
        alg: ALG,
        name: "a",
        constitution: &constitution,
        parent: qbc::chain::ParentRef {
            id: view.chain_id,
            height: row.parent.0,
            quant_hash: row.parent.1,
        },
        created_ms: row.created_ms,
        of: 2,
    };
    let mut entries = Vec::new();
    for (place, child) in (0..).zip(&row.children) {
        let (header, meta) = splitting.genesis(place, child.salt);
        assert_eq!(header.id(), child.id, "made again, it is the same");
        let bang = SplitCommand::Bang {
            alg: ALG,
            above: vec![Branch {
                id: view.chain_id,
                place,
                of: 2,
            }],
            meta: &meta,
        };
        entries.push(entry(3500, &[bang.encode()]));
    }
    entries
}

/// All steps in one group, as entries, made on a replica of its own.
pub struct Steps {
    pub entries: Vec<Vec<u8>>,
    parent: ChainId,
    evidence: Vec<u8>,
}

pub fn steps() -> Steps {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 9);
    let mut entries = vec![
        entry(1000, &[bang_bytes(&plain_bang("a", ALG))]),
        entry(
            2000,
            &[
                inject_bytes(PARENT, &plain_inject([b"one".to_vec()])),
                with_id(PARENT, "old"),
            ],
        ),
    ];
    let intend = SplitCommand::Intend {
        chain: PARENT,
        request_id: b"r",
        places: vec![(1, [1; 16]), (1, [2; 16])],
    };
    entries.push(entry(3000, &[intend.encode()]));
    replica.apply(&entries);
    entries.extend(bangs(&replica));
    entries.push(entry(
        4000,
        &[SplitCommand::Freeze { chain: PARENT }.encode()],
    ));
    replica.apply(&entries[3..]);
    let sealed = seal(&replica, 5000);
    replica.apply(std::slice::from_ref(&sealed));
    entries.push(sealed);
    let reader = Reader::new(&replica.store, replica.slot);
    let view = reader.chain("a").unwrap();
    let quant = reader.quant(&view, view.head.height).unwrap();
    let evidence = SplitEvidence::of(view.head, quant.meta, Vec::new()).to_bytes();
    for chain in [FIRST, SECOND] {
        let activate = SplitCommand::Activate {
            chain,
            evidence: &evidence,
            above: Vec::new(),
        };
        entries.push(entry(6000, &[activate.encode()]));
    }
    entries.push(entry(
        7000,
        &[SplitCommand::Finish { chain: PARENT }.encode()],
    ));
    let to_first = id_that_leads_to(&view.chain_id, 0);
    entries.push(entry(8000, &[with_id(FIRST, &to_first)]));
    Steps {
        entries,
        parent: view.chain_id,
        evidence,
    }
}

#[test]
fn a_split_gives_the_same_bytes_in_any_batches_and_comes_with_an_image() {
    let steps = steps();
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (all, mut each) = (Replica::new(&store, 1), Replica::new(&store, 2));
    all.apply(&steps.entries);
    for entry in &steps.entries {
        each.apply(std::slice::from_ref(entry));
        each.restart();
    }
    assert!(all.rows() == each.rows());
    assert!(each.engine.damages().is_empty());
    let reader = Reader::new(&store, all.slot);
    let view = reader.chain("a").unwrap();
    let row = reader.split(&view).unwrap().unwrap();
    assert_eq!((row.phase, row.height), (SplitPhase::Done, 1));
    assert_eq!(
        view.head.tx_end(),
        view.pool.next_index,
        "the whole pool is sealed"
    );
    let meta = Meta::parse(&reader.quant(&view, 1).unwrap().meta).unwrap();
    assert_eq!(meta.route, Some(row.route()));
    let child = reader.chain("a/0").unwrap();
    let claim = reader.transaction(&child, 0).unwrap();
    assert_eq!(claim.row().unwrap().kind, TYPE_CLAIM);
    assert_eq!(claim.row().unwrap().payload, steps.evidence);
    assert_eq!(child.pool.next_index, 2);
    assert!(reader.subchain(&child).unwrap().unwrap().active);
    let path = reader.tx_path(&view, &view.head, 1).unwrap();
    let leaf = reader.transaction(&view, 1).unwrap();
    let leaf = leaf
        .row()
        .unwrap()
        .envelope(ALG, view.chain_id, 1)
        .leaf(ALG);
    verify_inclusion(ALG, &leaf, 1, 2, &path, &view.head.tx_root).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    let taken = moved(&all, &open(fresh.path()), 5, None).replica;
    let id = id_that_leads_to(&steps.parent, 1);
    assert_eq!(inject(&taken, SECOND, &id), Ok(1), "it goes on from there");
    let split = Rejection::Split {
        chain: "a".into(),
        into: 2,
        what: "injects go to those",
    };
    assert_eq!(inject(&taken, PARENT, "new"), Err(split));
}

#[test]
fn each_step_is_done_once_and_none_out_of_turn() {
    let steps = steps();
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    let freeze = SplitCommand::Freeze { chain: PARENT };
    let finish = SplitCommand::Finish { chain: PARENT };
    replica.apply(&steps.entries[..2]);
    assert!(matches!(
        step(&replica, 2500, &freeze),
        Err(Rejection::NotSplittable { .. })
    ));
    replica.apply(&steps.entries[2..3]);
    assert_eq!(replica.engine.splits_open().unwrap(), [PARENT]);
    let again = SplitCommand::Intend {
        chain: PARENT,
        request_id: b"r",
        places: vec![(1, [8; 16]), (1, [9; 16])],
    };
    assert!(
        step(&replica, 3100, &again).unwrap().duplicate,
        "other salts count nothing"
    );
    let other = SplitCommand::Intend {
        chain: PARENT,
        request_id: b"other",
        places: vec![(1, [8; 16]); 3],
    };
    assert!(matches!(
        step(&replica, 3200, &other),
        Err(Rejection::Splitting(_))
    ));
    assert_eq!(
        inject(&replica, PARENT, "meanwhile"),
        Ok(2),
        "it takes injects still"
    );
    assert!(matches!(
        step(&replica, 3300, &finish),
        Err(Rejection::BadEvidence(_))
    ));
    replica.apply(&steps.entries[3..5]);
    let before = replica.rows();
    replica.apply(&steps.entries[3..5]);
    assert!(replica.rows() == before, "a subchain is banged once");
    let id = id_that_leads_to(&steps.parent, 0);
    assert!(matches!(
        inject(&replica, FIRST, &id),
        Err(Rejection::Splitting(_))
    ));
    assert!(!step(&replica, 4000, &freeze).unwrap().duplicate);
    assert!(step(&replica, 4100, &freeze).unwrap().duplicate);
    assert!(matches!(
        inject(&replica, PARENT, "late"),
        Err(Rejection::Splitting(_))
    ));
    assert_eq!(
        inject(&replica, PARENT, "old"),
        Ok(1),
        "a retry is answered all the same"
    );
}

#[test]
fn a_subchain_takes_what_leads_to_it_once_it_has_the_evidence() {
    let steps = steps();
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    let reader_store = replica.store.clone();
    let reader = Reader::new(&reader_store, replica.slot);
    let finish = SplitCommand::Finish { chain: PARENT };
    let id = id_that_leads_to(&steps.parent, 0);
    replica.apply(&steps.entries[..6]);
    let early = SplitCommand::Activate {
        chain: FIRST,
        evidence: &steps.evidence,
        above: Vec::new(),
    };
    let bad = SplitCommand::Activate {
        chain: FIRST,
        evidence: b"bad",
        above: Vec::new(),
    };
    assert!(matches!(
        step(&replica, 4200, &bad),
        Err(Rejection::BadEvidence(_))
    ));
    replica.apply(&[seal(&replica, 5000)]);
    let view = reader.chain("a").unwrap();
    let quant = reader.quant(&view, view.head.height).unwrap();
    let evidence = SplitEvidence::of(view.head.clone(), quant.meta, Vec::new()).to_bytes();
    let activate = |chain| SplitCommand::Activate {
        chain,
        evidence: &evidence,
        above: Vec::new(),
    };
    assert!(matches!(
        step(&replica, 5100, &activate(PARENT)),
        Err(Rejection::BadEvidence(_))
    ));
    assert!(!step(&replica, 6000, &activate(FIRST)).unwrap().duplicate);
    assert!(
        step(&replica, 6100, &early).unwrap().duplicate,
        "it is there already"
    );
    assert!(!step(&replica, 6200, &activate(SECOND)).unwrap().duplicate);
    assert!(!step(&replica, 7000, &finish).unwrap().duplicate);
    assert!(step(&replica, 7100, &finish).unwrap().duplicate);
    assert_eq!(replica.engine.splits_open().unwrap(), []);
    let wrong = inject(&replica, SECOND, &id);
    assert!(
        matches!(wrong, Err(Rejection::Misrouted { item: 0, .. })),
        "{wrong:?}"
    );
    assert_eq!(inject(&replica, FIRST, &id), Ok(1));
    let found = replica.engine.before(&with_id(PARENT, "old")).unwrap();
    assert_eq!(found, Ok(Before::Standing(vec![Some(1)])));
    let found = replica.engine.before(&with_id(PARENT, &id)).unwrap();
    assert_eq!(found, Ok(Before::Standing(vec![None])));
}
