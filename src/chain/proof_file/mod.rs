//! The proof file: a proof as JSON text, and back, strictly. Every field is checked or absent.

mod json;
mod whole;

use serde_json::{Map, Value};

use self::json::{Fields, Json, NUMBER_MAX};
use crate::chain::authority::{Certificate, HeadSignature};
use crate::chain::hash::Hash;
use crate::chain::proof::{
    ChangeEvidence, Claim, HeadEvidence, LogEvidence, ParentEvidence, Proof, StateEvidence, Step,
    TransactionEvidence,
};
use crate::chain::refused::Refused;
use crate::chain::super_log::{Checkpoint, GroupLeaf};

/// Version of the proof file that this code reads and writes.
pub const PROOF_FILE_VERSION: u64 = 1;

/// The proof as JSON text, indented, with a newline at the end.
pub fn proof_to_json(proof: &Proof) -> String {
    let mut file = Map::new();
    file.insert("qbc_proof".into(), number(PROOF_FILE_VERSION));
    put_claim(&mut file, &proof.claim);
    file.insert("steps".into(), list(&proof.steps, step_value));
    file.insert("head".into(), head_value(&proof.head));
    if let Some(log) = &proof.log {
        file.insert("log".into(), log_value(log));
    }
    format!("{:#}\n", Value::Object(file))
}

/// Reads a proof file. Whatever is not exactly a proof of this version is refused.
pub fn proof_from_json(bytes: &[u8]) -> Result<Proof, Refused> {
    let mut file = Json::parse(bytes)?.fields("")?;
    check_version(&mut file)?;
    let proof = Proof {
        claim: read_claim(&mut file)?,
        steps: file.list("steps", read_step)?,
        head: read_head(file.object("head")?)?,
        log: file.object_if("log")?.map(read_log).transpose()?,
    };
    file.end()?;
    Ok(proof)
}

fn check_version(file: &mut Fields) -> Result<(), Refused> {
    let version = file
        .integer("qbc_proof")
        .map_err(|e| Refused::new("version", e.why))?;
    if version == PROOF_FILE_VERSION {
        return Ok(());
    }
    let why =
        format!("the proof file is of version {version}, this program reads {PROOF_FILE_VERSION}");
    Err(Refused::new("version", why))
}

fn read_claim(file: &mut Fields) -> Result<Claim, Refused> {
    match file.text("claim")?.as_str() {
        "inclusion" => Ok(Claim::Inclusion(read_transaction(
            file.object("transaction")?,
        )?)),
        "state" => Ok(Claim::State(read_state(file)?)),
        "extension" => Ok(Claim::Extension {
            old: file.hex("old")?,
        }),
        "agreement" => Ok(Claim::Agreement(read_parent(file.object("parent")?)?)),
        "parting" => Ok(Claim::Parting {
            parent: read_parent(file.object("parent")?)?,
            next: file.hex("next")?,
            next_path: file.hashes("next_path")?,
        }),
        "whole" => Ok(Claim::Whole(whole::read(file.object("whole")?)?)),
        other => Err(Refused::new(
            "field",
            format!(
                "claim {other:?} is none of inclusion, state, extension, agreement, parting, whole"
            ),
        )),
    }
}

fn read_transaction(mut fields: Fields) -> Result<TransactionEvidence, Refused> {
    let evidence = TransactionEvidence {
        envelope: fields.hex("envelope")?,
        attributes: fields.hex_if("attributes")?,
        payload: fields.hex_if("payload")?,
        salt: fields.hash_if("salt")?,
    };
    fields.end()?;
    Ok(evidence)
}

fn read_state(file: &mut Fields) -> Result<StateEvidence, Refused> {
    let mut fields = file.object("state")?;
    let evidence = StateEvidence {
        header: fields.hex("header")?,
        meta: fields.hex("meta")?,
        state_key: fields.hex("key")?,
        proof: fields.hex("proof")?,
        latest: file
            .object_if("transaction")?
            .map(read_transaction)
            .transpose()?,
    };
    fields.end()?;
    Ok(evidence)
}

fn read_parent(mut fields: Fields) -> Result<ParentEvidence, Refused> {
    let evidence = ParentEvidence {
        fork_genesis: fields.hex("fork_genesis")?,
        parent: fields.hex("header")?,
        path: fields.hashes("path")?,
    };
    fields.end()?;
    Ok(evidence)
}

