//! The full audit of a chain from its genesis on: every rule that one pass over all its bytes can check.
//!
//! It holds the history's peaks and the leaf hashes of one Quant, whatever the length of the chain; of a keyed chain or a
//! ledger, also its state.

mod anchors;
mod sentences;

use std::collections::{BTreeMap, BTreeSet};

use self::anchors::check_after_split;
use super::state::{StateAudit, check_state};
use super::subchain::SubchainAudit;
use crate::chain::anchor::AnchorBook;
use crate::chain::authority::{HeadSignature, signers, verify_quorum, verify_required};
use crate::chain::change::ConstitutionChange;
use crate::chain::constitution::{Authority, Constitution};
use crate::chain::content::{ContentError, Schema, SchemaError, check_content};
use crate::chain::erasure::Erasure;
use crate::chain::hash::Hash;
use crate::chain::id::ChainId;
use crate::chain::meta::Meta;
use crate::chain::proof::{Genesis, apply_change, check_attributes, check_genesis, check_payload};
use crate::chain::proof_system::Systems;
use crate::chain::quant::{Header, check_meta, check_next};
use crate::chain::refused::Refused;
use crate::chain::sig_alg::{SigAlg, SigAlgs};
use crate::chain::transaction::{
    Attributes, Envelope, TYPE_CONSTITUTION_CHANGE, TYPE_CREDIT, TYPE_DATA, TYPE_ERASURE,
    TYPE_TRANSFER, verify_author,
};
use crate::chain::tree::{Frontier, tree_root};

/// Most signatures that one Quant may carry: a quorum is a byte, and a node signs once with each algorithm.
const SIGNATURES_MAX: usize = 255 * SigAlg::ALL.len();

/// Checks a chain as it is fed: each Quant, then its transactions in order, then its signatures.
#[derive(Default)]
pub struct Auditor {
    history: Frontier,
    current: Option<Current>,
    state: Option<StateAudit>,
    subchain: Option<SubchainAudit>,
    /// Since the Quant that split the chain.
    anchors: Option<AnchorBook>,
    anchored: u64,
    quants: u64,
    transactions: u64,
    erased: u64,
    /// Erased ones whose tombstone did not come yet: H(envelope) by index.
    unexplained: BTreeMap<u64, Hash>,
    signed: u64,
    changes: u64,
    unruled: u64,
    /// Payloads that a schema was applied to; those it could not be applied to, and why not the last of them.
    matched: u64,
    unmatched: u64,
    unmatched_why: String,
    last_inject_ms: u64,
    required: SigAlgs,
}

/// What a finished audit found.
#[derive(Clone, Debug, PartialEq)]
pub struct Audited {
    /// The chain.
    pub chain_id: ChainId,
    /// Its name at bang.
    pub name: String,
    /// The last header.
    pub head: Header,
    /// Its quant_hash.
    pub head_hash: Hash,
    /// How many Quants.
    pub quants: u64,
    /// How many transactions.
    pub transactions: u64,
    /// How many of them came without a payload.
    pub erased: u64,
    /// Of those, how many have no tombstone up to the head: it is younger, or the payload was left out.
    pub unexplained: u64,
    /// How many of them carry an author's signature; each was checked.
    pub signed: u64,
    /// How many of them changed the constitution.
    pub changes: u64,
    /// The heads of its subchains that it has anchored; none where it is not split.
    pub anchored: Option<AnchorBook>,
    /// Of a subchain that holds something: the hash of the Quant by which it begins, the one that split its parent.
    pub begins: Option<Hash>,
    /// The constitution in force after the last header.
    pub constitution: Constitution,
    /// Nodes that signed the last header, ascending; empty where no signature was fed.
    pub nodes: Vec<u64>,
    /// One sentence per thing that was checked.
    pub steps: Vec<String>,
}

