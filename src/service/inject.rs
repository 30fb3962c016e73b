//! Inject and InjectStream.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{
    Pieces, Service,
    catalog::Known,
    convert::{self, bytes32},
    edge::Deadline,
    ledger::{check_data_allowed, check_transfer},
    limits::{
        CHECKS_PER_LANE_MIN, INJECT_BATCH_MAX, PAYLOAD_BYTES_MAX, PIECES_WAITING, RECEIPT_BATCH_MAX,
    },
    route::{Method, Route, elsewhere},
    status::{invalid, of_content, of_read, of_rejection, of_transport, refused_field},
};
use crate::chain::{
    Attributes, ChainId, ConstitutionChange, Edit, Erasure, ID_BYTES_MAX, KEY_BYTES_MAX, Schema,
    TYPE_CONSTITUTION_CHANGE, TYPE_DATA, TYPE_ERASURE, TYPE_TRANSFER, Transfer, check_author_key,
    check_content, payload_hash, tree_root, verify_author,
};
use crate::engine::{
    CursorMove, InjectHead, InjectItem, Injected, Move, REQUEST_ID_BYTES_MAX, Rejection,
};
use crate::proto;
use crate::store::RequestRun;

impl Service {
    /// Injects on whichever node leads the chain's group.
    pub(super) async fn inject_at(
        &self,
        request: &proto::InjectRequest,
        deadline: Option<Deadline>,
    ) -> Result<proto::InjectResponse, Status> {
        let named = |one: &proto::TransactionInput| !one.id.is_empty();
        let route = Route {
            repeatable: !request.request_id.is_empty() || request.transactions.iter().all(named),
            ..self.route(Method::Inject, &request.chain, deadline)?
        };
        self.at_leader(route, request, |service, request| {
            service.do_inject(request, (route.until, false))
        })
        .await
    }

    /// A chain by name, on the node that leads its group: one that is unknown here may only be new.
    pub(super) async fn known_at_leader(&self, chain: &str) -> Result<Arc<Known>, Status> {
        match self.catalog.find(chain) {
            Err(status) if status.code() == Code::NotFound => {}
            found => return found,
        }
        let route = self.route(Method::GetChain, chain, None)?;
        let group = self.groups.get(route.group).ok_or_else(elsewhere)?;
        self.readable(&group, false, route.until).await?;
        self.still_of(&group, self.catalog.find(chain))
    }

    pub(super) async fn command(
        &self,
        known: &Known,
        request: &proto::InjectRequest,
    ) -> Result<Vec<u8>, Status> {
        check_request_id(&request.request_id)?;
        check_count(request)?;
        let head = InjectHead {
            chain: known.no,
            request_id: request.request_id.as_bytes(),
            expected_next_index: request.expected_next_index,
            expected_head: convert::optional_hash("expected_head", &request.expected_head)?,
        };
        let transactions = &request.transactions;
        let schema = self.catalog.schema(known)?;
        let check =
            |at: usize, one: &proto::TransactionInput| check(known, schema.as_deref(), at, one);
        let lanes = lanes(schema.is_some(), transactions);
        let checked = self.lanes.each(transactions, lanes, check).await?;
        let bytes = transactions
            .iter()
            .zip(&checked)
            .map(|(one, checked)| {
                one.payload.len() + checked.attributes.len() + one.id.len() + one.salt.len()
            })
            .sum();
        let items = transactions
            .iter()
            .zip(&checked)
            .map(|(one, checked)| InjectItem {
                kind: checked.kind,
                attributes: &checked.attributes,
                id: &one.id,
                salt: checked.salt.as_ref(),
                transfer: checked.transfer.as_ref().map(moved),
                payload: &one.payload,
            });
        let moves = self.cursor_moves("cursor_moves", &request.cursor_moves)?;
        Ok(head.encode_moving(items, bytes, &moves))
    }

