//! The explorer: files of `src/http/page`, embedded as they are. No build step makes them, and nothing they need comes from
//! outside: the policy lets in this origin's own scripts, styles and answers, and no markup made from text.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};

use super::{answer::Answering, ask::Ask, problem::Problem};
use crate::chain::HashAlg;

/// Scripts are files, never text in the page; what builds markup from text is off.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
/// May be kept, and is asked about each time: another version of the node has another page.
const KEPT: &str = "no-cache";

/// A file of the page: its path below `/page/`, and its bytes.
type PageFile = (&'static str, &'static [u8]);

macro_rules! files {
    ($($path:literal)*) => {
        &[$(($path, include_bytes!(concat!("page/", $path)))),*]
    };
}

const FILES: &[PageFile] = files! {
    "api.js" "app.js" "dom.js" "index.html" "mark.svg" "rules.js" "style.css" "trust.js"
    "verify/bytes.js" "verify/ed25519.js" "verify/forms.js" "verify/hash.js" "verify/json.js" "verify/links.js"
    "verify/mldsa.js" "verify/proof.js" "verify/seal.js"
    "view/chain.js" "view/chains.js" "view/cluster.js" "view/list.js" "view/quant.js" "view/search.js" "view/spark.js"
    "view/transaction.js" "view/tree.js"
};

/// The page itself.
pub fn index(ask: Ask) -> Answering {
    Box::pin(async move { file(&ask, "index.html") })
}

/// A file that it is made of.
pub fn part(ask: Ask) -> Answering {
    Box::pin(async move {
        let path = ask.places.text("file")?.to_owned();
        file(&ask, &path)
    })
}

fn file(ask: &Ask, path: &str) -> Result<Response<Body>, Problem> {
    let Some((_, bytes)) = FILES.iter().find(|(known, _)| *known == path) else {
        let why = "the page has no such file; it begins at /";
        return Err(Problem::field("file", why));
    };
    let tag = format!(
        "\"{}\"",
        hex::encode(&HashAlg::Sha2_256.hash(&[bytes])[..12])
    );
    let known = ask.parts.headers.get(header::IF_NONE_MATCH);
    let unchanged = known.is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer = Response::new(if unchanged {
        Body::empty()
    } else {
        Body::from(*bytes)
    });
    if unchanged {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fixed: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, kind(path)),
        (header::CACHE_CONTROL, KEPT),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = tag.parse() {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    Ok(answer)
}

fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// What the first view may weigh, all files together.
    const BYTES_MAX: usize = 200_000;

    fn found(folder: &Path, below: &str, names: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                found(&entry.path(), &format!("{name}/"), names);
            } else {
                names.push(name);
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_embedded_and_all_together_are_small() {
        let mut names = Vec::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page");
        found(&folder, "", &mut names);
        names.sort_unstable();
        let embedded: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(embedded, names);
        let bytes: usize = FILES.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < BYTES_MAX, "{bytes} bytes");
    }

    #[test]
    fn nothing_in_the_page_makes_markup_from_text_or_asks_elsewhere() {
        let never = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "https://",
            "style=",
        ];
        for (name, bytes) in FILES {
            let text = std::str::from_utf8(bytes).unwrap();
            for word in never {
                assert!(!text.contains(word), "{name} says {word}");
            }
            let only = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!only.contains("http://"), "{name} leads elsewhere");
        }
    }
}
