//! Reads what a sandbox writes to its pipes, line by line, in bounded memory.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::unix::pipe::Receiver;

use super::{OutputSink, Stream};

/// Longest piece that is handed on as one line, in bytes.
pub(crate) const LINE_MAX: usize = 16 * 1024;
/// Most bytes that one drain reads: a sandbox that never stops writing must not hold its caller.
const DRAIN_MAX: usize = 1024 * 1024;

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    rest: Vec<u8>,
}

impl LineSplitter {
    /// Takes more bytes and hands every complete line to `emit`, without its line end.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (line, after) = bytes.split_at(end);
            self.append(line, &mut emit);
            emit(self.rest.strip_suffix(b"\r").unwrap_or(&self.rest));
            self.rest.clear();
            bytes = after.get(1..).unwrap_or_default();
        }
        self.append(bytes, &mut emit);
    }

    /// Hands on what has no line end, when nothing more will come.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            emit(&self.rest);
            self.rest.clear();
        }
    }

    fn append(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(&[u8])) {
        while self.rest.len() + bytes.len() > LINE_MAX {
            let (head, tail) = bytes.split_at(LINE_MAX - self.rest.len());
            self.rest.extend_from_slice(head);
            emit(&self.rest);
            self.rest.clear();
            bytes = tail;
        }
        self.rest.extend_from_slice(bytes);
    }
}

/// One pipe of a sandbox.
#[derive(Debug)]
pub(crate) struct Pump {
    stream: Stream,
    pipe: Receiver,
    sink: Arc<dyn OutputSink>,
    splitter: Mutex<LineSplitter>,
}

impl Pump {
    /// `pipe` is the reading end.
    pub(crate) fn new(
        stream: Stream,
        pipe: OwnedFd,
        sink: Arc<dyn OutputSink>,
    ) -> std::io::Result<Self> {
        let pipe = Receiver::from_owned_fd(pipe)?;
        Ok(Self {
            stream,
            pipe,
            sink,
            splitter: Mutex::default(),
        })
    }

    /// Hands on what is in the pipe now. False when the writers are gone.
    pub(crate) fn drain(&self) -> bool {
        // Reads without asking for readiness first: the reactor may not have looked yet.
        self.read(|buffer| {
            match rustix::io::retry_on_intr(|| rustix::io::read(&self.pipe, &mut *buffer)) {
                Err(rustix::io::Errno::AGAIN) => None,
                read => read.ok().or(Some(0)),
            }
        })
    }

    /// Reads until the writers are gone.
    pub(crate) async fn run(&self) {
        while self.pipe.readable().await.is_ok() {
            // This read also tells the reactor when the pipe is empty.
            let open = self.read(|buffer| match self.pipe.try_read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                read => read.ok().or(Some(0)),
            });
            if !open {
                return;
            }
        }
    }

    /// Splits what `more` reads, until it has nothing (`None`) or no more will come (0).
    fn read(&self, mut more: impl FnMut(&mut [u8]) -> Option<usize>) -> bool {
        let mut splitter = self.splitter.lock().unwrap_or_else(PoisonError::into_inner);
        let emit = |line: &[u8]| self.sink.line(self.stream, line);
        let mut buffer = [0_u8; 8192];
        let mut total = 0;
        while total < DRAIN_MAX {
            match more(&mut buffer) {
                None => return true,
                Some(0) => {
                    splitter.finish(emit);
                    return false;
                }
                Some(n) => {
                    total += n;
                    splitter.feed(buffer.get(..n).unwrap_or_default(), emit);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut out) = (LineSplitter::default(), Vec::new());
        for piece in pieces {
            splitter.feed(piece, |line| out.push(line.to_vec()));
        }
        splitter.finish(|line| out.push(line.to_vec()));
        out
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let text: &[u8] = b"one\r\n\ntwo\nrest";
        let whole = lines(&[text]);
        assert_eq!(whole, [&b"one"[..], b"", b"two", b"rest"]);
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(lines(&[a, b]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_line_comes_in_pieces() {
        let long = vec![b'x'; 2 * LINE_MAX + 1];
        let pieces = lines(&[&long, b"\n"]);
        let lengths: Vec<_> = pieces.iter().map(Vec::len).collect();
        assert_eq!(lengths, [LINE_MAX, LINE_MAX, 1]);
    }
}
