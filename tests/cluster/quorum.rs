//! Quorum chains: a head is final once as many nodes signed it as the constitution asks for; a leader's key alone makes
//! none, and a replica that is away is waited for, in words.
use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use qbc::{
    chain::{
        Certificate, Claim, Envelope, HashAlg, HeadSignature, Header, Proof, SigAlg, SigningKey,
        Step, head_message, payload_hash, proof_from_json, proof_to_json,
    },
    proto::{BangRequest, Constitution, GetHeadRequest, GetHeadResponse, Head},
};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    fleet::{WHOLE_MAX, reason},
    hands::in_time,
    process::Ran,
    story::Story,
};

const GROUP: u32 = 1;
const ALG: HashAlg = HashAlg::Sha3_256;
const POLL: Duration = Duration::from_millis(20);
/// How soon a node that came back has signed what waits for it, on a busy machine.
const SIGNED_MAX: Duration = Duration::from_secs(60);
/// From the death of a leader to the next answer, on a busy machine.
const FAILOVER_MAX: Duration = Duration::from_secs(30);

/// Runs a verb at a member; `FOLDER/` stands for the folder of the fleet.
async fn cli(story: &Story, slot: usize, command: &str) -> Ran {
    let folder = format!("{}/", story.fleet.scratch().display());
    let command = command.replace("FOLDER/", &folder);
    let words: Vec<&str> = command.split(' ').collect();
    story.fleet.cli(slot, &words).await
}

async fn well(story: &Story, slot: usize, command: &str) -> Value {
    let ran = cli(story, slot, &format!("{command} --output json")).await;
    ran.well(command);
    serde_json::from_str(&ran.stdout).unwrap_or(Value::Null)
}

async fn inject(story: &Story, slot: usize, line: &str) {
    fs::write(story.fleet.scratch().join("line"), line).expect("a file");
    well(story, slot, "inject vault FOLDER/line").await;
}

async fn try_head(story: &Story, slot: usize, chain: &str) -> Option<GetHeadResponse> {
    let request = GetHeadRequest {
        chain: chain.to_owned(),
        any_replica: true,
    };
    let mut chains = story.fleet.doors.chains(slot);
    let head = chains.get_head(in_time(request)).await;
    head.ok().map(tonic::Response::into_inner)
}

/// What the replica of a node shows of the head, once it is final at this height.
async fn final_at(story: &Story, slot: usize, height: u64) -> Head {
    let until = Instant::now() + SIGNED_MAX;
    loop {
        let shown = try_head(story, slot, "vault").await;
        if let Some(shown) = &shown
            && shown.pending.is_none()
            && let Some(head) = &shown.head
            && head
                .quant
                .as_ref()
                .is_some_and(|quant| quant.height == height)
        {
            return head.clone();
        }
        assert!(Instant::now() < until, "not final at {height}: {shown:?}");
        sleep(POLL).await;
    }
}

fn signers(head: &Head) -> BTreeSet<u64> {
    head.signatures.iter().map(|one| one.node_id).collect()
}

/// The key that lies in a member's data folder, with the certificate that the node shows.
async fn stolen(story: &mut Story, slot: usize) -> (SigningKey, Certificate) {
    let ordinary = story.chain().to_owned();
    let head = try_head(story, slot, &ordinary).await.expect("a head");
    let certificate = head.head.expect("a head").signatures[0].certificate.clone();
    let path = story.fleet.member(slot).data().join("keys/node.key");
    let text = fs::read_to_string(path).expect("the key is there");
    let seed = hex::decode(text.trim()).expect("hex");
    (
        SigningKey::from_seed(seed.try_into().expect("32 bytes")),
        Certificate::parse(&certificate).expect("a certificate"),
    )
}

