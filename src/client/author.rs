//! Authors: transactions are signed before they are offered, and signatures are checked before they are shown.
use bytes::Bytes;

use crate::{
    chain::{
        Attributes, ChainId, Constitution, Refused, SigningKey, author_message, payload_hash,
        verify_author,
    },
    client::{Client, ClientError, Trusted, convert},
    proto,
};

/// Bytes of an id that is made here.
const ID_BYTES: usize = 16;

impl Client {
    /// Injects one transaction, signed: what it is in a word, its type, its payload. Where it stands now.
    pub(super) async fn inject_signed(
        &self,
        trusted: &Trusted,
        (what, kind, payload): (&str, u8, Vec<u8>),
        key: &SigningKey,
    ) -> Result<proto::InjectRun, ClientError> {
        let mut input = proto::TransactionInput {
            r#type: u32::from(kind),
            payload: payload.into(),
            ..Default::default()
        };
        sign(&mut input, trusted, key)?;
        let request = proto::InjectRequest {
            chain: trusted.name().to_owned(),
            transactions: vec![input],
            request_id: self.request_id().await,
            ..Default::default()
        };
        let inject = |r| async { self.chains.clone().inject(r).await };
        let mut runs = self.call(request, inject).await?.runs;
        let count = runs.len();
        let run = runs.pop().filter(|run| count == 1 && run.count == 1);
        run.ok_or_else(|| {
            let why = format!("one {what} was sent, {count} runs came back");
            convert::bad(why).into()
        })
    }
}

/// Signs an offered transaction for a chain. One without an id gets a random one: without it whoever saw the signature
/// could send it again. Sent again as it is, it is answered as a duplicate.
pub(super) fn sign(
    input: &mut proto::TransactionInput,
    trusted: &Trusted,
    key: &SigningKey,
) -> Result<(), ClientError> {
    if input.id.is_empty() {
        input.id = random_id()?;
    }
    let salt: Option<[u8; 32]> = input.salt.as_ref().try_into().ok();
    let attributes = convert::input_attributes(input);
    let message = author_message(
        &family(trusted),
        input.r#type as u8,
        u8::from(salt.is_some()),
        attributes.key.as_deref(),
        attributes.id.as_deref(),
        &payload_hash(trusted.alg(), &input.payload, salt.as_ref()),
    );
    input.author = Bytes::copy_from_slice(&key.public());
    input.signature = Bytes::copy_from_slice(&key.sign(&message));
    Ok(())
}

/// Checks the signature of a received transaction, if it has one.
pub(super) fn check(
    trusted: &Trusted,
    given: &proto::Transaction,
    attributes: &Attributes,
) -> Result<(), Refused> {
    let (Some(author), Some(signature)) = (&attributes.author, &attributes.signature) else {
        return Ok(());
    };
    let checked = verify_author(
        &family_at(trusted, given.index),
        convert::kind(given)?,
        given.flags as u8,
        attributes.key.as_deref(),
        attributes.id.as_deref(),
        &convert::hash_of_payload(trusted.alg(), given)?,
        author,
        signature,
    );
    checked.map_err(|refused| {
        let why = format!("transaction {}: {}", given.index, refused.why);
        Refused::new("author-signature", why)
    })
}

/// The chain that the author of a transaction signed for.
fn family_at(trusted: &Trusted, index: u64) -> ChainId {
    let (owner, constitution) = trusted.owner_of(index);
    family_of(owner, constitution)
}

/// The chain that authors of one with this constitution sign for.
pub(super) fn family_of(chain: ChainId, constitution: &Constitution) -> ChainId {
    constitution.family_id.unwrap_or(chain)
}

/// The chain that authors sign for.
pub(super) fn family(trusted: &Trusted) -> ChainId {
    trusted.constitution.family_id.unwrap_or(trusted.chain_id)
}

fn random_id() -> Result<Bytes, ClientError> {
    let mut id = [0; ID_BYTES];
    getrandom::fill(&mut id)
        .map_err(|e| ClientError::Usage(format!("the system gives no random bytes: {e}")))?;
    Ok(Bytes::copy_from_slice(&id))
}
