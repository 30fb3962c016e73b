//! `qbc verify`: check a proof or export file, offline.
//!
//! Trust is what the options say; else the CLI's own file of trusted heads.
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    chain::{
        Anchored, ChainId, ExportVerifier, Hash, Header, ProvenState, Refused, SigAlgs,
        StateSubject, Trust, balance_amount, export_magic, latest_index, proof_from_json,
        verify_requiring,
    },
    cli::{
        Global,
        exit::CliError,
        output::{Printer, say},
        session::heads_path,
        shape,
    },
    client::{ClientError, Heads, Trusted},
};

/// A proof file is far smaller: payload and schema of 1 MiB each, in hex.
const PROOF_BYTES_MAX: u64 = 64 << 20;
const PIECE_BYTES: usize = 1 << 20;

#[derive(clap::Args)]
pub(super) struct VerifyArgs {
    /// The file: a proof, or an export
    file: PathBuf,
    /// Trust this chain: what its authority signed
    #[arg(long, value_name = "ID")]
    trust_chain: Option<ChainId>,
    /// Trust this head: what lies in its history; or, of all chains, the root that qbc head --all gives
    #[arg(long, value_name = "HASH", value_parser = hash)]
    trust_head: Option<Hash>,
    /// Ask only whether the file is consistent in itself
    #[arg(long)]
    self_consistent: bool,
}

/// What was found, of either kind of file.
struct Found {
    anchored: Anchored,
    head: Header,
    steps: Vec<String>,
    details: Value,
}

pub(super) fn run(args: &VerifyArgs, global: &Global) -> Result<(), CliError> {
    let mut printer = Printer::stdout(global.output);
    match check(args, global) {
        Ok(found) => conclude(args, &found, &mut printer),
        Err(error) => {
            refuse(&error, &mut printer)?;
            Err(error)
        }
    }
}

fn check(args: &VerifyArgs, global: &Global) -> Result<Found, CliError> {
    let heads = trusted_heads(args, global)?;
    let trust = trust(args, &heads);
    let required = global.require_alg.unwrap_or_default();
    let io = |e| ClientError::io(&args.file, e);
    let mut file = File::open(&args.file).map_err(io)?;
    let mut start = Vec::new();
    let magic = export_magic();
    file.by_ref()
        .take(magic.len() as u64)
        .read_to_end(&mut start)
        .map_err(io)?;
    let found = if start == magic {
        check_export(&args.file, file, trust, required)?
    } else {
        check_proof(&args.file, (start, file), &trust, required)?
    };
    check_equivocation(&found.head, &heads)?;
    Ok(found)
}

fn check_proof(
    path: &Path,
    (mut text, file): (Vec<u8>, File),
    trust: &[Trust],
    required: SigAlgs,
) -> Result<Found, CliError> {
    let read = file.take(PROOF_BYTES_MAX).read_to_end(&mut text);
    read.map_err(|e| ClientError::io(path, e))?;
    let proof = proof_from_json(&text)?;
    let verdict = verify_requiring(&proof, trust, required)?;
    let transaction = verdict.transaction.as_ref().map(|transaction| {
        json!({
            "index": transaction.envelope.index,
            "height": transaction.height,
            "inject_ms": transaction.envelope.inject_ms,
            "payload_hash": hex::encode(transaction.envelope.payload_hash),
            "payload_shown": transaction.payload_shown,
            "author": transaction.author.map(hex::encode),
        })
    });
    Ok(Found {
        anchored: verdict.anchored,
        details: json!({
            "transaction": transaction,
            "state": verdict.state.as_ref().map(state),
            "checkpoint": verdict.checkpoint.as_ref().map(shape::checkpoint),
            "whole": verdict.whole.as_ref().map(shape::whole),
        }),
        head: verdict.head,
        steps: verdict.steps,
    })
}

fn state(state: &ProvenState) -> Value {
    let (subject, name) = match StateSubject::of(&state.state_key) {
        Some(StateSubject::Key(key)) => ("key", key),
        Some(StateSubject::Account(account)) => ("account", account),
        None => return Value::Null,
    };
    let value = state.value.as_deref();
    json!({
        subject: shape::text_or_base64(name),
        "latest_index": value.and_then(|value| latest_index(value).ok()),
        "balance": value.and_then(|value| balance_amount(value).ok()).map(|balance| balance.to_string()),
        "present": value.is_some(),
    })
}

