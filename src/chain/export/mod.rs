//! The export file: a whole chain as one self-verifying stream of bytes, and the audit that checks it.
//!
//! Magic, then frames `kind u8 | length u32 | body`. The verifier takes the bytes in any pieces and holds one frame and
//! the leaf hashes of one Quant.

mod audit;
mod state;
mod subchain;

pub use self::audit::{Audited, Auditor};

use crate::chain::authority::HeadSignature;
use crate::chain::hash::Hash;
use crate::chain::id::ChainId;
use crate::chain::proof::{Anchored, Trust, anchor};
use crate::chain::quant::{HEADER_BYTES, Header};
use crate::chain::refused::Refused;
use crate::chain::sig_alg::SigAlgs;
use crate::chain::transaction::{ENVELOPE_BYTES, Envelope};

/// Frame of a Quant: header, meta.
pub const EXPORT_QUANT: u8 = 1;
/// Frame of a transaction of the last Quant: envelope, attributes length u32, attributes, salt where the envelope is
/// salted, payload. An erased one ends after its attributes.
pub const EXPORT_TRANSACTION: u8 = 2;
/// Frame of a head signature on the last Quant.
pub const EXPORT_SIGNATURE: u8 = 3;
/// Frame at the end: number of Quants u64, number of transactions u64.
pub const EXPORT_END: u8 = 4;
/// Frame of the anchors of the last Quant: its anchor leaves, right after it; only where it has some.
pub const EXPORT_ANCHORS: u8 = 5;
/// Largest body of a frame: what a verifier must be ready to hold.
pub const EXPORT_FRAME_BYTES_MAX: usize = 64 << 20;

const MAGIC: &[u8; 8] = b"QBCEXP1\n";
const FRAME_HEAD_BYTES: usize = 5;

/// The first eight bytes of an export file.
pub fn export_magic() -> &'static [u8; 8] {
    MAGIC
}

/// One frame: the parts are its body.
pub fn export_frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + length);
    frame.push(kind);
    frame.extend_from_slice(&(length as u32).to_be_bytes());
    for part in parts {
        frame.extend_from_slice(part);
    }
    frame
}

/// What a verified export shows.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportVerdict {
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
    /// How many of them carry an author's signature; each was checked.
    pub signed: u64,
    /// How many of them changed the constitution.
    pub changes: u64,
    /// How many of them came without a payload.
    pub erased: u64,
    /// Of those, how many have no tombstone up to the head: it is younger, or the payload was left out.
    pub unexplained: u64,
    /// Whether something that the caller trusts holds the head.
    pub anchored: Anchored,
    /// One sentence per thing that was checked.
    pub steps: Vec<String>,
}

/// Audits an export file as it arrives.
pub struct ExportVerifier {
    trust: Vec<Trust>,
    auditor: Auditor,
    /// Bytes of a frame that is not complete yet.
    buffer: Vec<u8>,
    magic_seen: bool,
    quants: u64,
    transactions: u64,
    ended: bool,
    /// The first refusal: nothing that follows it can mend the file.
    refused: Option<Refused>,
}

impl ExportVerifier {
    /// A verifier that has seen nothing yet.
    pub fn new(trust: Vec<Trust>) -> Self {
        Self {
            trust,
            auditor: Auditor::new(),
            buffer: Vec::new(),
            magic_seen: false,
            quants: 0,
            transactions: 0,
            ended: false,
            refused: None,
        }
    }

    /// The same, and as many nodes as the constitution asks for signed the last header with each of these algorithms; else
    /// the file is refused at its end ("signature-required").
    #[must_use]
    pub fn requiring(mut self, required: SigAlgs) -> Self {
        self.auditor.require(required);
        self
    }

