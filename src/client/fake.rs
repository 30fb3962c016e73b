//! A node for tests: one chain in memory, signed with real keys, so that its lies are signed too.
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    chain::{
        Authority, Birth, Certificate, ChainId, Constitution, Frontier, Hash, HashAlg,
        HeadSignature, Header, LeafReader, Meta, NodeKey, Receipt, SigAlg, SigningKey,
        genesis_header, head_message, inclusion_path, tree_root,
    },
    client::convert,
    proto::{
        self, chain_service_server::ChainService, chain_service_server::ChainServiceServer,
        proof_service_server::ProofService, proof_service_server::ProofServiceServer,
    },
};

const ALG: HashAlg = HashAlg::Sha3_256;
const CLUSTER: [u8; 16] = [7; 16];
const TIME_S: u64 = 1000;

type Answer<T> = Result<Response<T>, Status>;
type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The node; clones share the chain.
#[derive(Clone)]
pub(crate) struct FakeNode(Arc<Mutex<FakeChain>>);

/// Its chain, open to every change.
#[derive(Clone)]
pub(crate) struct FakeChain {
    pub(crate) root: SigningKey,
    pub(crate) node: NodeKey,
    /// Heads are signed by nodes 1 to this one; the key of the first is `node`.
    pub(crate) signers: u8,
    pub(crate) headers: Vec<Header>,
    metas: Vec<Vec<u8>>,
    /// Sealed and pooled.
    pub(crate) transactions: Vec<proto::Transaction>,
    /// The stream of injects breaks after this many more acknowledgements, the work of the next message done.
    pub(crate) break_after: Option<usize>,
    requests: HashMap<String, u64>,
}

