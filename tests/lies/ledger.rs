//! A chain as the proxy tells it: all that a node knows of it, free to be changed, hashed anew and signed.
use std::ops::Range;

use bytes::Bytes;
use qbc::{
    chain::{
        ANCHOR_BYTES, Certificate, ChainId, EXPORT_END, EXPORT_QUANT, EXPORT_SIGNATURE,
        EXPORT_TRANSACTION, Envelope, Frontier, Hash, HashAlg, HeadSignature, Header, LeafReader,
        Meta, ParentRef, SigningKey, anchor_leaf, attributes_hash, export_frame, export_magic,
        head_message, inclusion_path, payload_hash, tree_root,
    },
    proto,
};
use tonic::Status;

/// A chain, open to every change.
pub struct Ledger {
    pub alg: HashAlg,
    pub headers: Vec<Header>,
    pub metas: Vec<Vec<u8>>,
    /// Of a chain that is split: the anchor leaves of each Quant.
    pub anchors: Vec<Vec<u8>>,
    /// Sealed and pooled.
    pub transactions: Vec<proto::Transaction>,
    /// As they are shown.
    pub envelopes: Vec<Envelope>,
    /// As the Quants hold them.
    pub leaves: Vec<Hash>,
    /// Height of the Quant whose hash is the chain's id.
    pub first: usize,
    /// Height of the Quant that is shown as the first.
    pub first_shown: usize,
    pub signer: Signer,
}

/// Who signs.
pub struct Signer {
    pub key: SigningKey,
    pub certificate: Certificate,
    pub time_s: u64,
}

impl Ledger {
    pub fn new(
        quants: &[proto::Quant],
        transactions: Vec<proto::Transaction>,
        signer: Signer,
    ) -> Self {
        let headers: Vec<Header> = quants
            .iter()
            .map(|quant| Header::parse(&quant.header).expect("the node's headers are whole"))
            .collect();
        let alg = headers[0].hash_alg;
        let id = headers[0].id();
        let envelopes: Vec<_> = transactions
            .iter()
            .map(|given| envelope(alg, id, given))
            .collect();
        Self {
            alg,
            headers,
            metas: quants.iter().map(|quant| quant.meta.to_vec()).collect(),
            anchors: quants.iter().map(|quant| quant.anchors.to_vec()).collect(),
            leaves: envelopes.iter().map(|shown| shown.leaf(alg)).collect(),
            envelopes,
            transactions,
            first: 0,
            first_shown: 0,
            signer,
        }
    }

    pub fn id(&self) -> ChainId {
        ChainId(self.headers[self.first].hash())
    }

    pub fn top(&self) -> usize {
        self.headers.len() - 1
    }

    pub fn sealed(&self) -> usize {
        self.headers[self.top()].tx_end() as usize
    }

    /// Computes all roots and hashes from this height on anew: what was changed below becomes consistent.
    pub fn reseal(&mut self, from: usize) {
        for height in from..self.headers.len() {
            self.seal(height);
        }
        let pool = self.sealed()..self.transactions.len();
        self.rehash(self.id(), pool);
    }

    /// The envelopes of what is there now, whatever the Quants hold.
    pub fn show_anew(&mut self) {
        for (shown, given) in self.envelopes.iter_mut().zip(&self.transactions) {
            *shown = envelope(self.alg, shown.chain_id, given);
        }
    }

    /// As if a transaction had never come: those after it move up.
    pub fn drop_transaction(&mut self, index: usize) {
        let height = self.height_of(index);
        self.transactions.remove(index);
        self.envelopes.remove(index);
        self.leaves.remove(index);
        for given in &mut self.transactions[index..] {
            given.index -= 1;
        }
        let Some(height) = height else {
            return self.reseal(self.headers.len());
        };
        self.headers[height].tx_count -= 1;
        for later in &mut self.headers[height + 1..] {
            later.tx_start -= 1;
        }
        self.reseal(height);
    }

    /// Anchors this other history of a subchain, as if it had been so.
    pub fn anchor_instead(&mut self, child: &Ledger) {
        for height in 0..self.headers.len() {
            for leaf in self.anchors[height].chunks_mut(ANCHOR_BYTES) {
                let at = u64::from_be_bytes(leaf[36..44].try_into().expect("a height"));
                if leaf[4..36] == child.id().0 {
                    leaf.copy_from_slice(&anchor_leaf(&child.headers[at as usize]));
                }
            }
            self.headers[height].anchors_root = tree_root(self.alg, &self.anchor_hashes(height));
        }
        self.reseal(1);
    }

    fn anchor_hashes(&self, height: usize) -> Vec<Hash> {
        let leaves = self.anchors[height].chunks(ANCHOR_BYTES);
        leaves.map(|leaf| self.alg.leaf(leaf)).collect()
    }

    /// Takes everything after a height away.
    pub fn forget_after(&mut self, height: usize) {
        self.headers.truncate(height + 1);
        self.metas.truncate(height + 1);
        let sealed = self.sealed();
        self.transactions.truncate(sealed);
        self.envelopes.truncate(sealed);
        self.leaves.truncate(sealed);
    }

