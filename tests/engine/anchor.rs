//! Anchors on replicas: the same evidence gives the same bytes in any batches and with any restarts, it comes with images,
//! and evidence that goes back, skips, is of another chain or is cut is refused and changes nothing.

use qbc::chain::{
    AnchorEvidence, AnchorLeaf, HashAlg, Header, read_anchors, verify_anchor, verify_history_link,
};
use qbc::engine::{
    Anchoring, ImageError, ImageReceiver, Outcome, ReadError, Reader, Rejection, Seal, Template,
    TemplateRequest,
};
use qbc::store::{Cf, ChainNo, Slot, anchor_key};

use crate::image::{moved, pieces, take};
use crate::replica::{Replica, entry, open};
use crate::split::{FIRST, PARENT, SECOND, id_that_leads_to, steps, with_id};

fn asked(time_ms: u64) -> TemplateRequest<'static> {
    TemplateRequest {
        time_ms,
        node_id: 1,
        note: b"",
        is_final: false,
    }
}

fn sealed(no: ChainNo, template: &Template) -> Vec<u8> {
    let seal = Seal {
        chain: no,
        request_id: b"",
        request_body: [0; 32],
        header: &template.header.to_bytes(),
        meta: &template.meta,
    };
    seal.encode()
}

fn anchoring(template: &Template, evidence: &[AnchorEvidence]) -> Vec<u8> {
    let evidence = AnchorEvidence::all_to_bytes(evidence);
    Anchoring {
        seal: Seal {
            chain: PARENT,
            request_id: b"",
            request_body: [0; 32],
            header: &template.header.to_bytes(),
            meta: &template.meta,
        },
        evidence: &evidence,
    }
    .encode()
}

/// Injects into a subchain and seals it: the entry that did it.
fn grow(replica: &Replica, no: ChainNo, time_ms: u64) -> Vec<Vec<u8>> {
    let parent = chain_id(replica);
    let place = u32::from(no != FIRST);
    let id = format!("{} {time_ms}", id_that_leads_to(&parent, place));
    let ids = (0..).map(|n| format!("{id} {n}"));
    let mut leads = ids
        .filter(|id| qbc::chain::place_of(HashAlg::Sha3_256, &parent, id.as_bytes(), 2) == place);
    let injected = entry(time_ms, &[with_id(no, &leads.next().unwrap())]);
    replica.apply(std::slice::from_ref(&injected));
    let template = replica.engine.template(no, &asked(time_ms)).unwrap();
    let seal = entry(time_ms, &[sealed(no, &template.unwrap())]);
    replica.apply(std::slice::from_ref(&seal));
    vec![injected, seal]
}

fn chain_id(replica: &Replica) -> qbc::chain::ChainId {
    let reader = Reader::new(&replica.store, replica.slot);
    reader.chain("a").unwrap().chain_id
}

fn header(replica: &Replica, no: ChainNo, height: u64) -> Header {
    let reader = Reader::new(&replica.store, replica.slot);
    let view = reader.chain_no(no).unwrap().unwrap();
    reader.quant(&view, height).unwrap().parse().unwrap()
}

/// That a subchain's height extends an earlier one.
fn evidence(replica: &Replica, no: ChainNo, old: u64, new: u64) -> AnchorEvidence {
    let reader = Reader::new(&replica.store, replica.slot);
    let view = reader.chain_no(no).unwrap().unwrap();
    AnchorEvidence {
        old: header(replica, no, old),
        new: header(replica, no, new),
        path: reader.history_path(&view, old, new).unwrap(),
    }
}

fn anchor(replica: &Replica, time_ms: u64, evidence: &[AnchorEvidence]) -> Vec<u8> {
    let template = replica
        .engine
        .template_anchoring(PARENT, &asked(time_ms), evidence);
    let command = anchoring(&template.unwrap().unwrap(), evidence);
    let entry = entry(time_ms, &[command]);
    let outcome = replica.apply(std::slice::from_ref(&entry));
    assert!(
        matches!(outcome[0][0], Outcome::Sealed(Ok(_))),
        "{outcome:?}"
    );
    entry
}

