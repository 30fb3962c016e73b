//! Quants and transactions, which may be kept once they are sealed.

use axum::{body::Body, http::header};
use tonic::Status;

use super::{
    answer::{Answering, json, raw, revised, sealed},
    ask::Ask,
    problem::Problem,
};
use crate::{
    chain::HashAlg,
    proto::{self, web::TransactionPage},
};

/// Transactions of a page, unless the request says otherwise.
const PAGE_DEFAULT: u64 = 100;
const PAGE_MAX: u64 = 1000;
/// Bytes of payloads of a page, and one transaction.
const PAGE_BYTES: usize = 1 << 20;

/// A Quant alone, without the height of the head, which does change.
pub fn quant(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let message: proto::GetQuantRequest = ask.message().await?;
        let answer = ask.face().chains().get_quant(ask.call(message)).await?;
        let quant = answer.into_inner().quant.unwrap_or_default();
        sealed(&ask.parts, &quant, &hex::encode(&quant.quant_hash))
    })
}

/// A transaction alone. What may be erased is asked about each time; what is pooled may still be sealed.
pub fn transaction(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let transaction = one(&mut ask).await?;
        if transaction.height.is_none() {
            return json(&transaction);
        }
        let text = serde_json::to_vec(&transaction).unwrap_or_default();
        let tag = hex::encode(&HashAlg::Sha3_256.hash(&[&text])[..16]);
        if transaction.flags == 0 {
            sealed(&ask.parts, &transaction, &tag)
        } else {
            revised(&ask.parts, &transaction, &tag)
        }
    })
}

/// The payload itself.
pub fn payload(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let transaction = one(&mut ask).await?;
        if transaction.erasure.is_some() {
            let why = format!(
                "the payload of transaction {} was erased",
                transaction.index
            );
            return Err(Problem::field("index", why));
        }
        let mut answer = raw(Body::from(transaction.payload), "application/octet-stream");
        let attached = header::HeaderValue::from_static("attachment");
        answer
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, attached);
        Ok(answer)
    })
}

async fn one(ask: &mut Ask) -> Result<proto::Transaction, Problem> {
    let message: proto::GetTransactionRequest = ask.message().await?;
    let answer = ask
        .face()
        .chains()
        .get_transaction(ask.call(message))
        .await?;
    Ok(answer.into_inner().transaction.unwrap_or_default())
}

/// Some transactions, and where the next ones are.
pub fn page(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let mut message: proto::ReadRequest = ask.message().await?;
        let limit = match message.limit {
            0 => PAGE_DEFAULT,
            limit => limit.min(PAGE_MAX),
        };
        message.limit = limit;
        json(&read(&ask, message).await?)
    })
}

/// A page of at most `message.limit` transactions.
pub async fn read(ask: &Ask, message: proto::ReadRequest) -> Result<TransactionPage, Problem> {
    let limit = message.limit;
    let mut pieces = ask
        .face()
        .chains()
        .read(ask.call(message))
        .await?
        .into_inner();
    let (mut page, mut bytes, mut full) = (TransactionPage::default(), 0, false);
    while let Some(piece) = pieces.message().await? {
        page.head_height = piece.head_height;
        let transactions = piece.run.transactions();
        for transaction in transactions.map_err(|error| Status::internal(error.to_string()))? {
            bytes += transaction.payload.len();
            full = bytes > PAGE_BYTES && !page.transactions.is_empty();
            if full {
                break;
            }
            page.transactions.push(transaction);
        }
        if full {
            break;
        }
    }
    full |= page.transactions.len() as u64 == limit;
    let last = page.transactions.last().map(|last| last.index + 1);
    page.next_index = last.filter(|_| full);
    Ok(page)
}
