//! Creating and sealing chains: the answers are checked like all others.
use bytes::Bytes;

use crate::{
    chain::{ChainId, Constitution, Content, Header, Refused, check_meta},
    client::{Client, ClientError, Contact, ContactKind, Trusted, convert},
    proto,
};

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct BangOptions {
    /// What the chain accepts; the node adds its authority, the time and a salt.
    pub constitution: proto::Constitution,
}

/// A chain created.
#[derive(Clone, Debug)]
pub struct Banged {
    /// The chain at its newest head, verified.
    pub trusted: Trusted,
    /// Header of Quant 0.
    pub genesis: Header,
    /// True if the chain was there already, under the same constitution.
    pub duplicate: bool,
}

impl Client {
    /// Creates a chain, checks that its constitution is the one asked for, and trusts it from now on.
    pub async fn bang(&self, name: &str, options: BangOptions) -> Result<Banged, ClientError> {
        let request = proto::BangRequest {
            name: name.to_owned(),
            constitution: Some(options.constitution.clone()),
            request_id: self.request_id().await,
        };
        let bang = |r| async { self.chains.clone().bang(r).await };
        let answer = self.call(request, bang).await?;
        let chain_id = convert::chain_id(&answer.chain_id)?;
        let (header, meta) = convert::quant_bytes(answer.genesis)?;
        let genesis = check_genesis(&header, &meta, chain_id)?;
        let Contact { trusted, kind } = self.contact(name, false).await?;
        if trusted.chain_id != chain_id {
            let why = format!(
                "the bang made chain {chain_id}, the name now answers as {}",
                trusted.chain_id
            );
            return Err(ClientError::refused("chain-id", why));
        }
        check_as_asked(&options.constitution, &trusted.constitution)?;
        // What is not as asked is not trusted.
        if kind == ContactKind::First {
            self.remember(name, &trusted).await?;
        }
        Ok(Banged {
            trusted,
            genesis,
            duplicate: answer.duplicate,
        })
    }

    /// Seals the pool into the next Quant and returns its header, tied to the trusted history.
    pub async fn leap(
        &self,
        name: &str,
        note: &[u8],
        keep: bool,
    ) -> Result<(Header, Contact), ClientError> {
        let request = proto::LeapRequest {
            chain: name.to_owned(),
            note: Bytes::copy_from_slice(note),
            request_id: self.request_id().await,
            expected_head: Bytes::new(),
        };
        let leap = |r| async { self.chains.clone().leap(r).await };
        let head = convert::head(self.call(request, leap).await?.head)?;
        let contact = self.settle_header(name, &head.header, keep).await?;
        Ok((head.header, contact))
    }

    /// Seals the pool into a final Quant: nothing may extend the chain after it.
    pub async fn close(
        &self,
        name: &str,
        note: &[u8],
        keep: bool,
    ) -> Result<(Header, Contact), ClientError> {
        let request = proto::CloseRequest {
            chain: name.to_owned(),
            note: Bytes::copy_from_slice(note),
            request_id: self.request_id().await,
        };
        let close = |r| async { self.chains.clone().close(r).await };
        let head = convert::head(self.call(request, close).await?.head)?;
        if !head.header.is_final {
            return Err(ClientError::refused(
                "answer",
                "the closing Quant is not final",
            ));
        }
        let contact = self.settle_header(name, &head.header, keep).await?;
        Ok((head.header, contact))
    }
}

fn check_genesis(header: &[u8], meta: &[u8], chain_id: ChainId) -> Result<Header, Refused> {
    let header = Header::parse(header)?;
    check_meta(&header, meta)?;
    if header.id() == chain_id && header.height == 0 {
        return Ok(header);
    }
    let why = format!(
        "the genesis shown is of chain {}, not of {chain_id}",
        header.id()
    );
    Err(Refused::new("chain-id", why))
}

/// Every rule that was asked for stands in the constitution as asked.
fn check_as_asked(asked: &proto::Constitution, got: &Constitution) -> Result<(), Refused> {
    let keys = |keys: &[Bytes]| keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>();
    let rules = [
        (
            "content",
            content(asked.content()).is_none_or(|content| content == got.content),
        ),
        (
            "schema",
            asked.schema.is_empty() || got.schema.as_deref() == Some(asked.schema.as_ref()),
        ),
        ("authors", same_keys(&keys(&asked.authors), &got.authors)),
        ("admins", same_keys(&keys(&asked.admins), &got.admins)),
        (
            "leap_count",
            asked
                .leap_count
                .is_none_or(|asked| got.leap_count == Some(asked)),
        ),
        (
            "leap_bytes",
            asked
                .leap_bytes
                .is_none_or(|asked| got.leap_bytes == Some(asked)),
        ),
        (
            "leap_ms",
            asked.leap_ms.is_none_or(|asked| got.leap_ms == Some(asked)),
        ),
        (
            "quorum",
            asked
                .quorum
                .is_none_or(|asked| got.quorum.map(u32::from) == Some(asked)),
        ),
        (
            "payload_bytes_max",
            asked
                .payload_bytes_max
                .is_none_or(|asked| got.payload_max == Some(asked)),
        ),
        ("keyed", asked.keyed == got.keyed),
        ("erasable", asked.erasable == got.erasable),
        ("rules_ledger", asked.rules_ledger == got.ledger),
        (
            "work_bits_min",
            asked.work_bits_min == got.work.as_ref().map(|work| u32::from(work.bits_min)),
        ),
    ];
    match rules.iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((rule, _)) => {
            let why = format!("{rule} of the new chain is not what was asked for");
            Err(Refused::new("constitution-asked", why))
        }
    }
}

fn content(asked: proto::constitution::Content) -> Option<Content> {
    use proto::constitution::Content as Asked;
    match asked {
        Asked::Unspecified => None,
        Asked::Bytes => Some(Content::Bytes),
        Asked::Text => Some(Content::Text),
        Asked::Json => Some(Content::Json),
        Asked::Msgpack => Some(Content::MsgPack),
    }
}

/// The order of keys carries no meaning.
fn same_keys(asked: &[Vec<u8>], got: &[[u8; 32]]) -> bool {
    asked.len() == got.len()
        && asked
            .iter()
            .all(|key| got.iter().any(|g| g.as_slice() == key.as_slice()))
}
