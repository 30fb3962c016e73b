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
    "answer",
    "attributes",
    "attributes-hash",
    "audit-admin",
    "audit-author",
    "audit-authors",
    "audit-chain",
    "audit-content",
    "audit-count",
    "audit-genesis",
    "audit-id",
    "audit-order",
    "audit-payload",
    "audit-payload-max",
    "audit-root",
    "audit-salt",
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
    "consistency-first-root",
    "consistency-path",
    "consistency-second-root",
    "consistency-size",
    "constitution",
    "constitution-asked",
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
    "time-order",
    "tx-root",
    "unknown-field",
    "version",
    "work-minimum",
];

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &[&str] = &[
        include_str!("authority.rs"),
        include_str!("constitution.rs"),
        include_str!("content.rs"),
        include_str!("export/audit.rs"),
        include_str!("export/mod.rs"),
        include_str!("hash.rs"),
        include_str!("id.rs"),
        include_str!("keccak.rs"),
        include_str!("meta.rs"),
        include_str!("name.rs"),
        include_str!("proof/bundle.rs"),
        include_str!("proof/grammar.rs"),
        include_str!("proof/head.rs"),
        include_str!("proof/link.rs"),
        include_str!("proof/mod.rs"),
        include_str!("proof/verify.rs"),
        include_str!("proof_file/json.rs"),
        include_str!("proof_file/mod.rs"),
        include_str!("quant.rs"),
        include_str!("record.rs"),
        include_str!("transaction.rs"),
        include_str!("tree.rs"),
    ];

    #[test]
    fn every_check_that_the_sources_name_is_listed() {
        for after in SOURCES
            .iter()
            .flat_map(|source| source.split("Refused::new(").skip(1))
        {
            if let Some(literal) = after.trim_start().strip_prefix('"') {
                let name = literal.split('"').next().unwrap_or_default();
                assert!(CHECKS.contains(&name), "{name} is missing in CHECKS");
            }
        }
    }

    #[test]
    fn every_listed_check_is_made_somewhere_and_listed_once() {
        assert!(CHECKS.is_sorted_by(|a, b| a < b));
        for check in CHECKS {
            let quoted = format!("\"{check}\"");
            assert!(
                SOURCES.iter().any(|source| source.contains(&quoted)),
                "{check} is listed but never made"
            );
        }
    }
}
