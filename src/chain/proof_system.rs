//! Proof systems: what a Quant must show, and what its head needs, before anybody believes it.
//!
//! A chain begins with the least: a head counts with the signature of one node that its authority certified. Records of
//! the constitution ask for more, each by a system of its own: `work` for zero bits, `quorum` for signatures. Replicas in
//! apply, receivers of a snapshot, audits, proofs and clients all ask [`Systems`] and none of them knows which there are.
//!
//! A new one is a file with a [`ProofSystem`] and a line in `ASKED`: docs/EXTENDING.md makes one.

use std::fmt;

use super::constitution::Constitution;
use super::quant::Header;
use super::refused::Refused;
use super::{quorum, work};

/// Looks for a system's record, and makes the system where it is there.
type Asked = fn(&Constitution) -> Option<Box<dyn ProofSystem>>;

/// The systems that a constitution may ask for: each looks for its record.
const ASKED: &[Asked] = &[work::asked, quorum::asked];

/// What one system demands of a chain's headers, carried from header to header. Pure: what it decides follows from the
/// constitution and the headers that it was shown, so that all replicas and all auditors decide alike.
pub trait ProofSystem: fmt::Debug + Send + Sync {
    /// The system as it stands.
    fn copy(&self) -> Box<dyn ProofSystem>;

    /// A chain begins: its genesis or fork-genesis, of which nothing is demanded.
    fn begin(&mut self, first: &Header) {
        let _ = first;
    }

    /// Refuses the next header, by the name of a check, unless it shows what is demanded after those before it.
    fn check(&self, next: &Header) -> Result<(), Refused> {
        self.check_alone(next)
    }

    /// The same as far as it can be told of a header without those before it: all that a proof of one Quant shows.
    fn check_alone(&self, header: &Header) -> Result<(), Refused>;

    /// The next header was accepted.
    fn push(&mut self, header: &Header) {
        let _ = header;
    }

    /// The height of the header that [`ProofSystem::resume`] needs after `head`; none where the beginning tells all.
    fn resumes_from(&self, head: u64) -> Option<u64> {
        let _ = head;
        None
    }

    /// Goes on after `head`, with the header at the height that was asked for.
    fn resume(&mut self, needed: &Header, head: &Header) {
        let _ = (needed, head);
    }

    /// Leading zero bits that must be searched for the next header before it is proposed; 0: nothing is.
    fn bits(&self) -> u16 {
        0
    }

    /// Distinct nodes whose signatures make a head final. From 2 on replicas sign each Quant, and the signatures are kept.
    fn signers(&self) -> usize {
        1
    }
}

/// All systems of one chain: each must be content.
#[derive(Debug, Default)]
pub struct Systems(Vec<Box<dyn ProofSystem>>);

impl Systems {
    /// Those that a constitution asks for, of a chain whose headers are not known.
    pub fn of(constitution: &Constitution) -> Self {
        Self(
            ASKED
                .iter()
                .filter_map(|asked| asked(constitution))
                .collect(),
        )
    }

    /// The same after a genesis or fork-genesis.
    pub fn begin(constitution: &Constitution, first: &Header) -> Self {
        Self::of(constitution).begun(first)
    }

    /// These and no others, after a genesis or fork-genesis.
    pub fn with(systems: Vec<Box<dyn ProofSystem>>, first: &Header) -> Self {
        Self(systems).begun(first)
    }

    fn begun(mut self, first: &Header) -> Self {
        self.0.iter_mut().for_each(|system| system.begin(first));
        self
    }

