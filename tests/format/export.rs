//! Export files: a whole chain verified in one pass, in any pieces; every flipped bit and every cut refused.

use qbc::chain::{
    Anchored, Auditor, EXPORT_ANCHORS, EXPORT_END, EXPORT_QUANT, EXPORT_SIGNATURE,
    EXPORT_TRANSACTION, ExportVerdict, ExportVerifier, Header, Refused, Trust, export_frame,
    export_magic,
};

use super::attack::Attack;
use super::authority::signatures;
use super::vectors::{
    Chain, MORE, Quant, V1, anchors_alone, anchors_parent, lineage, list, number, whole_chains,
};

#[test]
fn every_chain_of_the_vectors_audits_clean() {
    for (name, chain) in whole_chains() {
        let verdict = check(
            &export(&chain.quants, &[]),
            4096,
            &[Trust::Head(chain.head().hash)],
        );
        // They show anchors, without the transaction that a subchain begins with.
        if name.starts_with("anchors.children") {
            assert_eq!(verdict.unwrap_err().check, "audit-claim", "{name}");
            continue;
        }
        // It shows anchors beside data, which a server seals in its subchains.
        if name == "anchors.parent" {
            assert_eq!(verdict.unwrap_err().check, "audit-split", "{name}");
            continue;
        }
        let verdict = verdict.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (verdict.chain_id, verdict.quants),
            (chain.id, chain.quants.len() as u64),
            "{name}"
        );
        assert_eq!(verdict.anchored, Anchored::ByHead(chain.head().hash));
        assert_eq!(verdict.transactions, chain.head().parsed().tx_end());
    }
}

#[test]
fn a_fork_audits_from_its_parents_genesis_on_and_is_no_parent() {
    for name in ["fork", "fork_of_fork"] {
        let (quants, fork) = (lineage(name), Chain::of(&V1[name]));
        let verdict = check(
            &export(&quants, &[]),
            1 << 20,
            &[Trust::Chain(Chain::of(&V1["chains"][0]).id)],
        )
        .unwrap();
        assert_eq!(
            (verdict.chain_id, verdict.anchored),
            (fork.id, Anchored::No)
        );
        assert_eq!(verdict.head_hash, fork.head().hash);
    }
}

#[test]
fn a_signed_export_is_anchored_whatever_the_pieces() {
    let (chain, file) = signed();
    for piece in [1, 2, 7, 64, 255, 256, 1000, file.len()] {
        let verdict = check(&file, piece, &[Trust::Chain(chain.id)]).unwrap();
        assert_eq!(verdict.anchored, Anchored::ByChain(chain.id, vec![1, 7]));
        assert_eq!(verdict.name, "quorum-1");
    }
}

#[test]
fn a_flipped_bit_in_a_signed_export_is_refused_wherever_it_is() {
    let (chain, good) = signed();
    let mut attack = Attack::on("export");
    for at in (0..good.len()).step_by(3) {
        let mut file = good.clone();
        file[at] ^= 1 << (at % 8);
        attack.refuses(
            &format!("byte {at}"),
            check(&file, 4096, &[Trust::Chain(chain.id)]),
        );
    }
    assert!(
        attack.refused > 1500 && attack.checks.len() > 15,
        "{:?}",
        attack.checks
    );
}

#[test]
fn an_export_cut_anywhere_is_refused() {
    let (_, good) = signed();
    let mut attack = Attack::on("cut export");
    for cut in (0..good.len()).step_by(5).chain([good.len() - 1]) {
        attack.refuses_by(
            "export-end",
            &format!("cut at {cut}"),
            check(&good[..cut], 512, &[]),
        );
    }
    attack.refuses_by(
        "export-end",
        "a byte after the end",
        check(&[&good[..], &[0]].concat(), 512, &[]),
    );
    attack.refuses_by(
        "export-end",
        "twice",
        check(&[&good[..], &good[8..]].concat(), 512, &[]),
    );
    attack.at_least_twenty();
}

