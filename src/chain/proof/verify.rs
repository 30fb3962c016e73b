//! The walk over a whole proof: from the claim, link by link, to the last header, and to who vouches for it.

use super::anchor::{anchor_in, say_nodes};
use super::grammar::{
    Claim, ParentEvidence, Proof, ProvenState, ProvenTransaction, StateEvidence, Step,
    TransactionEvidence, Trust, Verdict,
};
use super::head::{HeadFacts, check_head};
use super::link::{
    verify_agreement, verify_anchor, verify_extension, verify_history_link, verify_inclusion_in,
};
use super::log::{LogEvidence, check_checkpoint, say_logged, say_signed, verify_logged};
use super::state::{check_kept, check_state, say_state};
use super::whole::ProvenWhole;
use crate::chain::constitution::Work;
use crate::chain::hash::{Hash, HashAlg};
use crate::chain::proof_system::Systems;
use crate::chain::quant::Header;
use crate::chain::refused::Refused;
use crate::chain::sig_alg::SigAlgs;
use crate::chain::transaction::{
    Attributes, Envelope, attributes_hash, payload_hash, verify_author,
};

/// Checks every link of the proof, and then whether something that the caller trusts holds its last header.
///
/// Any trust that holds anchors. One that does not is no error: the verdict is then not anchored, and says why.
pub fn verify(proof: &Proof, trust: &[Trust]) -> Result<Verdict, Refused> {
    verify_requiring(proof, trust, SigAlgs::NONE)
}

/// The same, and with each required algorithm as many nodes signed the last header as its constitution asks for, whatever
/// else is trusted; else it is refused ("signature-required").
pub fn verify_requiring(
    proof: &Proof,
    trust: &[Trust],
    required: SigAlgs,
) -> Result<Verdict, Refused> {
    let mut walk = Walk::default();
    let Claimed {
        last,
        transaction,
        state,
        whole,
    } = walk.claim(proof)?;
    if let Some(log) = &proof.log {
        verify_logged(&last, log)?;
    }
    let mut facts = check_head(&proof.head, &last, required)?;
    let vouching = match &proof.log {
        Some(log) => check_checkpoint(log, facts.as_ref())?,
        None => Vec::new(),
    };
    walk.work(&last, facts.as_ref())?;
    if let Some(state) = &state {
        let constitution = facts.as_ref().map(|facts| &facts.constitution);
        check_kept(state, constitution)?;
        walk.say(say_state(state, &last, constitution));
    }
    let transaction = transaction
        .map(|t| walk.author(t, facts.as_ref()))
        .transpose()?;
    walk.say_head(&last, facts.as_ref());
    walk.say_log(&last, proof.log.as_ref());
    if let Some(facts) = facts.as_mut().filter(|facts| facts.nodes.is_empty()) {
        facts.nodes = vouching;
    }
    let nodes = facts.as_ref().map_or(&[][..], |f| &f.nodes);
    let root = proof.log.as_ref().map(|log| &log.checkpoint.root);
    let anchored = anchor_in(trust, (&last, root), nodes, &mut walk.sentences);
    Ok(Verdict {
        anchored,
        head_hash: last.hash(),
        chain_id: last.id(),
        authority_seq: facts.map_or(0, |f| f.authority_seq),
        transaction: transaction.map(|t| t.proven),
        state,
        whole,
        checkpoint: proof.log.as_ref().map(|log| log.checkpoint),
        steps: walk.sentences,
        head: last,
    })
}

/// Where the links from a claim end, and what they show.
struct Claimed {
    last: Header,
    transaction: Option<Shown>,
    state: Option<ProvenState>,
    whole: Option<ProvenWhole>,
}

/// A transaction whose author was not looked at yet.
struct Shown {
    proven: ProvenTransaction,
    attributes: Attributes,
}

/// The headers met so far and what was said of them.
#[derive(Default)]
pub(super) struct Walk {
    shown: Vec<Header>,
    sentences: Vec<String>,
}

