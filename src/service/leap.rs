//! Leap and Close.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use super::{
    Service,
    catalog::{ChainReads, Known},
    convert,
    inject::check_request_id,
    route::Doing,
    status::{invalid, of_read, of_seal, of_store},
};
use crate::chain::{HeadSignature, Header};
use crate::consensus::Group;
use crate::engine::{NOTE_BYTES_MAX, Rejection, Sealed};
use crate::proto;
use crate::seal::{SealError, SealRequest};
use crate::store::{ChainNo, QuantRow};

/// So long before its caller stops waiting a leap that is mined, or not final yet, answers how far it is: the answer may
/// have to travel over another node.
const TOLD_BEFORE: Duration = Duration::from_millis(250);

impl Service {
    pub(super) fn do_leap<'a>(
        &'a self,
        request: &'a proto::LeapRequest,
        until: Instant,
    ) -> Doing<'a, proto::LeapResponse> {
        Box::pin(async move {
            let expected_head = convert::optional_hash("expected_head", &request.expected_head)?;
            let seal = seal_request(&request.note, &request.request_id, expected_head, false)?;
            let known = self.known_at_leader(&request.chain).await?;
            if self.is_split(&known)? {
                return self.leap_below(&known, request, until).await;
            }
            let (head, duplicate) = self.seal(&known, &request.chain, seal, until).await?;
            Ok(proto::LeapResponse {
                head: Some(head),
                duplicate,
            })
        })
    }

    pub(super) async fn do_close(
        &self,
        request: &proto::CloseRequest,
        until: Instant,
    ) -> Result<proto::CloseResponse, Status> {
        let seal = seal_request(&request.note, &request.request_id, None, true)?;
        let known = self.known_at_leader(&request.chain).await?;
        let (head, duplicate) = self.seal(&known, &request.chain, seal, until).await?;
        Ok(proto::CloseResponse {
            head: Some(head),
            duplicate,
        })
    }

    async fn seal(
        &self,
        known: &Known,
        chain: &str,
        request: SealRequest,
        until: Instant,
    ) -> Result<(proto::Head, bool), Status> {
        let group = self.catalog.group(known)?;
        let until = told_until(until);
        let sealed = self.sealer.seal(&group, known.no, &request, until).await;
        let Sealed {
            header, duplicate, ..
        } = sealed.map_err(|error| of_seal(&error))?;
        self.until_final(chain, header.height, until).await?;
        Ok((
            self.signed_head(chain, Some(header.height)).await?,
            duplicate,
        ))
    }

    /// Seals a pool for work of many steps; another one may have done it, and what is mined goes on.
    pub(super) async fn seal_pool(
        &self,
        group: &Group,
        no: ChainNo,
        within: Duration,
    ) -> Result<(), Status> {
        let until = Instant::now() + within;
        let asked = SealRequest::default();
        match self.sealer.seal(group, no, &asked, until).await {
            Ok(_)
            | Err(
                SealError::Mining(_)
                | SealError::Rejected(Rejection::NothingToSeal(_) | Rejection::HeadMoved { .. }),
            ) => Ok(()),
            Err(error) => Err(of_seal(&error)),
        }
    }

    /// A height of a chain (none: the newest, of a quorum chain the newest final one) with its signatures: this node's,
    /// made now; of a quorum chain those that stand.
    pub(super) async fn signed_head(
        &self,
        chain: &str,
        height: Option<u64>,
    ) -> Result<proto::Head, Status> {
        let unsigned = {
            let reads = self.reads(chain)?;
            let height = height.map_or_else(|| reads.newest(), Ok)?;
            UnsignedHead::of(&reads, height)?
        };
        self.sign_head(chain, unsigned).await
    }

    /// The same of a height that is read already.
    pub(super) async fn sign_head(
        &self,
        chain: &str,
        unsigned: UnsignedHead,
    ) -> Result<proto::Head, Status> {
        let UnsignedHead {
            header,
            row,
            stored,
            quorum,
        } = unsigned;
        let signatures = match stored {
            Some(stored) => stored,
            None => self.sign(chain, &header).await?,
        };
        Ok(proto::Head {
            quant: Some(convert::quant_of(&header, row)),
            signatures: signatures.iter().map(convert::signature).collect(),
            quorum: quorum as u32,
        })
    }
}

/// A height of a chain as it was read, before this node signs it.
pub(super) struct UnsignedHead {
    header: Header,
    row: QuantRow,
    /// Of a quorum chain those that stand.
    stored: Option<Vec<HeadSignature>>,
    quorum: usize,
}

impl UnsignedHead {
    pub fn of(reads: &ChainReads<'_>, height: u64) -> Result<Self, Status> {
        let row = reads
            .reader()
            .quant(&reads.chain, height)
            .map_err(|error| of_read(&error))?;
        Ok(Self {
            header: row.parse().map_err(|error| of_store(&error))?,
            row,
            stored: reads.signatures(height)?,
            quorum: reads.known.signers,
        })
    }
}

/// When a caller is told how far the miner or the quorum is, so that the word still reaches it.
pub(super) fn told_until(until: Instant) -> Instant {
    let left = until.saturating_duration_since(Instant::now());
    Instant::now() + left - TOLD_BEFORE.min(left / 4)
}

pub(super) fn seal_request(
    note: &[u8],
    request_id: &str,
    expected_head: Option<crate::chain::Hash>,
    is_final: bool,
) -> Result<SealRequest, Status> {
    check_request_id(request_id)?;
    if note.len() > NOTE_BYTES_MAX {
        return Err(invalid(
            "note",
            format!("it has {} bytes, give at most {NOTE_BYTES_MAX}", note.len()),
        ));
    }
    Ok(SealRequest {
        note: note.to_vec(),
        request_id: request_id.as_bytes().to_vec(),
        expected_head,
        is_final,
        anchors: Vec::new(),
    })
}
