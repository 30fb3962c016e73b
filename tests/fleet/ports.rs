//! Ports that stay a node's own while it is down.
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the range from which systems take ports for outgoing connections: nobody gets one of these by chance.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;
/// Processes begin at different places, so that two that run at once seldom meet.
const STRIDE: u32 = 97;

/// Addresses on loopback with `count` consecutive ports that are free now, and that this process gives to nobody else.
pub fn free_ports(count: usize) -> Vec<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = process::id().wrapping_mul(STRIDE);
    for _ in 0..COUNT {
        let taken = NEXT.fetch_add(count as u32, Ordering::Relaxed);
        let from = FIRST + begin.wrapping_add(taken) % (COUNT - count as u32);
        let ports = from..from + count as u32;
        let addresses: Vec<SocketAddr> = ports.map(|port| loopback(port as u16)).collect();
        if addresses.iter().all(|at| TcpListener::bind(at).is_ok()) {
            return addresses;
        }
    }
    panic!("no {count} ports in a row are free");
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
