//! What a subchain of a keyed chain or a ledger takes over from the chains above it: their leaders or any of their replicas
//! prove it, the subchain's leader proposes it with these proofs. And what an account has, wherever it is now.

use bytes::Bytes;
use tokio::time::Instant;
use tonic::Status;

use super::{
    Service,
    catalog::Known,
    edge::Deadline,
    history::account_of,
    route::{Method, Route, at_once, elsewhere, of_propose, until},
    status::{of_read, of_rejection, of_store, refused_field, status},
};
use crate::chain::{
    StateClaim, StateProof, StateTerminal, StateTree, balance_at_first, place_of, state_key_hash,
    subchain_name,
};
use crate::engine::{Outcome, Rejection, SplitCommand, SplitStep};
use crate::proto;
use crate::store::SplitPhase;

/// State keys of one question: a proof has about a KiB.
const PROOFS_PER_CALL: usize = 512;
/// Claims of one command.
const CLAIMS_PER_COMMAND: usize = 256;

/// Asks a chain that is split what its state holds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProveAbove {
    #[prost(string, tag = "1")]
    chain: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    state_keys: Vec<Bytes>,
}

/// A state proof for each, against the split Quant.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProvedAbove {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    proofs: Vec<Bytes>,
}

/// What one chain knows of an account.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BalanceFound {
    /// None of a subchain that has not taken it over.
    #[prost(string, optional, tag = "1")]
    balance: Option<String>,
    /// The subchain that has it now.
    #[prost(string, optional, tag = "2")]
    below: Option<String>,
    /// The chains that it takes over from, the topmost first.
    #[prost(string, repeated, tag = "3")]
    above: Vec<String>,
    #[prost(uint64, tag = "4")]
    head_height: u64,
}

impl Service {
    /// Proposes a step, and gives what it came to.
    pub(super) async fn propose_step(
        &self,
        known: &Known,
        command: &SplitCommand<'_>,
    ) -> Result<Result<SplitStep, Rejection>, Status> {
        let outcome = self
            .catalog
            .group(known)?
            .propose(command.encode())
            .await
            .map_err(|error| of_propose(&error))?;
        match outcome {
            Outcome::Split(done) => Ok(done),
            _ => Err(status("INTERNAL", "the answer is not that of a split", &[])),
        }
    }

    /// A subchain, or a fork of one, whose group this node leads, takes over what the chains above had under these state keys.
    pub(super) async fn claim(
        &self,
        known: &Known,
        state_keys: &[Vec<u8>],
        until: Instant,
    ) -> Result<(), Status> {
        for state_keys in state_keys.chunks(CLAIMS_PER_COMMAND) {
            let proofs = self.proofs_above(known, state_keys, until).await?;
            let claims = state_keys.iter().zip(proofs);
            let claims: Vec<Vec<u8>> = claims
                .map(|(state_key, proofs)| {
                    let state_key = state_key.clone();
                    StateClaim { state_key, proofs }.to_bytes()
                })
                .collect();
            let command = SplitCommand::Claim {
                chain: known.no,
                claims: claims.iter().map(Vec::as_slice).collect(),
            };
            let claimed = self.propose_step(known, &command).await?;
            claimed.map_err(|rejection| of_rejection(&rejection))?;
        }
        Ok(())
    }

    /// State proofs of the chains above, the nearest first, up to the first that shows a value.
    pub(super) async fn proofs_above(
        &self,
        known: &Known,
        state_keys: &[Vec<u8>],
        until: Instant,
    ) -> Result<Vec<Vec<Vec<u8>>>, Status> {
        let mut proofs = vec![Vec::new(); state_keys.len()];
        let mut open: Vec<usize> = (0..state_keys.len()).collect();
        for above in known.takes_from.iter().rev() {
            let mut still = Vec::new();
            for part in open.chunks(PROOFS_PER_CALL) {
                let keys = part.iter().map(|at| state_keys[*at].clone().into());
                let shown = self.ask_above(above, keys.collect(), until).await?;
                for (at, proof) in part.iter().zip(shown.proofs) {
                    if !shows_value(&proof)? {
                        still.push(*at);
                    }
                    proofs[*at].push(proof.to_vec());
                }
            }
            open = still;
            if open.is_empty() {
                break;
            }
        }
        Ok(proofs)
    }

    async fn ask_above(
        &self,
        above: &str,
        state_keys: Vec<Bytes>,
        until: Instant,
    ) -> Result<ProvedAbove, Status> {
        let asked = ProveAbove {
            chain: above.to_owned(),
            state_keys,
        };
        let route = Route {
            until,
            ..self.route(Method::ProveAbove, above, None)?
        };
        let shown = self.at_reader(route, false, &asked, |service, asked| {
            at_once(service.do_prove_above(asked))
        });
        let shown = shown.await?;
        if shown.proofs.len() == asked.state_keys.len() {
            return Ok(shown);
        }
        let why = format!("chain {above} proved another number of keys than it was asked for");
        Err(status("INTERNAL", why, &[]))
    }

