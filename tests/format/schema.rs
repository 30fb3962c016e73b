//! The schema of a chain's payloads in the audit of an export: a payload that it does not allow is refused, and where it
//! can't be applied the verdict says so.

use qbc::chain::{
    Authority, Birth, ChainId, Constitution, Content, EXPORT_END, EXPORT_QUANT, EXPORT_TRANSACTION,
    Envelope, ExportVerdict, ExportVerifier, Frontier, HashAlg, Header, Meta, Refused, Trust,
    attributes_hash, export_frame, export_magic, genesis_header, payload_hash, tree_root,
};

const ALG: HashAlg = HashAlg::Sha3_256;
const SCHEMA: &str = r#"{"type": "object", "required": ["item"], "properties": {"count": {"type": "integer", "minimum": 1}}}"#;

#[test]
fn an_export_with_payloads_that_match_says_how_many() {
    let verdict = audit(
        SCHEMA,
        &[r#"{"item": "tea"}"#, r#"{"item": "milk", "count": 2}"#],
    )
    .unwrap();
    assert!(
        verdict
            .steps
            .iter()
            .any(|step| step == "2 payloads match the JSON schema"),
        "{:?}",
        verdict.steps
    );
    assert_eq!(verdict.transactions, 2);
}

#[test]
fn a_payload_that_the_schema_does_not_allow_is_refused_with_its_place() {
    let cases = [
        (
            r#"{"item": "tea", "count": 0}"#,
            "audit-schema",
            "at /count",
        ),
        (
            r#"{"count": 1}"#,
            "audit-schema",
            "\"item\" is a required property",
        ),
        (r#"{"item": 1, "item": 2}"#, "audit-content", "stands twice"),
        ("{", "audit-content", "ends before"),
    ];
    for (payload, check, part) in cases {
        let refused = audit(SCHEMA, &[r#"{"item": "tea"}"#, payload]).expect_err(payload);
        assert_eq!(refused.check, check, "{refused}");
        assert!(
            refused.why.contains("transaction 1") && refused.why.contains(part),
            "{refused}"
        );
    }
}

#[test]
fn a_schema_that_this_version_cant_apply_is_said_and_the_rest_is_checked() {
    let beyond = r#"{"$ref": "https://example.com/schema.json"}"#;
    let verdict = audit(beyond, &["{}", "[]"]).unwrap();
    let said = verdict
        .steps
        .iter()
        .find(|step| step.starts_with("2 payloads were not checked against the JSON schema"));
    assert!(
        said.is_some_and(|said| said.contains("leads out of the schema")),
        "{:?}",
        verdict.steps
    );
    assert_eq!(
        audit(beyond, &["{"]).expect_err("no JSON").check,
        "audit-content"
    );
}

#[test]
fn a_payload_that_takes_too_long_to_check_is_counted_as_not_checked() {
    let branches: Vec<String> = (0..1500)
        .map(|number| format!("{{\"minimum\": {number}}}"))
        .collect();
    let slow = format!("{{\"items\": {{\"allOf\": [{}]}}}}", branches.join(","));
    let many = format!("[{}2000]", "2000,".repeat(1000));
    let verdict = audit(&slow, &["[2000]", &many]).unwrap();
    let said = |part: &str| verdict.steps.iter().any(|step| step.contains(part));
    assert!(
        said("1 payloads match")
            && said(
                "1 payloads were not checked against the JSON schema: transaction 1: to check the payload"
            ),
        "{:?}",
        verdict.steps
    );
}

fn audit(schema: &str, payloads: &[&str]) -> Result<ExportVerdict, Refused> {
    let mut verifier = ExportVerifier::new(vec![Trust::SelfConsistent]);
    verifier.push(&export(schema, payloads))?;
    verifier.finish()
}

/// A genesis and one Quant, as a server could have made them that checks nothing.
fn export(schema: &str, payloads: &[&str]) -> Vec<u8> {
    let meta = genesis_meta(schema);
    let genesis = genesis_header(ALG, 1, 0, &meta);
    let id = ChainId(genesis.hash());
    let envelopes: Vec<Envelope> = payloads
        .iter()
        .enumerate()
        .map(|(at, payload)| envelope(id, at, payload))
        .collect();
    let leaves: Vec<_> = envelopes
        .iter()
        .map(|envelope| envelope.leaf(ALG))
        .collect();
    let mut history = Frontier::new();
    history.push(ALG, genesis.hash());
    let quant = Header {
        genesis: false,
        chain_id: id,
        height: 1,
        time_ms: 3,
        tx_count: payloads.len() as u32,
        meta_len: 0,
        prev_hash: genesis.hash(),
        tx_root: tree_root(ALG, &leaves),
        hist_root: history.root(ALG),
        meta_hash: ALG.hash(&[]),
        ..genesis.clone()
    };
    let mut file = export_magic().to_vec();
    file.extend(export_frame(EXPORT_QUANT, &[&genesis.to_bytes(), &meta]));
    file.extend(export_frame(EXPORT_QUANT, &[&quant.to_bytes()]));
    for (envelope, payload) in envelopes.iter().zip(payloads) {
        let envelope = envelope.to_bytes();
        let parts = [&envelope[..], &[0; 4], payload.as_bytes()];
        file.extend(export_frame(EXPORT_TRANSACTION, &parts));
    }
    let counts = [2u64.to_be_bytes(), (payloads.len() as u64).to_be_bytes()];
    file.extend(export_frame(EXPORT_END, &[counts.as_flattened()]));
    file
}

fn genesis_meta(schema: &str) -> Vec<u8> {
    let birth = Birth {
        name: "orders".into(),
        created_ms: 1,
        salt: [2; 16],
        authority: Authority {
            threshold: 1,
            roots: vec![[3; 32]],
        },
        cluster_id: [5; 16],
    };
    let constitution = Constitution {
        content: Content::Json,
        schema: Some(schema.into()),
        ..Constitution::from(birth)
    };
    let bytes = constitution.to_bytes();
    let in_force = (Constitution::hash(ALG, &bytes), 0);
    let meta = Meta {
        constitution: Some(bytes),
        constitution_in_force: Some(in_force),
        ..Meta::default()
    };
    meta.to_bytes()
}

fn envelope(chain_id: ChainId, at: usize, payload: &str) -> Envelope {
    Envelope {
        kind: 0,
        salted: false,
        chain_id,
        index: at as u64,
        inject_ms: 2,
        payload_len: payload.len() as u64,
        payload_hash: payload_hash(ALG, payload.as_bytes(), None),
        attributes_hash: attributes_hash(ALG, &[]),
    }
}
