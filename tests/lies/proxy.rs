//! The lying proxy as a process: this test binary, started again to run one ignored test that serves.
use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use qbc::proto::{
    chain_service_client::ChainServiceClient, chain_service_server::ChainServiceServer,
    node_service_client::NodeServiceClient, node_service_server::NodeServiceServer,
    proof_service_client::ProofServiceClient, proof_service_server::ProofServiceServer,
    tail_service_server::TailServiceServer,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};

use crate::{
    face::Face,
    lie::Lie,
    source::{Source, node_key},
};

const LIE: &str = "QBC_PROXY_LIE";
const NODE: &str = "QBC_PROXY_NODE";
const DATA: &str = "QBC_PROXY_DATA";
const SWITCH: &str = "QBC_PROXY_SWITCH";
const READY: &str = "proxy: listening on ";
const START_MAX: Duration = Duration::from_secs(60);

/// A running proxy; dropping it ends it.
pub struct Proxy {
    child: Child,
    url: String,
    switch: PathBuf,
}

impl Proxy {
    /// Stands before the node with this lie, and tells the truth until it is switched on.
    pub fn start(lie: &str, node: &str, data: &Path, switch: &Path) -> Self {
        let mut child = Command::new(env::current_exe().expect("this binary has a path"))
            .args(["proxy::the_proxy_itself", "--exact", "--ignored"])
            .arg("--nocapture")
            .envs([(LIE, lie), (NODE, node)])
            .env(DATA, data)
            .env(SWITCH, switch)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the proxy can be started");
        let pipe = child.stderr.take().expect("stderr is piped");
        let (told, heard) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                match line.strip_prefix(READY) {
                    Some(url) => drop(told.send(url.to_owned())),
                    None => eprintln!("proxy: {line}"),
                }
            }
        });
        let url = heard.recv_timeout(START_MAX).expect("the proxy listens");
        let switch = switch.to_owned();
        Self { child, url, switch }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on it lies.
    pub fn lie(&self) {
        fs::write(&self.switch, "").expect("the switch can be made");
    }

    /// From now on it tells the truth.
    pub fn be_true(&self) {
        fs::remove_file(&self.switch).expect("the switch was there");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
#[ignore = "the lying proxy itself: each of the other tests here starts it as a process, in CI too; alone it has nothing to do"]
fn the_proxy_itself() {
    let Ok(lie) = env::var(LIE) else {
        return;
    };
    // The proxy does not outlive the test that started it.
    thread::spawn(|| {
        io::stdin().read_to_end(&mut Vec::new()).ok();
        process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("threads can be made");
    runtime.block_on(serve(Lie::named(&lie)));
}

async fn serve(lie: Lie) {
    let node = env::var(NODE).expect("the node is named");
    let node = Channel::from_shared(node).expect("the node has an address");
    let node = node.connect().await.expect("the node answers");
    let face = Face {
        node: node.clone(),
        source: Source {
            chains: ChainServiceClient::new(node.clone()),
            key: node_key(Path::new(
                &env::var(DATA).expect("the data folder is named"),
            )),
        },
        proofs: ProofServiceClient::new(node.clone()),
        nodes: NodeServiceClient::new(node),
        lie,
        switch: env::var(SWITCH).expect("the switch is named").into(),
    };
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = tokio::net::TcpListener::bind(local).await;
    let listener = listener.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    eprintln!("{READY}http://{address}");
    Server::builder()
        .add_service(ChainServiceServer::new(face.clone()))
        .add_service(ProofServiceServer::new(face.clone()))
        .add_service(TailServiceServer::new(face.clone()))
        .add_service(NodeServiceServer::new(face))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .expect("the proxy serves");
}