fn read_step(value: Json, place: &str) -> Result<Step, Refused> {
    let mut fields = value.fields(place)?;
    let link = fields.text("link")?;
    let header = fields.hex("header")?;
    let path = fields.hashes("path")?;
    let step = match link.as_str() {
        "quant" => Step::Quant { header, path },
        "history" => Step::History {
            header,
            path,
            borders: fields.hexes("borders")?,
        },
        "anchor" => Step::Anchor {
            header,
            index: fields.integer("index")?,
            path,
        },
        other => {
            return Err(Refused::new(
                "field",
                format!("{place}.link {other:?} is none of quant, history, anchor"),
            ));
        }
    };
    fields.end()?;
    Ok(step)
}

fn read_head(mut fields: Fields) -> Result<HeadEvidence, Refused> {
    let head = HeadEvidence {
        signatures: fields.list("signatures", read_signature)?,
        genesis: fields.object_if("genesis")?.map(read_genesis).transpose()?,
        authority_changes: fields.list("authority_changes", read_change)?,
    };
    fields.end()?;
    Ok(head)
}

fn read_log(mut fields: Fields) -> Result<LogEvidence, Refused> {
    let mut checkpoint = fields.object("checkpoint")?;
    let group = fields.integer("group")?;
    let log = LogEvidence {
        group: GroupLeaf {
            group: u32::try_from(group).map_err(|_| {
                Refused::new(
                    "integer",
                    format!("log.group is {group}, at most {}", u32::MAX),
                )
            })?,
            size: fields.integer("size")?,
            root: fields.hash("root")?,
        },
        index: fields.integer("index")?,
        path: fields.hashes("path")?,
        super_index: fields.integer("super_index")?,
        super_path: fields.hashes("super_path")?,
        checkpoint: Checkpoint {
            cluster_id: read_cluster(&checkpoint.hex("cluster_id")?)?,
            size: checkpoint.integer("size")?,
            root: checkpoint.hash("root")?,
        },
        signatures: checkpoint.list("signatures", read_signature)?,
    };
    checkpoint.end()?;
    fields.end()?;
    Ok(log)
}

fn read_cluster(bytes: &[u8]) -> Result<[u8; 16], Refused> {
    bytes.try_into().map_err(|_| {
        let why = format!(
            "log.checkpoint.cluster_id has {} bytes, it has 16",
            bytes.len()
        );
        Refused::new("hex", why)
    })
}

fn read_signature(value: Json, place: &str) -> Result<HeadSignature, Refused> {
    let mut fields = value.fields(place)?;
    let alg = fields.integer("alg")?;
    let signature = HeadSignature {
        alg: u8::try_from(alg)
            .map_err(|_| Refused::new("integer", format!("{place}.alg is {alg}, at most 255")))?,
        key_id: fields.hash("key_id")?,
        time_s: fields.integer("time_s")?,
        signature: fields.hex("signature")?,
        certificate: Certificate::parse(&fields.hex("certificate")?)?,
    };
    fields.end()?;
    Ok(signature)
}

fn read_genesis(mut fields: Fields) -> Result<(Vec<u8>, Vec<u8>), Refused> {
    let genesis = (fields.hex("header")?, fields.hex("meta")?);
    fields.end()?;
    Ok(genesis)
}

fn read_change(value: Json, place: &str) -> Result<ChangeEvidence, Refused> {
    let mut fields = value.fields(place)?;
    let change = ChangeEvidence {
        header: fields.hex("header")?,
        meta: fields.hex("meta")?,
        path: fields.hashes("path")?,
    };
    fields.end()?;
    Ok(change)
}

fn put_claim(file: &mut Map<String, Value>, claim: &Claim) {
    let name = match claim {
        Claim::Inclusion(_) => "inclusion",
        Claim::State(_) => "state",
        Claim::Extension { .. } => "extension",
        Claim::Agreement(_) => "agreement",
        Claim::Parting { .. } => "parting",
        Claim::Whole(_) => "whole",
    };
    file.insert("claim".into(), name.into());
    match claim {
        Claim::Inclusion(evidence) => {
            file.insert("transaction".into(), transaction_value(evidence));
        }
        Claim::State(evidence) => {
            file.insert("state".into(), state_value(evidence));
            if let Some(latest) = &evidence.latest {
                file.insert("transaction".into(), transaction_value(latest));
            }
        }
        Claim::Extension { old } => {
            file.insert("old".into(), hex_value(old));
        }
        Claim::Agreement(parent) => {
            file.insert("parent".into(), parent_value(parent));
        }
        Claim::Parting {
            parent,
            next,
            next_path,
        } => {
            file.insert("parent".into(), parent_value(parent));
            file.insert("next".into(), hex_value(next));
            file.insert("next_path".into(), path_value(next_path));
        }
        Claim::Whole(evidence) => {
            file.insert("whole".into(), whole::value(evidence));
        }
    }
}

