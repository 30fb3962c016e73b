//! Keys that nodes have besides the Ed25519 one by which they are known: noted when a node brings one, certified when who
//! holds the root key has seen it.

use super::{
    cluster::{ClusterState, Standing, Written, refused},
    cluster_rows::key_key,
    outcome::Rejection,
};
use crate::chain::{Certificate, SigAlg};
use crate::store::{Batch, Cf, Slot};

/// A key of a node besides its Ed25519 one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// As long as its algorithm's are.
    pub public_key: Vec<u8>,
    /// What the root key says of it; none while nobody with the root key has seen it.
    pub certificate: Option<Certificate>,
}

/// Notes a node's key of another algorithm; it has no certificate until the holder of the root key gives one.
pub(super) fn key_of(
    state: &mut ClusterState,
    node_id: u64,
    (alg, public_key): (u8, &[u8]),
    written: &mut Written,
) -> Result<u64, Rejection> {
    let Some(alg) = SigAlg::from_u8(alg).filter(|alg| *alg != SigAlg::Ed25519) else {
        return Err(refused(format!(
            "a key of algorithm {alg} is no key besides the Ed25519 one; this version knows 2 (ML-DSA-44)"
        )));
    };
    if public_key.len() != alg.key_bytes() {
        return Err(refused(format!(
            "a public key of {} has {} bytes, not {}",
            alg.name(),
            alg.key_bytes(),
            public_key.len()
        )));
    }
    let standing = state.nodes.get(&node_id).map(|node| node.standing);
    if standing.is_none_or(|standing| standing == Standing::Left) {
        return Err(refused(format!(
            "node {node_id} is no member; qbc discover lists the nodes"
        )));
    }
    let mut others = state.keys.iter();
    if let Some(((id, _), _)) =
        others.find(|((id, _), row)| *id != node_id && row.public_key == public_key)
    {
        return Err(refused(format!(
            "node {id} has the same {} key; each node needs a key of its own: set keys/node-ml-dsa-44.key of one of them aside",
            alg.name()
        )));
    }
    let known = state.keys.get(&(node_id, alg));
    if known.is_none_or(|row| row.public_key != public_key) {
        let row = KeyRow {
            public_key: public_key.to_vec(),
            certificate: None,
        };
        state.keys.insert((node_id, alg), row);
        written.keys.push((node_id, alg));
    }
    Ok(node_id)
}

/// Keeps the certificate of a key that a node has besides its Ed25519 one.
pub(super) fn certify_key(
    state: &mut ClusterState,
    certificate: Certificate,
    (slot, batch): (Slot, &mut Batch),
) -> Result<u64, Rejection> {
    let node_id = certificate.node_id;
    let alg = SigAlg::from_u8(certificate.alg);
    let asked = alg.and_then(|alg| Some((alg, state.keys.get_mut(&(node_id, alg))?)));
    let Some((alg, row)) = asked.filter(|(_, row)| row.public_key == certificate.public_key) else {
        return Err(refused(format!(
            "the certificate is of a key that node {node_id} does not have any more"
        )));
    };
    row.certificate = Some(certificate);
    batch.put(Cf::State, key_key(slot, node_id, alg), row.encode());
    Ok(node_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::NodeRow;

    /// A cluster of these nodes.
    fn of(nodes: Vec<u64>) -> ClusterState {
        let node = NodeRow {
            standing: Standing::Active,
            public_key: [1; 32],
            address: String::new(),
            version: String::new(),
        };
        ClusterState {
            nodes: nodes.into_iter().map(|id| (id, node.clone())).collect(),
            ..ClusterState::default()
        }
    }

    #[test]
    fn a_key_besides_is_of_a_member_and_of_no_other() {
        let mut state = of([1, 2].into());
        let mut key = |node_id, alg, public_key: &[u8]| {
            let mut written = Written::default();
            let decided = key_of(&mut state, node_id, (alg, public_key), &mut written);
            decided
                .map(|_| written.keys.len())
                .map_err(|rejection| rejection.to_string())
        };
        let pq = SigAlg::MlDsa44 as u8;
        assert_eq!(key(1, pq, &[5; 1312]), Ok(1));
        assert_eq!(
            key(1, pq, &[5; 1312]),
            Ok(0),
            "the same key changes nothing"
        );
        assert_eq!(key(1, pq, &[6; 1312]), Ok(1), "another one takes its place");
        for (node_id, alg, public_key, told) in [
            (1, pq, &[6; 1311][..], "1312 bytes, not 1311"),
            (1, 1, &[6; 32], "algorithm 1"),
            (1, 3, &[6; 32], "algorithm 3"),
            (7, pq, &[7; 1312], "node 7 is no member"),
            (2, pq, &[6; 1312], "node 1 has the same ml-dsa-44 key"),
        ] {
            let why = key(node_id, alg, public_key).unwrap_err();
            assert!(why.contains(told), "{why}");
        }
    }

    #[test]
    fn a_certificate_of_a_key_that_is_gone_is_refused() {
        let mut state = of([1].into());
        key_of(&mut state, 1, (2, &[5; 1312]), &mut Written::default()).unwrap();
        let mut certify = |public_key: u8| {
            let certificate = Certificate {
                cluster_id: [1; 16],
                node_id: 1,
                alg: 2,
                public_key: vec![public_key; 1312],
                not_before_s: 0,
                not_after_s: 9,
                signatures: Vec::new(),
            };
            let mut batch = crate::store::Store::memory().batch();
            certify_key(&mut state, certificate, (Slot(1), &mut batch))
        };
        assert!(certify(4).is_err());
        assert_eq!(certify(5), Ok(1));
        assert!(state.keys[&(1, SigAlg::MlDsa44)].certificate.is_some());
        // The next key waits for a certificate of its own.
        key_of(&mut state, 1, (2, &[6; 1312]), &mut Written::default()).unwrap();
        assert!(state.keys[&(1, SigAlg::MlDsa44)].certificate.is_none());
    }
}
