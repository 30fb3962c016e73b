//! Which Quant seals an index.

use super::read::{ChainView, ReadError, Reader, missing};
use crate::store::QuantRow;

impl Reader<'_> {
    /// The Quant that seals an index, among those up to `top`: looked for in turn where it is if all are alike, which takes
    /// two or three reads, and in the middle, which bounds them where they are not.
    pub fn height_of(
        &self,
        chain: &ChainView,
        index: u64,
        top: u64,
    ) -> Result<QuantRow, ReadError> {
        let newest = self.quant(chain, top)?;
        let header = newest.parse()?;
        if index >= header.tx_end() {
            return Err(ReadError::NotSealed {
                chain: chain.name.clone(),
                index,
                height: top,
            });
        }
        if index >= header.tx_start {
            return Ok(newest);
        }
        // Heights from `low` on below `high` seal the transactions from `from` on below `to`.
        let (mut low, mut high) = (0, top);
        let (mut from, mut to) = (0, header.tx_start);
        let mut halve = false;
        while low < high && (from..to).contains(&index) {
            let middle = low + (high - low) / 2;
            let height = if halve {
                middle
            } else {
                low + share(index - from, to - from, high - low)
            };
            halve = !halve;
            let quant = self.quant(chain, height)?;
            let header = quant.parse()?;
            if index < header.tx_start {
                (high, to) = (height, header.tx_start);
            } else if index >= header.tx_end() {
                (low, from) = (height + 1, header.tx_end());
            } else {
                return Ok(quant);
            }
        }
        Err(missing(chain, index).into())
    }
}

/// `part` of `whole`, as much of `span`.
fn share(part: u64, whole: u64, span: u64) -> u64 {
    (u128::from(part) * u128::from(span) / u128::from(whole)) as u64
}
