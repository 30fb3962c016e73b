//! The vectors as values.

use std::sync::LazyLock;

use qbc::chain::{
    ChainId, Claim, Hash, HashAlg, HeadEvidence, Header, LeafReader, Proof, Step,
    TransactionEvidence, anchor_leaf, inclusion_path, tree_root,
};
use serde_json::Value;

pub static V1: LazyLock<Value> = LazyLock::new(|| read(include_str!("../vectors/format-v1.json")));
pub static MORE: LazyLock<Value> =
    LazyLock::new(|| read(include_str!("../vectors/format-v1-more.json")));
pub static STATE: LazyLock<Value> =
    LazyLock::new(|| read(include_str!("../vectors/format-v1-state.json")));

pub static MLDSA: LazyLock<Value> =
    LazyLock::new(|| read(include_str!("../vectors/format-v1-mldsa.json")));

/// A chain of the vectors. Of a fork: from the fork-genesis on.
pub struct Chain {
    pub alg: HashAlg,
    pub id: ChainId,
    pub quants: Vec<Quant>,
}

pub struct Quant {
    pub header: Vec<u8>,
    pub meta: Vec<u8>,
    /// The anchor leaves; only those of [`anchors_parent`].
    pub anchors: Vec<u8>,
    pub hash: Hash,
    pub transactions: Vec<Transaction>,
}

pub struct Transaction {
    pub evidence: TransactionEvidence,
    pub path: Vec<Hash>,
    pub json: Value,
}

impl Chain {
    pub fn of(value: &Value) -> Self {
        Self {
            alg: alg(value),
            id: ChainId(hash(&value["chain_id"])),
            quants: list(&value["quants"]).iter().map(quant).collect(),
        }
    }

    pub fn head(&self) -> &Quant {
        self.quants.last().unwrap()
    }

    pub fn genesis(&self) -> HeadEvidence {
        let first = &self.quants[0];
        HeadEvidence {
            genesis: Some((first.header.clone(), first.meta.clone())),
            ..HeadEvidence::default()
        }
    }
}

impl Quant {
    pub fn parsed(&self) -> Header {
        Header::parse(&self.header).unwrap()
    }
}

/// The chain that anchors others, with its anchor leaves.
pub fn anchors_parent() -> Chain {
    let mut parent = Chain::of(&V1["anchors"]["parent"]);
    let children = list(&V1["anchors"]["children"]).iter().map(Chain::of);
    let children: Vec<Chain> = children.collect();
    for case in list(&V1["anchors"]["anchors"]) {
        let at = |name: &str| number(&case[name]) as usize;
        let child = &children[at("child")].quants[at("child_height")];
        let anchors = &mut parent.quants[at("parent_height")].anchors;
        assert_eq!(anchors.len(), 76 * at("index"), "in their order");
        anchors.extend(anchor_leaf(&child.parsed()));
    }
    parent
}

/// The same as a server has it: after the split it seals nothing but anchors.
pub fn anchors_alone() -> Chain {
    let mut parent = anchors_parent();
    let split = 2;
    let end = parent.quants[split].parsed().tx_end();
    for at in split + 1..parent.quants.len() {
        let header = Header {
            tx_start: end,
            tx_count: 0,
            tx_root: parent.alg.empty(),
            prev_hash: parent.quants[at - 1].hash,
            hist_root: tree_root(parent.alg, &leaves(&parent.quants[..at])),
            ..parent.quants[at].parsed()
        };
        let quant = &mut parent.quants[at];
        (quant.header, quant.hash) = (header.to_bytes().to_vec(), header.hash());
        quant.transactions.clear();
    }
    parent
}

/// The chains that stand on their own, with a name for messages.
pub fn whole_chains() -> Vec<(String, Chain)> {
    let mut chains = Vec::new();
    for (i, value) in list(&V1["chains"]).iter().enumerate() {
        chains.push((format!("chains[{i}]"), Chain::of(value)));
    }
    for name in ["signed", "work"] {
        chains.push((name.to_owned(), Chain::of(&V1[name])));
    }
    chains.push(("anchors.parent".to_owned(), anchors_parent()));
    for (i, value) in list(&V1["anchors"]["children"]).iter().enumerate() {
        chains.push((format!("anchors.children[{i}]"), Chain::of(value)));
    }
    for (i, value) in list(&MORE["chains"]).iter().enumerate() {
        chains.push((format!("more.chains[{i}]"), Chain::of(value)));
    }
    chains
}

/// All Quants of a lineage from height 0 on: a fork's own follow its parent's.
pub fn lineage(name: &str) -> Vec<Quant> {
    let value = &V1[name];
    let mut below = match value["parent"].as_str() {
        None => Chain::of(value).quants,
        Some(id) if id == V1["fork"]["chain_id"] => lineage("fork"),
        Some(_) => Chain::of(&V1["chains"][0]).quants,
    };
    if let Some(height) = value["fork_height"].as_u64() {
        below.truncate(height as usize + 1);
        below.extend(Chain::of(value).quants);
    }
    below
}

pub fn leaves(quants: &[Quant]) -> Vec<Hash> {
    quants.iter().map(|q| q.hash).collect()
}

pub fn path_in(alg: HashAlg, leaves: &[Hash], index: u64) -> Vec<Hash> {
    let Ok(path) = inclusion_path(alg, &LeafReader { alg, leaves }, index, leaves.len() as u64);
    path
}

/// The inclusion of a transaction in Quant `height`, proved into Quant `head` of the same list.
pub fn inclusion(chain: &Chain, height: usize, position: usize, head: usize) -> Proof {
    let quant = &chain.quants[height];
    let transaction = &quant.transactions[position];
    let mut steps = vec![Step::Quant {
        header: quant.header.clone(),
        path: transaction.path.clone(),
    }];
    if head > height {
        let path = path_in(chain.alg, &leaves(&chain.quants[..head]), height as u64);
        steps.push(Step::History {
            header: chain.quants[head].header.clone(),
            path,
            borders: Vec::new(),
        });
    }
    Proof {
        claim: Claim::Inclusion(transaction.evidence.clone()),
        steps,
        head: chain.genesis(),
        log: None,
    }
}

pub fn alg(value: &Value) -> HashAlg {
    HashAlg::from_u8(value["alg"].as_u64().unwrap() as u8).unwrap()
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

pub fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

pub fn hash(value: &Value) -> Hash {
    bytes(value).try_into().unwrap()
}

pub fn hashes(value: &Value) -> Vec<Hash> {
    list(value).iter().map(hash).collect()
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn quant(value: &Value) -> Quant {
    Quant {
        header: bytes(&value["header"]),
        meta: bytes(&value["meta"]),
        anchors: Vec::new(),
        hash: hash(&value["quant_hash"]),
        transactions: list(&value["transactions"])
            .iter()
            .map(transaction)
            .collect(),
    }
}

fn transaction(value: &Value) -> Transaction {
    let shown = |name: &str| value.get(name).filter(|v| !v.is_null()).map(bytes);
    let evidence = TransactionEvidence {
        envelope: bytes(&value["envelope"]),
        attributes: shown("attributes").filter(|a| !a.is_empty()),
        payload: shown("payload"),
        salt: shown("salt").map(|s| s.try_into().unwrap()),
    };
    Transaction {
        evidence,
        path: hashes(&value["path"]),
        json: value.clone(),
    }
}
