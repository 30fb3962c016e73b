//! The signed checkpoint of the super log, under its guard: never two roots for one size, only what grew out of the newest
//! one that this node signed, and the guard is on disk before the signature leaves.

use tonic::Status;

use super::{
    Service, convert,
    route::elsewhere,
    status::{of_read, of_store, status},
};
use crate::chain::{ChainId, Checkpoint, HashAlg, HeadSignature};
use crate::engine::{META_GROUP, Reader};
use crate::proto;
use crate::store::{Cf, GuardRow, StoreError, View, guard_key};

/// A checkpoint with what this node says of it.
pub struct Signed {
    pub checkpoint: Checkpoint,
    signatures: Vec<HeadSignature>,
    note: String,
    vkey: String,
}

impl Signed {
    pub fn message(&self) -> proto::GetCheckpointResponse {
        proto::GetCheckpointResponse {
            cluster_id: self.checkpoint.cluster_id.to_vec().into(),
            size: self.checkpoint.size,
            root: self.checkpoint.root.to_vec().into(),
            signatures: self.signatures.iter().map(convert::signature).collect(),
            note: self.note.clone(),
            vkey: self.vkey.clone(),
            growth: Vec::new(),
        }
    }
}

impl Service {
    /// The super log as this node's replica of the meta group has it, signed.
    pub(super) async fn signed_checkpoint(&self) -> Result<Signed, Status> {
        let _turn = self.signer.checkpoints.lock().await;
        let checkpoint = self.checkpoint()?;
        let guard = ChainId(HashAlg::Sha2_256.hash(&[checkpoint.origin().as_bytes()]));
        if let Some(row) = self.moved_checkpoint_guard(&guard, &checkpoint)? {
            let written = self.groups.write_guard(guard, row).await;
            written.map_err(|error| {
                let why = format!("the guard can't be written: {error}");
                status("NODE_UNAVAILABLE", why, &[])
            })?;
        }
        let (signatures, note, vkey) = self.signer.checkpoint(&checkpoint)?;
        Ok(Signed {
            checkpoint,
            signatures,
            note,
            vkey,
        })
    }

    fn checkpoint(&self) -> Result<Checkpoint, Status> {
        let cluster = self.groups.cluster();
        let founded = cluster.founded.as_ref().ok_or_else(elsewhere)?;
        let snapshot = self.groups.store().snapshot();
        let log = Reader::new(&snapshot, self.meta_slot()?).log();
        let log = log.map_err(|error| of_store(&error))?;
        Ok(Checkpoint {
            cluster_id: founded.cluster_id,
            size: log.size(),
            root: log.root(crate::chain::SUPER_LOG_ALG),
        })
    }

    /// Where this node's replica of the meta group lies.
    pub(super) fn meta_slot(&self) -> Result<crate::store::Slot, Status> {
        let group = self.groups.get(META_GROUP).ok_or_else(elsewhere)?;
        Ok(group.engine().slot())
    }

    /// The guard that must be on disk first; none where the present one is of this very checkpoint.
    fn moved_checkpoint_guard(
        &self,
        id: &ChainId,
        checkpoint: &Checkpoint,
    ) -> Result<Option<GuardRow>, Status> {
        let new = GuardRow {
            height: checkpoint.size,
            quant_hash: checkpoint.root,
        };
        let row = self.groups.store().get(Cf::Sys, &guard_key(id));
        let row = row.map_err(|error| of_store(&error))?;
        // A guard that can't be read is not "no guard": signing anew could contradict it.
        let guard = row.map(|row| GuardRow::decode(&row).ok_or_else(|| StoreError::row("sys")));
        let guard = guard.transpose().map_err(|error| of_store(&error))?;
        let Some(guard) = guard else {
            return Ok(Some(new));
        };
        if guard.height > checkpoint.size {
            // What this node signed is in its log for good; this replica has yet to take it.
            return Err(elsewhere());
        }
        let snapshot = self.groups.store().snapshot();
        let reader = Reader::new(&snapshot, self.meta_slot()?);
        let root = reader.log_root(guard.height);
        if root.map_err(|error| of_read(&error.into()))? != guard.quant_hash {
            let why = format!(
                "this node signed another root for the first {} leaves of the log of all chains; nothing of it is signed here until this is cleared up",
                guard.height
            );
            return Err(status("CHAIN_DAMAGED", why, &[]));
        }
        Ok((guard != new).then_some(new))
    }
}
