//! What a subchain of a keyed chain or a ledger takes over from the chains above it: the state of a key or an account, once
//! each, with proofs against the states that those chains had when they were split.

use super::split::{SplitEvidence, place_of, sized};
use super::state::{StateProof, StateSubject, balance_amount, latest_index};
use super::transaction::KEY_BYTES_MAX;
use super::{ChainId, Hash, HashAlg, Meta, Refused, check_account};

/// First byte of a claim whose evidence is the state of a key or an account.
const STATE: u8 = 2;
/// What a state key begins with that says of another one that it was claimed.
const CLAIMED: u8 = 3;

/// A chain above a subchain, as its split Quant shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitAbove {
    /// Its identity.
    pub id: ChainId,
    /// The subchains that it was split into.
    pub route: Vec<ChainId>,
    /// The root of its state, which does not change any more.
    pub state_root: Hash,
}

impl SplitAbove {
    /// From the evidence, whose meta was checked; refused as `state-missing` where the Quant commits to no state.
    pub fn of(evidence: &SplitEvidence) -> Result<Self, Refused> {
        let meta = Meta::parse(&evidence.meta)?;
        let alg = evidence.header.hash_alg as u8;
        let root = meta.state_root.filter(|(told, _)| *told == alg);
        let (_, state_root) = root.ok_or_else(|| {
            let why = "the split Quant commits to no state, which its subchain would claim from";
            Refused::new("state-missing", why)
        })?;
        Ok(Self {
            id: evidence.header.id(),
            route: meta.route.unwrap_or_default(),
            state_root,
        })
    }

    /// The subchain that a routing key leads to.
    pub fn leads_to(&self, alg: HashAlg, routing_key: &[u8]) -> Option<ChainId> {
        let place = place_of(alg, &self.id, routing_key, self.route.len() as u32);
        self.route.get(place as usize).copied()
    }
}

/// True where a routing key leads to this chain, from the topmost one above it on.
pub fn leads_here(alg: HashAlg, above: &[SplitAbove], own: &ChainId, routing_key: &[u8]) -> bool {
    let ways = above.iter().skip(1).map(|next| &next.id).chain([own]);
    above
        .iter()
        .zip(ways)
        .all(|(split, next)| split.leads_to(alg, routing_key).as_ref() == Some(next))
}

/// The state key by which a subchain says that it claimed another one: `03 || state key`. Its value is the claim's index.
pub fn claimed_key(state_key: &[u8]) -> Vec<u8> {
    [&[CLAIMED], state_key].concat()
}

/// The state of a key or an account in the chains above a subchain: the payload of a claim (type 5) of kind 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateClaim {
    /// Of the key or the account.
    pub state_key: Vec<u8>,
    /// State proofs, from the nearest chain above on, up to the first that shows a value.
    pub proofs: Vec<Vec<u8>>,
}

impl StateClaim {
    /// `2 u8 | state key length u16 | state key | count u8 | count x (length u32 | state proof)`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![STATE];
        bytes.extend_from_slice(&(self.state_key.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&self.state_key);
        put_proofs(&mut bytes, &self.proofs);
        bytes
    }

    /// True for the bytes of a claim of this kind, well formed or not.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.first() == Some(&STATE)
    }

    /// Reads the bytes of exactly one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let cut = || Refused::new("claim-format", "a claim ends within its evidence");
        let (kind, rest) = bytes.split_first().ok_or_else(cut)?;
        if *kind != STATE {
            let why = format!("a claim of kind {kind} is none of a state; 2 is");
            return Err(Refused::new("claim-format", why));
        }
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (state_key, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        let (proofs, rest) = read_proofs(rest).ok_or_else(cut)?;
        if !rest.is_empty() {
            let why = "a claim goes on after its evidence";
            return Err(Refused::new("claim-format", why));
        }
        let claim = Self {
            state_key: state_key.to_vec(),
            proofs,
        };
        claim.routing_key().map(|_| ())?;
        Ok(claim)
    }

    /// The key, or the account, that is claimed: what leads to the subchain.
    pub fn routing_key(&self) -> Result<&[u8], Refused> {
        let subject = match StateSubject::of(&self.state_key) {
            Some(StateSubject::Key(key)) if (1..=KEY_BYTES_MAX).contains(&key.len()) => Some(key),
            Some(StateSubject::Account(account)) => {
                let name = str::from_utf8(account).ok();
                name.filter(|name| check_account(name).is_ok())
                    .map(str::as_bytes)
            }
            _ => None,
        };
        subject.ok_or_else(|| {
            let why = "what is claimed is neither a key nor an account";
            Refused::new("claim-format", why)
        })
    }

    /// What the chains above, the topmost first, had under the state key: a value, or none in any of them.
    pub fn check(&self, alg: HashAlg, above: &[SplitAbove]) -> Result<Option<Vec<u8>>, Refused> {
        let value = check_proofs(&self.proofs, alg, above, &self.state_key)?;
        if let Some(value) = &value {
            match StateSubject::of(&self.state_key) {
                Some(StateSubject::Account(_)) => balance_amount(value).map(drop)?,
                _ => latest_index(value).map(drop)?,
            }
        }
        Ok(value)
    }
}

/// `count u8 | count x (length u32 | state proof)`.
pub(super) fn put_proofs(bytes: &mut Vec<u8>, proofs: &[Vec<u8>]) {
    bytes.push(proofs.len() as u8);
    for proof in proofs {
        bytes.extend_from_slice(&(proof.len() as u32).to_be_bytes());
        bytes.extend_from_slice(proof);
    }
}