fn check_export(
    path: &Path,
    mut file: File,
    trust: Vec<Trust>,
    required: SigAlgs,
) -> Result<Found, CliError> {
    let mut verifier = ExportVerifier::new(trust).requiring(required);
    verifier.push(export_magic())?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => verifier.push(&piece[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ClientError::io(path, e).into()),
        }
    }
    let verdict = verifier.finish()?;
    Ok(Found {
        anchored: verdict.anchored,
        details: json!({
            "chain": verdict.name,
            "quants": verdict.quants,
            "transactions": verdict.transactions,
            "signed": verdict.signed,
            "amendments": verdict.changes,
            "erased": verdict.erased,
            "unexplained": verdict.unexplained,
        }),
        head: verdict.head,
        steps: verdict.steps,
    })
}

/// Prints the verdict; one that nobody vouches for is an error unless that was asked for.
fn conclude(args: &VerifyArgs, found: &Found, printer: &mut Printer) -> Result<(), CliError> {
    let verdict = match found.anchored {
        Anchored::No => "self-consistent, vouched for by nobody",
        _ => "verified",
    };
    let mut lines = found.steps.clone();
    lines.push(match &found.anchored {
        Anchored::No => verdict.to_owned(),
        Anchored::ByHead(hash) => {
            format!("verified against the trusted head {}", hex::encode(hash))
        }
        Anchored::ByRoot(hash) => format!(
            "verified against the trusted root {} of the log of all chains",
            hex::encode(hash)
        ),
        Anchored::ByChain(id, nodes) => {
            format!("verified against the trusted chain {id}, signed by node {nodes:?}")
        }
    });
    let mut object = json!({
        "verdict": verdict,
        "anchored": found.anchored != Anchored::No,
        "anchored_by": anchored_by(&found.anchored),
        "chain_id": found.head.id().to_string(),
        "head": {"height": found.head.height, "quant_hash": hex::encode(found.head.hash())},
        "steps": found.steps,
    });
    if let (Value::Object(object), Value::Object(details)) = (&mut object, &found.details) {
        object.extend(details.clone());
    }
    printer.text_or_object(&lines, &object)?;
    if found.anchored != Anchored::No || args.self_consistent {
        return Ok(());
    }
    let why = format!(
        "nothing that you trust vouches for chain {}; give --trust-chain or --trust-head from a source that you trust, \
         or --self-consistent",
        found.head.id()
    );
    Err(CliError::NotAnchored(why))
}

fn anchored_by(anchored: &Anchored) -> Value {
    match anchored {
        Anchored::No => Value::Null,
        Anchored::ByHead(hash) => json!({"quant_hash": hex::encode(hash)}),
        Anchored::ByRoot(hash) => json!({"root": hex::encode(hash)}),
        Anchored::ByChain(id, nodes) => json!({"chain_id": id.to_string(), "nodes": nodes}),
    }
}

/// A refusal is a verdict too, for programs that read stdout.
fn refuse(error: &CliError, printer: &mut Printer) -> Result<(), CliError> {
    let CliError::Client(ClientError::Refused(refused)) = error else {
        return Ok(());
    };
    let object = json!({
        "verdict": "refused",
        "anchored": false,
        "check": refused.check,
        "why": refused.why,
    });
    printer.text_or_object(&[], &object)?;
    Ok(())
}

fn trusted_heads(args: &VerifyArgs, global: &Global) -> Result<Vec<Trusted>, CliError> {
    if args.trust_chain.is_some() || args.trust_head.is_some() || args.self_consistent {
        return Ok(Vec::new());
    }
    let path = match heads_path(global.heads.as_deref()) {
        Ok(path) => path,
        Err(error) => {
            say(error.to_string());
            return Ok(Vec::new());
        }
    };
    Ok(Heads::file(path).all()?)
}

fn trust(args: &VerifyArgs, heads: &[Trusted]) -> Vec<Trust> {
    let mut trust = Vec::new();
    trust.extend(args.trust_head.map(Trust::Head));
    trust.extend(args.trust_chain.map(Trust::Chain));
    if args.self_consistent {
        trust.push(Trust::SelfConsistent);
    }
    for head in heads {
        trust.push(Trust::Head(head.hash));
        trust.push(Trust::Chain(head.chain_id));
    }
    trust
}

/// A file may not show another Quant where our own trusted head stands, signed or not.
fn check_equivocation(head: &Header, heads: &[Trusted]) -> Result<(), Refused> {
    let ours = heads
        .iter()
        .find(|ours| ours.chain_id == head.id() && ours.header.height == head.height);
    match ours {
        Some(ours) if ours.hash != head.hash() => {
            let why = format!(
                "at height {} the trusted head of chain {} is {}, the file ends in {}: two histories, keep both as evidence",
                head.height,
                ours.chain_id,
                hex::encode(ours.hash),
                hex::encode(head.hash())
            );
            Err(Refused::new("head-equivocation", why))
        }
        _ => Ok(()),
    }
}

fn hash(text: &str) -> Result<Hash, String> {
    let bytes = hex::decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "a hash is 64 hex digits".to_owned())
}
