//! Cursors: named places in chains, kept by a chain for those who tail. They are replicated like its other rows and no part
//! of what it proves. A cursor moves by a command of its own, or in the same command as an inject: both or none.

use std::ops::ControlFlow;

use super::{
    apply::Work,
    command::{framed, short},
    command_read::Cursor,
    outcome::{CursorsMoved, Rejection},
    read::{ChainView, ReadError, Reader},
};
use crate::chain::ChainId;
use crate::store::{
    Cf, ChainNo, CursorRow, StoreError, cursor_bounds, cursor_count_key, cursor_key, cursor_of_key,
    cursors_bounds,
};

/// Positions that one chain keeps, of all its cursors.
pub const CURSOR_POSITIONS_MAX: u32 = 4096;
/// Longest name of a cursor, in bytes.
pub const CURSOR_NAME_BYTES_MAX: usize = 64;
/// Positions that one command moves at most.
pub const CURSOR_MOVES_MAX: usize = 1000;

const MOVE: u8 = 1;
const DELETE: u8 = 2;

/// A place in a chain, between transactions and between Quants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CursorPlace {
    /// The next transaction.
    pub next_index: u64,
    /// The next Quant.
    pub next_height: u64,
    /// How the hash of the Quant before that begins; zeros before the first one.
    pub last: [u8; 16],
}

/// Moves one position, or makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMove<'a> {
    /// The cursor.
    pub name: &'a str,
    /// The chain that it stands in.
    pub source: ChainId,
    /// Where to.
    pub to: CursorPlace,
    /// Precondition: where it stands; inner none: nowhere in that chain.
    pub expected: Option<Option<CursorPlace>>,
}

/// A command about the cursors of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorCommand<'a> {
    /// Moves positions, all or none.
    Move {
        /// The chain that keeps them.
        chain: ChainNo,
        /// At most one per name and source.
        moves: Vec<CursorMove<'a>>,
    },
    /// Deletes a cursor with all its positions.
    Delete {
        /// The chain that keeps it.
        chain: ChainNo,
        /// The cursor.
        name: &'a str,
    },
}

/// A stored position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorView {
    /// The cursor.
    pub name: String,
    /// The chain that it stands in.
    pub source: ChainId,
    /// Where.
    pub row: CursorRow,
}

impl CursorPlace {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.next_index.to_be_bytes());
        out.extend_from_slice(&self.next_height.to_be_bytes());
        out.extend_from_slice(&self.last);
    }

    fn read(body: &mut Cursor<'_>) -> Option<Self> {
        Some(Self {
            next_index: body.u64()?,
            next_height: body.u64()?,
            last: body.array()?,
        })
    }

    fn stored(row: &CursorRow) -> Self {
        Self {
            next_index: row.next_index,
            next_height: row.next_height,
            last: row.last,
        }
    }
}

/// Moves in a command: `count u16`, and each `name | source 32 | place | 0, 1, or 2 and a place`.
pub(super) fn put_moves(out: &mut Vec<u8>, moves: &[CursorMove<'_>]) {
    out.extend_from_slice(&(moves.len() as u16).to_be_bytes());
    for one in moves {
        short(out, one.name.as_bytes());
        out.extend_from_slice(&one.source.0);
        one.to.put(out);
        match one.expected {
            None => out.push(0),
            Some(None) => out.push(1),
            Some(Some(place)) => {
                out.push(2);
                place.put(out);
            }
        }
    }
}

/// Reads what [`put_moves`] wrote.
pub(super) fn read_moves<'a>(body: &mut Cursor<'a>) -> Option<Vec<CursorMove<'a>>> {
    let count = u16::from_be_bytes(body.array()?);
    let read = (0..count).map(|_| {
        Some(CursorMove {
            name: std::str::from_utf8(body.short()?).ok()?,
            source: ChainId(body.array()?),
            to: CursorPlace::read(body)?,
            expected: match body.u8()? {
                0 => None,
                1 => Some(None),
                2 => Some(Some(CursorPlace::read(body)?)),
                _ => return None,
            },
        })
    });
    read.collect()
}

impl<'a> CursorCommand<'a> {
    /// The chain that keeps the cursors.
    pub fn chain(&self) -> ChainNo {
        match self {
            Self::Move { chain, .. } | Self::Delete { chain, .. } => *chain,
        }
    }

    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(super::command::CURSOR, 256, |out| {
            out.extend_from_slice(&self.chain().0.to_be_bytes());
            match self {
                Self::Move { moves, .. } => {
                    out.push(MOVE);
                    put_moves(out, moves);
                }
                Self::Delete { name, .. } => {
                    out.push(DELETE);
                    short(out, name.as_bytes());
                }
            }
        })
    }

    pub(super) fn read(body: &mut Cursor<'a>) -> Option<Self> {
        let chain = ChainNo(body.u64()?);
        match body.u8()? {
            MOVE => Some(Self::Move {
                chain,
                moves: read_moves(body)?,
            }),
            DELETE => Some(Self::Delete {
                chain,
                name: std::str::from_utf8(body.short()?).ok()?,
            }),
            _ => None,
        }
    }
}