/// Reads them, and what follows.
pub(super) fn read_proofs(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, &[u8])> {
    let (count, mut rest) = bytes.split_first()?;
    let mut proofs = Vec::new();
    for _ in 0..*count {
        let (proof, after) = sized(rest)?;
        proofs.push(proof.to_vec());
        rest = after;
    }
    Some((proofs, rest))
}

/// The value that the first proof with one shows; all before it, from the nearest chain above on, show that it has none.
pub(super) fn check_proofs(
    proofs: &[Vec<u8>],
    alg: HashAlg,
    above: &[SplitAbove],
    state_key: &[u8],
) -> Result<Option<Vec<u8>>, Refused> {
    let wrong = |why: String| Err(Refused::new("claim-above", why));
    for (at, (proof, split)) in proofs.iter().zip(above.iter().rev()).enumerate() {
        let value = StateProof::parse(proof)?.verify(alg, &split.state_root, state_key)?;
        if value.is_some() && at + 1 < proofs.len() {
            return wrong(format!(
                "chain {} has a value, and proofs of chains above it follow",
                split.id
            ));
        }
        if value.is_some() {
            return Ok(value);
        }
    }
    if proofs.len() != above.len() {
        return wrong(format!(
            "{} proofs, where {} chains are above and the last proof shows no value",
            proofs.len(),
            above.len()
        ));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{StateTerminal, latest_key, latest_value, state_key_hash};

    const ALG: HashAlg = HashAlg::Sha3_256;

    /// A state with one key, and proofs of it and of another one.
    fn one(key: &[u8], index: u64) -> (Hash, Vec<u8>, Vec<u8>) {
        let (hash, value) = (state_key_hash(ALG, &latest_key(key)), latest_value(index));
        let proof = |terminal| StateProof {
            siblings: Vec::new(),
            terminal,
        };
        let own = proof(StateTerminal::Own(value.to_vec()));
        let other = proof(StateTerminal::Other(hash, value.to_vec()));
        let entries = std::collections::BTreeMap::from([(hash, value)]);
        let root = crate::chain::state_root(ALG, &entries);
        (root, own.to_bytes(), other.to_bytes())
    }

    fn above(id: u8, state_root: Hash) -> SplitAbove {
        SplitAbove {
            id: ChainId([id; 32]),
            route: vec![ChainId([8; 32]), ChainId([9; 32])],
            state_root,
        }
    }

    #[test]
    fn a_claim_comes_back_and_no_other_bytes_are_one() {
        let claim = StateClaim {
            state_key: latest_key(b"k"),
            proofs: vec![vec![1, 2], vec![3]],
        };
        let bytes = claim.to_bytes();
        assert!(StateClaim::is_one(&bytes));
        assert_eq!(StateClaim::parse(&bytes), Ok(claim.clone()));
        for cut in 0..bytes.len() {
            let refused = StateClaim::parse(&bytes[..cut]).unwrap_err();
            assert_eq!(refused.check, "claim-format", "{cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        for state_key in [
            &b""[..],
            b"\x01",
            b"\x03k",
            b"\x02",
            b"\x02\xff",
            b"\x02a\n",
        ] {
            let bad = StateClaim {
                state_key: state_key.to_vec(),
                proofs: Vec::new(),
            };
            let refused = StateClaim::parse(&bad.to_bytes()).unwrap_err();
            assert_eq!(refused.check, "claim-format", "{state_key:?}");
        }
        assert_eq!(
            StateClaim::parse(&longer).unwrap_err().check,
            "claim-format"
        );
    }

    #[test]
    fn the_nearest_chain_with_a_value_is_claimed_from() {
        let ((near, near_own, near_other), (top, top_own, top_other)) =
            (one(b"k", 7), one(b"q", 5));
        let chains = [above(1, top), above(2, near)];
        let check = |key: &[u8], proofs: &[&Vec<u8>]| {
            let proofs = proofs.iter().map(|proof| (*proof).clone()).collect();
            let state_key = latest_key(key);
            StateClaim { state_key, proofs }.check(ALG, &chains)
        };
        assert_eq!(
            check(b"k", &[&near_own]),
            Ok(Some(latest_value(7).to_vec()))
        );
        assert_eq!(
            check(b"q", &[&near_other, &top_own]),
            Ok(Some(latest_value(5).to_vec()))
        );
        assert_eq!(check(b"x", &[&near_other, &top_other]), Ok(None));
        let refused = |key: &[u8], proofs: &[&Vec<u8>]| check(key, proofs).unwrap_err().check;
        assert_eq!(refused(b"k", &[&near_own, &top_other]), "claim-above");
        assert_eq!(
            refused(b"x", &[&near_other]),
            "claim-above",
            "one is missing"
        );
        assert_eq!(refused(b"q", &[&top_own]), "state-root", "of another chain");
        assert_eq!(refused(b"k", &[&near_other, &top_other]), "state-leaf");
        assert_eq!(refused(b"k", &[]), "claim-above");
    }

    #[test]
    fn a_key_leads_through_every_split_or_not_here() {
        let (own, other) = (ChainId([9; 32]), ChainId([8; 32]));
        let splits = [SplitAbove {
            id: ChainId([1; 32]),
            route: vec![other, own],
            state_root: [0; 32],
        }];
        for key in 0..50_u8 {
            let here = leads_here(ALG, &splits, &own, &[key]);
            assert_eq!(here, place_of(ALG, &splits[0].id, &[key], 2) == 1);
            assert_ne!(here, leads_here(ALG, &splits, &other, &[key]));
        }
    }
}
