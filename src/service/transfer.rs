//! Transfers between subchains of a ledger. What a subchain took for an account of another one waits in a row of its group;
//! the leader of that group has it sealed, shows it to the leader of the other one, and says in its own group that it is
//! credited. A credit applies once for each debit, so whoever comes after a crash does it again.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tonic::Status;

use super::{
    Service,
    below::names_above,
    catalog::Known,
    claim::shows_value,
    drive::Driven,
    route::{Method, Route},
    status::{invalid, of_read, of_rejection, of_store, status},
};
use crate::chain::{Credit, Debit, SplitEvidence, Transfer, credited_key, place_of, subchain_name};
use crate::consensus::Group;
use crate::engine::{Engine, Move, Reader, Rejection, SplitCommand};
use crate::store::{ChainNo, SubchainRow};

/// How long debits are gathered for one Quant.
const GATHER: Duration = Duration::from_millis(100);
/// Debits shown at once.
const CREDITS_AT_ONCE: usize = 64;
/// How long a credit may take before it is begun again.
const CREDIT_MAX: Duration = Duration::from_secs(10);

/// A debit for an account of the chain, or of a chain below it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreditBelow {
    #[prost(string, tag = "1")]
    chain: String,
    #[prost(bytes = "bytes", tag = "2")]
    debit: Bytes,
}

/// It is credited; or the chain is split, and this subchain of it has the account.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreditDone {
    #[prost(string, optional, tag = "1")]
    below: Option<String>,
}

/// Debits that wait.
struct Waiting {
    chain: String,
    /// Those that are sealed for good.
    ready: Vec<u64>,
    /// Some are in no Quant.
    pooled: bool,
}

/// A debit as it is shown, and where to.
struct Shown {
    debit: Debit,
    /// Of a chain that asks for no quorum the node signs itself.
    signed: bool,
    to: String,
}

impl Service {
    /// Brings debits of chains whose groups this node leads to the accounts that they are for, until `stop` says so.
    pub async fn drive_transfers(self, stop: watch::Receiver<bool>) {
        let driven = Driven {
            what: "a transfer",
            open: Engine::debits_open,
            step: |service, group, no| Box::pin(service.carry_some(group, no)),
        };
        driven.drive(self, stop).await;
    }

    /// Has debits sealed, or brings some that are; true where none is left.
    async fn carry_some(&self, group: &Group, no: ChainNo) -> Result<bool, Status> {
        let Some(waiting) = self.waiting(group, no)? else {
            return Ok(true);
        };
        let Waiting { chain, ready, .. } = waiting;
        if ready.is_empty() {
            sleep(GATHER).await;
            if waiting.pooled {
                self.seal_pool(group, no, CREDIT_MAX).await?;
            }
            return Ok(false);
        }
        let brought = ready.iter().map(|index| self.bring(&chain, *index));
        let brought = futures::future::join_all(brought).await;
        let (mut indexes, mut failed) = (Vec::new(), None);
        for (index, brought) in ready.iter().zip(brought) {
            match brought {
                Ok(()) => indexes.push(*index),
                Err(refused) => failed = Some(refused),
            }
        }
        if !indexes.is_empty() {
            self.reach("transfer-credited");
            let command = SplitCommand::SettleDebits { chain: no, indexes };
            self.step(group, &command).await?;
            self.reach("transfer-settled");
        }
        failed.map_or(Ok(false), Err)
    }

    /// The first debits of a chain that wait; none where there are none.
    fn waiting(&self, group: &Group, no: ChainNo) -> Result<Option<Waiting>, Status> {
        let reader = Reader::new(self.groups.store(), group.engine().slot());
        let debits = reader.debits(no, CREDITS_AT_ONCE);
        let debits = debits.map_err(|error| of_read(&error))?;
        let chain = reader.chain_no(no).map_err(|error| of_read(&error))?;
        let Some(chain) = chain.filter(|_| !debits.is_empty()) else {
            return Ok(None);
        };
        let reads = self.reads(&chain.name)?;
        let newest = reads.reader().quant(&reads.chain, reads.newest()?);
        let newest = newest.map_err(|error| of_read(&error))?;
        let newest = newest.parse().map_err(|error| of_store(&error))?;
        let sealed = chain.head.tx_end();
        Ok(Some(Waiting {
            chain: chain.name,
            pooled: debits.iter().any(|index| *index >= sealed),
            ready: debits
                .into_iter()
                .filter(|index| *index < newest.tx_end())
                .collect(),
        }))
    }

    /// Brings a debit to where it is credited.
    async fn bring(&self, chain: &str, index: u64) -> Result<(), Status> {
        let mut shown = self.shown(chain, index)?;
        if !shown.signed {
            shown.debit.signatures = self.sign(chain, &shown.debit.header).await?;
        }
        let mut request = CreditBelow {
            chain: shown.to,
            debit: shown.debit.to_bytes().into(),
        };
        loop {
            let until = Instant::now() + CREDIT_MAX;
            let route = Route {
                until,
                ..self.route(Method::CreditBelow, &request.chain, None)?
            };
            let done = self.at_leader(route, &request, move |service, request| {
                Box::pin(service.do_credit(request, until))
            });
            match done.await?.below {
                Some(below) => request.chain = below,
                None => return Ok(()),
            }
        }
    }

