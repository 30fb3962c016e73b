//! Forks as values: the first header of one, and what its constitution may change.

use super::constitution::{
    ADMINS, AUTHORS, CREATED_MS, Constitution, FAMILY_ID, LAST, LEAP_BYTES, LEAP_COUNT, LEAP_MS,
    NAME, PLACE, SALT,
};
use super::{Hash, Header, Meta, ParentRef, Refused, tree::Frontier};

/// Records of a constitution that a fork may have in another form than its parent. Name, moment and salt are always its own.
/// Who may write, who may amend and when Quants are sealed decide nothing about what is in the shared history already, and
/// nothing in the parent: they are for the fork to choose. All other records say what that history means.
const FREE: [u8; 8] = [
    NAME, CREATED_MS, SALT, AUTHORS, ADMINS, LEAP_COUNT, LEAP_BYTES, LEAP_MS,
];

impl Constitution {
    /// Refuses what a fork of a chain with the constitution `parent` may not be [`fork-constitution`].
    pub fn forks(&self, parent: &Self) -> Result<(), Refused> {
        let refused = |tag: u8, why: &str| {
            let what = record_name(tag);
            let why = format!("record {tag} ({what}) {why}");
            Err(Refused::new("fork-constitution", why))
        };
        for tag in NAME..=LAST {
            let kept = match tag {
                FAMILY_ID => None,
                PLACE => parent.part().and(parent.value(PLACE)),
                _ => parent.value(tag),
            };
            if FREE.contains(&tag) || self.value(tag) == kept {
                continue;
            }
            if kept.is_none() && matches!(tag, FAMILY_ID | PLACE) {
                return refused(tag, "is for subchains, a fork is none");
            }
            return refused(tag, "is not that of the chain that it was forked from");
        }
        Ok(())
    }

    /// The place of a subchain that keeps a state, also in its forks: they are no subchains, and have of the state above
    /// what leads to this place.
    pub fn part(&self) -> Option<(u32, u32)> {
        self.place.filter(|_| self.keyed || self.ledger)
    }

    /// True of a subchain; of a fork of one it is not.
    pub fn is_subchain(&self) -> bool {
        self.family_id.is_some()
    }
}

fn record_name(tag: u8) -> &'static str {
    match tag {
        4 => "authority",
        5 => "content",
        6 => "schema",
        12 => "work",
        13 => "quorum",
        14 => "rules",
        15 => "mint",
        16 => "erasable",
        17 => "keyed",
        18 => "family_id",
        19 => "place",
        20 => "payload_max",
        21 => "cluster_id",
        _ => "free",
    }
}

/// The meta of a fork-genesis that follows on `below`, whose hash and meta are given. A chain that keeps a state says here
/// that the fork begins with the state which that Quant left.
pub fn fork_meta(
    (below, below_hash, below_meta): (&Header, &Hash, &Meta),
    constitution: &Constitution,
) -> Meta {
    let bytes = constitution.to_bytes();
    let (alg, height) = (below.hash_alg, below.height.saturating_add(1));
    let keeps = constitution.keyed || constitution.ledger;
    // A genesis commits to no state: nothing is in it.
    let state_root = below_meta.state_root.unwrap_or((alg as u8, alg.empty()));
    Meta {
        constitution_in_force: Some((Constitution::hash(alg, &bytes), height)),
        constitution: Some(bytes),
        parent: Some(ParentRef {
            id: below.id(),
            height: below.height,
            quant_hash: *below_hash,
        }),
        state_root: keeps.then_some(state_root),
        ..Meta::default()
    }
}