impl Walk {
    /// The links of the claim.
    fn claim(&mut self, proof: &Proof) -> Result<Claimed, Refused> {
        let (mut transaction, mut state, mut whole) = (None, None, None);
        let last = match &proof.claim {
            Claim::Inclusion(evidence) => {
                let (last, shown) = self.inclusion(evidence, &proof.steps)?;
                transaction = shown;
                last
            }
            Claim::State(evidence) => {
                let (last, shown, proven) = self.state(evidence, &proof.steps)?;
                (transaction, state) = (shown, Some(proven));
                last
            }
            Claim::Extension { old } => self.extension(old, &proof.steps)?,
            Claim::Agreement(parent) => self.agreement(parent, &proof.steps)?,
            Claim::Parting {
                parent,
                next,
                next_path,
            } => {
                let last = self.agreement(parent, &proof.steps)?;
                self.parting(parent, next, next_path, &last)?;
                last
            }
            Claim::Whole(evidence) => {
                let (last, proven) = self.whole(evidence, &proof.steps)?;
                whole = Some(proven);
                last
            }
        };
        Ok(Claimed {
            last,
            transaction,
            state,
            whole,
        })
    }

    fn inclusion(
        &mut self,
        evidence: &TransactionEvidence,
        steps: &[Step],
    ) -> Result<(Header, Option<Shown>), Refused> {
        let Some((Step::Quant { header, path }, rest)) = steps.split_first() else {
            return Err(grammar(
                "an inclusion begins with the link from the transaction to its Quant",
            ));
        };
        let envelope = Envelope::parse(&evidence.envelope)?;
        let sealing = self.show(header)?;
        verify_inclusion_in(&envelope, &sealing, path)?;
        self.say(say_leaf(&envelope, &sealing));
        let shown = self.content(evidence, envelope, &sealing)?;
        Ok((self.climb(sealing, rest)?, Some(shown)))
    }

    fn state(
        &mut self,
        evidence: &StateEvidence,
        steps: &[Step],
    ) -> Result<(Header, Option<Shown>, ProvenState), Refused> {
        let header = self.show(&evidence.header)?;
        let proven = check_state(evidence, &header)?;
        let Some(latest) = &evidence.latest else {
            if steps.is_empty() {
                return Ok((header, None, proven));
            }
            return Err(grammar(
                "steps lead to a transaction of the key, and none is shown",
            ));
        };
        let (last, shown) = self.inclusion(latest, steps)?;
        if last != header {
            return Err(grammar(
                "the key's transaction is proved into another header than the state",
            ));
        }
        if let Some(shown) = &shown {
            proven.check_latest(&shown.proven)?;
        }
        Ok((last, shown, proven))
    }

    fn extension(&mut self, old: &[u8], steps: &[Step]) -> Result<Header, Refused> {
        let [
            Step::History {
                header,
                path,
                borders,
            },
        ] = steps
        else {
            return Err(grammar("an extension is one history link"));
        };
        if !borders.is_empty() {
            return Err(grammar("an extension crosses no fork border"));
        }
        let old = self.show(old)?;
        let new = self.show(header)?;
        verify_extension(&old, &new, path)?;
        self.say(format!(
            "{} extends {} and rewrites nothing before or at it",
            say_quant(&new),
            say_quant(&old)
        ));
        Ok(new)
    }

    fn agreement(&mut self, evidence: &ParentEvidence, steps: &[Step]) -> Result<Header, Refused> {
        let fork_genesis = self.show(&evidence.fork_genesis)?;
        let parent = self.show(&evidence.parent)?;
        verify_agreement(&parent, &fork_genesis, &evidence.path)?;
        self.say(format!(
            "fork {} has the history of its parent {} up to Quant {}",
            fork_genesis.id(),
            parent.id(),
            parent.height
        ));
        match steps {
            [] => Ok(parent),
            [
                Step::History {
                    header,
                    path,
                    borders,
                },
            ] if borders.is_empty() => self.history(&parent, header, path, &[]),
            _ => Err(grammar(
                "the parent is linked to its head by one history link without borders",
            )),
        }
    }