/// The Quant that is being fed, and the rules in force for it.
struct Current {
    header: Header,
    hash: Hash,
    leaves: Vec<Hash>,
    signatures: Vec<HeadSignature>,
    /// Its anchors were fed.
    anchored: bool,
    /// The subchains that it splits the chain into.
    route: Option<Vec<ChainId>>,
    rules: Rules,
    /// The authority from the next height on.
    next_authority: Option<(Authority, u32)>,
    /// What meta record 7 says. Of a first Quant it was checked already.
    in_force: Option<(Hash, u64)>,
    /// What meta record 4 says.
    state_root: Option<(u8, Hash)>,
    /// A transaction of this Quant changed the constitution.
    changed: bool,
}

struct Rules {
    chain_id: ChainId,
    /// The constitution in force: the genesis's, until changes replace records of it.
    constitution: Constitution,
    /// Its bytes.
    constitution_bytes: Vec<u8>,
    /// Ids of the changes so far: a signed change counts once.
    change_ids: BTreeSet<Vec<u8>>,
    /// The constitution's schema, as far as this version can apply it.
    schema: Option<Result<Schema, SchemaError>>,
    authority: Authority,
    authority_seq: u32,
    /// What the next header must show.
    systems: Systems,
}

/// Whether a payload is as the chain's schema has it; one that is not is refused.
enum Matched {
    NotAsked,
    Yes,
    Unknown(String),
}

impl Auditor {
    /// An audit that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next Quant: the genesis first. Closes the one before.
    pub fn quant(&mut self, header: &[u8], meta: &[u8]) -> Result<(), Refused> {
        self.finish_quant()?;
        self.follow_route();
        let header = Header::parse(header)?;
        let current = match self.current.take() {
            None => {
                let first = start(&header, meta)?;
                let constitution = &first.rules.constitution;
                self.state = Some(StateAudit::new(constitution, header.hash_alg));
                self.subchain = SubchainAudit::of(&header, meta, constitution)?;
                first
            }
            Some(previous) => self.follow(previous, header, meta)?,
        };
        self.subchain = SubchainAudit::after(self.subchain.take(), &current.header)?;
        self.history.push(current.header.hash_alg, current.hash);
        self.quants += 1;
        self.current = Some(current);
        Ok(())
    }

    /// The next transaction of the Quant fed last; without a payload only where the chain may erase.
    pub fn transaction(
        &mut self,
        envelope: &[u8],
        attributes: &[u8],
        payload: Option<&[u8]>,
        salt: Option<&[u8; 32]>,
    ) -> Result<(), Refused> {
        let envelope = Envelope::parse(envelope)?;
        let current = self
            .current
            .as_mut()
            .ok_or_else(|| order("a transaction comes before the first Quant"))?;
        current.check_place(&envelope)?;
        check_after_split(self.anchors.as_ref(), &envelope)?;
        if envelope.inject_ms < self.last_inject_ms {
            let why = format!(
                "inject_ms of transaction {} falls below {}",
                envelope.index, self.last_inject_ms
            );
            return Err(Refused::new("inject-order", why));
        }
        let alg = current.header.hash_alg;
        check_attributes(&envelope, attributes, alg)?;
        match payload {
            Some(payload) => check_payload(&envelope, payload, salt, alg)?,
            None => current.rules.check_erased(&envelope)?,
        }
        let attributes = read_attributes(attributes)?;
        let matched = current.rules.check(&envelope, &attributes, payload)?;
        let of_chain = (&mut self.subchain, &mut self.state);
        let constitution = &current.rules.constitution;
        check_state(of_chain, constitution, (&envelope, &attributes, payload))?;
        let erasure = current
            .rules
            .check_erasure(&envelope, &attributes, payload)?;
        if payload.is_none() {
            let hash = alg.hash(&[&envelope.to_bytes()]);
            self.unexplained.insert(envelope.index, hash);
        }
        if let Some(erasure) = erasure
            && let Some(hash) = self.unexplained.remove(&erasure.index)
            && hash != erasure.envelope
        {
            let why = format!(
                "transaction {} erases {} by another envelope than that one's",
                envelope.index, erasure.index
            );
            return Err(Refused::new("erasure", why));
        }
        let changes = envelope.kind == TYPE_CONSTITUTION_CHANGE;
        current.changed |= changes;
        current.leaves.push(envelope.leaf(alg));
        self.note(matched);
        self.last_inject_ms = envelope.inject_ms;
        self.transactions += 1;
        self.erased += u64::from(payload.is_none());
        self.signed += u64::from(attributes.author.is_some());
        self.changes += u64::from(changes);
        let ruled = matches!(
            envelope.kind,
            TYPE_DATA | TYPE_CONSTITUTION_CHANGE | TYPE_ERASURE | TYPE_TRANSFER | TYPE_CREDIT
        ) || self.subchain.is_some();
        self.unruled += u64::from(!ruled);
        Ok(())
    }

