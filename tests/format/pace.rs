//! A proof system made from outside, by the trait alone: the example of docs/EXTENDING.md, which shows just this code.

use qbc::chain::{HashAlg, Header, ProofSystem, Refused, Systems, genesis_header};

/// Quants keep a distance in time.
#[derive(Clone, Copy, Debug)]
struct Pace {
    least_ms: u64,
    /// The time of the header before.
    last_ms: u64,
}

impl ProofSystem for Pace {
    fn copy(&self) -> Box<dyn ProofSystem> {
        Box::new(*self)
    }

    fn begin(&mut self, first: &Header) {
        self.last_ms = first.time_ms;
    }

    fn check(&self, next: &Header) -> Result<(), Refused> {
        let earliest = self.last_ms.saturating_add(self.least_ms);
        if next.time_ms >= earliest {
            return Ok(());
        }
        let why = format!(
            "Quant {} is of {} ms, the pace allows it from {earliest} on",
            next.height, next.time_ms
        );
        Err(Refused::new("pace", why))
    }

    fn check_alone(&self, _: &Header) -> Result<(), Refused> {
        // One header says nothing of the one before it.
        Ok(())
    }

    fn push(&mut self, header: &Header) {
        self.last_ms = header.time_ms;
    }

    fn resumes_from(&self, head: u64) -> Option<u64> {
        Some(head)
    }

    fn resume(&mut self, needed: &Header, _: &Header) {
        self.last_ms = needed.time_ms;
    }
}

fn header(height: u64, time_ms: u64) -> Header {
    Header {
        genesis: height == 0,
        height,
        ..genesis_header(HashAlg::Sha3_256, time_ms, 0, b"meta")
    }
}

fn begun() -> Systems {
    let pace = Pace {
        least_ms: 50,
        last_ms: 0,
    };
    Systems::with(vec![Box::new(pace)], &header(0, 1000))
}

#[test]
fn a_system_from_outside_is_asked_like_those_that_are_there() {
    let mut systems = begun();
    let early = header(1, 1049);
    assert_eq!(systems.check(&early).unwrap_err().check, "pace");
    assert_eq!(systems.check_alone(&early), Ok(()));
    let next = header(1, 1050);
    assert_eq!(systems.check(&next), Ok(()));
    systems.push(&next);
    let kept = systems.clone();
    assert!(systems.check(&header(2, 1099)).is_err());
    assert!(kept.check(&header(2, 1100)).is_ok());
    assert_eq!((systems.bits(), systems.signers()), (0, 1));

    let mut resumed = begun();
    let found = resumed.resume(&next, |height| {
        Ok::<_, ()>((height == 1).then(|| next.clone()))
    });
    assert_eq!(found, Ok(true));
    assert!(resumed.check(&header(2, 1099)).is_err() && resumed.check(&header(2, 1100)).is_ok());
}

#[test]
fn the_example_of_the_document_is_this_code() {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).unwrap();
    let (page, code) = (read("docs/EXTENDING.md"), read("tests/format/pace.rs"));
    let shown = page.split("```rust\n").nth(1).unwrap();
    let shown = shown.split("```").next().unwrap();
    assert!(shown.lines().count() > 30 && code.contains(shown));
    // The names that its steps use are those of the code.
    for (file, name) in [
        ("src/chain/proof_system.rs", "ASKED"),
        ("src/chain/proof_system.rs", "pub trait ProofSystem"),
        ("src/chain/work.rs", "pub(super) fn asked("),
        ("src/chain/quorum.rs", "pub(super) fn asked("),
        ("src/chain/constitution.rs", "const QUORUM: u8"),
        ("src/service/convert.rs", "pub fn constitution("),
        ("src/service/bang.rs", "fn check_rules("),
        ("src/client/bang.rs", "fn seal_rules("),
        ("src/cli/bang.rs", "struct BangArgs"),
        ("src/cli/shape.rs", "fn constitution("),
        ("src/chain/refused.rs", "pub const CHECKS"),
        ("tests/python/verifier.py", "def quorum("),
    ] {
        assert!(read(file).contains(name), "{name} is not in {file}");
        let word = name.rsplit(' ').next().unwrap().trim_end_matches('(');
        assert!(page.contains(word), "{word} is not in the document");
    }
}
