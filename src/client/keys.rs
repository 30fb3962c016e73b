//! Keys and accounts: their transactions, the latest one, balances, and proofs of what a chain's state holds. That no
//! transaction of a key is left out of a list is the node's word; a proof of the state shows the latest one, or that there
//! is none.
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use crate::{
    chain::{
        Claim, Proof, StateEvidence, TYPE_TRANSFER, Verdict, balance_amount, balance_at_first,
        balance_key, latest_key,
    },
    client::{
        Client, ClientError, ReadTransaction, RpcCode, Trusted, convert,
        prove::{check_height, inclusion_proof, verify_anchored},
    },
    proto::{self, list_history_request, prove_state_request},
};

/// Proofs of a page that are under way at once.
const PROOFS_AT_ONCE: usize = 16;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The key of transactions, 1 to 512 bytes.
    Key(Bytes),
    /// An account of a ledger, 1 to 128 bytes.
    Account(String),
}

impl Subject {
    /// As the state has it.
    pub fn state_key(&self) -> Vec<u8> {
        match self {
            Self::Key(key) => latest_key(key),
            Self::Account(account) => balance_key(account.as_bytes()),
        }
    }

    /// True for a transaction that belongs to it.
    fn has(&self, read: &ReadTransaction) -> bool {
        match self {
            Self::Key(key) => read.key.as_deref() == Some(key),
            Self::Account(account) => read.transfer().is_some_and(|transfer| {
                transfer.receiver == *account
                    || (transfer.sender == *account && read.kind == TYPE_TRANSFER)
            }),
        }
    }
}

/// Some transactions of a key or an account.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// In the order asked for. What the trusted head seals is proved.
    pub transactions: Vec<ReadTransaction>,
    /// Where the next page begins; empty at the end.
    pub next_page_token: String,
}

impl Client {
    /// A page of the transactions of a key or an account.
    pub async fn history(
        &self,
        trusted: &Trusted,
        subject: &Subject,
        newest_first: bool,
        page_token: &str,
    ) -> Result<HistoryPage, ClientError> {
        let request = proto::ListHistoryRequest {
            chain: trusted.name().to_owned(),
            newest_first,
            page_size: 0,
            page_token: page_token.to_owned(),
            any_replica: false,
            subject: Some(match subject {
                Subject::Key(key) => list_history_request::Subject::Key(key.clone()),
                Subject::Account(account) => {
                    list_history_request::Subject::Account(account.clone())
                }
            }),
        };
        let list = |r| async { self.chains.clone().list_history(r).await };
        let answer = self.call(request, list).await?;
        check_order(&answer.transactions, newest_first)?;
        let checked = answer.transactions.iter();
        let checked = checked.map(|given| self.checked(trusted, subject, given));
        let checked: Vec<_> = stream::iter(checked)
            .buffered(PROOFS_AT_ONCE)
            .collect()
            .await;
        Ok(HistoryPage {
            transactions: checked.into_iter().collect::<Result<_, _>>()?,
            next_page_token: answer.next_page_token,
        })
    }