    fn parting(
        &mut self,
        evidence: &ParentEvidence,
        next: &[u8],
        path: &[Hash],
        last: &Header,
    ) -> Result<(), Refused> {
        let fork_genesis = Header::parse(&evidence.fork_genesis)?;
        let next = self.show(next)?;
        // 1. It stands where the fork begins.
        if next.height != fork_genesis.height {
            let why = format!(
                "the fork begins at height {}, the header shown is {}",
                fork_genesis.height, next.height
            );
            return Err(Refused::new("parting-height", why));
        }
        // 2. It is the parent's own.
        if next.id() != fork_genesis.chain_id {
            let why = format!(
                "the header shown is of chain {}, not of {}",
                next.id(),
                fork_genesis.chain_id
            );
            return Err(Refused::new("parting-chain", why));
        }
        // 3. It lies in the same head's history, or is that head.
        if next != *last {
            verify_history_link(&next, last, &[], path)?;
        } else if !path.is_empty() {
            return Err(Refused::new(
                "path-length",
                "the parting header is the head and needs no path",
            ));
        }
        self.say(format!(
            "the parent goes its own way from there: {} is its own",
            say_quant(&next)
        ));
        Ok(())
    }

    /// History and anchor links above a header, at most one history link per chain.
    fn climb(&mut self, from: Header, steps: &[Step]) -> Result<Header, Refused> {
        let mut current = from;
        let mut history_allowed = true;
        for step in steps {
            match step {
                Step::History {
                    header,
                    path,
                    borders,
                } if history_allowed => {
                    current = self.history(&current, header, path, borders)?;
                    history_allowed = false;
                }
                Step::Anchor {
                    header,
                    index,
                    path,
                } => {
                    current = self.anchor_step(&current, header, *index, path)?;
                    history_allowed = true;
                }
                Step::History { .. } => return Err(grammar("a second history link in one chain")),
                Step::Quant { .. } => {
                    return Err(grammar("only the transaction itself is linked to a Quant"));
                }
            }
        }
        Ok(current)
    }

    pub(super) fn history(
        &mut self,
        from: &Header,
        to: &[u8],
        path: &[Hash],
        borders: &[Vec<u8>],
    ) -> Result<Header, Refused> {
        let to = self.show(to)?;
        let borders = borders
            .iter()
            .map(|b| self.show(b))
            .collect::<Result<Vec<_>, _>>()?;
        verify_history_link(from, &to, &borders, path)?;
        self.say(format!(
            "{} lies in the history of {}",
            say_quant(from),
            say_quant(&to)
        ));
        if from.id() != to.id() {
            self.say(format!(
                "that history crosses a fork border: it is what the sealers of fork {} vouch for, not what those of {} do",
                to.id(),
                from.id()
            ));
        }
        Ok(to)
    }

    fn anchor_step(
        &mut self,
        child: &Header,
        parent: &[u8],
        index: u64,
        path: &[Hash],
    ) -> Result<Header, Refused> {
        let parent = self.show(parent)?;
        verify_anchor(child, &parent, index, path)?;
        self.say(format!(
            "subchain {}: its {} is anchor {index} of {} in its parent's {}",
            child.id(),
            say_quant(child),
            parent.anchor_count,
            say_quant(&parent)
        ));
        Ok(parent)
    }

    /// Checks what is shown of the transaction against its envelope.
    fn content(
        &mut self,
        evidence: &TransactionEvidence,
        envelope: Envelope,
        sealing: &Header,
    ) -> Result<Shown, Refused> {
        self.payload(evidence, &envelope, sealing.hash_alg)?;
        let attributes = self.attributes(evidence, &envelope, sealing.hash_alg)?;
        let proven = ProvenTransaction {
            height: sealing.height,
            key: attributes.key.clone(),
            id: attributes.id.clone(),
            author: None,
            payload_shown: evidence.payload.is_some(),
            envelope,
        };
        Ok(Shown { proven, attributes })
    }

