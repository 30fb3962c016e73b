//! Who vouches for a header: the genesis with its constitution, the authority after its changes, the signatures.

use super::grammar::{ChangeEvidence, HeadEvidence};
use super::link::verify_history_link;
use crate::chain::authority::{
    AuthorityChange, HeadSignature, algs_of, signers, verify_quorum, verify_required,
};
use crate::chain::constitution::{Authority, Constitution};
use crate::chain::hash::HashAlg;
use crate::chain::id::ChainId;
use crate::chain::meta::{Meta, ParentRef};
use crate::chain::proof_system::Systems;
use crate::chain::quant::{Header, check_meta};
use crate::chain::refused::Refused;
use crate::chain::sig_alg::SigAlgs;

/// A checked genesis or fork-genesis.
pub(crate) struct Genesis {
    /// Its header.
    pub(crate) header: Header,
    /// The constitution in its meta.
    pub(crate) constitution: Constitution,
    /// That constitution's bytes.
    pub(crate) constitution_bytes: Vec<u8>,
}

/// What the evidence about a head shows.
pub(super) struct HeadFacts {
    pub(super) genesis: Header,
    pub(super) constitution: Constitution,
    pub(super) authority: Authority,
    pub(super) authority_seq: u32,
    /// Nodes whose signatures were checked, ascending; enough for the quorum, or none.
    pub(super) nodes: Vec<u64>,
    /// What they signed with, in words.
    pub(super) algs: String,
}

/// Checks all the evidence about the last header, and that the required algorithms are among its signatures; nothing
/// where no genesis is shown and nothing is required.
pub(super) fn check_head(
    evidence: &HeadEvidence,
    last: &Header,
    required: SigAlgs,
) -> Result<Option<HeadFacts>, Refused> {
    let Some((header, meta)) = &evidence.genesis else {
        return check_nothing_unchecked(evidence, required);
    };
    let mut facts = check_constitution(header, meta, &evidence.authority_changes, last)?;
    if !evidence.signatures.is_empty() {
        facts.nodes = check_signatures(&evidence.signatures, last, &facts)?;
        facts.algs = algs_of(&evidence.signatures);
    }
    verify_required(&evidence.signatures, &facts.constitution, required)?;
    Ok(Some(facts))
}

/// The genesis that gives the last header's chain its id, and the authority after every change.
pub(super) fn check_constitution(
    header: &[u8],
    meta: &[u8],
    changes: &[ChangeEvidence],
    last: &Header,
) -> Result<HeadFacts, Refused> {
    let genesis = check_genesis(&Header::parse(header)?, meta)?;
    check_genesis_of(&genesis.header, last)?;
    let mut facts = HeadFacts {
        genesis: genesis.header,
        authority: genesis.constitution.authority.clone(),
        constitution: genesis.constitution,
        authority_seq: 0,
        nodes: Vec::new(),
        algs: String::new(),
    };
    let mut below = facts.genesis.height;
    for change in changes {
        below = check_change(change, last, below, &mut facts)?;
    }
    Ok(facts)
}

/// Checks the signatures and the quorum; the nodes, ascending.
pub(super) fn check_signatures(
    signatures: &[HeadSignature],
    last: &Header,
    facts: &HeadFacts,
) -> Result<Vec<u64>, Refused> {
    verify_quorum(signatures, last, &facts.constitution, &facts.authority)?;
    Ok(signers(signatures))
}

