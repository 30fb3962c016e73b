//! Signed chains: who may write, what is refused and why, and admins who change it.
use std::{fs, path::Path, process::Command};

use qbc::{
    chain::{
        ChainId, Constitution as Records, ConstitutionChange, Edit, HashAlg, SigningKey,
        author_message, payload_hash,
    },
    proto::{BangRequest, Constitution, InjectRequest, TransactionInput, constitution::Content},
};
use tonic::Code;

use crate::{
    process::{Ran, qbc},
    rig::{Rig, names_field, refused, with_heads},
};

const MISSING: (&str, Code) = ("AUTHOR_MISSING", Code::Unauthenticated);
const UNKNOWN: (&str, Code) = ("AUTHOR_UNKNOWN", Code::PermissionDenied);
const NOT_ADMIN: (&str, Code) = ("NOT_ADMIN", Code::PermissionDenied);
const NO_ID: (&str, Code) = ("ID_MISSING", Code::InvalidArgument);
const FORGED: (&str, Code) = ("SIGNATURE_INVALID", Code::InvalidArgument);
const CHANGE: (&str, Code) = ("CHANGE_REFUSED", Code::InvalidArgument);
const FIELD: (&str, Code) = ("FIELD_INVALID", Code::InvalidArgument);
const NOT_ERASABLE: (&str, Code) = ("NOT_ERASABLE", Code::FailedPrecondition);

pub fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

pub fn public(number: u8) -> bytes::Bytes {
    key(number).public().to_vec().into()
}

/// A node with a chain of authors 1 and 2 and the admin 3.
pub async fn signed(rig: &mut Rig, name: &str) -> ChainId {
    let constitution = Constitution {
        authors: vec![public(1), public(2)],
        admins: vec![public(3)],
        ..Default::default()
    };
    let banged = rig.chains.bang(with_rules(name, constitution)).await;
    let id = banged.expect("a good constitution").into_inner().chain_id;
    ChainId(id.as_ref().try_into().expect("32 bytes"))
}

fn with_rules(name: &str, constitution: Constitution) -> BangRequest {
    BangRequest {
        name: name.to_owned(),
        constitution: Some(constitution),
        request_id: String::new(),
    }
}

/// A transaction signed by a key for a chain.
pub fn by(number: u8, chain: &ChainId, one: TransactionInput) -> TransactionInput {
    let some = |bytes: &bytes::Bytes| (!bytes.is_empty()).then(|| bytes.to_vec());
    let message = author_message(
        chain,
        one.r#type as u8,
        0,
        some(&one.key).as_deref(),
        some(&one.id).as_deref(),
        &payload_hash(HashAlg::Sha3_256, &one.payload, None),
    );
    TransactionInput {
        author: public(number),
        signature: key(number).sign(&message).to_vec().into(),
        ..one
    }
}

pub fn data(id: &'static str) -> TransactionInput {
    TransactionInput {
        payload: "data".into(),
        id: id.into(),
        ..Default::default()
    }
}

pub fn change(id: &'static str, change: &ConstitutionChange) -> TransactionInput {
    TransactionInput {
        r#type: 1,
        payload: change.to_bytes().into(),
        id: id.into(),
        ..Default::default()
    }
}

pub fn authors(numbers: &[u8]) -> ConstitutionChange {
    ConstitutionChange {
        authors: Edit::Put(numbers.iter().map(|n| key(*n).public()).collect()),
        ..Default::default()
    }
}

pub fn of(chain: &str, transactions: Vec<TransactionInput>) -> InjectRequest {
    InjectRequest {
        chain: chain.to_owned(),
        transactions,
        ..Default::default()
    }
}

