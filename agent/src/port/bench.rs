//! A host for tests.

use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::AsyncReadExt;

use super::Port;
use super::connection::Connection;

/// A socket that keeps the borders of writes, as the driver keeps those of the host's buffers.
pub fn port() -> (Port, OwnedFd) {
    let flags = SockFlag::SOCK_NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    (Port::new(ours).unwrap(), theirs)
}

pub fn send(fd: &OwnedFd, data: &[u8]) {
    assert_eq!(nix::unistd::write(fd, data).unwrap(), data.len());
}

pub async fn read(connection: &mut Connection, count: usize) -> Vec<u8> {
    let mut data = vec![0; count];
    connection.read_exact(&mut data).await.unwrap();
    data
}