#[test]
fn an_export_of_other_frames_is_refused_by_name() {
    let chain = Chain::of(&MORE["chains"][0]);
    let frames = frames(&chain.quants, &[]);
    let of =
        |frames: &[Vec<u8>]| check(&[&export_magic()[..], &frames.concat()].concat(), 4096, &[]);
    of(&frames).unwrap();
    let mut attack = Attack::on("frames");
    let (mut kinds, last) = (Vec::new(), frames.len() - 1);
    for at in 0..last {
        let without = [&frames[..at], &frames[at + 1..]].concat();
        attack.refuses(&format!("frame {at} missing"), of(&without));
        let twice = [&frames[..=at], &frames[at..]].concat();
        attack.refuses(&format!("frame {at} twice"), of(&twice));
        kinds.push(frames[at][0]);
    }
    assert!(kinds.contains(&EXPORT_TRANSACTION));
    attack.refuses_by("export-frame", "kind", of(&[export_frame(9, &[])]));
    attack.refuses_by(
        "export-frame",
        "short",
        of(&[export_frame(EXPORT_QUANT, &[&[0; 255]])]),
    );
    attack.refuses_by(
        "audit-order",
        "nothing",
        of(&[export_frame(EXPORT_END, &[&[0; 16]])]),
    );
    attack.refuses_by(
        "export-frame",
        "huge",
        check(b"QBCEXP1\n\x01\xff\xff\xff\xff", 3, &[]),
    );
    attack.refuses_by("export-magic", "magic", check(b"QBCEXP2\n", 3, &[]));
    attack.refuses_by(
        "export-count",
        "count",
        of(&[&frames[..last], &[export_frame(EXPORT_END, &[&[0; 16]])]].concat()),
    );
    let mut skipped = Auditor::new();
    attack.refuses_by(
        "audit-genesis",
        "no genesis",
        skipped.quant(&chain.quants[1].header, &chain.quants[1].meta),
    );
    attack.at_least_twenty();
}

#[test]
fn anchors_of_an_export_that_are_not_their_quants_are_refused_by_name() {
    let with = |change: &dyn Fn(&mut Vec<Quant>)| {
        let mut parent = anchors_alone();
        change(&mut parent.quants);
        check(&export(&parent.quants, &[]), 4096, &[])
    };
    with(&|_| {}).unwrap();
    let mut attack = Attack::on("anchors");
    for at in [3, 4, 5] {
        let whole = anchors_alone().quants[at].anchors.len();
        attack.refuses_by("anchor-form", "none", with(&|all| all[at].anchors.clear()));
        for cut in [1, 75, 76, 77, whole - 1] {
            let cut = with(&|all| all[at].anchors.truncate(cut));
            attack.refuses_by("anchor-form", "cut", cut);
        }
        let more = with(&|all| all[at].anchors.extend([0; 76]));
        attack.refuses_by("anchor-form", "more", more);
        let swapped = with(&|all| all[at].anchors.rotate_left(76));
        attack.refuses_by("anchor-order", "swapped", swapped);
        for byte in (4..whole).step_by(13) {
            let flipped = with(&|all| all[at].anchors[byte] ^= 1);
            attack.refuses(&format!("byte {byte}"), flipped);
        }
    }
    let other = with(&|all| all[4].anchors = all[5].anchors.clone());
    attack.refuses("of another Quant", other);
    let frames = frames(&anchors_alone().quants, &[]);
    let kinds: Vec<u8> = frames.iter().map(|frame| frame[0]).collect();
    let at = kinds
        .iter()
        .position(|kind| *kind == EXPORT_ANCHORS)
        .unwrap();
    assert_eq!(kinds[at - 1], EXPORT_QUANT);
    let mut early = frames.clone();
    early.swap(at - 1, at);
    let early = [&export_magic()[..], &early.concat()].concat();
    attack.refuses_by("audit-order", "early", check(&early, 4096, &[]));
    attack.at_least_twenty();
}

