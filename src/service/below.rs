//! Injects to chains that are split, and to subchains. What a chain had before its split it answers itself, for ever: its
//! ids and answers do not change any more. The rest goes to the subchains, each part to the one that the routing key leads
//! to, whole or not at all there. A subchain that is asked directly asks all chains above it first.
//!
//! While a split is at the step where its chain takes nothing, an inject waits here for the subchains; it does not fail.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::{
    Service,
    catalog::Known,
    inject::bare_command,
    renumber::renumbered,
    route::{Doing, Method, Route, at_once, elsewhere, of_propose},
    status::{of_read, of_rejection, of_store, status},
};
use crate::chain::{TYPE_DATA, TYPE_TRANSFER, Transfer, place_of, routing_key, subchain_name};
use crate::engine::{Before, GroupId, Injected, Outcome, Reader, Rejection};
use crate::proto;
use crate::store::{RequestRun, SplitPhase, SplitRow};

/// How often an inject that waits for a split looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Where the subchains of a chain that is split live, in the order of their places.
#[derive(Debug)]
pub struct Below(pub(super) Vec<GroupId>);

/// A part of an inject on its way to a subchain: all chains above have been asked.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InjectBelow {
    #[prost(message, optional, tag = "1")]
    inject: Option<proto::InjectRequest>,
}

/// What a chain that is split has of an inject: one for each item.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FoundBefore {
    #[prost(message, repeated, tag = "1")]
    items: Vec<FoundItem>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FoundItem {
    #[prost(uint64, optional, tag = "1")]
    index: Option<u64>,
    #[prost(bool, tag = "2")]
    erased: bool,
}

