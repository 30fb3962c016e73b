//! Names of chains: segments between slashes, like `orders/2025`.

use std::fmt;

use super::HashAlg;

const NAME_BYTES_MAX: usize = 255;
const SEGMENT_BYTES_MAX: usize = 100;
const RESERVED: [&str; 5] = ["qbc", "sys", "system", "meta", "admin"];

/// The name of a chain: at most 255 bytes, segments of 1 to 100 of `a-z 0-9 . _ -` between slashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainName(String);

/// Why a text cannot name a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing was given.
    #[error(
        "a chain name is empty; give it 1 to {NAME_BYTES_MAX} characters, like orders or orders/2025"
    )]
    Empty,
    /// Longer than a name may be.
    #[error("a chain name has {bytes} bytes, the limit is {NAME_BYTES_MAX}; shorten it")]
    TooLong {
        /// Length of the name that was given.
        bytes: usize,
    },
    /// A slash at an end, or two in a row.
    #[error(
        "a chain name has an empty segment; write one slash between segments and none at the ends"
    )]
    EmptySegment,
    /// A segment that is longer than a segment may be.
    #[error(
        "segment {segment:?} of a chain name has {bytes} bytes, the limit is {SEGMENT_BYTES_MAX}; shorten it or divide it by a slash"
    )]
    SegmentTooLong {
        /// Its first characters.
        segment: String,
        /// Its length.
        bytes: usize,
    },
    /// A segment that begins with neither a letter nor a digit.
    #[error(
        "segment {segment:?} of a chain name begins with {start:?}; begin it with one of a-z 0-9"
    )]
    Start {
        /// The segment.
        segment: String,
        /// What it begins with.
        start: char,
    },
    /// A character outside the alphabet of names.
    #[error(
        "a chain name contains {found:?}; use only a-z 0-9 . _ - and / between segments (no upper case)"
    )]
    Character {
        /// The character.
        found: char,
    },
    /// A first segment that the system keeps for itself.
    #[error(
        "chain names that begin with the segment {segment:?} are reserved; choose another first segment"
    )]
    Reserved {
        /// The reserved segment.
        segment: String,
    },
}

impl ChainName {
    /// Reads a name; the error names the limit that it breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_form(text)?;
        let first = text.split('/').next().unwrap_or_default();
        if RESERVED.contains(&first) {
            return Err(NameError::Reserved {
                segment: first.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// The text before the last slash: the name of the chain that this one lies below.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// The bucket that owns the name: the first 14 bits of SHA3-256(name).
    pub fn bucket(&self) -> u16 {
        let hash = HashAlg::Sha3_256.hash(&[self.0.as_bytes()]);
        u16::from_be_bytes([hash[0], hash[1]]) >> 2
    }
}

impl AsRef<str> for ChainName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The form of a name alone, without the reserved words: what a constitution's record must have.
pub(super) fn check_form(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: text.len() });
    }
    if let Some(found) = text.chars().find(|&c| !(is_plain(c) || "._-/".contains(c))) {
        return Err(NameError::Character { found });
    }
    text.split('/').try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), NameError> {
    let start = segment.chars().next().ok_or(NameError::EmptySegment)?;
    if segment.len() > SEGMENT_BYTES_MAX {
        let bytes = segment.len();
        return Err(NameError::SegmentTooLong {
            segment: segment.chars().take(20).collect(),
            bytes,
        });
    }
    if is_plain(start) {
        return Ok(());
    }
    Err(NameError::Start {
        segment: segment.to_owned(),
        start,
    })
}

fn is_plain(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_kept_as_they_are() {
        let long = format!("{0}/{0}/{1}", "a".repeat(100), "b".repeat(53));
        for name in [
            "a",
            "main",
            "0",
            "orders/2025",
            "a.b_c-d/e..f",
            "qbc2",
            "orders/qbc",
            &long,
        ] {
            assert_eq!(
                ChainName::parse(name).map(|n| n.to_string()),
                Ok(name.to_owned())
            );
        }
    }

    #[test]
    fn each_bad_name_gets_its_own_error() {
        let segment = "a".repeat(101);
        let cases = [
            ("", "is empty"),
            (&"a/".repeat(128), "256 bytes, the limit is 255"),
            ("a//b", "empty segment"),
            ("/a", "empty segment"),
            ("a/", "empty segment"),
            (&segment, "101 bytes, the limit is 100"),
            ("a/.", "begins with '.'"),
            ("..", "begins with '.'"),
            ("_sys", "begins with '_'"),
            ("Orders", "contains 'O'"),
            ("a b", "contains ' '"),
            ("größe", "contains 'ö'"),
            ("qbc", "reserved"),
            ("admin/x", "reserved"),
        ];
        for (name, part) in cases {
            let error = ChainName::parse(name).expect_err(name).to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
    }

    #[test]
    fn the_parent_is_what_stands_before_the_last_slash() {
        let parent = |name| {
            ChainName::parse(name)
                .expect("good")
                .parent()
                .map(str::to_owned)
        };
        assert_eq!(parent("a"), None);
        assert_eq!(parent("a/b/c"), Some("a/b".to_owned()));
    }

    #[test]
    fn the_bucket_is_the_first_14_bits_of_the_hash() {
        let name = ChainName::parse("orders").expect("good");
        let hash = HashAlg::Sha3_256.hash(&[b"orders"]);
        assert_eq!(
            name.bucket(),
            u16::from(hash[0]) << 6 | u16::from(hash[1]) >> 2
        );
        assert!(name.bucket() < 1 << 14);
    }
}