pub(super) fn apply(
    work: &mut Work<'_>,
    command: &CursorCommand<'_>,
) -> Result<Result<CursorsMoved, Rejection>, StoreError> {
    let no = command.chain();
    if let Err(rejection) = work.chain(no)? {
        return Ok(Err(rejection));
    }
    let positions = match command {
        CursorCommand::Move { moves, .. } => {
            let judged = match judge(work, no, moves)? {
                Ok(judged) => judged,
                Err(rejection) => return Ok(Err(rejection)),
            };
            enact(work, no, moves, judged);
            moves.len() as u64
        }
        CursorCommand::Delete { name, .. } => delete(work, no, name)?,
    };
    let moved_ms = work.time_ms;
    Ok(Ok(CursorsMoved {
        positions,
        moved_ms,
    }))
}

/// What the moves come to, if they may be done: how many positions the chain keeps afterwards. None: as many as before.
pub(super) fn judge(
    work: &mut Work<'_>,
    no: ChainNo,
    moves: &[CursorMove<'_>],
) -> Result<Result<Option<u32>, Rejection>, StoreError> {
    let mut new = 0;
    for one in moves {
        let stands = stored(work, no, one)?;
        new += u32::from(stands.is_none());
        let holds = one.expected.is_none_or(|expected| expected == stands);
        if !holds && stands != Some(one.to) {
            return Ok(Err(Rejection::CursorConflict {
                name: one.name.to_owned(),
                chain_id: one.source,
                actual: stands.map(|place| (place.next_index, place.next_height)),
            }));
        }
    }
    if new == 0 {
        return Ok(Ok(None));
    }
    let count = count(work, no)?.saturating_add(new);
    if count > CURSOR_POSITIONS_MAX {
        let chain = work.chain(no)?.map(|chain| chain.name.clone());
        let chain = chain.unwrap_or_default();
        return Ok(Err(Rejection::CursorsFull { chain }));
    }
    Ok(Ok(Some(count)))
}

/// Does what was judged.
pub(super) fn enact(
    work: &mut Work<'_>,
    no: ChainNo,
    moves: &[CursorMove<'_>],
    count: Option<u32>,
) {
    let slot = work.engine.slot;
    for one in moves {
        let row = CursorRow {
            next_index: one.to.next_index,
            next_height: one.to.next_height,
            last: one.to.last,
            moved_ms: work.time_ms,
        };
        let key = cursor_key(slot, no, one.name, &one.source);
        work.state.pending.put(work.batch, key, row.encode());
    }
    if let Some(count) = count {
        put_count(work, no, count);
    }
}

fn delete(work: &mut Work<'_>, no: ChainNo, name: &str) -> Result<u64, StoreError> {
    let bounds = cursor_bounds(work.engine.slot, no, name);
    let keys = work.state.pending.keys(&work.engine.store, &bounds)?;
    let gone = keys.len() as u64;
    for key in keys {
        work.state.pending.remove(work.batch, key);
    }
    if gone > 0 {
        let left = count(work, no)?.saturating_sub(gone as u32);
        put_count(work, no, left);
    }
    Ok(gone)
}

fn stored(
    work: &Work<'_>,
    no: ChainNo,
    one: &CursorMove<'_>,
) -> Result<Option<CursorPlace>, StoreError> {
    let key = cursor_key(work.engine.slot, no, one.name, &one.source);
    let Some(row) = work.state.pending.get(&work.engine.store, &key)? else {
        return Ok(None);
    };
    let row = CursorRow::decode(&row).ok_or_else(|| StoreError::row("index"))?;
    Ok(Some(CursorPlace::stored(&row)))
}

fn count(work: &Work<'_>, no: ChainNo) -> Result<u32, StoreError> {
    let key = cursor_count_key(work.engine.slot, no);
    let Some(row) = work.state.pending.get(&work.engine.store, &key)? else {
        return Ok(0);
    };
    let count = row.as_slice().try_into().map(u32::from_be_bytes);
    count.map_err(|_| StoreError::row("index"))
}

fn put_count(work: &mut Work<'_>, no: ChainNo, count: u32) {
    let key = cursor_count_key(work.engine.slot, no);
    let pending = &mut work.state.pending;
    pending.put(work.batch, key, count.to_be_bytes().to_vec());
}

impl Reader<'_> {
    /// Positions of the cursors that a chain keeps, of one or of all, after `after`, at most `limit`.
    pub fn cursors(
        &self,
        chain: &ChainView,
        name: Option<&str>,
        after: Option<(&str, &ChainId)>,
        limit: usize,
    ) -> Result<Vec<CursorView>, ReadError> {
        let (mut from, to) = match name {
            Some(name) => cursor_bounds(self.slot, chain.no, name),
            None => cursors_bounds(self.slot, chain.no),
        };
        if let Some((name, source)) = after {
            from = from.max([&cursor_key(self.slot, chain.no, name, source)[..], &[0]].concat());
        }
        let (mut found, mut whole) = (Vec::new(), true);
        if from < to {
            self.view.scan(Cf::Index, &from, &to, &mut |key, row| {
                if found.len() >= limit {
                    return ControlFlow::Break(());
                }
                let (Some((name, source)), Some(row)) =
                    (cursor_of_key(key), CursorRow::decode(row))
                else {
                    whole = false;
                    return ControlFlow::Break(());
                };
                found.push(CursorView { name, source, row });
                ControlFlow::Continue(())
            })?;
        }
        if whole {
            Ok(found)
        } else {
            Err(StoreError::row("index").into())
        }
    }
}