fn transaction_value(evidence: &TransactionEvidence) -> Value {
    let mut fields = Map::new();
    fields.insert("envelope".into(), hex_value(&evidence.envelope));
    let shown = [
        ("attributes", evidence.attributes.as_deref()),
        ("payload", evidence.payload.as_deref()),
        ("salt", evidence.salt.as_ref().map(|s| &s[..])),
    ];
    for (name, bytes) in shown {
        if let Some(bytes) = bytes {
            fields.insert(name.into(), hex_value(bytes));
        }
    }
    Value::Object(fields)
}

fn state_value(evidence: &StateEvidence) -> Value {
    object([
        ("header", hex_value(&evidence.header)),
        ("meta", hex_value(&evidence.meta)),
        ("key", hex_value(&evidence.state_key)),
        ("proof", hex_value(&evidence.proof)),
    ])
}

fn parent_value(evidence: &ParentEvidence) -> Value {
    object([
        ("fork_genesis", hex_value(&evidence.fork_genesis)),
        ("header", hex_value(&evidence.parent)),
        ("path", path_value(&evidence.path)),
    ])
}

fn step_value(step: &Step) -> Value {
    match step {
        Step::Quant { header, path } => object([
            ("link", "quant".into()),
            ("header", hex_value(header)),
            ("path", path_value(path)),
        ]),
        Step::History {
            header,
            path,
            borders,
        } => object([
            ("link", "history".into()),
            ("header", hex_value(header)),
            ("path", path_value(path)),
            ("borders", list(borders, |b| hex_value(b))),
        ]),
        Step::Anchor {
            header,
            index,
            path,
        } => object([
            ("link", "anchor".into()),
            ("header", hex_value(header)),
            ("index", number(*index)),
            ("path", path_value(path)),
        ]),
    }
}

fn head_value(head: &HeadEvidence) -> Value {
    let mut fields = Map::new();
    fields.insert("signatures".into(), list(&head.signatures, signature_value));
    if let Some((header, meta)) = &head.genesis {
        fields.insert(
            "genesis".into(),
            object([("header", hex_value(header)), ("meta", hex_value(meta))]),
        );
    }
    fields.insert(
        "authority_changes".into(),
        list(&head.authority_changes, change_value),
    );
    Value::Object(fields)
}

fn log_value(log: &LogEvidence) -> Value {
    object([
        ("group", log.group.group.into()),
        ("size", number(log.group.size)),
        ("root", hex_value(&log.group.root)),
        ("index", number(log.index)),
        ("path", path_value(&log.path)),
        ("super_index", number(log.super_index)),
        ("super_path", path_value(&log.super_path)),
        (
            "checkpoint",
            object([
                ("cluster_id", hex_value(&log.checkpoint.cluster_id)),
                ("size", number(log.checkpoint.size)),
                ("root", hex_value(&log.checkpoint.root)),
                ("signatures", list(&log.signatures, signature_value)),
            ]),
        ),
    ])
}

fn signature_value(signature: &HeadSignature) -> Value {
    object([
        ("alg", signature.alg.into()),
        ("key_id", hex_value(&signature.key_id)),
        ("time_s", number(signature.time_s)),
        ("signature", hex_value(&signature.signature)),
        ("certificate", hex_value(&signature.certificate.to_bytes())),
    ])
}

fn change_value(change: &ChangeEvidence) -> Value {
    object([
        ("header", hex_value(&change.header)),
        ("meta", hex_value(&change.meta)),
        ("path", path_value(&change.path)),
    ])
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

fn list<T>(items: &[T], value: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(value).collect())
}

fn path_value(path: &[Hash]) -> Value {
    list(path, |hash| hex_value(hash))
}

fn hex_value(bytes: &[u8]) -> Value {
    hex::encode(bytes).into()
}

/// A number up to 2^53, beyond it a string: no JSON reader may round it.
fn number(value: u64) -> Value {
    if value > NUMBER_MAX {
        value.to_string().into()
    } else {
        value.into()
    }
}
