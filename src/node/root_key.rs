//! The root key's way from a member to a certified one: whoever asks shows, with a signature over fresh bytes, that it has
//! the node key of its certificate. That it speaks on a link, and the id that it claims there, are not enough.
//!
//! Lane `RootKey`: challenge `32 bytes` -> signature `64 bytes` over `"qbc/root-key/v1" | cluster_id 16 | node_id u64 |
//! challenge 32`, Ed25519 -> seed `32 bytes`, or the end of the channel.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use crate::chain::{SigAlg, SigningKey, verify_ed25519};
use crate::consensus::{Channel, Groups, Lane};
use crate::engine::ClusterState;

/// How long either side waits for the other one.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const DOMAIN: &[u8] = b"qbc/root-key/v1";

fn message(cluster_id: &[u8; 16], node_id: u64, challenge: &[u8]) -> Vec<u8> {
    [DOMAIN, cluster_id, &node_id.to_be_bytes(), challenge].concat()
}

/// Asks a node for its copy; none where it has none, gives none, or is silent.
pub(super) async fn ask(
    groups: &Groups,
    node: u64,
    key: &SigningKey,
    cluster_id: [u8; 16],
) -> Option<[u8; 32]> {
    let opened = groups.peers().open(node, Lane::RootKey, Bytes::new());
    let mut channel = opened.ok()?;
    let challenge = timeout(ANSWER_MAX, channel.inbox.recv()).await.ok()??;
    if challenge.len() != 32 {
        return None;
    }
    let signature = key.sign(&message(&cluster_id, groups.node_id(), &challenge));
    channel.out.send(Bytes::copy_from_slice(&signature));
    let seed = timeout(ANSWER_MAX, channel.inbox.recv()).await.ok()??;
    seed.as_ref().try_into().ok()
}

/// Gives the seed to a node that shows it is the one of the certificate.
pub(super) async fn give(cluster: Arc<ClusterState>, node: u64, seed: [u8; 32], channel: Channel) {
    let Channel { out, mut inbox } = channel;
    let (Some(certificate), Some(founded)) = (cluster.certificates.get(&node), &cluster.founded)
    else {
        return;
    };
    let mut challenge = [0; 32];
    if getrandom::fill(&mut challenge).is_err() {
        return;
    }
    out.send(Bytes::copy_from_slice(&challenge));
    let Ok(Some(signature)) = timeout(ANSWER_MAX, inbox.recv()).await else {
        return;
    };
    let message = message(&founded.cluster_id, node, &challenge);
    if certificate.alg == SigAlg::Ed25519 as u8
        && verify_ed25519(&certificate.public_key, &message, &signature)
    {
        out.send(Bytes::copy_from_slice(&seed));
    } else {
        tracing::warn!(
            node,
            "somebody asked for the root key without the key of the node that it claims to be"
        );
    }
}