#[tokio::test]
async fn keys_that_are_none_are_refused_at_the_bang() {
    let mut rig = Rig::start().await;
    let good = public(1);
    let mut second_form = [0xff; 32];
    (second_form[0], second_form[31]) = (0xf0, 0x7f);
    let mut small = [0; 32];
    small[0] = 1;
    let many: Vec<bytes::Bytes> = (0..=1024).map(|_| good.clone()).collect();
    let cases: [(&str, Vec<bytes::Bytes>, &str); 6] = [
        ("[0]", vec![vec![1; 31].into()], "31 bytes, give 32"),
        (
            "[1]",
            vec![good.clone(), second_form.to_vec().into()],
            "no Ed25519 public key",
        ),
        ("[0]", vec![small.to_vec().into()], "no Ed25519 public key"),
        ("[0]", vec![vec![0xff; 32].into()], "qbc keygen"),
        (
            "[1]",
            vec![good.clone(), good.clone()],
            "name each key once",
        ),
        ("", many, "1025, give at most 1024"),
    ];
    for (at, keys, words) in cases {
        for admins in [false, true] {
            let mut rules = Constitution::default();
            let list = if admins {
                &mut rules.admins
            } else {
                &mut rules.authors
            };
            list.clone_from(&keys);
            let field = if admins { "admins" } else { "authors" };
            let field = format!("constitution.{field}{at}");
            let answer = rig.chains.bang(with_rules("bad", rules)).await;
            names_field(&refused(answer, FIELD, &[&field, words]), &field);
        }
    }
    let fixed = Constitution {
        authors: vec![good],
        ..Default::default()
    };
    let answer = rig.chains.bang(with_rules("fixed", fixed)).await;
    assert!(answer.is_ok(), "authors without an admin stay for ever");
}

#[tokio::test]
async fn unsigned_unknown_and_nameless_transactions_are_refused_by_their_place() {
    let mut rig = Rig::start().await;
    let id = signed(&mut rig, "signed").await;
    let good = || by(1, &id, data("good"));
    let nameless = TransactionInput {
        id: bytes::Bytes::new(),
        ..data("")
    };
    let cases = [
        (data("a"), MISSING, "author", "qbc inject --sign"),
        (by(9, &id, data("a")), UNKNOWN, "author", "qbc amend"),
        (
            by(3, &id, data("a")),
            UNKNOWN,
            "author",
            "none of the authors",
        ),
        (by(1, &id, nameless), NO_ID, "id", "sent again"),
        (
            change("a", &authors(&[1])),
            MISSING,
            "author",
            "one of its admins",
        ),
        (
            by(1, &id, change("a", &authors(&[1]))),
            NOT_ADMIN,
            "author",
            "admins of chain signed",
        ),
    ];
    for (bad, code, field, words) in cases {
        let answer = rig.chains.inject(of("signed", vec![good(), bad])).await;
        let field = format!("transactions[1].{field}");
        names_field(&refused(answer, code, &[&field, words]), &field);
    }
    assert_eq!(rig.count("signed").await, 0);
    let answer = rig.chains.inject(of("signed", vec![good()])).await;
    assert!(answer.is_ok());
}

#[tokio::test]
async fn a_signature_serves_for_its_own_chain_type_key_id_and_payload_alone_and_once() {
    let mut rig = Rig::start().await;
    let (id, other) = (
        signed(&mut rig, "signed").await,
        signed(&mut rig, "other").await,
    );
    let good = by(1, &id, data("one"));
    let with = |edit: fn(&mut TransactionInput)| {
        let mut bad = good.clone();
        edit(&mut bad);
        bad
    };
    let cases = [
        ("another chain", by(1, &other, data("one"))),
        ("another type", {
            let change = by(3, &id, change("one", &authors(&[1])));
            TransactionInput {
                r#type: 0,
                ..change
            }
        }),
        ("another author", with(|one| one.author = public(2))),
        ("another id", with(|one| one.id = "two".into())),
        ("a key", with(|one| one.key = "k".into())),
        ("another payload", with(|one| one.payload = "datA".into())),
        (
            "a flipped bit",
            with(|one| one.signature = flipped(&one.signature, 9)),
        ),
        (
            "S beyond the order",
            with(|one| one.signature = beyond_order(&one.signature)),
        ),
        (
            "R of another sign",
            with(|one| one.signature = flipped(&one.signature, 255)),
        ),
        ("nothing", with(|one| one.signature = vec![0; 64].into())),
        (
            "a key of small order",
            with(|one| {
                let mut small = [0; 32];
                small[0] = 1;
                one.author = small.to_vec().into();
                one.signature = [&small[..], &[0; 32]].concat().into();
            }),
        ),
    ];
    for (what, bad) in cases {
        let answer = rig.chains.inject(of("signed", vec![bad])).await;
        let status = refused(answer, FORGED, &["another chain, type, key or id"]);
        names_field(&status, "transactions[0].signature");
        assert_eq!(rig.count("signed").await, 0, "{what}");
    }
    let short = with(|one| one.signature = one.signature.slice(..63));
    let answer = rig.chains.inject(of("signed", vec![short])).await;
    names_field(
        &refused(answer, FIELD, &["63 bytes, give 64"]),
        "transactions[0].signature",
    );
    for duplicate in [false, true] {
        let answer = rig.chains.inject(of("signed", vec![good.clone()])).await;
        let runs = answer.expect("it is good").into_inner().runs;
        assert_eq!((runs[0].first_index, runs[0].duplicate), (0, duplicate));
    }
    assert_eq!(rig.count("signed").await, 1);
}