    fn note(&mut self, matched: Matched) {
        match matched {
            Matched::NotAsked => {}
            Matched::Yes => self.matched += 1,
            Matched::Unknown(why) => {
                self.unmatched += 1;
                self.unmatched_why = why;
            }
        }
    }

    /// The algorithms that the last header must be signed with, each by as many nodes as the constitution asks for.
    pub fn require(&mut self, required: SigAlgs) {
        self.required = required;
    }

    /// A node's signature on the header of the Quant fed last.
    pub fn signature(&mut self, signature: &HeadSignature) -> Result<(), Refused> {
        let current = self
            .current
            .as_mut()
            .ok_or_else(|| order("a signature comes before the first Quant"))?;
        if current.signatures.len() == SIGNATURES_MAX {
            return Err(Refused::new(
                "quorum-node",
                format!("a Quant has at most {SIGNATURES_MAX} signatures"),
            ));
        }
        let node = signature.certificate.node_id;
        if current
            .signatures
            .iter()
            .any(|s| (s.certificate.node_id, s.alg) == (node, signature.alg))
        {
            return Err(Refused::new(
                "quorum-node",
                format!(
                    "node {node} signed twice with algorithm {}; it counts once",
                    signature.alg
                ),
            ));
        }
        let rules = &current.rules;
        signature.verify(
            &current.header,
            &rules.constitution.cluster_id,
            &rules.authority,
        )?;
        current.signatures.push(signature.clone());
        Ok(())
    }

