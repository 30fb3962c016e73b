//! Leap of a chain that is split: the pools of its subchains are sealed, to any depth, then their heads are anchored in it,
//! with what is in its own pool: changes of its constitution. Who knows only the chain's name has all that was injected by it sealed, and provable by one head.

use tokio::time::{Instant, sleep};
use tonic::Status;

use super::{
    Service,
    anchor::ANCHOR_RACE,
    catalog::Known,
    leap::{seal_request, told_until},
    route::{Method, Route, elsewhere},
    status::{invalid, of_rejection, of_seal, of_store, reason},
};
use crate::chain::subchain_name;
use crate::engine::{Engine, GroupId, Rejection, Sealed};
use crate::proto;
use crate::seal::SealError;

/// Seals that came second, one after the other, until the caller is told.
const RACES_MAX: u32 = 50;

impl Service {
    /// On the node that leads the group of the chain, whose subchains may live anywhere. A retry is answered with the
    /// Quant that the first call sealed; where somebody else's anchored the same heads, with the newest.
    pub(super) async fn leap_below(
        &self,
        known: &Known,
        request: &proto::LeapRequest,
        until: Instant,
    ) -> Result<proto::LeapResponse, Status> {
        if !request.expected_head.is_empty() {
            let why = format!(
                "chain {} is split, so its head moves by itself; give it with a leap of the subchain that it is about",
                request.chain
            );
            return Err(invalid("expected_head", why));
        }
        let engine = self.catalog.group(known)?.engine();
        let body = Engine::seal_body(&request.note, &[], false);
        let before = engine.sealed_before(known.no, request.request_id.as_bytes(), &body);
        if let Some(sealed) = before.map_err(|error| of_store(&error))? {
            let sealed = sealed.map_err(|rejection| of_rejection(&rejection))?;
            return self.leapt(&request.chain, Some(&sealed), true).await;
        }
        let until = told_until(until);
        let (new, known_before) = self.seal_below(known, request, until).await?;
        match self.anchor_below(known, request, until).await? {
            Some(sealed) => self.leapt(&request.chain, Some(&sealed), false).await,
            None if new + known_before > 0 => self.leapt(&request.chain, None, new == 0).await,
            None => Err(of_rejection(&Rejection::NothingToSeal(
                request.chain.clone(),
            ))),
        }
    }

    /// How many subchains sealed their pools, and how many had done so for this very request.
    async fn seal_below(
        &self,
        known: &Known,
        request: &proto::LeapRequest,
        until: Instant,
    ) -> Result<(usize, usize), Status> {
        let groups = &known.below.get().ok_or_else(elsewhere)?.0;
        let calls = (0..).zip(groups).map(|(place, group)| {
            let below = proto::LeapRequest {
                chain: subchain_name(&request.chain, place),
                ..request.clone()
            };
            async move { self.leap_one(*group, below, until).await }
        });
        let (mut new, mut before) = (0, 0);
        for done in futures::future::join_all(calls).await {
            match done {
                Ok(leapt) if leapt.duplicate => before += 1,
                Ok(_) => new += 1,
                Err(refused) if has_nothing(&refused) => {}
                Err(refused) => return Err(refused),
            }
        }
        Ok((new, before))
    }

    async fn leap_one(
        &self,
        group: GroupId,
        request: proto::LeapRequest,
        until: Instant,
    ) -> Result<proto::LeapResponse, Status> {
        let route = Route {
            method: Method::Leap,
            group,
            until,
            repeatable: !request.request_id.is_empty(),
        };
        self.at_leader(route, &request, move |service, request| {
            service.do_leap(request, until)
        })
        .await
    }

    /// Seals what the chain itself has, and anchors what moved; none where there is neither.
    async fn anchor_below(
        &self,
        known: &Known,
        request: &proto::LeapRequest,
        until: Instant,
    ) -> Result<Option<Sealed>, Status> {
        let group = self.catalog.group(known)?;
        for last in (0..RACES_MAX).map(|turn| turn + 1 == RACES_MAX) {
            let mut seal = seal_request(&request.note, &request.request_id, None, false)?;
            seal.anchors = self.anchors_of(&group, known.no).await?;
            let error = match self.sealer.seal(&group, known.no, &seal, until).await {
                Ok(sealed) => return Ok(Some(sealed)),
                Err(SealError::Rejected(Rejection::NothingToSeal(_))) => return Ok(None),
                Err(error) => error,
            };
            // The heads may have been anchored meanwhile, as they are by themselves.
            if last || !error.is_race() || Instant::now() + ANCHOR_RACE >= until {
                return Err(of_seal(&error));
            }
            sleep(ANCHOR_RACE).await;
        }
        Ok(None)
    }

    async fn leapt(
        &self,
        chain: &str,
        sealed: Option<&Sealed>,
        duplicate: bool,
    ) -> Result<proto::LeapResponse, Status> {
        let height = sealed.map(|sealed| sealed.header.height);
        Ok(proto::LeapResponse {
            head: Some(self.signed_head(chain, height).await?),
            duplicate,
        })
    }
}

/// A subchain without a pool, or one that is closed, holds up no other.
fn has_nothing(refused: &Status) -> bool {
    let reason = reason(refused);
    matches!(reason.as_deref(), Some("NOTHING_TO_SEAL" | "CHAIN_CLOSED"))
}
