//! The lies, each by the name that starts the proxy with it.
use bytes::Bytes;
use qbc::chain::{SigningKey, TYPE_CLAIM};

use crate::ledger::Ledger;

/// The payload of a transaction that the proxy drops.
pub const DROPPED: &str = "dropped";

/// What the proxy lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing: the ledger answers as it is.
    None,
    /// The payload of a transaction in Quant 1 is another, and all that follows from it.
    RewrittenHistory,
    /// Two transactions of Quant 1 have each other's payload.
    SwappedPayloads,
    /// The envelope is true, the payload beside it is another.
    PayloadBesideEnvelope,
    /// Asked for a transaction, the answer is about the next.
    AnotherTransaction,
    /// Asked for a proof, the answer is one to or from another height.
    AnotherHeight,
    /// A Quant of the past has another header.
    AnotherQuant,
    /// The newest Quant, and what is in it, never was.
    OldHead,
    /// The chain `b` under this name.
    OtherChain,
    /// Signed by a key that a root of the liar's own certified.
    UncertifiedKey,
    /// Signed by a key that is not that of the certificate.
    OtherKey,
    /// Not signed.
    Unsigned,
    /// The transactions `dropped` never came.
    Dropped,
    /// The receipt is about something else than what was sent.
    FalseReceipt,
    /// A fork of this chain under this name, from Quant 2 on.
    ForkAsParent,
    /// The same, with the parent's Quant 0 shown as the fork's first.
    ForkWithParentsGenesis,
    /// The same, and the shared past is an invented one.
    InventedPast,
    /// A fork-genesis in the middle of the chain, which goes on after it.
    ForkInside,
    /// The newest Quant has another time, so another hash.
    Equivocation,
    /// Only the export is one of a rewritten history.
    RewrittenExport,
    /// The Quant that a leap answers with is another than the sealed one.
    FalseLeap,
    /// A bang answers with the chain `b`.
    FalseBang,
    /// A bang makes a chain that takes other content than was asked for.
    AlteredBang,
    /// Nothing is known of what came after Quant 1; the head is the true one.
    Denied,
    /// Streams end before their end.
    CutStream,
    /// What is sealed is said to be in the pool.
    SealedAsPooled,
    /// What is in the pool is said to be sealed and proven.
    PooledAsSealed,
    /// The subchain `s/1` is denied.
    HiddenChild,
    /// The subchain `s/0` begins with its data, not with the Quant that split `s`; `s` anchors it so.
    LateChild,
    /// The newest Quant of the subchain `s/0`, which `s` has anchored, never was.
    OldChild,
    /// The subchain `s/0` has another history than the one that `s` has anchored.
    RewrittenChild,
    /// The subchain `s/1` under the name `s/0`.
    SwappedChild,
    /// A tail has another payload.
    TailPayload,
    /// A tail leaves a transaction out.
    TailGap,
    /// A tail leaves a Quant out.
    TailQuant,
    /// A tail begins one further.
    TailBegin,
    /// A tail gives no tokens.
    TailToken,
    /// A tail leaves heads out.
    TailHead,
    /// A tail's heads are not signed.
    TailUnsigned,
}

const NAMES: &[(&str, Lie)] = &[
    ("none", Lie::None),
    ("rewritten-history", Lie::RewrittenHistory),
    ("swapped-payloads", Lie::SwappedPayloads),
    ("payload-beside-envelope", Lie::PayloadBesideEnvelope),
    ("another-transaction", Lie::AnotherTransaction),
    ("another-height", Lie::AnotherHeight),
    ("another-quant", Lie::AnotherQuant),
    ("old-head", Lie::OldHead),
    ("other-chain", Lie::OtherChain),
    ("uncertified-key", Lie::UncertifiedKey),
    ("other-key", Lie::OtherKey),
    ("unsigned", Lie::Unsigned),
    ("dropped", Lie::Dropped),
    ("false-receipt", Lie::FalseReceipt),
    ("fork-as-parent", Lie::ForkAsParent),
    ("fork-with-parents-genesis", Lie::ForkWithParentsGenesis),
    ("invented-past", Lie::InventedPast),
    ("fork-inside", Lie::ForkInside),
    ("equivocation", Lie::Equivocation),
    ("rewritten-export", Lie::RewrittenExport),
    ("false-leap", Lie::FalseLeap),
    ("false-bang", Lie::FalseBang),
    ("altered-bang", Lie::AlteredBang),
    ("denied", Lie::Denied),
    ("cut-stream", Lie::CutStream),
    ("sealed-as-pooled", Lie::SealedAsPooled),
    ("pooled-as-sealed", Lie::PooledAsSealed),
    ("hidden-child", Lie::HiddenChild),
    ("late-child", Lie::LateChild),
    ("old-child", Lie::OldChild),
    ("rewritten-child", Lie::RewrittenChild),
    ("swapped-child", Lie::SwappedChild),
    ("tail-payload", Lie::TailPayload),
    ("tail-gap", Lie::TailGap),
    ("tail-quant", Lie::TailQuant),
    ("tail-begin", Lie::TailBegin),
    ("tail-token", Lie::TailToken),
    ("tail-head", Lie::TailHead),
    ("tail-unsigned", Lie::TailUnsigned),
];

