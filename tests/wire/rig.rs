//! A node with a client, and the question that every story asks: which error exactly, and is all still there?
use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use qbc::proto::{
    BangRequest, BangResponse, Constitution, GetChainRequest, InjectRequest, InjectResponse,
    LeapRequest, ReadRequest, TransactionInput, chain_service_client::ChainServiceClient,
    constitution::Content, node_service_client::NodeServiceClient,
    proof_service_client::ProofServiceClient,
};
use tempfile::TempDir;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use crate::process::{Launch, Node};

pub type Chains = ChainServiceClient<Channel>;

/// No call of these stories may take longer, on a busy machine.
const CALL_MAX: Duration = Duration::from_secs(30);
const DOMAIN: &str = "qbc";
/// More than any message of these tests.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A node on a folder of its own.
pub struct Rig {
    node: Option<Node>,
    pub folder: TempDir,
    channel: Channel,
    pub chains: Chains,
}

impl Rig {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = Node::start(&folder.path().join("data"));
        let channel = channel(node.url()).await;
        Self {
            node: Some(node),
            folder,
            chains: chains(&channel),
            channel,
        }
    }

    /// A node with one chain of bytes.
    pub async fn with_chain(name: &str) -> Self {
        let mut rig = Self::start().await;
        rig.bang(name, Content::Bytes).await;
        rig
    }

    /// Stops the node as an operator would, and starts it on the same folder.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Starts the node that was stopped on the same folder.
    pub async fn start_again(&mut self) {
        let node = Launch::new(&self.data()).start();
        self.channel = channel(node.url()).await;
        self.chains = chains(&self.channel);
        self.node = Some(node);
    }

    /// The same, where its clients look for it.
    pub async fn start_at(&mut self, address: std::net::SocketAddr) {
        let node = Launch::new(&self.data()).at(address).start();
        self.channel = channel(node.url()).await;
        self.chains = chains(&self.channel);
        self.node = Some(node);
    }

    /// Kills the node and starts it on the same folder.
    pub async fn kill_and_restart(&mut self) {
        let node = self.node.take().expect("a node runs");
        node.kill9();
        let node = Launch::new(&self.data()).start();
        self.channel = channel(node.url()).await;
        self.chains = chains(&self.channel);
        self.node = Some(node);
    }

    /// SIGTERM; it must end well. The client's side goes on meanwhile, as a client's does.
    pub async fn stop(&mut self) {
        let node = self.node.take().expect("a node runs");
        let stopped = tokio::task::spawn_blocking(move || node.sigterm()).await;
        let stopped = stopped.expect("no panic while waiting");
        assert_eq!(stopped.code, Some(0), "{stopped}");
        assert!(!stopped.stderr.contains("panicked at"), "{stopped}");
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("a node runs")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub fn proofs(&self) -> ProofServiceClient<Channel> {
        ProofServiceClient::new(self.channel.clone())
    }

    /// Memory of the node that is in RAM.
    pub async fn resident_bytes(&self) -> u64 {
        let mut nodes = NodeServiceClient::new(self.channel.clone());
        let info = nodes.get_server_info(qbc::proto::GetServerInfoRequest {});
        info.await
            .expect("the node is up")
            .into_inner()
            .resident_bytes
    }

    pub async fn bang(&mut self, name: &str, content: Content) -> BangResponse {
        let request = bang_request(name, content, "");
        let answer = self.chains.bang(request).await;
        answer.expect("the chain is new").into_inner()
    }

    /// Injects payloads without ids.
    pub async fn inject(&mut self, chain: &str, payloads: &[&[u8]]) -> InjectResponse {
        let answer = self.chains.inject(inject_request(chain, payloads)).await;
        answer.expect("the payloads are good").into_inner()
    }

    pub async fn leap(&mut self, chain: &str) -> u64 {
        let request = LeapRequest {
            chain: chain.to_owned(),
            ..LeapRequest::default()
        };
        let answer = self.chains.leap(request).await;
        let head = answer
            .expect("there is something to seal")
            .into_inner()
            .head;
        head.and_then(|head| head.quant).expect("a head").height
    }

    /// How many transactions a chain has.
    pub async fn count(&mut self, chain: &str) -> u64 {
        self.chain(chain).await.transactions
    }

    pub async fn chain(&mut self, chain: &str) -> qbc::proto::Chain {
        let request = GetChainRequest {
            any_replica: false,
            chain: chain.to_owned(),
        };
        let answer = self.chains.get_chain(request).await;
        answer
            .expect("the chain is there")
            .into_inner()
            .chain
            .expect("a chain")
    }

    /// All payloads of a chain, in order.
    pub async fn payloads(&mut self, chain: &str) -> Vec<Bytes> {
        let request = ReadRequest {
            chain: chain.to_owned(),
            ..ReadRequest::default()
        };
        let answer = self.chains.read(request).await;
        let mut stream = answer.expect("the chain is there").into_inner();
        let mut payloads = Vec::new();
        while let Some(piece) = stream.message().await.expect("the chain can be read") {
            let all = piece.run.transactions().expect("a run that can be read");
            payloads.extend(all.into_iter().map(|one| one.payload));
        }
        payloads
    }

    /// The node still does its work: one more inject is acknowledged and read back.
    pub async fn serves(&mut self, chain: &str) {
        let before = self.count(chain).await;
        let answer = self.inject(chain, &[b"still here"]).await;
        assert_eq!(answer.runs[0].first_index, before);
        assert_eq!(self.count(chain).await, before + 1);
        let last = self.payloads(chain).await.pop();
        assert_eq!(last.as_deref(), Some(&b"still here"[..]));
    }
}

