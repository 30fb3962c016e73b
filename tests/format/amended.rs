//! A chain whose constitution is changed in its course: what each change makes of it, and what an audit refuses.

use qbc::chain::{
    Auditor, Constitution, ConstitutionChange, Envelope, HashAlg, Header, Meta, Refused,
    attributes_hash,
};

use super::attack::Attack;
use super::vectors::{Chain, MORE, bytes, hash, list};

fn chain() -> Chain {
    Chain::of(&MORE["amended"])
}

/// Audits the chain with a change to one Quant's header and meta, or to one transaction.
fn audit(
    quant: impl Fn(u64, &mut Header, &mut Vec<u8>),
    transaction: impl Fn(u64, &mut Envelope, &mut Vec<u8>, &mut Vec<u8>),
) -> Result<Auditor, Refused> {
    let (mut auditor, mut index) = (Auditor::new(), 0);
    for (height, made) in (0..).zip(&chain().quants) {
        let (mut header, mut meta) = (made.parsed(), made.meta.clone());
        quant(height, &mut header, &mut meta);
        header.meta_len = meta.len() as u32;
        header.meta_hash = HashAlg::Sha3_256.hash(&[&meta]);
        auditor.quant(&header.to_bytes(), &meta)?;
        for made in &made.transactions {
            let evidence = &made.evidence;
            let mut envelope = Envelope::parse(&evidence.envelope)?;
            let mut attributes = evidence.attributes.clone().unwrap_or_default();
            let mut payload = evidence.payload.clone().unwrap();
            transaction(index, &mut envelope, &mut attributes, &mut payload);
            let alg = HashAlg::Sha3_256;
            envelope.payload_hash = alg.hash(&[&payload]);
            envelope.payload_len = payload.len() as u64;
            envelope.attributes_hash = attributes_hash(alg, &attributes);
            let bytes = envelope.to_bytes();
            auditor.transaction(&bytes, &attributes, Some(&payload), None)?;
            index += 1;
        }
    }
    Ok(auditor)
}

fn untouched(_: u64, _: &mut Header, _: &mut Vec<u8>) {}

fn as_it_is(_: u64, _: &mut Envelope, _: &mut Vec<u8>, _: &mut Vec<u8>) {}

#[test]
fn each_change_makes_the_constitution_of_the_vectors() {
    let value = &MORE["amended"];
    let genesis = Meta::parse(&chain().quants[0].meta).unwrap();
    let mut constitution = genesis.constitution.unwrap();
    for change in list(&value["changes"]) {
        let parsed = ConstitutionChange::parse(&bytes(&change["change"])).unwrap();
        assert_eq!(parsed.to_bytes(), bytes(&change["change"]));
        constitution = parsed.apply(&constitution).unwrap();
        assert_eq!(constitution, bytes(&change["constitution"]));
        let own = Constitution::hash(HashAlg::Sha3_256, &constitution);
        assert_eq!(own, hash(&change["hash"]));
    }
}

#[test]
fn an_amended_chain_audits_clean_and_ends_under_its_last_constitution() {
    let audited = audit(untouched, as_it_is).unwrap().finish().unwrap();
    assert_eq!((audited.signed, audited.changes), (7, 3));
    assert_eq!(audited.constitution.authors, Vec::<[u8; 32]>::new());
    assert_eq!(audited.constitution.leap_count, Some(7));
    assert_eq!(audited.constitution.leap_ms, None);
    assert_eq!(audited.head_hash, chain().head().hash);
    let said = audited.steps.join("\n");
    assert!(said.contains("changed 3 times") && said.contains("7 transactions are signed"));
}

#[test]
fn a_quant_that_says_something_else_of_its_changes_is_refused() {
    type Lie = fn(&mut Meta);
    let mut attack = Attack::on("record 7");
    let cases: [(&str, u64, Lie); 4] = [
        ("none", 1, |meta| meta.constitution_in_force = None),
        ("another hash", 1, |meta| {
            meta.constitution_in_force = Some(([7; 32], 1));
        }),
        ("another height", 3, |meta| {
            meta.constitution_in_force = meta.constitution_in_force.map(|(hash, _)| (hash, 1));
        }),
        ("where nothing changed", 2, |meta| {
            meta.constitution_in_force = Some(([7; 32], 2));
        }),
    ];
    for (what, at, lie) in cases {
        let edit = |height, _: &mut Header, meta: &mut Vec<u8>| {
            if height == at {
                let mut said = Meta::parse(meta).unwrap();
                lie(&mut said);
                *meta = said.to_bytes();
            }
        };
        let audited = audit(edit, as_it_is).and_then(Auditor::finish);
        attack.refuses_by("constitution-in-force", what, audited);
    }
}

#[test]
fn a_change_that_is_not_an_admins_is_refused_at_its_index() {
    let mut attack = Attack::on("changes");
    let retyped = |at: u64, kind: u8| {
        audit(untouched, move |index, envelope, _, _| {
            if index == at {
                envelope.kind = kind;
            }
        })
    };
    attack.refuses_by("author-signature", "data as a change", retyped(0, 1));
    attack.refuses_by("author-signature", "a change as data", retyped(1, 0));
    let unsigned = audit(untouched, |index, _, attributes, _| {
        if index == 1 {
            attributes.clear();
        }
    });
    attack.refuses_by("audit-admin", "unsigned", unsigned);
    let swapped = audit(untouched, |index, _, _, payload| {
        if index == 1 {
            payload[5] ^= 1;
        }
    });
    attack.refuses_by("author-signature", "another change", swapped);
}