    /// Goes on after `head`; `header` gives earlier ones by their height. False where one of them is missing.
    pub fn resume<E>(
        &mut self,
        head: &Header,
        mut header: impl FnMut(u64) -> Result<Option<Header>, E>,
    ) -> Result<bool, E> {
        for system in &mut self.0 {
            let Some(height) = system.resumes_from(head.height) else {
                continue;
            };
            match header(height)? {
                Some(needed) => system.resume(&needed, head),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Checks the next header of the chain.
    pub fn check(&self, next: &Header) -> Result<(), Refused> {
        self.0.iter().try_for_each(|system| system.check(next))
    }

    /// Checks a header without those before it.
    pub fn check_alone(&self, header: &Header) -> Result<(), Refused> {
        let mut systems = self.0.iter();
        systems.try_for_each(|system| system.check_alone(header))
    }

    /// The next header was accepted.
    pub fn push(&mut self, header: &Header) {
        self.0.iter_mut().for_each(|system| system.push(header));
    }

    /// Zero bits that the next header needs.
    pub fn bits(&self) -> u16 {
        let bits = self.0.iter().map(|system| system.bits());
        bits.max().unwrap_or(0)
    }

    /// Distinct nodes that make a head final.
    pub fn signers(&self) -> usize {
        let signers = self.0.iter().map(|system| system.signers());
        signers.max().unwrap_or(1)
    }
}

impl Clone for Systems {
    fn clone(&self) -> Self {
        Self(self.0.iter().map(|system| system.copy()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::constitution::{Authority, Birth, Work};
    use super::super::hash::HashAlg;
    use super::super::quant::genesis_header;
    use super::*;

    fn plain() -> Constitution {
        Constitution::from(Birth {
            name: "a".into(),
            created_ms: 1,
            salt: [0; 16],
            authority: Authority {
                threshold: 1,
                roots: vec![[7; 32]],
            },
            cluster_id: [0; 16],
        })
    }

    fn header(height: u64, pow_bits: u16) -> Header {
        Header {
            genesis: height == 0,
            height,
            ..genesis_header(HashAlg::Sha3_256, 1000 * height, pow_bits, b"meta")
        }
    }

    #[test]
    fn a_chain_that_asks_for_nothing_needs_one_signature_and_no_work() {
        let systems = Systems::begin(&plain(), &header(0, 0));
        assert_eq!((systems.bits(), systems.signers()), (0, 1));
        assert_eq!(systems.check(&header(1, 0)), Ok(()));
    }

    #[test]
    fn each_system_that_is_asked_for_has_its_say() {
        let constitution = Constitution {
            work: Some(Work {
                bits_min: 4,
                target_ms: 0,
            }),
            quorum: Some(3),
            ..plain()
        };
        let systems = Systems::begin(&constitution, &header(0, 0));
        assert_eq!((systems.bits(), systems.signers()), (4, 3));
        assert_eq!(systems.check(&header(1, 4)), Ok(()));
        let refused = systems.check(&header(1, 3)).unwrap_err();
        assert_eq!(refused.check, "work-minimum");
        let alone = Systems::of(&constitution).check_alone(&header(1, 3));
        assert_eq!(alone.unwrap_err().check, "work-minimum");
    }

    #[test]
    fn what_goes_on_after_a_head_asks_for_what_it_would_have_asked_for_all_along() {
        let constitution = Constitution {
            work: Some(Work {
                bits_min: 2,
                target_ms: 100,
            }),
            ..plain()
        };
        let mut headers = vec![header(0, 0)];
        let mut systems = Systems::begin(&constitution, &headers[0]);
        for height in 1..40 {
            let next = header(height, systems.bits());
            systems.push(&next);
            headers.push(next.clone());
            let mut resumed = Systems::begin(&constitution, &headers[0]);
            let given = resumed.resume(&next, |height| {
                Ok::<_, ()>(headers.get(usize::try_from(height).unwrap()).cloned())
            });
            assert_eq!(given, Ok(true));
            assert_eq!(resumed.bits(), systems.bits(), "after {height}");
        }
        let mut resumed = Systems::begin(&constitution, &headers[0]);
        let missing = resumed.resume(&headers[39], |_| Ok::<_, ()>(None));
        assert_eq!(missing, Ok(false));
    }
}
