//! Directories and files in memory, and what each question about them is answered with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::wire::{DIRECT_IO, Fields, Request, SET_GID, SET_MODE, SET_SIZE, SET_UID, code};

const ROOT: u64 = 1;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
/// What a directory may not hold to be removed or replaced.
type Entries = BTreeMap<String, u64>;

/// All that was ever made, by number. What has no name any more stays: it may be open.
pub(super) struct Tree {
    nodes: Vec<Node>,
}

struct Node {
    path: PathBuf,
    /// Type and permissions.
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    content: Content,
}

enum Content {
    Directory(Entries),
    File(Vec<u8>),
}

impl Default for Tree {
    fn default() -> Self {
        let mut tree = Self { nodes: Vec::new() };
        tree.make(PathBuf::new(), DIRECTORY | 0o755, 0, 0);
        tree
    }
}

impl Tree {
    /// The paths that a question is about.
    pub(super) fn paths_of(&self, request: &Request) -> Vec<PathBuf> {
        let named = |node: u64, name: &str| self.node(node).path.join(name);
        match request.code {
            code::LOOKUP => vec![named(request.node, &request.names(0)[0])],
            code::CREATE => vec![named(request.node, &request.names(16)[0])],
            code::RENAME | code::RENAME2 => {
                let names = request.names(if request.code == code::RENAME { 8 } else { 16 });
                vec![named(request.node, &names[0]), named(request.u64(0), &names[1])]
            }
            code::INIT | code::DESTROY | code::STATFS | code::INTERRUPT => Vec::new(),
            _ => vec![self.node(request.node).path.clone()],
        }
    }

    /// The answer; `None` where none is expected.
    pub(super) fn answer(&mut self, request: &Request) -> Option<Result<Vec<u8>, Errno>> {
        let node = request.node;
        Some(match request.code {
            code::FORGET | code::BATCH_FORGET | code::INTERRUPT | code::DESTROY => return None,
            code::INIT => Ok(hello()),
            code::LOOKUP => self.child(node, &request.names(0)[0]).map(|found| self.entry(found)),
            code::GETATTR => Ok(self.attributes(node)),
            code::SETATTR => Ok(self.set_attributes(request)),
            code::MKDIR => {
                let made = self.add(request, &request.names(8)[0], DIRECTORY | request.u32(0) & 0o7777);
                made.map(|made| self.entry(made))
            }
            code::CREATE => {
                let made = self.add(request, &request.names(16)[0], REGULAR | request.u32(4) & 0o7777);
                made.map(|made| [self.entry(made), opened()].concat())
            }
            code::UNLINK | code::RMDIR => self.remove(node, &request.names(0)[0]),
            code::RENAME => self.rename(request, 0, &request.names(8)),
            code::RENAME2 => self.rename(request, request.u32(8), &request.names(16)),
            code::OPEN | code::OPENDIR => Ok(opened()),
            code::READ => Ok(self.read(node, request.u64(8), request.u32(16))),
            code::WRITE => Ok(self.write(node, request.u64(8), &request.data(40)[..request.u32(16) as usize])),
            code::READDIR => Ok(self.list(node, request.u64(8), request.u32(16))),
            code::STATFS => Ok(room()),
            code::RELEASE | code::RELEASEDIR | code::FSYNC | code::FSYNCDIR | code::FLUSH => Ok(Vec::new()),
            _ => Err(Errno::NOSYS),
        })
    }

    fn node(&self, number: u64) -> &Node {
        &self.nodes[usize::try_from(number - ROOT).expect("numbers are small")]
    }

    fn node_mut(&mut self, number: u64) -> &mut Node {
        &mut self.nodes[usize::try_from(number - ROOT).expect("numbers are small")]
    }

