//! A chain whose payload is erased: what an audit says of the missing one, and which tombstones it refuses.

use qbc::chain::{
    Attributes, Audited, Auditor, Authority, Birth, ChainId, Constitution, Envelope, Erasure,
    Frontier, Hash, HashAlg, Header, Meta, Refused, SigningKey, attributes_hash, author_message,
    genesis_header, payload_hash, tree_root,
};

use super::attack::Attack;

const ALG: HashAlg = HashAlg::Sha3_256;
const ADMIN: u8 = 3;

/// How the chain is, and what its second transaction says; a good erasure of the first as it stands.
struct Made {
    erasable: bool,
    by: u8,
    id: Option<Vec<u8>>,
    /// From index and H(envelope) of the first.
    payload: fn(u64, Hash) -> Vec<u8>,
    /// The first transaction comes without payload.
    erased: bool,
    /// There is no second transaction.
    alone: bool,
}

impl Default for Made {
    fn default() -> Self {
        Self {
            erasable: true,
            by: ADMIN,
            id: Some(b"i".to_vec()),
            payload: |index, envelope| says(index, envelope, b"why"),
            erased: true,
            alone: false,
        }
    }
}

/// The bytes of a tombstone's payload, good or not.
fn says(index: u64, envelope: Hash, reason: &[u8]) -> Vec<u8> {
    [index.to_be_bytes().as_slice(), &envelope, reason].concat()
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

impl Made {
    fn genesis(&self) -> (Header, Vec<u8>) {
        let constitution = Constitution {
            erasable: self.erasable,
            admins: vec![key(ADMIN).public()],
            ..Constitution::from(Birth {
                name: "erased".into(),
                created_ms: 1,
                salt: [3; 16],
                authority: Authority {
                    threshold: 1,
                    roots: vec![[1; 32]],
                },
                cluster_id: [2; 16],
            })
        };
        let bytes = constitution.to_bytes();
        let meta = Meta {
            constitution_in_force: Some((Constitution::hash(ALG, &bytes), 0)),
            constitution: Some(bytes),
            ..Meta::default()
        };
        let meta = meta.to_bytes();
        (genesis_header(ALG, 1, 0, &meta), meta)
    }

    fn data(&self, chain: ChainId) -> Envelope {
        let salt = self.erasable.then_some([5; 32]);
        Envelope {
            kind: 0,
            salted: self.erasable,
            chain_id: chain,
            index: 0,
            inject_ms: 2,
            payload_len: 1,
            payload_hash: payload_hash(ALG, b"x", salt.as_ref()),
            attributes_hash: [0; 32],
        }
    }

    fn tombstone(&self, chain: ChainId, payload: &[u8]) -> (Envelope, Vec<u8>) {
        let hash = payload_hash(ALG, payload, None);
        let message = author_message(&chain, 2, 0, None, self.id.as_deref(), &hash);
        let attributes = Attributes {
            id: self.id.clone(),
            author: Some(key(self.by).public()),
            signature: Some(key(self.by).sign(&message)),
            ..Attributes::default()
        };
        let attributes = attributes.to_bytes();
        let envelope = Envelope {
            kind: 2,
            salted: false,
            index: 1,
            payload_len: payload.len() as u64,
            payload_hash: hash,
            attributes_hash: attributes_hash(ALG, &attributes),
            ..self.data(chain)
        };
        (envelope, attributes)
    }

    fn audit(&self) -> Result<Audited, Refused> {
        let (genesis, meta) = self.genesis();
        let chain = genesis.id();
        let data = self.data(chain).to_bytes();
        let payload = (self.payload)(0, ALG.hash(&[&data]));
        let (stone, attributes) = self.tombstone(chain, &payload);
        let mut leaves = vec![self.data(chain).leaf(ALG)];
        leaves.extend((!self.alone).then(|| stone.leaf(ALG)));
        let mut auditor = Auditor::new();
        auditor.quant(&genesis.to_bytes(), &meta)?;
        auditor.quant(&sealing(&genesis, &leaves).to_bytes(), b"")?;
        let salt = [5; 32];
        let (shown, salt) = (!self.erased, self.erasable.then_some(&salt));
        let payload_shown = shown.then_some(&b"x"[..]);
        auditor.transaction(&data, b"", payload_shown, salt.filter(|_| shown))?;
        if !self.alone {
            auditor.transaction(&stone.to_bytes(), &attributes, Some(&payload), None)?;
        }
        auditor.finish()
    }
}

/// The Quant after the genesis.
fn sealing(genesis: &Header, leaves: &[Hash]) -> Header {
    let mut history = Frontier::new();
    history.push(ALG, genesis.hash());
    Header {
        genesis: false,
        chain_id: genesis.id(),
        height: 1,
        time_ms: 3,
        tx_count: leaves.len() as u32,
        meta_len: 0,
        prev_hash: genesis.hash(),
        tx_root: tree_root(ALG, leaves),
        hist_root: history.root(ALG),
        meta_hash: ALG.hash(&[b""]),
        ..genesis.clone()
    }
}

#[test]
fn what_is_erased_is_counted_and_what_no_tombstone_explains_is_told() {
    let audited = Made::default().audit().unwrap();
    assert_eq!((audited.erased, audited.unexplained), (1, 0));
    let said = audited.steps.join("\n");
    assert!(said.contains("1 payloads are erased") && !said.contains("no tombstone"));
    let alone = Made {
        alone: true,
        ..Made::default()
    };
    let audited = alone.audit().unwrap();
    assert_eq!((audited.erased, audited.unexplained), (1, 1));
    assert!(audited.steps.join("\n").contains("no tombstone is sealed"));
    // Who kept the payload shows it with its tombstone.
    let kept = Made {
        erased: false,
        ..Made::default()
    };
    let audited = kept.audit().unwrap();
    assert_eq!((audited.erased, audited.unexplained), (0, 0));
    let payload = Erasure::parse(&says(0, [1; 32], b"why")).unwrap();
    assert_eq!((payload.index, payload.envelope), (0, [1; 32]));
}

#[test]
fn tombstones_that_may_not_be_are_refused_by_name() {
    let mut attack = Attack::on("tombstones");
    let stranger = Made {
        by: 9,
        ..Made::default()
    };
    attack.refuses_by("audit-admin", "a stranger's", stranger.audit());
    let without_id = Made {
        id: None,
        ..Made::default()
    };
    attack.refuses_by("audit-id", "without an id", without_id.audit());
    let fixed = Made {
        erasable: false,
        erased: false,
        ..Made::default()
    };
    attack.refuses_by("erasure", "where nothing is erased", fixed.audit());
}

/// The payload of a tombstone, from the index and the envelope's hash of what is erased.
type Says = fn(u64, Hash) -> Vec<u8>;

#[test]
fn tombstones_that_say_what_is_not_so_are_refused() {
    let mut attack = Attack::on("what tombstones say");
    let cases: [(&str, Says); 8] = [
        ("another envelope", |index, _| says(index, [7; 32], b"why")),
        ("itself", |_, envelope| says(1, envelope, b"why")),
        ("what comes later", |_, envelope| {
            says(u64::MAX, envelope, b"why")
        }),
        ("no reason", |index, envelope| says(index, envelope, b"")),
        ("a reason of spaces", |index, envelope| {
            says(index, envelope, b" \n")
        }),
        ("a long reason", |index, envelope| {
            says(index, envelope, &[b'r'; 1025])
        }),
        ("a reason that is no text", |index, envelope| {
            says(index, envelope, b"\xff")
        }),
        ("too little", |_, _| vec![0; 39]),
    ];
    for (what, payload) in cases {
        let made = Made {
            payload,
            ..Made::default()
        };
        attack.refuses_by("erasure", what, made.audit());
    }
}

#[test]
fn without_its_payload_comes_only_salted_data_of_an_erasable_chain() {
    let mut attack = Attack::on("payloads");
    let fixed = Made {
        erasable: false,
        alone: true,
        ..Made::default()
    };
    attack.refuses_by("audit-payload", "in another chain", fixed.audit());
}