/// A chain that is split and has anchored both subchains, and one of them again: all entries.
fn anchored() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 9);
    let mut entries = steps().entries;
    replica.apply(&entries);
    for (at, no) in [(0, FIRST), (1, FIRST), (2, SECOND)] {
        entries.extend(grow(&replica, no, 10_000 + at));
    }
    let both = [
        evidence(&replica, SECOND, 0, 1),
        evidence(&replica, FIRST, 0, 2),
    ];
    entries.push(anchor(&replica, 11_000, &both));
    entries.extend(grow(&replica, FIRST, 12_000));
    let again = [evidence(&replica, FIRST, 2, 3)];
    entries.push(anchor(&replica, 13_000, &again));
    entries
}

#[test]
fn anchors_give_the_same_bytes_in_any_batches_come_with_an_image_and_prove_their_subchains() {
    let entries = anchored();
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (all, mut each) = (Replica::new(&store, 1), Replica::new(&store, 2));
    all.apply(&entries);
    for entry in &entries {
        each.apply(std::slice::from_ref(entry));
        each.restart();
    }
    assert!(all.rows() == each.rows());
    assert!(each.engine.damages().is_empty());
    assert_eq!(all.engine.anchoring().unwrap(), [PARENT]);
    let fresh = tempfile::tempdir().unwrap();
    let taken = moved(&all, &open(fresh.path()), 5, None).replica;
    for replica in [&all, &taken] {
        let reader = Reader::new(&replica.store, replica.slot);
        let view = reader.chain("a").unwrap();
        assert_eq!(view.head.height, 3);
        let first = reader.quant(&view, 2).unwrap();
        let quant = first.parse().unwrap();
        assert_eq!((quant.tx_count, quant.anchor_count), (0, 2));
        let leaves = read_anchors(&quant, &first.anchors).unwrap();
        assert!(leaves.contains(&AnchorLeaf::of(&header(replica, FIRST, 2))));
        let child = header(replica, FIRST, 1).id();
        // Its first Quant is held by the anchor of its second.
        let found = reader.anchor(&view, &child, (1, 3)).unwrap();
        assert_eq!(
            (found.child_height, found.quant.header.clone()),
            (2, first.header)
        );
        let below = header(replica, FIRST, found.child_height);
        let parent = found.quant.parse().unwrap();
        verify_anchor(&below, &parent, found.index, &found.path).unwrap();
        let path = reader.history_path(&view, 2, 3).unwrap();
        verify_history_link(&parent, &view.head, &[], &path).unwrap();
        let found = reader.anchor(&view, &child, (3, 3)).unwrap();
        assert_eq!(
            (found.child_height, found.index, found.path.len()),
            (3, 0, 0)
        );
        let missing = reader.anchor(&view, &child, (3, 2)).unwrap_err();
        assert!(
            matches!(missing, ReadError::NotAnchored { height: 2, .. }),
            "{missing}"
        );
        let missing = reader.anchor(&view, &child, (4, 3)).unwrap_err();
        assert!(
            matches!(missing, ReadError::NotAnchored { from: 4, .. }),
            "{missing}"
        );
        let strange = reader.anchor(&view, &view.chain_id, (0, 3)).unwrap_err();
        assert!(matches!(strange, ReadError::NoSubchain { .. }), "{strange}");
    }
}

