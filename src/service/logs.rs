//! The logs of heads: this node has those of the groups that it leads take the heads that moved, reports the logs that grew
//! to the meta group, and answers what is asked of them. Where nothing moved nothing is proposed.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status};

use super::{
    Service,
    convert::paths,
    edge::Deadline,
    route::{Method, Route, elsewhere, of_propose, until},
    status::{invalid, of_read, of_store, status},
};
use crate::chain::{GroupLeaf, SigAlg, verify_ed25519};
use crate::consensus::Group;
use crate::engine::{META_GROUP, Outcome, Reader, Report, ReportItem, tick_command};
use crate::proto;

/// How long a report may take.
const REPORT_MAX: Duration = Duration::from_secs(5);
/// How long a proof waits for a head that moved just now.
const LOGGED_MAX: Duration = Duration::from_secs(10);
/// How often it looks.
const LOGGED_POLL: Duration = Duration::from_millis(100);
/// Leaves of one bundle of entries.
const TILE: u64 = 256;
/// Stands for the leaves in place of a level.
pub const ENTRIES: u32 = u32::MAX;

/// Logs that grew, on their way to the leader of the meta group: a [`Report`]'s bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutReports {
    #[prost(bytes = "bytes", tag = "1")]
    report: Bytes,
}

/// How many of them are new.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReportsPut {
    #[prost(uint64, tag = "1")]
    kept: u64,
}

/// Asks for a report of a group's log that has so many leaves.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetReported {
    #[prost(uint32, tag = "1")]
    group: u32,
    #[prost(uint64, tag = "2")]
    size: u64,
}

/// The report, proved into a checkpoint; without one there is none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReportedAt {
    #[prost(uint64, tag = "1")]
    size: u64,
    #[prost(bytes = "bytes", tag = "2")]
    root: Bytes,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    path: Vec<Bytes>,
    #[prost(message, optional, tag = "5")]
    checkpoint: Option<proto::GetCheckpointResponse>,
}

/// Asks for a tile of the super log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetTile {
    /// Its level, or [`ENTRIES`].
    #[prost(uint32, tag = "1")]
    level: u32,
    #[prost(uint64, tag = "2")]
    tile: u64,
    #[prost(uint32, tag = "3")]
    width: u32,
}

/// A tile as C2SP serves it; without bytes there is none of that width.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tile {
    #[prost(bytes = "bytes", optional, tag = "1")]
    bytes: Option<Bytes>,
}

/// The route of a call about the super log.
pub fn route(method: Method, deadline: Option<Deadline>) -> Route {
    Route {
        method,
        group: META_GROUP,
        until: until(deadline),
        repeatable: true,
    }
}

