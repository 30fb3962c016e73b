//! The way of a key or an account through a chain that is split: which of the chains above and below had it, has it, and in
//! which order. Each chain is met and verified by itself; that one is the subchain of another is checked by its id and place.
use crate::{
    chain::{ChainName, place_of},
    client::{Client, ClientError, Split, Trusted, parent_name},
};

impl Client {
    /// The chains that a key, or an account of a ledger, leads through, the topmost first: what the later ones have of it
    /// came later. A chain to which it does not lead stands alone.
    pub async fn way(
        &self,
        trusted: Trusted,
        routing_key: &[u8],
    ) -> Result<Vec<Trusted>, ClientError> {
        let mut way = Box::pin(self.way_above(trusted, routing_key)).await?;
        while let Some(last) = way.last()
            && let Some(split) = self.split_of(last).await?
            && split.height.is_some()
        {
            let of = split.subchains.len() as u32;
            let (alg, id) = (last.header.hash_alg, last.chain_id);
            let place = place_of(alg, &id, routing_key, of);
            let below = self.below_at(&split, place).await?;
            way.push(below);
        }
        Ok(way)
    }

    async fn way_above(
        &self,
        trusted: Trusted,
        routing_key: &[u8],
    ) -> Result<Vec<Trusted>, ClientError> {
        let mut part = Box::pin(self.part_of(&trusted)).await?;
        let mut way = vec![trusted];
        while let Some(below) = part {
            let place = below.constitution.place;
            let Some(((place, of), name)) = place.zip(parent_name(&below)) else {
                break;
            };
            let parent = self.contact(name, false).await?.trusted;
            let route = self.split_of(&parent).await?;
            let listed = route.and_then(|split| split.subchains.get(place as usize).cloned());
            if listed.is_none_or(|listed| listed.chain_id != below.chain_id) {
                let why = format!("{} is no subchain of {}", below.name(), parent.name());
                return Err(refused(why));
            }
            if place_of(parent.header.hash_alg, &parent.chain_id, routing_key, of) != place {
                way.drain(..way.len() - 1);
                break;
            }
            part = Some(parent.clone()).filter(|parent| parent.constitution.is_subchain());
            way.insert(0, parent);
        }
        Ok(way)
    }

    /// The subchain that a chain is, or that it was forked from if that keeps a state; none of others.
    pub async fn part_of(&self, trusted: &Trusted) -> Result<Option<Trusted>, ClientError> {
        let mut at = trusted.clone();
        while !at.constitution.is_subchain() {
            let border = at.borders.first().map(|border| border.header.chain_id);
            let Some(owner) = border.filter(|_| at.constitution.part().is_some()) else {
                return Ok(None);
            };
            let told = self.forked_from(&at).await?;
            let parent = self.contact(&told, false).await?.trusted;
            if parent.chain_id != owner {
                let why = format!("{} was not forked from {told}", at.name());
                return Err(refused(why));
            }
            at = parent;
        }
        Ok(Some(at))
    }

    /// A subchain of a split, which must be what the node calls it, at its place.
    pub async fn below_at(&self, split: &Split, place: u32) -> Result<Trusted, ClientError> {
        let of = split.subchains.len() as u32;
        let told = split.subchains.get(place as usize);
        let told = told.ok_or_else(|| refused("a subchain is missing".to_owned()))?;
        let name = ChainName::parse(&told.name);
        let name = name.map_err(|error| refused(error.to_string()))?;
        let below = self.contact(name.as_ref(), false).await?.trusted;
        let stands = below.constitution.place == Some((place, of));
        if below.chain_id == told.chain_id && stands {
            return Ok(below);
        }
        let why = format!("{} is not subchain {place} of {of}", told.name);
        Err(refused(why))
    }
}

fn refused(why: String) -> ClientError {
    ClientError::refused("chain-id", why)
}
