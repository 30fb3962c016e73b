//! Chains that seal by themselves and chains that ask for work, against the real program: what is refused at bang, Quants
//! that appear by themselves, leaps that take longer than their caller waits, work that is too little in a file.
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use qbc::{
    chain::{Header, find_nonce},
    proto::{
        BangRequest, Constitution, GetQuantRequest, GetServerInfoRequest, LeapRequest,
        LeapResponse, ListQuantsRequest, constitution::Content,
        node_service_client::NodeServiceClient,
    },
};
use serde_json::Value;
use tonic::{Code, Request, Status};

use crate::{
    process::{Ran, qbc},
    rig::{Rig, bang_request, fact, names_field, refused, with_heads},
};

const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);
const UNDER_WAY: (&str, Code) = ("WORK_UNDER_WAY", Code::Unavailable);
/// For what comes by itself, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

fn bang_with(name: &str, rules: Constitution) -> BangRequest {
    BangRequest {
        constitution: Some(rules),
        ..bang_request(name, Content::Bytes, "")
    }
}

async fn made(rules: Constitution) -> Rig {
    let mut rig = Rig::start().await;
    let answer = rig.chains.bang(bang_with("mined", rules)).await;
    answer.expect("the constitution is good");
    rig
}

/// Waits until the chain has so many Quants beyond its genesis.
async fn height(rig: &mut Rig, height: u64) -> u64 {
    let until = Instant::now() + SOON;
    loop {
        let chain = rig.chain("mined").await;
        if chain.height >= height {
            return chain.height;
        }
        assert!(Instant::now() < until, "{chain:?}");
        tokio::time::sleep(POLL).await;
    }
}

async fn headers(rig: &mut Rig) -> Vec<Header> {
    let request = ListQuantsRequest {
        chain: "mined".to_owned(),
        page_size: 1000,
        ..Default::default()
    };
    let quants = rig.chains.list_quants(request).await.expect("a list");
    let parsed = quants
        .into_inner()
        .quants
        .into_iter()
        .map(|quant| Header::parse(&quant.header).expect("a sound header"));
    parsed.collect()
}

async fn leap(rig: &mut Rig, request_id: &str, deadline: Duration) -> Result<LeapResponse, Status> {
    let mut request = Request::new(LeapRequest {
        chain: "mined".to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    });
    request.set_timeout(deadline);
    let answer = rig.chains.leap(request).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn work_and_timers_out_of_range_are_refused_with_the_field_and_the_cure() {
    let mut rig = Rig::start().await;
    let bits = |bits| Constitution {
        work_bits_min: Some(bits),
        ..Default::default()
    };
    let target = |work_bits_min, target| Constitution {
        work_bits_min,
        work_target_ms: Some(target),
        ..Default::default()
    };
    let count = |leap_count| Constitution {
        leap_count: Some(leap_count),
        ..Default::default()
    };
    let bytes = |leap_bytes| Constitution {
        leap_bytes: Some(leap_bytes),
        ..Default::default()
    };
    let ms = Constitution {
        leap_ms: Some(0),
        ..Default::default()
    };
    let cases = [
        ("work_bits_min", bits(0), "0 is refused, give 1 to 48"),
        ("work_bits_min", bits(49), "49 is refused, give 1 to 48"),
        ("work_bits_min", bits(200), "200 is refused, give 1 to 48"),
        ("work_bits_min", bits(u32::MAX), "give 1 to 48"),
        ("work_target_ms", target(Some(8), 0), "0 is refused"),
        ("work_target_ms", target(None, 1000), "give both"),
        ("leap_count", count(0), "0 is refused, give 1 to 16777216"),
        ("leap_count", count(16_777_217), "give 1 to 16777216"),
        ("leap_bytes", bytes(0), "0 is refused"),
        ("leap_bytes", bytes(u64::MAX), "give 1 to 17179869184"),
        ("leap_ms", ms, "0 is refused, give 1 or more"),
    ];
    for (field, rules, words) in cases {
        let field = format!("constitution.{field}");
        let answer = rig.chains.bang(bang_with("mined", rules)).await;
        names_field(&refused(answer, FIELD, &[&field, words]), &field);
    }
    let heads = rig.file("heads.json");
    let url = ["--endpoint", rig.node().url(), "bang", "mined"];
    for options in [
        ["--difficulty", "0"],
        ["--difficulty", "200"],
        ["--leap-ms", "0"],
    ] {
        let ran = qbc(&with_heads(&heads, &[&url[..], &options].concat()));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("FIELD_INVALID"), "{ran:?}");
    }
    let longest = Constitution {
        leap_count: Some(16_777_216),
        ..bits(48)
    };
    let answer = rig.chains.bang(bang_with("mined", longest)).await;
    answer.expect("the largest are good");
}

