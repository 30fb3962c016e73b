//! Any bytes as an export file, in pieces of any size: no panic, and the pieces make no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbc::chain::{ExportVerifier, Refused, Trust, export_magic};

fuzz_target!(|input: (u16, &[u8])| {
    let (piece, frames) = input;
    let file = [&export_magic()[..], frames].concat();
    let whole = audit([&file[..]].into_iter());
    let pieces = audit(file.chunks(usize::from(piece) + 1));
    assert_eq!(whole, pieces);
});

fn audit<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Result<u64, Refused> {
    let mut verifier = ExportVerifier::new(vec![Trust::SelfConsistent]);
    pieces.try_for_each(|piece| verifier.push(piece))?;
    verifier.finish().map(|verdict| verdict.transactions)
}