    fn payload(
        &mut self,
        evidence: &TransactionEvidence,
        envelope: &Envelope,
        alg: HashAlg,
    ) -> Result<(), Refused> {
        let Some(payload) = &evidence.payload else {
            if evidence.salt.is_some() {
                return Err(Refused::new("salt", "a salt is shown without its payload"));
            }
            self.say("the payload is not shown: nothing is said about the content".to_owned());
            return Ok(());
        };
        check_payload(envelope, payload, evidence.salt.as_ref(), alg)?;
        self.say(format!(
            "the payload shown, {} bytes, is the one that was hashed",
            payload.len()
        ));
        Ok(())
    }

    fn attributes(
        &mut self,
        evidence: &TransactionEvidence,
        envelope: &Envelope,
        alg: HashAlg,
    ) -> Result<Attributes, Refused> {
        let none = envelope.attributes_hash == [0; 32];
        let Some(bytes) = &evidence.attributes else {
            let sentence = if none {
                "the transaction has no key, id or author"
            } else {
                "the attributes are not shown: nothing is said about key, id or author"
            };
            self.say(sentence.to_owned());
            return Ok(Attributes::default());
        };
        check_attributes(envelope, bytes, alg)?;
        let attributes = Attributes::parse(bytes)?;
        self.say(format!(
            "the attributes shown are those that were hashed: {}",
            say_attributes(&attributes)
        ));
        Ok(attributes)
    }

    /// Checks the author's signature, where the constitution shown tells the family that it is for.
    fn author(&mut self, mut shown: Shown, facts: Option<&HeadFacts>) -> Result<Shown, Refused> {
        let (Some(author), Some(signature)) = (shown.attributes.author, shown.attributes.signature)
        else {
            return Ok(shown);
        };
        let envelope = &shown.proven.envelope;
        let facts = facts.filter(|f| f.genesis.id() == envelope.chain_id);
        let family = facts
            .and_then(|f| f.constitution.family_id)
            .unwrap_or(envelope.chain_id);
        let (key, id) = (
            shown.attributes.key.as_deref(),
            shown.attributes.id.as_deref(),
        );
        let flags = u8::from(envelope.salted);
        let checked = verify_author(
            &family,
            envelope.kind,
            flags,
            key,
            id,
            &envelope.payload_hash,
            &author,
            &signature,
        );
        if let (Err(refused), true) = (&checked, facts.is_some()) {
            return Err(refused.clone());
        }
        let author_hex = hex::encode(author);
        if checked.is_ok() {
            shown.proven.author = Some(author);
            self.say(format!(
                "signed by {author_hex}; not shown that this key was an author of the chain"
            ));
        } else {
            self.say(format!(
                "names author {author_hex}, whose signature is not checked: the family is not shown"
            ));
        }
        Ok(shown)
    }

    /// Every header whose constitution is shown has the work that it asks for. The work of all is told.
    fn work(&mut self, last: &Header, facts: Option<&HeadFacts>) -> Result<(), Refused> {
        let minimum = facts.and_then(|f| f.constitution.work.as_ref());
        let systems = facts.map_or_else(Systems::default, |f| Systems::of(&f.constitution));
        let mut sentences = Vec::new();
        for header in &self.shown {
            let own = header.id() == last.id();
            let minimum = minimum.filter(|_| own);
            if own {
                systems.check_alone(header)?;
            }
            if header.pow_bits > 0 {
                sentences.push(say_work(header, minimum));
            }
        }
        self.sentences.extend(sentences);
        Ok(())
    }

    fn say_head(&mut self, last: &Header, facts: Option<&HeadFacts>) {
        let Some(facts) = facts else {
            return;
        };
        let name = &facts.constitution.name;
        self.say(format!(
            "chain {} was banged under the name {name:?}, by the constitution shown",
            last.id()
        ));
        if facts.authority_seq > 0 {
            self.say(format!(
                "its authority was changed {} times, each change signed by the old one",
                facts.authority_seq
            ));
        }
        if !facts.nodes.is_empty() {
            let nodes = say_nodes(&facts.nodes);
            self.say(format!(
                "{} is signed by {nodes} with {}, certified by the chain's authority",
                say_quant(last),
                facts.algs
            ));
        }
    }

