//! The constitution in force: changed by a signed transaction, and shown with what proves it.
use crate::{
    chain::{Constitution, ConstitutionChange, Hash, Meta, SigningKey, TYPE_CONSTITUTION_CHANGE},
    client::{Client, ClientError, Trusted},
    proto,
};

/// A change that a chain has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amendment {
    /// Its index: it is in force from here on.
    pub index: u64,
    /// The chain had it already.
    pub duplicate: bool,
}

/// The constitution that decides about the next transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its rules.
    pub constitution: Constitution,
    /// The index of the last change; none: it is that of Quant 0.
    pub amended_index: Option<u64>,
    /// The Quant that seals that change; none while it is in the pool.
    pub amended_height: Option<u64>,
    /// True if Quant 0 or a Quant of the trusted history names it by its hash. That no later change is withheld only an
    /// audit can tell.
    pub proven: bool,
}

impl Client {
    /// Changes who may write to a chain, or when it seals by itself, by the key of one of its admins.
    pub async fn amend(
        &self,
        trusted: &Trusted,
        change: &ConstitutionChange,
        key: &SigningKey,
    ) -> Result<Amendment, ClientError> {
        let sent = ("change", TYPE_CONSTITUTION_CHANGE, change.to_bytes());
        let run = self.inject_signed(trusted, sent, key).await?;
        Ok(Amendment {
            index: run.first_index,
            duplicate: run.duplicate,
        })
    }

    /// The constitution in force as a node gave it with a chain, held against the trusted history.
    pub(super) async fn in_force(
        &self,
        trusted: &Trusted,
        given: &proto::Chain,
    ) -> Result<InForce, ClientError> {
        let constitution = Constitution::parse(&given.constitution_in_force)?;
        check_fixed(&constitution, trusted)?;
        let mut in_force = InForce {
            constitution,
            amended_index: given.amended_index,
            amended_height: given.amended_height,
            proven: false,
        };
        match (given.amended_index, given.amended_height) {
            (None, None) if in_force.constitution == trusted.constitution => in_force.proven = true,
            (Some(index), Some(height)) if height <= trusted.header.height => {
                let hash = Constitution::hash(trusted.alg(), &given.constitution_in_force);
                self.check_amended(trusted, (index, height), hash).await?;
                in_force.proven = true;
            }
            // In the pool, or sealed after the trusted head was shown: the node's word.
            (Some(_), _) => {}
            (None, _) => {
                let why = "nothing was changed, says the node, and shows another constitution than that of Quant 0";
                return Err(ClientError::refused("constitution-in-force", why));
            }
        }
        Ok(in_force)
    }

    /// The Quant seals the change, and names the constitution after it.
    async fn check_amended(
        &self,
        trusted: &Trusted,
        (index, height): (u64, u64),
        hash: Hash,
    ) -> Result<(), ClientError> {
        let (header, meta) = self.quant(trusted, height).await?;
        let said = Meta::parse(&meta)?.constitution_in_force;
        if said == Some((hash, height)) && (header.tx_start..header.tx_end()).contains(&index) {
            return Ok(());
        }
        let why = format!("Quant {height} does not name the constitution that the node shows");
        Err(ClientError::refused("constitution-in-force", why))
    }
}

/// All but authors and timers is as it was hashed into Quant 0.
fn check_fixed(in_force: &Constitution, trusted: &Trusted) -> Result<(), ClientError> {
    let first = &trusted.constitution;
    let fixed = Constitution {
        authors: first.authors.clone(),
        leap_count: first.leap_count,
        leap_bytes: first.leap_bytes,
        leap_ms: first.leap_ms,
        ..in_force.clone()
    };
    if fixed == *first {
        return Ok(());
    }
    let why = "the node shows a constitution in force whose fixed rules are not those of Quant 0";
    Err(ClientError::refused("constitution-in-force", why))
}
