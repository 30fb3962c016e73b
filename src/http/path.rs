//! Paths and queries: which route is meant, and what stands in its places.
//!
//! A chain's name is one segment with `%2F` for its slashes. A name whose later segments are none of [`WORDS`] may be written
//! with plain slashes too.

use super::problem::Problem;

/// What may follow a chain's name: the first of these ends a name that is written with plain slashes.
pub const WORDS: [&str; 13] = [
    "head",
    "transactions",
    "quants",
    "leap",
    "fork",
    "split",
    "close",
    "latest",
    "history",
    "balance",
    "transfers",
    "tail",
    "cursors",
];
const CHAINS: &str = "/v1/chains/";

/// What stood in the places of a route, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(pub Vec<(&'static str, Vec<u8>)>);

impl Places {
    /// A place as text.
    pub fn text(&self, name: &str) -> Result<&str, Problem> {
        let bytes = self.0.iter().find(|(place, _)| *place == name);
        let bytes = bytes.map_or(&[][..], |(_, bytes)| bytes);
        std::str::from_utf8(bytes).map_err(|_| Problem::field(name, "it is not UTF-8"))
    }
}

/// What stands in the places of `template` where `path` (percent-encoded) is one of its paths.
pub fn matched(template: &'static str, path: &str) -> Result<Option<Places>, Problem> {
    let Some(rest) = template.strip_prefix("/v1/chains/{chain}") else {
        return simple(template, path);
    };
    let Some((name, tail)) = path.strip_prefix(CHAINS).map(parted) else {
        return Ok(None);
    };
    if name.split('/').any(str::is_empty) {
        return Ok(None);
    }
    let Some(mut places) = simple(rest, tail)? else {
        return Ok(None);
    };
    places.0.insert(0, ("chain", decoded("chain", name)?));
    Ok(Some(places))
}

/// The chain's name, and what follows it.
fn parted(path: &str) -> (&str, &str) {
    let mut at = path.find('/');
    while let Some(slash) = at {
        let after = &path[slash + 1..];
        let word = after.split('/').next().unwrap_or_default();
        if WORDS.contains(&word) {
            return path.split_at(slash);
        }
        at = after.find('/').map(|next| slash + 1 + next);
    }
    (path, "")
}

/// Segment by segment; `{*place}` takes all that is left, slashes too.
fn simple(template: &'static str, path: &str) -> Result<Option<Places>, Problem> {
    let mut places = Places::default();
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        let Some(want) = wanted.next() else {
            return Ok(given.next().is_none().then_some(places));
        };
        let place = want.strip_prefix('{').and_then(|w| w.strip_suffix('}'));
        if let Some(all) = place.and_then(|place| place.strip_prefix('*')) {
            let rest: Vec<&str> = given.collect();
            let rest = rest.join("/");
            if rest.is_empty() {
                return Ok(None);
            }
            places.0.push((all, decoded(all, &rest)?));
            return Ok(Some(places));
        }
        let Some(segment) = given.next() else {
            return Ok(None);
        };
        match place {
            Some(place) if !segment.is_empty() => {
                places.0.push((place, decoded(place, segment)?));
            }
            None if want == segment => {}
            _ => return Ok(None),
        }
    }
}

/// The pairs of a query or of a form.
pub fn pairs(text: &str) -> Result<Vec<(String, Vec<u8>)>, Problem> {
    let parts = text.split('&').filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = decoded("query", &name.replace('+', " "))?;
        let name = String::from_utf8(name)
            .map_err(|_| Problem::field("query", "the name of a parameter is not UTF-8"))?;
        let value = decoded(&name, &value.replace('+', " "))?;
        Ok((name, value))
    };
    parts.map(pair).collect()
}

/// RFC 3986 2.1, and nothing that is not quite that.
fn decoded(field: &str, text: &str) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next(), bytes.next()].map(|digit| {
            let digit = char::from(digit?).to_digit(16)?;
            u8::try_from(digit).ok()
        });
        let [Some(high), Some(low)] = digits else {
            let why = "its percent-encoding is broken; write % and two hex digits, %25 for a percent sign";
            return Err(Problem::field(field, why));
        };
        out.push(high << 4 | low);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(template: &'static str, path: &str) -> Option<Vec<(String, String)>> {
        let found = matched(template, path).unwrap()?;
        let text = |(name, bytes): (&str, Vec<u8>)| {
            (
                name.to_owned(),
                String::from_utf8_lossy(&bytes).into_owned(),
            )
        };
        Some(found.0.into_iter().map(text).collect())
    }

    #[test]
    fn names_are_written_with_encoded_or_plain_slashes() {
        let chain = "/v1/chains/{chain}";
        let head = "/v1/chains/{chain}/head";
        let cases = [
            (chain, "/v1/chains/a", Some("a")),
            (chain, "/v1/chains/orders%2F0", Some("orders/0")),
            (chain, "/v1/chains/orders/0", Some("orders/0")),
            (head, "/v1/chains/orders/0/head", Some("orders/0")),
            (chain, "/v1/chains/orders/0/head", None),
            (chain, "/v1/chains/orders%2Fhead", Some("orders/head")),
            (head, "/v1/chains/head/head", Some("head")),
            (chain, "/v1/chains/head", Some("head")),
            (chain, "/v1/chains/a/", None),
            (chain, "/v1/chains//a", None),
            (chain, "/v1/chains/", None),
            (chain, "/v1/chain/a", None),
        ];
        for (template, path, name) in cases {
            let expected = name.map(|name| vec![("chain".to_owned(), name.to_owned())]);
            assert_eq!(places(template, path), expected, "{template} {path}");
        }
    }

    #[test]
    fn keys_keep_their_slashes_and_numbers_are_one_segment() {
        let latest = places(
            "/v1/chains/{chain}/latest/{*key}",
            "/v1/chains/a/b/latest/x/y%20z",
        );
        assert_eq!(latest.unwrap()[1], ("key".into(), "x/y z".into()));
        let proof = "/v1/chains/{chain}/transactions/{index}/proof";
        assert!(places(proof, "/v1/chains/a/transactions/7/proof").is_some());
        assert!(places(proof, "/v1/chains/a/transactions/7").is_none());
        assert!(places(proof, "/v1/chains/a/transactions//proof").is_none());
    }

    #[test]
    fn a_broken_encoding_is_refused_and_names_its_place() {
        for bad in ["%", "%2", "%zz", "a%2", "%+1"] {
            let path = format!("/v1/chains/{bad}");
            let refused = matched("/v1/chains/{chain}", &path).unwrap_err();
            assert!(refused.to_json().contains("percent-encoding"), "{bad}");
        }
        assert!(pairs("a=%f").is_err());
    }

    #[test]
    fn a_query_is_pairs_with_plus_for_a_space() {
        let found = pairs("a=1+2&b=%2B&c&&d=x=y").unwrap();
        let text: Vec<String> = found
            .iter()
            .map(|(name, value)| format!("{name}:{}", String::from_utf8_lossy(value)))
            .collect();
        assert_eq!(text, ["a:1 2", "b:+", "c:", "d:x=y"]);
    }
}