    /// What the state of a chain that is split holds: it does not change any more.
    pub(super) fn do_prove_above(&self, asked: &ProveAbove) -> Result<ProvedAbove, Status> {
        let reads = self.reads(&asked.chain)?;
        let row = reads.reader().split(&reads.chain);
        let row = row.map_err(|error| of_read(&error))?;
        let row = row.filter(|row| row.phase >= SplitPhase::Sealed);
        let row = row.ok_or_else(elsewhere)?;
        let rows = reads.reader().state(&reads.chain, row.height);
        let tree = StateTree {
            alg: reads.known.alg,
            rows: &rows,
        };
        let prove = |state_key: &Bytes| {
            let proof = tree.prove(&state_key_hash(reads.known.alg, state_key));
            let proof = proof.map_err(|error| of_store(&error.into()))?;
            Ok(proof.to_bytes().into())
        };
        let proofs = tokio::task::block_in_place(|| {
            let proofs = asked.state_keys.iter().map(prove);
            proofs.collect::<Result<_, Status>>()
        })?;
        Ok(ProvedAbove { proofs })
    }

    /// What an account has, in whichever subchain it is now, and which one that is. One that is not taken over yet has what
    /// the chains above had.
    pub(super) async fn balance_at(
        &self,
        request: &proto::GetBalanceRequest,
        deadline: Option<Deadline>,
    ) -> Result<proto::GetBalanceResponse, Status> {
        let until = until(deadline);
        let mut chain = request.chain.clone();
        let mut found = self.ask_balance(request, &chain, until).await?;
        while let Some(below) = found.below.take() {
            chain = below;
            found = self.ask_balance(request, &chain, until).await?;
        }
        let mut balance = found.balance;
        for above in found.above.iter().rev() {
            if balance.is_some() {
                break;
            }
            balance = self.ask_balance(request, above, until).await?.balance;
        }
        Ok(proto::GetBalanceResponse {
            balance: balance.ok_or_else(elsewhere)?,
            head_height: found.head_height,
            chain,
        })
    }

    async fn ask_balance(
        &self,
        request: &proto::GetBalanceRequest,
        chain: &str,
        until: Instant,
    ) -> Result<BalanceFound, Status> {
        let request = proto::GetBalanceRequest {
            chain: chain.to_owned(),
            ..request.clone()
        };
        let route = Route {
            until,
            ..self.route(Method::GetBalance, chain, None)?
        };
        self.at_reader(route, request.any_replica, &request, |service, request| {
            at_once(service.do_get_balance(request))
        })
        .await
    }

    pub(super) fn do_get_balance(
        &self,
        request: &proto::GetBalanceRequest,
    ) -> Result<BalanceFound, Status> {
        let reads = self.reads(&request.chain)?;
        account_of(&reads.known, &request.account)?;
        let (reader, chain) = (reads.reader(), &reads.chain);
        let account = request.account.as_bytes();
        let heir = reader.heir(chain).map_err(|error| of_read(&error))?;
        let above = heir.map_or_else(Vec::new, |(_, row)| row.above);
        let alg = reads.known.alg;
        let leads = |branch: &crate::store::Branch| {
            place_of(alg, &branch.id, account, branch.of) == branch.place
        };
        if !above.iter().all(leads) {
            let why = if reads.known.constitution.is_subchain() {
                format!(
                    "the account is in another subchain than {}; ask the chain that was split, which knows where",
                    request.chain
                )
            } else {
                format!(
                    "the account is of another subchain than the one that {} was forked from; a fork of a part has the accounts of that part alone",
                    request.chain
                )
            };
            return Err(refused_field("ROUTED_ELSEWHERE", "account", why));
        }
        let balance = reader.balance(chain, account);
        let mut balance = balance.map_err(|error| of_read(&error))?;
        if above.is_empty() {
            let mint = reads.known.constitution.mint.as_ref();
            let at_first = mint.map_or(0, |mint| balance_at_first(mint, account));
            balance = balance.or(Some(at_first));
        }
        let split = reader.split(chain).map_err(|error| of_read(&error))?;
        let split = split.filter(|row| row.phase >= SplitPhase::Sealed);
        let below = split.map(|row| {
            let place = place_of(alg, &chain.chain_id, account, row.children.len() as u32);
            subchain_name(&request.chain, place)
        });
        Ok(BalanceFound {
            balance: balance.map(|balance| balance.to_string()),
            below,
            above: reads.known.takes_from.clone(),
            head_height: chain.head.height,
        })
    }
}

/// True for a state proof that shows a value; none that can't be read is passed on.
pub(super) fn shows_value(proof: &[u8]) -> Result<bool, Status> {
    let proof = StateProof::parse(proof).map_err(|refused| {
        let why = format!("a state proof of a chain above can't be read: {refused}");
        status("INTERNAL", why, &[])
    })?;
    Ok(matches!(proof.terminal, StateTerminal::Own(_)))
}
