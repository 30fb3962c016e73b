//! A constitution change: the payload of a transaction of type 1. Records that it holds replace those of the constitution
//! in force; a record without a value takes its own away. All other records stay byte for byte.

use std::collections::BTreeMap;

use super::Refused;
use super::constitution::{
    AUTHORS, Constitution, LAST, LEAP_BYTES, LEAP_COUNT, LEAP_MS, NAME, keys, list,
};
use super::record::{RecordWriter, Records, exact};

const CHECK: &str = "constitution-change";
const CHANGEABLE: [u8; 4] = [AUTHORS, LEAP_COUNT, LEAP_BYTES, LEAP_MS];

/// What a change does with one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Edit<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It goes: open to everybody, or no such timer.
    Remove,
    /// It is replaced as a whole.
    Put(T),
}

/// Who may write and when the chain seals by itself, changed by an admin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConstitutionChange {
    /// Record 7: the keys that may write, 1 or more, all different.
    pub authors: Edit<Vec<[u8; 32]>>,
    /// Record 9: seal after so many transactions, not 0.
    pub leap_count: Edit<u32>,
    /// Record 10: seal after so many payload bytes, not 0.
    pub leap_bytes: Edit<u64>,
    /// Record 11: seal after so many milliseconds, not 0.
    pub leap_ms: Edit<u64>,
}

impl ConstitutionChange {
    /// The payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = RecordWriter::new();
        for (tag, edit) in self.edits() {
            match edit {
                Edit::Keep => {}
                Edit::Remove => writer.put(tag, &[]),
                Edit::Put(value) => writer.put(tag, &value),
            }
        }
        writer.finish()
    }

    /// Reads a payload; it must change something.
    pub fn parse(payload: &[u8]) -> Result<Self, Refused> {
        let records = Records::parse(payload, &CHANGEABLE)?;
        let change = Self {
            authors: edit(records.get(AUTHORS), |value| keys(CHECK, "authors", value))?,
            leap_count: edit(records.get(LEAP_COUNT), |value| {
                let count = exact(CHECK, "leap count", value)?;
                not_zero("leap count", u32::from_be_bytes(count))
            })?,
            leap_bytes: edit(records.get(LEAP_BYTES), |value| number("leap bytes", value))?,
            leap_ms: edit(records.get(LEAP_MS), |value| number("leap ms", value))?,
        };
        if change == Self::default() {
            let why = "it changes nothing: give one or more of the records 7 authors, 9 leap count, 10 leap bytes, 11 leap ms";
            return Err(Refused::new(CHECK, why));
        }
        Ok(change)
    }

    /// The bytes of the constitution that is in force after the change, from those before it.
    pub fn apply(&self, constitution: &[u8]) -> Result<Vec<u8>, Refused> {
        let known: Vec<u8> = (NAME..=LAST).collect();
        let before = Records::parse(constitution, &known)?;
        let mut after: BTreeMap<u8, Vec<u8>> = before
            .iter()
            .map(|(tag, value)| (tag, value.to_vec()))
            .collect();
        for (tag, edit) in self.edits() {
            match edit {
                Edit::Keep => {}
                Edit::Remove => drop(after.remove(&tag)),
                Edit::Put(value) => drop(after.insert(tag, value)),
            }
        }
        let mut writer = RecordWriter::new();
        for (tag, value) in &after {
            writer.put(*tag, value);
        }
        let bytes = writer.finish();
        Constitution::parse(&bytes)?;
        Ok(bytes)
    }

    /// The records by rising tag, with what becomes of them.
    fn edits(&self) -> [(u8, Edit<Vec<u8>>); 4] {
        [
            (
                AUTHORS,
                self.authors.map(|keys| list(keys).unwrap_or_default()),
            ),
            (
                LEAP_COUNT,
                self.leap_count.map(|count| count.to_be_bytes().to_vec()),
            ),
            (
                LEAP_BYTES,
                self.leap_bytes.map(|bytes| bytes.to_be_bytes().to_vec()),
            ),
            (LEAP_MS, self.leap_ms.map(|ms| ms.to_be_bytes().to_vec())),
        ]
    }
}

