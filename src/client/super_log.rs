//! The one value for every chain of a cluster, and proofs into it.
use crate::{
    chain::{
        Checkpoint, GroupLeaf, HeadSignature, LogEvidence, Proof, Refused, Verdict,
        verify_checkpoint_signatures,
    },
    client::{
        Client, ClientError, Trusted, convert,
        convert::bad,
        prove::{check_erased, check_index, inclusion_proof, say_erased, verify_anchored},
    },
    proto,
};

/// The super log as a node signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterHead {
    /// Cluster, size, root.
    pub checkpoint: Checkpoint,
    /// The node's signatures, one per algorithm.
    pub signatures: Vec<HeadSignature>,
    /// The same as a signed note of C2SP.
    pub note: String,
    /// The key that verifies the note.
    pub vkey: String,
    /// A trusted chain of the cluster whose authority certified the node; none where this client knows no chain of it.
    pub certified_by: Option<Trusted>,
}

impl Client {
    /// The newest checkpoint of the super log. Its signatures are checked where a chain of the cluster is trusted.
    pub async fn cluster_head(&self) -> Result<ClusterHead, ClientError> {
        let get = |r| async { self.proofs.clone().get_checkpoint(r).await };
        let answer = self
            .call(proto::GetCheckpointRequest::default(), get)
            .await?;
        let (checkpoint, signatures) = checkpoint(&answer)?;
        if signatures.is_empty() || !answer.note.starts_with(&checkpoint.text()) {
            return Err(bad("the checkpoint is not signed, or its note is of another one").into());
        }
        let trusted = self.heads.all()?.into_iter();
        let mut of_cluster =
            trusted.filter(|one| one.constitution.cluster_id == checkpoint.cluster_id);
        let certified_by = of_cluster.next();
        if let Some(trusted) = &certified_by {
            verify_checkpoint_signatures(&signatures, &checkpoint, &trusted.authority)?;
        }
        Ok(ClusterHead {
            checkpoint,
            signatures,
            note: answer.note,
            vkey: answer.vkey,
            certified_by,
        })
    }

    /// Proves a sealed transaction into the super log: the head that holds it was there, under a signed checkpoint.
    pub async fn prove_logged(
        &self,
        trusted: &Trusted,
        index: u64,
    ) -> Result<(Proof, Verdict), ClientError> {
        let request = proto::ProveLoggedRequest {
            chain: trusted.name().to_owned(),
            index,
            without_payload: false,
        };
        let prove = |r| async { self.proofs.clone().prove_logged(r).await };
        let mut answer = self.call(request, prove).await?;
        let log = log(&answer)?;
        let inclusion = answer.inclusion.take();
        let inclusion = inclusion.ok_or_else(|| bad("the inclusion is missing in the answer"))?;
        let erasure = inclusion.erasure.clone();
        let (mut proof, _) = inclusion_proof(inclusion)?;
        proof.log = Some(log);
        let mut verdict = verify_anchored(&proof, trusted, self.config.require)?;
        check_index(&verdict, index)?;
        if let Some(erased) = check_erased(trusted, &verdict, erasure.as_ref())? {
            verdict.steps.push(say_erased(&erased));
        }
        self.check_tied(trusted, &verdict.head).await?;
        Ok((proof, verdict))
    }
}

fn checkpoint(
    answer: &proto::GetCheckpointResponse,
) -> Result<(Checkpoint, Vec<HeadSignature>), Refused> {
    let cluster_id = answer.cluster_id.as_ref().try_into();
    let checkpoint = Checkpoint {
        cluster_id: cluster_id.map_err(|_| bad("cluster_id of a checkpoint is not 16 bytes"))?,
        size: answer.size,
        root: convert::hash(&answer.root, "root of a checkpoint")?,
    };
    Ok((checkpoint, convert::signatures(&answer.signatures)?))
}

fn log(answer: &proto::ProveLoggedResponse) -> Result<LogEvidence, Refused> {
    let signed = answer.checkpoint.as_ref();
    let signed = signed.ok_or_else(|| bad("the checkpoint is missing in the answer"))?;
    let (checkpoint, signatures) = checkpoint(signed)?;
    Ok(LogEvidence {
        group: GroupLeaf {
            group: answer.group,
            size: answer.size,
            root: convert::hash(&answer.root, "root of a group's log")?,
        },
        index: answer.index,
        path: convert::path(&answer.path)?,
        super_index: answer.super_index,
        super_path: convert::path(&answer.super_path)?,
        checkpoint,
        signatures,
    })
}
