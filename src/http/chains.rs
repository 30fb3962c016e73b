//! Routes that are one rpc each.

use super::{
    answer::{Answering, json, made},
    ask::Ask,
    problem::Problem,
};
use crate::proto::{
    self,
    cluster::{DiscoverRequest, InviteRequest},
};

/// A handler that makes a message, calls an rpc with it and shows the answer.
macro_rules! plain {
    ($($name:ident: $request:ty => $service:ident.$rpc:ident;)*) => {$(
        pub fn $name(mut ask: Ask) -> Answering {
            Box::pin(async move {
                let message = ask.message::<$request>().await?;
                let answer = ask.face().$service().$rpc(ask.call(message)).await?;
                json(answer.get_ref())
            })
        }
    )*};
}

plain! {
    info: proto::GetServerInfoRequest => nodes.get_server_info;
    list: proto::ListChainsRequest => chains.list_chains;
    chain: proto::GetChainRequest => chains.get_chain;
    head: proto::GetHeadRequest => chains.get_head;
    quants: proto::ListQuantsRequest => chains.list_quants;
    leap: proto::LeapRequest => chains.leap;
    split: proto::SplitChainRequest => chains.split_chain;
    close: proto::CloseRequest => chains.close;
    latest: proto::GetLatestRequest => chains.get_latest;
    history: proto::ListHistoryRequest => chains.list_history;
    balance: proto::GetBalanceRequest => chains.get_balance;
    cursors: proto::ListCursorsRequest => tails.list_cursors;
    move_cursor: proto::MoveCursorRequest => tails.move_cursor;
    delete_cursor: proto::DeleteCursorRequest => tails.delete_cursor;
    discover: DiscoverRequest => cluster.discover;
    invite: InviteRequest => cluster.invite;
}

/// Bang.
pub fn bang(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let mut message: proto::BangRequest = ask.message().await?;
        // A chain without any demand is one of bytes, as everywhere.
        message.constitution.get_or_insert_default();
        let answer = ask.face().chains().bang(ask.call(message)).await?;
        let answer = answer.into_inner();
        made(&answer, &place_of(&answer.name))
    })
}

/// Fork. The height has no default: a fork of the genesis is hardly what a forgotten field means.
pub fn fork(mut ask: Ask) -> Answering {
    Box::pin(async move {
        let given = ask.json_object().await?;
        if !given.contains_key("at_height") && !given.contains_key("atHeight") {
            let why = "it is missing; give the last height that both chains share";
            return Err(Problem::field("at_height", why));
        }
        let message: proto::ForkChainRequest = ask.message_of(given)?;
        let answer = ask.face().chains().fork_chain(ask.call(message)).await?;
        let answer = answer.into_inner();
        made(&answer, &place_of(&answer.name))
    })
}

/// Where a chain is.
fn place_of(name: &str) -> String {
    format!("/v1/chains/{}", name.replace('/', "%2F"))
}