fn flipped(signature: &[u8], bit: usize) -> bytes::Bytes {
    let mut signature = signature.to_vec();
    signature[bit / 8] ^= 1 << (bit % 8);
    signature.into()
}

/// The same scalar in its second form: S + L.
fn beyond_order(signature: &[u8]) -> bytes::Bytes {
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let (mut signature, mut carry) = (signature.to_vec(), 0);
    for (byte, order) in signature[32..].iter_mut().zip(order.expect("hex")) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = ((sum & 0xff) as u8, sum >> 8);
    }
    signature.into()
}

#[tokio::test]
async fn of_a_large_batch_the_first_forged_one_is_named_and_none_is_taken() {
    let mut rig = Rig::start().await;
    let id = signed(&mut rig, "signed").await;
    let mut all: Vec<TransactionInput> = (0..300u16)
        .map(|number| {
            let one = TransactionInput {
                id: format!("id {number}").into(),
                payload: vec![7; 100].into(),
                ..Default::default()
            };
            by(1 + (number % 2) as u8, &id, one)
        })
        .collect();
    for bad in [177, 211, 299] {
        all[bad].signature = flipped(&all[bad].signature, 3);
    }
    let answer = rig.chains.inject(of("signed", all.clone())).await;
    names_field(&refused(answer, FORGED, &[]), "transactions[177].signature");
    assert_eq!(rig.count("signed").await, 0);
    for bad in [177, 211, 299] {
        all[bad].signature = flipped(&all[bad].signature, 3);
    }
    let answer = rig.chains.inject(of("signed", all)).await;
    assert_eq!(
        answer.expect("all are good").into_inner().runs[0].count,
        300
    );
}

#[tokio::test]
async fn types_that_clients_do_not_write_and_bad_changes_are_refused() {
    let mut rig = Rig::start().await;
    let id = signed(&mut rig, "signed").await;
    for (kind, code, words) in [
        (2, NOT_ERASABLE, "is not erasable"),
        (3, FIELD, "is no ledger"),
        (4, FIELD, "made by the nodes"),
        (6, FIELD, "give 0, 1, 2 or 3"),
        (256, FIELD, "256 is no type"),
    ] {
        let one = TransactionInput {
            r#type: kind,
            ..data("a")
        };
        let answer = rig.chains.inject(of("signed", vec![one])).await;
        names_field(&refused(answer, code, &[words]), "transactions[0].type");
    }
    let payloads: [(&[u8], &str); 6] = [
        (b"", "changes nothing"),
        (&[7, 0, 0, 0, 9], "cut off"),
        (&[8, 0, 0, 0, 0], "tag 8"),
        (&[9, 0, 0, 0, 4, 0, 0, 0, 0], "leap count is 0"),
        (&[11, 0, 0, 0, 4, 0, 0, 0, 1], "it must have 8"),
        (
            &[[7, 0, 0, 0, 32].as_slice(), &[0xff; 32]].concat(),
            "no Ed25519 public key",
        ),
    ];
    for (payload, words) in payloads {
        let one = TransactionInput {
            r#type: 1,
            payload: payload.to_vec().into(),
            id: "a".into(),
            ..Default::default()
        };
        let answer = rig.chains.inject(of("signed", vec![by(3, &id, one)])).await;
        names_field(
            &refused(answer, CHANGE, &[words, "qbc amend"]),
            "transactions[0].payload",
        );
    }
    assert_eq!(rig.count("signed").await, 0);
}

