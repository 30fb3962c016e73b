//! The state of a ledger over a split, in exports made by hand: both audits find the family clean, and refuse claims and
//! credits that are forged, shown twice or of another parent, by the name of the check.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use qbc::chain::{
    Authority, Birth, Certificate, ChainId, Constitution, Content, Credit, Debit, EXPORT_END,
    EXPORT_QUANT, EXPORT_TRANSACTION, Envelope, ExportVerifier, Frontier, Hash, HashAlg,
    HeadSignature, Header, LeafReader, Meta, Mint, ParentRef, Refused, SigningKey, SplitEvidence,
    Splitting, StateClaim, StatePath, StateProof, StateTerminal, StateTree, Transfer, Trust,
    balance_key, balance_value, claimed_key, export_frame, export_magic, genesis_header,
    head_message, inclusion_path, latest_value, payload_hash, place_of, state_key_hash, tree_root,
};

const ALG: HashAlg = HashAlg::Sha3_256;
const CLUSTER: [u8; 16] = [7; 16];
const NODE: u64 = 4;
const MINT: u128 = 1000;

fn rules(salt: u8) -> Constitution {
    let root = SigningKey::from_seed([1; 32]);
    Constitution {
        content: Content::Json,
        ledger: true,
        mint: Some(Mint {
            limit: MINT,
            account: b"bank".to_vec(),
        }),
        ..Constitution::from(Birth {
            name: "coins".into(),
            created_ms: 5,
            salt: [salt; 16],
            authority: Authority {
                threshold: 1,
                roots: vec![root.public()],
            },
            cluster_id: CLUSTER,
        })
    }
}

fn signature(header: &Header) -> HeadSignature {
    let (root, node) = (
        SigningKey::from_seed([1; 32]),
        SigningKey::from_seed([2; 32]),
    );
    let mut certificate = Certificate {
        cluster_id: CLUSTER,
        node_id: NODE,
        alg: 1,
        public_key: node.public().to_vec(),
        not_before_s: 0,
        not_after_s: 1 << 40,
        signatures: Vec::new(),
    };
    certificate.signatures = vec![(0, root.sign(&certificate.message()))];
    HeadSignature {
        alg: 1,
        key_id: certificate.key_id(),
        time_s: 9,
        signature: node.sign(&head_message(&CLUSTER, NODE, 9, header)).to_vec(),
        certificate,
    }
}

type One = (u8, Vec<u8>);

/// A chain in the making.
struct Maker {
    id: ChainId,
    quants: Vec<(Header, Vec<u8>, Vec<One>)>,
    history: Frontier,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    next: u64,
}

impl Maker {
    fn begin(header: Header, meta: Vec<u8>) -> Self {
        Self {
            id: header.id(),
            quants: vec![(header, meta, Vec::new())],
            history: Frontier::new(),
            state: BTreeMap::new(),
            next: 0,
        }
    }

    fn set(&mut self, account: &str, balance: u128) {
        let value = balance_value(balance).to_vec();
        self.state.insert(balance_key(account.as_bytes()), value);
    }

    fn rows(&self) -> BTreeMap<StatePath, Vec<u8>> {
        let mut writes: Vec<(Hash, Vec<u8>)> = self
            .state
            .iter()
            .map(|(key, value)| (state_key_hash(ALG, key), value.clone()))
            .collect();
        writes.sort();
        let none = BTreeMap::new();
        let tree = StateTree {
            alg: ALG,
            rows: &none,
        };
        let change = tree.update(1, &writes).unwrap();
        let rows = change.rows();
        rows.map(|(path, row)| (*path, row.to_vec())).collect()
    }

    fn root(&self) -> Hash {
        let entries: BTreeMap<Hash, &Vec<u8>> = self
            .state
            .iter()
            .map(|(key, value)| (state_key_hash(ALG, key), value))
            .collect();
        qbc::chain::state_root(ALG, &entries)
    }