    /// Closes the Quant fed last: all its transactions were there and give its root. Also done by `quant` and `finish`.
    pub fn finish_quant(&mut self) -> Result<(), Refused> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        let header = &current.header;
        current.check_anchored()?;
        if current.leaves.len() as u64 != u64::from(header.tx_count) {
            let why = format!(
                "Quant {} has {} of {} transactions",
                header.height,
                current.leaves.len(),
                header.tx_count
            );
            return Err(Refused::new("audit-count", why));
        }
        if tree_root(header.hash_alg, &current.leaves) != header.tx_root {
            let why = format!(
                "the transactions of Quant {} do not give its tx_root",
                header.height
            );
            return Err(Refused::new("audit-root", why));
        }
        // A genesis has no state; a fork begins with that of the Quant before.
        if let Some(state) = self.state.as_mut().filter(|_| !header.genesis) {
            state.quant(header, current.state_root)?;
        }
        current.check_in_force()
    }

    /// The end of the chain.
    pub fn finish(mut self) -> Result<Audited, Refused> {
        self.finish_quant()?;
        let Some(current) = self.current.take() else {
            return Err(order("there is not even a genesis"));
        };
        let nodes = current.nodes()?;
        let constitution = &current.rules.constitution;
        verify_required(&current.signatures, constitution, self.required)?;
        let steps = self.sentences(&current, &nodes);
        Ok(Audited {
            chain_id: current.rules.chain_id,
            name: current.rules.constitution.name.clone(),
            head: current.header,
            head_hash: current.hash,
            quants: self.quants,
            transactions: self.transactions,
            erased: self.erased,
            unexplained: self.unexplained.len() as u64,
            signed: self.signed,
            changes: self.changes,
            anchored: self.anchors,
            begins: self.subchain.and_then(|subchain| subchain.begins),
            constitution: current.rules.constitution,
            nodes,
            steps,
        })
    }

    fn follow(&self, previous: Current, header: Header, meta: &[u8]) -> Result<Current, Refused> {
        check_next(&previous.header, &previous.hash, &header, &self.history)?;
        if header.fork_genesis {
            let genesis = check_genesis(&header, meta)?;
            genesis.constitution.forks(&previous.rules.constitution)?;
            let state_root = Meta::parse(meta)?.state_root;
            return Ok(Current {
                state_root,
                ..Current::first(genesis)
            });
        }
        let mut rules = previous.rules;
        if let Some((authority, seq)) = previous.next_authority {
            rules.authority = authority;
            rules.authority_seq = seq;
        }
        if header.id() != rules.chain_id {
            let why = format!(
                "Quant {} is of chain {}, not of {}",
                header.height,
                header.id(),
                rules.chain_id
            );
            return Err(Refused::new("audit-chain", why));
        }
        rules.systems.check(&header)?;
        rules.systems.push(&header);
        check_meta(&header, meta)?;
        let meta = Meta::parse(meta)?;
        self.check_route(header.height, &meta)?;
        let apply = |value: Vec<u8>| {
            apply_change(
                &value,
                &rules.chain_id,
                header.hash_alg,
                &rules.authority,
                rules.authority_seq,
            )
        };
        let next_authority = meta.authority_change.map(apply).transpose()?;
        Ok(Current {
            hash: header.hash(),
            header,
            leaves: Vec::new(),
            signatures: Vec::new(),
            anchored: false,
            route: meta.route,
            rules,
            next_authority,
            in_force: meta.constitution_in_force,
            state_root: meta.state_root,
            changed: false,
        })
    }
}

impl Current {
    fn first(genesis: Genesis) -> Self {
        let Genesis {
            header,
            constitution,
            constitution_bytes,
        } = genesis;
        let rules = Rules {
            chain_id: header.id(),
            authority: constitution.authority.clone(),
            authority_seq: 0,
            systems: Systems::begin(&constitution, &header),
            schema: constitution.schema.as_deref().map(Schema::compile),
            constitution,
            constitution_bytes,
            change_ids: BTreeSet::new(),
        };
        let hash = header.hash();
        Self {
            header,
            hash,
            leaves: Vec::new(),
            signatures: Vec::new(),
            anchored: false,
            route: None,
            rules,
            next_authority: None,
            in_force: None,
            state_root: None,
            changed: false,
        }
    }

    /// Meta record 7 stands where the constitution changed, with its hash and this height, and nowhere else.
    fn check_in_force(&self) -> Result<(), Refused> {
        let header = &self.header;
        let hash = || Constitution::hash(header.hash_alg, &self.rules.constitution_bytes);
        let due = self.changed.then(|| (hash(), header.height));
        if header.genesis || header.fork_genesis || self.in_force == due {
            return Ok(());
        }
        let why = format!(
            "meta record 7 of Quant {} does not say what its transactions make of the constitution",
            header.height
        );
        Err(Refused::new("constitution-in-force", why))
    }

    fn check_place(&self, envelope: &Envelope) -> Result<(), Refused> {
        let header = &self.header;
        if envelope.chain_id != self.rules.chain_id {
            let why = format!(
                "transaction {} is of chain {}",
                envelope.index, envelope.chain_id
            );
            return Err(Refused::new("envelope-chain", why));
        }
        let expected = header.tx_start.checked_add(self.leaves.len() as u64);
        if self.leaves.len() as u64 >= u64::from(header.tx_count)
            || expected != Some(envelope.index)
        {
            let why = format!(
                "transaction {} is not the next of Quant {}",
                envelope.index, header.height
            );
            return Err(Refused::new("envelope-index", why));
        }
        if envelope.inject_ms > header.time_ms {
            let why = format!(
                "transaction {} was injected after its Quant was sealed",
                envelope.index
            );
            return Err(Refused::new("envelope-time", why));
        }
        Ok(())
    }

