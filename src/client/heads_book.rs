//! The trusted heads as a value: what the file holds, and the rules of a change.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    chain::{Authority, ChainId, Constitution, Header, Refused},
    client::{
        Border, ClientError, KeptReceipt, Trusted,
        heads::{Kept, Offer},
    },
};

/// The version of the file's form.
const VERSION: u32 = 1;

/// Trusted heads by chain id, and names by endpoint.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Book {
    qbc_heads: u32,
    chains: BTreeMap<String, HeadEntry>,
    /// endpoint -> name -> chain id
    names: BTreeMap<String, BTreeMap<String, String>>,
    /// Only a store in memory keeps them here; files have one of their own for them.
    #[serde(skip)]
    pub(super) receipts: Vec<KeptReceipt>,
}

/// One trusted head, as it is written: byte strings in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadEntry {
    /// The chain's name.
    pub name: String,
    /// Its height, for people.
    pub height: u64,
    /// quant_hash of the head.
    pub quant_hash: String,
    /// The 256 bytes of the head.
    pub header: String,
    /// Of a fork: the fork-genesis headers down from its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub borders: Vec<BorderEntry>,
    /// The constitution's records.
    pub constitution: String,
    /// The authority in force, as constitution record 4.
    pub authority: String,
    /// How many times it changed.
    pub authority_seq: u32,
}

/// Where a fork left its parent, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BorderEntry {
    /// The 256 bytes of the fork-genesis.
    pub header: String,
    /// The constitution's records of the chain below, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            qbc_heads: VERSION,
            chains: BTreeMap::new(),
            names: BTreeMap::new(),
            receipts: Vec::new(),
        }
    }
}

impl Book {
    /// Reads the text of a file; the error says what is wrong with it.
    pub(super) fn from_json(text: &[u8]) -> Result<Self, String> {
        let book: Self = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if book.qbc_heads != VERSION {
            return Err(format!("it has version {}, not {VERSION}", book.qbc_heads));
        }
        for (id, entry) in &book.chains {
            let trusted = entry.trusted().map_err(|e| format!("chain {id}: {e}"))?;
            if trusted.chain_id.to_string() != *id {
                return Err(format!(
                    "chain {id}: its header is one of {}",
                    trusted.chain_id
                ));
            }
        }
        Ok(book)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings and numbers");
        text.push(b'\n');
        text
    }

    pub(super) fn get(&self, id: &ChainId) -> Result<Option<Trusted>, ClientError> {
        let entry = self.chains.get(&id.to_string());
        Ok(entry.map(HeadEntry::trusted).transpose()?)
    }

    pub(super) fn id_of(&self, endpoint: &str, name: &str) -> Result<Option<ChainId>, ClientError> {
        let id = self.names.get(endpoint).and_then(|names| names.get(name));
        let id = id.map(|id| id.parse::<ChainId>());
        id.transpose()
            .map_err(|_| ClientError::Usage(format!("the head file binds {name} to no chain id")))
    }

    pub(super) fn all(&self) -> Result<Vec<Trusted>, ClientError> {
        let heads = self.chains.values().map(HeadEntry::trusted);
        Ok(heads.collect::<Result<_, _>>()?)
    }

    pub(super) fn receipts_of(&self, id: &ChainId) -> Vec<KeptReceipt> {
        let of_chain = self.receipts.iter().filter(|r| r.chain_id() == *id);
        of_chain.cloned().collect()
    }

    /// Takes the offer if the stored head is still the one that it was verified against.
    pub(super) fn keep(&mut self, offer: &Offer) -> Result<Kept, ClientError> {
        let id = offer.head.chain_id;
        let bound = self.id_of(offer.endpoint, offer.name)?;
        if let Some(bound) = bound.filter(|bound| *bound != id) {
            return Err(other_id(offer.name, bound, id).into());
        }
        let stored = self.get(&id)?.map(|stored| stored.hash);
        if stored != offer.base && stored != Some(offer.head.hash) {
            return Ok(Kept::Overtaken);
        }
        self.chains
            .insert(id.to_string(), HeadEntry::of(offer.head));
        let names = self.names.entry(offer.endpoint.to_owned()).or_default();
        names.insert(offer.name.to_owned(), id.to_string());
        Ok(Kept::Yes)
    }
}

impl HeadEntry {
    fn of(head: &Trusted) -> Self {
        Self {
            name: head.name().to_owned(),
            height: head.header.height,
            quant_hash: hex::encode(head.hash),
            header: hex::encode(head.header.to_bytes()),
            borders: head.borders.iter().map(BorderEntry::of).collect(),
            constitution: hex::encode(head.constitution.to_bytes()),
            authority: hex::encode(head.authority.to_bytes()),
            authority_seq: head.authority_seq,
        }
    }

    fn trusted(&self) -> Result<Trusted, Refused> {
        let bytes = |field: &str, text: &str| {
            hex::decode(text).map_err(|_| Refused::new("hex", format!("{field} is not hex")))
        };
        let header = Header::parse(&bytes("header", &self.header)?)?;
        let borders = self.borders.iter().map(BorderEntry::border);
        Ok(Trusted {
            borders: borders.collect::<Result<_, _>>()?,
            chain_id: header.id(),
            hash: header.hash(),
            header,
            constitution: Constitution::parse(&bytes("constitution", &self.constitution)?)?,
            authority: Authority::parse(&bytes("authority", &self.authority)?)?,
            authority_seq: self.authority_seq,
        })
    }
}

impl BorderEntry {
    fn of(border: &Border) -> Self {
        let below = border.below.as_ref();
        Self {
            header: hex::encode(border.header.to_bytes()),
            below: below.map(|below| hex::encode(below.to_bytes())),
        }
    }

    fn border(&self) -> Result<Border, Refused> {
        let bytes = |text: &String| {
            hex::decode(text).map_err(|_| Refused::new("hex", "a border is not hex".to_owned()))
        };
        let below = self.below.as_ref().map(bytes).transpose()?;
        let below = below.map(|below| Constitution::parse(&below));
        Ok(Border {
            header: Header::parse(&bytes(&self.header)?)?,
            below: below.transpose()?,
        })
    }
}

/// A name that stands for another chain than it did.
pub(super) fn other_id(name: &str, bound: ChainId, answered: ChainId) -> Refused {
    Refused::new(
        "chain-id",
        format!(
            "{name} stood for chain {bound} and now answers as {answered}; if the chain was made anew on purpose, \
             remove the name from the head file"
        ),
    )
}
