//! Work whose difficulty follows a target: the rule against vectors of another hand, and audits that hold a chain to it.

use qbc::chain::{Auditor, Difficulty, Header, Refused, Work, find_nonce};
use serde_json::Value;

use super::export::{check, export};
use super::vectors::{Chain, MORE, Quant, V1, list, number};

#[test]
fn the_bits_of_every_header_follow_from_the_times_before() {
    let mut seen = 0;
    for (at, case) in list(&MORE["retarget"]).iter().enumerate() {
        let work = Work {
            bits_min: number(&case["bits_min"]) as u16,
            target_ms: decimal(&case["target_ms"]),
        };
        let times: Vec<u64> = list(&case["times"]).iter().map(decimal).collect();
        let template = Chain::of(&V1["work"]).quants[0].parsed();
        let first = Header {
            time_ms: times[0],
            ..template.clone()
        };
        let mut difficulty = Difficulty::begin(Some(work), &first);
        for (height, bits) in (1..).zip(list(&case["bits"])) {
            assert_eq!(
                u64::from(difficulty.bits()),
                number(bits),
                "case {at}, height {height}"
            );
            difficulty.push(&Header {
                height,
                genesis: false,
                time_ms: times[height as usize],
                ..template.clone()
            });
            seen += 1;
        }
    }
    assert!(seen > 400, "{seen}");
}

#[test]
fn mined_chains_audit_clean_and_their_work_is_told() {
    for chain in mined() {
        let verdict = check(&export(&chain.quants, &[]), 1000, &[]).unwrap();
        assert_eq!((verdict.quants, verdict.chain_id), (42, chain.id));
        let told = verdict
            .steps
            .iter()
            .find(|step| step.starts_with("work: each Quant"));
        let told = told.expect("the work is told");
        let found = chain.head().parsed().zero_bits();
        assert!(
            told.contains("minimum 4, retargeted to 30 ms per Quant"),
            "{told}"
        );
        assert!(
            told.ends_with(&format!("of the head 5 were asked for, {found} found")),
            "{told}"
        );
    }
}

/// Whoever mines honestly for the bits that he chose himself has them, and is refused all the same.
#[test]
fn other_bits_than_the_rule_asks_for_are_refused_however_well_they_are_mined() {
    for chain in mined() {
        for (height, bits, check) in [
            (1, 0, "work-minimum"),
            (1, 3, "work-minimum"),
            (1, 5, "work-retarget"),
            (9, 4, "work-retarget"),
            (9, 5, "work-retarget"),
            (9, 7, "work-retarget"),
            (17, 6, "work-retarget"),
            (33, 8, "work-retarget"),
            (41, 4, "work-retarget"),
        ] {
            let refused = audited(&chain.quants, height, bits).unwrap_err();
            assert_eq!(
                refused.check, check,
                "height {height}, {bits} bits: {refused}"
            );
        }
        for (height, bits) in [(1, 4), (9, 6), (17, 8), (33, 7), (41, 5)] {
            assert_eq!(audited(&chain.quants, height, bits), Ok(()));
        }
    }
}

/// The audit up to a height whose Quant is mined anew for these bits.
fn audited(quants: &[Quant], height: usize, pow_bits: u16) -> Result<(), Refused> {
    let mut auditor = Auditor::new();
    for quant in &quants[..height] {
        auditor.quant(&quant.header, &quant.meta)?;
        for transaction in &quant.transactions {
            let evidence = &transaction.evidence;
            auditor.transaction(&evidence.envelope, &[], evidence.payload.as_deref(), None)?;
        }
    }
    let mut header = Header {
        pow_bits,
        ..quants[height].parsed()
    };
    header.nonce = find_nonce(&header, 0..1 << 20).expect("so few bits are found soon");
    auditor.quant(&header.to_bytes(), &quants[height].meta)
}

fn mined() -> Vec<Chain> {
    list(&MORE["work"]).iter().map(Chain::of).collect()
}

fn decimal(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}
