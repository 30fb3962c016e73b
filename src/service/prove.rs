//! ProveInclusion, ProveState, ProveExtension, GetBundle.

use std::time::Instant;

use bytes::Bytes;
use tonic::Status;

use super::{
    Service,
    catalog::ChainReads,
    convert,
    convert::paths,
    history,
    leap::UnsignedHead,
    status::{invalid, of_read, of_store, status},
};
use crate::chain::{StateTerminal, StateTree, latest_index, state_key_hash};
use crate::engine::ChainView;
use crate::proto::{self, prove_state_request::Subject};
use crate::telemetry::counts;

impl Service {
    pub(super) async fn do_prove_inclusion(
        &self,
        request: &proto::ProveInclusionRequest,
    ) -> Result<proto::ProveInclusionResponse, Status> {
        let begun = Instant::now();
        let (mut response, head) = {
            let reads = self.reads(&request.chain)?;
            let (response, height) = inclusion(&reads, request)?;
            (response, UnsignedHead::of(&reads, height)?)
        };
        response.head = Some(self.sign_head(&request.chain, head).await?);
        let seconds = begun.elapsed().as_secs_f64();
        counts().proof_seconds.observe(seconds);
        Ok(response)
    }

    pub(super) async fn do_prove_state(
        &self,
        request: &proto::ProveStateRequest,
    ) -> Result<proto::ProveStateResponse, Status> {
        let (mut response, height, latest) = self.state_proof(request)?;
        let head = self.signed_head(&request.chain, Some(height)).await?;
        if let Some(index) = latest {
            let request = proto::ProveInclusionRequest {
                chain: request.chain.clone(),
                index,
                at_height: Some(height),
                without_payload: request.without_payload,
            };
            let (mut latest, _) = inclusion(&self.reads(&request.chain)?, &request)?;
            latest.head = Some(head.clone());
            response.latest = Some(latest);
        }
        response.head = Some(head);
        Ok(response)
    }

    /// The proof, its height, and of a key the index that it holds.
    fn state_proof(
        &self,
        request: &proto::ProveStateRequest,
    ) -> Result<(proto::ProveStateResponse, u64, Option<u64>), Status> {
        let reads = self.reads(&request.chain)?;
        let (reader, chain) = (reads.reader(), &reads.chain);
        let (state_key, keyed) = match &request.subject {
            Some(Subject::Key(key)) => (history::keyed(&reads.known, key)?, true),
            Some(Subject::Account(account)) => (history::account_of(&reads.known, account)?, false),
            None => return Err(history::subject_missing()),
        };
        let height = request.at_height.map_or_else(|| reads.newest(), Ok)?;
        reader
            .quant(chain, height)
            .map_err(|error| of_read(&error))?;
        check_own(chain, "at_height", height)?;
        // A fork begins with the state of its parent, a chain that was banged with none.
        if height == 0 {
            let why = "a genesis has no state: give 1 or more, or leap first";
            return Err(invalid("at_height", why));
        }
        let rows = reader.state(chain, height);
        let tree = StateTree {
            alg: reads.known.alg,
            rows: &rows,
        };
        let proof = tree
            .prove(&state_key_hash(reads.known.alg, &state_key))
            .map_err(|error| of_store(&error.into()))?;
        let latest = match &proof.terminal {
            StateTerminal::Own(value) if keyed => Some(latest_index(value)),
            _ => None,
        };
        let latest = latest
            .transpose()
            .map_err(|refused| status("CHAIN_DAMAGED", refused.to_string(), &[]))?;
        let genesis = reader.genesis(chain).map_err(|error| of_read(&error))?;
        let response = proto::ProveStateResponse {
            state_key: state_key.into(),
            proof: proof.to_bytes().into(),
            genesis: Some(convert::quant(genesis)?),
            head: None,
            latest: None,
        };
        Ok((response, height, latest))
    }

    pub(super) async fn do_prove_extension(
        &self,
        request: &proto::ProveExtensionRequest,
    ) -> Result<proto::ProveExtensionResponse, Status> {
        let (mut response, height) = self.extension(request)?;
        response.head = Some(self.signed_head(&request.chain, Some(height)).await?);
        Ok(response)
    }

