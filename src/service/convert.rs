//! Values to messages and back. Bytes become types once, here.

use bytes::Bytes;
use tonic::Status;

use super::catalog::ChainReads;
use super::limits::WORK_BITS_MIN_MAX;
use super::status::{invalid, of_read, of_store, status};
use crate::chain::{
    Attributes, Birth, Constitution, Content, Hash, HashAlg, HeadSignature, Header, Mint, Work,
};
use crate::engine::TransactionView;
use crate::proto;
use crate::seal::MiningProgress;
use crate::store::QuantRow;

pub fn bytes32(field: &str, bytes: &[u8]) -> Result<Hash, Status> {
    bytes.try_into().map_err(|_| {
        invalid(
            field,
            format!("it has {} bytes, give 32 or none", bytes.len()),
        )
    })
}

pub fn optional_hash(field: &str, bytes: &[u8]) -> Result<Option<Hash>, Status> {
    if bytes.is_empty() {
        Ok(None)
    } else {
        bytes32(field, bytes).map(Some)
    }
}

pub fn paths(hashes: Vec<Hash>) -> Vec<Bytes> {
    // They share one buffer.
    let all = Bytes::from(hashes.into_flattened());
    let starts = (0..all.len()).step_by(32);
    starts.map(|start| all.slice(start..start + 32)).collect()
}

pub fn quant(row: QuantRow) -> Result<proto::Quant, Status> {
    let header = row.parse().map_err(|error| of_store(&error))?;
    Ok(quant_of(&header, row))
}

pub fn quant_of(header: &Header, row: QuantRow) -> proto::Quant {
    proto::Quant {
        header: Bytes::copy_from_slice(&header.to_bytes()),
        meta: row.meta.into(),
        quant_hash: Bytes::copy_from_slice(&header.hash()),
        height: header.height,
        time_ms: header.time_ms,
        tx_start: header.tx_start,
        tx_count: header.tx_count,
        r#final: header.is_final,
        anchors: row.anchors.into(),
    }
}

pub fn signature(signature: &HeadSignature) -> proto::HeadSignature {
    proto::HeadSignature {
        node_id: signature.certificate.node_id,
        alg: u32::from(signature.alg),
        key_id: Bytes::copy_from_slice(&signature.key_id),
        time_s: signature.time_s,
        signature: signature.signature.clone().into(),
        certificate: signature.certificate.to_bytes().into(),
    }
}

pub fn mining(progress: &MiningProgress) -> proto::Mining {
    proto::Mining {
        height: progress.height,
        bits: u32::from(progress.bits),
        tries: progress.tries,
        tries_per_second: progress.tries_per_second(),
        tries_expected: progress.tries_expected(),
        elapsed_ms: progress.elapsed.as_millis() as u64,
    }
}

/// A stored transaction as clients see it; `height` is that of the Quant that seals it.
pub fn transaction(
    reads: &ChainReads<'_>,
    view: &TransactionView,
    height: Option<u64>,
) -> Result<proto::Transaction, Status> {
    let row = view.row().map_err(|error| of_store(&error))?;
    let attributes = attributes(view.index, row.attributes)?;
    Ok(proto::Transaction {
        index: view.index,
        height,
        proven: height.is_some(),
        inject_ms: row.inject_ms,
        r#type: u32::from(row.kind),
        flags: u32::from(row.salted()),
        payload: Bytes::copy_from_slice(row.payload),
        attributes: Bytes::copy_from_slice(row.attributes),
        salt: Bytes::copy_from_slice(row.salt.map_or(&[][..], |salt| salt)),
        key: attributes.key.unwrap_or_default().into(),
        id: attributes.id.unwrap_or_default().into(),
        author: Bytes::copy_from_slice(attributes.author.as_ref().map_or(&[][..], |author| author)),
        erasure: erasure(reads, view)?,
    })
}

/// The stored attributes of a transaction.
pub fn attributes(index: u64, bytes: &[u8]) -> Result<Attributes, Status> {
    Attributes::parse(bytes).map_err(|_| {
        status(
            "CHAIN_DAMAGED",
            format!("the attributes of transaction {index} can't be read"),
            &[],
        )
    })
}

/// What stands for the payload of an erased transaction.
pub fn erasure(
    reads: &ChainReads<'_>,
    view: &TransactionView,
) -> Result<Option<proto::Erasure>, Status> {
    let row = view.row().map_err(|error| of_store(&error))?;
    let Some(erased) = row.erased else {
        return Ok(None);
    };
    let tombstone = reads
        .reader()
        .tombstone(&reads.chain, view, erased.tombstone);
    let tombstone = tombstone.map_err(|error| of_read(&error))?;
    let stone = tombstone.row().map_err(|error| of_store(&error))?;
    Ok(Some(proto::Erasure {
        index: erased.tombstone,
        inject_ms: stone.inject_ms,
        payload: Bytes::copy_from_slice(stone.payload),
        attributes: Bytes::copy_from_slice(stone.attributes),
        payload_hash: Bytes::copy_from_slice(&row.payload_hash),
        payload_len: erased.payload_len,
    }))
}