#[tokio::test]
async fn an_admin_removes_an_author_whose_next_transaction_is_refused_also_after_a_restart() {
    let mut rig = Rig::start().await;
    let id = signed(&mut rig, "signed").await;
    let first = by(1, &id, data("first"));
    let removal = by(3, &id, change("removal", &authors(&[2])));
    let (last, next) = (by(1, &id, data("last")), by(1, &id, data("next")));
    let all = vec![first, last, removal.clone()];
    rig.chains
        .inject(of("signed", all))
        .await
        .expect("in order");
    let answer = rig.chains.inject(of("signed", vec![next.clone()])).await;
    refused(answer, UNKNOWN, &[&hex::encode(key(1).public())]);
    let shown = rig.chain("signed").await;
    assert_eq!((shown.amended_index, shown.amended_height), (Some(2), None));
    let rules = Records::parse(&shown.constitution_in_force).expect("records");
    assert_eq!(rules.authors, [key(2).public()]);
    let first = Records::parse(&shown.constitution).expect("records");
    assert_eq!(first.authors.len(), 2, "Quant 0 says what it said");
    for restarted in [false, true] {
        if restarted {
            rig.restart().await;
        }
        let answer = rig.chains.inject(of("signed", vec![next.clone()])).await;
        refused(answer, UNKNOWN, &[]);
        let answer = rig.chains.inject(of("signed", vec![removal.clone()])).await;
        let runs = answer.expect("a retry").into_inner().runs;
        assert!(runs[0].duplicate && runs[0].first_index == 2);
    }
    rig.leap("signed").await;
    let shown = rig.chain("signed").await;
    assert_eq!(
        (shown.amended_index, shown.amended_height),
        (Some(2), Some(1))
    );
    let by_two = by(2, &id, data("two"));
    rig.chains
        .inject(of("signed", vec![by_two]))
        .await
        .expect("he stayed");
}

#[tokio::test]
async fn timers_change_while_a_pool_waits() {
    let mut rig = Rig::start().await;
    let rules = Constitution {
        admins: vec![public(3)],
        content: Content::Text.into(),
        payload_bytes_max: Some(8),
        ..Default::default()
    };
    let banged = rig.chains.bang(with_rules("timed", rules)).await;
    let id = banged.expect("good rules").into_inner().chain_id;
    let id = ChainId(id.as_ref().try_into().expect("32 bytes"));
    rig.inject("timed", &[b"waits"]).await;
    let timer = ConstitutionChange {
        leap_ms: Edit::Put(50),
        ..Default::default()
    };
    // Neither the content nor the payload limit of the chain is meant for changes.
    let one = by(3, &id, change("timer", &timer));
    rig.chains
        .inject(of("timed", vec![one]))
        .await
        .expect("an admin");
    let sealed = async {
        while rig.chain("timed").await.height == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    crate::rig::in_time(sealed).await;
    let shown = rig.chain("timed").await;
    assert_eq!((shown.pool, shown.amended_height), (0, Some(1)));
}

/// The command line in a folder of its own.
struct Shell<'a> {
    rig: &'a Rig,
}

impl Shell<'_> {
    fn run(&self, command: &str) -> Ran {
        let folder = format!("{}/", self.rig.folder.path().display());
        let command = command.replace("FOLDER/", &folder);
        let heads = self.rig.file("heads.json");
        let words: Vec<&str> = command.split(' ').collect();
        let all = [&["--endpoint", self.rig.node().url()][..], &words].concat();
        qbc(&with_heads(&heads, &all))
    }

    fn json(&self, command: &str) -> serde_json::Value {
        let ran = self.run(&format!("{command} --output json"));
        ran.well(command);
        serde_json::from_str(&ran.stdout).expect("JSON")
    }

    fn fails(&self, command: &str, code: i32, words: &str) {
        let ran = self.run(command);
        assert_eq!(ran.code, Some(code), "{command}: {ran:?}");
        assert!(ran.stderr.contains(words), "{command}: {ran:?}");
    }
}

