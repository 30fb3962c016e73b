//! What an audit asks of a subchain: it begins with the Quant that split its parent, and holds only what is routed to it.

use crate::chain::constitution::Constitution;
use crate::chain::hash::{Hash, HashAlg};
use crate::chain::id::ChainId;
use crate::chain::meta::{Meta, ParentRef};
use crate::chain::quant::Header;
use crate::chain::refused::Refused;
use crate::chain::split::{SplitEvidence, place_of};
use crate::chain::transaction::{Attributes, Envelope, TYPE_CLAIM, TYPE_DATA, TYPE_TRANSFER};

/// A subchain under audit.
pub(super) struct SubchainAudit {
    id: ChainId,
    alg: HashAlg,
    parent: ParentRef,
    place: (u32, u32),
    /// The Quant that its first transaction holds.
    pub begins: Option<Hash>,
}

impl SubchainAudit {
    /// None of a chain that is no subchain.
    pub fn of(
        genesis: &Header,
        meta: &[u8],
        constitution: &Constitution,
    ) -> Result<Option<Self>, Refused> {
        let Some(place) = constitution.place else {
            return Ok(None);
        };
        let parent = Meta::parse(meta)?.parent;
        let parent = parent.ok_or_else(|| {
            let why = "the genesis of a subchain does not name its parent";
            Refused::new("parent", why)
        })?;
        Ok(Some(Self {
            id: genesis.id(),
            alg: genesis.hash_alg,
            parent,
            place,
            begins: None,
        }))
    }

    /// The next transaction.
    pub fn check(
        &mut self,
        envelope: &Envelope,
        attributes: &Attributes,
        payload: Option<&[u8]>,
        constitution: &Constitution,
    ) -> Result<(), Refused> {
        if envelope.index == 0 {
            return self.first(envelope, payload, constitution);
        }
        let routed = matches!(envelope.kind, TYPE_DATA | TYPE_TRANSFER);
        // A request_id, by which the others were routed, is in no transaction.
        let key = attributes.key.as_ref().or(attributes.id.as_ref());
        let Some(key) = key.filter(|_| routed) else {
            return Ok(());
        };
        let (place, of) = self.place;
        let leads = place_of(self.alg, &self.parent.id, key, of);
        if leads == place {
            return Ok(());
        }
        let why = format!(
            "transaction {} leads to subchain {leads} of {of}, and stands in {place}",
            envelope.index
        );
        Err(Refused::new("audit-route", why))
    }

    fn first(
        &mut self,
        envelope: &Envelope,
        payload: Option<&[u8]>,
        constitution: &Constitution,
    ) -> Result<(), Refused> {
        if envelope.kind != TYPE_CLAIM {
            let why = "the first transaction of a subchain is not the Quant that split its parent";
            return Err(Refused::new("audit-claim", why));
        }
        let evidence = SplitEvidence::parse(payload.unwrap_or_default())?;
        evidence.check(&self.id, self.alg, &self.parent, self.place)?;
        self.begins.get_or_insert(evidence.quant_hash());
        evidence.verify(constitution)
    }
}