/// The fork-genesis that follows on `below`; `history` spans all Quants up to that one.
pub fn fork_header(
    (below, below_hash): (&Header, &Hash),
    history: &Frontier,
    time_ms: u64,
    meta: &[u8],
) -> Header {
    let alg = below.hash_alg;
    Header {
        hash_alg: alg,
        genesis: false,
        fork_genesis: true,
        is_final: false,
        pow_bits: 0,
        chain_id: below.id(),
        height: below.height.saturating_add(1),
        time_ms: time_ms.max(below.time_ms),
        tx_start: below.tx_end(),
        tx_count: 0,
        meta_len: meta.len() as u32,
        anchor_count: 0,
        prev_hash: *below_hash,
        tx_root: alg.empty(),
        hist_root: history.root(alg),
        anchors_root: alg.empty(),
        meta_hash: alg.hash(&[meta]),
        nonce: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Authority, Birth, ChainId, HashAlg, Work, check_next, genesis_header};

    fn constitution() -> Constitution {
        let birth = Birth {
            name: "orders".into(),
            created_ms: 1,
            salt: [2; 16],
            authority: Authority {
                threshold: 1,
                roots: vec![[3; 32]],
            },
            cluster_id: [4; 16],
        };
        Constitution {
            keyed: true,
            ..birth.into()
        }
    }

    #[test]
    fn a_fork_genesis_follows_on_the_parents_quant_and_carries_its_state() {
        let alg = HashAlg::Sha3_256;
        let below = genesis_header(alg, 5, 0, b"meta");
        let hash = below.hash();
        let meta = fork_meta((&below, &hash, &Meta::default()), &constitution());
        assert_eq!(meta.state_root, Some((1, alg.empty())));
        let mut history = Frontier::new();
        history.push(alg, hash);
        let header = fork_header((&below, &hash), &history, 0, &meta.to_bytes());
        assert_eq!(Header::parse(&header.to_bytes()).unwrap(), header);
        assert_eq!(check_next(&below, &hash, &header, &history), Ok(()));
        assert_eq!((header.time_ms, header.chain_id), (5, below.id()));
    }

    #[test]
    fn who_writes_and_when_is_sealed_may_change_and_nothing_else() {
        let parent = constitution();
        let free = Constitution {
            name: "orders-test".into(),
            created_ms: 9,
            salt: [9; 16],
            authors: vec![[5; 32]],
            admins: vec![[6; 32]],
            leap_count: Some(1),
            leap_bytes: Some(1),
            leap_ms: Some(1),
            ..parent.clone()
        };
        assert_eq!(free.forks(&parent), Ok(()));
        assert_eq!(parent.forks(&free), Ok(()));
        let work = Work {
            bits_min: 1,
            target_ms: 0,
        };
        let other = [
            Constitution {
                keyed: false,
                ..free.clone()
            },
            Constitution {
                quorum: Some(2),
                ..free.clone()
            },
            Constitution {
                work: Some(work),
                ..free.clone()
            },
            Constitution {
                payload_max: Some(9),
                ..free.clone()
            },
            Constitution {
                cluster_id: [8; 16],
                ..free.clone()
            },
            Constitution {
                place: Some((0, 2)),
                ..free
            },
        ];
        for changed in other {
            let refused = changed.forks(&parent).unwrap_err();
            assert_eq!(refused.check, "fork-constitution");
        }
    }

    #[test]
    fn a_fork_of_a_subchain_that_keeps_a_state_keeps_its_place_and_no_other_does() {
        let free = Constitution {
            name: "orders-test".into(),
            ..constitution()
        };
        let part = Constitution {
            family_id: Some(ChainId([7; 32])),
            place: Some((0, 2)),
            ..constitution()
        };
        let forked = Constitution {
            place: Some((0, 2)),
            ..free.clone()
        };
        assert_eq!(forked.forks(&part), Ok(()), "it has the part's state");
        assert_eq!(forked.forks(&forked), Ok(()));
        let moved = Constitution {
            place: Some((1, 2)),
            ..free.clone()
        };
        for wrong in [&free, &part, &moved] {
            let refused = wrong.forks(&part).unwrap_err();
            assert_eq!(refused.check, "fork-constitution");
        }
        let plain = Constitution {
            keyed: false,
            ..part
        };
        let forked = Constitution {
            keyed: false,
            ..free
        };
        assert_eq!(forked.forks(&plain), Ok(()), "it keeps no state");
    }
}
