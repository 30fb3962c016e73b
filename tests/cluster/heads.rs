//! The log of all chains in a cluster: the checkpoint covers every chain, each node signs the same log, it only grows over
//! failovers, and a proof into it holds with all servers off.
use std::{
    process::Command,
    time::{Duration, Instant},
};

use qbc::{
    chain::{Hash, SUPER_LOG_ALG, verify_consistency},
    proto::{
        GetCheckpointRequest, GetCheckpointResponse, ProveLoggedRequest,
        proof_service_client::ProofServiceClient,
    },
};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    fleet::WHOLE_MAX,
    hands::in_time,
    process::{Ran, qbc},
    story::Story,
};

const GROUP: u32 = 1;
/// How soon the log has what moved, on a busy machine, after a failover too.
const LOGGED_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

async fn try_checkpoint(story: &Story, slot: usize, from: u64) -> Option<GetCheckpointResponse> {
    let mut proofs = ProofServiceClient::connect(story.fleet.doors.url(slot))
        .await
        .ok()?;
    let request = GetCheckpointRequest { from_size: from };
    let answer = proofs.get_checkpoint(in_time(request)).await;
    answer.ok().map(tonic::Response::into_inner)
}

/// The log as a node signs it, once it has more leaves than that and grew out of that.
async fn grown(
    story: &Story,
    slot: usize,
    before: &GetCheckpointResponse,
) -> GetCheckpointResponse {
    let began = Instant::now();
    loop {
        let found = try_checkpoint(story, slot, before.size).await;
        if let Some(found) = found.filter(|found| found.size > before.size) {
            consistent(before, &found);
            return found;
        }
        assert!(
            began.elapsed() < LOGGED_MAX,
            "the log stays at {}",
            before.size
        );
        sleep(POLL).await;
    }
}

fn hash(bytes: &[u8]) -> Hash {
    bytes.try_into().expect("32 bytes")
}

fn consistent(old: &GetCheckpointResponse, new: &GetCheckpointResponse) {
    if old.size == 0 {
        return;
    }
    let path: Vec<Hash> = new.growth.iter().map(|node| hash(node)).collect();
    let (from, to) = (hash(&old.root), hash(&new.root));
    verify_consistency(SUPER_LOG_ALG, old.size, new.size, &path, &from, &to)
        .expect("the log only grows");
}

async fn cli(story: &Story, slot: usize, command: &str) -> Ran {
    let folder = format!("{}/", story.fleet.scratch().display());
    let command = command.replace("FOLDER/", &folder);
    let words: Vec<&str> = command.split(' ').collect();
    story.fleet.cli(slot, &words).await
}

async fn json(story: &Story, slot: usize, command: &str) -> Value {
    let ran = cli(story, slot, &format!("{command} --output json")).await;
    ran.well(command);
    serde_json::from_str(&ran.stdout).expect("JSON")
}

/// A public tool that knows the keys of all nodes.
fn follow(story: &Story, slot: usize, vkeys: &[String]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/log_client.py");
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.args([script, &story.fleet.address(slot).to_string(), "--state"]);
    command.arg(story.fleet.scratch().join("seen.json"));
    for vkey in vkeys {
        command.args(["--vkey", vkey]);
    }
    match command.output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(_) => eprintln!("not run: there is no python3"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_root_covers_every_chain_and_only_grows_over_failovers() {
    let mut story = Story::in_one_group(3, "one_root_covers_every_chain").await;
    let slots = story.fleet.slots();
    let mut log = grown(&story, slots[0], &GetCheckpointResponse::default()).await;
    let mut vkeys = Vec::new();
    for slot in &slots {
        let found = try_checkpoint(&story, *slot, 0)
            .await
            .expect("every node signs");
        vkeys.push(found.vkey);
    }
    follow(&story, slots[0], &vkeys);
    for round in 0..2 {
        story.load();
        story.for_a_while(2.0).await;
        let leader = story.leader(GROUP).await;
        story.fleet.member(leader).kill9();
        let other = slots.iter().find(|slot| **slot != leader).copied();
        let other = other.expect("three members");
        story.for_a_while(1.0).await;
        story.load_ends().await;
        let label = format!("after {round}");
        story
            .inject(other, &label)
            .await
            .expect("two of three go on");
        json(&story, other, &format!("leap {}", story.chain())).await;
        log = grown(&story, other, &log).await;
        follow(&story, other, &vkeys);
        story.fleet.start(leader, None).await.expect("it starts");
        story.fleet.whole(WHOLE_MAX).await.expect("it is whole");
    }
    every_chain_is_proved(&story, &slots).await;
    let file = story.fleet.scratch().join("proof.json");
    let path = file.to_str().expect("a path in UTF-8").to_owned();
    let prove = format!("prove {} 0 --all -o FOLDER/proof.json", story.chain());
    let proved = json(&story, slots[1], &prove).await;
    let root = proved["checkpoint"]["root"]
        .as_str()
        .expect("a root")
        .to_owned();
    for slot in &slots {
        story.fleet.member(*slot).sigterm();
    }
    for slot in &slots {
        assert!(story.fleet.member(*slot).wait_end(LOGGED_MAX).await);
    }
    qbc(&["verify", &path, "--trust-head", &root]).well("verify with all servers off");
    let id = proved["chain_id"].as_str().expect("an id");
    qbc(&["verify", &path, "--trust-chain", id]).well("verify by the chain");
    for slot in &slots {
        story.fleet.start(*slot, None).await.expect("it starts");
    }
    story.fleet.whole(WHOLE_MAX).await.expect("it is whole");
    story.ends_well().await;
}

/// A transaction of every chain that has one, through every node.
async fn every_chain_is_proved(story: &Story, slots: &[usize]) {
    for plot in story.ground.plots.iter() {
        let leap = format!("leap {} --output json", plot.name);
        // Nothing to seal is no fault: what is proved is sealed then.
        let ran = cli(story, slots[0], &leap).await;
        assert!(matches!(ran.code, Some(0 | 3)), "{ran:?}");
        for slot in slots {
            let url = story.fleet.doors.url(*slot);
            let mut proofs = ProofServiceClient::connect(url).await.expect("a node");
            let request = ProveLoggedRequest {
                chain: plot.name.clone(),
                index: 0,
                without_payload: true,
            };
            let proved = proofs.prove_logged(in_time(request)).await;
            let proved = proved.expect("it is in the log").into_inner();
            assert_eq!(proved.group, GROUP, "{}", plot.name);
        }
    }
}
