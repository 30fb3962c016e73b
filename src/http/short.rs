//! The short routes, for one default chain.

use tonic::Code;

use super::{
    answer::{Answering, json},
    ask::Ask,
    inject::message,
    problem::Problem,
    read,
};
use crate::proto::{self, web};

/// The chain that the short routes are about.
pub const DEFAULT_CHAIN: &str = "main";
/// Quants and transactions that `GET /chain` shows at most.
const QUANTS_SHOWN: u64 = 20;
const TRANSACTIONS_SHOWN: u64 = 100;

/// Injects; the first one of all bangs the chain, of bytes.
pub fn inject(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let message = match message(&mut ask, DEFAULT_CHAIN).await {
            Ok(message) => message,
            Err(problem) => return Err(problem),
        };
        let call = || async {
            let answer = ask.face().chains().inject(ask.call(message.clone())).await;
            answer.map_err(Problem::from)
        };
        let answer = match call().await {
            Err(problem) if problem.reason() == "CHAIN_UNKNOWN" => {
                bang(&ask).await?;
                call().await?
            }
            answered => answered?,
        };
        json(answer.get_ref())
    })
}

/// Creates the default chain, unless somebody else did.
async fn bang(ask: &Ask) -> Result<(), Problem> {
    let message = proto::BangRequest {
        name: DEFAULT_CHAIN.to_owned(),
        constitution: Some(proto::Constitution::default()),
        ..proto::BangRequest::default()
    };
    match ask.face().chains().bang(ask.call(message)).await {
        Err(status) if status.code() != Code::AlreadyExists => Err(status.into()),
        _ => Ok(()),
    }
}

/// Leap.
pub fn leap(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let mut message: proto::LeapRequest = ask.message().await?;
        DEFAULT_CHAIN.clone_into(&mut message.chain);
        let answer = ask.face().chains().leap(ask.call(message)).await?;
        json(answer.get_ref())
    })
}

/// The chain with its newest Quants and transactions.
pub fn chain(ask: Ask) -> Answering {
    Box::pin(async move {
        let name = DEFAULT_CHAIN.to_owned();
        let message = proto::GetChainRequest {
            chain: name.clone(),
            ..proto::GetChainRequest::default()
        };
        let answer = ask.face().chains().get_chain(ask.call(message)).await?;
        let chain = answer.into_inner().chain.unwrap_or_default();
        let message = proto::ListQuantsRequest {
            chain: name.clone(),
            from_height: (chain.height + 1).saturating_sub(QUANTS_SHOWN),
            page_size: QUANTS_SHOWN as u32,
            ..proto::ListQuantsRequest::default()
        };
        let quants = ask.face().chains().list_quants(ask.call(message)).await?;
        let message = proto::ReadRequest {
            chain: name,
            from_index: chain.transactions.saturating_sub(TRANSACTIONS_SHOWN),
            limit: TRANSACTIONS_SHOWN,
            ..proto::ReadRequest::default()
        };
        let transactions = read::read(&ask, message).await?.transactions;
        json(&web::ChainView {
            chain: Some(chain),
            quants: quants.into_inner().quants,
            transactions,
        })
    })
}
