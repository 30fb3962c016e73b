//! Fixed-length fields, taken one after another.

use crate::chain::refused::Refused;

/// Takes fixed-length fields from the front of some bytes; every shortage is refused under one name.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    check: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], check: &'static str) -> Self {
        Self { bytes, check }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Refused> {
        let Some((head, tail)) = self.bytes.split_at_checked(count) else {
            let why = format!(
                "{count} more bytes are needed, {} are left",
                self.bytes.len()
            );
            return Err(Refused::new(self.check, why));
        };
        self.bytes = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refused> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u64(&mut self) -> Result<u64, Refused> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn end(self) -> Result<(), Refused> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(Refused::new(
            self.check,
            format!("{} bytes follow after the end", self.bytes.len()),
        ))
    }
}