#[tokio::test]
async fn a_pool_is_sealed_by_its_count_its_bytes_or_its_age_and_never_when_it_is_empty() {
    let cases = [
        (Some(3), None, None),
        (None, Some(30), None),
        (None, None, Some(150)),
    ];
    for (leap_count, leap_bytes, leap_ms) in cases {
        let mut rig = made(Constitution {
            leap_count,
            leap_bytes,
            leap_ms,
            ..Default::default()
        })
        .await;
        for round in 1..=3 {
            rig.inject("mined", &[&[7; 10], &[8; 10]]).await;
            if leap_ms.is_none() {
                tokio::time::sleep(10 * POLL).await;
                assert_eq!(
                    rig.chain("mined").await.height,
                    round - 1,
                    "it is not due yet"
                );
                rig.inject("mined", &[&[9; 10]]).await;
            }
            assert_eq!(height(&mut rig, round).await, round);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let headers = headers(&mut rig).await;
        assert_eq!(headers.len(), 4);
        assert!(headers[1..].iter().all(|header| header.tx_count >= 2));
        rig.restart().await;
        rig.inject("mined", &[&[7; 10], &[8; 10], &[9; 10]]).await;
        assert_eq!(height(&mut rig, 4).await, 4, "it seals on after a restart");
    }
}

#[tokio::test]
async fn mined_quants_appear_by_themselves_while_injects_go_on_and_verify_shows_the_work() {
    let mut rig = Rig::start().await;
    let run = |rig: &Rig, arguments: &[&str]| {
        let url = ["--endpoint", rig.node().url()];
        let heads = rig.file("heads.json");
        qbc(&with_heads(&heads, &[&url[..], arguments].concat()))
    };
    let bang = ["bang", "mined", "--difficulty", "12", "--leap-count", "4"];
    run(&rig, &bang).well("a chain that asks for work");
    for payload in 0..40u8 {
        rig.inject("mined", &[&[payload]]).await;
    }
    // What is left below the count waits for more.
    let until = Instant::now() + SOON;
    while rig.chain("mined").await.pool >= 4 {
        assert!(Instant::now() < until, "the pool is sealed by itself");
        tokio::time::sleep(POLL).await;
    }
    let headers = headers(&mut rig).await;
    assert!(headers.len() > 2, "{} Quants", headers.len());
    for header in &headers[1..] {
        assert!(header.tx_count >= 4, "{header:?}");
        assert!(header.pow_bits == 12 && header.zero_bits() >= 12);
    }
    assert_eq!(rig.payloads("mined").await.len(), 40);
    let (file, proof) = (rig.file("mined.qbc"), rig.file("proof.json"));
    let text = |path: &Path| path.to_str().expect("a folder in UTF-8").to_owned();
    run(&rig, &["export", "mined", "-o", &text(&file)]).well("an export");
    run(&rig, &["prove", "mined", "0", "-o", &text(&proof)]).well("a proof");
    let head = headers.last().expect("a head");
    let found = format!("of the head 12 were asked for, {} found", head.zero_bits());
    shows(&run(&rig, &["verify", &text(&file)]), &found);
    let one = format!(
        "work of Quant 1: 12 zero bits asked for, {} found (the constitution's minimum is 12)",
        headers[1].zero_bits()
    );
    shows(&run(&rig, &["verify", &text(&proof)]), &one);
    let mut forged = fs::read(&file).expect("the export was written");
    let at = forged
        .windows(256)
        .position(|bytes| bytes == head.to_bytes());
    let at = at.expect("the export holds the head");
    for pow_bits in [0, 11] {
        let mut less = Header {
            pow_bits,
            ..head.clone()
        };
        less.nonce = find_nonce(&less, 0..1 << 24).expect("so few bits are found soon");
        forged[at..at + 256].copy_from_slice(&less.to_bytes());
        let lie = rig.file("forged.qbc");
        fs::write(&lie, &forged).expect("a file can be written");
        refuses(&run(&rig, &["verify", "--self-consistent", &text(&lie)]));
    }
    let lie = rig.file("forged.json");
    fs::write(
        &lie,
        less_work(&fs::read_to_string(&proof).expect("a proof")),
    )
    .expect("a file");
    refuses(&run(&rig, &["verify", "--self-consistent", &text(&lie)]));
}

/// The proof with a last header that claims no work, and without the signatures that would give it away.
fn less_work(proof: &str) -> String {
    let mut proof: Value = serde_json::from_str(proof).expect("a proof in JSON");
    let steps = proof["steps"].as_array_mut().expect("steps");
    let header = &mut steps.last_mut().expect("a last step")["header"];
    let text = header.as_str().expect("a header in hex");
    *header = format!("{}0000{}", &text[..12], &text[16..]).into();
    proof["head"]["signatures"] = Value::Array(Vec::new());
    proof.to_string()
}

#[track_caller]
fn shows(ran: &Ran, words: &str) {
    ran.well("it verifies");
    assert!(ran.stdout.contains(words), "{words:?} is not in {ran:?}");
}

/// By the constitution, whatever the header says.
#[track_caller]
fn refuses(ran: &Ran) {
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert!(ran.stderr.contains("refused: work-minimum: "), "{ran:?}");
}

#[tokio::test]
async fn the_difficulty_follows_its_target() {
    let mut rig = made(Constitution {
        leap_count: Some(1),
        work_bits_min: Some(2),
        work_target_ms: Some(20_000),
        ..Default::default()
    })
    .await;
    for at in 1..=17 {
        rig.inject("mined", &[b"x"]).await;
        height(&mut rig, at).await;
    }
    // Two windows took far less than a third of eight targets.
    let bits = headers(&mut rig).await;
    let bits: Vec<u16> = bits.iter().map(|header| header.pow_bits).collect();
    let expected = [vec![0], vec![2; 8], vec![4; 8], vec![6]].concat();
    assert_eq!(bits[..18], expected);
    rig.restart().await;
    rig.inject("mined", &[b"x"]).await;
    height(&mut rig, 18).await;
    assert_eq!(headers(&mut rig).await[18].pow_bits, 6);
}

#[tokio::test]
async fn a_leap_that_takes_longer_than_its_caller_waits_tells_how_far_it_is_and_goes_on() {
    let mut rig = made(Constitution {
        work_bits_min: Some(23),
        ..Default::default()
    })
    .await;
    let short = Duration::from_millis(300);
    for round in 0.. {
        assert!(
            round < 50,
            "eight million tries were done in {short:?}, fifty times"
        );
        rig.inject("mined", &[b"x"]).await;
        let id = format!("leap {round}");
        let Err(late) = leap(&mut rig, &id, short).await else {
            continue;
        };
        let words = ["is being mined", "for 23 bits", "same request_id"];
        let late = refused::<()>(Err(late), UNDER_WAY, &words);
        assert_eq!(fact(&late, "bits"), "23");
        assert_eq!(fact(&late, "tries_expected"), "8388608");
        // Injects and others are answered meanwhile; another leap waits for its turn.
        rig.inject("mined", &[b"y"]).await;
        let done = leap(&mut rig, &id, SOON).await.expect("it goes on");
        let quant = done.head.and_then(|head| head.quant).expect("a head");
        let header = Header::parse(&quant.header).expect("a sound header");
        assert!(header.zero_bits() >= 23 && header.pow_bits == 23);
        let again = leap(&mut rig, &id, SOON).await.expect("a retry");
        assert!(again.duplicate);
        let request = GetQuantRequest {
            chain: "mined".to_owned(),
            height: quant.height,
            ..Default::default()
        };
        let stored = rig.chains.get_quant(request).await.expect("it is sealed");
        assert_eq!(
            stored.into_inner().quant.expect("a Quant").header,
            quant.header
        );
        break;
    }
    rig.serves("mined").await;
}

#[tokio::test]
async fn what_is_mined_is_shown_and_a_node_that_mines_stops_and_starts_like_any_other() {
    let mut rig = made(Constitution {
        leap_count: Some(2),
        work_bits_min: Some(48),
        ..Default::default()
    })
    .await;
    rig.inject("mined", &[b"x", b"y"]).await;
    for start in 0..2 {
        let until = Instant::now() + SOON;
        let mining = loop {
            if let Some(mining) = rig.chain("mined").await.mining.filter(|m| m.tries > 0) {
                break mining;
            }
            assert!(Instant::now() < until, "the due pool is mined by itself");
            tokio::time::sleep(POLL).await;
        };
        assert_eq!((mining.height, mining.bits), (1, 48));
        assert_eq!(mining.tries_expected, 1 << 48);
        assert!(mining.tries_per_second > 0);
        let mut nodes = NodeServiceClient::new(rig.channel());
        let info = nodes.get_server_info(GetServerInfoRequest {}).await;
        let info = info.expect("the node is up").into_inner();
        assert!(info.mining_threads > 0 && info.mining_tries >= mining.tries);
        assert_eq!(info.mining_chains, 1);
        let heads = rig.file("heads.json");
        let ran = qbc(&with_heads(
            &heads,
            &["--endpoint", rig.node().url(), "chain", "mined"],
        ));
        ran.well("the chain is shown");
        assert!(ran.stdout.contains("tries_per_second"), "{ran:?}");
        let late = leap(&mut rig, "", Duration::from_millis(500)).await;
        refused(late, UNDER_WAY, &["Quant 1 is being mined"]);
        rig.serves("mined").await;
        if start == 0 {
            rig.restart().await;
        } else {
            rig.stop().await;
        }
    }
}