/// Asserts that a call was refused for this reason, with this code, in words that hold all of `parts`.
#[track_caller]
pub fn refused<T>(
    answer: Result<T, Status>,
    (reason, code): (&str, Code),
    parts: &[&str],
) -> Status {
    let status = answer
        .err()
        .unwrap_or_else(|| panic!("{reason} was expected, all went well"));
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("{reason} was expected, there is no ErrorInfo: {status:?}"));
    assert_eq!(info.reason, reason, "{status:?}");
    assert_eq!(info.domain, DOMAIN, "{status:?}");
    assert_eq!(status.code(), code, "{status:?}");
    for part in parts {
        assert!(
            status.message().contains(part),
            "{part:?} is not in: {status:?}"
        );
    }
    status
}

/// One fact of an error for programs.
#[track_caller]
pub fn fact(status: &Status, name: &str) -> String {
    let info = status.get_details_error_info().expect("an ErrorInfo");
    let value = info.metadata.get(name);
    value
        .unwrap_or_else(|| panic!("no {name} in {info:?}"))
        .clone()
}

/// Asserts that a field is named for programs too.
#[track_caller]
pub fn names_field(status: &Status, field: &str) {
    let bad = status
        .get_details_bad_request()
        .expect("a BadRequest detail");
    assert_eq!(bad.field_violations[0].field, field, "{status:?}");
    assert_eq!(fact(status, "field"), field);
}

pub fn bang_request(name: &str, content: Content, request_id: &str) -> BangRequest {
    let constitution = Constitution {
        content: content.into(),
        ..Constitution::default()
    };
    BangRequest {
        name: name.to_owned(),
        constitution: Some(constitution),
        request_id: request_id.to_owned(),
    }
}

pub fn inject_request(chain: &str, payloads: &[&[u8]]) -> InjectRequest {
    let items = payloads.iter().map(|payload| TransactionInput {
        payload: Bytes::copy_from_slice(payload),
        ..TransactionInput::default()
    });
    InjectRequest {
        chain: chain.to_owned(),
        transactions: items.collect(),
        ..InjectRequest::default()
    }
}

pub async fn channel(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("the node prints a url");
    endpoint
        .timeout(CALL_MAX)
        .connect()
        .await
        .expect("the node accepts connections")
}

pub fn chains(channel: &Channel) -> Chains {
    ChainServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Fails a story that hangs.
pub async fn in_time<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(CALL_MAX, step)
        .await
        .expect("an answer comes in time")
}

/// The arguments of `qbc`, with a head file of its own.
pub fn with_heads<'a>(heads: &'a Path, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["--heads", heads.to_str().expect("a folder in UTF-8")];
    all.extend(arguments);
    all
}
