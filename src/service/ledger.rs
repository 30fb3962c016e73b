//! What a ledger asks of a transfer and of its constitution before anything is proposed. Whether the sender has enough is
//! the engine's to decide.

use tonic::Status;

use super::{
    catalog::Known,
    status::{invalid, of_content, refused_field},
};
use crate::chain::{Transfer, TransferError, check_account, key_of_account};
use crate::proto::{self, constitution::Content};

/// Reads a transfer, and checks that a sender whose account belongs to a key signed it, under an id: without one, whoever
/// saw the transfer could send it again.
pub(super) fn check_transfer(
    known: &Known,
    at: usize,
    one: &proto::TransactionInput,
) -> Result<Transfer, Status> {
    if !known.constitution.ledger {
        let why = format!(
            "chain {} is no ledger and takes no transfers; give type 0, or bang a chain with rules ledger",
            known.constitution.name
        );
        return Err(invalid(&format!("transactions[{at}].type"), why));
    }
    let transfer = Transfer::parse(&one.payload).map_err(|error| match error {
        TransferError::Content(error) => of_content(at, &error),
        TransferError::Field { .. } => {
            let field = format!("transactions[{at}].payload");
            refused_field("TRANSFER_REFUSED", &field, error.to_string())
        }
    })?;
    let Some(key) = key_of_account(&transfer.sender) else {
        return Ok(transfer);
    };
    if one.author != key.as_slice() {
        let why = format!(
            "the sender {} is the account of that Ed25519 key; sign the transfer with it",
            transfer.sender
        );
        return Err(refused_field(
            "NOT_SENDER",
            &format!("transactions[{at}].author"),
            why,
        ));
    }
    if one.id.is_empty() {
        let why = "it is missing; a transfer from an account that belongs to a key needs one, or anybody could send it again";
        return Err(refused_field(
            "ID_MISSING",
            &format!("transactions[{at}].id"),
            why,
        ));
    }
    Ok(transfer)
}

/// Data has no place on a ledger.
pub(super) fn check_data_allowed(known: &Known, at: usize) -> Result<(), Status> {
    if !known.constitution.ledger {
        return Ok(());
    }
    let why =
        "a ledger takes transfers; give type 3, with sender, receiver and amount in the payload";
    Err(invalid(&format!("transactions[{at}].type"), why))
}

/// What a constitution says of a ledger must make one.
pub(super) fn check_ledger(asked: &proto::Constitution) -> Result<(), Status> {
    if !asked.rules_ledger {
        return check_no_ledger(asked);
    }
    if !matches!(
        Content::try_from(asked.content),
        Ok(Content::Unspecified | Content::Json)
    ) {
        let why = "a ledger's transfers are JSON; give CONTENT_JSON, or leave it out";
        return Err(invalid("constitution.content", why));
    }
    if !asked.schema.is_empty() {
        let why = "a ledger's transfers have a form of their own; leave the schema out";
        return Err(invalid("constitution.schema", why));
    }
    let account = str::from_utf8(&asked.mint_account).map_err(|_| {
        let why = "it is no UTF-8 text; give the name of an account";
        invalid("constitution.mint_account", why)
    })?;
    if account.is_empty() {
        let why = "it is missing: without a mint no account could ever have anything; give the account that amounts come from";
        return Err(invalid("constitution.mint_account", why));
    }
    check_account(account).map_err(|why| invalid("constitution.mint_account", why))?;
    if asked.mint_limit == "0" {
        let why = "it is 0: nothing could ever be moved; give 1 to 2^128 - 1, or leave it out for the most";
        return Err(invalid("constitution.mint_limit", why));
    }
    Ok(())
}

fn check_no_ledger(asked: &proto::Constitution) -> Result<(), Status> {
    let given = [
        ("constitution.mint_account", !asked.mint_account.is_empty()),
        ("constitution.mint_limit", !asked.mint_limit.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(invalid(
            field,
            "only a ledger has a mint; set rules_ledger too, or leave it out",
        )),
        None => Ok(()),
    }
}