impl Service {
    /// Injects on this node, which leads the chain's group. `looked_up`: the chains above it have nothing of the request.
    pub(super) fn do_inject<'a>(
        &'a self,
        request: &'a proto::InjectRequest,
        (until, looked_up): (Instant, bool),
    ) -> Doing<'a, proto::InjectResponse> {
        Box::pin(async move {
            let known = self.known_at_leader(&request.chain).await?;
            let plain = known.below.get().is_none() && (known.above == 0 || looked_up);
            if plain {
                match self.propose_inject(&known, request, until).await? {
                    Ok(injected) => {
                        self.followed(&known, request, until).await?;
                        return self.injected(&known, request, &injected);
                    }
                    Err(Rejection::Splitting(_) | Rejection::Split { .. }) => {}
                    Err(rejection) => return Err(of_rejection(&rejection)),
                }
            }
            self.inject_routed(&known, request, (until, looked_up))
                .await
        })
    }

    pub(super) fn do_inject_below<'a>(
        &'a self,
        request: &'a InjectBelow,
        until: Instant,
    ) -> Doing<'a, proto::InjectResponse> {
        match &request.inject {
            Some(inject) => self.do_inject(inject, (until, true)),
            None => at_once(Err(elsewhere())),
        }
    }

    async fn propose_inject(
        &self,
        known: &Known,
        request: &proto::InjectRequest,
        until: Instant,
    ) -> Result<Result<Injected, Rejection>, Status> {
        // At the first touch of a key or an account a subchain takes over what was above.
        let takes_over = !known.takes_from.is_empty();
        loop {
            let command = self.command(known, request).await?;
            let outcome = self.catalog.group(known)?.propose(command).await;
            let Outcome::Injected(injected) = outcome.map_err(|error| of_propose(&error))? else {
                let why = "the answer is not that of an inject";
                return Err(status("INTERNAL", why, &[]));
            };
            match injected {
                Err(Rejection::Unclaimed { state_keys, .. }) if takes_over => {
                    self.claim(known, &state_keys, until).await?;
                }
                injected => return Ok(injected),
            }
        }
    }

    async fn inject_routed(
        &self,
        known: &Known,
        request: &proto::InjectRequest,
        (until, looked_up): (Instant, bool),
    ) -> Result<proto::InjectResponse, Status> {
        let mut told = Told::new(request);
        if !looked_up {
            for above in names_above(&request.chain, known.above) {
                self.look_up(&above, &mut told, until).await?;
            }
        }
        let mut moved = request.cursor_moves.is_empty();
        while !told.is_whole() {
            let (rest, numbers) = told.rest();
            if routable(&rest) && self.is_split(known)? {
                self.inject_below(known, &mut told, until).await?;
                continue;
            }
            let proposed = self.propose_inject(known, &rest, until).await;
            let waits = match proposed.map_err(|refused| renumbered(refused, &numbers))? {
                Ok(injected) => {
                    let rest = proto::InjectRequest {
                        receipt: false,
                        ..rest
                    };
                    told.take(&numbers, &self.injected(known, &rest, &injected)?)?;
                    moved = true;
                    continue;
                }
                Err(rejection) => rejection,
            };
            let passes = match &waits {
                Rejection::Splitting(_) => true,
                Rejection::Split { .. } => routable(&rest),
                _ => false,
            };
            if !passes || Instant::now() + LOOK_AGAIN >= until {
                return Err(renumbered(of_rejection(&waits), &numbers));
            }
            sleep(LOOK_AGAIN).await;
        }
        if !moved && !request.transactions.is_empty() {
            // All was there before a split, so nothing was proposed that could have moved them.
            let moves = self.cursor_moves("cursor_moves", &request.cursor_moves)?;
            self.propose_moves(known.no, known.group, &moves).await?;
        }
        self.followed(known, request, until).await?;
        self.whole(told, request.receipt, until).await
    }

    /// True where the chain is split, as far as this node's replica shows.
    pub(super) fn is_split(&self, known: &Known) -> Result<bool, Status> {
        if known.below.get().is_some() {
            return Ok(true);
        }
        let row = self.split_row(known)?;
        let Some(row) = row.filter(|row| row.phase >= SplitPhase::Sealed) else {
            return Ok(false);
        };
        let groups = row.children.iter().map(|child| GroupId(child.group));
        let _ = known.below.set(Below(groups.collect()));
        Ok(true)
    }

    /// How far a chain is split.
    pub(super) fn split_row(&self, known: &Known) -> Result<Option<SplitRow>, Status> {
        let slot = self.catalog.group(known)?.engine().slot();
        let row = Reader::new(self.groups.store(), slot).split_of(known.no);
        row.map_err(|error| of_read(&error))
    }

    /// Takes what the chain itself has; the rest goes to its subchains.
    async fn inject_below(
        &self,
        known: &Known,
        told: &mut Told<'_>,
        until: Instant,
    ) -> Result<(), Status> {
        let (rest, numbers) = told.rest();
        // All is checked here, so that what is refused is told by its place in the whole request.
        let command = self.command(known, &rest).await;
        let command = command.map_err(|refused| renumbered(refused, &numbers))?;
        let found = self.found_before(known, &rest.chain, &command);
        told.take_found(
            &rest.chain,
            &numbers,
            &found.map_err(|refused| renumbered(refused, &numbers))?,
        );
        if told.is_whole() {
            return Ok(());
        }
        let (mut rest, numbers) = told.rest();
        let groups = &known.below.get().ok_or_else(elsewhere)?.0;
        if rest.expected_next_index.is_some() || !rest.expected_head.is_empty() {
            return Err(of_rejection(&Rejection::Split {
                chain: rest.chain,
                into: groups.len() as u32,
                what: "an expected index or head is one of theirs; inject with it to the subchain that it is about",
            }));
        }
        if !rest.cursor_moves.is_empty() {
            return Err(of_rejection(&Rejection::Split {
                chain: rest.chain,
                into: groups.len() as u32,
                what: "a cursor moves in the same step as an inject only where that goes to one chain; inject to a subchain, or move the cursor by itself",
            }));
        }
        name_request(&mut rest)?;
        let mut parts: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, one) in rest.transactions.iter().enumerate() {
            let key = routed_by(one, &rest.request_id).ok_or_else(elsewhere)?;
            let place = |key: &[u8]| place_of(known.alg, &known.chain_id, key, groups.len() as u32);
            let own = place(&key);
            // Told before any part is sent; below further splits the subchains tell it.
            if !one.key.is_empty() && place(&one.key) != own {
                let (item, chain) = (numbers[at], subchain_name(&rest.chain, own));
                return Err(of_rejection(&Rejection::KeyElsewhere { item, chain }));
            }
            parts.entry(own).or_default().push(at);
        }
        let sent = parts.iter().map(|(place, own)| {
            let part = part_of(&rest, *place, own);
            let group = groups[*place as usize];
            async move { self.inject_part(group, part, until).await }
        });
        let answers = futures::future::join_all(sent).await;
        for (own, answer) in parts.values().zip(answers) {
            let own: Vec<usize> = own.iter().map(|at| numbers[*at]).collect();
            let answer = answer.map_err(|refused| renumbered(refused, &own))?;
            told.take(&own, &answer)?;
        }
        Ok(())
    }

    async fn inject_part(
        &self,
        group: GroupId,
        part: proto::InjectRequest,
        until: Instant,
    ) -> Result<proto::InjectResponse, Status> {
        let named = |one: &proto::TransactionInput| !one.id.is_empty();
        let route = Route {
            method: Method::InjectBelow,
            group,
            until,
            repeatable: !part.request_id.is_empty() || part.transactions.iter().all(named),
        };
        let part = InjectBelow { inject: Some(part) };
        self.at_leader(route, &part, move |service, part| {
            service.do_inject_below(part, until)
        })
        .await
    }

    /// Asks a chain above what it has of the request.
    async fn look_up(
        &self,
        above: &str,
        told: &mut Told<'_>,
        until: Instant,
    ) -> Result<(), Status> {
        let (mut rest, numbers) = told.rest();
        if rest.request_id.is_empty() && rest.transactions.iter().all(|one| one.id.is_empty()) {
            return Ok(());
        }
        above.clone_into(&mut rest.chain);
        let route = Route {
            until,
            ..self.route(Method::LookUp, above, None)?
        };
        let found = self.at_reader(route, false, &rest, |service, request| {
            at_once(service.do_look_up(request))
        });
        let found = found
            .await
            .map_err(|refused| renumbered(refused, &numbers))?;
        told.take_found(above, &numbers, &found);
        Ok(())
    }

    /// What this replica has of an inject to a chain that is split.
    pub(super) fn do_look_up(&self, request: &proto::InjectRequest) -> Result<FoundBefore, Status> {
        let known = self.catalog.find(&request.chain)?;
        if !self.is_split(&known)? {
            return Err(elsewhere());
        }
        let moves = self.cursor_moves("cursor_moves", &request.cursor_moves)?;
        let command = bare_command(&known, request, &moves)?;
        self.found_before(&known, &request.chain, &command)
    }

    fn found_before(
        &self,
        known: &Known,
        chain: &str,
        command: &[u8],
    ) -> Result<FoundBefore, Status> {
        let group = self.catalog.group(known)?;
        let before = tokio::task::block_in_place(|| group.engine().before(command));
        let before = before.map_err(|error| of_store(&error))?;
        let run = |first: u64, count: u32| RequestRun {
            first,
            count,
            duplicate: true,
        };
        let mut items = Vec::new();
        match before.map_err(|rejection| of_rejection(&rejection))? {
            Before::Answered(runs) => {
                for one in runs {
                    items.extend(self.found(known, chain, &run(one.first, one.count))?);
                }
            }
            Before::Standing(places) => {
                for place in places {
                    match place {
                        Some(index) => items.extend(self.found(known, chain, &run(index, 1))?),
                        None => items.push(FoundItem::default()),
                    }
                }
            }
        }
        Ok(FoundBefore { items })
    }

    fn found(
        &self,
        known: &Known,
        chain: &str,
        run: &RequestRun,
    ) -> Result<Vec<FoundItem>, Status> {
        let parts = self.told(known, chain, run)?;
        let items = parts.into_iter().flat_map(|(part, erased)| {
            let indexes = part.first..part.first + u64::from(part.count);
            indexes.map(move |index| FoundItem {
                index: Some(index),
                erased,
            })
        });
        Ok(items.collect())
    }

    /// The answer, with the receipts of each chain that it came from.
    async fn whole(
        &self,
        told: Told<'_>,
        receipt: bool,
        until: Instant,
    ) -> Result<proto::InjectResponse, Status> {
        let mut response = told.response();
        if receipt {
            let receipts = response.runs.iter().map(|run| async move {
                let route = Route {
                    until,
                    ..self.route(Method::GetReceipt, &run.chain, None)?
                };
                self.at_reader(route, false, run, |service, run| {
                    at_once(service.do_get_receipt(run))
                })
                .await
            });
            response.receipts = futures::future::try_join_all(receipts).await?;
        }
        Ok(response)
    }
}

