//! GetChain, ListChains, GetQuant, ListQuants, GetHead.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use super::{
    Service,
    convert::{self, paths},
    limits::{PAGE_DEFAULT, PAGE_MAX},
    route::{Method, Route, at_once, cluster_unknown, elsewhere},
    status::{invalid, of_read},
};
use crate::chain::Constitution;
use crate::engine::{ChainView, GroupId, Reader};
use crate::proto;
use crate::store::{Slot, SplitPhase};

/// So long GetChain waits for the leader's word about mining.
const MINING_WAIT_MAX: Duration = Duration::from_millis(500);

impl Service {
    pub(super) fn do_get_chain(
        &self,
        request: &proto::GetChainRequest,
    ) -> Result<proto::GetChainResponse, Status> {
        let reads = self.reads(&request.chain)?;
        Ok(proto::GetChainResponse {
            chain: Some(chain(&reads.reader(), &reads.chain)?),
        })
    }

    /// Adds what only the leader knows: how far it is with the work for the next Quant. Where it does not answer soon, the
    /// chain is shown without.
    pub(super) async fn with_mining(
        &self,
        route: Route,
        request: &proto::GetChainRequest,
        mut shown: proto::GetChainResponse,
    ) -> proto::GetChainResponse {
        let Some(chain) = shown.chain.as_mut().filter(|chain| may_be_mined(chain)) else {
            return shown;
        };
        if request.any_replica {
            return shown;
        }
        let route = Route {
            method: Method::GetMining,
            until: route.until.min(Instant::now() + MINING_WAIT_MAX),
            ..route
        };
        let asked = self.at_leader(route, request, |service, request| {
            at_once(service.do_get_mining(request))
        });
        chain.mining = asked.await.ok().filter(|mining| mining.bits > 0);
        shown
    }

    /// What this node mines for a chain; no bits where it does not.
    pub(super) fn do_get_mining(
        &self,
        request: &proto::GetChainRequest,
    ) -> Result<proto::Mining, Status> {
        let known = self.catalog.find(&request.chain)?;
        let mining = self.sealer.mining(known.group, known.no);
        Ok(mining.as_ref().map(convert::mining).unwrap_or_default())
    }

    /// Every group has its own names: the page is merged from all of them. The token is the last name given.
    pub(super) async fn do_list_chains(
        &self,
        request: &proto::ListChainsRequest,
        until: Instant,
    ) -> Result<proto::ListChainsResponse, Status> {
        let limit = page_size(request.page_size);
        list_start(&request.prefix, &request.page_token)?;
        let count = self.groups.count().ok_or_else(cluster_unknown)?;
        let of_groups = (1..=count).map(|group| {
            let route = Route {
                method: Method::ListGroup,
                group: GroupId(group),
                until,
                repeatable: true,
            };
            self.at_reader(
                route,
                request.any_replica,
                request,
                move |service, request| at_once(service.do_list_group(GroupId(group), request)),
            )
        });
        let of_groups = futures::future::try_join_all(of_groups).await?;
        let mut chains: Vec<proto::Chain> =
            of_groups.into_iter().flat_map(|page| page.chains).collect();
        chains.sort_by(|a, b| a.name.cmp(&b.name));
        let more = chains.len() > limit;
        chains.truncate(limit);
        let last = chains.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |chain| chain.name.clone());
        Ok(proto::ListChainsResponse {
            chains,
            next_page_token,
        })
    }

    /// One group's part of a page, and one chain more, which tells whether another page follows.
    pub(super) fn do_list_group(
        &self,
        group: GroupId,
        request: &proto::ListChainsRequest,
    ) -> Result<proto::ListChainsResponse, Status> {
        let limit = page_size(request.page_size) + 1;
        let from = list_start(&request.prefix, &request.page_token)?;
        let slot = self
            .groups
            .get(group)
            .ok_or_else(elsewhere)?
            .engine()
            .slot();
        let snapshot = self.groups.store().snapshot();
        let found = Reader::new(&snapshot, slot).names(&from, &request.prefix, limit);
        let found = found.map_err(|error| of_read(&error))?;
        let chains = found
            .into_iter()
            .map(|(_, no)| listed(&snapshot, slot, no))
            .collect::<Result<_, _>>()?;
        Ok(proto::ListChainsResponse {
            chains,
            next_page_token: String::new(),
        })
    }

    pub(super) fn do_get_quant(
        &self,
        request: &proto::GetQuantRequest,
    ) -> Result<proto::GetQuantResponse, Status> {
        let reads = self.reads(&request.chain)?;
        let reader = reads.reader();
        let row = reader
            .quant(&reads.chain, request.height)
            .map_err(|error| of_read(&error))?;
        let path = match request.at_height {
            None => Vec::new(),
            Some(at) => {
                reader
                    .quant(&reads.chain, at)
                    .map_err(|error| of_read(&error))?;
                if at <= request.height {
                    return Err(invalid(
                        "at_height",
                        format!(
                            "{at} is not after height {}; give a later height or none",
                            request.height
                        ),
                    ));
                }
                reader
                    .history_path(&reads.chain, request.height, at)
                    .map_err(|error| of_read(&error))?
            }
        };
        Ok(proto::GetQuantResponse {
            head_height: reads.chain.head.height,
            quant: Some(convert::quant(row)?),
            path: paths(path),
        })
    }

    pub(super) fn do_list_quants(
        &self,
        request: &proto::ListQuantsRequest,
    ) -> Result<proto::ListQuantsResponse, Status> {
        let reads = self.reads(&request.chain)?;
        let from = if request.page_token.is_empty() {
            request.from_height
        } else {
            height_token(&request.page_token)?
        };
        let rows = reads
            .reader()
            .quants(&reads.chain, from, page_size(request.page_size))
            .map_err(|error| of_read(&error))?;
        let next = from.saturating_add(rows.len() as u64);
        let more = !rows.is_empty() && next <= reads.chain.head.height;
        let quants = rows
            .into_iter()
            .map(convert::quant)
            .collect::<Result<_, _>>()?;
        Ok(proto::ListQuantsResponse {
            head_height: reads.chain.head.height,
            quants,
            next_page_token: if more {
                next.to_string()
            } else {
                String::new()
            },
        })
    }

    pub(super) async fn do_get_head(
        &self,
        request: &proto::GetHeadRequest,
    ) -> Result<proto::GetHeadResponse, Status> {
        let unfinal = {
            let reads = self.reads(&request.chain)?;
            let head = reads.chain.head.height;
            (reads.newest()? < head).then_some(head)
        };
        let head = self.signed_head(&request.chain, None).await?;
        let pending = match unfinal {
            Some(height) => Some(self.signed_head(&request.chain, Some(height)).await?),
            None => None,
        };
        Ok(proto::GetHeadResponse {
            head: Some(head),
            pending,
        })
    }
}

