//! Bang: a chain comes into being.

use super::{
    apply::Work,
    command::{Bang, body_hash},
    heads,
    hot::HotChain,
    outcome::{Banged, Rejection},
    quorum, request,
};
use crate::chain::{ChainId, ChainName, Constitution, Meta, genesis_header};
use crate::store::{
    Cf, ChainNo, ChainRow, NameRow, QuantRow, StoreError, chain_key, history_edge_key, name_key,
    pool_key, quant_key, request_key,
};

/// Bangs belong to the group, not to a chain.
pub(super) const GROUP_ROWS: ChainNo = ChainNo(0);

pub(super) fn apply(
    work: &mut Work<'_>,
    command: &Bang<'_>,
) -> Result<Result<Banged, Rejection>, StoreError> {
    let constitution = match read_constitution(command.meta) {
        Ok(constitution) => constitution,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let body = request_body(command, &constitution);
    if let Some(answer) = seen(work, command.request_id, &body)? {
        return Ok(answer);
    }
    let key = name_key(work.engine.slot, &constitution.name);
    if let Some(row) = work.state.pending.get(&work.engine.store, &key)? {
        return taken(work, &row, &constitution);
    }
    let chain = make(work, command, &constitution, key)?;
    quorum::wanted(work, chain.chain)?;
    let asked = (command.request_id, body);
    request::remember_one(work, GROUP_ROWS, asked, (chain.chain.0, 1));
    Ok(Ok(chain))
}

pub(super) fn read_constitution(meta: &[u8]) -> Result<Constitution, Rejection> {
    let bad = |why: String| Rejection::BadGenesis(why);
    let meta = Meta::parse(meta).map_err(|refused| bad(refused.to_string()))?;
    let bytes = meta
        .constitution
        .ok_or_else(|| bad("it has no constitution".into()))?;
    let constitution = Constitution::parse(&bytes).map_err(|refused| bad(refused.to_string()))?;
    ChainName::parse(&constitution.name).map_err(|error| bad(error.to_string()))?;
    Ok(constitution)
}

/// What the client asked for: all but the leader's time and salt.
fn request_body(command: &Bang<'_>, constitution: &Constitution) -> crate::chain::Hash {
    let asked = Constitution {
        created_ms: 0,
        salt: [0; 16],
        ..constitution.clone()
    };
    body_hash("bang", &[&[command.alg as u8], &asked.to_bytes()])
}

fn seen(
    work: &mut Work<'_>,
    request_id: &[u8],
    body: &crate::chain::Hash,
) -> Result<Option<Result<Banged, Rejection>>, StoreError> {
    if request_id.is_empty() {
        return Ok(None);
    }
    let key = request_key(work.engine.slot, GROUP_ROWS, request_id);
    let runs = match request::seen(&work.state.pending, &work.engine.store, &key, body)? {
        None => return Ok(None),
        Some(Err(rejection)) => return Ok(Some(Err(rejection))),
        Some(Ok(runs)) => runs,
    };
    let no = ChainNo(runs.first().map_or(0, |run| run.first));
    Ok(Some(work.chain(no)?.map(|chain| Banged {
        chain: no,
        chain_id: chain.chain_id,
        duplicate: true,
    })))
}

pub(super) fn taken(
    work: &mut Work<'_>,
    row: &[u8],
    asked: &Constitution,
) -> Result<Result<Banged, Rejection>, StoreError> {
    let no = match NameRow::decode(row).ok_or_else(|| StoreError::row("index"))? {
        NameRow::Here(no) => no,
        NameRow::Elsewhere { chain_id, .. } => {
            return Ok(Err(Rejection::NameTaken {
                name: asked.name.clone(),
                chain_id,
                same: false,
            }));
        }
    };
    let stored = stored_constitution(work, no)?;
    let chain = match work.chain(no)? {
        Ok(chain) => chain,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let same = stored.is_some_and(|stored| stored.same_rules(asked));
    Ok(Err(Rejection::NameTaken {
        name: asked.name.clone(),
        chain_id: chain.chain_id,
        same,
    }))
}

pub(super) fn stored_constitution(
    work: &mut Work<'_>,
    no: ChainNo,
) -> Result<Option<Constitution>, StoreError> {
    let first = work.chain(no)?;
    let first = first.map_or(0, |chain| chain.lineage.first_height());
    let key = quant_key(work.engine.slot, no, first);
    let row = work.state.pending.quant(&work.engine.store, &key)?;
    Ok(row.and_then(|row| read_constitution(&row.meta).ok()))
}

pub(super) fn make(
    work: &mut Work<'_>,
    command: &Bang<'_>,
    constitution: &Constitution,
    name_key: Vec<u8>,
) -> Result<Banged, StoreError> {
    let slot = work.engine.slot;
    let no = next_chain(work)?;
    let header = genesis_header(command.alg, constitution.created_ms, 0, command.meta);
    let bytes = header.to_bytes().to_vec();
    let hash = header.hash();
    let chain = HotChain::new(no, header, constitution);
    let row = ChainRow {
        head: bytes.clone(),
        chain_id: ChainId(hash),
        sealed_bytes: 0,
        amended_height: 0,
        name: chain.name.clone(),
        peaks: Vec::new(),
        ancestors: Vec::new(),
    };
    work.batch.put(Cf::Chain, chain_key(slot, no), row.encode());
    work.batch
        .put(Cf::Chain, pool_key(slot, no), chain.pool.encode());
    let quant = QuantRow {
        header: bytes,
        meta: command.meta.to_vec(),
        anchors: Vec::new(),
    };
    work.state
        .pending
        .put_quant(work.batch, quant_key(slot, no, 0), quant.encode());
    work.batch
        .put(Cf::Tree, history_edge_key(slot, no, 0, 0), hash);
    work.state
        .pending
        .put(work.batch, name_key, NameRow::Here(no).encode());
    work.state.hot.insert(chain);
    heads::note(work, no, (ChainId(hash), 0, hash))?;
    Ok(Banged {
        chain: no,
        chain_id: ChainId(hash),
        duplicate: false,
    })
}

pub(super) fn next_chain(work: &mut Work<'_>) -> Result<ChainNo, StoreError> {
    use crate::store::View;
    let key = chain_key(work.engine.slot, GROUP_ROWS);
    let next = match work.state.next_chain {
        Some(next) => next,
        None => match work.engine.store.get(Cf::Chain, &key)? {
            Some(row) => row
                .as_slice()
                .try_into()
                .map(u64::from_be_bytes)
                .map_err(|_| StoreError::row("chain"))?,
            None => 1,
        },
    };
    work.state.next_chain = Some(next + 1);
    work.batch.put(Cf::Chain, key, (next + 1).to_be_bytes());
    Ok(ChainNo(next))
}
