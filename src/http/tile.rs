//! Paths of tiles, as c2sp.org/tlog-tiles spells them; each tile has one spelling.

/// Hashes, or leaves, of a full tile.
pub const TILE_WIDTH: u32 = 256;
const LEVEL_MAX: u8 = 63;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileKind {
    /// Hashes of a level.
    Hashes(u8),
    /// Leaves.
    Entries,
}

/// A tile that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TilePath {
    pub kind: TileKind,
    pub number: u64,
    /// 1 to 256.
    pub width: u32,
}

impl TilePath {
    /// Reads what stands after `/tile/`.
    pub fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(
                u8::try_from(plain(level)?)
                    .ok()
                    .filter(|level| *level <= LEVEL_MAX)?,
            ),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => {
                let width = u32::try_from(plain(width)?).ok()?;
                (number, Some(width).filter(|w| (1..TILE_WIDTH).contains(w))?)
            }
            None => (rest, TILE_WIDTH),
        };
        Some(Self {
            kind,
            number: grouped(number)?,
            width,
        })
    }
}

/// A decimal number without a sign or leading zeros.
fn plain(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

/// A number in groups of three digits, each but the last after an `x`.
fn grouped(text: &str) -> Option<u64> {
    let (before, last) = match text.rsplit_once('/') {
        Some((before, last)) => (Some(before), last),
        None => (None, text),
    };
    let mut number = 0u64;
    for (at, group) in before.iter().flat_map(|all| all.split('/')).enumerate() {
        let digits = three(group.strip_prefix('x')?)?;
        if at == 0 && digits == 0 {
            return None;
        }
        number = number.checked_mul(1000)?.checked_add(digits)?;
    }
    number.checked_mul(1000)?.checked_add(three(last)?)
}

fn three(text: &str) -> Option<u64> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_have_the_paths_of_c2sp() {
        let cases = [
            ("0/000", TileKind::Hashes(0), 0, 256),
            ("1/x001/067", TileKind::Hashes(1), 1067, 256),
            ("63/x001/x234/067.p/8", TileKind::Hashes(63), 1_234_067, 8),
            ("entries/x123/456.p/255", TileKind::Entries, 123_456, 255),
        ];
        for (path, kind, number, width) in cases {
            let expected = TilePath {
                kind,
                number,
                width,
            };
            assert_eq!(TilePath::parse(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn other_spellings_are_no_tiles() {
        let bad = [
            "",
            "0",
            "0/",
            "0/0",
            "0/00",
            "0/0000",
            "64/000",
            "00/000",
            "+1/000",
            "-1/000",
            "0/x000/001",
            "0/001/002",
            "0/x001",
            "0/x001/x002",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/",
            "0/000.p",
            "0/000/",
            "entry/000",
            "0/..%2f",
            "0/x01/000",
            "0/x999/x999/x999/x999/x999/x999/999",
        ];
        for path in bad {
            assert_eq!(TilePath::parse(path), None, "{path}");
        }
    }
}