    fn proof(&self, state_key: &[u8]) -> Vec<u8> {
        let rows = self.rows();
        let tree = StateTree {
            alg: ALG,
            rows: &rows,
        };
        let proof = tree.prove(&state_key_hash(ALG, state_key)).unwrap();
        proof.to_bytes()
    }

    fn envelope(&self, at: usize, one: &One) -> Envelope {
        Envelope {
            kind: one.0,
            salted: false,
            chain_id: self.id,
            index: self.next + at as u64,
            inject_ms: 10,
            payload_len: one.1.len() as u64,
            payload_hash: payload_hash(ALG, &one.1, None),
            attributes_hash: [0; 32],
        }
    }

    /// Seals these, under the state that was set.
    fn seal(&mut self, all: Vec<One>, route: Option<Vec<ChainId>>) {
        let last = self.quants.last().unwrap().0.clone();
        self.history.push(ALG, last.hash());
        let meta = Meta {
            state_root: Some((ALG as u8, self.root())),
            route,
            ..Meta::default()
        }
        .to_bytes();
        let leaves: Vec<Hash> = all
            .iter()
            .enumerate()
            .map(|(at, one)| self.envelope(at, one).leaf(ALG))
            .collect();
        let header = Header {
            genesis: false,
            chain_id: self.id,
            height: last.height + 1,
            time_ms: 20,
            tx_start: self.next,
            tx_count: all.len() as u32,
            meta_len: meta.len() as u32,
            meta_hash: ALG.hash(&[&meta]),
            prev_hash: last.hash(),
            tx_root: tree_root(ALG, &leaves),
            hist_root: self.history.root(ALG),
            ..last
        };
        self.next += all.len() as u64;
        self.quants.push((header, meta, all));
    }

    fn head(&self) -> &Header {
        &self.quants.last().unwrap().0
    }

    fn export(&self) -> Vec<u8> {
        let mut file = export_magic().to_vec();
        let mut index = 0_u64;
        for (header, meta, all) in &self.quants {
            file.extend(export_frame(EXPORT_QUANT, &[&header.to_bytes(), meta]));
            for one in all {
                let envelope = Envelope {
                    index,
                    ..self.envelope(0, one)
                };
                let parts: [&[u8]; 3] = [&envelope.to_bytes(), &[0; 4], &one.1];
                file.extend(export_frame(EXPORT_TRANSACTION, &parts));
                index += 1;
            }
        }
        let counts = [(self.head().height + 1).to_be_bytes(), index.to_be_bytes()].concat();
        file.extend(export_frame(EXPORT_END, &[&counts]));
        file
    }
}

/// A ledger that was split into two, and the second subchain in the making: what it is given is audited.
struct Family {
    parent: Maker,
    debited: Maker,
    evidence: Vec<u8>,
    genesis: (Header, Vec<u8>),
    sender: String,
    receiver: String,
}

fn transfer(from: &str, to: &str, amount: u128) -> Vec<u8> {
    let (sender, receiver) = (from.to_owned(), to.to_owned());
    let memo = None;
    Transfer {
        sender,
        receiver,
        amount,
        memo,
    }
    .to_json()
    .into_bytes()
}