    /// Makes everything after a height a fork's.
    pub fn fork_after(&mut self, height: usize) {
        let later = self.headers.split_off(height + 1);
        let later_metas = self.metas.split_off(height + 1);
        let (border, meta) = self.border();
        self.headers.push(border);
        self.metas.push(meta);
        self.first = height + 1;
        self.first_shown = self.first;
        for header in later {
            let height = header.height + 1;
            self.headers.push(Header { height, ..header });
        }
        self.metas.extend(later_metas);
        self.reseal(self.first + 1);
    }

    /// A fork-genesis upon the top, with the constitution of Quant 0.
    fn border(&self) -> (Header, Vec<u8>) {
        let parent = &self.headers[self.top()];
        let genesis = Meta::parse(&self.metas[0]).expect("the node's meta is whole");
        let meta = Meta {
            constitution: genesis.constitution,
            parent: Some(ParentRef {
                id: parent.id(),
                height: parent.height,
                quant_hash: parent.hash(),
            }),
            ..Meta::default()
        };
        let meta = meta.to_bytes();
        let header = Header {
            genesis: false,
            fork_genesis: true,
            chain_id: parent.id(),
            height: parent.height + 1,
            tx_start: parent.tx_end(),
            tx_count: 0,
            meta_len: meta.len() as u32,
            prev_hash: parent.hash(),
            tx_root: self.alg.empty(),
            hist_root: tree_root(self.alg, &self.history(self.headers.len())),
            meta_hash: self.alg.hash(&[&meta]),
            ..parent.clone()
        };
        (header, meta)
    }

    fn seal(&mut self, height: usize) {
        let chain_id = if height > self.first {
            self.id()
        } else {
            self.headers[height].chain_id
        };
        let range = self.range(height);
        self.rehash(chain_id, range.clone());
        let previous = self.headers[height - 1].hash();
        let sealed = Header {
            chain_id,
            prev_hash: previous,
            tx_root: tree_root(self.alg, &self.leaves[range]),
            hist_root: tree_root(self.alg, &self.history(height)),
            ..self.headers[height].clone()
        };
        self.headers[height] = sealed;
    }

    fn rehash(&mut self, owner: ChainId, range: Range<usize>) {
        for index in range {
            self.envelopes[index] = envelope(self.alg, owner, &self.transactions[index]);
            self.leaves[index] = self.envelopes[index].leaf(self.alg);
        }
    }

    pub fn height_of(&self, index: usize) -> Option<usize> {
        (0..self.headers.len()).find(|height| self.range(*height).contains(&index))
    }

    fn range(&self, height: usize) -> Range<usize> {
        let header = &self.headers[height];
        header.tx_start as usize..header.tx_end() as usize
    }

    fn history(&self, height: usize) -> Vec<Hash> {
        self.headers[..height].iter().map(Header::hash).collect()
    }
}

/// What a node would answer.
impl Ledger {
    pub fn quant(&self, height: usize) -> Result<proto::Quant, Status> {
        let header = self.headers.get(height).ok_or_else(|| absent("height"))?;
        Ok(proto::Quant {
            header: header.to_bytes().to_vec().into(),
            meta: self.metas[height].clone().into(),
            quant_hash: header.hash().to_vec().into(),
            height: header.height,
            time_ms: header.time_ms,
            tx_start: header.tx_start,
            tx_count: header.tx_count,
            r#final: header.is_final,
            anchors: self.anchors.get(height).cloned().unwrap_or_default().into(),
        })
    }

    pub fn head(&self, height: usize) -> Result<proto::Head, Status> {
        Ok(proto::Head {
            quant: Some(self.quant(height)?),
            signatures: vec![wire(&self.signature(height))],
            quorum: 1,
        })
    }

    pub fn signature(&self, height: usize) -> HeadSignature {
        let Certificate {
            cluster_id,
            node_id,
            ..
        } = self.signer.certificate;
        let header = &self.headers[height];
        let message = head_message(&cluster_id, node_id, self.signer.time_s, header);
        self.signer.sign(&message)
    }

    pub fn transaction(&self, index: usize) -> Result<proto::Transaction, Status> {
        let given = self
            .transactions
            .get(index)
            .ok_or_else(|| absent("index"))?;
        let height = self.height_of(index).map(|height| height as u64);
        Ok(proto::Transaction {
            height,
            proven: height.is_some(),
            ..given.clone()
        })
    }

    pub fn history_path(&self, from: usize, to: usize) -> Result<Vec<Hash>, Status> {
        if to > self.top() {
            return Err(absent("height"));
        }
        if from >= to {
            return Ok(Vec::new());
        }
        Ok(path(self.alg, &self.history(to), from))
    }

    pub fn inclusion(
        &self,
        index: usize,
        at: usize,
    ) -> Result<proto::ProveInclusionResponse, Status> {
        let given = self.transaction(index)?;
        let height = self.height_of(index).ok_or_else(|| absent("Quant"))?;
        let range = self.range(height);
        let tx_path = path(self.alg, &self.leaves[range.clone()], index - range.start);
        Ok(proto::ProveInclusionResponse {
            envelope: self.envelopes[index].to_bytes().to_vec().into(),
            attributes: given.attributes,
            payload: Some(given.payload),
            salt: given.salt,
            tx_path: nodes(&tx_path),
            header: self.quant(height)?.header,
            history_path: nodes(&self.history_path(height, at)?),
            head: Some(self.head(at)?),
            genesis: Some(self.quant(self.first_shown)?),
            erasure: None,
            borders: Vec::new(),
        })
    }

