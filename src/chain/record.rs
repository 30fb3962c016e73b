//! Records, the form of attributes, meta and constitution: `tag u8 | length u32 | value`, big-endian,
//! tags rising, each at most once. An unknown tag below 128 is critical, from 128 on it is skipped.

use super::Refused;

const PREFIX_BYTES: usize = 5;
const SKIPPABLE: u8 = 128;

/// Records that were read, in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<'a> {
    entries: Vec<(u8, &'a [u8])>,
}

impl<'a> Records<'a> {
    /// Reads records; `known` are the tags that the reader understands.
    pub fn parse(bytes: &'a [u8], known: &[u8]) -> Result<Self, Refused> {
        let mut entries: Vec<(u8, &[u8])> = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (tag, value, after) =
                split_record(rest).ok_or_else(|| cut(bytes.len() - rest.len()))?;
            if entries.last().is_some_and(|&(last, _)| tag <= last) {
                return Err(Refused::new(
                    "record-order",
                    format!("tag {tag} does not come after a smaller one"),
                ));
            }
            if tag < SKIPPABLE && !known.contains(&tag) {
                return Err(Refused::new(
                    "record-unknown",
                    format!("tag {tag} is critical and unknown here"),
                ));
            }
            entries.push((tag, value));
            rest = after;
        }
        Ok(Self { entries })
    }

    /// The value under a tag.
    pub fn get(&self, tag: u8) -> Option<&'a [u8]> {
        self.entries
            .iter()
            .find(|(found, _)| *found == tag)
            .map(|(_, value)| *value)
    }

    /// All records in the order of their tags, skippable ones included.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + '_ {
        self.entries.iter().copied()
    }
}

/// Builds records.
#[derive(Clone, Debug, Default)]
pub struct RecordWriter {
    bytes: Vec<u8>,
    last: Option<u8>,
}

impl RecordWriter {
    /// Starts with no records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record. Panics unless the tag is greater than the one before: the order is the caller's code.
    pub fn put(&mut self, tag: u8, value: &[u8]) {
        assert!(
            self.last.is_none_or(|last| last < tag),
            "record tags must rise"
        );
        self.last = Some(tag);
        self.bytes.push(tag);
        self.bytes.extend(
            u32::try_from(value.len())
                .expect("a record value is below 4 GiB")
                .to_be_bytes(),
        );
        self.bytes.extend(value);
    }

    /// The bytes of all records.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The value of a record that must have exactly `N` bytes.
pub(super) fn exact<const N: usize>(
    check: &'static str,
    what: &str,
    value: &[u8],
) -> Result<[u8; N], Refused> {
    value.try_into().map_err(|_| {
        Refused::new(
            check,
            format!("{what} has {} bytes, it must have {N}", value.len()),
        )
    })
}

fn split_record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    let (value, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    Some((prefix[0], value, after))
}

fn cut(offset: usize) -> Refused {
    Refused::new(
        "record-form",
        format!("the record at byte {offset} is cut off before its end"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = RecordWriter::new();
        writer.put(1, b"a");
        writer.put(7, b"");
        writer.put(200, b"skipped");
        let bytes = writer.finish();
        let records = Records::parse(&bytes, &[1, 7]).expect("good");
        assert_eq!(records.get(1), Some(&b"a"[..]));
        assert_eq!(records.get(7), Some(&b""[..]));
        assert_eq!(records.get(2), None);
        assert_eq!(
            records.iter().map(|(tag, _)| tag).collect::<Vec<_>>(),
            [1, 7, 200]
        );
    }

    #[test]
    fn bad_records_are_refused_by_name() {
        let cases: [(&[u8], &str); 6] = [
            (&[1], "record-form"),
            (&[1, 0, 0, 0, 2, 9], "record-form"),
            (&[1, 255, 255, 255, 255, 9], "record-form"),
            (&[1, 0, 0, 0, 0, 1, 0, 0, 0, 0], "record-order"),
            (&[2, 0, 0, 0, 0, 1, 0, 0, 0, 0], "record-order"),
            (&[3, 0, 0, 0, 0], "record-unknown"),
        ];
        for (bytes, check) in cases {
            assert_eq!(
                Records::parse(bytes, &[1, 2]).expect_err("bad").check,
                check,
                "{bytes:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0u8..9, 0..80)) {
            let _ = Records::parse(&bytes, &[0, 1, 2, 3]);
        }
    }
}
