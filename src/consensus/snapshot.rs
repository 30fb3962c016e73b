//! A snapshot of a group on its way from the leader to a replica, on a stream of its own. What is in it is the engine's
//! (`engine::image`); this is the conversation.
//!
//! Leader: `address | vote 24 | node u64`. Replica: `0 | holdings` for what it has and hashed again, then `1`. Leader: the
//! applied row of the moment that it pins now, then pieces, the last one signed. Replica: `2 | vote` once the image is
//! checked, synced and made the group's data by one write, or `3 | why`.

use std::sync::Arc;

use bytes::Bytes;
use openraft::{raft::SnapshotResponse, type_config::alias::SnapshotOf};

use super::{
    Group, GroupImage, Groups, SnapshotMeta, Types, Vote, codec,
    network::Network,
    port::{Carrier, Unreachable},
    slots::{Slots, fresh_slot},
    trash,
    wire::Address,
};
use crate::engine::{
    Closing, GroupId, ImageClaim, ImageError, ImageReceiver, ImageSender, Put, node_of,
};
use crate::store::{Cf, RaftTag, RowReader, Slot, Store, StoreError, View, raft_key};

/// Signs the message that a snapshot ends with, by the node's certified key; empty while it has none.
pub type Signing = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

const HOLDING: u8 = 0;
const HOLDINGS_END: u8 = 1;
const TAKEN: u8 = 2;
const REFUSED: u8 = 3;

/// A snapshot was not sent or not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the stream of the snapshot broke")]
    Broken,
    #[error("a message of the snapshot can't be read")]
    Unreadable,
    #[error("the replica refused it: {0}")]
    Refused(String),
}

/// Sends the group as it is now to a replica; answers with the vote that the replica has then.
pub(super) async fn send(
    network: &Network,
    address: Address,
    vote: &Vote,
) -> Result<SnapshotResponse<Types>, SnapshotError> {
    let to = node_of(address.replica);
    let from = network.node_id.to_be_bytes();
    let first = address.and(&[codec::encode_vote(vote).as_slice(), &from].concat());
    let mut carrier = network.peers.carry(to, first).await?;
    let mut holdings = Vec::new();
    loop {
        let message = carrier.inbox.recv().await.ok_or(SnapshotError::Broken)?;
        match message.split_first() {
            Some((&HOLDING, _)) => holdings.push(message.slice(1..)),
            Some((&HOLDINGS_END, _)) => break,
            Some((&REFUSED, why)) => {
                return Err(SnapshotError::Refused(String::from_utf8_lossy(why).into()));
            }
            _ => return Err(SnapshotError::Unreadable),
        }
    }
    send_rows(network, &holdings, &carrier).await?;
    let answer = carrier.inbox.recv().await.ok_or(SnapshotError::Broken)?;
    match answer.split_first() {
        Some((&TAKEN, vote)) => codec::decode_vote(vote)
            .map(SnapshotResponse::new)
            .ok_or(SnapshotError::Unreadable),
        Some((&REFUSED, why)) => Err(SnapshotError::Refused(String::from_utf8_lossy(why).into())),
        _ => Err(SnapshotError::Unreadable),
    }
}

/// One pinned view of the store, row after row.
async fn send_rows(
    network: &Network,
    holdings: &[Bytes],
    carrier: &Carrier,
) -> Result<(), SnapshotError> {
    let (store, group) = (network.store.clone(), network.group);
    let slots = Slots::stored(&store, group)?.ok_or(SnapshotError::Unreadable)?;
    let view = store.snapshot().passing();
    let applied = view
        .get(Cf::Raft, &raft_key(slots.data, RaftTag::Applied))?
        .ok_or(SnapshotError::Unreadable)?;
    let (last, _) = codec::decode_applied(&applied).ok_or(SnapshotError::Unreadable)?;
    let last = last.ok_or(SnapshotError::Unreadable)?;
    let send = async |message: Bytes| {
        let sent = carrier.out.send(message).await;
        sent.map_err(|_| SnapshotError::Broken)
    };
    send(applied.into()).await?;
    let mut sender = ImageSender::new(&view, slots.data);
    for piece in holdings {
        sender.hear(piece)?;
    }
    while let Some(piece) = super::blocking(|| sender.next_piece())? {
        send(piece.into()).await?;
    }
    let closing = sender.closing();
    let leader = last.leader_id;
    let claim = ImageClaim {
        cluster_id: network.cluster_id(),
        node_id: network.node_id,
        group,
        applied: (leader.term, leader.node_id, last.index),
        state: closing.state,
        heads: closing.heads,
    };
    let signature = (network.signing)(&claim.message());
    send(sender.close(&signature).into()).await
}