    fn entries(&mut self, directory: u64) -> Result<&mut Entries, Errno> {
        match &mut self.node_mut(directory).content {
            Content::Directory(entries) => Ok(entries),
            Content::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn child(&self, directory: u64, name: &str) -> Result<u64, Errno> {
        match &self.node(directory).content {
            Content::Directory(entries) => entries.get(name).copied().ok_or(Errno::NOENT),
            Content::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn make(&mut self, path: PathBuf, mode: u32, uid: u32, gid: u32) -> u64 {
        let directory = mode & DIRECTORY != 0;
        let content = if directory { Content::Directory(Entries::new()) } else { Content::File(Vec::new()) };
        self.nodes.push(Node { path, mode, uid, gid, links: 1 + u32::from(directory), content });
        self.nodes.len() as u64
    }

    /// Makes what is asked for, with the group that a setgid directory hands down.
    fn add(&mut self, request: &Request, name: &str, mode: u32) -> Result<u64, Errno> {
        if self.child(request.node, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let parent = self.node(request.node);
        let inherits = parent.mode & 0o2000 != 0;
        let gid = if inherits { parent.gid } else { request.gid };
        let mode = if inherits && mode & DIRECTORY != 0 { mode | 0o2000 } else { mode };
        let made = self.make(parent.path.join(name), mode, request.uid, gid);
        self.entries(request.node)?.insert(name.to_owned(), made);
        Ok(made)
    }

    fn remove(&mut self, directory: u64, name: &str) -> Result<Vec<u8>, Errno> {
        let node = self.child(directory, name)?;
        if matches!(&self.node(node).content, Content::Directory(entries) if !entries.is_empty()) {
            return Err(Errno::NOTEMPTY);
        }
        self.entries(directory)?.remove(name);
        self.node_mut(node).links = 0;
        Ok(Vec::new())
    }

    fn rename(&mut self, request: &Request, flags: u32, names: &[String]) -> Result<Vec<u8>, Errno> {
        let (from, to) = (request.node, request.u64(0));
        let moved = self.child(from, &names[0])?;
        match (flags, self.child(to, &names[1])) {
            (0, Ok(replaced)) if replaced != moved => drop(self.remove(to, &names[1])?),
            (0, _) => {}
            // RENAME_NOREPLACE
            (1, Ok(_)) => return Err(Errno::EXIST),
            (1, Err(_)) => {}
            _ => return Err(Errno::INVAL),
        }
        self.entries(from)?.remove(&names[0]);
        self.entries(to)?.insert(names[1].clone(), moved);
        let (old, new) = (self.node(moved).path.clone(), self.node(to).path.join(&names[1]));
        for node in self.nodes.iter_mut().filter(|node| node.links > 0) {
            if let Ok(below) = node.path.strip_prefix(&old) {
                node.path = if below == Path::new("") { new.clone() } else { new.join(below) };
            }
        }
        Ok(Vec::new())
    }

    fn read(&self, node: u64, offset: u64, size: u32) -> Vec<u8> {
        let Content::File(bytes) = &self.node(node).content else { return Vec::new() };
        let from = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
        bytes[from..].iter().take(size as usize).copied().collect()
    }

    fn write(&mut self, node: u64, offset: u64, data: &[u8]) -> Vec<u8> {
        if let Content::File(bytes) = &mut self.node_mut(node).content {
            let from = usize::try_from(offset).expect("files are small");
            bytes.resize(bytes.len().max(from + data.len()), 0);
            bytes[from..from + data.len()].copy_from_slice(data);
        }
        Fields::default().u32(u32::try_from(data.len()).expect("writes are small")).padded(8)
    }

    fn list(&self, node: u64, offset: u64, size: u32) -> Vec<u8> {
        let Content::Directory(entries) = &self.node(node).content else { return Vec::new() };
        let mut listed = Fields::default();
        for ((name, &number), at) in entries.iter().zip(1..).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if listed.len() + 24 + name.len().next_multiple_of(8) > size as usize {
                break;
            }
            let kind = self.node(number).mode >> 12;
            let length = u32::try_from(name.len()).expect("names are short");
            listed = listed.u64(number).u64(at).u32(length).u32(kind).bytes(name.as_bytes()).aligned();
        }
        listed.padded(0)
    }

    fn set_attributes(&mut self, request: &Request) -> Vec<u8> {
        let (what, node) = (request.u32(0), self.node_mut(request.node));
        let asked = |bit: u32| what & bit != 0;
        if asked(SET_MODE) {
            node.mode = node.mode & !0o7777 | request.u32(68) & 0o7777;
        }
        if asked(SET_UID) {
            node.uid = request.u32(76);
        }
        if asked(SET_GID) {
            node.gid = request.u32(80);
        }
        if let (true, Content::File(bytes)) = (asked(SET_SIZE), &mut node.content) {
            bytes.resize(usize::try_from(request.u64(16)).expect("files are small"), 0);
        }
        self.attributes(request.node)
    }

    /// `struct fuse_attr_out`, good for no time.
    fn attributes(&self, node: u64) -> Vec<u8> {
        Fields::default().u64(0).u64(0).bytes(&self.looks(node)).padded(0)
    }

    /// `struct fuse_entry_out`, good for no time.
    fn entry(&self, node: u64) -> Vec<u8> {
        Fields::default().u64(node).u64(0).u64(0).u64(0).u64(0).bytes(&self.looks(node)).padded(0)
    }

    /// `struct fuse_attr`
    fn looks(&self, number: u64) -> Vec<u8> {
        let node = self.node(number);
        let size = if let Content::File(bytes) = &node.content { bytes.len() as u64 } else { 0 };
        let times = Fields::default().u64(number).u64(size).u64(size.div_ceil(512)).bytes(&[0; 36]);
        times.u32(node.mode).u32(node.links).u32(node.uid).u32(node.gid).u32(0).u32(4096).padded(88)
    }
}

/// `struct fuse_init_out`: 7.31, writes of up to 128 KiB (`FUSE_BIG_WRITES`).
fn hello() -> Vec<u8> {
    Fields::default().u32(7).u32(31).u32(0).u32(1 << 5).u16(16).u16(12).u32(128 * 1024).u32(1).padded(64)
}

/// `struct fuse_open_out`
fn opened() -> Vec<u8> {
    Fields::default().u64(0).u32(DIRECT_IO).padded(16)
}

/// `struct fuse_statfs_out`: plenty.
fn room() -> Vec<u8> {
    let counts = (0..5).fold(Fields::default(), |fields, _| fields.u64(1 << 20));
    counts.u32(4096).u32(255).u32(4096).padded(80)
}
