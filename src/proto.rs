//! Generated from proto: the messages and services of the gRPC face (`qbc.v1`), what nodes say to each other (`cluster`), and
//! shapes that only HTTP has (`web`); each with its proto3 JSON.
#![allow(missing_docs, clippy::pedantic)]
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