/// By what a transaction is routed: a transfer by its sender, others by key, id or the request's id.
fn routed_by<'a>(one: &'a proto::TransactionInput, request_id: &'a str) -> Option<Cow<'a, [u8]>> {
    if one.r#type == u32::from(TYPE_TRANSFER) {
        let transfer = Transfer::parse(&one.payload).ok()?;
        return Some(Cow::Owned(transfer.sender.into_bytes()));
    }
    let key = (!one.key.is_empty()).then_some(&one.key[..]);
    routing_key(key, &one.id, request_id.as_bytes()).map(Cow::Borrowed)
}

/// The names of the chains above a subchain, the topmost first.
pub(super) fn names_above(name: &str, count: usize) -> Vec<String> {
    let cuts = name.rmatch_indices('/').take(count);
    let mut above: Vec<String> = cuts.map(|(at, _)| name[..at].to_owned()).collect();
    above.reverse();
    above
}

/// Only data and transfers are routed; what changes or erases is about the chain that it names.
fn routable(request: &proto::InjectRequest) -> bool {
    let routed = [u32::from(TYPE_DATA), u32::from(TYPE_TRANSFER)];
    let mut all = request.transactions.iter();
    all.all(|one| routed.contains(&one.r#type))
}

/// A request by which nothing could be routed gets an id of its own.
fn name_request(request: &mut proto::InjectRequest) -> Result<(), Status> {
    let transfers = |one: &proto::TransactionInput| one.r#type == u32::from(TYPE_TRANSFER);
    let anonymous =
        |one: &proto::TransactionInput| one.key.is_empty() && one.id.is_empty() && !transfers(one);
    if !request.request_id.is_empty() || !request.transactions.iter().any(anonymous) {
        return Ok(());
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        let why = format!("the system gives no randomness: {error}");
        status("INTERNAL", why, &[])
    })?;
    request.request_id = format!("node-{}", hex::encode(random));
    Ok(())
}

fn part_of(rest: &proto::InjectRequest, place: u32, own: &[usize]) -> proto::InjectRequest {
    proto::InjectRequest {
        chain: subchain_name(&rest.chain, place),
        transactions: own
            .iter()
            .map(|at| rest.transactions[*at].clone())
            .collect(),
        request_id: rest.request_id.clone(),
        expected_next_index: None,
        expected_head: Bytes::new(),
        receipt: false,
        cursor_moves: Vec::new(),
    }
}

/// Where an item of a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    chain: String,
    index: u64,
    duplicate: bool,
    erased: bool,
}

