//! Who does not know the cluster secret gets nothing, where loopback counts as outside.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use qbc::proto::cluster::{
    CarrySnapshotRequest, DiscoverRequest, JoinRequest, LeaveRequest, LinkRequest,
    peer_service_client::PeerServiceClient,
};
use serde_json::Value;
use tonic::{Status, transport::Endpoint};

use crate::{
    chance::Chance,
    fleet::{Began, Fleet, Options},
    process::Ran,
};

/// How long a stranger is given to get in.
const TRIES: Duration = Duration::from_secs(8);
const KNOWN_MAX: Duration = Duration::from_secs(20);
const SECRET: &str = "correct horse battery staple, thirty-two bytes and more";
const WRONG: &str = "another secret of the same length, thirty-two bytes, more";

/// Three nodes that ask for the secret.
struct Guarded {
    fleet: Fleet,
    secret: PathBuf,
    wrong: PathBuf,
}

impl Guarded {
    async fn of_three() -> Self {
        let folder = tempfile::tempdir().expect("the system does it").keep();
        let (secret, wrong) = (folder.join("secret"), folder.join("wrong"));
        write_secret(&secret, SECRET);
        write_secret(&wrong, WRONG);
        let options = Options::default()
            .with("QBC_TRUST_LOOPBACK", "false")
            .with("QBC_CLUSTER_SECRET_FILE", &secret);
        let mut fleet = Fleet::empty(options).await;
        let mut chance = Chance::of(1);
        fleet.found().await;
        for _ in 0..2 {
            fleet.add(&mut chance).await.expect("the cluster is up");
        }
        let guarded = Self {
            fleet,
            secret,
            wrong,
        };
        guarded.shows(3).await;
        guarded
    }

    async fn discover(&self, secret: &Path) -> Ran {
        let file = secret.to_str().expect("the system does it");
        let words = [
            "discover",
            "--output",
            "json",
            "--cluster-secret-file",
            file,
        ];
        self.fleet.cli(self.fleet.slots()[0], &words).await
    }

    /// Waits until exactly so many nodes are shown, all alive.
    async fn shows(&self, count: usize) {
        let look = async {
            loop {
                let ran = self.discover(&self.secret).await;
                let shown: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
                let nodes = shown["nodes"].as_array().cloned().unwrap_or_default();
                if nodes.len() == count && nodes.iter().all(|node| node["state"] == "alive") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(KNOWN_MAX, look)
            .await
            .expect("the nodes are shown");
    }

    /// A newcomer that has this secret, or none, does not get in; what it said.
    async fn keeps_out(&mut self, secret: Option<&PathBuf>) -> String {
        let slot = self.fleet.place();
        let join = self.fleet.address(self.fleet.slots()[0]).to_string();
        let mut start = self.fleet.how(slot, Some(join));
        start
            .environment
            .retain(|(name, _)| name != "QBC_CLUSTER_SECRET_FILE");
        if let Some(secret) = secret {
            let file = secret.clone().into();
            start
                .environment
                .push(("QBC_CLUSTER_SECRET_FILE".to_owned(), file));
        }
        let member = self.fleet.member(slot);
        member.spawn(start);
        let began = member.began(TRIES).await;
        assert!(!matches!(began, Began::Ready), "{}", member.words());
        let words = member.words();
        self.shows(3).await;
        self.fleet.forget(slot);
        words
    }
}

fn write_secret(path: &Path, secret: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, secret).expect("the system does it");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the system does it");
}

fn refused<T>(what: &str, answer: &Result<T, Status>) {
    assert!(answer.is_err(), "a stranger may {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_can_not_join_look_or_make_a_node_leave() {
    let mut guarded = Guarded::of_three().await;
    let (secret, wrong) = (guarded.secret.clone(), guarded.wrong.clone());
    for (what, file) in [("no secret", None), ("a wrong secret", Some(&wrong))] {
        let said = guarded.keeps_out(file).await.to_lowercase();
        assert!(said.contains("secret"), "with {what} it said: {said}");
    }
    let by = guarded.fleet.slots()[1];
    let looks = guarded.discover(&wrong).await;
    assert_ne!(looks.code, Some(0), "{looks:?}");
    for words in [vec!["discover"], vec!["leave", "1"]] {
        let ran = guarded.fleet.cli(by, &words).await;
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(!ran.stdout.contains("alive"), "{ran:?}");
    }
    let wrong_words = [
        "leave",
        "1",
        "--cluster-secret-file",
        wrong.to_str().unwrap(),
    ];
    let ran = guarded.fleet.cli(by, &wrong_words).await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    calls_without_the_secret_are_refused(&guarded).await;
    guarded.shows(3).await;
    assert_eq!(guarded.discover(&secret).await.code, Some(0));
}

async fn calls_without_the_secret_are_refused(guarded: &Guarded) {
    let slot = guarded.fleet.slots()[1];
    let mut cluster = guarded.fleet.doors.cluster(slot);
    refused("look", &cluster.discover(DiscoverRequest {}).await);
    refused(
        "order a leave",
        &cluster.leave(LeaveRequest { node_id: 1 }).await,
    );
    let join = JoinRequest {
        public_key: vec![7; 32].into(),
        address: "127.0.0.1:9".to_owned(),
        format_version: 1,
        ..JoinRequest::default()
    };
    refused("join", &cluster.join(join).await);
    let endpoint =
        Endpoint::from_shared(guarded.fleet.doors.url(slot)).expect("the system does it");
    let mut peer = PeerServiceClient::new(endpoint.connect().await.expect("the cluster is up"));
    let snapshot = peer.carry_snapshot(tokio_stream::iter([CarrySnapshotRequest::default()]));
    refused("send a snapshot", &snapshot.await);
    let hello = LinkRequest::default();
    refused("link", &peer.link(tokio_stream::iter([hello])).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_the_secret_joins_and_makes_a_node_leave() {
    let mut guarded = Guarded::of_three().await;
    let mut chance = Chance::of(2);
    guarded.fleet.add(&mut chance).await.unwrap();
    guarded.shows(4).await;
    let file = guarded.secret.to_str().unwrap();
    let leave = ["leave", "4", "--cluster-secret-file", file];
    let by = guarded.fleet.slots()[0];
    let shown = guarded.discover(&guarded.secret).await;
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    let last = shown["nodes"][3]["node_id"].to_string();
    let leave = leave.map(|word| if word == "4" { last.as_str() } else { word });
    guarded
        .fleet
        .cli(by, &leave)
        .await
        .well("a leave with the secret");
}