    /// The newest transaction of a key; none if there is none. One that the trusted head seals is proved; that there is no
    /// newer one is the node's word.
    pub async fn latest(
        &self,
        trusted: &Trusted,
        key: &Bytes,
    ) -> Result<Option<ReadTransaction>, ClientError> {
        let request = proto::GetLatestRequest {
            chain: trusted.name().to_owned(),
            key: key.clone(),
            any_replica: false,
        };
        let get = |r| async { self.chains.clone().get_latest(r).await };
        let given = match self.call(request, get).await {
            Ok(answer) => answer.transaction,
            Err(ClientError::Rpc(failure))
                if failure.code == RpcCode::NotFound && failure.reason == "KEY_UNKNOWN" =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let given =
            given.ok_or_else(|| convert::bad("the transaction is missing in the answer"))?;
        let subject = Subject::Key(key.clone());
        self.checked(trusted, &subject, &given).await.map(Some)
    }

    /// What an account has after all that is injected, and the chain that it is in: of a chain that is split a subchain. By
    /// the node's word.
    pub async fn balance(
        &self,
        trusted: &Trusted,
        account: &str,
    ) -> Result<(u128, String), ClientError> {
        let request = proto::GetBalanceRequest {
            chain: trusted.name().to_owned(),
            account: account.to_owned(),
            any_replica: false,
        };
        let get = |r| async { self.chains.clone().get_balance(r).await };
        let answer = self.call(request, get).await?;
        let balance = answer.balance.parse();
        let balance =
            balance.map_err(|_| convert::bad("the balance in the answer is no number"))?;
        Ok((balance, answer.chain))
    }

    /// What an account has in the state of the trusted head, proved; none while that head is the genesis, and where a
    /// subchain has not taken the account over.
    pub async fn proven_balance(
        &self,
        trusted: &Trusted,
        account: &str,
    ) -> Result<Option<u128>, ClientError> {
        if trusted.header.height == 0 {
            return Ok(None);
        }
        let subject = Subject::Account(account.to_owned());
        let (_, verdict) = self.prove_state(trusted, &subject, None).await?;
        let value = verdict.state.and_then(|state| state.value);
        let mint = trusted.constitution.mint.as_ref();
        match value {
            Some(value) => Ok(Some(balance_amount(&value)?)),
            None if trusted.constitution.place.is_some() => Ok(None),
            None => Ok(mint.map(|mint| balance_at_first(mint, account.as_bytes()))),
        }
    }

    /// Proves what the state of the trusted head, or of the earlier one at height `at`, holds.
    pub async fn prove_state(
        &self,
        trusted: &Trusted,
        subject: &Subject,
        at: Option<u64>,
    ) -> Result<(Proof, Verdict), ClientError> {
        let height = at.unwrap_or(trusted.header.height);
        let request = proto::ProveStateRequest {
            chain: trusted.name().to_owned(),
            at_height: Some(height),
            without_payload: false,
            subject: Some(match subject {
                Subject::Key(key) => prove_state_request::Subject::Key(key.clone()),
                Subject::Account(account) => prove_state_request::Subject::Account(account.clone()),
            }),
        };
        let prove = |r| async { self.proofs.clone().prove_state(r).await };
        let answer = self.call(request, prove).await?;
        let proof = state_proof(answer)?;
        let verdict = verify_anchored(&proof, trusted, self.config.require)?;
        check_height(&verdict.head, height)?;
        let asked = verdict.state.as_ref().map(|state| &state.state_key);
        if asked != Some(&subject.state_key()) {
            let why = "the proof is about another key than was asked for";
            return Err(ClientError::refused("answer", why));
        }
        self.check_tied(trusted, &verdict.head).await?;
        Ok((proof, verdict))
    }

    /// A listed transaction, proved where the trusted head seals it.
    async fn checked(
        &self,
        trusted: &Trusted,
        subject: &Subject,
        given: &proto::Transaction,
    ) -> Result<ReadTransaction, ClientError> {
        let read = if given.index < trusted.sealed() {
            self.proven_transaction(trusted, given.index).await?
        } else {
            ReadTransaction::of(trusted, given, None)?
        };
        if subject.has(&read) {
            return Ok(read);
        }
        let why = format!("transaction {} is not of what was asked for", read.index);
        Err(ClientError::refused("answer", why))
    }
}

fn check_order(given: &[proto::Transaction], newest_first: bool) -> Result<(), ClientError> {
    let ordered = given.windows(2).all(|pair| {
        if newest_first {
            pair[0].index > pair[1].index
        } else {
            pair[0].index < pair[1].index
        }
    });
    if ordered {
        return Ok(());
    }
    let why = "the transactions of a history are not in the order asked for";
    Err(ClientError::refused("answer", why))
}

fn state_proof(answer: proto::ProveStateResponse) -> Result<Proof, ClientError> {
    let (_, meta) = convert::quant_bytes(answer.head.as_ref().and_then(|head| head.quant.clone()))?;
    let head = convert::head(answer.head)?;
    let (latest, steps) = match answer.latest {
        None => (None, Vec::new()),
        Some(latest) => {
            let (proof, _) = inclusion_proof(latest)?;
            match proof.claim {
                Claim::Inclusion(evidence) => (Some(evidence), proof.steps),
                _ => (None, Vec::new()),
            }
        }
    };
    let evidence = StateEvidence {
        header: head.bytes,
        meta,
        state_key: answer.state_key.to_vec(),
        proof: answer.proof.to_vec(),
        latest,
    };
    Ok(Proof {
        claim: Claim::State(evidence),
        steps,
        head: convert::head_evidence(head.signatures, answer.genesis)?,
        log: None,
    })
}