    pub fn extension(
        &self,
        from: usize,
        to: usize,
    ) -> Result<proto::ProveExtensionResponse, Status> {
        Ok(proto::ProveExtensionResponse {
            old_header: self.quant(from)?.header,
            path: nodes(&self.history_path(from, to)?),
            head: Some(self.head(to)?),
            genesis: Some(self.quant(self.first_shown)?),
        })
    }

    pub fn newest_anchor(&self, child: &[u8]) -> Result<proto::ProveAnchorResponse, Status> {
        for height in (0..self.headers.len()).rev() {
            let mut leaves = self.anchors[height].chunks(ANCHOR_BYTES);
            let Some(index) = leaves.position(|leaf| leaf[4..36] == *child) else {
                continue;
            };
            let leaf = &self.anchors[height][index * ANCHOR_BYTES..][..ANCHOR_BYTES];
            return Ok(proto::ProveAnchorResponse {
                child_height: u64::from_be_bytes(leaf[36..44].try_into().expect("a height")),
                header: self.quant(height)?.header,
                index: index as u64,
                path: nodes(&path(self.alg, &self.anchor_hashes(height), index)),
            });
        }
        Err(absent("anchor"))
    }

    pub fn bundle(&self) -> Result<proto::GetBundleResponse, Status> {
        let mut history = Frontier::new();
        for hash in self.history(self.top()) {
            history.push(self.alg, hash);
        }
        Ok(proto::GetBundleResponse {
            head: Some(self.head(self.top())?),
            peaks: nodes(history.peaks()),
            genesis: Some(self.quant(self.first_shown)?),
            authority_changes: Vec::new(),
            borders: Vec::new(),
        })
    }

    /// The frames of an export file, the magic before the first.
    pub fn export(&self) -> Vec<Vec<u8>> {
        let mut frames = vec![export_magic().to_vec()];
        for height in 0..self.headers.len() {
            let header = self.headers[height].to_bytes();
            frames.push(export_frame(EXPORT_QUANT, &[&header, &self.metas[height]]));
            frames.extend(
                self.range(height)
                    .map(|index| self.export_transaction(index)),
            );
        }
        let signature = self.signature(self.top()).to_bytes();
        frames.push(export_frame(EXPORT_SIGNATURE, &[&signature]));
        let counts = [self.headers.len() as u64, self.sealed() as u64].map(u64::to_be_bytes);
        frames.push(export_frame(EXPORT_END, &[&counts.concat()]));
        frames
    }

    fn export_transaction(&self, index: usize) -> Vec<u8> {
        let given = &self.transactions[index];
        let length = (given.attributes.len() as u32).to_be_bytes();
        let envelope = self.envelopes[index].to_bytes();
        let parts: [&[u8]; 5] = [
            &envelope,
            &length,
            &given.attributes,
            &given.salt,
            &given.payload,
        ];
        export_frame(EXPORT_TRANSACTION, &parts)
    }
}

impl Signer {
    pub fn sign(&self, message: &[u8]) -> HeadSignature {
        HeadSignature {
            alg: self.certificate.alg,
            key_id: self.certificate.key_id(),
            time_s: self.time_s,
            signature: self.key.sign(message).to_vec(),
            certificate: self.certificate.clone(),
        }
    }
}

pub fn wire(signature: &HeadSignature) -> proto::HeadSignature {
    proto::HeadSignature {
        node_id: signature.certificate.node_id,
        alg: signature.alg.into(),
        key_id: signature.key_id.to_vec().into(),
        time_s: signature.time_s,
        signature: signature.signature.clone().into(),
        certificate: signature.certificate.to_bytes().into(),
    }
}

pub fn nodes(path: &[Hash]) -> Vec<Bytes> {
    path.iter()
        .map(|node| Bytes::copy_from_slice(node))
        .collect()
}

fn envelope(alg: HashAlg, chain_id: ChainId, given: &proto::Transaction) -> Envelope {
    let salt: Option<[u8; 32]> = given.salt.as_ref().try_into().ok();
    Envelope {
        kind: given.r#type as u8,
        salted: salt.is_some(),
        chain_id,
        index: given.index,
        inject_ms: given.inject_ms,
        payload_len: given.payload.len() as u64,
        payload_hash: payload_hash(alg, &given.payload, salt.as_ref()),
        attributes_hash: attributes_hash(alg, &given.attributes),
    }
}

fn path(alg: HashAlg, leaves: &[Hash], index: usize) -> Vec<Hash> {
    let reader = LeafReader { alg, leaves };
    let Ok(path) = inclusion_path(alg, &reader, index as u64, leaves.len() as u64);
    path
}

fn absent(what: &str) -> Status {
    Status::not_found(format!("no such {what}"))
}