    pub(super) fn injected(
        &self,
        known: &Known,
        request: &proto::InjectRequest,
        injected: &Injected,
    ) -> Result<proto::InjectResponse, Status> {
        let mut response = proto::InjectResponse::default();
        for run in &injected.runs {
            for (part, erased) in self.told(known, &request.chain, run)? {
                if request.receipt {
                    response.receipts.push(self.receipt(&request.chain, &part)?);
                }
                response.runs.push(proto::InjectRun {
                    chain: request.chain.clone(),
                    first_index: part.first,
                    count: part.count,
                    duplicate: part.duplicate,
                    erased,
                });
            }
        }
        Ok(response)
    }

    /// A run, in parts where only some of what it repeats is erased, and whether each part is.
    pub(super) fn told(
        &self,
        known: &Known,
        chain: &str,
        run: &RequestRun,
    ) -> Result<Vec<(RequestRun, bool)>, Status> {
        if !run.duplicate || !known.constitution.erasable {
            return Ok(vec![(*run, false)]);
        }
        let reads = self.reads(chain)?;
        let mut told: Vec<(RequestRun, bool)> = Vec::new();
        for first in run.first..run.first + u64::from(run.count) {
            let one = reads.reader().transaction(&reads.chain, first);
            let one = one.map_err(|error| of_read(&error))?;
            let row = one.row().map_err(|error| super::status::of_store(&error))?;
            match told.last_mut() {
                Some((part, erased)) if *erased == row.erased.is_some() => part.count += 1,
                _ => {
                    let part = RequestRun {
                        first,
                        count: 1,
                        duplicate: true,
                    };
                    told.push((part, row.erased.is_some()));
                }
            }
        }
        Ok(told)
    }

    /// Of a run that was answered.
    pub(super) fn do_get_receipt(&self, run: &proto::InjectRun) -> Result<proto::Receipt, Status> {
        let run_of = RequestRun {
            first: run.first_index,
            count: run.count,
            duplicate: run.duplicate,
        };
        self.receipt(&run.chain, &run_of)
    }

    fn receipt(&self, chain: &str, run: &RequestRun) -> Result<proto::Receipt, Status> {
        let (chain_id, root, inject_ms) =
            tokio::task::block_in_place(|| self.run_root(chain, run))?;
        let (receipt, signature) = self.signer.receipt(chain_id, run.first, run.count, root)?;
        Ok(proto::Receipt {
            cluster_id: receipt.cluster_id.to_vec().into(),
            node_id: receipt.node_id,
            chain_id: chain_id.0.to_vec().into(),
            first_index: run.first,
            count: run.count,
            root: root.to_vec().into(),
            time_s: receipt.time_s,
            inject_ms,
            signature: Some(convert::signature(&signature)),
        })
    }

    /// Root over the envelopes of a run, as stored.
    fn run_root(
        &self,
        chain: &str,
        run: &RequestRun,
    ) -> Result<(ChainId, crate::chain::Hash, Vec<u64>), Status> {
        let reads = self.reads(chain)?;
        let (mut leaves, mut inject_ms) = (Vec::new(), Vec::new());
        let end = run.first + u64::from(run.count);
        let all = reads
            .reader()
            .transactions(&reads.chain, run.first, end, usize::MAX)
            .map_err(|error| of_read(&error))?;
        for one in &all {
            let row = one.row().map_err(|error| super::status::of_store(&error))?;
            leaves.push(
                row.envelope(
                    reads.known.alg,
                    reads.chain.lineage.at_index(one.index).1,
                    one.index,
                )
                .leaf(reads.known.alg),
            );
            inject_ms.push(row.inject_ms);
        }
        Ok((
            reads.known.chain_id,
            tree_root(reads.known.alg, &leaves),
            inject_ms,
        ))
    }

    pub(super) fn do_inject_stream(
        &self,
        requests: Streaming<proto::InjectStreamRequest>,
        deadline: Option<Deadline>,
    ) -> Pieces<proto::InjectStreamResponse> {
        let (answers, out) = mpsc::channel(PIECES_WAITING);
        tokio::spawn(self.clone().inject_all(requests, deadline, answers));
        ReceiverStream::new(out)
    }

