//! The end of a round: what is unknown is asked again, everything is sealed, and every replica is read and audited.
use std::time::{Duration, Instant};

use qbc::{
    chain::ExportVerifier,
    proto::{ExportRequest, GetChainRequest, ListQuantsRequest, ReadRequest},
};
use tokio::time;
use tonic::{Code, Status};

use crate::{
    book::item,
    chance::Chance,
    fleet::Doors,
    hands::{Ground, Hand, Letter, in_time},
    history::{Ledger, ReadKind, Replica},
};

/// How long all of it may take once the cluster is whole.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// How long one chain of one replica may take.
const LEDGER_MAX: Duration = Duration::from_secs(60);
const PAGE: u32 = 1000;

/// Reads every chain once by default, sends again what is unknown, and seals all pools. What did not come to an end in time.
pub async fn settle(ground: &Ground, chance: &mut Chance) -> Result<(), String> {
    let ended = time::timeout(SETTLE_MAX, async {
        for chain in 0..ground.plots.len() {
            let mut hand = Hand::new(ground, chain, "z", chance.split());
            read_all(ground, &mut hand).await;
            for (number, request) in ground.book.unanswered() {
                let letter = Letter { number, request };
                if letter.request.chain == ground.plots[chain].name {
                    until(async || hand.send(&letter).await).await;
                }
            }
            until(async || hand.leap().await).await;
            read_all(ground, &mut hand).await;
        }
    });
    ended
        .await
        .map_err(|_| format!("a whole cluster does not answer all within {SETTLE_MAX:?}"))
}

async fn read_all(ground: &Ground, hand: &mut Hand) {
    let slots = ground.in_play.slots();
    let mut turn = slots.iter().cycle();
    until(async || {
        let slot = *turn.next().expect("somebody is there");
        hand.read(slot, 0, ReadKind::Linearizable).await.is_ok()
    })
    .await;
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    while !done().await {
        time::sleep(POLL).await;
    }
}

/// Transactions of a chain and the height of its head.
type Length = (u64, u64);

/// What every replica holds, once all of them are at the same height; what differs, at the deadline.
pub async fn replicas(ground: &Ground) -> Result<Vec<Replica>, String> {
    let lengths = same_length(ground).await?;
    let mut replicas = Vec::new();
    for slot in ground.in_play.slots() {
        let mut ledgers = Vec::new();
        for (plot, length) in ground.plots.iter().zip(&lengths) {
            let whole = mended(&ground.doors, slot, &plot.name, *length);
            let read = time::timeout(LEDGER_MAX, whole).await;
            let told = |why: &dyn std::fmt::Display| format!("{} of n{slot}: {why}", plot.name);
            ledgers.push(
                read.map_err(|late| told(&late))?
                    .map_err(|status| told(&status))?,
            );
        }
        replicas.push(Replica { slot, ledgers });
    }
    Ok(replicas)
}

/// A chain of a replica. What the first read that meets damage is told has the replica replaced: it is asked again, until
/// the new one has all that the old one had.
async fn mended(
    doors: &Doors,
    slot: usize,
    name: &str,
    (transactions, height): Length,
) -> Result<Ledger, Status> {
    let short = |ledger: &Ledger| {
        (ledger.items.len() as u64) < transactions || ledger.quants.len() as u64 <= height
    };
    loop {
        match ledger(doors, slot, name).await {
            Ok(ledger) if short(&ledger) => {}
            Err(status) if matches!(status.code(), Code::DataLoss | Code::Unavailable) => {}
            read => return read,
        }
        time::sleep(POLL).await;
    }
}

/// What can be read of the replicas, where many are damaged: a chain that is not answered is left empty.
pub async fn remains(ground: &Ground) -> Vec<Replica> {
    let mut replicas = Vec::new();
    for slot in ground.in_play.slots() {
        let mut ledgers = Vec::new();
        for plot in ground.plots.iter() {
            let read = time::timeout(LEDGER_MAX, ledger(&ground.doors, slot, &plot.name)).await;
            ledgers.push(read.ok().and_then(Result::ok).unwrap_or_default());
        }
        replicas.push(Replica { slot, ledgers });
    }
    replicas
}

