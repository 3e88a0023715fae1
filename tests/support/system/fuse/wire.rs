//! Questions and answers as they lie on `/dev/fuse`: `linux/fuse.h`.

use rustix::io::Errno;

use super::Op;

/// The opcodes that are answered with more than "not implemented".
pub(super) mod code {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const RENAME2: u32 = 45;
}

/// `FATTR_MODE`, `FATTR_UID`, `FATTR_GID`, `FATTR_SIZE`
pub(super) const SET_MODE: u32 = 1;
pub(super) const SET_UID: u32 = 2;
pub(super) const SET_GID: u32 = 4;
pub(super) const SET_SIZE: u32 = 8;
/// `FOPEN_DIRECT_IO`: each read and write is asked for.
pub(super) const DIRECT_IO: u32 = 1;

/// `struct fuse_in_header` and what follows it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) code: u32,
    unique: u64,
    pub(super) node: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    body: Vec<u8>,
}

impl Request {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let header = Self { code: 0, unique: 0, node: 0, uid: 0, gid: 0, body: bytes.to_vec() };
        Self {
            code: header.u32(4),
            unique: header.u64(8),
            node: header.u64(16),
            uid: header.u32(24),
            gid: header.u32(28),
            body: bytes[40..].to_vec(),
        }
    }

    /// What a test calls this question.
    pub(super) fn op(&self) -> Option<Op> {
        Some(match self.code {
            code::LOOKUP | code::GETATTR => Op::Stat,
            code::OPEN | code::OPENDIR | code::CREATE => Op::Open,
            code::READ => Op::Read,
            code::WRITE => Op::Write,
            code::SETATTR if self.u32(0) & SET_SIZE != 0 => Op::Write,
            code::FSYNC | code::FSYNCDIR => Op::Fsync,
            code::RENAME | code::RENAME2 => Op::Rename,
            code::READDIR => Op::Readdir,
            _ => return None,
        })
    }

    /// The number at this place of the body.
    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.body[at..at + 4].try_into().expect("four bytes"))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.body[at..at + 8].try_into().expect("eight bytes"))
    }

    /// The names that end the body, from this place on.
    pub(super) fn names(&self, at: usize) -> Vec<String> {
        let names = self.body[at..].split(|&byte| byte == 0).filter(|name| !name.is_empty());
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// The bytes to write.
    pub(super) fn data(&self, at: usize) -> &[u8] {
        &self.body[at..]
    }
}

/// An answer with its `struct fuse_out_header`.
pub(super) fn frame(request: &Request, reply: Result<Vec<u8>, Errno>) -> Vec<u8> {
    let (error, body) = match reply {
        Ok(body) => (0, body),
        Err(error) => (-error.raw_os_error(), Vec::new()),
    };
    let length = u32::try_from(16 + body.len()).expect("answers are small");
    [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &request.unique.to_ne_bytes(), &body].concat()
}

/// A structure, field by field.
#[derive(Default)]
pub(super) struct Fields(Vec<u8>);

impl Fields {
    pub(super) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Zeros up to a multiple of eight.
    pub(super) fn aligned(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Zeros up to this length, if it is shorter.
    pub(super) fn padded(mut self, length: usize) -> Vec<u8> {
        self.0.resize(length.max(self.0.len()), 0);
        self.0
    }
}
