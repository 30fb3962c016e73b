//! Creating and sealing chains: the answers are checked like all others.
use std::{future::Future, time::Duration};

use bytes::Bytes;
use tokio::time::sleep;
use tonic::{Request, Response, Status};

use crate::{
    chain::{ChainId, Constitution, Content, HashAlg, Header, Refused, check_meta},
    client::{Client, ClientError, Contact, ContactKind, ForkOptions, Trusted, convert},
    proto,
};

/// Pause before a node that mines is asked again.
const MINED_AGAIN: Duration = Duration::from_millis(100);

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
        check_as_asked(&options.constitution, &trusted)?;
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

    /// Seals the pool into the next Quant and returns its header, tied to the trusted history. A chain that asks for work is
    /// mined first, however many deadlines that takes; it goes on where this is dropped.
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
        let head = convert::head(self.mined(request, leap).await?.head)?;
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
        let head = convert::head(self.mined(request, close).await?.head)?;
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

impl Client {
    /// Asks again, with the same request_id, while the node says that it mines.
    async fn mined<T, A, F, Fut>(&self, request: A, call: F) -> Result<T, ClientError>
    where
        A: Clone,
        F: Fn(Request<A>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        loop {
            match self.call(request.clone(), &call).await {
                // The node has waited as long as the deadline let it.
                Err(error) if error.is_mining() => sleep(MINED_AGAIN).await,
                other => return other,
            }
        }
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
fn check_as_asked(asked: &proto::Constitution, trusted: &Trusted) -> Result<(), Refused> {
    let got = &trusted.constitution;
    let hash_alg = ("hash_alg", hash_alg(asked.hash_alg()) == trusted.alg());
    let rules = entry_rules(asked, got)
        .into_iter()
        .chain(seal_rules(asked, got))
        .chain([hash_alg]);
    match rules.into_iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((rule, _)) => {
            let why = format!("{rule} of the new chain is not what was asked for");
            Err(Refused::new("constitution-asked", why))
        }
    }
}

/// What the chain takes, and from whom: each rule with whether it is as asked.
fn entry_rules(asked: &proto::Constitution, got: &Constitution) -> [(&'static str, bool); 9] {
    let keys = |keys: &[Bytes]| keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>();
    let content = content(asked.content());
    let limit = got.mint.as_ref().map(|mint| mint.limit.to_string());
    let minter = got.mint.as_ref().map_or(&[][..], |mint| &mint.account);
    [
        (
            "content",
            content.is_none_or(|content| content == got.content),
        ),
        (
            "schema",
            asked.schema.is_empty() || got.schema.as_deref() == Some(asked.schema.as_ref()),
        ),
        ("authors", same_keys(&keys(&asked.authors), &got.authors)),
        ("admins", same_keys(&keys(&asked.admins), &got.admins)),
        (
            "payload_bytes_max",
            as_asked(asked.payload_bytes_max, got.payload_max),
        ),
        ("erasable", asked.erasable == got.erasable),
        ("rules_ledger", asked.rules_ledger == got.ledger),
        ("mint_account", minter == asked.mint_account),
        (
            "mint_limit",
            asked.mint_limit.is_empty() || limit.as_ref() == Some(&asked.mint_limit),
        ),
    ]
}

/// How the chain seals, and what its Quants commit.
fn seal_rules(asked: &proto::Constitution, got: &Constitution) -> [(&'static str, bool); 7] {
    let work = got.work.as_ref();
    let bits = work.map(|work| u32::from(work.bits_min));
    [
        ("leap_count", as_asked(asked.leap_count, got.leap_count)),
        ("leap_bytes", as_asked(asked.leap_bytes, got.leap_bytes)),
        ("leap_ms", as_asked(asked.leap_ms, got.leap_ms)),
        ("quorum", as_asked(asked.quorum, got.quorum.map(u32::from))),
        ("keyed", asked.keyed == got.keyed),
        ("work_bits_min", asked.work_bits_min == bits),
        (
            "work_target_ms",
            as_asked(asked.work_target_ms, work.map(|work| work.target_ms)),
        ),
    ]
}

/// A fork has the authors, admins and timers that were asked for.
pub(super) fn check_changes(options: &ForkOptions, trusted: &Trusted) -> Result<(), Refused> {
    let (asked, got) = (&options.constitution, &trusted.constitution);
    let keys = |keys: &[Bytes]| keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>();
    let named =
        |asked: &[Bytes], got: &[[u8; 32]]| asked.is_empty() || same_keys(&keys(asked), got);
    let timer =
        |asked: Option<u64>, got: Option<u64>| asked.is_none_or(|asked| asked == got.unwrap_or(0));
    let count = got.leap_count.map(u64::from);
    let rules = [
        ("any_author", !options.any_author || got.authors.is_empty()),
        ("authors", named(&asked.authors, &got.authors)),
        ("admins", named(&asked.admins, &got.admins)),
        ("leap_count", timer(asked.leap_count.map(u64::from), count)),
        ("leap_bytes", timer(asked.leap_bytes, got.leap_bytes)),
        ("leap_ms", timer(asked.leap_ms, got.leap_ms)),
    ];
    match rules.into_iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((rule, _)) => {
            let why = format!("{rule} of the fork is not what was asked for");
            Err(Refused::new("constitution-asked", why))
        }
    }
}

/// What was not asked for may be as the node has it.
fn as_asked<T: Copy + PartialEq>(asked: Option<T>, got: Option<T>) -> bool {
    asked.is_none() || asked == got
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

fn hash_alg(asked: proto::constitution::HashAlg) -> HashAlg {
    use proto::constitution::HashAlg as Asked;
    match asked {
        Asked::Unspecified | Asked::Sha3256 => HashAlg::Sha3_256,
        Asked::Sha2256 => HashAlg::Sha2_256,
    }
}

/// The order of keys carries no meaning.
fn same_keys(asked: &[Vec<u8>], got: &[[u8; 32]]) -> bool {
    asked.len() == got.len()
        && asked
            .iter()
            .all(|key| got.iter().any(|g| g.as_slice() == key.as_slice()))
}
