//! Forks: made by a node, checked here against the parent's history; and the proof that fork and parent agree up to the
//! fork, and part there.
use crate::{
    chain::{
        Claim, Header, ParentEvidence, Proof, Refused, Step, Verdict, check_meta, verify_agreement,
    },
    client::{
        Client, ClientError, Contact, ContactKind, Trusted,
        bang::check_changes,
        convert,
        prove::{check_height, verify_anchored},
    },
    proto,
};

/// What to fork, and what the fork has in place of its parent's rules.
#[derive(Clone, Debug, Default)]
pub struct ForkOptions {
    /// The last height that both share.
    pub at_height: u64,
    /// Authors, admins and leap rules (0 = none) that the fork shall have instead.
    pub constitution: proto::Constitution,
    /// Everybody may write to the fork.
    pub any_author: bool,
}

/// A fork created.
#[derive(Clone, Debug)]
pub struct Forked {
    /// The fork at its newest head, verified.
    pub trusted: Trusted,
    /// The fork-genesis.
    pub genesis: Header,
    /// True if the fork was there already, by the same request.
    pub duplicate: bool,
}

impl Client {
    /// Forks a chain, checks that the fork continues the parent's trusted history and is what was asked for, and trusts it
    /// from now on.
    pub async fn fork(
        &self,
        parent: &Trusted,
        name: &str,
        options: ForkOptions,
    ) -> Result<Forked, ClientError> {
        let request = proto::ForkChainRequest {
            chain: parent.name().to_owned(),
            name: name.to_owned(),
            at_height: options.at_height,
            request_id: self.request_id().await,
            constitution: Some(options.constitution.clone()),
            any_author: options.any_author,
        };
        let fork = |r| async { self.chains.clone().fork_chain(r).await };
        let answer = self.call(request, fork).await?;
        let (bytes, meta) = convert::quant_bytes(answer.genesis)?;
        let genesis = Header::parse(&bytes)?;
        check_meta(&genesis, &meta)?;
        self.check_continues(parent, options.at_height, &genesis)
            .await?;
        let Contact { trusted, kind } = self.contact(name, false).await?;
        if trusted.chain_id != genesis.id() {
            let why = format!(
                "the fork is chain {}, the name now answers as {}",
                genesis.id(),
                trusted.chain_id
            );
            return Err(ClientError::refused("chain-id", why));
        }
        trusted.constitution.forks(&parent.constitution)?;
        check_changes(&options, &trusted)?;
        if kind == ContactKind::First {
            self.remember(name, &trusted).await?;
        }
        Ok(Forked {
            trusted,
            genesis,
            duplicate: answer.duplicate,
        })
    }

    /// The fork-genesis stands right above the parent's Quant of that height, and holds all before it.
    async fn check_continues(
        &self,
        parent: &Trusted,
        height: u64,
        genesis: &Header,
    ) -> Result<(), ClientError> {
        let (below, _) = self.quant(parent, height).await?;
        let expected = (true, Some(genesis.height), below.hash(), below.id());
        let found = (
            genesis.fork_genesis,
            height.checked_add(1),
            genesis.prev_hash,
            genesis.chain_id,
        );
        if expected == found && genesis.tx_start == below.tx_end() {
            return Ok(());
        }
        let why = format!("the fork does not continue Quant {height} of its parent");
        Err(ClientError::refused("parent", why))
    }

    /// Proves that a fork shares its parent's history up to where it left, and, where the parent has its own Quant there,
    /// that they part. The proof is anchored in the parent.
    pub async fn prove_agreement(
        &self,
        parent: &Trusted,
        fork: &Trusted,
    ) -> Result<(Proof, Verdict), ClientError> {
        let genesis = fork_of(parent, fork)?;
        let below = genesis.height.saturating_sub(1);
        let (header, _) = self.quant(parent, below).await?;
        let path = self.raw_path(fork, below, genesis.height).await?;
        verify_agreement(&header, &genesis, &path)?;
        let top = parent.header.height;
        let answer = self.extension(parent.name(), below, Some(top)).await?;
        let head = convert::head(answer.head)?;
        let evidence = ParentEvidence {
            fork_genesis: genesis.to_bytes().to_vec(),
            parent: header.to_bytes().to_vec(),
            path,
        };
        let claim = if top >= genesis.height {
            let (next, _) = self.quant(parent, genesis.height).await?;
            Claim::Parting {
                parent: evidence,
                next: next.to_bytes().to_vec(),
                next_path: self.raw_path(parent, genesis.height, top).await?,
            }
        } else {
            Claim::Agreement(evidence)
        };
        let mut steps = Vec::new();
        if top > below {
            steps.push(Step::History {
                header: head.bytes,
                path: convert::path(&answer.path)?,
                borders: Vec::new(),
            });
        }
        let proof = Proof {
            claim,
            steps,
            head: convert::head_evidence(head.signatures, answer.genesis)?,
            log: None,
        };
        let verdict = verify_anchored(&proof, parent, self.config.require)?;
        check_height(&verdict.head, top)?;
        self.check_tied(parent, &verdict.head).await?;
        Ok((proof, verdict))
    }

    /// The path from a height into the history of a later one, as the node gives it; empty where they are one.
    pub(super) async fn raw_path(
        &self,
        chain: &Trusted,
        height: u64,
        at: u64,
    ) -> Result<Vec<crate::chain::Hash>, ClientError> {
        if height == at {
            return Ok(Vec::new());
        }
        let request = proto::GetQuantRequest {
            any_replica: false,
            chain: chain.name().to_owned(),
            height,
            at_height: Some(at),
        };
        let get = |r| async { self.chains.clone().get_quant(r).await };
        Ok(convert::path(&self.call(request, get).await?.path)?)
    }
}

/// The fork-genesis of a fork that left just this chain.
fn fork_of(parent: &Trusted, fork: &Trusted) -> Result<Header, ClientError> {
    let Some(border) = fork.borders.first() else {
        let why = format!(
            "{} is no fork: name the parent first, then the fork",
            fork.name()
        );
        return Err(ClientError::Usage(why));
    };
    let owner = border.header.chain_id;
    if owner != parent.chain_id {
        let why = format!(
            "{} was forked from chain {owner}, not from {} ({}); prove its agreement with that one",
            fork.name(),
            parent.name(),
            parent.chain_id
        );
        return Err(ClientError::Usage(why));
    }
    if parent.header.height + 1 < border.header.height {
        let why = format!(
            "the fork continues Quant {} of {}, whose trusted head is at {}",
            border.header.height - 1,
            parent.name(),
            parent.header.height
        );
        return Err(Refused::new("head-went-back", why).into());
    }
    Ok(border.header.clone())
}