#[test]
fn a_chain_that_is_split_is_split_once_and_seals_tombstones_alone() {
    let of = |quants: &[Quant]| check(&export(quants, &[]), 4096, &[]);
    of(&anchors_alone().quants).unwrap();
    let mut attack = Attack::on("after a split");
    let data = &anchors_parent().quants;
    attack.refuses_by("audit-split", "data after it", of(data));
    let mut twice = anchors_alone();
    let (last, route) = (twice.quants.len() - 1, twice.quants[2].meta.clone());
    let header = Header {
        meta_len: route.len() as u32,
        meta_hash: twice.alg.hash(&[&route]),
        ..twice.quants[last].parsed()
    };
    let quant = &mut twice.quants[last];
    (quant.header, quant.hash) = (header.to_bytes().to_vec(), header.hash());
    quant.meta = route;
    attack.refuses_by("audit-split", "a second route", of(&twice.quants));
}

#[test]
fn after_a_refusal_a_verifier_stays_refusing() {
    let mut verifier = ExportVerifier::new(Vec::new());
    let first = verifier.push(b"garbage, and no export").unwrap_err();
    assert_eq!(verifier.push(export_magic()).unwrap_err(), first);
    assert_eq!(verifier.finish().unwrap_err(), first);
}

pub fn check(file: &[u8], piece: usize, trust: &[Trust]) -> Result<ExportVerdict, Refused> {
    let mut verifier = ExportVerifier::new(trust.to_vec());
    for piece in file.chunks(piece) {
        verifier.push(piece)?;
    }
    verifier.finish()
}

/// An export whose every vectored head is signed, the last one among them.
fn signed() -> (Chain, Vec<u8>) {
    let value = &MORE["chains"][0];
    let chain = Chain::of(value);
    let heads = list(&value["heads"]).iter();
    let signed = heads.map(|h| {
        let records = signatures(h)
            .iter()
            .map(|s| export_frame(EXPORT_SIGNATURE, &[&s.to_bytes()]))
            .collect();
        (number(&h["height"]), records)
    });
    let file = export(&chain.quants, &signed.collect::<Vec<_>>());
    (chain, file)
}

pub fn export(quants: &[Quant], signed: &[(u64, Vec<Vec<u8>>)]) -> Vec<u8> {
    [&export_magic()[..], &frames(quants, signed).concat()].concat()
}

fn frames(quants: &[Quant], signed: &[(u64, Vec<Vec<u8>>)]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut transactions = 0u64;
    for (height, quant) in quants.iter().enumerate() {
        frames.push(export_frame(EXPORT_QUANT, &[&quant.header, &quant.meta]));
        if !quant.anchors.is_empty() {
            frames.push(export_frame(EXPORT_ANCHORS, &[&quant.anchors]));
        }
        for transaction in &quant.transactions {
            let evidence = &transaction.evidence;
            let attributes = evidence.attributes.as_deref().unwrap_or_default();
            let (length, salt) = ((attributes.len() as u32).to_be_bytes(), evidence.salt);
            let (salt, payload) = (
                salt.as_ref().map_or(&[][..], |s| s),
                evidence.payload.as_deref().unwrap(),
            );
            frames.push(export_frame(
                EXPORT_TRANSACTION,
                &[&evidence.envelope, &length, attributes, salt, payload],
            ));
            transactions += 1;
        }
        let records = signed.iter().filter(|(h, _)| *h == height as u64);
        frames.extend(records.flat_map(|(_, records)| records.clone()));
    }
    let counts = [
        (quants.len() as u64).to_be_bytes(),
        transactions.to_be_bytes(),
    ]
    .concat();
    frames.push(export_frame(EXPORT_END, &[&counts]));
    frames
}
