//! Transactions of the store as streams of answers carry them: each row is encoded where it is read, with no copy in between.

use std::ops::ControlFlow;

use tonic::Status;

use super::{
    catalog::ChainReads,
    convert,
    status::{of_read, of_store},
};
use crate::proto::{Encoded, Parts, RunWriter};
use crate::store::{StoreError, TxRow};

/// Bytes that are made room for per transaction at first, where there are few.
const BYTES_EACH: u64 = 64;

/// Tells the height that seals an index, if one does.
pub type HeightOf<'a> = &'a mut dyn FnMut(u64) -> Result<Option<u64>, Status>;

/// Transactions `[from, to)`, at least one and then as many as fit into `bytes`.
pub fn run(
    reads: &ChainReads<'_>,
    (from, to): (u64, u64),
    bytes: usize,
    height_of: HeightOf<'_>,
) -> Result<Encoded, Status> {
    let room = (to.saturating_sub(from)).saturating_mul(BYTES_EACH);
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(bytes);
    let mut writer = RunWriter::with_capacity(room);
    let mut failed = None;
    let mut each = |index: u64, row: &[u8]| {
        let before = writer.bytes();
        let put = height_of(index).and_then(|height| put(reads, (index, row), height, &mut writer));
        failed = put.err();
        // The next one is about as large as this one.
        if failed.is_none() && 2 * writer.bytes() - before <= bytes {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let read = reads
        .reader()
        .each_transaction(&reads.chain, (from, to), &mut each);
    read.map_err(|error| of_read(&error))?;
    failed.map_or_else(|| Ok(writer.finish()), Err)
}

/// The same of transactions that one Quant seals, or none.
pub fn run_at(
    reads: &ChainReads<'_>,
    bounds: (u64, u64),
    bytes: usize,
    height: Option<u64>,
) -> Result<Encoded, Status> {
    run(reads, bounds, bytes, &mut |_| Ok(height))
}

fn put(
    reads: &ChainReads<'_>,
    (index, row): (u64, &[u8]),
    height: Option<u64>,
    writer: &mut RunWriter,
) -> Result<(), Status> {
    let row = TxRow::decode(row).ok_or_else(|| of_store(&StoreError::row("tx")))?;
    let attributes = convert::attributes(index, row.attributes)?;
    let erasure = if row.erased.is_some() {
        let view = reads.reader().transaction(&reads.chain, index);
        convert::erasure(reads, &view.map_err(|error| of_read(&error))?)?
    } else {
        None
    };
    writer.push(&Parts {
        index,
        height,
        inject_ms: row.inject_ms,
        kind: u32::from(row.kind),
        flags: u32::from(row.salted()),
        payload: row.payload,
        attributes: row.attributes,
        salt: row.salt.map_or(&[][..], |salt| salt),
        key: attributes.key.as_deref().unwrap_or_default(),
        id: attributes.id.as_deref().unwrap_or_default(),
        author: attributes.author.as_ref().map_or(&[][..], |author| author),
        erasure,
    });
    Ok(())
}