    fn extension(
        &self,
        request: &proto::ProveExtensionRequest,
    ) -> Result<(proto::ProveExtensionResponse, u64), Status> {
        let reads = self.reads(&request.chain)?;
        let (reader, chain) = (reads.reader(), &reads.chain);
        let to = request.to_height.map_or_else(|| reads.newest(), Ok)?;
        let old = reader
            .quant(chain, request.from_height)
            .map_err(|error| of_read(&error))?;
        reader.quant(chain, to).map_err(|error| of_read(&error))?;
        check_own(chain, "from_height", request.from_height)?;
        if to < request.from_height {
            return Err(invalid(
                "to_height",
                format!(
                    "{to} is before from_height {}; give a later height or none",
                    request.from_height
                ),
            ));
        }
        let path = if to > request.from_height {
            reader
                .history_path(chain, request.from_height, to)
                .map_err(|error| of_read(&error))?
        } else {
            Vec::new()
        };
        let genesis = convert::quant(reader.genesis(chain).map_err(|error| of_read(&error))?)?;
        Ok((
            proto::ProveExtensionResponse {
                old_header: old.header.into(),
                path: paths(path),
                head: None,
                genesis: Some(genesis),
            },
            to,
        ))
    }

    pub(super) async fn do_get_bundle(
        &self,
        request: &proto::GetBundleRequest,
    ) -> Result<proto::GetBundleResponse, Status> {
        let (peaks, genesis, height, borders) = {
            let reads = self.reads(&request.chain)?;
            let genesis = reads
                .reader()
                .genesis(&reads.chain)
                .map_err(|error| of_read(&error))?;
            let height = reads.newest()?;
            let peaks = reads.reader().peaks(&reads.chain, height);
            (
                peaks.map_err(|error| of_read(&error))?,
                convert::quant(genesis)?,
                height,
                borders(&reads)?,
            )
        };
        let head = self.signed_head(&request.chain, Some(height)).await?;
        // Authority changes are not part of this version: no Quant carries one.
        Ok(proto::GetBundleResponse {
            head: Some(head),
            peaks: paths(peaks),
            genesis: Some(genesis),
            authority_changes: Vec::new(),
            borders,
        })
    }
}

/// A proof of inclusion without its head, and the height that it leads to.
fn inclusion(
    reads: &ChainReads<'_>,
    request: &proto::ProveInclusionRequest,
) -> Result<(proto::ProveInclusionResponse, u64), Status> {
    let (reader, chain) = (reads.reader(), &reads.chain);
    let top = request.at_height.map_or_else(|| reads.newest(), Ok)?;
    if top != chain.head.height {
        reader.quant(chain, top).map_err(|error| of_read(&error))?;
    }
    check_own(chain, "at_height", top)?;
    let view = reader
        .transaction(chain, request.index)
        .map_err(|error| of_read(&error))?;
    let quant = reader
        .height_of(chain, request.index, top)
        .map_err(|error| of_read(&error))?;
    let header = quant.parse().map_err(|error| of_store(&error))?;
    let row = view.row().map_err(|error| of_store(&error))?;
    let history = if header.height < top {
        reader
            .history_path(chain, header.height, top)
            .map_err(|error| of_read(&error))?
    } else {
        Vec::new()
    };
    let response = proto::ProveInclusionResponse {
        envelope: Bytes::copy_from_slice(
            &row.envelope(
                reads.known.alg,
                chain.lineage.at_index(request.index).1,
                request.index,
            )
            .to_bytes(),
        ),
        attributes: Bytes::copy_from_slice(row.attributes),
        payload: (!request.without_payload && row.erased.is_none())
            .then(|| Bytes::copy_from_slice(row.payload)),
        salt: Bytes::copy_from_slice(row.salt.map_or(&[][..], |salt| salt)),
        tx_path: paths(
            reader
                .tx_path(chain, &header, request.index)
                .map_err(|error| of_read(&error))?,
        ),
        header: quant.header.into(),
        history_path: paths(history),
        head: None,
        erasure: convert::erasure(reads, &view)?,
        genesis: Some(reads.genesis()?),
        borders: borders(reads)?,
    };
    Ok((response, top))
}

/// What lies below a fork is signed and extended in the chain that owns it.
fn check_own(chain: &ChainView, field: &str, height: u64) -> Result<(), Status> {
    let first = chain.lineage.first_height();
    if height >= first {
        return Ok(());
    }
    let why = format!(
        "{height} lies below the fork: chain {} has heads of its own from {first} on; give one of these, or ask the chain that it was forked from",
        chain.name
    );
    Err(invalid(field, why))
}

fn borders(reads: &ChainReads<'_>) -> Result<Vec<Bytes>, Status> {
    let found = reads.reader().borders(&reads.chain);
    let found = found.map_err(|error| of_read(&error))?;
    Ok(found.into_iter().map(Bytes::from).collect())
}