    /// The next bytes of the file, in pieces of any size.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        let result = self.take(bytes);
        if let Err(refused) = &result {
            self.refused = Some(refused.clone());
        }
        result
    }

    /// The end of the file.
    pub fn finish(self) -> Result<ExportVerdict, Refused> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        if !self.ended || !self.buffer.is_empty() {
            return Err(Refused::new(
                "export-end",
                "the file is cut: it has no end frame, download it again",
            ));
        }
        let audited = self.auditor.finish()?;
        let mut steps = audited.steps;
        let anchored = anchor(&self.trust, &audited.head, &audited.nodes, &mut steps);
        Ok(ExportVerdict {
            chain_id: audited.chain_id,
            name: audited.name,
            head: audited.head,
            head_hash: audited.head_hash,
            quants: audited.quants,
            transactions: audited.transactions,
            signed: audited.signed,
            changes: audited.changes,
            erased: audited.erased,
            unexplained: audited.unexplained,
            anchored,
            steps,
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        let Some(mut rest) = self.take_magic(&buffer)? else {
            self.buffer = buffer;
            return Ok(());
        };
        while let Some((kind, body, tail)) = split_frame(rest)? {
            self.frame(kind, body)?;
            rest = tail;
        }
        if self.ended && !rest.is_empty() {
            return Err(after_end());
        }
        let done = buffer.len() - rest.len();
        buffer.drain(..done);
        self.buffer = buffer;
        Ok(())
    }

    /// What follows the magic, once all of it is there.
    fn take_magic<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Refused> {
        if self.magic_seen {
            return Ok(Some(bytes));
        }
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(Refused::new(
                "export-magic",
                "this is no QBC export file, or one of another version",
            ));
        }
        self.magic_seen = seen == MAGIC.len();
        Ok(self.magic_seen.then(|| &bytes[seen..]))
    }

    fn frame(&mut self, kind: u8, body: &[u8]) -> Result<(), Refused> {
        if self.ended {
            return Err(after_end());
        }
        match kind {
            EXPORT_QUANT => self.quant(body),
            EXPORT_ANCHORS => self.auditor.anchors(body),
            EXPORT_TRANSACTION => self.transaction(body),
            EXPORT_SIGNATURE => self.auditor.signature(&HeadSignature::parse(body)?),
            EXPORT_END => self.end(body),
            other => Err(Refused::new(
                "export-frame",
                format!("frames of kind {other} do not exist"),
            )),
        }
    }

    fn quant(&mut self, body: &[u8]) -> Result<(), Refused> {
        let (header, meta) = split(body, HEADER_BYTES)?;
        self.quants += 1;
        self.auditor.quant(header, meta)
    }

    fn transaction(&mut self, body: &[u8]) -> Result<(), Refused> {
        let (envelope, rest) = split(body, ENVELOPE_BYTES)?;
        let (length, rest) = split(rest, 4)?;
        let length = length.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
        let (attributes, rest) = split(rest, length)?;
        self.transactions += 1;
        let salted = Envelope::parse(envelope)?.salted;
        if !salted {
            return self
                .auditor
                .transaction(envelope, attributes, Some(rest), None);
        }
        if rest.is_empty() {
            return self.auditor.transaction(envelope, attributes, None, None);
        }
        let Some((salt, payload)) = rest.split_first_chunk::<32>() else {
            return Err(short(32, rest.len()));
        };
        self.auditor
            .transaction(envelope, attributes, Some(payload), Some(salt))
    }

    fn end(&mut self, body: &[u8]) -> Result<(), Refused> {
        self.ended = true;
        let counted = [self.quants.to_be_bytes(), self.transactions.to_be_bytes()].concat();
        if body == counted {
            return Ok(());
        }
        let why = format!(
            "the end frame counts otherwise than {} Quants, {} transactions",
            self.quants, self.transactions
        );
        Err(Refused::new("export-count", why))
    }
}

/// Kind and body of a frame, and the bytes after it.
type Frame<'a> = (u8, &'a [u8], &'a [u8]);

/// The first frame, once all of it is there.
fn split_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, Refused> {
    let Some(([kind, a, b, c, d], rest)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    if length > EXPORT_FRAME_BYTES_MAX {
        let why =
            format!("a frame of {length} bytes is over the limit of {EXPORT_FRAME_BYTES_MAX}");
        return Err(Refused::new("export-frame", why));
    }
    Ok(rest
        .split_at_checked(length)
        .map(|(body, tail)| (*kind, body, tail)))
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), Refused> {
    bytes
        .split_at_checked(at)
        .ok_or_else(|| short(at, bytes.len()))
}

fn short(needed: usize, left: usize) -> Refused {
    Refused::new(
        "export-frame",
        format!("a frame ends too early: {needed} bytes are needed, {left} are left"),
    )
}

fn after_end() -> Refused {
    Refused::new("export-end", "bytes follow after the end frame")
}