impl<T> Edit<T> {
    fn map<U>(&self, value: impl FnOnce(&T) -> U) -> Edit<U> {
        match self {
            Edit::Keep => Edit::Keep,
            Edit::Remove => Edit::Remove,
            Edit::Put(own) => Edit::Put(value(own)),
        }
    }
}

fn edit<T>(
    value: Option<&[u8]>,
    parse: impl FnOnce(&[u8]) -> Result<T, Refused>,
) -> Result<Edit<T>, Refused> {
    match value {
        None => Ok(Edit::Keep),
        Some([]) => Ok(Edit::Remove),
        Some(value) => parse(value).map(Edit::Put),
    }
}

fn number(what: &str, value: &[u8]) -> Result<u64, Refused> {
    let number = exact(CHECK, what, value)?;
    not_zero(what, u64::from_be_bytes(number))
}

fn not_zero<T: Default + PartialEq>(what: &str, number: T) -> Result<T, Refused> {
    if number != T::default() {
        return Ok(number);
    }
    let why = format!("{what} is 0: give its record no value to take the limit away");
    Err(Refused::new(CHECK, why))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::chain::{Authority, Birth};

    fn constitution() -> Constitution {
        Constitution {
            admins: vec![[8; 32]],
            leap_count: Some(9),
            payload_max: Some(64),
            ..Constitution::from(Birth {
                name: "orders".into(),
                created_ms: 1,
                salt: [2; 16],
                authority: Authority {
                    threshold: 1,
                    roots: vec![[3; 32]],
                },
                cluster_id: [5; 16],
            })
        }
    }

    fn full() -> ConstitutionChange {
        ConstitutionChange {
            authors: Edit::Put(vec![[6; 32], [7; 32]]),
            leap_count: Edit::Remove,
            leap_bytes: Edit::Put(10),
            leap_ms: Edit::Keep,
        }
    }

    fn records(all: &[(u8, &[u8])]) -> Vec<u8> {
        let mut writer = RecordWriter::new();
        for (tag, value) in all {
            writer.put(*tag, value);
        }
        writer.finish()
    }

    #[test]
    fn a_change_is_read_as_written_and_leaves_all_other_records_as_they_are() {
        assert_eq!(ConstitutionChange::parse(&full().to_bytes()), Ok(full()));
        let (before, change) = (constitution(), full());
        let after = change.apply(&before.to_bytes()).unwrap();
        let expected = Constitution {
            authors: vec![[6; 32], [7; 32]],
            leap_count: None,
            leap_bytes: Some(10),
            ..before.clone()
        };
        assert_eq!(after, expected.to_bytes());
        let back = ConstitutionChange {
            authors: Edit::Remove,
            leap_count: Edit::Put(9),
            leap_bytes: Edit::Remove,
            leap_ms: Edit::Keep,
        };
        assert_eq!(back.apply(&after).unwrap(), before.to_bytes());
    }

    #[test]
    fn a_record_that_no_reader_knows_stays_too() {
        let mut bytes = constitution().to_bytes();
        bytes.extend(records(&[(200, b"later")]));
        let after = full().apply(&bytes).unwrap();
        assert!(after.ends_with(&records(&[(200, b"later")])));
    }

    #[test]
    fn bad_changes_are_refused_by_name() {
        let long = [1; 33];
        let cases: [(&[u8], &str); 9] = [
            (&records(&[]), "constitution-change"),
            (&records(&[(200, b"x")]), "constitution-change"),
            (&records(&[(7, &long)]), "constitution-change"),
            (&records(&[(7, &[1; 64])]), "constitution-change"),
            (&records(&[(9, &[0; 4])]), "constitution-change"),
            (&records(&[(9, &[1; 8])]), "constitution-change"),
            (&records(&[(11, &[0; 8])]), "constitution-change"),
            (&records(&[(8, &[1; 32])]), "record-unknown"),
            (&[7, 0, 0, 0, 9], "record-form"),
        ];
        for (payload, check) in cases {
            let refused = ConstitutionChange::parse(payload).expect_err("bad");
            assert_eq!(refused.check, check, "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(0u8..12, 0..120)) {
            if let Ok(change) = ConstitutionChange::parse(&bytes) {
                prop_assert!(change.apply(&constitution().to_bytes()).is_ok());
                let _ = change.apply(&bytes);
            }
        }
    }
}
