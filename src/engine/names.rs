//! Names of chains that live in another group than their name: "the chain of that id, which lives in group G, is called
//! NAME". The group that owns the name keeps the row and decides that the name is unique, as it does for bangs.
//!
//! Saying the same again changes nothing: whoever crashed between making a chain and naming it says it again.

use super::{GroupId, apply::Work, command::framed, command_read::Cursor, outcome::Rejection};
use crate::chain::{ChainId, ChainName};
use crate::store::{NameRow, StoreError, name_key};

/// Names a chain that lives in another group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// The chain.
    pub chain_id: ChainId,
    /// Where it lives.
    pub group: GroupId,
    /// Its name, which this group owns.
    pub name: &'a str,
}

impl<'a> Name<'a> {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(super::command::NAME, 36 + self.name.len(), |out| {
            out.extend_from_slice(&self.chain_id.0);
            out.extend_from_slice(&self.group.0.to_be_bytes());
            out.extend_from_slice(self.name.as_bytes());
        })
    }

    pub(super) fn read(body: &mut Cursor<'a>) -> Option<Self> {
        Some(Self {
            chain_id: ChainId(body.array()?),
            group: GroupId(body.u32()?),
            name: std::str::from_utf8(body.rest()).ok()?,
        })
    }
}

/// The name is the chain's, or another one's.
pub(super) fn apply(
    work: &mut Work<'_>,
    command: &Name<'_>,
) -> Result<Result<(), Rejection>, StoreError> {
    if let Err(bad) = ChainName::parse(command.name) {
        return Ok(Err(Rejection::BadGenesis(bad.to_string())));
    }
    let key = name_key(work.engine.slot, command.name);
    let asked = NameRow::Elsewhere {
        chain_id: command.chain_id,
        group: command.group.0,
    };
    let Some(row) = work.state.pending.get(&work.engine.store, &key)? else {
        work.state.pending.put(work.batch, key, asked.encode());
        return Ok(Ok(()));
    };
    let row = NameRow::decode(&row).ok_or_else(|| StoreError::row("index"))?;
    if row == asked {
        return Ok(Ok(()));
    }
    let chain_id = match row {
        NameRow::Elsewhere { chain_id, .. } => chain_id,
        NameRow::Here(no) => match work.chain(no)? {
            Ok(chain) => chain.chain_id,
            Err(rejection) => return Ok(Err(rejection)),
        },
    };
    Ok(Err(Rejection::NameTaken {
        name: command.name.to_owned(),
        chain_id,
        same: false,
    }))
}
