//! Generated from proto: the messages and services of the gRPC face (`qbc.v1`), and what nodes say to each other (`cluster`).
#![allow(missing_docs, clippy::pedantic)]
tonic::include_proto!("qbc.v1");

/// The descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/qbc_descriptor.bin"));

/// `qbc.cluster.v1`: members and their links. Not in the reflection.
pub mod cluster {
    tonic::include_proto!("qbc.cluster.v1");
}