pub fn hash_alg(asked: &proto::Constitution) -> Result<HashAlg, Status> {
    match proto::constitution::HashAlg::try_from(asked.hash_alg) {
        Ok(proto::constitution::HashAlg::Unspecified | proto::constitution::HashAlg::Sha3256) => {
            Ok(HashAlg::Sha3_256)
        }
        Ok(proto::constitution::HashAlg::Sha2256) => Ok(HashAlg::Sha2_256),
        Err(_) => Err(invalid(
            "constitution.hash_alg",
            format!(
                "{} is unknown; give HASH_ALG_SHA3_256 or HASH_ALG_SHA2_256",
                asked.hash_alg
            ),
        )),
    }
}

pub fn constitution(asked: &proto::Constitution, birth: Birth) -> Result<Constitution, Status> {
    Ok(Constitution {
        content: content(asked)?,
        schema: (!asked.schema.is_empty()).then(|| asked.schema.to_vec()),
        authors: keys("constitution.authors", &asked.authors)?,
        admins: keys("constitution.admins", &asked.admins)?,
        leap_count: asked.leap_count,
        leap_bytes: asked.leap_bytes,
        leap_ms: asked.leap_ms,
        work: work(asked)?,
        quorum: asked
            .quorum
            .map(|quorum| small("constitution.quorum", quorum))
            .transpose()?,
        ledger: asked.rules_ledger,
        mint: mint(asked)?,
        erasable: asked.erasable,
        keyed: asked.keyed,
        payload_max: asked.payload_bytes_max,
        ..Constitution::from(birth)
    })
}

fn content(asked: &proto::Constitution) -> Result<Content, Status> {
    use proto::constitution::Content as Asked;
    match Asked::try_from(asked.content) {
        Ok(Asked::Unspecified) if asked.rules_ledger => Ok(Content::Json),
        Ok(Asked::Unspecified | Asked::Bytes) => Ok(Content::Bytes),
        Ok(Asked::Text) => Ok(Content::Text),
        Ok(Asked::Json) => Ok(Content::Json),
        Ok(Asked::Msgpack) => Ok(Content::MsgPack),
        Err(_) => Err(invalid(
            "constitution.content",
            format!(
                "{} is unknown; give bytes, text, json or msgpack",
                asked.content
            ),
        )),
    }
}

pub fn keys(field: &str, keys: &[Bytes]) -> Result<Vec<[u8; 32]>, Status> {
    keys.iter()
        .enumerate()
        .map(|(at, key)| bytes32(&format!("{field}[{at}]"), key))
        .collect()
}

fn work(asked: &proto::Constitution) -> Result<Option<Work>, Status> {
    let Some(bits) = asked.work_bits_min else {
        if asked.work_target_ms.is_some() {
            let why = "without work_bits_min there is no work; give both, or leave it out";
            return Err(invalid("constitution.work_target_ms", why));
        }
        return Ok(None);
    };
    let bits_min = u16::try_from(bits).ok();
    let bits_min = bits_min.filter(|bits| (1..=WORK_BITS_MIN_MAX).contains(bits));
    let bits_min = bits_min.ok_or_else(|| {
        invalid(
            "constitution.work_bits_min",
            format!(
                "{bits} is refused, give 1 to {WORK_BITS_MIN_MAX}, or leave it out for no work"
            ),
        )
    })?;
    if asked.work_target_ms == Some(0) {
        let why = "0 is refused, give 1 or more, or leave it out for a fixed difficulty";
        return Err(invalid("constitution.work_target_ms", why));
    }
    Ok(Some(Work {
        bits_min,
        target_ms: asked.work_target_ms.unwrap_or(0),
    }))
}

fn mint(asked: &proto::Constitution) -> Result<Option<Mint>, Status> {
    if asked.mint_account.is_empty() {
        return Ok(None);
    }
    let limit = if asked.mint_limit.is_empty() {
        Ok(u128::MAX)
    } else {
        asked.mint_limit.parse()
    };
    let limit = limit.map_err(|_| {
        invalid(
            "constitution.mint_limit",
            "give a decimal number below 2^128",
        )
    })?;
    Ok(Some(Mint {
        limit,
        account: asked.mint_account.to_vec(),
    }))
}

fn small(field: &str, number: u32) -> Result<u8, Status> {
    u8::try_from(number)
        .map_err(|_| invalid(field, format!("{number} is too large; give at most 255")))
}
