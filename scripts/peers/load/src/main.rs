//! Appends to a peer of QBC over its own wire format, and prints what that took as one line of JSON.
//!
//! Usage: `qbc-peer-load WAY PORT CLIENTS BATCH WARMUP_S MEASURED_S`. The ways are below. Each client has one request under
//! way; an answer counts when it says that all payloads of the request are durable.
mod drive;
mod etcd;
mod grpc;
mod immudb;
mod nats;
mod payload;
mod postgres;
mod redis;
mod umadb;

use std::{str::FromStr, time::Duration};

use drive::{Failure, Plan, Report, drive};
use immudb::Keys;
use postgres::How;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: qbc-peer-load WAY PORT CLIENTS BATCH WARMUP_S MEASURED_S; ways: etcd, umadb, immudb, \
                     immudb-spread, immudb-no-wait, nats, nats-batch, postgres-insert, postgres-copy, redis";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [way, port, clients, batch, warmup_s, measured_s] = words.as_slice() else {
        return Err(USAGE.into());
    };
    let port = number("PORT", port)?;
    let plan = Plan {
        clients: number("CLIENTS", clients)?,
        batch: number("BATCH", batch)?,
        warmup: Duration::from_secs_f64(number("WARMUP_S", warmup_s)?),
        measured: Duration::from_secs_f64(number("MEASURED_S", measured_s)?),
    };
    println!("{}", load(way, port, &plan).await?.json());
    Ok(())
}

async fn load(way: &str, port: u16, plan: &Plan) -> Result<Report, Failure> {
    match way {
        "etcd" => drive(plan, etcd::callers(port, plan.clients).await?).await,
        "umadb" => drive(plan, umadb::callers(port, plan.clients).await?).await,
        "immudb" => immudb(port, plan, (Keys::Grow, true)).await,
        "immudb-spread" => immudb(port, plan, (Keys::Spread, true)).await,
        "immudb-no-wait" => immudb(port, plan, (Keys::Grow, false)).await,
        "nats" => drive(plan, nats::callers(port, plan.clients, false).await?).await,
        "nats-batch" => drive(plan, nats::callers(port, plan.clients, true).await?).await,
        "postgres-insert" => postgres(port, plan, How::Insert).await,
        "postgres-copy" => postgres(port, plan, How::Copy).await,
        "redis" => drive(plan, redis::callers(port, plan.clients).await?).await,
        _ => Err(format!("WAY {way:?} is not known; {USAGE}").into()),
    }
}

/// Whether the index is waited for stands beside the keys.
async fn immudb(port: u16, plan: &Plan, how: (Keys, bool)) -> Result<Report, Failure> {
    drive(plan, immudb::callers(port, plan.clients, how).await?).await
}

async fn postgres(port: u16, plan: &Plan, how: How) -> Result<Report, Failure> {
    let callers = postgres::callers(port, plan.clients, plan.batch, how).await?;
    drive(plan, callers).await
}

fn number<N: FromStr>(name: &str, word: &str) -> Result<N, Failure> {
    let parsed = word.parse();
    parsed.map_err(|_| format!("{name} {word:?} is not a number in its range; {USAGE}").into())
}