/// A request, and what is known of its items so far.
struct Told<'a> {
    request: &'a proto::InjectRequest,
    places: Vec<Option<Place>>,
}

impl<'a> Told<'a> {
    fn new(request: &'a proto::InjectRequest) -> Self {
        Self {
            request,
            places: vec![None; request.transactions.len()],
        }
    }

    /// Of a request without items nothing is known: it is refused further on.
    fn is_whole(&self) -> bool {
        !self.places.is_empty() && self.places.iter().all(Option::is_some)
    }

    /// The request without the items that are known, and the numbers of those that are left.
    fn rest(&self) -> (proto::InjectRequest, Vec<usize>) {
        let numbers = self.places.iter().enumerate();
        let numbers = numbers.filter_map(|(number, place)| place.is_none().then_some(number));
        let numbers: Vec<usize> = numbers.collect();
        let request = proto::InjectRequest {
            chain: self.request.chain.clone(),
            transactions: numbers
                .iter()
                .map(|number| self.request.transactions[*number].clone())
                .collect(),
            request_id: self.request.request_id.clone(),
            expected_next_index: self.request.expected_next_index,
            expected_head: self.request.expected_head.clone(),
            receipt: self.request.receipt,
            cursor_moves: self.request.cursor_moves.clone(),
        };
        (request, numbers)
    }