/// Another transaction in the place of the only one of the proof's Quant, signed with these keys.
fn forged(honest: &Proof, thieves: &[&(SigningKey, Certificate)]) -> Proof {
    let mut proof = honest.clone();
    let Claim::Inclusion(shown) = &mut proof.claim else {
        panic!("an inclusion");
    };
    let payload = b"forged".to_vec();
    let envelope = Envelope {
        payload_len: payload.len() as u64,
        payload_hash: payload_hash(ALG, &payload, None),
        ..Envelope::parse(&shown.envelope).expect("an envelope")
    };
    shown.envelope = envelope.to_bytes().to_vec();
    shown.payload = Some(payload);
    let [Step::Quant { header, .. }] = &mut proof.steps[..] else {
        panic!("the head seals it");
    };
    let made = Header {
        tx_root: envelope.leaf(ALG),
        ..Header::parse(header).expect("a header")
    };
    *header = made.to_bytes().to_vec();
    let time_s = proof.head.signatures[0].time_s;
    let sign = |(key, certificate): &&(SigningKey, Certificate)| {
        let (cluster, node) = (&certificate.cluster_id, certificate.node_id);
        let message = head_message(cluster, node, time_s, &made);
        HeadSignature {
            alg: SigAlg::Ed25519 as u8,
            key_id: certificate.key_id(),
            time_s,
            signature: key.sign(&message).to_vec(),
            certificate: certificate.clone(),
        }
    };
    proof.head.signatures = thieves.iter().map(sign).collect();
    proof
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_signed_with_the_leader_s_stolen_key_alone_is_refused() {
    let mut story = Story::in_one_group(3, "a_head_signed_with_the_leader_s_stolen_key").await;
    let slots = story.fleet.slots();
    let leader = story.leader(GROUP).await;
    let banged = well(&story, slots[0], "bang vault --quorum 2").await;
    let id = banged["chain_id"].as_str().expect("an id").to_owned();
    inject(&story, slots[1], "honest").await;
    well(&story, slots[2], "leap vault").await;
    for slot in &slots {
        let head = final_at(&story, *slot, 1).await;
        assert_eq!(head.quorum, 2);
        assert_eq!(signers(&head).len(), 2, "{head:?}");
    }
    let prove = "prove vault 0 -o FOLDER/proof.json";
    cli(&story, slots[0], prove).await.well(prove);
    let path = story.fleet.scratch().join("proof.json");
    let honest = proof_from_json(&fs::read(path).expect("a file")).expect("a proof");
    let verify = format!("verify FOLDER/proof.json --trust-chain {id}");
    cli(&story, slots[0], &verify).await.well(&verify);
    cli(&story, slots[0], "audit vault").await.well("audit");
    let export = "export vault -o FOLDER/vault.qbc";
    cli(&story, slots[0], export).await.well(export);
    let verify = format!("verify FOLDER/vault.qbc --trust-chain {id}");
    cli(&story, slots[0], &verify).await.well(&verify);

    let one = stolen(&mut story, leader).await;
    let other = *slots.iter().find(|slot| **slot != leader).unwrap();
    let two = stolen(&mut story, other).await;
    // Two stolen keys would do: it is their number alone that stops one.
    for (thieves, code, said) in [
        (vec![&one], Some(7), "quorum-count"),
        (vec![&one, &one], Some(7), "quorum-node"),
        (vec![&one, &two], Some(0), ""),
    ] {
        let text = proof_to_json(&forged(&honest, &thieves));
        fs::write(story.fleet.scratch().join("forged.json"), text).expect("a file");
        let verify = format!("verify FOLDER/forged.json --trust-chain {id}");
        let ran = cli(&story, slots[0], &verify).await;
        assert_eq!(ran.code, code, "{} keys: {ran:?}", thieves.len());
        assert!(
            ran.stderr.contains(said) || ran.stdout.contains(said),
            "{ran:?}"
        );
    }
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_replica_down_finality_waits_for_all_three_says_so_and_comes_with_the_replica() {
    let mut story = Story::in_one_group(3, "with_a_replica_down_finality_waits").await;
    let slots = story.fleet.slots();
    let leader = story.leader(GROUP).await;
    well(&story, slots[0], "bang vault --quorum 3 --content text").await;
    inject(&story, slots[0], "one").await;
    let sealed = well(&story, slots[0], "leap vault").await;
    assert_eq!(sealed["height"], 1);

    let down = *slots.iter().find(|slot| **slot != leader).unwrap();
    let up = *slots.iter().find(|slot| **slot != down).unwrap();
    story.fleet.member(down).kill9();
    inject(&story, up, "two").await;
    let ran = cli(&story, up, "leap vault --deadline-s 6").await;
    assert_eq!(ran.code, Some(6), "{ran:?}");
    for words in [
        "NOT_FINAL",
        "not final: 2 of 3 signatures",
        "sealed and durable",
    ] {
        assert!(ran.stderr.contains(words), "{ran:?}");
    }
    let ran = cli(&story, up, "head vault --output json").await;
    ran.well("head");
    assert!(
        ran.stderr.contains("not final: 2 of 3 signatures"),
        "{ran:?}"
    );
    let head: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((&head["height"], &head["quorum"]), (&1.into(), &3.into()));
    assert_eq!(head["pending"]["height"], 2);
    assert_eq!(
        head["pending"]["signed_by"].as_array().map(Vec::len),
        Some(2)
    );
    // What is sealed and not final is read like the pool: there, and not proved.
    let read = cli(&story, up, "read vault --output ndjson").await;
    read.well("read");
    let rows = read.stdout.lines();
    let rows: Vec<Value> = rows.map(|row| serde_json::from_str(row).unwrap()).collect();
    let proven: Vec<_> = rows
        .iter()
        .map(|row| (&row["payload"], &row["proven"]))
        .collect();
    let expected = [("one".into(), true.into()), ("two".into(), false.into())];
    assert_eq!(
        proven,
        expected
            .each_ref()
            .map(|(payload, proven)| (payload, proven))
    );

    story.fleet.start(down, None).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    for slot in &slots {
        let head = final_at(&story, *slot, 2).await;
        assert_eq!(signers(&head).len(), 3, "{head:?}");
    }
    let head = well(&story, down, "head vault").await;
    assert_eq!(
        (&head["height"], &head["pending"]),
        (&2.into(), &Value::Null)
    );
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_are_final_without_the_leader_who_died_and_its_signatures_stay() {
    let mut story = Story::in_one_group(3, "two_of_three_are_final").await;
    let slots = story.fleet.slots();
    well(
        &story,
        slots[0],
        "bang vault --quorum 2 --keyed --difficulty 4",
    )
    .await;
    inject(&story, slots[0], "one").await;
    well(&story, slots[0], "leap vault").await;
    let leader = story.leader(GROUP).await;
    let other = *slots.iter().find(|slot| **slot != leader).unwrap();
    let before = final_at(&story, other, 1).await;
    story.fleet.member(leader).kill9();
    let again = async {
        while try_head(&story, other, "vault").await.is_none()
            || cli(&story, other, "head vault").await.code != Some(0)
        {
            sleep(POLL).await;
        }
    };
    let again = tokio::time::timeout(FAILOVER_MAX, again).await;
    again.expect("another leader answers");
    assert_eq!(final_at(&story, other, 1).await, before);
    inject(&story, other, "two").await;
    let sealed = well(&story, other, "leap vault").await;
    assert_eq!(sealed["height"], 2);
    let after = final_at(&story, other, 2).await;
    assert_eq!(signers(&after).len(), 2);
    story.fleet.start(leader, None).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    for slot in &slots {
        assert_eq!(final_at(&story, *slot, 2).await, after);
    }
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_by_a_snapshot_has_the_signatures_and_signs_what_follows() {
    let mut story = Story::in_one_group(3, "a_node_that_joins_by_a_snapshot").await;
    let slots = story.fleet.slots();
    well(&story, slots[0], "bang vault --quorum 2").await;
    // More than the log keeps: who joins later needs a snapshot.
    let line = "x".repeat(1 << 20);
    for _ in 0..8 {
        inject(&story, slots[0], &line).await;
    }
    well(&story, slots[0], "leap vault").await;
    let before = final_at(&story, slots[0], 1).await;
    let (wiped, by) = (slots[1], slots[2]);
    let old = story.fleet.id(wiped).await.unwrap();
    story.fleet.renew(wiped);
    let join = story.fleet.address(by).to_string();
    story.fleet.start(wiped, Some(join)).await.unwrap();
    let ran = story.fleet.cli(by, &["leave", &old.to_string()]).await;
    ran.well("the lost one leaves");
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    assert_eq!(final_at(&story, wiped, 1).await, before);
    // The third of three is away now: what follows needs the newcomer.
    let new = story.fleet.id(wiped).await.unwrap();
    let leader = story.leader(GROUP).await;
    let away = *slots
        .iter()
        .find(|slot| **slot != wiped && **slot != leader)
        .unwrap();
    story.fleet.member(away).kill9();
    let up = slots.iter().find(|slot| **slot != wiped && **slot != away);
    inject(&story, *up.unwrap(), "after").await;
    well(&story, *up.unwrap(), "leap vault").await;
    let after = final_at(&story, wiped, 2).await;
    assert!(signers(&after).contains(&new), "{new} signs: {after:?}");
    story.fleet.start(away, None).await.unwrap();
    story.fleet.whole(WHOLE_MAX).await.unwrap();
    story.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_that_can_never_stand_is_refused_with_the_field_and_the_cure() {
    let story = Story::in_one_group(3, "a_quorum_that_can_never_stand").await;
    let slots = story.fleet.slots();
    for quorum in [0, 4, 256, u32::MAX] {
        let request = BangRequest {
            name: "vault".to_owned(),
            constitution: Some(Constitution {
                quorum: Some(quorum),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut chains = story.fleet.doors.chains(slots[1]);
        let banged = chains.bang(in_time(request)).await;
        let refused = banged.expect_err("no such quorum");
        assert_eq!(reason(&refused), "FIELD_INVALID");
        for words in ["constitution.quorum", "give 1 to 3", &quorum.to_string()] {
            assert!(refused.message().contains(words), "{refused}");
        }
    }
    story.ends_well().await;
}