#[test]
fn the_newest_anchor_is_found_as_of_any_quant_of_the_parent() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    replica.apply(&anchored());
    for height in 3..9 {
        grow(&replica, FIRST, 14_000 + height * 2_000);
        let next = [evidence(&replica, FIRST, height, height + 1)];
        anchor(&replica, 15_000 + height * 2_000, &next);
    }
    let reader = Reader::new(&replica.store, replica.slot);
    let view = reader.chain("a").unwrap();
    assert_eq!(view.head.height, 9);
    let child = header(&replica, FIRST, 1).id();
    for top in 0..2 {
        let missing = reader.newest_anchor(&view, &child, (0, top)).unwrap_err();
        assert!(
            matches!(missing, ReadError::NotAnchored { .. }),
            "{missing}"
        );
    }
    for top in 2..10 {
        let found = reader.newest_anchor(&view, &child, (0, top)).unwrap();
        let quant = found.quant.parse().unwrap();
        assert_eq!((found.child_height, quant.height), (top, top));
        let below = header(&replica, FIRST, found.child_height);
        verify_anchor(&below, &quant, found.index, &found.path).unwrap();
        let above = reader.newest_anchor(&view, &child, (top + 1, top));
        assert!(matches!(above, Err(ReadError::NotAnchored { .. })));
    }
    let second = header(&replica, SECOND, 1).id();
    let found = reader.newest_anchor(&view, &second, (0, 9)).unwrap();
    assert_eq!(found.child_height, 1, "it never moved again");
    let strange = reader.newest_anchor(&view, &view.chain_id, (0, 9));
    assert!(matches!(strange, Err(ReadError::NoSubchain { .. })));
}

#[test]
fn evidence_that_does_not_hold_is_refused_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    replica.apply(&anchored());
    grow(&replica, FIRST, 14_000);
    grow(&replica, FIRST, 14_500);
    grow(&replica, SECOND, 15_000);
    let good = evidence(&replica, FIRST, 3, 5);
    let mut swapped = good.clone();
    swapped.new = header(&replica, SECOND, 2);
    let mut cut = good.clone();
    cut.path.pop();
    let mut rewritten = good.clone();
    rewritten.new.hist_root[0] ^= 1;
    let refused = [
        ("anchor-back", vec![evidence(&replica, FIRST, 1, 2)]),
        ("anchor-back", vec![evidence(&replica, FIRST, 1, 3)]),
        ("anchor-last", vec![evidence(&replica, FIRST, 2, 5)]),
        ("anchor-last", vec![evidence(&replica, FIRST, 4, 5)]),
        ("anchor-last", vec![swapped]),
        ("anchor-child", vec![evidence(&replica, PARENT, 0, 2)]),
        ("anchor-order", vec![good.clone(), good.clone()]),
        ("", vec![cut]),
        ("inclusion-root", vec![rewritten]),
    ];
    let honest = replica
        .engine
        .template_anchoring(PARENT, &asked(16_000), std::slice::from_ref(&good))
        .unwrap()
        .unwrap();
    let before = replica.rows();
    for (check, evidence) in refused {
        let made = replica
            .engine
            .template_anchoring(PARENT, &asked(16_000), &evidence)
            .unwrap()
            .unwrap_err();
        let Rejection::BadEvidence(why) = &made else {
            panic!("{check}: {made:?}");
        };
        assert!(why.starts_with(check), "{check}: {why}");
        let outcome = replica.apply(&[entry(16_000, &[anchoring(&honest, &evidence)])]);
        assert_eq!(outcome[0][0], Outcome::Sealed(Err(made)), "{check}");
    }
    let none = entry(16_000, &[anchoring(&honest, &[])]);
    let outcome = replica.apply(&[none]);
    assert!(
        matches!(
            outcome[0][0],
            Outcome::Sealed(Err(Rejection::SealDiffers(_)))
        ),
        "anchors without evidence: {outcome:?}"
    );
    assert!(replica.rows() == before, "nothing is changed");
}

#[test]
fn a_chain_that_is_not_split_anchors_nothing_and_nothing_is_sealed_where_nothing_moved() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::new(&open(dir.path()), 1);
    replica.apply(&anchored());
    let template = replica.engine.template(PARENT, &asked(16_000)).unwrap();
    assert!(
        matches!(template, Err(Rejection::NothingToSeal(_))),
        "{template:?}"
    );
    let good = [evidence(&replica, SECOND, 0, 1)];
    let made = replica
        .engine
        .template_anchoring(FIRST, &asked(16_000), &good)
        .unwrap();
    assert!(matches!(made, Err(Rejection::BadEvidence(_))), "{made:?}");
}