impl Service {
    /// Has heads taken and logs reported, so often, until `stop` says so.
    pub async fn keep_logs(self, every: Duration, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if let Err(error) = self.keep_once().await {
                let why = error.message();
                // No leader, or a node without its certificate yet: usual, and over soon.
                if error.code() == Code::Unavailable {
                    tracing::debug!(why, "the logs of heads wait");
                } else {
                    tracing::warn!(why, "the logs of heads can't be kept now");
                }
            }
            let _ = timeout(every, stop.changed()).await;
        }
    }

    async fn keep_once(&self) -> Result<(), Status> {
        let held = self.groups.held().into_iter();
        let led: Vec<Group> = held
            .filter(|group| group.id() != META_GROUP && group.leads())
            .collect();
        let ticks = led.iter().map(tick);
        for ticked in futures::future::join_all(ticks).await {
            if let Err(error) = ticked {
                tracing::debug!(why = error.message(), "a group's log of heads waits");
            }
        }
        let mut report = Report::default();
        for group in &led {
            report.items.extend(self.growth(group)?);
        }
        if report.items.is_empty() {
            return Ok(());
        }
        let put = PutReports {
            report: report.to_bytes().into(),
        };
        let route = Route {
            until: Instant::now() + REPORT_MAX,
            ..route(Method::PutReports, None)
        };
        let put = self.at_leader(route, &put, |service, request| {
            Box::pin(service.do_put_reports(request))
        });
        put.await.map(|_: ReportsPut| ())
    }

    /// What the meta group does not know yet of a group's log.
    fn growth(&self, group: &Group) -> Result<Option<ReportItem>, Status> {
        let id = group.id().0;
        let snapshot = self.groups.store().snapshot();
        let known = Reader::new(&snapshot, self.meta_slot()?).reported_last(id);
        let known = known.map_err(|error| of_store(&error))?;
        let reader = Reader::new(&snapshot, group.engine().slot());
        let log = reader.log().map_err(|error| of_store(&error))?;
        let known = known.map_or(0, |leaf| leaf.size);
        if log.size() <= known {
            return Ok(None);
        }
        let path = reader.log_growth(known, log.size());
        let leaf = GroupLeaf {
            group: id,
            size: log.size(),
            root: log.root(crate::chain::SUPER_LOG_ALG),
        };
        let cluster = self.groups.cluster();
        let founded = cluster.founded.as_ref().ok_or_else(elsewhere)?;
        let node_id = self.groups.node_id();
        let signature = self
            .signer
            .sign(&leaf.message(&founded.cluster_id, node_id));
        if signature.is_empty() {
            return Ok(None);
        }
        Ok(Some(ReportItem {
            leaf,
            node_id,
            signature,
            path: path.map_err(|error| of_read(&error.into()))?,
        }))
    }

    /// Takes reports that nodes bring to this one, which leads the meta group. What is not signed by who brings it is left
    /// out here, what does not continue the last report in apply.
    pub(super) async fn do_put_reports(&self, request: &PutReports) -> Result<ReportsPut, Status> {
        let group = self.groups.get(META_GROUP).ok_or_else(elsewhere)?;
        let Some(mut report) = Report::parse(&request.report) else {
            return Err(status("INTERNAL", "the reports can't be read", &[]));
        };
        report.items.retain(|item| self.is_signed(item));
        if report.items.is_empty() {
            return Ok(ReportsPut { kept: 0 });
        }
        let outcome = group.propose(report.encode()).await;
        match outcome.map_err(|error| of_propose(&error))? {
            Outcome::Logged(kept) => Ok(ReportsPut { kept }),
            _ => Err(status("INTERNAL", "the answer is not that of reports", &[])),
        }
    }

    fn is_signed(&self, item: &ReportItem) -> bool {
        let cluster = self.groups.cluster();
        let certificate = cluster.certificates.get(&item.node_id);
        let signed =
            cluster
                .founded
                .as_ref()
                .zip(certificate)
                .is_some_and(|(founded, certificate)| {
                    let message = item.leaf.message(&founded.cluster_id, item.node_id);
                    certificate.alg == SigAlg::Ed25519 as u8
                        && verify_ed25519(&certificate.public_key, &message, &item.signature)
                });
        if !signed {
            let (node, group) = (item.node_id, item.leaf.group);
            tracing::warn!(
                node,
                group,
                "a report of a log of heads is not signed by its node"
            );
        }
        signed
    }

    pub(super) async fn do_get_checkpoint(
        &self,
        request: &proto::GetCheckpointRequest,
    ) -> Result<proto::GetCheckpointResponse, Status> {
        let signed = self.signed_checkpoint().await?;
        let (from, size) = (request.from_size, signed.checkpoint.size);
        if from > size {
            let why = format!("the log has {size} leaves, fewer than {from}; give at most that");
            return Err(invalid("from_size", why));
        }
        let snapshot = self.groups.store().snapshot();
        let growth = Reader::new(&snapshot, self.meta_slot()?).log_growth(from, size);
        Ok(proto::GetCheckpointResponse {
            growth: paths(growth.map_err(|error| of_read(&error.into()))?),
            ..signed.message()
        })
    }

    pub(super) async fn do_get_reported(
        &self,
        request: &GetReported,
    ) -> Result<ReportedAt, Status> {
        let signed = self.signed_checkpoint().await?;
        let snapshot = self.groups.store().snapshot();
        let reader = Reader::new(&snapshot, self.meta_slot()?);
        let found = reader.reported(request.group, request.size);
        let found = found.map_err(|error| of_store(&error))?;
        let found = found.filter(|found| found.index < signed.checkpoint.size);
        let Some(found) = found else {
            return Ok(ReportedAt::default());
        };
        let path = reader.log_path(found.index, signed.checkpoint.size);
        Ok(ReportedAt {
            size: found.leaf.size,
            root: found.leaf.root.to_vec().into(),
            index: found.index,
            path: paths(path.map_err(|error| of_read(&error.into()))?),
            checkpoint: Some(signed.message()),
        })
    }

    pub(super) fn do_get_tile(&self, request: &GetTile) -> Result<Tile, Status> {
        let width = request.width as usize;
        let snapshot = self.groups.store().snapshot();
        let reader = Reader::new(&snapshot, self.meta_slot()?);
        let bytes = if request.level == ENTRIES {
            let first = request.tile.checked_mul(TILE);
            let leaves = first.map_or(Ok(Vec::new()), |first| reader.log_leaves(first, width));
            let leaves = leaves.map_err(|error| of_store(&error))?;
            (leaves.len() == width).then(|| bundle(&leaves))
        } else {
            let level = u8::try_from(request.level).unwrap_or(u8::MAX);
            let hashes = reader.log_tile(level, request.tile);
            let mut hashes = hashes.map_err(|error| of_store(&error))?;
            (hashes.len() >= 32 * width).then(|| {
                hashes.truncate(32 * width);
                hashes
            })
        };
        Ok(Tile {
            bytes: bytes.map(Bytes::from),
        })
    }

    pub(super) async fn do_prove_logged(
        &self,
        request: &proto::ProveLoggedRequest,
        until: Instant,
    ) -> Result<proto::ProveLoggedResponse, Status> {
        let longest = Instant::now() + LOGGED_MAX;
        // The word that it takes longer must still reach the caller.
        let last = until
            .checked_sub(LOGGED_POLL)
            .map_or(until, |at| at.min(longest));
        loop {
            if let Some(proved) = self.logged_now(request, until).await? {
                return Ok(proved);
            }
            if Instant::now() + LOGGED_POLL > last {
                let why = format!(
                    "no head of chain {} that holds transaction {} is in the log of all chains yet; heads get there within seconds of their leap: ask again (a head of a quorum chain once it is final)",
                    request.chain, request.index
                );
                return Err(status("NOT_LOGGED", why, &[]));
            }
            sleep(LOGGED_POLL).await;
        }
    }

    /// The proof, if it can be given now.
    async fn logged_now(
        &self,
        request: &proto::ProveLoggedRequest,
        until: Instant,
    ) -> Result<Option<proto::ProveLoggedResponse>, Status> {
        let Some((group, height, index)) = self.logged_at(request)? else {
            return Ok(None);
        };
        let asked = GetReported {
            group,
            size: index + 1,
        };
        let of_meta = Route {
            until,
            ..route(Method::GetReported, None)
        };
        let reported = self.at_reader(of_meta, false, &asked, |service, request| {
            Box::pin(service.do_get_reported(request))
        });
        let reported: ReportedAt = reported.await?;
        let (Some(checkpoint), Some(path)) = (
            reported.checkpoint,
            self.path_in(&request.chain, index, reported.size)?,
        ) else {
            return Ok(None);
        };
        let inclusion = proto::ProveInclusionRequest {
            chain: request.chain.clone(),
            index: request.index,
            at_height: Some(height),
            without_payload: request.without_payload,
        };
        Ok(Some(proto::ProveLoggedResponse {
            inclusion: Some(self.do_prove_inclusion(&inclusion).await?),
            group,
            size: reported.size,
            root: reported.root,
            index,
            path,
            super_index: reported.index,
            super_path: reported.path,
            checkpoint: Some(checkpoint),
        }))
    }

    /// The group, and height and index of the first head in its log that holds the transaction.
    fn logged_at(
        &self,
        request: &proto::ProveLoggedRequest,
    ) -> Result<Option<(u32, u64, u64)>, Status> {
        let reads = self.reads(&request.chain)?;
        let (reader, chain) = (reads.reader(), &reads.chain);
        let newest = reads.newest()?;
        let there = reader.transaction(chain, request.index);
        there.map_err(|error| of_read(&error))?;
        let quant = reader.height_of(chain, request.index, newest);
        let header = quant.map_err(|error| of_read(&error))?.parse();
        let height = header.map_err(|error| of_store(&error))?.height;
        let logged = reader.logged(chain, height);
        let logged = logged.map_err(|error| of_read(&error))?;
        let logged = logged.filter(|(height, _)| *height <= newest);
        Ok(logged.map(|(height, index)| (reads.known.group.0, height, index)))
    }

    /// A head's path in its group's log, once this replica has it at that size.
    fn path_in(&self, chain: &str, index: u64, size: u64) -> Result<Option<Vec<Bytes>>, Status> {
        let reads = self.reads(chain)?;
        let reader = reads.reader();
        let log = reader.log().map_err(|error| of_store(&error))?;
        if index >= size || size > log.size() {
            return Ok(None);
        }
        let path = reader.log_path(index, size);
        let path = path.map_err(|error| of_read(&error.into()))?;
        Ok(Some(paths(path)))
    }

    /// The checkpoint as a signed note.
    pub async fn checkpoint_note(&self) -> Result<String, Status> {
        let request = proto::GetCheckpointRequest::default();
        let asked = route(Method::GetCheckpoint, None);
        let answer = self.at_reader(asked, false, &request, |service, request| {
            Box::pin(service.do_get_checkpoint(request))
        });
        answer.await.map(|answer| answer.note)
    }

    /// The first hashes of a tile of the super log, or with [`ENTRIES`] for the level its first leaves, each after its
    /// length in two bytes; none where it has not so many.
    pub async fn super_tile(
        &self,
        level: u32,
        tile: u64,
        width: u32,
    ) -> Result<Option<Bytes>, Status> {
        let request = GetTile { level, tile, width };
        let asked = route(Method::GetTile, None);
        let answer = self.at_reader(asked, false, &request, |service, request| {
            super::at_once(service.do_get_tile(request))
        });
        answer.await.map(|tile: Tile| tile.bytes)
    }
}

/// Has a group that this node leads take the heads that moved.
async fn tick(group: &Group) -> Result<(), Status> {
    let any = group.engine().has_unlogged();
    if any.map_err(|error| of_store(&error))? {
        let ticked = group.propose(tick_command()).await;
        ticked.map_err(|error| of_propose(&error))?;
    }
    Ok(())
}

/// Leaves as C2SP bundles them.
fn bundle(leaves: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for leaf in leaves {
        out.extend_from_slice(&(leaf.len() as u16).to_be_bytes());
        out.extend_from_slice(leaf);
    }
    out
}