/// Waits until all replicas of each chain have the same; how much that is, by chain.
async fn same_length(ground: &Ground) -> Result<Vec<Length>, String> {
    let end = Instant::now() + SETTLE_MAX;
    loop {
        let mut lengths = Vec::new();
        for slot in ground.in_play.slots() {
            for plot in ground.plots.iter() {
                lengths.push((
                    plot.name.clone(),
                    slot,
                    length(&ground.doors, slot, &plot.name).await,
                ));
            }
        }
        let same = |name: &str| {
            let mut of_chain = lengths.iter().filter(|(chain, _, _)| chain == name);
            let first = of_chain.next().map(|(_, _, found)| found);
            of_chain.all(|(_, _, found)| found.is_ok() && Some(found) == first)
        };
        if ground.plots.iter().all(|plot| same(&plot.name)) {
            let agreed = lengths.into_iter().take(ground.plots.len());
            return Ok(agreed.filter_map(|(_, _, found)| found.ok()).collect());
        }
        if Instant::now() > end {
            return Err(format!(
                "replicas are not at one height after {SETTLE_MAX:?}: {lengths:?}"
            ));
        }
        time::sleep(POLL).await;
    }
}

/// Transactions and height of a replica.
async fn length(doors: &Doors, slot: usize, chain: &str) -> Result<Length, String> {
    let request = GetChainRequest {
        chain: chain.to_owned(),
        any_replica: true,
    };
    let answer = doors.chains(slot).get_chain(in_time(request)).await;
    let chain = answer
        .map_err(|status| status.to_string())?
        .into_inner()
        .chain;
    let chain = chain.ok_or("no chain in the answer")?;
    Ok((chain.transactions, chain.height))
}

async fn ledger(doors: &Doors, slot: usize, chain: &str) -> Result<Ledger, Status> {
    Ok(Ledger {
        items: items(doors, slot, chain).await?,
        quants: quants(doors, slot, chain).await?,
        audit: audit(doors, slot, chain).await?,
    })
}

async fn items(
    doors: &Doors,
    slot: usize,
    chain: &str,
) -> Result<Vec<crate::history::Item>, Status> {
    let request = ReadRequest {
        chain: chain.to_owned(),
        any_replica: true,
        ..ReadRequest::default()
    };
    let mut stream = doors.chains(slot).read(request).await?.into_inner();
    let mut items = Vec::new();
    while let Some(piece) = stream.message().await? {
        let all = piece.run.transactions().expect("a run that can be read");
        items.extend(all.into_iter().map(item));
    }
    Ok(items)
}

async fn quants(doors: &Doors, slot: usize, chain: &str) -> Result<Vec<bytes::Bytes>, Status> {
    let mut hashes = Vec::new();
    loop {
        let request = ListQuantsRequest {
            chain: chain.to_owned(),
            from_height: hashes.len() as u64,
            page_size: PAGE,
            any_replica: true,
            ..ListQuantsRequest::default()
        };
        let page = doors.chains(slot).list_quants(request).await?.into_inner();
        hashes.extend(page.quants.into_iter().map(|quant| quant.quant_hash));
        if page.next_page_token.is_empty() {
            return Ok(hashes);
        }
    }
}

/// Recomputes the whole chain from this replica's export; what is wrong with it.
async fn audit(doors: &Doors, slot: usize, chain: &str) -> Result<Option<String>, Status> {
    let request = ExportRequest {
        chain: chain.to_owned(),
        any_replica: true,
    };
    let mut stream = doors.chains(slot).export(request).await?.into_inner();
    let mut verifier = ExportVerifier::new(Vec::new());
    while let Some(piece) = stream.message().await? {
        if let Err(refused) = verifier.push(&piece.data) {
            return Ok(Some(refused.to_string()));
        }
    }
    Ok(verifier.finish().err().map(|refused| refused.to_string()))
}
