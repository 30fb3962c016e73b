//! A whole chain as one file: verified while it passes through.
use bytes::Bytes;
use tonic::Streaming;

use crate::{
    chain::{Anchored, ExportVerdict, ExportVerifier, Trust},
    client::{Client, ClientError, Trusted},
    proto,
};

/// The pieces of an export. Nothing is proved before [`ExportStream::finish`] says so.
pub struct ExportStream<'a> {
    client: &'a Client,
    trusted: &'a Trusted,
    stream: Streaming<proto::ExportResponse>,
    verifier: ExportVerifier,
}

impl Client {
    /// Begins to download a chain.
    pub async fn export<'a>(
        &'a self,
        trusted: &'a Trusted,
    ) -> Result<ExportStream<'a>, ClientError> {
        let request = proto::ExportRequest {
            any_replica: false,
            chain: trusted.name().to_owned(),
        };
        let mut chains = self.chains.clone();
        let stream = self.in_time(chains.export(request)).await?.into_inner();
        let trust = vec![Trust::Head(trusted.hash), Trust::Chain(trusted.chain_id)];
        Ok(ExportStream {
            client: self,
            trusted,
            stream,
            verifier: ExportVerifier::new(trust).requiring(self.config.require),
        })
    }
}

impl ExportStream<'_> {
    /// The next piece, in which no fault was found so far.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        let Some(piece) = self.client.in_time(self.stream.message()).await? else {
            return Ok(None);
        };
        self.verifier.push(&piece.data)?;
        Ok(Some(piece.data))
    }

    /// The verdict over all pieces: whole, and at or after the trusted head of the same history.
    pub async fn finish(self) -> Result<ExportVerdict, ClientError> {
        let verdict = self.verifier.finish()?;
        if verdict.chain_id != self.trusted.chain_id || verdict.anchored == Anchored::No {
            let why = verdict.steps.last().cloned().unwrap_or_default();
            return Err(ClientError::refused("not-anchored", why));
        }
        if verdict.head_hash == self.trusted.hash {
            return Ok(verdict);
        }
        if verdict.head.height < self.trusted.header.height {
            let why = format!(
                "the export ends at height {}, the trusted head is {}",
                verdict.head.height, self.trusted.header.height
            );
            return Err(ClientError::refused("head-went-back", why));
        }
        let name = self.trusted.name();
        self.client
            .settle_header(name, &verdict.head, false)
            .await?;
        Ok(verdict)
    }
}
