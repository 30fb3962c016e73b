//! ListHistory, GetLatest: transactions by key and account.

use tonic::Status;

use super::{
    Service,
    catalog::{ChainReads, Known},
    chains::page_size,
    convert,
    limits::PIECE_BYTES,
    read::Heights,
    status::{invalid, of_read, refused_field, status},
};
use crate::chain::{KEY_BYTES_MAX, balance_key, check_account, latest_key as state_key_of_key};
use crate::proto::{self, list_history_request::Subject};

/// What a caller asks about, as a key of the state.
pub(super) fn state_key(known: &Known, subject: Option<&Subject>) -> Result<Vec<u8>, Status> {
    match subject {
        Some(Subject::Key(key)) => key_of(key),
        Some(Subject::Account(account)) => account_of(known, account),
        None => Err(subject_missing()),
    }
}

pub(super) fn subject_missing() -> Status {
    invalid("subject", "it is missing; give a key or an account")
}

pub(super) fn key_of(key: &[u8]) -> Result<Vec<u8>, Status> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let why = format!("it has {} bytes, give 1 to {KEY_BYTES_MAX}", key.len());
        return Err(invalid("key", why));
    }
    Ok(state_key_of_key(key))
}

/// The state key of a key, on a chain that commits to keys.
pub(super) fn keyed(known: &Known, key: &[u8]) -> Result<Vec<u8>, Status> {
    if !known.constitution.keyed {
        let why = format!(
            "chain {} commits to no keys, so nothing is provable of one; bang a chain that is keyed, or prove a transaction by its index",
            known.constitution.name
        );
        return Err(refused_field("NOT_KEYED", "key", why));
    }
    key_of(key)
}

pub(super) fn account_of(known: &Known, account: &str) -> Result<Vec<u8>, Status> {
    if !known.constitution.ledger {
        let why = format!(
            "chain {} is no ledger and has no accounts; ask for a key, or bang a chain with rules ledger",
            known.constitution.name
        );
        return Err(refused_field("NOT_A_LEDGER", "account", why));
    }
    check_account(account).map_err(|why| invalid("account", why))?;
    Ok(balance_key(account.as_bytes()))
}

impl Service {
    pub(super) fn do_list_history(
        &self,
        request: &proto::ListHistoryRequest,
    ) -> Result<proto::ListHistoryResponse, Status> {
        let reads = self.reads(&request.chain)?;
        let state_key = state_key(&reads.known, request.subject.as_ref())?;
        let bounds = bounds(&request.page_token, request.newest_first)?;
        let limit = page_size(request.page_size);
        // One more than the page tells whether there is another.
        let order = (request.newest_first, limit + 1);
        let found = reads
            .reader()
            .touching(&reads.chain, &state_key, bounds, order)
            .map_err(|error| of_read(&error))?;
        let transactions = page(&reads, &found[..found.len().min(limit)])?;
        let more = transactions.len() < found.len();
        let next = transactions.last().filter(|_| more);
        Ok(proto::ListHistoryResponse {
            next_page_token: next.map_or_else(String::new, |last| last.index.to_string()),
            transactions,
            head_height: reads.chain.head.height,
        })
    }

    pub(super) fn do_get_latest(
        &self,
        request: &proto::GetLatestRequest,
    ) -> Result<proto::GetLatestResponse, Status> {
        let reads = self.reads(&request.chain)?;
        let state_key = key_of(&request.key)?;
        let newest = reads
            .reader()
            .touching(&reads.chain, &state_key, (0, u64::MAX), (true, 1))
            .map_err(|error| of_read(&error))?;
        let Some(transaction) = page(&reads, &newest)?.pop() else {
            let message = format!(
                "no transaction of chain {} has this key; inject one, or look for it in another chain",
                request.chain
            );
            return Err(status("KEY_UNKNOWN", message, &[]));
        };
        Ok(proto::GetLatestResponse {
            transaction: Some(transaction),
            head_height: reads.chain.head.height,
        })
    }
}

/// The indexes that come after a page whose last transaction is the token's.
fn bounds(token: &str, newest_first: bool) -> Result<(u64, u64), Status> {
    if token.is_empty() {
        return Ok((0, u64::MAX));
    }
    let last: u64 = token.parse().map_err(|_| {
        let why = "it is none that this call gave; begin again without one";
        invalid("page_token", why)
    })?;
    Ok(if newest_first {
        (0, last)
    } else {
        (last.saturating_add(1), u64::MAX)
    })
}

/// These transactions, as many as a message holds (at least one).
fn page(reads: &ChainReads<'_>, indexes: &[u64]) -> Result<Vec<proto::Transaction>, Status> {
    let (mut page, mut bytes, mut heights) = (Vec::new(), 0, Heights::default());
    for index in indexes {
        if bytes >= PIECE_BYTES {
            break;
        }
        let view = reads
            .reader()
            .transaction(&reads.chain, *index)
            .map_err(|error| of_read(&error))?;
        bytes += view.row.len() + 64;
        let height = heights.of(reads, *index)?;
        page.push(convert::transaction(reads, &view, height)?);
    }
    Ok(page)
}