impl FakeNode {
    /// Listens on a free port.
    pub(crate) async fn start(chain: FakeChain) -> (Self, String) {
        let node = Self(Arc::new(Mutex::new(chain)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder()
            .add_service(ChainServiceServer::new(node.clone()))
            .add_service(ProofServiceServer::new(node.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (node, endpoint)
    }

    pub(crate) fn chain(&self) -> MutexGuard<'_, FakeChain> {
        self.0.lock().unwrap()
    }
}

impl FakeChain {
    pub(crate) fn new(name: &str) -> Self {
        Self::of_quorum(name, None)
    }

    pub(crate) fn of_quorum(name: &str, quorum: Option<u8>) -> Self {
        let (root, node) = (
            SigningKey::from_seed([1; 32]),
            NodeKey::from_seed(SigAlg::Ed25519, [2; 32]),
        );
        let constitution = Constitution {
            quorum,
            ..Constitution::from(Birth {
                name: name.to_owned(),
                created_ms: 1,
                salt: [3; 16],
                authority: Authority {
                    threshold: 1,
                    roots: vec![root.public()],
                },
                cluster_id: CLUSTER,
            })
        };
        let meta = Meta {
            constitution: Some(constitution.to_bytes()),
            ..Meta::default()
        };
        let meta = meta.to_bytes();
        Self {
            root,
            node,
            signers: 1,
            headers: vec![genesis_header(ALG, 1, 0, &meta)],
            metas: vec![meta],
            transactions: Vec::new(),
            break_after: None,
            requests: HashMap::new(),
        }
    }

    pub(crate) fn id(&self) -> ChainId {
        self.headers[0].id()
    }

    pub(crate) fn top(&self) -> &Header {
        self.headers.last().unwrap()
    }

    pub(crate) fn inject(&mut self, payload: &str) {
        self.transactions.push(proto::Transaction {
            index: self.transactions.len() as u64,
            inject_ms: 10,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            ..Default::default()
        });
    }

    /// Seals the pool.
    pub(crate) fn leap(&mut self) {
        let previous = self.top().clone();
        let start = previous.tx_end() as usize;
        let leaves = self.leaves(start, self.transactions.len());
        let height = previous.height + 1;
        for transaction in &mut self.transactions[start..] {
            transaction.height = Some(height);
            transaction.proven = true;
        }
        self.headers.push(Header {
            genesis: false,
            chain_id: self.id(),
            height,
            time_ms: previous.time_ms + 100,
            tx_start: start as u64,
            tx_count: leaves.len() as u32,
            meta_len: 0,
            prev_hash: previous.hash(),
            tx_root: tree_root(ALG, &leaves),
            hist_root: tree_root(ALG, &self.history(self.headers.len())),
            meta_hash: ALG.hash(&[]),
            ..previous
        });
        self.metas.push(Vec::new());
    }

    /// The same chain from its genesis on, with nothing in it.
    pub(crate) fn forget(&mut self) {
        self.headers.truncate(1);
        self.metas.truncate(1);
        self.transactions.clear();
    }

    fn leaves(&self, start: usize, end: usize) -> Vec<Hash> {
        let transactions = &self.transactions[start..end];
        let leaf = |t| convert::envelope(ALG, self.id(), t).unwrap().leaf(ALG);
        transactions.iter().map(leaf).collect()
    }

    fn history(&self, height: usize) -> Vec<Hash> {
        self.headers[..height].iter().map(Header::hash).collect()
    }

    fn history_path(&self, from: u64, to: u64) -> Vec<Bytes> {
        path(&self.history(to as usize), from)
    }

    fn quant(&self, height: u64) -> Result<proto::Quant, Status> {
        let header = self.headers.get(height as usize);
        let header = header.ok_or_else(|| Status::not_found("no such height"))?;
        Ok(proto::Quant {
            header: header.to_bytes().to_vec().into(),
            meta: self.metas[height as usize].clone().into(),
            height,
            ..Default::default()
        })
    }

    fn head(&self, height: u64) -> Result<proto::Head, Status> {
        let quant = self.quant(height)?;
        let header = &self.headers[height as usize];
        let signed = (1..=self.signers).map(|node| {
            let message = head_message(&CLUSTER, u64::from(node), TIME_S, header);
            self.sign(node, &message)
        });
        Ok(proto::Head {
            quant: Some(quant),
            signatures: signed.collect(),
            quorum: 1,
        })
    }

    fn sign(&self, node: u8, message: &[u8]) -> proto::HeadSignature {
        let key = match node {
            1 => self.node.clone(),
            other => NodeKey::from_seed(SigAlg::Ed25519, [100 + other; 32]),
        };
        let mut certificate = Certificate {
            cluster_id: CLUSTER,
            node_id: u64::from(node),
            alg: key.alg() as u8,
            public_key: key.public(),
            not_before_s: 0,
            not_after_s: u64::MAX,
            signatures: Vec::new(),
        };
        let root = self.root.sign(&certificate.message());
        certificate.signatures.push((0, root));
        let signed = HeadSignature {
            alg: key.alg() as u8,
            key_id: certificate.key_id(),
            time_s: TIME_S,
            signature: key.sign(message),
            certificate,
        };
        proto::HeadSignature {
            node_id: u64::from(node),
            alg: u32::from(signed.alg),
            key_id: signed.key_id.to_vec().into(),
            time_s: TIME_S,
            signature: signed.signature.into(),
            certificate: signed.certificate.to_bytes().into(),
        }
    }

    fn receipt(&self, first_index: u64, count: u32) -> proto::Receipt {
        let (start, end) = (first_index as usize, first_index as usize + count as usize);
        let receipt = Receipt {
            cluster_id: CLUSTER,
            node_id: 1,
            chain_id: self.id(),
            first_index,
            count,
            root: tree_root(ALG, &self.leaves(start, end)),
            time_s: TIME_S,
        };
        proto::Receipt {
            cluster_id: CLUSTER.to_vec().into(),
            node_id: 1,
            chain_id: self.id().0.to_vec().into(),
            first_index,
            count,
            root: receipt.root.to_vec().into(),
            time_s: TIME_S,
            inject_ms: self.transactions[start..end]
                .iter()
                .map(|t| t.inject_ms)
                .collect(),
            signature: Some(self.sign(1, &receipt.message())),
        }
    }

    /// One inject, known by its request id.
    fn accept(&mut self, request: &proto::InjectRequest) -> proto::InjectResponse {
        let next = self.transactions.len() as u64;
        let known = self.requests.get(&request.request_id).copied();
        if known.is_none() {
            for item in &request.transactions {
                self.inject(std::str::from_utf8(&item.payload).unwrap());
            }
            self.requests.insert(request.request_id.clone(), next);
        }
        let (first_index, count) = (known.unwrap_or(next), request.transactions.len() as u32);
        let run = proto::InjectRun {
            erased: false,
            chain: request.chain.clone(),
            first_index,
            count,
            duplicate: known.is_some(),
        };
        let receipts = request.receipt.then(|| self.receipt(first_index, count));
        proto::InjectResponse {
            runs: vec![run],
            receipts: receipts.into_iter().collect(),
        }
    }

    /// Whether the stream is to break now.
    fn breaks(&mut self) -> bool {
        match self.break_after {
            Some(0) => {
                self.break_after = None;
                true
            }
            Some(left) => {
                self.break_after = Some(left - 1);
                false
            }
            None => false,
        }
    }
}

#[tonic::async_trait]
impl ChainService for FakeNode {
    type InjectStreamStream = Pieces<proto::InjectStreamResponse>;
    type ReadStream = Pieces<proto::ReadResponse>;
    type ExportStream = Pieces<proto::ExportResponse>;

    async fn fork_chain(
        &self,
        _: Request<proto::ForkChainRequest>,
    ) -> Answer<proto::ForkChainResponse> {
        Err(Status::unimplemented("this node forks nothing"))
    }

    async fn split_chain(
        &self,
        _: Request<proto::SplitChainRequest>,
    ) -> Answer<proto::SplitChainResponse> {
        Err(absent())
    }

    async fn list_history(
        &self,
        _: Request<proto::ListHistoryRequest>,
    ) -> Answer<proto::ListHistoryResponse> {
        Err(Status::unimplemented("this node keeps no keys"))
    }

    async fn get_latest(
        &self,
        _: Request<proto::GetLatestRequest>,
    ) -> Answer<proto::GetLatestResponse> {
        Err(Status::unimplemented("this node keeps no keys"))
    }

    async fn get_balance(
        &self,
        _: Request<proto::GetBalanceRequest>,
    ) -> Answer<proto::GetBalanceResponse> {
        Err(Status::unimplemented("this node keeps no keys"))
    }

    async fn get_head(&self, _: Request<proto::GetHeadRequest>) -> Answer<proto::GetHeadResponse> {
        let chain = self.chain();
        let head = chain.head(chain.top().height)?;
        Ok(Response::new(proto::GetHeadResponse {
            head: Some(head),
            pending: None,
        }))
    }

    async fn get_quant(
        &self,
        r: Request<proto::GetQuantRequest>,
    ) -> Answer<proto::GetQuantResponse> {
        let (chain, r) = (self.chain(), r.into_inner());
        let path = match r.at_height {
            Some(at) if at > chain.top().height => return Err(Status::not_found("no such height")),
            Some(at) => chain.history_path(r.height, at),
            None => Vec::new(),
        };
        let quant = Some(chain.quant(r.height)?);
        Ok(Response::new(proto::GetQuantResponse {
            quant,
            path,
            head_height: 0,
        }))
    }

    async fn list_quants(
        &self,
        r: Request<proto::ListQuantsRequest>,
    ) -> Answer<proto::ListQuantsResponse> {
        let (chain, from) = (self.chain(), r.into_inner().from_height);
        let quants = (from..=chain.top().height)
            .take(2)
            .map(|height| chain.quant(height));
        Ok(Response::new(proto::ListQuantsResponse {
            head_height: 0,
            quants: quants.collect::<Result<_, _>>()?,
            next_page_token: String::new(),
        }))
    }

    async fn get_transaction(
        &self,
        r: Request<proto::GetTransactionRequest>,
    ) -> Answer<proto::GetTransactionResponse> {
        let transaction = self
            .chain()
            .transactions
            .get(r.into_inner().index as usize)
            .cloned();
        let transaction = Some(transaction.ok_or_else(|| Status::not_found("no such index"))?);
        Ok(Response::new(proto::GetTransactionResponse {
            transaction,
            head_height: 0,
        }))
    }

    async fn read(&self, r: Request<proto::ReadRequest>) -> Answer<Self::ReadStream> {
        let (chain, r) = (self.chain(), r.into_inner());
        let limit = if r.limit == 0 {
            usize::MAX
        } else {
            r.limit as usize
        };
        let wanted = chain
            .transactions
            .iter()
            .skip(r.from_index as usize)
            .take(limit);
        let pages: Vec<_> = wanted
            .cloned()
            .collect::<Vec<_>>()
            .chunks(3)
            .map(|page| {
                Ok(proto::ReadResponse {
                    run: page.to_vec().into(),
                    head_height: 0,
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pages))))
    }

    async fn inject_stream(
        &self,
        r: Request<Streaming<proto::InjectStreamRequest>>,
    ) -> Answer<Self::InjectStreamStream> {
        let (node, mut requests) = (self.clone(), r.into_inner());
        let (answers, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let (answer, breaks) = {
                    let mut chain = node.chain();
                    let answer = chain.accept(&request.inject.unwrap());
                    (answer, chain.breaks())
                };
                let answer = if breaks {
                    Err(Status::unavailable("the line is cut"))
                } else {
                    Ok(proto::InjectStreamResponse {
                        inject: Some(answer),
                    })
                };
                if answers.send(answer).await.is_err() || breaks {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn bang(&self, _: Request<proto::BangRequest>) -> Answer<proto::BangResponse> {
        Err(absent())
    }
    async fn batch_bang(
        &self,
        _: Request<proto::BatchBangRequest>,
    ) -> Answer<proto::BatchBangResponse> {
        Err(absent())
    }
    async fn inject(&self, _: Request<proto::InjectRequest>) -> Answer<proto::InjectResponse> {
        Err(absent())
    }
    async fn leap(&self, _: Request<proto::LeapRequest>) -> Answer<proto::LeapResponse> {
        Err(absent())
    }
    async fn close(&self, _: Request<proto::CloseRequest>) -> Answer<proto::CloseResponse> {
        Err(absent())
    }
    async fn get_chain(
        &self,
        r: Request<proto::GetChainRequest>,
    ) -> Answer<proto::GetChainResponse> {
        // All that is asked for in these tests is that it is not split.
        let chain = proto::Chain {
            name: r.into_inner().chain,
            chain_id: self.chain().id().0.to_vec().into(),
            ..proto::Chain::default()
        };
        Ok(Response::new(proto::GetChainResponse {
            chain: Some(chain),
        }))
    }
    async fn list_chains(
        &self,
        _: Request<proto::ListChainsRequest>,
    ) -> Answer<proto::ListChainsResponse> {
        Err(absent())
    }
    async fn export(&self, _: Request<proto::ExportRequest>) -> Answer<Self::ExportStream> {
        Err(absent())
    }
}

#[tonic::async_trait]
impl ProofService for FakeNode {
    async fn prove_inclusion(
        &self,
        r: Request<proto::ProveInclusionRequest>,
    ) -> Answer<proto::ProveInclusionResponse> {
        let (chain, r) = (self.chain(), r.into_inner());
        let at = r.at_height.unwrap_or(chain.top().height);
        let given = chain.transactions[r.index as usize].clone();
        let sealing = given
            .height
            .ok_or_else(|| Status::failed_precondition("not sealed"))?;
        let header = &chain.headers[sealing as usize];
        let leaves = chain.leaves(header.tx_start as usize, header.tx_end() as usize);
        let envelope = convert::envelope(ALG, chain.id(), &given).unwrap();
        let history = if sealing == at {
            Vec::new()
        } else {
            chain.history_path(sealing, at)
        };
        Ok(Response::new(proto::ProveInclusionResponse {
            envelope: envelope.to_bytes().to_vec().into(),
            attributes: given.attributes,
            payload: Some(given.payload),
            erasure: None,
            borders: Vec::new(),
            salt: Bytes::new(),
            tx_path: path(&leaves, r.index - header.tx_start),
            header: header.to_bytes().to_vec().into(),
            history_path: history,
            head: Some(chain.head(at)?),
            genesis: Some(chain.quant(0)?),
        }))
    }

    async fn prove_extension(
        &self,
        r: Request<proto::ProveExtensionRequest>,
    ) -> Answer<proto::ProveExtensionResponse> {
        let (chain, r) = (self.chain(), r.into_inner());
        let to = r.to_height.unwrap_or(chain.top().height);
        Ok(Response::new(proto::ProveExtensionResponse {
            old_header: chain.quant(r.from_height)?.header,
            path: chain.history_path(r.from_height, to),
            head: Some(chain.head(to)?),
            genesis: Some(chain.quant(0)?),
        }))
    }

    async fn prove_state(
        &self,
        _: Request<proto::ProveStateRequest>,
    ) -> Answer<proto::ProveStateResponse> {
        Err(Status::unimplemented("this node keeps no keys"))
    }

    async fn get_checkpoint(
        &self,
        _: Request<proto::GetCheckpointRequest>,
    ) -> Answer<proto::GetCheckpointResponse> {
        Err(Status::unimplemented(
            "this node keeps no log of all chains",
        ))
    }

    async fn prove_logged(
        &self,
        _: Request<proto::ProveLoggedRequest>,
    ) -> Answer<proto::ProveLoggedResponse> {
        Err(Status::unimplemented(
            "this node keeps no log of all chains",
        ))
    }

    async fn prove_anchor(
        &self,
        _: Request<proto::ProveAnchorRequest>,
    ) -> Answer<proto::ProveAnchorResponse> {
        Err(Status::unimplemented("this node's chain is not split"))
    }

    async fn get_bundle(
        &self,
        _: Request<proto::GetBundleRequest>,
    ) -> Answer<proto::GetBundleResponse> {
        let chain = self.chain();
        let height = chain.top().height;
        let mut frontier = Frontier::new();
        for leaf in chain.history(height as usize) {
            frontier.push(ALG, leaf);
        }
        Ok(Response::new(proto::GetBundleResponse {
            head: Some(chain.head(height)?),
            peaks: frontier
                .peaks()
                .iter()
                .map(|peak| peak.to_vec().into())
                .collect(),
            genesis: Some(chain.quant(0)?),
            borders: Vec::new(),
            authority_changes: Vec::new(),
        }))
    }
}

fn path(leaves: &[Hash], index: u64) -> Vec<Bytes> {
    let reader = LeafReader { alg: ALG, leaves };
    let path = inclusion_path(ALG, &reader, index, leaves.len() as u64).unwrap();
    path.iter().map(|node| node.to_vec().into()).collect()
}

fn absent() -> Status {
    Status::unimplemented("not in this fake")
}
