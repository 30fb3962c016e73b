//! Whether bytes are exactly one well-formed MessagePack value.

use super::{ContentError, DEPTH_MAX};

/// One value, containers at most 128 deep.
pub(super) fn check_msgpack(payload: &[u8]) -> Result<(), ContentError> {
    let mut reader = MsgPack { payload, at: 0 };
    // Values still to read in each open container, the outermost first.
    let mut open: Vec<u64> = vec![1];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let children = reader.value()?;
        if children > 0 {
            open.push(children);
        }
        if open.len() > DEPTH_MAX + 1 {
            return Err(reader.refuse("nests containers more than 128 deep"));
        }
    }
    if reader.at < payload.len() {
        return Err(reader.refuse("follows after the value's end"));
    }
    Ok(())
}

/// Reads the heads of values by the MessagePack specification.
struct MsgPack<'a> {
    payload: &'a [u8],
    at: usize,
}

impl MsgPack<'_> {
    /// Reads one value's head and scalar body, and gives the number of values inside it.
    fn value(&mut self) -> Result<u64, ContentError> {
        let head = self.number(1)?;
        match head {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Ok(0),
            0x80..=0x8f => Ok(2 * (head & 0x0f)),
            0x90..=0x9f => Ok(head & 0x0f),
            0xa0..=0xbf => self.text(head & 0x1f),
            0xc4..=0xc6 => {
                let len = self.number(1 << (head - 0xc4))?;
                self.skip(len)
            }
            0xc7..=0xc9 => {
                let len = self.number(1 << (head - 0xc7))?;
                self.skip(len + 1)
            }
            0xca | 0xce | 0xd2 => self.skip(4),
            0xcb | 0xcf | 0xd3 => self.skip(8),
            0xcc | 0xd0 => self.skip(1),
            0xcd | 0xd1 => self.skip(2),
            0xd4..=0xd8 => self.skip((1 << (head - 0xd4)) + 1),
            0xd9..=0xdb => {
                let len = self.number(1 << (head - 0xd9))?;
                self.text(len)
            }
            0xdc | 0xdd => self.number(2 << (head - 0xdc)),
            0xde | 0xdf => self.number(2 << (head - 0xde)).map(|members| 2 * members),
            _ => {
                self.at -= 1;
                Err(self.refuse("is 0xc1, which begins no value"))
            }
        }
    }

    fn number(&mut self, len: u64) -> Result<u64, ContentError> {
        Ok(self
            .take(len)?
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn text(&mut self, len: u64) -> Result<u64, ContentError> {
        let start = self.at;
        if let Err(error) = str::from_utf8(self.take(len)?) {
            self.at = start + error.valid_up_to();
            return Err(self.refuse("is not UTF-8, inside a string"));
        }
        Ok(0)
    }

    fn skip(&mut self, len: u64) -> Result<u64, ContentError> {
        self.take(len).map(|_| 0)
    }

    fn take(&mut self, len: u64) -> Result<&[u8], ContentError> {
        let rest = &self.payload[self.at..];
        if let Some(taken) = usize::try_from(len).ok().and_then(|len| rest.get(..len)) {
            self.at += taken.len();
            return Ok(taken);
        }
        self.at = self.payload.len();
        Err(self.refuse("is missing: the value is cut off"))
    }

    fn refuse(&self, why: &'static str) -> ContentError {
        ContentError::MsgPack {
            offset: self.at,
            why,
        }
    }
}
