//! What an audit asks of a subchain: it begins with the Quant that split its parent, where it keeps a state with those of
//! all chains above, and holds only what is routed to it.

use crate::chain::claim::{SplitAbove, StateClaim, leads_here};
use crate::chain::constitution::Constitution;
use crate::chain::hash::{Hash, HashAlg};
use crate::chain::id::ChainId;
use crate::chain::meta::{Meta, ParentRef};
use crate::chain::quant::Header;
use crate::chain::refused::Refused;
use crate::chain::split::{SplitEvidence, place_of};
use crate::chain::transaction::{Attributes, Envelope, TYPE_CLAIM, TYPE_DATA, TYPE_TRANSFER};

/// A subchain under audit; or a fork of one, which has of the state above what leads to the subchain.
pub(super) struct SubchainAudit {
    /// Of the subchain, also in a fork.
    id: ChainId,
    alg: HashAlg,
    parent: ParentRef,
    place: (u32, u32),
    /// The Quant that its first transaction holds.
    pub begins: Option<Hash>,
    /// Of a keyed chain or a ledger: the topmost chain.
    family: Option<ChainId>,
    /// The chains above whose split Quants came, the topmost first; only where a state is kept.
    above: Vec<SplitAbove>,
    /// A fork of it is under way: no subchain any more.
    forked: bool,
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
        let keeps = constitution.keyed || constitution.ledger;
        Ok(Some(Self {
            id: genesis.id(),
            alg: genesis.hash_alg,
            parent,
            place,
            begins: None,
            family: constitution.family_id.filter(|_| keeps),
            above: Vec::new(),
            forked: false,
        }))
    }

    /// What a fork has of it: of one that keeps a state what leads to it, of others nothing.
    pub fn after(below: Option<Self>, header: &Header) -> Result<Option<Self>, Refused> {
        let part = match below {
            Some(part) if header.fork_genesis => part,
            below => return Ok(below),
        };
        if part.lacks_splits() {
            let why = "the fork begins before the Quants that split the chains above its subchain";
            return Err(Refused::new("audit-claim", why));
        }
        let forked = Self {
            forked: true,
            ..part
        };
        Ok(Some(forked).filter(|part| part.family.is_some()))
    }

    /// True of a fork.
    pub fn is_forked(&self) -> bool {
        self.forked
    }

    /// The next transaction.
    pub fn check(
        &mut self,
        envelope: &Envelope,
        attributes: &Attributes,
        payload: Option<&[u8]>,
        constitution: &Constitution,
    ) -> Result<(), Refused> {
        if envelope.index == 0 || self.lacks_splits() {
            return self.begin(envelope, payload, constitution);
        }
        if envelope.kind == TYPE_CLAIM && !StateClaim::is_one(payload.unwrap_or_default()) {
            let why = format!(
                "transaction {} is a split Quant that its subchain has no place for",
                envelope.index
            );
            return Err(Refused::new("audit-claim", why));
        }
        // A transfer is where its sender leads, and so is its key. A request_id, by which the others were routed, is in no
        // transaction.
        let key = attributes.key.as_ref();
        let routing_key = match envelope.kind {
            // A fork has a place for what is in no state.
            TYPE_DATA | TYPE_TRANSFER if self.forked => key.filter(|_| constitution.keyed),
            TYPE_DATA => key.or(attributes.id.as_ref()),
            TYPE_TRANSFER => key,
            _ => None,
        };
        routing_key.map_or(Ok(()), |key| self.routed(envelope.index, key))
    }

    /// The id, and the chains above it, the topmost first.
    pub fn place(&self) -> (&ChainId, &[SplitAbove]) {
        (&self.id, &self.above)
    }

    /// True where a routing key leads here.
    pub fn leads_here(&self, routing_key: &[u8]) -> bool {
        if self.family.is_some() {
            return leads_here(self.alg, &self.above, &self.id, routing_key);
        }
        let (place, of) = self.place;
        place_of(self.alg, &self.parent.id, routing_key, of) == place
    }

    /// What is routed by this leads here.
    pub fn routed(&self, index: u64, routing_key: &[u8]) -> Result<(), Refused> {
        if self.leads_here(routing_key) {
            return Ok(());
        }
        let (place, of) = self.place;
        let why =
            format!("transaction {index} leads to another subchain, and stands in {place} of {of}");
        Err(Refused::new("audit-route", why))
    }

    /// Split Quants of chains above are still to come.
    fn lacks_splits(&self) -> bool {
        let topmost = self.above.first().map(|split| split.id);
        self.family.is_some() && topmost != self.family
    }

    fn begin(
        &mut self,
        envelope: &Envelope,
        payload: Option<&[u8]>,
        constitution: &Constitution,
    ) -> Result<(), Refused> {
        if envelope.kind != TYPE_CLAIM {
            let why = format!(
                "transaction {} of a subchain is not the Quant that split a chain above it",
                envelope.index
            );
            return Err(Refused::new("audit-claim", why));
        }
        let evidence = SplitEvidence::parse(payload.unwrap_or_default())?;
        match self.above.first() {
            None => evidence.check(&self.id, self.alg, &self.parent, self.place)?,
            Some(below) => evidence.check_above(&below.id, self.alg)?,
        }
        self.begins.get_or_insert(evidence.quant_hash());
        evidence.verify(constitution)?;
        if self.family.is_some() {
            self.above.insert(0, SplitAbove::of(&evidence)?);
        }
        Ok(())
    }
}