impl Family {
    fn new(salt: u8) -> Self {
        let bytes = rules(salt).to_bytes();
        let meta = Meta {
            constitution_in_force: Some((Constitution::hash(ALG, &bytes), 0)),
            constitution: Some(bytes),
            ..Meta::default()
        }
        .to_bytes();
        let genesis = genesis_header(ALG, 5, 0, &meta);
        let mut parent = Maker::begin(genesis.clone(), meta);
        let leads_to = |place: u32| {
            let names = (0..).map(|number| format!("name {number}"));
            let mut names =
                names.filter(|name| place_of(ALG, &parent.id, name.as_bytes(), 2) == place);
            names.next().unwrap()
        };
        let (sender, receiver) = (leads_to(0), leads_to(1));
        parent.set("bank", MINT - 100);
        parent.set(&sender, 100);
        parent.seal(vec![(3, transfer("bank", &sender, 100))], None);
        let splitting = Splitting {
            alg: ALG,
            name: "coins",
            constitution: &rules(salt),
            parent: ParentRef {
                id: parent.id,
                height: 1,
                quant_hash: parent.head().hash(),
            },
            created_ms: 6,
            of: 2,
        };
        let geneses = [0, 1].map(|place| splitting.genesis(place, [place as u8; 16]));
        let route = geneses.iter().map(|(header, _)| header.id()).collect();
        parent.seal(Vec::new(), Some(route));
        let (header, meta, _) = parent.quants.last().unwrap().clone();
        let signed = vec![signature(&header)];
        let evidence = SplitEvidence::of(header, meta, signed).to_bytes();
        let [first, second] = geneses;
        let mut debited = Maker::begin(first.0, first.1);
        let claim = claim(&parent, &sender);
        taken(&mut debited, &sender, 1);
        debited.set(&sender, 60);
        let all = vec![
            (5, evidence.clone()),
            (5, claim.to_bytes()),
            (3, transfer(&sender, &receiver, 40)),
        ];
        debited.seal(all, None);
        Self {
            parent,
            debited,
            evidence,
            genesis: second,
            sender,
            receiver,
        }
    }

    fn claim(&self) -> StateClaim {
        claim(&self.parent, &self.receiver)
    }

    fn credit(&self) -> Credit {
        let (header, _, all) = &self.debited.quants[1];
        let mut zero = Maker::begin(header.clone(), Vec::new());
        zero.id = self.debited.id;
        let envelopes: Vec<Envelope> = (0..3).map(|at| zero.envelope(at, &all[at])).collect();
        let leaves: Vec<Hash> = envelopes.iter().map(|one| one.leaf(ALG)).collect();
        let reader = LeafReader {
            alg: ALG,
            leaves: &leaves,
        };
        let debit = Debit {
            ways: Vec::new(),
            header: header.clone(),
            signatures: vec![signature(header)],
            path: inclusion_path(ALG, &reader, 2, 3).unwrap(),
            envelope: envelopes[2].clone(),
            payload: all[2].1.clone(),
        };
        let mut credit = Credit {
            debit,
            absent: Vec::new(),
        };
        credit.absent = vec![self.parent.proof(&credit.state_key())];
        credit
    }

    /// The second subchain with these after its evidence; its state is what claim and credit make.
    fn second(&self, all: Vec<One>) -> Maker {
        let mut second = Maker::begin(self.genesis.0.clone(), self.genesis.1.clone());
        taken(&mut second, &self.receiver, 1);
        second.set(&self.receiver, 40);
        let key = self.credit().state_key();
        second.state.insert(key, latest_value(2).to_vec());
        let first = vec![(5, self.evidence.clone())];
        second.seal([first, all].concat(), None);
        second
    }

    fn good(&self) -> Vec<One> {
        vec![(5, self.claim().to_bytes()), (4, self.credit().to_bytes())]
    }
}

fn claim(parent: &Maker, account: &str) -> StateClaim {
    let state_key = balance_key(account.as_bytes());
    let proofs = vec![parent.proof(&state_key)];
    StateClaim { state_key, proofs }
}

/// The proof that an account has nothing, made one that it has 77.
fn richer(proof: &[u8]) -> Vec<u8> {
    let mut proof = StateProof::parse(proof).unwrap();
    proof.terminal = StateTerminal::Own(balance_value(77).to_vec());
    proof.to_bytes()
}

fn taken(chain: &mut Maker, account: &str, index: u64) {
    let key = claimed_key(&balance_key(account.as_bytes()));
    chain.state.insert(key, latest_value(index).to_vec());
}

