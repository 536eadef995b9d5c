//! One connection of the host, as HTTP/2 sees it.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Wire;
use super::{PREFACE, READ_BYTES};
use crate::sync::lock;

/// What the driver's ring holds.
const READ_AHEAD_BYTES_MAX: usize = 512 * 1024;

/// One host connection; ends when the host disconnects or a new connection begins.
pub struct Connection {
    wire: Wire,
    line: Line,
    next: Arc<Mutex<Vec<u8>>>,
    inbox: Vec<u8>,
    taken: usize,
    ended: bool,
}

/// Tells whether a connection has ended, beside whoever serves it.
#[derive(Clone)]
pub struct Line {
    wire: Wire,
    /// The driver has known of this connection. Before that, "nobody is connected" is old news.
    known: Arc<AtomicBool>,
}

impl Line {
    fn has_ended(&self) -> bool {
        let hung_up = self.wire.hung_up();
        if !hung_up {
            self.known.store(true, Ordering::Relaxed);
        }
        hung_up && self.known.load(Ordering::Relaxed)
    }

    /// Runs what serves the connection until it ends or the host has gone. HTTP/2 does not read while its
    /// own answers cannot be written, so it would not notice.
    pub async fn serve<T>(&self, serving: impl Future<Output = T>) -> Option<T> {
        let mut serving = pin!(serving);
        std::future::poll_fn(|cx| match self.has_ended() {
            true => Poll::Ready(None),
            false => serving.as_mut().poll(cx).map(Some),
        })
        .await
    }
}

impl Connection {
    /// `begun`: its first bytes; `next`: where bytes go that begin the connection after it.
    pub fn new(wire: Wire, next: Arc<Mutex<Vec<u8>>>, begun: Vec<u8>) -> Self {
        let line = Line { wire: wire.clone(), known: Arc::default() };
        Connection { wire, line, next, inbox: begun, taken: 0, ended: false }
    }

    pub fn line(&self) -> Line {
        self.line.clone()
    }

    /// Reads one buffer of the host into the inbox; ready when there is something or the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0; READ_BYTES];
        let read = loop {
            let read = ready!(self.wire.poll_read(cx, &mut chunk))?;
            if read > 0 || self.line.has_ended() {
                break read;
            }
            // The driver has yet to hear of this connection, or just has: then there may be data now.
            ready!(self.wire.poll_event(cx))?;
        };
        let data = chunk.get(..read).unwrap_or_default();
        if data.starts_with(PREFACE) {
            *lock(&self.next) = data.to_vec();
        } else {
            self.inbox.drain(..self.taken);
            self.taken = 0;
            self.inbox.extend_from_slice(data);
        }
        self.ended = data.is_empty() || data.starts_with(PREFACE);
        Poll::Ready(Ok(()))
    }

    fn unread(&self) -> &[u8] {
        self.inbox.get(self.taken..).unwrap_or_default()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread().is_empty() && !self.ended {
            ready!(self.poll_fill(cx))?;
        }
        let count = self.unread().len().min(into.remaining());
        into.put_slice(self.unread().get(..count).unwrap_or_default());
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // Read ahead first, so that answers of a dead connection are not written into the next one.
        while !self.ended && self.unread().len() < READ_AHEAD_BYTES_MAX {
            match self.poll_fill(cx) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => break,
            }
        }
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if is_farewell(data) {
            return Poll::Ready(Ok(data.len()));
        }
        self.wire.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A GOAWAY frame without an error (RFC 9113, 6.8): the answer to a client that says goodbye. That client
/// closes at once, and the port cannot be closed from here, so the next one would get it.
fn is_farewell(data: &[u8]) -> bool {
    data.len() == 17 && data.starts_with(&[0, 0, 8, 7]) && data.ends_with(&[0; 4])
}

#[cfg(test)]
mod tests {
    use super::super::bench::{port, read, send};
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_new_preface_ends_the_connection_and_begins_the_next() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        let mut first = port.accept().await.unwrap();
        read(&mut first, PREFACE.len()).await;
        send(&host, b"data");
        send(&host, &[PREFACE, b"next"].concat());
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"data");
        assert_eq!(first.write(b"late").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut second = port.accept().await.unwrap();
        assert_eq!(read(&mut second, PREFACE.len() + 4).await, [PREFACE, b"next"].concat());
    }

    #[tokio::test]
    async fn writes_nothing_into_the_next_connection() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        let mut first = port.accept().await.unwrap();
        (0..20).for_each(|_| send(&host, &[7; 4096]));
        send(&host, PREFACE);
        assert_eq!(first.write(b"stale").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(nix::unistd::read(&host, &mut [0; 8]).unwrap_err(), nix::Error::EAGAIN);
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), PREFACE.len() + 20 * 4096);
        port.accept().await.unwrap();
    }

    #[tokio::test]
    async fn says_errors_and_no_farewell() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        let mut connection = port.accept().await.unwrap();
        let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        connection.write_all(&frame).await.unwrap();
        frame[16] = 1;
        connection.write_all(&frame).await.unwrap();
        let mut seen = [0; 40];
        assert_eq!(nix::unistd::read(&host, &mut seen).unwrap(), 17);
        assert_eq!(seen[..17], frame);
        assert_eq!(nix::unistd::read(&host, &mut seen).unwrap_err(), nix::Error::EAGAIN);
    }

    #[tokio::test]
    async fn sees_the_host_go_while_it_cannot_write() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        let mut connection = port.accept().await.unwrap();
        let line = connection.line();
        let endless = async { while connection.write(&[0; 4096]).await.is_ok() {} };
        let going = async move {
            tokio::task::yield_now().await;
            drop(host);
        };
        let (served, ()) = tokio::join!(line.serve(endless), going);
        assert!(served.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn its_first_bytes_may_come_before_the_word_of_it() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        // From here on "nobody is connected", as it is of the connection before until the driver hears more.
        drop(host);
        let mut connection = port.accept().await.unwrap();
        let line = connection.line();
        let reading = line.serve(async {
            read(&mut connection, PREFACE.len()).await;
            connection.read(&mut [0; 8]).await
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), reading).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_come_while_it_cannot_write_are_read() {
        let (mut port, host) = port();
        send(&host, PREFACE);
        let mut connection = port.accept().await.unwrap();
        read(&mut connection, PREFACE.len()).await;
        for round in 0..100_u8 {
            // Both directions in one task, as HTTP/2 does it: the read is polled first, and what wakes the
            // task may be taken by the write.
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            let mut sent = false;
            let both = std::future::poll_fn(|cx| {
                let read = Pin::new(&mut connection).poll_read(cx, &mut buffer);
                if !sent {
                    sent = true;
                    while Pin::new(&mut connection).poll_write(cx, &[0; 4096]).is_ready() {}
                    send(&host, &[round]);
                    assert!(Pin::new(&mut connection).poll_write(cx, b"x").is_pending());
                }
                read
            });
            tokio::time::timeout(Duration::from_secs(1), both).await.unwrap().unwrap();
            assert_eq!(byte, [round]);
        }
    }
}
