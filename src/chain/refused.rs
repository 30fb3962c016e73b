//! A failed check of a verifier or parser: its name and what was seen.

/// A failed check: its stable name (kebab-case, listed in docs/FORMAT.md) and what was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {why}")]
pub struct Refused {
    /// The name of the check, one of [`CHECKS`].
    pub check: &'static str,
    /// What was seen, as a sentence.
    pub why: String,
}

impl Refused {
    /// A failure of the named check.
    pub fn new(check: &'static str, why: impl Into<String>) -> Self {
        Self {
            check,
            why: why.into(),
        }
    }
}

/// The name of every check that exists, in the order of the alphabet.
pub const CHECKS: &[&str] = &[
    "anchor-back",
    "anchor-child",
    "anchor-form",
    "anchor-last",
    "anchor-order",
    "anchor-root",
    "answer",
    "attributes",
    "attributes-hash",
    "audit-admin",
    "audit-author",
    "audit-chain",
    "audit-claim",
    "audit-content",
    "audit-count",
    "audit-genesis",
    "audit-id",
    "audit-order",
    "audit-overdraft",
    "audit-payload",
    "audit-payload-max",
    "audit-root",
    "audit-route",
    "audit-salt",
    "audit-schema",
    "audit-state",
    "audit-transfer",
    "audit-type",
    "author-signature",
    "authority-format",
    "authority-missing",
    "authority-order",
    "authority-record",
    "authority-root",
    "authority-seq",
    "authority-signature",
    "authority-threshold",
    "bench-read-back",
    "border",
    "border-height",
    "bundle-chain",
    "certificate-cluster",
    "certificate-format",
    "certificate-root",
    "certificate-signature",
    "certificate-threshold",
    "certificate-time",
    "chain-id",
    "chain-name",
    "checkpoint-cluster",
    "checkpoint-signature",
    "claim-format",
    "claim-parent",
    "claim-route",
    "consistency-first-root",
    "consistency-path",
    "consistency-second-root",
    "consistency-size",
    "constitution",
    "constitution-asked",
    "constitution-change",
    "constitution-in-force",
    "constitution-record",
    "constitution-required",
    "constitution-sense",
    "count-order",
    "duplicate-name",
    "envelope-chain",
    "envelope-flags",
    "envelope-index",
    "envelope-length",
    "envelope-magic",
    "envelope-time",
    "envelope-type",
    "envelope-zero",
    "erasure",
    "export-count",
    "export-end",
    "export-frame",
    "export-magic",
    "extension-chain",
    "extension-old-root",
    "extension-peaks",
    "extension-same-height",
    "field",
    "final",
    "fork-constitution",
    "fork-genesis",
    "fork-height",
    "genesis",
    "genesis-id",
    "genesis-missing",
    "grammar",
    "hash-alg",
    "head-equivocation",
    "head-signature",
    "head-went-back",
    "header-empty-root",
    "header-flags",
    "header-genesis",
    "header-hash-alg",
    "header-length",
    "header-magic",
    "header-meta-len",
    "header-sum",
    "header-work",
    "header-zero",
    "height-order",
    "hex",
    "inclusion-index",
    "inclusion-path",
    "inclusion-root",
    "inject-order",
    "integer",
    "json",
    "lineage",
    "meta-hash",
    "meta-length",
    "meta-record",
    "neighbour-count",
    "neighbour-hash",
    "next-chain",
    "next-final",
    "next-hash-alg",
    "next-height",
    "next-hist-root",
    "next-history",
    "next-prev-hash",
    "next-time",
    "next-tx-start",
    "not-anchored",
    "parent",
    "parting-chain",
    "parting-height",
    "path-length",
    "payload-hash",
    "payload-length",
    "peaks",
    "peaks-count",
    "quorum-count",
    "quorum-key",
    "quorum-node",
    "read-gap",
    "receipt-broken",
    "receipt-chain",
    "receipt-node",
    "receipt-range",
    "receipt-root",
    "receipt-signature",
    "receipt-time",
    "record-form",
    "record-order",
    "record-unknown",
    "salt",
    "signature-alg",
    "signature-format",
    "signature-key",
    "signature-required",
    "state-form",
    "state-key",
    "state-latest",
    "state-leaf",
    "state-missing",
    "state-path",
    "state-root",
    "state-value",
    "tail-gap",
    "tail-head",
    "tail-token",
    "time-order",
    "tx-root",
    "unknown-field",
    "version",
    "work-minimum",
    "work-retarget",
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// The sources of the rooms that refuse: `chain`, and `client` and `cli` above it.
    fn sources() -> Vec<String> {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders: Vec<_> = ["chain", "client", "cli"].map(|room| src.join(room)).into();
        let mut sources = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name() != "refused.rs" {
                    sources.push(fs::read_to_string(entry.path()).unwrap());
                }
            }
        }
        sources
    }

    #[test]
    fn every_check_that_the_sources_name_is_listed() {
        for source in sources() {
            for after in source.split("Refused::new(").skip(1) {
                if let Some(literal) = after.trim_start().strip_prefix('"') {
                    let name = literal.split('"').next().unwrap_or_default();
                    assert!(CHECKS.contains(&name), "{name} is missing in CHECKS");
                }
            }
        }
    }

    #[test]
    fn every_listed_check_is_made_somewhere_and_documented() {
        assert!(CHECKS.is_sorted_by(|a, b| a < b));
        let sources = sources();
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FORMAT.md");
        let page = fs::read_to_string(page).unwrap();
        for check in CHECKS {
            let quoted = format!("\"{check}\"");
            let made = sources.iter().any(|source| source.contains(&quoted));
            assert!(made, "{check} is listed but never made");
            assert!(
                page.contains(&format!("`{check}`")),
                "{check} is not in docs/FORMAT.md"
            );
        }
    }
}
