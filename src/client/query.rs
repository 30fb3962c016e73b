//! Plain questions: Quants, chains, the node. Headers are tied to a trusted head; listings are the node's word.
use crate::{
    chain::{ChainId, Hash, Header, check_meta, verify_history_link},
    client::{
        Client, ClientError, InForce, Split, Trusted, contact::equivocation, convert,
        error::not_denied, heads_book::other_id,
    },
    proto,
};

/// A page of the list of chains.
#[derive(Clone, Debug)]
pub struct ChainPage {
    /// By name, ascending.
    pub chains: Vec<ChainSummary>,
    /// Where the next page begins; empty at the end.
    pub next_page_token: String,
}

/// What a node says about a chain, unproved.
#[derive(Clone, Debug)]
pub struct ChainSummary {
    /// The name.
    pub name: String,
    /// The id.
    pub chain_id: ChainId,
    /// Height of the newest Quant.
    pub height: u64,
    /// Its hash.
    pub quant_hash: Hash,
    /// Sealed and pooled together.
    pub transactions: u64,
    /// After the newest Quant.
    pub pool: u64,
    /// Their bytes.
    pub pool_bytes: u64,
    /// Nothing may extend it.
    pub closed: bool,
    /// Of the bang, Unix milliseconds.
    pub created_ms: u64,
    /// Of a fork: where it left its parent.
    pub forked_from: Option<proto::ForkedFrom>,
    /// How far the leader is with the work for the next Quant; none where nothing is mined, and in listings.
    pub mining: Option<Mining>,
    /// How it is split; none of most.
    pub split: Option<Split>,
    /// Of a subchain of a ledger: what it has in transit.
    pub transit: Option<Transit>,
}

/// Amounts between a subchain of a ledger and others, modulo 2^128, by the node's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transit {
    /// Taken there for accounts of others.
    pub debited: u128,
    /// Given there from accounts of others.
    pub credited: u128,
    /// Debits that are not known there to be credited.
    pub waiting: u64,
}

impl Transit {
    fn read(told: &proto::Transit) -> Result<Self, ClientError> {
        let amount = |text: &str| {
            let amount = text.parse();
            amount.map_err(|_| convert::bad("an amount in transit is no number"))
        };
        Ok(Self {
            debited: amount(&told.debited)?,
            credited: amount(&told.credited)?,
            waiting: told.waiting,
        })
    }

    /// Of two chains together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            debited: self.debited.wrapping_add(other.debited),
            credited: self.credited.wrapping_add(other.credited),
            waiting: self.waiting.saturating_add(other.waiting),
        }
    }

    /// In no account: of all subchains together, what is debited and not yet credited.
    pub fn between(&self) -> u128 {
        self.debited.wrapping_sub(self.credited)
    }
}

/// The search for the nonce of a chain's next Quant.
pub type Mining = proto::Mining;

/// What a node says about itself.
pub type ServerInfo = proto::GetServerInfoResponse;

impl Client {
    /// A page of chains whose names begin with `prefix`; `page_size` 0 is the node's default.
    pub async fn chains(
        &self,
        prefix: &str,
        page_size: u32,
        page_token: &str,
    ) -> Result<ChainPage, ClientError> {
        let request = proto::ListChainsRequest {
            any_replica: false,
            prefix: prefix.to_owned(),
            page_size,
            page_token: page_token.to_owned(),
        };
        let list = |r| async { self.chains.clone().list_chains(r).await };
        let answer = self.call(request, list).await?;
        let chains = answer.chains.iter().map(|chain| self.summary(chain));
        Ok(ChainPage {
            chains: chains.collect::<Result<_, _>>()?,
            next_page_token: answer.next_page_token,
        })
    }

    /// What the node says about one chain now, and the constitution in force; refused where it contradicts the trusted
    /// history.
    pub async fn chain(&self, trusted: &Trusted) -> Result<(ChainSummary, InForce), ClientError> {
        let chain = self.get_chain(trusted.name()).await?;
        let chain = chain.ok_or_else(|| convert::bad("the chain is missing in the answer"))?;
        let summary = self.summary(&chain)?;
        if summary.chain_id != trusted.chain_id {
            return Err(other_id(trusted.name(), trusted.chain_id, summary.chain_id).into());
        }
        if summary.transactions < trusted.sealed() {
            let why = format!(
                "{} transactions are sealed, and the node counts {} in all",
                trusted.sealed(),
                summary.transactions
            );
            return Err(ClientError::refused("head-went-back", why));
        }
        Ok((summary, self.in_force(trusted, &chain).await?))
    }