fn may_be_mined(chain: &proto::Chain) -> bool {
    let constitution = Constitution::parse(&chain.constitution);
    !chain.closed && constitution.is_ok_and(|constitution| constitution.work.is_some())
}

fn listed(
    snapshot: &crate::store::Snapshot<'_>,
    slot: Slot,
    no: crate::store::ChainNo,
) -> Result<proto::Chain, Status> {
    let reader = Reader::new(snapshot, slot);
    let view = reader.chain_no(no).map_err(|error| of_read(&error))?;
    let view = view.ok_or_else(|| {
        super::status::status(
            "CHAIN_DAMAGED",
            format!("the row of chain number {} is missing", no.0),
            &[],
        )
    })?;
    chain(&reader, &view)
}

fn chain(reader: &Reader<'_>, view: &ChainView) -> Result<proto::Chain, Status> {
    let (constitution, parsed) = reader.constitution(view).map_err(|error| of_read(&error))?;
    let in_force = reader.in_force(view, &constitution);
    let in_force = in_force.map_err(|error| of_read(&error))?;
    let split = reader.split(view).map_err(|error| of_read(&error))?;
    Ok(proto::Chain {
        name: view.name.clone(),
        chain_id: view.chain_id.0.to_vec().into(),
        height: view.head.height,
        quant_hash: view.head.hash().to_vec().into(),
        transactions: view.pool.next_index,
        pool: view.pooled(),
        pool_bytes: view.pooled_bytes(),
        closed: view.head.is_final,
        constitution: constitution.into(),
        created_ms: parsed.created_ms,
        hash_alg: view.alg() as u32,
        constitution_in_force: in_force.constitution.into(),
        amended_index: in_force.index,
        amended_height: in_force.height,
        mining: None,
        forked_from: forked_from(reader, view)?,
        split: split.map(|row| proto::Split {
            subchains: super::split::subchains(&view.name, &row),
            height: (row.height > 0).then_some(row.height),
            done: row.phase == SplitPhase::Done,
        }),
        transit: transit(reader, view, &parsed)?,
    })
}

/// What a subchain of a ledger has in transit.
fn transit(
    reader: &Reader<'_>,
    view: &ChainView,
    constitution: &Constitution,
) -> Result<Option<proto::Transit>, Status> {
    if !constitution.ledger || !constitution.is_subchain() {
        return Ok(None);
    }
    let row = reader.transit(view.no).map_err(|error| of_read(&error))?;
    Ok(Some(proto::Transit {
        debited: row.debited.to_string(),
        credited: row.credited.to_string(),
        waiting: row.waiting,
    }))
}

fn forked_from(reader: &Reader<'_>, view: &ChainView) -> Result<Option<proto::ForkedFrom>, Status> {
    let Some(parent) = view.lineage.ancestors().last() else {
        return Ok(None);
    };
    let found = reader
        .chain_no(parent.no)
        .map_err(|error| of_read(&error))?;
    Ok(Some(proto::ForkedFrom {
        chain_id: parent.chain_id.0.to_vec().into(),
        name: found.map_or_else(String::new, |found| found.name),
        height: parent.height_end - 1,
    }))
}

pub(super) fn page_size(asked: u32) -> usize {
    if asked == 0 {
        PAGE_DEFAULT
    } else {
        (asked as usize).min(PAGE_MAX)
    }
}

/// Names come strictly after the token; no name sorts between a name and the name with a zero byte behind it.
fn list_start(prefix: &str, token: &str) -> Result<String, Status> {
    if token.is_empty() {
        return Ok(prefix.to_owned());
    }
    if !token.starts_with(prefix) {
        return Err(invalid(
            "page_token",
            "it belongs to another prefix; use the token with the request that gave it",
        ));
    }
    Ok(format!("{token}\0"))
}

fn height_token(token: &str) -> Result<u64, Status> {
    token.parse().map_err(|_| {
        invalid(
            "page_token",
            "it is not one of this list; use the token that the last page gave",
        )
    })
}
