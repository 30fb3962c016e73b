//! Generated from proto/qbc/v1: the messages and services of the gRPC face.
#![allow(missing_docs, clippy::pedantic)]
tonic::include_proto!("qbc.v1");

/// The descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/qbc_descriptor.bin"));
