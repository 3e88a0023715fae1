//! POSIX access control lists as the kernel keeps them: the extended attribute `system.posix_acl_access` (acl(5)), a version
//! and then entries of eight bytes, all little-endian.

/// The permission bits of an entry.
pub(super) const READ: u16 = 4;
pub(super) const WRITE: u16 = 2;

/// The one version that there is (POSIX_ACL_XATTR_VERSION in linux/posix_acl_xattr.h).
const VERSION: u32 = 2;
/// Tags of linux/posix_acl.h.
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// Whom a list names beside the owner and everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    User(u32),
    /// The owning group is among the groups, under its number.
    Group(u32),
}

/// Who may do what by the list. The mask is applied already, so an entry says what really holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acl {
    entries: Box<[(Named, u16)]>,
}

/// The bytes are not a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

impl Acl {
    /// Without a list, the mode's group bits are those of the owning group.
    pub(super) fn of_mode(mode: u32, gid: u32) -> Self {
        let permissions = u16::try_from(mode >> 3 & 7).unwrap_or(0);
        Self { entries: Box::new([(Named::Group(gid), permissions)]) }
    }

    /// Parses an attribute's bytes. `gid` is the owning group, which the list does not name by number.
    pub(super) fn parse(bytes: &[u8], gid: u32) -> Result<Self, Garbled> {
        let (version, entries) = bytes.split_first_chunk::<4>().ok_or(Garbled)?;
        let (entries, rest) = entries.as_chunks::<8>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
            return Err(Garbled);
        }
        let fields = |[t0, t1, p0, p1, id @ ..]: [u8; 8]| {
            (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([p0, p1]), u32::from_le_bytes(id))
        };
        let mask = entries.iter().map(|entry| fields(*entry)).find(|(tag, ..)| *tag == MASK);
        let mask = mask.map_or(7, |(_, permissions, _)| permissions);
        let entries = entries.iter().filter_map(|entry| {
            let (tag, permissions, id) = fields(*entry);
            let named = match tag {
                USER => Named::User(id),
                GROUP_OBJ => Named::Group(gid),
                GROUP => Named::Group(id),
                _ => return None,
            };
            Some((named, permissions & mask))
        });
        Ok(Self { entries: entries.collect() })
    }

    /// The same list under another mask.
    pub(super) fn masked(&self, mask: u16) -> Self {
        Self { entries: self.entries.iter().map(|(named, permissions)| (*named, permissions & mask)).collect() }
    }

    /// What the group `gid`, the owning one, may. A list can name it once more.
    pub(super) fn of_owning_group(&self, gid: u32) -> u16 {
        let entries = self.entries.iter().filter(|(named, _)| *named == Named::Group(gid));
        entries.fold(0, |all, (_, permissions)| all | permissions)
    }

    /// Everyone whom it gives any of these permissions.
    pub(super) fn granted(&self, permissions: u16) -> impl Iterator<Item = Named> + '_ {
        self.entries.iter().filter(move |(_, granted)| granted & permissions != 0).map(|(named, _)| *named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    fn granted(acl: &Acl, permissions: u16) -> Vec<Named> {
        acl.granted(permissions).collect()
    }

    /// As `setfacl -m u:7:rw,g:8:rwx,m::rw` leaves it on a file of group 5 and mode 0640.
    const LIST: &[(u16, u16, u32)] =
        &[(1, 6, u32::MAX), (USER, 6, 7), (GROUP_OBJ, 4, u32::MAX), (GROUP, 7, 8), (MASK, 6, u32::MAX), (0x20, 0, 0)];

    #[test]
    fn a_list_names_users_and_groups_and_the_owning_group_by_its_number() {
        let acl = Acl::parse(&bytes(LIST), 5).unwrap();
        assert_eq!(granted(&acl, WRITE), [Named::User(7), Named::Group(8)]);
        assert_eq!(granted(&acl, READ), [Named::User(7), Named::Group(5), Named::Group(8)]);
    }

    #[test]
    fn the_mask_takes_away_what_an_entry_gives() {
        let mut list = LIST.to_vec();
        list[4].1 = READ;
        assert_eq!(granted(&Acl::parse(&bytes(&list), 5).unwrap(), WRITE), []);
    }

    #[test]
    fn bytes_that_are_no_list_are_refused() {
        let whole = bytes(LIST);
        for cut in [0, 3, 5, whole.len() - 1] {
            assert_eq!(Acl::parse(&whole[..cut], 5), Err(Garbled), "{cut}");
        }
        assert_eq!(Acl::parse(&[3, 0, 0, 0], 5), Err(Garbled), "another version");
        assert_eq!(Acl::parse(&bytes(&[]), 5).map(|acl| granted(&acl, 7)), Ok(vec![]));
    }

    #[test]
    fn without_a_list_the_mode_speaks_of_the_owning_group() {
        assert_eq!(granted(&Acl::of_mode(0o664, 5), WRITE), [Named::Group(5)]);
        assert_eq!(granted(&Acl::of_mode(0o646, 5), WRITE), []);
    }
}
