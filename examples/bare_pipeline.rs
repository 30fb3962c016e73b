//! The limit that `docs/BENCHMARKS.md` measures against: gRPC, SHA3-256 tree, one RocksDB write, one fdatasync, answer.
//!
//! It has no Raft log, no chains, no ids, no proofs and one committer thread. It speaks `Inject` and `GetServerInfo` of
//! `qbc.v1`, so the load generator is the same: `qbc bench --load-only --endpoint http://127.0.0.1:PORT`.
//! Usage: `bare_pipeline PORT DIR`.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use qbc::{
    chain::{Hash, HashAlg},
    proto::{self, chain_service_server as chains, node_service_server as nodes},
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ALG: HashAlg = HashAlg::Sha3_256;
const TRANSACTIONS_PER_TURN: usize = 20_000;

struct Job {
    transactions: Vec<proto::TransactionInput>,
    answer: oneshot::Sender<u64>,
}

#[derive(Clone)]
struct Bare {
    jobs: mpsc::Sender<Job>,
    syncs: Arc<AtomicU64>,
}

/// An RFC 6962 tree that only grows: per level the left node that waits for its right one.
#[derive(Default)]
struct Growing {
    size: u64,
    waiting: Vec<Option<Hash>>,
}

impl Growing {
    fn extend(&mut self, mut level: Vec<Hash>) {
        self.size += level.len() as u64;
        for at in 0.. {
            if level.is_empty() {
                return;
            }
            if self.waiting.len() == at {
                self.waiting.push(None);
            }
            if let Some(left) = self.waiting[at].take() {
                level.insert(0, left);
            }
            if level.len() % 2 == 1 {
                self.waiting[at] = level.last().copied();
            }
            level = ALG.node_each(&level);
        }
    }

    fn root(&self) -> Hash {
        let mut peaks = self.waiting.iter().flatten();
        let first = peaks.next().copied().unwrap_or_else(|| ALG.empty());
        peaks.fold(first, |right, left| ALG.node(left, &right))
    }
}