    fn nodes(&self) -> Result<Vec<u64>, Refused> {
        if self.signatures.is_empty() {
            return Ok(Vec::new());
        }
        verify_quorum(
            &self.signatures,
            &self.header,
            &self.rules.constitution,
            &self.rules.authority,
        )?;
        Ok(signers(&self.signatures))
    }
}

impl Rules {
    fn check(
        &mut self,
        envelope: &Envelope,
        attributes: &Attributes,
        payload: Option<&[u8]>,
    ) -> Result<Matched, Refused> {
        let payload_max = self.constitution.payload_max;
        // A list of authors may be longer than the records of a chain, and so may evidence.
        let payload_max =
            payload_max.filter(|_| matches!(envelope.kind, TYPE_DATA | TYPE_TRANSFER));
        if payload_max.is_some_and(|max| envelope.payload_len > u64::from(max)) {
            let why = format!(
                "transaction {} is larger than the chain allows",
                envelope.index
            );
            return Err(Refused::new("audit-payload-max", why));
        }
        self.check_author(envelope, attributes)?;
        match envelope.kind {
            TYPE_DATA => self.check_data(envelope, payload),
            TYPE_CONSTITUTION_CHANGE => {
                self.change_constitution(envelope, attributes, payload)?;
                Ok(Matched::NotAsked)
            }
            _ => Ok(Matched::NotAsked),
        }
    }

    /// A signature that is there holds; where authors are named, one of them signed, with an id.
    fn check_author(&self, envelope: &Envelope, attributes: &Attributes) -> Result<(), Refused> {
        if let (Some(author), Some(signature)) = (&attributes.author, &attributes.signature) {
            let family = self.constitution.family_id.unwrap_or(self.chain_id);
            let (key, id) = (attributes.key.as_deref(), attributes.id.as_deref());
            let flags = u8::from(envelope.salted);
            verify_author(
                &family,
                envelope.kind,
                flags,
                key,
                id,
                &envelope.payload_hash,
                author,
                signature,
            )?;
        }
        let authors = &self.constitution.authors;
        if authors.is_empty() || !matches!(envelope.kind, TYPE_DATA | TYPE_TRANSFER) {
            return Ok(());
        }
        if !attributes.author.is_some_and(|a| authors.contains(&a)) {
            let why = format!(
                "transaction {} is signed by none of the chain's authors",
                envelope.index
            );
            return Err(Refused::new("audit-author", why));
        }
        if attributes.id.is_none() {
            let why = format!(
                "transaction {} has no id, which a chain with authors asks for",
                envelope.index
            );
            return Err(Refused::new("audit-id", why));
        }
        Ok(())
    }

    fn check_data(&self, envelope: &Envelope, payload: Option<&[u8]>) -> Result<Matched, Refused> {
        if self.constitution.erasable && !envelope.salted {
            let why = format!(
                "transaction {} is not salted, which an erasable chain asks for",
                envelope.index
            );
            return Err(Refused::new("audit-salt", why));
        }
        payload.map_or(Ok(Matched::NotAsked), |payload| {
            self.check_payload(envelope.index, payload)
        })
    }

