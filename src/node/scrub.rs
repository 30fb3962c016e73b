//! The background scrub: Quant after Quant, chain after chain, with a pause after each, for ever. What differs stops the
//! chain on this node and is told; nothing is deleted.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::consensus::{Group, Groups};
use crate::engine::{Damage, ReadError, Reader, check_quant};
use crate::service::NodeFacts;
use crate::store::ChainNo;

/// Pause after a whole round.
const ROUND_PAUSE: Duration = Duration::from_secs(10);
/// It rests so many times as long as it works: 2 % of a core, however large the Quants are.
const RESTS: u32 = 49;

/// Runs until `stop` says so.
pub(super) async fn run(
    groups: Groups,
    facts: Arc<NodeFacts>,
    pause: Duration,
    mut stop: watch::Receiver<bool>,
) {
    while !*stop.borrow() {
        for group in groups.held() {
            scrub_group(&groups, &group, &facts, pause, &mut stop).await;
        }
        let _ = tokio::time::timeout(ROUND_PAUSE, stop.wait_for(|stop| *stop)).await;
    }
}

async fn scrub_group(
    groups: &Groups,
    group: &Group,
    facts: &NodeFacts,
    pause: Duration,
    stop: &mut watch::Receiver<bool>,
) {
    let mut next = (ChainNo(1), 0);
    while !*stop.borrow() {
        let began = Instant::now();
        let checked = tokio::task::block_in_place(|| check(groups, group, next));
        match checked {
            Ok(None) => return,
            Ok(Some(Checked { damage, after })) => {
                facts.scrubbed_quants.fetch_add(1, Ordering::Relaxed);
                if let Some(damage) = damage {
                    tell(group, next.0, &damage);
                }
                next = after;
            }
            Err(error) => {
                tracing::error!(%error, "the scrub can't read; it goes on with the next chain");
                next = (ChainNo(next.0.0 + 1), 0);
            }
        }
        let rest = match pause {
            Duration::ZERO => pause,
            pause => pause.max(began.elapsed() * RESTS),
        };
        let _ = tokio::time::timeout(rest, stop.wait_for(|stop| *stop)).await;
    }
}

struct Checked {
    damage: Option<Damage>,
    after: (ChainNo, u64),
}

/// Checks one Quant; none when there is no such chain.
fn check(
    groups: &Groups,
    group: &Group,
    (no, height): (ChainNo, u64),
) -> Result<Option<Checked>, ReadError> {
    let snapshot = groups.store().snapshot().passing();
    let reader = Reader::new(&snapshot, group.engine().slot());
    // A fork whose name was taken leaves no rows, and a number that nobody has.
    let found = reader.chain_from(no)?;
    let Some((found, chain)) = found
        .map(|found| reader.chain_no(found).map(|chain| (found, chain)))
        .transpose()?
    else {
        return Ok(None);
    };
    let Some(chain) = chain else {
        return Ok(None);
    };
    // What a fork shares is checked with the chain that owns it.
    let begun = chain.lineage.first_height();
    let height = if found == no {
        height.max(begun)
    } else {
        begun
    };
    let no = found;
    let expected = if height < chain.head.height {
        reader.quant(&chain, height + 1)?.parse()?.prev_hash
    } else {
        chain.head.hash()
    };
    let damage = check_quant(&reader, &chain, height, &expected)?;
    let next_chain = damage.is_some() || height >= chain.head.height;
    let after = if next_chain {
        (ChainNo(no.0 + 1), 0)
    } else {
        (no, height + 1)
    };
    Ok(Some(Checked { damage, after }))
}

fn tell(group: &Group, no: ChainNo, damage: &Damage) {
    tracing::error!(%damage, "stored bytes are damaged; the chain is stopped on this node");
    group
        .engine()
        .stop_chain(no, &damage.chain, &damage.to_string());
}