fn commit(dir: &str, mut jobs: mpsc::Receiver<Job>, syncs: &AtomicU64) {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options.set_recycle_log_file_num(4);
    options.set_max_background_jobs(2);
    let db = rocksdb::DB::open(&options, dir).unwrap();
    let mut synced = rocksdb::WriteOptions::default();
    synced.set_sync(true);
    let mut tree = Growing::default();
    while let Some(first) = jobs.blocking_recv() {
        let mut count = first.transactions.len();
        let mut turn = vec![first];
        while count < TRANSACTIONS_PER_TURN {
            let Ok(job) = jobs.try_recv() else { break };
            count += job.transactions.len();
            turn.push(job);
        }
        let all = turn.iter().flat_map(|job| &job.transactions);
        let payloads: Vec<&[u8]> = all.map(|one| one.payload.as_ref()).collect();
        let leaves = ALG.leaf_each(&payloads);
        let (mut batch, mut row) = (rocksdb::WriteBatch::default(), Vec::new());
        for (index, (payload, leaf)) in (tree.size..).zip(payloads.iter().zip(&leaves)) {
            row.clear();
            row.extend_from_slice(leaf);
            row.extend_from_slice(payload);
            batch.put(index.to_be_bytes(), &row);
        }
        let mut index = tree.size;
        tree.extend(leaves);
        batch.put(b"root", tree.root());
        db.write_opt(batch, &synced).unwrap();
        syncs.fetch_add(1, Ordering::Relaxed);
        for job in turn {
            let _ = job.answer.send(index);
            index += job.transactions.len() as u64;
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Never<T> = tokio_stream::Pending<Result<T, Status>>;

fn absent<T>() -> Answer<T> {
    Err(Status::unimplemented(
        "the bare pipeline has Inject and GetServerInfo only",
    ))
}

#[tonic::async_trait]
impl chains::ChainService for Bare {
    type InjectStreamStream = Never<proto::InjectStreamResponse>;
    type ReadStream = Never<proto::ReadResponse>;
    type ExportStream = Never<proto::ExportResponse>;

    async fn inject(
        &self,
        request: Request<proto::InjectRequest>,
    ) -> Answer<proto::InjectResponse> {
        let request = request.into_inner();
        let count = request.transactions.len() as u32;
        let (answer, wait) = oneshot::channel();
        let job = Job {
            transactions: request.transactions,
            answer,
        };
        self.jobs
            .send(job)
            .await
            .map_err(|_| Status::unavailable("stopped"))?;
        let first_index = wait.await.map_err(|_| Status::internal("stopped"))?;
        let run = proto::InjectRun {
            erased: false,
            chain: request.chain,
            first_index,
            count,
            duplicate: false,
        };
        Ok(Response::new(proto::InjectResponse {
            runs: vec![run],
            receipts: vec![],
        }))
    }
    async fn bang(&self, _: Request<proto::BangRequest>) -> Answer<proto::BangResponse> {
        absent()
    }
    async fn batch_bang(
        &self,
        _: Request<proto::BatchBangRequest>,
    ) -> Answer<proto::BatchBangResponse> {
        absent()
    }
    async fn inject_stream(
        &self,
        _: Request<Streaming<proto::InjectStreamRequest>>,
    ) -> Answer<Self::InjectStreamStream> {
        absent()
    }
    async fn leap(&self, _: Request<proto::LeapRequest>) -> Answer<proto::LeapResponse> {
        absent()
    }
    async fn close(&self, _: Request<proto::CloseRequest>) -> Answer<proto::CloseResponse> {
        absent()
    }
    async fn split_chain(
        &self,
        _: Request<proto::SplitChainRequest>,
    ) -> Answer<proto::SplitChainResponse> {
        absent()
    }
    async fn get_chain(
        &self,
        _: Request<proto::GetChainRequest>,
    ) -> Answer<proto::GetChainResponse> {
        absent()
    }
    async fn list_chains(
        &self,
        _: Request<proto::ListChainsRequest>,
    ) -> Answer<proto::ListChainsResponse> {
        absent()
    }
    async fn get_quant(
        &self,
        _: Request<proto::GetQuantRequest>,
    ) -> Answer<proto::GetQuantResponse> {
        absent()
    }
    async fn list_quants(
        &self,
        _: Request<proto::ListQuantsRequest>,
    ) -> Answer<proto::ListQuantsResponse> {
        absent()
    }
    async fn get_transaction(
        &self,
        _: Request<proto::GetTransactionRequest>,
    ) -> Answer<proto::GetTransactionResponse> {
        absent()
    }
    async fn read(&self, _: Request<proto::ReadRequest>) -> Answer<Self::ReadStream> {
        absent()
    }
    async fn fork_chain(
        &self,
        _: Request<proto::ForkChainRequest>,
    ) -> Answer<proto::ForkChainResponse> {
        absent()
    }
    async fn list_history(
        &self,
        _: Request<proto::ListHistoryRequest>,
    ) -> Answer<proto::ListHistoryResponse> {
        absent()
    }
    async fn get_latest(
        &self,
        _: Request<proto::GetLatestRequest>,
    ) -> Answer<proto::GetLatestResponse> {
        absent()
    }
    async fn get_balance(
        &self,
        _: Request<proto::GetBalanceRequest>,
    ) -> Answer<proto::GetBalanceResponse> {
        absent()
    }
    async fn get_head(&self, _: Request<proto::GetHeadRequest>) -> Answer<proto::GetHeadResponse> {
        absent()
    }
    async fn export(&self, _: Request<proto::ExportRequest>) -> Answer<Self::ExportStream> {
        absent()
    }
}

#[tonic::async_trait]
impl nodes::NodeService for Bare {
    async fn get_server_info(
        &self,
        _: Request<proto::GetServerInfoRequest>,
    ) -> Answer<proto::GetServerInfoResponse> {
        let log_syncs = self.syncs.load(Ordering::Relaxed);
        Ok(Response::new(proto::GetServerInfoResponse {
            log_syncs,
            ..Default::default()
        }))
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, port, dir] = arguments.as_slice() else {
        panic!("usage: bare_pipeline PORT DIR")
    };
    let (jobs, queue) = mpsc::channel(4096);
    let bare = Bare {
        jobs,
        syncs: Arc::default(),
    };
    let (dir, syncs) = (dir.clone(), bare.syncs.clone());
    std::thread::spawn(move || commit(&dir, queue, &syncs));
    eprintln!("bare: listening on http://127.0.0.1:{port}");
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .add_service(chains::ChainServiceServer::new(bare.clone()))
        .add_service(nodes::NodeServiceServer::new(bare))
        .serve(([127, 0, 0, 1], port.parse().unwrap()).into())
        .await
        .unwrap();
}
