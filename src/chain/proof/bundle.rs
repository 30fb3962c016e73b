//! The newcomer's bundle: what is enough to check every older Quant and transaction of a chain on demand.

use super::grammar::ChangeEvidence;
use super::head::{check_constitution, check_signatures};
use super::link::owner_at;
use crate::chain::authority::HeadSignature;
use crate::chain::constitution::{Authority, Constitution};
use crate::chain::hash::Hash;
use crate::chain::id::ChainId;
use crate::chain::proof_system::Systems;
use crate::chain::quant::Header;
use crate::chain::refused::Refused;
use crate::chain::tree::Frontier;

/// A signed head with all that it takes to believe it, as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The head, 256 bytes.
    pub header: Vec<u8>,
    /// Peaks of the tree over heights 0 .. height - 1, largest first.
    pub peaks: Vec<Hash>,
    /// Header and meta of the genesis or fork-genesis whose hash is the chain's id.
    pub genesis: (Vec<u8>, Vec<u8>),
    /// Of a fork: the fork-genesis headers walked down from the head.
    pub borders: Vec<Vec<u8>>,
    /// Every change of the authority, ascending.
    pub authority_changes: Vec<ChangeEvidence>,
    /// The nodes' signatures on the head.
    pub signatures: Vec<HeadSignature>,
}

/// A head that passed every check: what a client keeps per chain.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedHead {
    /// The chain.
    pub chain_id: ChainId,
    /// The head.
    pub header: Header,
    /// Its quant_hash.
    pub hash: Hash,
    /// Compact range over the hashes of heights 0 .. height - 1.
    pub frontier: Frontier,
    /// Of a fork: the fork-genesis headers walked down from the head.
    pub borders: Vec<Header>,
    /// The constitution as it was banged.
    pub constitution: Constitution,
    /// The authority in force for this head.
    pub authority: Authority,
    /// Number of the last authority change, 0 for none.
    pub authority_seq: u32,
}

/// Checks a bundle, and that it is of the chain that the caller expects, if it expects one.
pub fn verify_bundle(bundle: &Bundle, expect: Option<ChainId>) -> Result<TrustedHead, Refused> {
    let header = Header::parse(&bundle.header)?;
    let chain_id = header.id();
    // 1. The chain is the expected one.
    if let Some(expected) = expect.filter(|e| *e != chain_id) {
        let why = format!("the bundle is of chain {chain_id}, not of {expected}");
        return Err(Refused::new("bundle-chain", why));
    }
    // 2. The genesis gives the chain its id, and the constitution; the changes give the authority.
    let (genesis_header, genesis_meta) = &bundle.genesis;
    let facts = check_constitution(
        genesis_header,
        genesis_meta,
        &bundle.authority_changes,
        &header,
    )?;
    // 3. A fork shows where it left its parent.
    let borders = check_borders(bundle, &header, &facts.genesis)?;
    // 4. The head shows what the constitution asks for.
    Systems::of(&facts.constitution).check_alone(&header)?;
    // 5. The peaks are those of the head's history.
    let frontier = check_peaks(&bundle.peaks, &header)?;
    // 6. Enough nodes vouch for the head.
    check_signatures(&bundle.signatures, &header, &facts)?;
    Ok(TrustedHead {
        chain_id,
        hash: header.hash(),
        header,
        frontier,
        borders,
        constitution: facts.constitution,
        authority: facts.authority,
        authority_seq: facts.authority_seq,
    })
}

fn check_borders(
    bundle: &Bundle,
    header: &Header,
    genesis: &Header,
) -> Result<Vec<Header>, Refused> {
    let borders = bundle
        .borders
        .iter()
        .map(|b| Header::parse(b))
        .collect::<Result<Vec<_>, _>>()?;
    owner_at(header, &borders, 0)?;
    if genesis.fork_genesis && borders.is_empty() {
        return Err(Refused::new(
            "border",
            "the chain is a fork, and the bundle does not show where it left its parent",
        ));
    }
    Ok(borders)
}

fn check_peaks(peaks: &[Hash], header: &Header) -> Result<Frontier, Refused> {
    let Some(frontier) = Frontier::from_parts(header.height, peaks.to_vec()) else {
        let why = format!(
            "{} peaks do not make a history of {} Quants",
            peaks.len(),
            header.height
        );
        return Err(Refused::new("peaks-count", why));
    };
    if frontier.root(header.hash_alg) != header.hist_root {
        return Err(Refused::new(
            "peaks",
            "the peaks do not give the head's history root",
        ));
    }
    Ok(frontier)
}