#[test]
fn another_count_or_root_of_anchors_stops_the_chain_on_the_replica() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::new(&open(dir.path()), 1);
    replica.apply(&anchored());
    grow(&replica, SECOND, 15_000);
    let good = [evidence(&replica, SECOND, 1, 2)];
    let honest = replica
        .engine
        .template_anchoring(PARENT, &asked(16_000), &good)
        .unwrap()
        .unwrap();
    let mut other = honest.clone();
    other.header.anchors_root[7] ^= 1;
    let mut more = honest.clone();
    more.header.anchor_count += 1;
    for wrong in [other, more] {
        let outcome = replica.apply(&[entry(16_000, &[anchoring(&wrong, &good)])]);
        assert!(
            matches!(
                outcome[0][0],
                Outcome::Sealed(Err(Rejection::SealDiffers(_)))
            ),
            "{outcome:?}"
        );
        replica.restart();
    }
    let outcome = replica.apply(&[entry(16_000, &[anchoring(&honest, &good)])]);
    assert!(
        matches!(outcome[0][0], Outcome::Sealed(Ok(_))),
        "{outcome:?}"
    );
}

/// What is damaged, and how.
type Damaged = (&'static str, fn(&Replica));

#[test]
fn a_damaged_anchor_is_found_at_load_by_the_scrub_and_by_who_takes_an_image() {
    let entries = anchored();
    let anchors_of_two = |replica: &Replica| {
        // As the scrub reads: nothing that is in memory already.
        let stored = replica.store.snapshot().passing();
        let reader = Reader::new(&stored, replica.slot);
        let view = reader.chain("a").unwrap();
        let quant = reader.quant(&view, 2).unwrap();
        let expected = quant.parse().unwrap().hash();
        qbc::engine::check_quant(&reader, &view, 2, &expected).unwrap()
    };
    let damages: [Damaged; 3] = [
        ("a leaf", |replica| {
            let key = qbc::store::quant_key(replica.slot, PARENT, 2);
            change(replica, Cf::Quant, &key, |row| {
                *row.last_mut().unwrap() ^= 1;
            });
        }),
        ("a leaf missing", |replica| {
            let key = qbc::store::quant_key(replica.slot, PARENT, 2);
            change(replica, Cf::Quant, &key, |row| row.truncate(row.len() - 76));
        }),
        ("a row", |replica| {
            let key = anchor_key(replica.slot, PARENT, 1, 1);
            change(replica, Cf::Index, &key, |row| row[9] ^= 1);
        }),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let mut replica = Replica::new(&open(dir.path()), 1);
        replica.apply(&entries);
        assert_eq!(anchors_of_two(&replica), None);
        damage(&replica);
        let found = anchors_of_two(&replica).expect(what);
        assert_eq!((found.chain.as_str(), found.height), ("a", 2), "{what}");
        replica.restart();
        let loaded = replica.engine.check_chain(PARENT).unwrap();
        assert!(
            matches!(loaded, Err(Rejection::Damaged { .. })),
            "{what}: {loaded:?}"
        );
        let fresh = tempfile::tempdir().unwrap();
        let mut receiver = ImageReceiver::new(open(fresh.path()), Slot(5), None).unwrap();
        let (all, _) = pieces(&replica, &mut receiver);
        let taken = take(&mut receiver, &all).unwrap_err();
        assert!(matches!(taken, ImageError::Damage(_)), "{what}: {taken}");
    }
}

fn change(replica: &Replica, cf: Cf, key: &[u8], how: impl FnOnce(&mut Vec<u8>)) {
    use qbc::store::View;
    let mut row = replica.store.get(cf, key).unwrap().unwrap();
    how(&mut row);
    let mut batch = replica.store.batch();
    batch.put(cf, key, row);
    replica.store.write(batch).unwrap();
}
