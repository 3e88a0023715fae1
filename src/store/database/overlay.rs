//! A backend that reads a file and keeps writes in memory.
//!
//! A database that was not closed must be repaired before it can be read, and to repair is to write. Where nothing can be
//! written (the disk is full, failing or read-only) the writes stay in memory: a header and a few pages.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Writes are kept in blocks of this many bytes.
const BLOCK: usize = 4096;

/// Reads a file, and keeps writes in memory.
#[derive(Debug)]
pub(super) struct Overlay {
    file: FileBackend,
    written: Mutex<Written>,
}

struct Written {
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
    /// The apparent length of the file.
    len: u64,
    /// How much of the file itself is still visible.
    file_len: u64,
}

/// Without the blocks, which hold tokens.
impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written").field("blocks", &self.blocks.len()).field("len", &self.len).finish()
    }
}

impl Overlay {
    pub(super) fn new(file: FileBackend) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, written: Mutex::new(Written { blocks: BTreeMap::new(), len, file_len: len }) })
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file; zeros beyond its end.
    fn read_file(&self, file_len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(file_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (there, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        if there.is_empty() { Ok(()) } else { self.file.read(offset, there) }
    }
}

/// Splits a range by block: the block's number, the offset in it, and the length.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut at, end) = (offset, offset + len as u64);
    std::iter::from_fn(move || {
        let (number, from) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
        let length = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK - from);
        at += length as u64;
        (length > 0).then_some((number, from, length))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset.saturating_add(out.len() as u64) > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if written.blocks.is_empty() {
            let file_len = written.file_len;
            drop(written);
            return self.read_file(file_len, offset, out);
        }
        for (number, from, length) in parts(offset, out.len()) {
            let part;
            (part, out) = out.split_at_mut(length);
            match written.blocks.get(&number) {
                Some(block) => part.copy_from_slice(&block[from..from + length]),
                None => self.read_file(written.file_len, number * BLOCK as u64 + from as u64, part)?,
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        if len < written.len {
            written.file_len = written.file_len.min(len);
            written.blocks.retain(|number, _| number * (BLOCK as u64) < len);
            let from = (len % BLOCK as u64) as usize;
            if let Some(last) = written.blocks.get_mut(&(len / BLOCK as u64)) {
                last[from..].fill(0);
            }
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        written.len = written.len.max(offset + data.len() as u64);
        for (number, from, length) in parts(offset, data.len()) {
            let part;
            (part, data) = data.split_at(length);
            if !written.blocks.contains_key(&number) {
                let mut block = Box::new([0; BLOCK]);
                self.read_file(written.file_len, number * BLOCK as u64, &mut block[..])?;
                written.blocks.insert(number, block);
            }
            if let Some(block) = written.blocks.get_mut(&number) {
                block[from..from + length].copy_from_slice(part);
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // A file that is open for reading can only get a shared lock, which is what matters: it keeps writers out.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_the_file_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 10_000]).unwrap();
        let overlay = Overlay::new(FileBackend::new(File::open(&path).unwrap()).unwrap()).unwrap();
        let read = |from: u64, len: usize| {
            let mut out = vec![1; len];
            overlay.read(from, &mut out).map(|()| out)
        };
        overlay.write(4000, &[9; 200]).unwrap();
        let mut expected = vec![7; 10_000];
        expected[4000..4200].fill(9);
        assert_eq!(read(0, 10_000).unwrap(), expected);
        assert!(read(9_999, 2).is_err(), "beyond its end");
        // What was cut off does not come back.
        overlay.set_len(4100).unwrap();
        overlay.set_len(12_000).unwrap();
        expected.truncate(4100);
        expected.resize(12_000, 0);
        assert_eq!(read(0, 12_000).unwrap(), expected);
        assert_eq!(std::fs::read(&path).unwrap(), vec![7; 10_000]);
    }
}