/// Checks a chain's first Quant: its meta holds the constitution, and says of itself what is true.
pub(crate) fn check_genesis(header: &Header, meta: &[u8]) -> Result<Genesis, Refused> {
    // 1. It is one.
    if !header.genesis && !header.fork_genesis {
        return Err(Refused::new(
            "genesis",
            format!(
                "Quant {} is neither genesis nor fork-genesis",
                header.height
            ),
        ));
    }
    // 2. The meta is the one that it hashes.
    check_meta(header, meta)?;
    let records = Meta::parse(meta)?;
    // 3. The constitution is in it.
    let Some(bytes) = &records.constitution else {
        return Err(Refused::new(
            "constitution",
            "the genesis holds no constitution",
        ));
    };
    let constitution = Constitution::parse(bytes)?;
    // 4. The constitution in force is this one, from this height.
    let in_force = (Constitution::hash(header.hash_alg, bytes), header.height);
    if records.constitution_in_force.is_some_and(|r| r != in_force) {
        return Err(Refused::new(
            "constitution-in-force",
            "meta record 7 names another constitution or height",
        ));
    }
    // 5. A fork names the Quant that it continues. A place alone is only a fork's.
    if header.fork_genesis {
        check_parent(header, records.parent.as_ref())?;
    } else if constitution.place.is_some() && !constitution.is_subchain() {
        let why = "a place without family_id stands in a genesis; it is for forks";
        return Err(Refused::new("constitution-sense", why));
    }
    Ok(Genesis {
        header: header.clone(),
        constitution,
        constitution_bytes: bytes.clone(),
    })
}

/// Checks one authority change against the authority in force; the new one, with its number.
pub(crate) fn apply_change(
    value: &[u8],
    chain_id: &ChainId,
    alg: HashAlg,
    authority: &Authority,
    seq: u32,
) -> Result<(Authority, u32), Refused> {
    let change = AuthorityChange::parse(value)?;
    if Some(change.seq) != seq.checked_add(1) {
        let why = format!(
            "change {} follows change {seq}: one is missing or shown twice",
            change.seq
        );
        return Err(Refused::new("authority-seq", why));
    }
    change.verify(chain_id, authority, alg)?;
    Ok((change.new, change.seq))
}

/// Without a genesis nobody knows who may sign, and what cannot be checked must not be shown.
fn check_nothing_unchecked(
    evidence: &HeadEvidence,
    required: SigAlgs,
) -> Result<Option<HeadFacts>, Refused> {
    if let Some(alg) = required.iter().next() {
        let why = format!(
            "{} is required, and no genesis is shown under which a signature could be checked",
            alg.name()
        );
        return Err(Refused::new("signature-required", why));
    }
    if evidence.signatures.is_empty() && evidence.authority_changes.is_empty() {
        return Ok(None);
    }
    let why =
        "signatures or authority changes are shown without the genesis that says who may sign";
    Err(Refused::new("genesis-missing", why))
}

fn check_genesis_of(genesis: &Header, last: &Header) -> Result<(), Refused> {
    if genesis.hash() != last.id().0 {
        return Err(Refused::new(
            "genesis-id",
            format!("the genesis shown is not that of chain {}", last.id()),
        ));
    }
    if genesis != last && genesis.height >= last.height {
        let why = format!(
            "the head's height {} is not above its genesis's {}",
            last.height, genesis.height
        );
        return Err(Refused::new("height-order", why));
    }
    Ok(())
}

fn check_parent(header: &Header, parent: Option<&ParentRef>) -> Result<(), Refused> {
    let named = parent.is_some_and(|p| {
        p.id == header.chain_id
            && p.height.checked_add(1) == Some(header.height)
            && p.quant_hash == header.prev_hash
    });
    if named {
        return Ok(());
    }
    Err(Refused::new(
        "parent",
        "meta record 2 of the fork-genesis is not the Quant that it continues",
    ))
}

fn check_change(
    change: &ChangeEvidence,
    last: &Header,
    below: u64,
    facts: &mut HeadFacts,
) -> Result<u64, Refused> {
    let header = Header::parse(&change.header)?;
    if header.height <= below {
        let why = format!(
            "the change at height {} is not above height {below}",
            header.height
        );
        return Err(Refused::new("authority-order", why));
    }
    Systems::of(&facts.constitution).check_alone(&header)?;
    verify_history_link(&header, last, &[], &change.path)?;
    check_meta(&header, &change.meta)?;
    let Some(value) = Meta::parse(&change.meta)?.authority_change else {
        let why = format!("Quant {} carries no authority change", header.height);
        return Err(Refused::new("authority-missing", why));
    };
    let (authority, seq) = apply_change(
        &value,
        &last.id(),
        last.hash_alg,
        &facts.authority,
        facts.authority_seq,
    )?;
    facts.authority = authority;
    facts.authority_seq = seq;
    Ok(header.height)
}
