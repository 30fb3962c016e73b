//! Splitting a chain: the split Quant is checked against the trusted history, and its route is what names the subchains.
use std::time::Duration;

use tokio::time::sleep;

use crate::{
    chain::{ChainId, Header, Meta, check_meta, subchain_name},
    client::{Client, ClientError, Contact, convert},
    proto,
};

/// Pause before a node that still splits is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// A chain that is split.
#[derive(Clone, Debug)]
pub struct SplitDone {
    /// Header of the Quant that split it.
    pub header: Header,
    /// In the order of their places.
    pub subchains: Vec<Subchain>,
}

/// A subchain: name and id by the Quant's route, the group by the node's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subchain {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub chain_id: ChainId,
    /// The group that it lives in.
    pub group: u32,
}

/// How a chain is split, by the node's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The Quant that split it; none while the split is not so far yet.
    pub height: Option<u64>,
    /// All subchains take injects.
    pub done: bool,
    /// In the order of their places.
    pub subchains: Vec<Subchain>,
}

impl Split {
    pub(super) fn read(told: &proto::Split) -> Result<Self, ClientError> {
        let read = |one: &proto::Subchain| {
            Ok(Subchain {
                name: one.name.clone(),
                chain_id: convert::chain_id(&one.chain_id)?,
                group: one.group,
            })
        };
        Ok(Self {
            height: told.height,
            done: told.done,
            subchains: told
                .subchains
                .iter()
                .map(read)
                .collect::<Result<_, ClientError>>()?,
        })
    }
}

impl Client {
    /// Splits a chain, and waits until its subchains take injects, however many deadlines that takes; it goes on where
    /// this is dropped.
    pub async fn split(&self, name: &str, into: u32) -> Result<(SplitDone, Contact), ClientError> {
        let request = proto::SplitChainRequest {
            chain: name.to_owned(),
            into,
            request_id: self.request_id().await,
        };
        let answer = loop {
            let split = |r| async { self.chains.clone().split_chain(r).await };
            match self.call(request.clone(), &split).await {
                Err(error) if error.is_splitting() => sleep(AGAIN).await,
                other => break other?,
            }
        };
        let head = answer.head.clone().unwrap_or_default();
        let meta = head.quant.unwrap_or_default().meta;
        let header = convert::head(answer.head)?.header;
        let contact = self.settle_header(name, &header, false).await?;
        check_meta(&header, &meta)?;
        let route = Meta::parse(&meta)?.route.unwrap_or_default();
        if route.len() != into as usize {
            let why = "the Quant shown does not split the chain as asked";
            return Err(ClientError::refused("answer", why));
        }
        let subchains = (0..).zip(&route).map(|(place, id)| Subchain {
            name: subchain_name(name, place),
            chain_id: *id,
            group: answer
                .subchains
                .get(place as usize)
                .map_or(0, |told| told.group),
        });
        let subchains = subchains.collect();
        Ok((SplitDone { header, subchains }, contact))
    }
}