/// What both audits say of an export: nothing, or the check that refused it.
fn audited(folder: &Path, chain: &Maker) -> Result<(), Refused> {
    let file = chain.export();
    let mut verifier = ExportVerifier::new(vec![Trust::SelfConsistent]);
    let own = verifier.push(&file).and_then(|()| verifier.finish());
    let path = folder.join("export");
    std::fs::write(&path, file).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verifier.py");
    let ran = Command::new("python3")
        .args([script.as_os_str(), path.as_os_str()])
        .arg("--self-consistent")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    match &own {
        Ok(_) => assert!(ran.status.success(), "{said}"),
        Err(refused) => assert!(
            said.contains(refused.check),
            "{refused}: python says {said}"
        ),
    }
    own.map(|_| ())
}

#[test]
fn a_family_with_a_claim_and_a_credit_audits_clean() {
    let (folder, family) = (tempfile::tempdir().unwrap(), Family::new(1));
    for chain in [
        &family.parent,
        &family.debited,
        &family.second(family.good()),
    ] {
        audited(folder.path(), chain).unwrap();
    }
}

#[test]
fn forged_claims_and_credits_are_refused_by_name() {
    let (folder, family, other) = (tempfile::tempdir().unwrap(), Family::new(1), Family::new(2));
    let (claim, credit) = (family.claim(), family.credit());
    let claimed = |change: &dyn Fn(&mut StateClaim)| {
        let mut claim = claim.clone();
        change(&mut claim);
        vec![(5, claim.to_bytes())]
    };
    let credited = |change: &dyn Fn(&mut Credit)| {
        let mut credit = credit.clone();
        change(&mut credit);
        vec![(5, claim.to_bytes()), (4, credit.to_bytes())]
    };
    let sender = balance_key(family.sender.as_bytes());
    let more = transfer(&family.sender, &family.receiver, 4000);
    let good = family.good();
    let cases: Vec<(&str, Vec<One>)> = vec![
        ("claim-once", [&good[..1], &good[..1]].concat()),
        ("credit-once", [&good[..], &good[1..]].concat()),
        ("claim-missing", good[1..].to_vec()),
        (
            "claim-missing",
            vec![(3, transfer(&family.receiver, "x", 1))],
        ),
        ("claim-above", claimed(&|one| one.proofs.clear())),
        (
            "claim-above",
            claimed(&|one| one.proofs.push(one.proofs[0].clone())),
        ),
        (
            "state-root",
            claimed(&|one| one.proofs = vec![richer(&one.proofs[0])]),
        ),
        (
            "audit-route",
            claimed(&|one| one.state_key.clone_from(&sender)),
        ),
        (
            "claim-format",
            claimed(&|one| one.state_key = b"\x03a".to_vec()),
        ),
        (
            "credit-debit",
            credited(&|one| one.debit.payload.clone_from(&more)),
        ),
        (
            "inclusion-root",
            credited(&|one| one.debit.header.tx_root = [3; 32]),
        ),
        (
            "envelope-chain",
            credited(&|one| one.debit.envelope.chain_id = other.parent.id),
        ),
        (
            "quorum-count",
            credited(&|one| one.debit.signatures.clear()),
        ),
        ("claim-above", credited(&|one| one.absent.clear())),
        ("audit-claim", vec![(5, family.evidence.clone())]),
        ("audit-type", vec![(0, b"{}".to_vec())]),
    ];
    for (check, all) in cases {
        let refused = audited(folder.path(), &family.second(all)).unwrap_err();
        assert_eq!(refused.check, check, "{refused}");
    }
}

#[test]
fn evidence_of_another_parent_and_a_credit_in_no_subchain_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (family, other) = (Family::new(1), Family::new(2));
    let credit = family.credit();
    let mut astray = family.second(family.good());
    astray.quants[1].2[0].1.clone_from(&other.evidence);
    let refused = audited(folder.path(), &astray).unwrap_err();
    assert_eq!(refused.check, "claim-parent", "{refused}");
    let mut plain = Family::new(3).parent;
    plain.quants[1].2[0] = (4, credit.to_bytes());
    let refused = audited(folder.path(), &plain).unwrap_err();
    assert_eq!(refused.check, "audit-type", "{refused}");
}
