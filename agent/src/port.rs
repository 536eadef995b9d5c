//! The agent's virtio-serial port as a series of connections.
//!
//! The port has no notion of a connection, and a host that reconnects quickly leaves no end-of-file to be
//! seen. What tells a new connection is the HTTP/2 client preface (RFC 9113, 3.4) at the start of a read: the
//! driver gives one host buffer a read, and a new connection begins a new buffer. Bytes before the preface
//! belong to a dead connection.

#[cfg(test)]
mod bench;
mod connection;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use crate::device::serial_port_named;
use crate::fault::{Doing, Outcome};
use crate::sync::lock;
use crate::sys::Sys;
use crate::uevent::Devices;

use connection::Connection;
use wire::Wire;

const PORT_NAME: &str = "herkos.agent.0";
/// More than one buffer of the driver (a page), so that a read ends where a buffer ends.
const READ_BYTES: usize = 16 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A VM whose port never comes is of no use; the host kills it long before.
const PORT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Waits for the agent's port and opens it.
pub async fn open(sys: &Arc<dyn Sys>, devices: &Devices) -> Outcome<Port> {
    let node =
        devices.wait("the agent's port", PORT_TIMEOUT, |sys| serial_port_named(sys, PORT_NAME)).await?;
    let fd = sys.open_device(&node).doing(format_args!("open {}", node.display()))?;
    Port::new(fd).doing("watch the agent's port")
}

/// After the device has failed: waits for the next news of devices, so that a device that is still named in
/// sysfs and cannot be opened is not tried in a circle.
pub async fn reopen(sys: &Arc<dyn Sys>, devices: &Devices) -> Outcome<Port> {
    loop {
        devices.next(PORT_TIMEOUT).await?;
        if let Ok(port) = open(sys, devices).await {
            return Ok(port);
        }
    }
}

pub struct Port {
    wire: Wire,
    /// Bytes that begin the next connection, when they were read by the one before.
    next: Arc<Mutex<Vec<u8>>>,
}

impl Port {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Port { wire: Wire::new(fd)?, next: Arc::default() })
    }

    /// The next connection: waits for a client's preface and drops everything before it.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        let mut begun = std::mem::take(&mut *lock(&self.next));
        let mut chunk = vec![0; READ_BYTES];
        while !begun.starts_with(PREFACE) {
            let read = std::future::poll_fn(|cx| match self.wire.poll_read(cx, &mut chunk) {
                // Nobody is connected: the next event says that this may have changed.
                Poll::Ready(Ok(0)) => self.wire.poll_event(cx).map(|event| event.map(|()| 0)),
                other => other,
            });
            let read = read.await?;
            let data = chunk.get(..read).unwrap_or_default();
            begun.extend_from_slice(data);
            if !begun.starts_with(PREFACE) && !PREFACE.starts_with(&begun) {
                begun.clear();
                // The rest of a dead connection and the preface cannot share a read.
                if data.starts_with(PREFACE) || PREFACE.starts_with(data) {
                    begun.extend_from_slice(data);
                }
            }
        }
        Ok(Connection::new(self.wire.clone(), self.next.clone(), begun))
    }
}

#[cfg(test)]
mod tests {
    use super::bench::{port, read, send};
    use super::*;

    #[tokio::test]
    async fn drops_what_a_dead_connection_has_left() {
        let (mut port, host) = port();
        send(&host, b"rest of a frame");
        send(&host, &[0xff; 9000]);
        send(&host, b"PRI * junk");
        send(&host, &[PREFACE, b"hello"].concat());
        let mut connection = port.accept().await.unwrap();
        assert_eq!(read(&mut connection, PREFACE.len() + 5).await, [PREFACE, b"hello"].concat());
    }

    #[tokio::test]
    async fn takes_a_preface_in_pieces() {
        let (mut port, host) = port();
        PREFACE.chunks(5).for_each(|piece| send(&host, piece));
        let mut connection = port.accept().await.unwrap();
        assert_eq!(read(&mut connection, PREFACE.len()).await, PREFACE);
    }
}