    fn say_log(&mut self, last: &Header, log: Option<&LogEvidence>) {
        let Some(log) = log else {
            return;
        };
        self.say(say_logged(last, log));
        self.sentences.extend(say_signed(log));
    }

    pub(super) fn show(&mut self, bytes: &[u8]) -> Result<Header, Refused> {
        let header = Header::parse(bytes)?;
        self.shown.push(header.clone());
        Ok(header)
    }

    pub(super) fn say(&mut self, sentence: String) {
        self.sentences.push(sentence);
    }
}

/// Checks a payload and its salt against the envelope.
pub(crate) fn check_payload(
    envelope: &Envelope,
    payload: &[u8],
    salt: Option<&[u8; 32]>,
    alg: HashAlg,
) -> Result<(), Refused> {
    if envelope.salted != salt.is_some() {
        let why = if envelope.salted {
            "a salted payload is shown without its salt"
        } else {
            "a salt that nothing uses"
        };
        return Err(Refused::new("salt", why));
    }
    if envelope.payload_len != payload.len() as u64 {
        let why = format!(
            "the payload has {} bytes, the envelope says {}",
            payload.len(),
            envelope.payload_len
        );
        return Err(Refused::new("payload-length", why));
    }
    if envelope.payload_hash != payload_hash(alg, payload, salt) {
        let why = format!(
            "the payload is not the one that transaction {} hashes",
            envelope.index
        );
        return Err(Refused::new("payload-hash", why));
    }
    Ok(())
}

/// Checks attribute bytes against the envelope.
pub(crate) fn check_attributes(
    envelope: &Envelope,
    bytes: &[u8],
    alg: HashAlg,
) -> Result<(), Refused> {
    if envelope.attributes_hash == attributes_hash(alg, bytes) {
        return Ok(());
    }
    let why = format!(
        "the attributes are not those that transaction {} hashes",
        envelope.index
    );
    Err(Refused::new("attributes-hash", why))
}

pub(super) fn grammar(why: &str) -> Refused {
    Refused::new("grammar", why)
}

pub(super) fn say_quant(header: &Header) -> String {
    format!(
        "Quant {} of chain {} (hash {})",
        header.height,
        header.id(),
        hex::encode(header.hash())
    )
}

/// The bits that a header's hash has, and who asked for how many.
fn say_work(header: &Header, minimum: Option<&Work>) -> String {
    let by = minimum.map_or_else(
        || "only its own word asks for them, no constitution is shown".to_owned(),
        |work| format!("the constitution's minimum is {}", work.bits_min),
    );
    format!(
        "work of Quant {}: {} zero bits asked for, {} found ({by})",
        header.height,
        header.pow_bits,
        header.zero_bits()
    )
}

fn say_leaf(envelope: &Envelope, header: &Header) -> String {
    let alg = match header.hash_alg {
        HashAlg::Sha3_256 => "sha3",
        HashAlg::Sha2_256 => "sha2",
    };
    format!(
        "transaction {} ({alg} payload hash {}) is leaf {} of {}",
        envelope.index,
        hex::encode(envelope.payload_hash),
        envelope.index.saturating_sub(header.tx_start),
        say_quant(header)
    )
}

fn say_attributes(attributes: &Attributes) -> String {
    let show = |name: &str, bytes: Option<&[u8]>| bytes.map(|b| format!("{name} {}", say_bytes(b)));
    let parts: Vec<String> = [
        show("key", attributes.key.as_deref()),
        show("id", attributes.id.as_deref()),
        attributes
            .author
            .map(|a| format!("author {}", hex::encode(a))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        "no key, id or author".to_owned()
    } else {
        parts.join(", ")
    }
}

/// Text as text, so that a reader knows it again; else hex. Control characters never reach a terminal.
pub(super) fn say_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{text:?}"),
        _ => hex::encode(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_said_in_hex() {
        assert_eq!(say_bytes(b"ab"), "\"ab\"");
        assert_eq!(say_bytes(b"\x1b[2J"), "1b5b324a");
    }
}
