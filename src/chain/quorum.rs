//! The quorum: a head is final once as many distinct nodes signed it as constitution record 13 says. The header shows
//! nothing of it: signatures stand beside a head, and [`super::verify_quorum`] counts them.

use super::constitution::Constitution;
use super::proof_system::ProofSystem;
use super::quant::Header;
use super::refused::Refused;

/// Distinct nodes that must sign.
#[derive(Clone, Copy, Debug)]
struct Quorum(usize);

/// The system, where the constitution asks for more than one signature.
pub(super) fn asked(constitution: &Constitution) -> Option<Box<dyn ProofSystem>> {
    let quorum = constitution.quorum.map(usize::from);
    let quorum = quorum.filter(|quorum| *quorum > 1)?;
    Some(Box::new(Quorum(quorum)))
}

impl ProofSystem for Quorum {
    fn copy(&self) -> Box<dyn ProofSystem> {
        Box::new(*self)
    }

    fn check_alone(&self, _: &Header) -> Result<(), Refused> {
        Ok(())
    }

    fn signers(&self) -> usize {
        self.0
    }
}
