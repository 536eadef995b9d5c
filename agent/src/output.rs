//! What a container has written and the host has not yet confirmed. The pipe is only read while there is
//! room, so an unread container waits in `write` and no byte is lost.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::fault::{Fault, Kind, Outcome};
use crate::sync::lock;

/// Unconfirmed bytes of one stream.
pub const BUFFER_BYTES_MAX: usize = 256 * 1024;
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// After its process has ended a pipe may be held open by a process elsewhere: it is given up when it has
/// been silent for this long, or has brought more than any pipe holds.
pub const DRAIN_SILENCE: Duration = Duration::from_secs(2);
const DRAIN_BYTES_MAX: usize = 2 << 20;

#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    pub offset: u64,
    pub data: Vec<u8>,
    pub end: bool,
}

#[derive(Default)]
struct State {
    /// Offset of the first byte that is kept.
    start: u64,
    data: VecDeque<u8>,
    ended: bool,
    /// Counts readers; only the last one reads.
    reader: u64,
    removed: bool,
}

impl State {
    fn total(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

pub struct Output {
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

impl Output {
    pub fn new() -> Arc<Self> {
        Arc::new(Output { state: Mutex::default(), changes: watch::Sender::new(()) })
    }

    fn room(&self) -> usize {
        BUFFER_BYTES_MAX.saturating_sub(lock(&self.state).data.len())
    }

    fn append(&self, data: &[u8]) {
        lock(&self.state).data.extend(data);
        self.changes.send_replace(());
    }

    /// No more will come.
    pub fn end(&self) {
        lock(&self.state).ended = true;
        self.changes.send_replace(());
    }

    /// Forgets everything and sends the readers away.
    pub fn remove(&self) {
        let mut state = lock(&self.state);
        state.removed = true;
        state.data = VecDeque::new();
        drop(state);
        self.changes.send_replace(());
    }

    /// Begins to read in the place of whoever read before: at an offset, or at the first byte that is kept when
    /// what is there was confirmed and is forgotten.
    pub fn open(self: &Arc<Self>, from: u64) -> Outcome<Reader> {
        let mut state = lock(&self.state);
        let total = state.total();
        if from > total {
            return Err(Fault::new(Kind::OutOfRange, format!("offset {from} is beyond the end at {total}")));
        }
        let cursor = from.max(state.start);
        state.reader += 1;
        let number = state.reader;
        drop(state);
        self.changes.send_replace(());
        let changes = self.changes.subscribe();
        Ok(Reader { output: self.clone(), number, cursor, finished: false, changes })
    }

    /// Copies from a pipe or a terminal until its end; `exited` tells that its process has ended.
    pub async fn fill(&self, source: Source, mut exited: watch::Receiver<bool>) {
        let mut changes = self.changes.subscribe();
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        let mut drained = 0;
        loop {
            changes.borrow_and_update();
            if lock(&self.state).removed {
                break;
            }
            let room = self.room().min(buffer.len());
            if room == 0 {
                let _ = changes.changed().await;
                continue;
            }
            let space = buffer.get_mut(..room).unwrap_or_default();
            let gone = *exited.borrow_and_update();
            let read = tokio::select! {
                read = source.read(space) => read,
                _ = exited.changed(), if !gone => continue,
                () = tokio::time::sleep(DRAIN_SILENCE), if gone => break,
                // Removal is the only change that matters while there is room.
                _ = changes.changed() => continue,
            };
            let Ok(count @ 1..) = read else { break };
            self.append(buffer.get(..count).unwrap_or_default());
            drained += if gone { count } else { 0 };
            if drained > DRAIN_BYTES_MAX {
                break;
            }
        }
        self.end();
    }
}

/// One host's view of a stream.
pub struct Reader {
    output: Arc<Output>,
    number: u64,
    cursor: u64,
    finished: bool,
    changes: watch::Receiver<()>,
}

impl Reader {
    /// The next piece; `None` after the end. `Aborted` when another reader has come or the container is gone.
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Outcome<Chunk>> {
        loop {
            if self.finished {
                return None;
            }
            self.changes.borrow_and_update();
            if let Some(outcome) = self.take() {
                self.finished = outcome.as_ref().map_or(true, |chunk| chunk.end);
                return Some(outcome);
            }
            // The sender lives in the output that this reader holds.
            let _ = self.changes.changed().await;
        }
    }

    fn take(&mut self) -> Option<Outcome<Chunk>> {
        let state = lock(&self.output.state);
        if state.removed || state.reader != self.number {
            let why =
                if state.removed { "the container is removed" } else { "another reader has taken over" };
            return Some(Err(Fault::new(Kind::Aborted, why)));
        }
        let skipped = usize::try_from(self.cursor.saturating_sub(state.start)).unwrap_or(usize::MAX);
        let data: Vec<u8> = state.data.iter().skip(skipped).take(CHUNK_BYTES_MAX).copied().collect();
        let next = self.cursor + data.len() as u64;
        let end = state.ended && next == state.total();
        if data.is_empty() && !end {
            return None;
        }
        let offset = std::mem::replace(&mut self.cursor, next);
        Some(Ok(Chunk { offset, data, end }))
    }

    /// The host keeps everything before `offset`. Offsets that were never sent are refused.
    pub fn acknowledge(&self, offset: u64) -> Outcome<()> {
        if offset > self.cursor {
            return Err(Fault::invalid(format!("offset {offset} was never sent")));
        }
        let mut state = lock(&self.output.state);
        if state.reader != self.number || offset <= state.start {
            return Ok(());
        }
        let count = usize::try_from(offset - state.start).unwrap_or(usize::MAX).min(state.data.len());
        state.data.drain(..count);
        state.start = offset;
        if state.data.is_empty() {
            state.data = VecDeque::new();
        }
        drop(state);
        self.output.changes.send_replace(());
        Ok(())
    }
}

/// The agent's end of a pipe or a terminal.
pub struct Source(AsyncFd<OwnedFd>);

impl Source {
    /// Makes the descriptor non-blocking; has to be called inside the event loop.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        // SAFETY: the OwnedFd stays open and the same as long as the AsyncFd owns it.
        Ok(Source(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? }))
    }

    /// 0 at the end. A terminal whose other side is closed says EIO, which is its end.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let reading = self.0.async_io(Interest::READABLE, |fd| Ok(nix::unistd::read(fd.as_fd(), buffer)?));
        match reading.await {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }
}

pub fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{pipe, write};

