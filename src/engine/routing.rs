//! What a chain takes as far as splits decide it: a chain that is split nothing but tombstones, a subchain what leads to it,
//! a fork of a subchain that keeps a state the keys and accounts of that one.

use super::{
    command::{Inject, InjectItem},
    hot::HotChain,
    outcome::Rejection,
    relay,
    split::{active, is_split},
    state::key_of,
};
use crate::chain::{
    Attributes, HashAlg, TYPE_CONSTITUTION_CHANGE, TYPE_DATA, TYPE_ERASURE, TYPE_TRANSFER,
    place_of, routing_key,
};
use crate::store::{Branch, SplitPhase, SubchainRow};

/// Whether the chain takes the new items of an inject, as far as splits decide it.
pub(super) fn takes(
    chain: &HotChain,
    command: &Inject<'_>,
    places: &[Option<u64>],
) -> Result<(), Rejection> {
    let fresh = || {
        let numbered = command.items.iter().enumerate().zip(places);
        numbered.filter_map(|(item, place)| place.is_none().then_some(item))
    };
    let any = |kind: u8| fresh().any(|(_, item)| item.kind == kind);
    if any(TYPE_CONSTITUTION_CHANGE) {
        relay::takes_change(chain)?;
    }
    if let Some(row) = &chain.split {
        match row.phase {
            SplitPhase::Intended => {}
            SplitPhase::Frozen => return Err(Rejection::Splitting(chain.name.clone())),
            // What stands in this chain is erased by a tombstone in it, and what holds for all is changed in it.
            SplitPhase::Sealed | SplitPhase::Done => {
                let own = [TYPE_ERASURE, TYPE_CONSTITUTION_CHANGE];
                if fresh().any(|(_, item)| !own.contains(&item.kind)) {
                    return Err(is_split(chain, row, "injects go to those"));
                }
                // Its state is frozen with the split.
                if chain.keeps.keyed && fresh().any(|(_, item)| key_of(item).is_some()) {
                    let what = "what has a key goes to those; leave the key out";
                    return Err(is_split(chain, row, what));
                }
            }
        }
    }
    if let Some(part) = &chain.parted {
        return of_part(chain, part, fresh());
    }
    let Some(sub) = &chain.sub else {
        return Ok(());
    };
    active(chain)?;
    for (item, one) in fresh().filter(|(_, item)| matches!(item.kind, TYPE_DATA | TYPE_TRANSFER)) {
        let name = || chain.name.clone();
        led_here(chain, &sub.above, command.head.request_id, one).map_err(|routed| {
            Rejection::Misrouted {
                item,
                chain: name(),
                routed,
            }
        })?;
        if !key_follows(chain.alg, &sub.above, one) {
            let chain = name();
            return Err(Rejection::KeyElsewhere { item, chain });
        }
    }
    Ok(())
}

/// A fork of a part has of keys and accounts those that lead to the part: of the others it knows nothing.
fn of_part<'a, 'b: 'a>(
    chain: &HotChain,
    part: &SubchainRow,
    fresh: impl Iterator<Item = (usize, &'a InjectItem<'b>)>,
) -> Result<(), Rejection> {
    for (item, one) in fresh {
        let sides = one
            .transfer
            .map(|transfer| [("sender", transfer.sender), ("receiver", transfer.receiver)]);
        let key = key_of(one).filter(|_| chain.keeps.keyed);
        let key = key.as_deref().map(|key| ("key", key));
        for (what, name) in sides.into_iter().flatten().chain(key) {
            if !leads(chain.alg, &part.above, name) {
                let chain = chain.name.clone();
                return Err(Rejection::OtherPart { item, chain, what });
            }
        }
    }
    Ok(())
}

/// A transfer is where its sender leads. Its key, if it has one, leads there too: so the transactions of a key are in one
/// subchain.
fn key_follows(alg: HashAlg, above: &[Branch], item: &InjectItem<'_>) -> bool {
    let key = item.transfer.and_then(|_| key_of(item));
    key.is_none_or(|key| leads(alg, above, &key))
}

/// A transaction's routing key leads to this subchain through every split above. That of a transfer is its sender.
fn led_here(
    chain: &HotChain,
    above: &[Branch],
    request_id: &[u8],
    item: &InjectItem<'_>,
) -> Result<(), &'static str> {
    if let Some(transfer) = item.transfer {
        return if leads(chain.alg, above, transfer.sender) {
            Ok(())
        } else {
            Err("its sender's account is in another subchain than that")
        };
    }
    let attributes = if item.attributes.is_empty() {
        Attributes::default()
    } else {
        Attributes::parse(item.attributes).unwrap_or_default()
    };
    let key = attributes.key.as_deref();
    let Some(routing_key) = routing_key(key, item.id, request_id) else {
        return Err(
            "it has no key, no id and its request no request_id to be routed by, to a subchain",
        );
    };
    if leads(chain.alg, above, routing_key) {
        Ok(())
    } else {
        Err("its routing key (key, else id, else request_id) leads to another subchain than that")
    }
}

/// True where a routing key leads through all these splits.
pub(super) fn leads(alg: HashAlg, above: &[Branch], routing_key: &[u8]) -> bool {
    let mut above = above.iter();
    above.all(|branch| place_of(alg, &branch.id, routing_key, branch.of) == branch.place)
}
