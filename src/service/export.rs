//! Export: the download of a whole chain as one self-verifying file (docs/FORMAT.md, export file).

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    Pieces, Service,
    limits::{PIECE_BYTES, PIECES_WAITING, READER_PAUSE_MAX},
    status::{of_read, of_store},
};
use crate::chain::{
    EXPORT_ANCHORS, EXPORT_END, EXPORT_QUANT, EXPORT_SIGNATURE, EXPORT_TRANSACTION, HeadSignature,
    Header, export_frame, export_magic,
};
use crate::proto;

/// Where an export stands: all up to a head (of a quorum chain the newest final one) that was fixed, and signed, when it
/// began.
struct Progress {
    chain: String,
    replica: u64,
    top: u64,
    height: u64,
    /// The Quant whose transactions are being written.
    quant: Option<Header>,
    next_index: u64,
    /// Of the top, of as many nodes as signed.
    signatures: Vec<Vec<u8>>,
}

impl Service {
    pub(super) async fn do_export(
        &self,
        request: &proto::ExportRequest,
    ) -> Result<Pieces<proto::ExportResponse>, Status> {
        let (replica, head, stored) = {
            let reads = self.reads(&request.chain)?;
            let top = reads.newest()?;
            let row = reads.reader().quant(&reads.chain, top);
            let row = row.map_err(|error| of_read(&error))?;
            let head = row.parse().map_err(|error| of_store(&error))?;
            (reads.replica, head, reads.signatures(top)?)
        };
        let place = self.reader_place()?;
        let signatures = match stored {
            Some(stored) => stored,
            None => self.sign(&request.chain, &head).await?,
        };
        let signatures = signatures.iter().map(HeadSignature::to_bytes).collect();
        let progress = Progress {
            chain: request.chain.clone(),
            replica,
            top: head.height,
            height: 0,
            quant: None,
            next_index: 0,
            signatures,
        };
        let (pieces, out) = mpsc::channel(PIECES_WAITING);
        let export = self.clone().export_all(progress, pieces);
        tokio::spawn(async move {
            export.await;
            drop(place);
        });
        Ok(ReceiverStream::new(out))
    }

    async fn export_all(
        self,
        mut progress: Progress,
        pieces: mpsc::Sender<Result<proto::ExportResponse, Status>>,
    ) {
        let mut data = export_magic().to_vec();
        loop {
            // A reader that takes nothing for so long gives its place to others.
            let Ok(Ok(room)) = timeout(READER_PAUSE_MAX, pieces.reserve()).await else {
                return;
            };
            let piece = tokio::task::block_in_place(|| self.export_piece(&mut progress, &mut data));
            let last = piece.as_ref().map_or(true, |more| !more);
            room.send(piece.map(|_| proto::ExportResponse {
                data: Bytes::from(std::mem::take(&mut data)),
            }));
            if last {
                return;
            }
        }
    }

    /// Fills a piece; false when the file is whole.
    fn export_piece(&self, progress: &mut Progress, data: &mut Vec<u8>) -> Result<bool, Status> {
        while data.len() < PIECE_BYTES {
            match progress.quant.take() {
                Some(quant) if progress.next_index < quant.tx_end() => {
                    self.export_transactions(progress, &quant, data)?;
                    progress.quant = Some(quant);
                }
                _ if progress.height <= progress.top => self.export_quant(progress, data)?,
                _ => {
                    for signature in &progress.signatures {
                        data.extend_from_slice(&export_frame(EXPORT_SIGNATURE, &[signature]));
                    }
                    let (quants, transactions) = (progress.top + 1, progress.next_index);
                    data.extend_from_slice(&export_frame(
                        EXPORT_END,
                        &[&quants.to_be_bytes(), &transactions.to_be_bytes()],
                    ));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn export_quant(&self, progress: &mut Progress, data: &mut Vec<u8>) -> Result<(), Status> {
        let reads = self.reads_on(&progress.chain, progress.replica)?;
        let row = reads
            .reader()
            .quant(&reads.chain, progress.height)
            .map_err(|error| of_read(&error))?;
        data.extend_from_slice(&export_frame(EXPORT_QUANT, &[&row.header, &row.meta]));
        if !row.anchors.is_empty() {
            data.extend_from_slice(&export_frame(EXPORT_ANCHORS, &[&row.anchors]));
        }
        progress.quant = Some(row.parse().map_err(|error| of_store(&error))?);
        progress.height += 1;
        Ok(())
    }

    fn export_transactions(
        &self,
        progress: &mut Progress,
        quant: &Header,
        data: &mut Vec<u8>,
    ) -> Result<(), Status> {
        let reads = self.reads_on(&progress.chain, progress.replica)?;
        let found = reads.reader().transactions(
            &reads.chain,
            progress.next_index,
            quant.tx_end(),
            PIECE_BYTES,
        );
        for view in found.map_err(|error| of_read(&error))? {
            let row = view.row().map_err(|error| of_store(&error))?;
            let envelope = row
                .envelope(reads.known.alg, reads.known.chain_id, view.index)
                .to_bytes();
            let length = (row.attributes.len() as u32).to_be_bytes();
            let salt = row.salt.map_or(&[][..], |salt| salt);
            data.extend_from_slice(&export_frame(
                EXPORT_TRANSACTION,
                &[&envelope, &length, row.attributes, salt, row.payload],
            ));
            progress.next_index += 1;
        }
        Ok(())
    }
}