    fn pattern(offset: u64, count: usize) -> Vec<u8> {
        (offset..offset + count as u64).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    /// A simple generator, so that a failure can be repeated.
    fn random(seed: &mut u64, below: usize) -> usize {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize % below
    }

    #[tokio::test]
    async fn any_order_of_writes_reads_and_reconnects_keeps_every_byte() {
        for seed in 1..40 {
            let mut seed_now = seed;
            let output = Output::new();
            let (mut written, mut confirmed) = (0_u64, 0_u64);
            let mut reader = output.open(0).unwrap();
            for _ in 0..400 {
                match random(&mut seed_now, 4) {
                    0 => {
                        let count = random(&mut seed_now, 90_000).min(output.room());
                        output.append(&pattern(written, count));
                        written += count as u64;
                    }
                    1 if reader.cursor < written => {
                        let chunk = reader.next().await.unwrap().unwrap();
                        assert!(chunk.data.len() <= CHUNK_BYTES_MAX);
                        assert_eq!(chunk.data, pattern(chunk.offset, chunk.data.len()), "seed {seed}");
                    }
                    2 if reader.cursor > confirmed => {
                        confirmed += random(&mut seed_now, (reader.cursor - confirmed) as usize + 1) as u64;
                        reader.acknowledge(confirmed).unwrap();
                    }
                    3 => reader = output.open(confirmed).unwrap(),
                    _ => {}
                }
                assert!(lock(&output.state).data.len() <= BUFFER_BYTES_MAX);
                assert_eq!(lock(&output.state).total(), written);
            }
        }
    }

    #[tokio::test]
    async fn begins_with_what_is_kept_and_refuses_what_was_never_written() {
        let output = Output::new();
        output.append(b"0123456789");
        let mut reader = output.open(0).unwrap();
        assert_eq!(reader.acknowledge(1).unwrap_err().kind, Kind::Invalid);
        reader.next().await.unwrap().unwrap();
        reader.acknowledge(4).unwrap();
        reader.acknowledge(2).unwrap();
        for bad in [11, u64::MAX] {
            assert_eq!(output.open(bad).map(|_| ()).unwrap_err().kind, Kind::OutOfRange);
        }
        for from in [0, 3, 4] {
            let chunk = output.open(from).unwrap().next().await.unwrap().unwrap();
            assert_eq!(chunk, Chunk { offset: 4, data: b"456789".to_vec(), end: false });
        }
        let mut last = output.open(0).unwrap();
        last.next().await.unwrap().unwrap();
        last.acknowledge(10).unwrap();
        output.end();
        let chunk = output.open(0).unwrap().next().await.unwrap().unwrap();
        assert_eq!(chunk, Chunk { offset: 10, data: vec![], end: true });
    }

    #[tokio::test]
    async fn a_second_reader_replaces_the_first() {
        let output = Output::new();
        let mut first = output.open(0).unwrap();
        let mut second = output.open(0).unwrap();
        assert_eq!(first.next().await.unwrap().unwrap_err().kind, Kind::Aborted);
        assert!(first.next().await.is_none());
        output.append(b"x");
        output.end();
        assert_eq!(
            second.next().await.unwrap().unwrap(),
            Chunk { offset: 0, data: b"x".to_vec(), end: true }
        );
        assert!(second.next().await.is_none());
        output.remove();
        assert!(output.open(0).unwrap().next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn waits_for_room_and_ends_with_the_pipe() {
        let (ours, theirs) = pipe().unwrap();
        let output = Output::new();
        let (_exit, exited) = watch::channel(false);
        let filling = output.clone();
        let source = Source::new(ours).unwrap();
        let task = tokio::spawn(async move { filling.fill(source, exited).await });
        let total = 3 * BUFFER_BYTES_MAX;
        let writing = std::thread::spawn(move || {
            let data = pattern(0, total);
            let mut sent = 0;
            while sent < total {
                sent += write(&theirs, &data[sent..]).unwrap();
            }
        });
        let mut reader = output.open(0).unwrap();
        let mut seen = 0;
        loop {
            let chunk = reader.next().await.unwrap().unwrap();
            assert_eq!(chunk.data, pattern(chunk.offset, chunk.data.len()));
            seen += chunk.data.len();
            reader.acknowledge(seen as u64).unwrap();
            if chunk.end {
                break;
            }
        }
        assert_eq!(seen, total);
        writing.join().unwrap();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_held_by_a_stranger_ends_after_the_exit() {
        let (ours, theirs) = pipe().unwrap();
        let output = Output::new();
        let (exit, exited) = watch::channel(false);
        write(&theirs, b"last words").unwrap();
        exit.send_replace(true);
        output.fill(Source::new(ours).unwrap(), exited).await;
        let chunk = output.open(0).unwrap().next().await.unwrap().unwrap();
        assert_eq!(chunk, Chunk { offset: 0, data: b"last words".to_vec(), end: true });
        drop(theirs);
    }
}
