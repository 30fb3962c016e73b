//! The background scrub: Quant after Quant, chain after chain, the rows of each that no Quant commits to, then the group's log
//! of heads, with a pause after each step, for ever. What differs stops the chain on this node and is told; nothing is
//! deleted.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::consensus::{Group, Groups};
use crate::engine::{
    Carried, Damage, LogScrub, Looked, ReadError, Reader, check_quant, check_rows,
};
use crate::service::NodeFacts;
use crate::store::{ChainNo, LOG_CHAIN, StoreError};

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
    let mut at = At::Quant(ChainNo(1), 0);
    while !*stop.borrow() {
        let began = Instant::now();
        let no = at.chain();
        let quant = matches!(at, At::Quant(..));
        let checked = tokio::task::block_in_place(|| check(groups, group, at));
        match checked {
            Ok(None) => return,
            Ok(Some(Checked { damage, after })) => {
                let quants = u64::from(quant);
                facts.scrubbed_quants.fetch_add(quants, Ordering::Relaxed);
                if let Some(damage) = damage {
                    tell(group, no, &damage);
                }
                at = after;
            }
            Err(error) if no == LOG_CHAIN => {
                tracing::error!(%error, "the scrub can't read the log of heads");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the scrub can't read; it goes on with the next chain");
                at = At::Quant(ChainNo(no.0 + 1), 0);
            }
        }
        let rest = match pause {
            Duration::ZERO => pause,
            pause => pause.max(began.elapsed() * RESTS),
        };
        let _ = tokio::time::timeout(rest, stop.wait_for(|stop| *stop)).await;
    }
}

/// Where a round is.
enum At {
    /// At a Quant of a chain, or the first of the next one.
    Quant(ChainNo, u64),
    /// At the rows of a chain that no Quant commits to.
    Rows(ChainNo, Carried),
    /// At the log of heads, behind all chains.
    Log(LogScrub),
    /// Behind all.
    End,
}

impl At {
    fn chain(&self) -> ChainNo {
        match self {
            Self::Quant(no, _) | Self::Rows(no, _) => *no,
            Self::Log(_) | Self::End => LOG_CHAIN,
        }
    }
}

struct Checked {
    damage: Option<Damage>,
    after: At,
}

/// Does one step; none behind the last one.
fn check(groups: &Groups, group: &Group, at: At) -> Result<Option<Checked>, ReadError> {
    let snapshot = groups.store().snapshot().passing();
    let reader = Reader::new(&snapshot, group.engine().slot());
    match at {
        At::Quant(no, height) => quant(&reader, no, height).map(Some),
        At::Rows(no, carried) => rows(&reader, no, carried).map(Some),
        At::Log(log) => logged(&reader, log),
        At::End => Ok(None),
    }
}

/// Checks one Quant.
fn quant(reader: &Reader<'_>, no: ChainNo, height: u64) -> Result<Checked, ReadError> {
    // A fork whose name was taken leaves no rows, and a number that nobody has.
    let found = reader.chain_from(no)?;
    let found = found
        .map(|found| reader.chain_no(found).map(|chain| Some((found, chain?))))
        .transpose()?;
    let Some((found, chain)) = found.flatten() else {
        return Ok(Checked {
            damage: None,
            after: At::Log(LogScrub::default()),
        });
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
    let damage = check_quant(reader, &chain, height, &expected)?;
    if damage.is_none() && height < chain.head.height {
        let after = At::Quant(no, height + 1);
        return Ok(Checked { damage, after });
    }
    let carried = Carried::of(reader, &chain)?.filter(|_| damage.is_none());
    let next = At::Quant(ChainNo(no.0 + 1), 0);
    let after = carried.map_or(next, |carried| At::Rows(no, carried));
    Ok(Checked { damage, after })
}

/// Checks some more of a chain's rows.
fn rows(reader: &Reader<'_>, no: ChainNo, mut carried: Carried) -> Result<Checked, ReadError> {
    let next = At::Quant(ChainNo(no.0 + 1), 0);
    let Some(chain) = reader.chain_no(no)? else {
        let damage = None;
        return Ok(Checked {
            damage,
            after: next,
        });
    };
    Ok(match check_rows(reader, &chain, &mut carried)? {
        Ok(true) => Checked {
            damage: None,
            after: At::Rows(no, carried),
        },
        Ok(false) => Checked {
            damage: None,
            after: next,
        },
        Err(damage) => Checked {
            damage: Some(damage),
            after: next,
        },
    })
}

/// Checks some more of the log of heads; none behind its end.
fn logged(reader: &Reader<'_>, mut log: LogScrub) -> Result<Option<Checked>, ReadError> {
    let what = match log.step(reader) {
        Ok(Looked::More) => {
            let after = At::Log(log);
            let damage = None;
            return Ok(Some(Checked { damage, after }));
        }
        Ok(Looked::Whole) => return Ok(None),
        Ok(Looked::Flaw(what, _)) => what,
        Err(error @ (ReadError::Store(StoreError::Corrupt(_)) | ReadError::Tile(_))) => {
            error.to_string()
        }
        Err(error) => return Err(error),
    };
    let damage = Damage {
        chain: "the log of heads".to_owned(),
        height: 0,
        index: None,
        what,
    };
    Ok(Some(Checked {
        damage: Some(damage),
        after: At::End,
    }))
}

fn tell(group: &Group, no: ChainNo, damage: &Damage) {
    tracing::error!(%damage, "stored bytes are damaged; the chain is stopped on this node");
    group
        .engine()
        .stop_chain(no, &damage.chain, &damage.to_string());
}
