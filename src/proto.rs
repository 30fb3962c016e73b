//! Generated from proto: the messages and services of the gRPC face (`qbc.v1`), what nodes say to each other (`cluster`), and
//! shapes that only HTTP has (`web`); each with its proto3 JSON. Messages that carry many transactions are written by hand
//! (`run`): on the wire they are the same.
#![allow(missing_docs, clippy::pedantic)]
mod run;

pub use run::{Encoded, Parts, ReadResponse, Run, RunWriter, TailTransactions};

tonic::include_proto!("qbc.v1");
include!(concat!(env!("OUT_DIR"), "/qbc.v1.serde.rs"));

/// The descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/qbc_descriptor.bin"));

/// `qbc.cluster.v1`: members and their links. Not in the reflection.
pub mod cluster {
    tonic::include_proto!("qbc.cluster.v1");
    include!(concat!(env!("OUT_DIR"), "/qbc.cluster.v1.serde.rs"));
}

/// `qbc.http.v1`: shapes of HTTP/JSON.
pub use http::v1 as web;

mod http {
    pub mod v1 {
        tonic::include_proto!("qbc.http.v1");
        include!(concat!(env!("OUT_DIR"), "/qbc.http.v1.serde.rs"));
    }
}

/// The package under the name that the shapes of HTTP say.
mod v1 {
    pub use super::*;
}