    /// A payload whose check takes too long is not refused: this version may count other steps than the one that took it.
    fn check_payload(&self, index: u64, payload: &[u8]) -> Result<Matched, Refused> {
        let content = self.constitution.content;
        let (checked, matched) = match &self.schema {
            Some(Ok(schema)) => (schema.check(payload), Matched::Yes),
            Some(Err(error)) => {
                let why = format!("this version can't apply the schema: {error}");
                (check_content(content, payload), Matched::Unknown(why))
            }
            None => (check_content(content, payload), Matched::NotAsked),
        };
        let refused = |check, error: &ContentError| {
            Err(Refused::new(check, format!("transaction {index}: {error}")))
        };
        match checked {
            Ok(()) => Ok(matched),
            Err(error @ ContentError::Schema(_)) => refused("audit-schema", &error),
            Err(error @ (ContentError::Costly { .. } | ContentError::Depth { .. })) => {
                Ok(Matched::Unknown(format!("transaction {index}: {error}")))
            }
            Err(error) => refused("audit-content", &error),
        }
    }

    fn change_constitution(
        &mut self,
        envelope: &Envelope,
        attributes: &Attributes,
        payload: Option<&[u8]>,
    ) -> Result<(), Refused> {
        if !attributes
            .author
            .is_some_and(|a| self.constitution.admins.contains(&a))
        {
            let why = format!(
                "transaction {} changes the constitution, signed by none of its admins",
                envelope.index
            );
            return Err(Refused::new("audit-admin", why));
        }
        let first = attributes
            .id
            .as_ref()
            .is_some_and(|id| self.change_ids.insert(id.clone()));
        if !first {
            let why = format!(
                "transaction {} changes the constitution without an id of its own: it may be sent again",
                envelope.index
            );
            return Err(Refused::new("audit-id", why));
        }
        let change = ConstitutionChange::parse(payload.unwrap_or_default())?;
        self.constitution_bytes = change.apply(&self.constitution_bytes)?;
        self.constitution = Constitution::parse(&self.constitution_bytes)?;
        Ok(())
    }

    /// A tombstone is signed by one of the admins of an erasable chain, with an id, and names an earlier transaction.
    fn check_erasure(
        &self,
        envelope: &Envelope,
        attributes: &Attributes,
        payload: Option<&[u8]>,
    ) -> Result<Option<Erasure>, Refused> {
        if envelope.kind != TYPE_ERASURE {
            return Ok(None);
        }
        let refused = |check, what: &str| {
            let why = format!("transaction {} erases {what}", envelope.index);
            Err(Refused::new(check, why))
        };
        if !self.constitution.erasable {
            return refused("erasure", "in a chain that is not erasable");
        }
        let admins = &self.constitution.admins;
        if !attributes.author.is_some_and(|a| admins.contains(&a)) {
            return refused("audit-admin", "and is signed by none of the chain's admins");
        }
        if attributes.id.is_none() {
            return refused("audit-id", "without an id: it may be sent again");
        }
        let erasure = Erasure::parse(payload.unwrap_or_default())?;
        if erasure.index >= envelope.index {
            return refused("erasure", "what does not stand before it");
        }
        Ok(Some(erasure))
    }

    /// Only a salted data transaction of an erasable chain may come without its payload.
    fn check_erased(&self, envelope: &Envelope) -> Result<(), Refused> {
        if self.constitution.erasable && envelope.salted && envelope.kind == TYPE_DATA {
            return Ok(());
        }
        let why = format!(
            "transaction {} has no payload, and the chain does not erase",
            envelope.index
        );
        Err(Refused::new("audit-payload", why))
    }
}

fn start(header: &Header, meta: &[u8]) -> Result<Current, Refused> {
    if !header.genesis {
        return Err(Refused::new(
            "audit-genesis",
            format!("the first Quant has height {}, no genesis", header.height),
        ));
    }
    Ok(Current::first(check_genesis(header, meta)?))
}

fn read_attributes(bytes: &[u8]) -> Result<Attributes, Refused> {
    if bytes.is_empty() {
        Ok(Attributes::default())
    } else {
        Attributes::parse(bytes)
    }
}

fn order(why: &str) -> Refused {
    Refused::new("audit-order", why)
}