    fn shown(&self, chain: &str, index: u64) -> Result<Shown, Status> {
        let reads = self.reads(chain)?;
        let (reader, view) = (reads.reader(), &reads.chain);
        let one = reader
            .transaction(view, index)
            .map_err(|error| of_read(&error))?;
        let row = one.row().map_err(|error| of_store(&error))?;
        let transfer = transfer_of(row.payload)?;
        let quant = reader
            .height_of(view, index, view.head.height)
            .map_err(|error| of_read(&error))?;
        let header = quant.parse().map_err(|error| of_store(&error))?;
        let path = reader
            .tx_path(view, &header, index)
            .map_err(|error| of_read(&error))?;
        let sub = reader.subchain(view).map_err(|error| of_read(&error))?;
        let sub = sub.ok_or_else(|| damaged(chain, "it debits and is no subchain"))?;
        let receiver = transfer.receiver.as_bytes();
        let alg = reads.known.alg;
        let mut ways = sub
            .above
            .iter()
            .enumerate()
            .map(|(at, branch)| (at, branch, place_of(alg, &branch.id, receiver, branch.of)));
        let parted = ways.find(|(_, branch, place)| branch.place != *place);
        let (at, _, place) =
            parted.ok_or_else(|| damaged(chain, "it debits for an account of its own"))?;
        let signatures = reads.signatures(header.height)?;
        let debit = Debit {
            ways: self.split_quants(chain, &sub, at + 1)?,
            envelope: row.envelope(alg, view.chain_id, index),
            payload: row.payload.to_vec(),
            header,
            path,
            signatures: signatures.clone().unwrap_or_default(),
        };
        let names = names_above(chain, sub.above.len());
        Ok(Shown {
            debit,
            signed: signatures.is_some(),
            to: subchain_name(&names[at], place),
        })
    }

    /// The split Quants of the chains above from a level on, as the chain's first transactions have them, topmost first.
    fn split_quants(
        &self,
        chain: &str,
        sub: &SubchainRow,
        from: usize,
    ) -> Result<Vec<SplitEvidence>, Status> {
        let reads = self.reads(chain)?;
        let mut found = Vec::new();
        for level in from..sub.above.len() {
            let index = (sub.above.len() - 1 - level) as u64;
            let one = reads.reader().transaction(&reads.chain, index);
            let one = one.map_err(|error| of_read(&error))?;
            let row = one.row().map_err(|error| of_store(&error))?;
            let evidence = SplitEvidence::parse(row.payload);
            found.push(evidence.map_err(|refused| damaged(chain, &refused.to_string()))?);
        }
        Ok(found)
    }

    /// Credits a debit in a chain whose group this node leads. The signatures are verified here, as those of a split.
    pub(super) async fn do_credit(
        &self,
        request: &CreditBelow,
        until: Instant,
    ) -> Result<CreditDone, Status> {
        let known = self.known_at_leader(&request.chain).await?;
        let refused = |why: String| of_rejection(&Rejection::BadEvidence(why));
        let debit = Debit::parse(&request.debit);
        let debit = debit.map_err(|bad| refused(bad.to_string()))?;
        let transfer = transfer_of(&debit.payload)?;
        if self.is_split(&known)? {
            return self.credited_below(&known, &request.chain, &transfer);
        }
        tokio::task::block_in_place(|| debit.verify(&known.constitution))
            .map_err(|bad| refused(bad.to_string()))?;
        let key = credited_key(&debit.envelope.chain_id, debit.envelope.index);
        let proofs = self.proofs_above(&known, &[key], until).await?;
        let absent = proofs.into_iter().next().unwrap_or_default();
        if let Some(last) = absent.last()
            && shows_value(last)?
        {
            // A chain above credited it before it was split.
            return Ok(CreditDone::default());
        }
        let evidence = Credit { debit, absent }.to_bytes();
        let command = SplitCommand::Credit {
            chain: known.no,
            transfer: Move {
                sender: transfer.sender.as_bytes(),
                receiver: transfer.receiver.as_bytes(),
                amount: transfer.amount,
            },
            evidence: &evidence,
        };
        loop {
            match self.propose_step(&known, &command).await? {
                Ok(_) => return Ok(CreditDone::default()),
                Err(Rejection::Unclaimed { state_keys, .. }) => {
                    self.claim(&known, &state_keys, until).await?;
                }
                Err(Rejection::Split { .. }) => {
                    return self.credited_below(&known, &request.chain, &transfer);
                }
                Err(rejection) => return Err(of_rejection(&rejection)),
            }
        }
    }

    fn credited_below(
        &self,
        known: &Known,
        chain: &str,
        transfer: &Transfer,
    ) -> Result<CreditDone, Status> {
        let of = self
            .split_row(known)?
            .map_or(1, |row| row.children.len() as u32);
        let receiver = transfer.receiver.as_bytes();
        let place = place_of(known.alg, &known.chain_id, receiver, of);
        Ok(CreditDone {
            below: Some(subchain_name(chain, place)),
        })
    }
}

fn transfer_of(payload: &[u8]) -> Result<Transfer, Status> {
    Transfer::parse(payload).map_err(|error| invalid("debit", error.to_string()))
}

fn damaged(chain: &str, why: &str) -> Status {
    status("CHAIN_DAMAGED", format!("chain {chain}: {why}"), &[])
}
