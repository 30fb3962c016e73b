//! The chains of a round: one for each kind of content, sealed in different ways.
use bytes::Bytes;
use qbc::proto::{
    BangRequest, Constitution,
    constitution::{Content, HashAlg},
};

use crate::{chance::Chance, history::Item};

/// A chain that clients write to.
#[derive(Clone, Debug)]
pub struct Plot {
    pub name: String,
    content: Content,
    constitution: Constitution,
}

/// The chains of a round.
pub fn plots(seed: u64) -> Vec<Plot> {
    let of = |content: Content, rest: Constitution| Plot {
        name: format!("chaos-{seed}-{}", content.as_str_name().to_lowercase()),
        content,
        constitution: Constitution {
            content: content.into(),
            ..rest
        },
    };
    vec![
        of(Content::Bytes, Constitution::default()),
        of(
            Content::Text,
            Constitution {
                leap_count: Some(500),
                ..Constitution::default()
            },
        ),
        of(
            Content::Json,
            Constitution {
                leap_ms: Some(1500),
                ..Constitution::default()
            },
        ),
        of(
            Content::Msgpack,
            Constitution {
                hash_alg: HashAlg::Sha2256.into(),
                ..Constitution::default()
            },
        ),
    ]
}

impl Plot {
    pub fn bang(&self) -> BangRequest {
        BangRequest {
            name: self.name.clone(),
            constitution: Some(self.constitution.clone()),
            request_id: format!("bang {}", self.name),
        }
    }

    /// A transaction that holds its label, which nobody else uses.
    pub fn item(&self, label: &str, with_id: bool, chance: &mut Chance) -> Item {
        let id = if with_id {
            label.to_owned()
        } else {
            String::new()
        };
        Item {
            id: id.into(),
            payload: self.payload(label, chance),
        }
    }

    fn payload(&self, label: &str, chance: &mut Chance) -> Bytes {
        let length = chance.within(0..120) as usize;
        let noise = chance.bytes(length);
        match self.content {
            Content::Text => format!("{label} {}", hex::encode(noise)).into(),
            Content::Json => {
                format!("{{\"l\":\"{label}\",\"n\":\"{}\"}}", hex::encode(noise)).into()
            }
            // A MessagePack string of up to 255 bytes.
            Content::Msgpack => [&[0xd9, label.len() as u8], label.as_bytes()]
                .concat()
                .into(),
            _ => [label.as_bytes(), b" ", &noise].concat().into(),
        }
    }
}