impl Lie {
    pub fn named(name: &str) -> Self {
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.unwrap_or_else(|| panic!("no lie is named {name}")).1
    }

    /// The chain that is told, by the chain that was asked for.
    pub fn source(self, name: &str) -> &str {
        match self {
            Self::OtherChain => "b",
            Self::SwappedChild => "s/1",
            _ => name,
        }
    }

    /// Whether the truth is told about a chain.
    pub fn spares(self, name: &str) -> bool {
        match self {
            Self::HiddenChild => name != "s/1",
            Self::LateChild => !["s", "s/0"].contains(&name),
            Self::OldChild | Self::RewrittenChild | Self::SwappedChild => name != "s/0",
            _ => false,
        }
    }

    /// Makes the ledger say it; what lies only in an answer is left to the answer.
    pub fn bend(self, ledger: &mut Ledger) {
        match self {
            Self::RewrittenHistory | Self::RewrittenChild => rewrite(ledger),
            Self::SwappedPayloads => {
                swap(ledger);
                ledger.show_anew();
            }
            Self::PayloadBesideEnvelope => swap(ledger),
            Self::OldHead | Self::OldChild => ledger.forget_after(ledger.top() - 1),
            Self::UncertifiedKey => certify_oneself(ledger),
            Self::OtherKey => ledger.signer.key = SigningKey::from_seed([9; 32]),
            Self::Dropped => drop_receipted(ledger),
            Self::LateChild if ledger.transactions[0].r#type == u32::from(TYPE_CLAIM) => {
                ledger.drop_transaction(0);
            }
            Self::ForkAsParent => ledger.fork_after(2),
            Self::ForkWithParentsGenesis => {
                ledger.fork_after(2);
                ledger.first_shown = 0;
            }
            Self::InventedPast => {
                rewrite(ledger);
                ledger.fork_after(2);
            }
            Self::ForkInside => fork_inside(ledger),
            Self::Equivocation => {
                let top = ledger.top();
                ledger.headers[top].time_ms += 1;
            }
            _ => {}
        }
    }
}

pub fn rewrite(ledger: &mut Ledger) {
    ledger.transactions[1].payload = Bytes::from_static(b"rewritten");
    ledger.reseal(1);
}

fn swap(ledger: &mut Ledger) {
    let one = ledger.transactions[1].payload.clone();
    let other = std::mem::replace(&mut ledger.transactions[2].payload, one);
    ledger.transactions[1].payload = other;
}

fn certify_oneself(ledger: &mut Ledger) {
    let root = SigningKey::from_seed([8; 32]);
    let signer = &mut ledger.signer;
    signer.key = SigningKey::from_seed([9; 32]);
    signer.certificate.public_key = signer.key.public().to_vec();
    let signature = root.sign(&signer.certificate.message());
    signer.certificate.signatures = vec![(0, signature)];
}

fn drop_receipted(ledger: &mut Ledger) {
    while let Some(index) = ledger
        .transactions
        .iter()
        .position(|given| given.payload == DROPPED)
    {
        ledger.drop_transaction(index);
    }
}

fn fork_inside(ledger: &mut Ledger) {
    ledger.fork_after(2);
    let border = ledger.first;
    ledger.first = 0;
    ledger.first_shown = 0;
    ledger.reseal(border + 1);
}