#[tokio::test]
async fn the_command_line_makes_keys_signs_amends_and_shows_who_wrote_what() {
    let rig = Rig::start().await;
    let shell = Shell { rig: &rig };
    let made = shell.json("keygen -o FOLDER/alice.key");
    let alice = made["public_key"].as_str().expect("hex").to_owned();
    shell.fails("keygen -o FOLDER/alice.key", 2, "never overwritten");
    shell.run("keygen -o FOLDER/bob.key").well("bob");
    shell.run("keygen -o FOLDER/admin.key").well("admin");
    shell
        .run(&format!(
            "bang signed --content json --author {alice} --author @FOLDER/bob.key --admin @FOLDER/admin.key"
        ))
        .well("bang");
    fs::write(rig.file("lines"), "{\"n\":1}\n{\"n\":2}\n").expect("a file");
    shell.fails("inject signed FOLDER/lines", 5, "AUTHOR_MISSING");
    shell
        .run("inject signed FOLDER/lines --format ndjson --sign FOLDER/alice.key --receipt")
        .well("inject");
    shell.fails(
        "amend signed --leap-count 9 --sign FOLDER/alice.key",
        5,
        "NOT_ADMIN",
    );
    shell.fails("amend signed --sign FOLDER/admin.key", 2, "changes nothing");
    shell.fails(
        "amend signed --leap-ms 0 --sign FOLDER/admin.key",
        2,
        "none",
    );
    let amended =
        shell.json("amend signed --author @FOLDER/bob.key --leap-count 9 --sign FOLDER/admin.key");
    assert_eq!(amended["index"], 2);
    shell.fails(
        "inject signed FOLDER/lines --sign FOLDER/alice.key",
        5,
        "AUTHOR_UNKNOWN",
    );
    let shown = shell.json("chain signed");
    assert_eq!(shown["amended"]["proven"], false);
    assert_eq!(shown["amended"]["height"], serde_json::Value::Null);
    shell.run("leap signed").well("leap");
    let shown = shell.json("chain signed");
    assert_eq!(shown["amended"]["proven"], true);
    assert_eq!(shown["constitution_in_force"]["leap_count"], 9);
    let one = shell.json("tx signed 1");
    assert_eq!(
        (&one["author"], &one["author_checked"]),
        (&alice.into(), &true.into())
    );
    let all = shell.json("read signed");
    assert_eq!(all[2]["type"], 1);
    assert_eq!(all[2]["change"]["leap_count"], 9);
    let audited = shell.json("audit signed");
    assert_eq!(
        (&audited["signed"], &audited["amendments"]),
        (&3.into(), &1.into())
    );
    verified_elsewhere(&shell, shown["chain_id"].as_str().expect("hex"));
}

/// Proof and export of a signed and amended chain, offline: by this program and by the one in Python.
fn verified_elsewhere(shell: &Shell<'_>, id: &str) {
    shell
        .run("prove signed 1 -o FOLDER/proof.json")
        .well("prove");
    shell
        .run("export signed -o FOLDER/chain.qbc")
        .well("export");
    let proof = shell.json("verify FOLDER/proof.json");
    let author = proof["transaction"]["author"].as_str().expect("checked");
    assert_eq!(proof["anchored"], true);
    let export = shell.json("verify FOLDER/chain.qbc");
    assert_eq!(
        (&export["signed"], &export["amendments"]),
        (&3.into(), &1.into())
    );
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("not run: there is no python3");
        return;
    }
    let (proof, chain) = (shell.rig.file("proof.json"), shell.rig.file("chain.qbc"));
    let said = python(&proof, id);
    assert!(said.contains(&format!("author: {author}")), "{said}");
    let said = python(&chain, id);
    assert!(
        said.contains("amendments: 1") && said.contains("signed: 3"),
        "{said}"
    );
    let mut forged = fs::read_to_string(&proof).expect("text");
    let at = forged.find(author).expect("in the attributes") + 64 + 10 + 8;
    let digit = if forged.as_bytes()[at] == b'0' {
        "1"
    } else {
        "0"
    };
    forged.replace_range(at..=at, digit);
    fs::write(&proof, forged).expect("a file");
    shell.fails("verify FOLDER/proof.json", 7, "attributes-hash");
}

fn python(file: &Path, id: &str) -> String {
    let verifier = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verifier.py");
    let ran = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(verifier)
        .arg(file)
        .args(["--trust-chain", id])
        .output()
        .expect("python3 runs");
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).expect("text")
}