    fn take(&mut self, numbers: &[usize], answer: &proto::InjectResponse) -> Result<(), Status> {
        let mut numbers = numbers.iter();
        for run in &answer.runs {
            for at in 0..u64::from(run.count) {
                let Some(number) = numbers.next() else {
                    return Err(status(
                        "INTERNAL",
                        "a subchain answered for more than it was asked",
                        &[],
                    ));
                };
                self.places[*number] = Some(Place {
                    chain: run.chain.clone(),
                    index: run.first_index + at,
                    duplicate: run.duplicate,
                    erased: run.erased,
                });
            }
        }
        match numbers.next() {
            None => Ok(()),
            Some(_) => Err(status(
                "INTERNAL",
                "a subchain answered for less than it was asked",
                &[],
            )),
        }
    }

    fn take_found(&mut self, chain: &str, numbers: &[usize], found: &FoundBefore) {
        for (number, item) in numbers.iter().zip(&found.items) {
            if let Some(index) = item.index {
                self.places[*number] = Some(Place {
                    chain: chain.to_owned(),
                    index,
                    duplicate: true,
                    erased: item.erased,
                });
            }
        }
    }

    /// In the order of the items, in as few runs as they allow.
    fn response(self) -> proto::InjectResponse {
        let mut runs: Vec<proto::InjectRun> = Vec::new();
        for place in self.places.into_iter().flatten() {
            match runs.last_mut() {
                Some(run)
                    if run.first_index + u64::from(run.count) == place.index
                        && (run.duplicate, run.erased) == (place.duplicate, place.erased)
                        && run.chain == place.chain =>
                {
                    run.count += 1;
                }
                _ => runs.push(proto::InjectRun {
                    chain: place.chain,
                    first_index: place.index,
                    count: 1,
                    duplicate: place.duplicate,
                    erased: place.erased,
                }),
            }
        }
        proto::InjectResponse {
            runs,
            receipts: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(items: usize) -> proto::InjectRequest {
        let one = |at: usize| proto::TransactionInput {
            payload: vec![at as u8].into(),
            ..Default::default()
        };
        proto::InjectRequest {
            chain: "a".into(),
            transactions: (0..items).map(one).collect(),
            ..Default::default()
        }
    }

    fn run(chain: &str, first_index: u64, count: u32) -> proto::InjectRun {
        proto::InjectRun {
            chain: chain.into(),
            first_index,
            count,
            duplicate: false,
            erased: false,
        }
    }

    #[test]
    fn parts_come_together_in_the_order_of_the_request() {
        let request = request(5);
        let mut told = Told::new(&request);
        let found = FoundItem {
            index: Some(9),
            erased: true,
        };
        let none = FoundItem::default();
        let found = FoundBefore {
            items: vec![none.clone(), found, none.clone(), none.clone(), none],
        };
        told.take_found("a", &[0, 1, 2, 3, 4], &found);
        let (rest, numbers) = told.rest();
        assert_eq!(numbers, [0, 2, 3, 4]);
        assert_eq!(rest.transactions[1].payload[..], [2]);
        let answer = |runs| proto::InjectResponse {
            runs,
            receipts: Vec::new(),
        };
        told.take(&[0, 4], &answer(vec![run("a/1", 3, 2)])).unwrap();
        assert!(!told.is_whole());
        assert!(told.take(&[2, 3], &answer(vec![run("a/0", 7, 1)])).is_err());
        told.take(&[2, 3], &answer(vec![run("a/0", 7, 2)])).unwrap();
        assert!(told.is_whole());
        let runs = told.response().runs;
        let shown: Vec<_> = runs
            .iter()
            .map(|run| (run.chain.as_str(), run.first_index, run.count, run.erased))
            .collect();
        let expected = [
            ("a/1", 3, 1, false),
            ("a", 9, 1, true),
            ("a/0", 7, 2, false),
            ("a/1", 4, 1, false),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_chains_above_are_those_that_were_split() {
        assert_eq!(names_above("x/a/0/12", 2), ["x/a", "x/a/0"]);
        assert!(names_above("x/a", 0).is_empty());
    }

    #[test]
    fn a_request_without_any_routing_key_gets_one() {
        let mut anonymous = request(1);
        name_request(&mut anonymous).unwrap();
        assert!(anonymous.request_id.starts_with("node-"));
        let mut named = request(1);
        named.transactions[0].id = Bytes::from_static(b"i");
        name_request(&mut named).unwrap();
        assert!(named.request_id.is_empty());
    }
}