/// Takes a snapshot that a leader brings, and answers.
pub(super) async fn take(groups: &Groups, group: &Group, body: &[u8], mut carrier: Carrier) {
    let store = groups.store().clone();
    let fresh = match fresh_slot(&store) {
        Ok(fresh) => fresh,
        Err(error) => return tracing::error!(%error, "no slot for a snapshot"),
    };
    let taken = take_into(groups, group, body, (&mut carrier, fresh)).await;
    let answer = match taken {
        Ok(vote) => [&[TAKEN], codec::encode_vote(&vote).as_slice()].concat(),
        Err(error) => {
            tracing::warn!(group = group.id().0, %error, "a snapshot is not taken");
            [&[REFUSED], error.to_string().as_bytes()].concat()
        }
    };
    if group.engine().slot() != fresh {
        let mut batch = store.batch();
        trash::discard(&mut batch, fresh);
        if let Err(error) = store.write(batch) {
            tracing::error!(%error, "a slot can't be discarded");
        }
    }
    let _ = carrier.out.send(answer.into()).await;
}

async fn take_into(
    groups: &Groups,
    group: &Group,
    body: &[u8],
    (carrier, fresh): (&mut Carrier, Slot),
) -> Result<Vote, SnapshotError> {
    let mut reader = RowReader(body);
    let head = reader.take(codec::VOTE_BYTES).zip(reader.u64());
    let (vote, sender) = head.ok_or(SnapshotError::Unreadable)?;
    let vote = codec::decode_vote(vote).ok_or(SnapshotError::Unreadable)?;
    let store = groups.store().clone();
    let slots = Slots::stored(&store, group.id())?.ok_or(SnapshotError::Unreadable)?;
    let mut image =
        ImageReceiver::new(store.clone(), fresh, Some(slots.base.unwrap_or(slots.data)))?;
    while let Some(piece) = super::blocking(|| image.holdings())? {
        reply(carrier, HOLDING, &piece).await?;
    }
    reply(carrier, HOLDINGS_END, &[]).await?;
    let applied = carrier.inbox.recv().await.ok_or(SnapshotError::Broken)?;
    let (last, membership) = codec::decode_applied(&applied).ok_or(SnapshotError::Unreadable)?;
    let closing = loop {
        let piece = carrier.inbox.recv().await.ok_or(SnapshotError::Broken)?;
        groups.may_take(piece.len()).await;
        match super::blocking(|| image.put(&piece))? {
            Put::More => {}
            Put::Closed(closing) => break closing,
        }
    };
    let last = last.ok_or(SnapshotError::Unreadable)?;
    let leader = last.leader_id;
    verify(
        groups,
        group.id(),
        sender,
        (leader.term, leader.node_id, last.index),
        &closing,
    )?;
    super::blocking(|| image.finish())?;
    super::blocking(|| store.sync())?;
    let snapshot = SnapshotOf::<Types, GroupImage> {
        meta: SnapshotMeta {
            last_log_id: Some(last),
            last_membership: membership,
        },
        snapshot: GroupImage::Arrived { slot: fresh },
    };
    let installed = group.raft().install_full_snapshot(vote, snapshot).await;
    let response = installed.map_err(|error| SnapshotError::Refused(error.to_string()))?;
    Ok(response.vote)
}

async fn reply(carrier: &Carrier, kind: u8, body: &[u8]) -> Result<(), SnapshotError> {
    let sent = carrier.out.send([&[kind], body].concat().into()).await;
    sent.map_err(|_| SnapshotError::Broken)
}

/// The sender vouches for all heads and for the rows that no head covers. A newcomer that does not know the cluster yet
/// takes the meta group's first image on the word of the connection.
fn verify(
    groups: &Groups,
    group: GroupId,
    sender: u64,
    applied: (u64, u64, u64),
    closing: &Closing,
) -> Result<(), SnapshotError> {
    let state = groups.cluster();
    let Some(founded) = &state.founded else {
        return Ok(());
    };
    let refused = |why: &str| SnapshotError::Refused(format!("node {sender} {why}"));
    let certificate = state.certificates.get(&sender);
    let certificate = certificate.ok_or_else(|| refused("has no certificate"))?;
    certificate
        .verify(&founded.authority)
        .map_err(|why| refused(&why.to_string()))?;
    let claim = ImageClaim {
        cluster_id: founded.cluster_id,
        node_id: sender,
        group,
        applied,
        state: closing.state,
        heads: closing.heads,
    };
    Ok(claim.verify(certificate, &closing.signature)?)
}

/// Copies a group within this process, by the same pieces that travel.
pub(super) fn copy(
    (source, slot): (&Store, Slot),
    target: &Store,
    _group: GroupId,
) -> Result<Slot, SnapshotError> {
    let view = source.snapshot();
    let fresh = fresh_slot(target)?;
    let mut image = ImageReceiver::new(target.clone(), fresh, None)?;
    let mut sender = ImageSender::new(&view, slot);
    while let Some(piece) = sender.next_piece()? {
        image.put(&piece)?;
    }
    image.put(&sender.close(&[]))?;
    image.finish()?;
    Ok(fresh)
}