    /// One after the other: the order is the client's, and nothing after a failed message is tried.
    async fn inject_all(
        self,
        mut requests: Streaming<proto::InjectStreamRequest>,
        deadline: Option<Deadline>,
        answers: mpsc::Sender<Result<proto::InjectStreamResponse, Status>>,
    ) {
        while let Some(request) = requests.message().await.transpose() {
            let answer = match request.map(|request| request.inject) {
                Ok(Some(inject)) => self.inject_at(&inject, deadline).await,
                Ok(None) => Err(invalid(
                    "inject",
                    "it is missing; every message carries one",
                )),
                Err(made) => Err(of_transport(&made).unwrap_or(made)),
            };
            let failed = answer.is_err();
            let answer = answer.map(|inject| proto::InjectStreamResponse {
                inject: Some(inject),
            });
            if answers.send(answer).await.is_err() || failed {
                return;
            }
        }
    }
}

/// The command of an inject whose content nobody checks: to learn what a chain has of it.
pub(super) fn bare_command(
    known: &Known,
    request: &proto::InjectRequest,
    moves: &[CursorMove<'_>],
) -> Result<Vec<u8>, Status> {
    let head = InjectHead {
        chain: known.no,
        request_id: request.request_id.as_bytes(),
        expected_next_index: request.expected_next_index,
        expected_head: convert::optional_hash("expected_head", &request.expected_head)?,
    };
    let mut bare = Vec::new();
    for (at, one) in request.transactions.iter().enumerate() {
        check_length(at, "key", one.key.len(), KEY_BYTES_MAX)?;
        check_length(at, "id", one.id.len(), ID_BYTES_MAX)?;
        let salt: Option<[u8; 32]> = one.salt.as_ref().try_into().ok();
        bare.push((attributes(at, one)?.to_bytes(), salt));
    }
    let items = request.transactions.iter().zip(&bare);
    let items = items.map(|(one, (attributes, salt))| InjectItem {
        kind: u8::try_from(one.r#type).unwrap_or(u8::MAX),
        attributes,
        id: &one.id,
        salt: salt.as_ref(),
        transfer: None,
        payload: &one.payload,
    });
    Ok(head.encode_moving(items, 0, moves))
}

/// A request_id is 0 to 64 bytes of text.
pub(super) fn check_request_id(request_id: &str) -> Result<(), Status> {
    if request_id.len() > REQUEST_ID_BYTES_MAX {
        let why = format!(
            "it has {} bytes, give at most {REQUEST_ID_BYTES_MAX}",
            request_id.len()
        );
        return Err(invalid("request_id", why));
    }
    Ok(())
}

fn check_count(request: &proto::InjectRequest) -> Result<(), Status> {
    let count = request.transactions.len();
    let (limit, with) = if request.receipt {
        (RECEIPT_BATCH_MAX, " with a receipt")
    } else {
        (INJECT_BATCH_MAX, "")
    };
    if count == 0 || count > limit {
        let why = format!("there are {count}, give 1 to {limit}{with}");
        return Err(invalid("transactions", why));
    }
    Ok(())
}

/// How many cores the checks may use; none: at once on the thread that serves. What a schema takes to check is bounded, but
/// by what the chain's maker and the client sent.
fn lanes(schema: bool, transactions: &[proto::TransactionInput]) -> usize {
    if schema {
        return (transactions.len() / CHECKS_PER_LANE_MIN).max(1);
    }
    let signed = transactions.iter().filter(|one| !one.signature.is_empty());
    signed.count() / CHECKS_PER_LANE_MIN
}

/// A transaction as it was checked.
struct Checked {
    kind: u8,
    attributes: Vec<u8>,
    salt: Option<[u8; 32]>,
    transfer: Option<Transfer>,
}

/// What needs no state is checked here, by the leader before it proposes: a library upgrade must not make replicas differ.
/// A node that hands the request on checks nothing: each signature is verified once, by who proposes it.
fn check(
    known: &Known,
    schema: Option<&Schema>,
    at: usize,
    one: &proto::TransactionInput,
) -> Result<Checked, Status> {
    let (kind, transfer) = check_type(known, schema, at, one)?;
    check_length(at, "key", one.key.len(), KEY_BYTES_MAX)?;
    check_length(at, "id", one.id.len(), ID_BYTES_MAX)?;
    let salt = salt(known, (at, kind), one)?;
    let attributes = attributes(at, one)?;
    check_author(known, (at, kind), (one, salt.as_ref()), &attributes)?;
    Ok(Checked {
        kind,
        attributes: attributes.to_bytes(),
        salt,
        transfer,
    })
}

/// An erasable chain's data has a salt, and nothing else has one. Who injects chooses it: the signature of an author is over
/// it too, and what the node never knew of it nobody can ask it for.
fn salt(
    known: &Known,
    (at, kind): (usize, u8),
    one: &proto::TransactionInput,
) -> Result<Option<[u8; 32]>, Status> {
    let refused = |why: String| Err(invalid(&format!("transactions[{at}].salt"), why));
    if !known.constitution.erasable {
        return match one.salt.len() {
            0 => Ok(None),
            _ => refused("the chain is not erasable; leave the salt out".to_owned()),
        };
    }
    if kind != TYPE_DATA {
        return match one.salt.len() {
            0 => Ok(None),
            _ => refused("only data is salted; leave the salt out".to_owned()),
        };
    }
    match (one.salt.len(), one.salt.as_ref().try_into()) {
        (_, Ok(salt)) => Ok(Some(salt)),
        (0, _) => refused(format!(
            "it is missing: chain {} is erasable, so its data is hashed with a salt that is erased with it; give 32 random bytes of your own, new ones for each transaction, as qbc inject does",
            known.constitution.name
        )),
        (bytes, _) => refused(format!("it has {bytes} bytes, give 32 random ones")),
    }
}

/// The types that clients may write, and what the payload of each must be.
fn check_type(
    known: &Known,
    schema: Option<&Schema>,
    at: usize,
    one: &proto::TransactionInput,
) -> Result<(u8, Option<Transfer>), Status> {
    let field = || format!("transactions[{at}].type");
    let kind = u8::try_from(one.r#type).unwrap_or(u8::MAX);
    let mut transfer = None;
    match kind {
        TYPE_DATA => {
            check_data_allowed(known, at)?;
            check_data(known, schema, at, &one.payload)?;
        }
        TYPE_CONSTITUTION_CHANGE => check_change(at, &one.payload)?,
        TYPE_TRANSFER => {
            check_payload_length(known, at, &one.payload)?;
            transfer = Some(check_transfer(known, at, one)?);
        }
        TYPE_ERASURE => check_erasure(known, at, one)?,
        4 | 5 => {
            let why = format!("type {kind} is made by the nodes; give 0, 1, 2 or 3");
            return Err(invalid(&field(), why));
        }
        _ => {
            let why = format!(
                "{} is no type of docs/FORMAT.md; give 0, 1, 2 or 3",
                one.r#type
            );
            return Err(invalid(&field(), why));
        }
    }
    Ok((kind, transfer))
}

/// What the engine is told of a transfer: it reads no payload.
fn moved(transfer: &Transfer) -> Move<'_> {
    Move {
        sender: transfer.sender.as_bytes(),
        receiver: transfer.receiver.as_bytes(),
        amount: transfer.amount,
    }
}

/// A schema is for data: the payload of a transfer has a form of its own.
fn check_data(
    known: &Known,
    schema: Option<&Schema>,
    at: usize,
    payload: &[u8],
) -> Result<(), Status> {
    check_payload_length(known, at, payload)?;
    let checked = match schema {
        Some(schema) => schema.check(payload),
        None => check_content(known.constitution.content, payload),
    };
    checked.map_err(|error| of_content(at, &error))
}

fn check_payload_length(known: &Known, at: usize, payload: &[u8]) -> Result<(), Status> {
    let limit = known
        .constitution
        .payload_max
        .map_or(PAYLOAD_BYTES_MAX, |max| max as usize);
    check_length(at, "payload", payload.len(), limit)
}

fn check_change(at: usize, payload: &[u8]) -> Result<(), Status> {
    check_length(at, "payload", payload.len(), PAYLOAD_BYTES_MAX)?;
    let change = ConstitutionChange::parse(payload).and_then(|change| {
        if let Edit::Put(keys) = &change.authors {
            keys.iter().try_for_each(check_author_key)?;
        }
        Ok(())
    });
    change.map_err(|refused| {
        let why = format!(
            "{refused}; make it of the records 7, 9, 10 and 11 of docs/FORMAT.md, as qbc amend does"
        );
        refused_field(
            "CHANGE_REFUSED",
            &format!("transactions[{at}].payload"),
            why,
        )
    })
}

/// What it names is the engine's to look at.
fn check_erasure(known: &Known, at: usize, one: &proto::TransactionInput) -> Result<(), Status> {
    if !known.constitution.erasable {
        let chain = known.constitution.name.clone();
        let rejection = Rejection::NotErasable { item: at, chain };
        return Err(of_rejection(&rejection));
    }
    if !one.key.is_empty() {
        let why = "an erasure has no key: it names what it erases; leave the key out";
        return Err(invalid(&format!("transactions[{at}].key"), why));
    }
    let parsed = Erasure::parse(&one.payload);
    parsed.map(drop).map_err(|refused| {
        let why = format!(
            "{refused}; make it of index, H(envelope) and reason as docs/FORMAT.md says, as qbc erase does"
        );
        refused_field("ERASURE_REFUSED", &format!("transactions[{at}].payload"), why)
    })
}

fn check_length(at: usize, field: &str, length: usize, limit: usize) -> Result<(), Status> {
    if length <= limit {
        return Ok(());
    }
    let cure = if field == "payload" {
        "divide it, or store it elsewhere and inject its hash"
    } else {
        "shorten it"
    };
    Err(invalid(
        &format!("transactions[{at}].{field}"),
        format!("it has {length} bytes, the limit is {limit}; {cure}"),
    ))
}

fn attributes(at: usize, one: &proto::TransactionInput) -> Result<Attributes, Status> {
    let some = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
    let author = if one.author.is_empty() {
        None
    } else {
        Some(bytes32(&format!("transactions[{at}].author"), &one.author)?)
    };
    let signature = if one.signature.is_empty() {
        None
    } else {
        Some(signature(at, &one.signature)?)
    };
    if author.is_some() != signature.is_some() {
        return Err(invalid(
            &format!("transactions[{at}].signature"),
            "author and signature go together; give both or none",
        ));
    }
    Ok(Attributes {
        key: some(&one.key),
        id: some(&one.id),
        author,
        signature,
    })
}

fn signature(at: usize, bytes: &[u8]) -> Result<[u8; 64], Status> {
    bytes.try_into().map_err(|_| {
        invalid(
            &format!("transactions[{at}].signature"),
            format!("it has {} bytes, give 64 or none", bytes.len()),
        )
    })
}

/// In an open chain a signature is the author's own choice; a wrong one is refused all the same. Whether the chain takes
/// this author's transactions now is the engine's to decide: admins may have changed it.
fn check_author(
    known: &Known,
    (at, kind): (usize, u8),
    (one, salt): (&proto::TransactionInput, Option<&[u8; 32]>),
    attributes: &Attributes,
) -> Result<(), Status> {
    let (Some(author), Some(signature)) = (&attributes.author, &attributes.signature) else {
        return Ok(());
    };
    let family = known.constitution.family_id.unwrap_or(known.chain_id);
    let hash = payload_hash(known.alg, &one.payload, salt);
    verify_author(
        &family,
        kind,
        u8::from(salt.is_some()),
        attributes.key.as_deref(),
        attributes.id.as_deref(),
        &hash,
        author,
        signature,
    )
    .map_err(|refused| {
        refused_field(
            "SIGNATURE_INVALID",
            &format!("transactions[{at}].signature"),
            format!(
                "{refused}; sign the message qbc/tx/v1 of docs/FORMAT.md over just these: a signature for another chain, type, key or id does not serve here"
            ),
        )
    })
}
