//! UmaDB: an append of as many events as a request has payloads, without tags and without a condition.

use bytes::Bytes;
use tonic::{Request, client::Grpc, transport::Channel};

use crate::{
    drive::{Caller, Failure},
    grpc::{call, ways},
};

pub struct UmaDb {
    way: Grpc<Channel>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(string, tag = "1")]
    event_type: String,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Append {
    #[prost(message, repeated, tag = "1")]
    events: Vec<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Appended {
    #[prost(uint64, tag = "1")]
    position: u64,
}

pub async fn callers(port: u16, clients: usize) -> Result<Vec<UmaDb>, Failure> {
    let ways = ways(port, clients).await?.into_iter();
    Ok(ways.map(|way| UmaDb { way }).collect())
}

impl Caller for UmaDb {
    async fn append(&mut self, payloads: &[Bytes]) -> Result<(), Failure> {
        let event = |payload: &Bytes| Event {
            event_type: "e".to_owned(),
            data: payload.clone(),
        };
        let events = payloads.iter().map(event).collect();
        let request = Request::new(Append { events });
        let answer: Appended = call(&mut self.way, "/umadb.v1.DCB/Append", request).await?;
        if answer.position < payloads.len() as u64 {
            return Err(format!("UmaDB answered position {}", answer.position).into());
        }
        Ok(())
    }
}
