//! The links of the grammar, each as numbered checks with a name for every failure.

use crate::chain::hash::Hash;
use crate::chain::id::ChainId;
use crate::chain::quant::Header;
use crate::chain::refused::Refused;
use crate::chain::transaction::Envelope;
use crate::chain::tree::{verify_extension_path, verify_inclusion};

/// Checks that the envelope is a leaf of the Quant that the header seals.
pub fn verify_inclusion_in(
    envelope: &Envelope,
    header: &Header,
    path: &[Hash],
) -> Result<(), Refused> {
    // 1. The chain that the transaction was injected into owns the Quant.
    if envelope.chain_id != header.id() {
        let why = format!(
            "the transaction is of chain {}, the Quant of chain {}",
            envelope.chain_id,
            header.id()
        );
        return Err(Refused::new("envelope-chain", why));
    }
    // 2. Its index lies in the Quant.
    let position = envelope.index.checked_sub(header.tx_start);
    let Some(position) = position.filter(|p| *p < u64::from(header.tx_count)) else {
        let (start, count) = (header.tx_start, header.tx_count);
        let why = format!(
            "index {} is not among the {count} transactions from {start}",
            envelope.index
        );
        return Err(Refused::new("envelope-index", why));
    };
    // 3. It was injected before the Quant was sealed.
    if envelope.inject_ms > header.time_ms {
        let why = format!(
            "injected at {} ms, sealed at {} ms",
            envelope.inject_ms, header.time_ms
        );
        return Err(Refused::new("envelope-time", why));
    }
    // 4. The path gives the Quant's transaction root.
    let leaf = envelope.leaf(header.hash_alg);
    verify_inclusion(
        header.hash_alg,
        &leaf,
        position,
        u64::from(header.tx_count),
        path,
        &header.tx_root,
    )
}

/// Checks that a header lies in the history of a later one of the same lineage.
///
/// `borders` are the fork-genesis headers that divide the later header's history among its chain and the chains it was
/// forked from, walked down from the later header.
pub fn verify_history_link(
    from: &Header,
    to: &Header,
    borders: &[Header],
    path: &[Hash],
) -> Result<(), Refused> {
    // 1. to 5. Hash, height, final, time, count.
    check_order(from, to)?;
    // 6. Same lineage.
    let owner = owner_at(to, borders, from.height)?;
    if from.id() != owner {
        let why = format!(
            "height {} belongs to chain {owner}, the header is of chain {}",
            from.height,
            from.id()
        );
        return Err(Refused::new("lineage", why));
    }
    // 7. The path gives the later header's history root.
    verify_inclusion(
        to.hash_alg,
        &from.hash(),
        from.height,
        to.height,
        path,
        &to.hist_root,
    )
}

/// Checks that the new head extends the old one of the same chain and rewrites nothing before or at it.
pub fn verify_extension(old: &Header, new: &Header, path: &[Hash]) -> Result<(), Refused> {
    if old.height == new.height && old.id() == new.id() {
        return check_same_head(old, new, path);
    }
    extends(old, new, new.id(), path)
}

/// Checks that the fork shares the parent's history up to `parent`, the parent's header right below the fork-genesis.
pub fn verify_agreement(
    parent: &Header,
    fork_genesis: &Header,
    path: &[Hash],
) -> Result<(), Refused> {
    // 1. It is a fork-genesis.
    if !fork_genesis.fork_genesis {
        return Err(Refused::new(
            "fork-genesis",
            "the header shown as a fork's first is not a fork-genesis",
        ));
    }
    // 2. The parent's header is the one right below it.
    if parent.height.checked_add(1) != Some(fork_genesis.height) {
        let why = format!(
            "the fork begins at height {}, the parent's header is {}",
            fork_genesis.height, parent.height
        );
        return Err(Refused::new("fork-height", why));
    }
    // 3. The fork-genesis extends it, read as a header of the parent.
    extends(parent, fork_genesis, fork_genesis.chain_id, path)
}

/// Checks that the parent's Quant anchors the child's header.
pub fn verify_anchor(
    child: &Header,
    parent: &Header,
    index: u64,
    path: &[Hash],
) -> Result<(), Refused> {
    // 1. A family of chains has one hash.
    check_alg(child, parent)?;
    // 2. The path gives the parent's anchor root.
    let leaf = parent.hash_alg.leaf(&anchor_leaf(child));
    verify_inclusion(
        parent.hash_alg,
        &leaf,
        index,
        u64::from(parent.anchor_count),
        path,
        &parent.anchors_root,
    )
}