    /// How far a chain's leader is with the work for its next Quant, if it mines one. The node's word.
    pub async fn mining(&self, name: &str) -> Result<Option<Mining>, ClientError> {
        let chain = self.get_chain(name).await?;
        Ok(chain.and_then(|chain| chain.mining))
    }

    /// How a chain is split, by the node's word.
    pub async fn split_of(&self, trusted: &Trusted) -> Result<Option<Split>, ClientError> {
        let chain = self.get_chain(trusted.name()).await?;
        let split = chain.and_then(|chain| chain.split);
        split.as_ref().map(Split::read).transpose()
    }

    /// The name of the chain that a fork was forked from, by the node's word.
    pub(super) async fn forked_from(&self, trusted: &Trusted) -> Result<String, ClientError> {
        let chain = self.get_chain(trusted.name()).await?;
        let told = chain.and_then(|chain| chain.forked_from);
        Ok(told.map_or_else(String::new, |told| told.name))
    }

    async fn get_chain(&self, name: &str) -> Result<Option<proto::Chain>, ClientError> {
        let request = proto::GetChainRequest {
            any_replica: false,
            chain: name.to_owned(),
        };
        let get = |r| async { self.chains.clone().get_chain(r).await };
        Ok(self.call(request, get).await?.chain)
    }

    /// The Quant at a height at or below the trusted head, proved to lie in its history, with its meta.
    pub async fn quant(
        &self,
        trusted: &Trusted,
        height: u64,
    ) -> Result<(Header, Vec<u8>), ClientError> {
        let top = trusted.header.height;
        let request = proto::GetQuantRequest {
            any_replica: false,
            chain: trusted.name().to_owned(),
            height,
            at_height: (height < top).then_some(top),
        };
        let get = |r| async { self.chains.clone().get_quant(r).await };
        let answer = self.call(request, get).await;
        let answer = answer.map_err(|error| not_denied(error, height <= top, "Quant", height))?;
        let (bytes, meta) = convert::quant_bytes(answer.quant)?;
        let header = Header::parse(&bytes)?;
        if header.height != height {
            let why = format!("asked for height {height}, got {}", header.height);
            return Err(ClientError::refused("answer", why));
        }
        check_meta(&header, &meta)?;
        check_in_history(trusted, &header, &convert::path(&answer.path)?)?;
        Ok((header, meta))
    }

    /// The node's figures and limits.
    pub async fn server_info(&self) -> Result<ServerInfo, ClientError> {
        let get = |r| async { self.nodes.clone().get_server_info(r).await };
        self.call(proto::GetServerInfoRequest {}, get).await
    }

    fn summary(&self, chain: &proto::Chain) -> Result<ChainSummary, ClientError> {
        let chain_id = convert::chain_id(&chain.chain_id)?;
        let bound = self.heads.id_of(&self.endpoint, &chain.name)?;
        if let Some(bound) = bound.filter(|bound| *bound != chain_id) {
            return Err(other_id(&chain.name, bound, chain_id).into());
        }
        Ok(ChainSummary {
            name: chain.name.clone(),
            chain_id,
            height: chain.height,
            quant_hash: convert::hash(&chain.quant_hash, "quant_hash")?,
            transactions: chain.transactions,
            pool: chain.pool,
            pool_bytes: chain.pool_bytes,
            closed: chain.closed,
            created_ms: chain.created_ms,
            mining: chain.mining,
            forked_from: chain.forked_from.clone(),
            split: chain.split.as_ref().map(Split::read).transpose()?,
            transit: chain.transit.as_ref().map(Transit::read).transpose()?,
        })
    }
}

/// That a header is the trusted one, or lies before it.
pub(super) fn check_in_history(
    trusted: &Trusted,
    header: &Header,
    path: &[Hash],
) -> Result<(), ClientError> {
    if header.height == trusted.header.height {
        if header.hash() == trusted.hash {
            return Ok(());
        }
        return Err(equivocation(trusted, header).into());
    }
    let borders = trusted.borders_above(header.height);
    Ok(verify_history_link(
        header,
        &trusted.header,
        &borders,
        path,
    )?)
}