/// The anchor leaf of a child's header: `QAN1 || id 32 || height u64 || quant_hash 32`.
pub fn anchor_leaf(child: &Header) -> [u8; 76] {
    let mut leaf = [0; 76];
    leaf[..4].copy_from_slice(b"QAN1");
    leaf[4..36].copy_from_slice(&child.id().0);
    leaf[36..44].copy_from_slice(&child.height.to_be_bytes());
    leaf[44..].copy_from_slice(&child.hash());
    leaf
}

/// The chain that owns a height in the history of `last`.
pub(super) fn owner_at(last: &Header, borders: &[Header], height: u64) -> Result<ChainId, Refused> {
    let mut chain = last.id();
    let mut owner = chain;
    let mut above = None;
    for border in borders {
        check_border(border, chain, last, above)?;
        above = Some(border.height);
        chain = border.chain_id;
        if height < border.height {
            owner = chain;
        }
    }
    Ok(owner)
}

fn check_border(
    border: &Header,
    chain: ChainId,
    last: &Header,
    above: Option<u64>,
) -> Result<(), Refused> {
    if !border.fork_genesis {
        return Err(Refused::new(
            "border",
            format!("the header at height {} is no fork-genesis", border.height),
        ));
    }
    if border.hash() != chain.0 {
        return Err(Refused::new(
            "border",
            format!("the fork-genesis shown is not that of chain {chain}"),
        ));
    }
    check_alg(border, last)?;
    if border.height > last.height || above.is_some_and(|a| border.height >= a) {
        return Err(Refused::new(
            "border-height",
            format!("the border at height {} is not below", border.height),
        ));
    }
    Ok(())
}

/// The extension conditions, with the id of `new` as the caller reads it.
fn extends(old: &Header, new: &Header, new_id: ChainId, path: &[Hash]) -> Result<(), Refused> {
    // 1. One chain.
    if old.id() != new_id {
        let why = format!(
            "the old head is of chain {}, the new one of chain {new_id}",
            old.id()
        );
        return Err(Refused::new("extension-chain", why));
    }
    // 2. to 6. Hash, height, final, time, count.
    check_order(old, new)?;
    // 7. The old head is in the new history, and so is all that was before it.
    let alg = new.hash_alg;
    verify_extension_path(
        alg,
        &old.hash(),
        old.height,
        new.height,
        path,
        &new.hist_root,
        &old.hist_root,
    )
}

fn check_same_head(old: &Header, new: &Header, path: &[Hash]) -> Result<(), Refused> {
    if old != new {
        let why = format!(
            "two different headers at height {} of chain {}: evidence, keep both",
            old.height,
            old.id()
        );
        return Err(Refused::new("extension-same-height", why));
    }
    if !path.is_empty() {
        return Err(Refused::new(
            "path-length",
            "a head extends itself without a path",
        ));
    }
    Ok(())
}

/// What any earlier and later header of one lineage fulfil.
fn check_order(from: &Header, to: &Header) -> Result<(), Refused> {
    // 1. One hash.
    check_alg(from, to)?;
    // 2. Heights rise.
    if from.height >= to.height {
        let why = format!("height {} is not below height {}", from.height, to.height);
        return Err(Refused::new("height-order", why));
    }
    // 3. Nothing extends a final Quant.
    if from.is_final {
        return Err(Refused::new(
            "final",
            format!("Quant {} is final, nothing may extend it", from.height),
        ));
    }
    // 4. Time and count do not fall.
    if from.time_ms > to.time_ms {
        return Err(Refused::new(
            "time-order",
            format!("time falls from {} ms to {} ms", from.time_ms, to.time_ms),
        ));
    }
    if from.tx_end() > to.tx_end() {
        let why = format!(
            "the count of transactions falls from {} to {}",
            from.tx_end(),
            to.tx_end()
        );
        return Err(Refused::new("count-order", why));
    }
    // 5. Neighbours touch.
    if from.height + 1 == to.height {
        return check_neighbours(from, to);
    }
    Ok(())
}

fn check_neighbours(from: &Header, to: &Header) -> Result<(), Refused> {
    if to.prev_hash != from.hash() {
        return Err(Refused::new(
            "neighbour-hash",
            format!("prev_hash of Quant {} is another's", to.height),
        ));
    }
    if to.tx_start != from.tx_end() {
        let why = format!(
            "Quant {} starts at transaction {}, not {}",
            to.height,
            to.tx_start,
            from.tx_end()
        );
        return Err(Refused::new("neighbour-count", why));
    }
    Ok(())
}

fn check_alg(one: &Header, other: &Header) -> Result<(), Refused> {
    if one.hash_alg == other.hash_alg {
        return Ok(());
    }
    Err(Refused::new(
        "hash-alg",
        format!(
            "{:?} and {:?} cannot be linked",
            one.hash_alg, other.hash_alg
        ),
    ))
}
