//! Extended attributes behind an inode.

use super::Problem;
use crate::layer::Xattr;

/// `struct erofs_xattr_ibody_header`. The filter of names and the count of shared ones in it are
/// not used.
const HEADER: usize = 12;
/// `struct erofs_xattr_entry`, which is also what sizes are multiples of.
const ENTRY: usize = 4;
/// XATTR_NAME_MAX of Linux.
const MAX_NAME: usize = 255;

/// Bytes of an inode's attributes; none if it has none.
pub(super) fn size(xattrs: &[Xattr]) -> Result<u64, Problem> {
    if xattrs.is_empty() {
        return Ok(0);
    }
    let mut size = HEADER;
    for xattr in xattrs {
        let (index, name) = split(&xattr.name)?;
        if xattr.name.len() > MAX_NAME {
            return Err("an extended attribute's name has more than 255 bytes".into());
        }
        if u16::try_from(xattr.value.len()).is_err() {
            return Err("an extended attribute has more than 65535 bytes".into());
        }
        if matches!(index, ACL_ACCESS | ACL_DEFAULT) && !is_acl(&xattr.value) {
            return Err("its access control list is malformed: no guest could open it".into());
        }
        size += (ENTRY + name.len() + xattr.value.len()).next_multiple_of(ENTRY);
    }
    let size = size as u64;
    if units(size).is_none() {
        return Err("its extended attributes have more than 262148 bytes together".into());
    }
    Ok(size)
}

/// What an inode says of `size` bytes of attributes: the header is one, then one for 4 bytes.
pub(super) fn units(size: u64) -> Option<u16> {
    match size.checked_sub(HEADER as u64) {
        Some(rest) => u16::try_from(rest / ENTRY as u64 + 1).ok(),
        None => Some(0),
    }
}

/// What is behind the inode; [`size`] has been asked for it.
pub(super) fn bytes(xattrs: &[Xattr]) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    if !xattrs.is_empty() {
        bytes.resize(HEADER, 0);
    }
    for xattr in xattrs {
        let (index, name) = split(&xattr.name)?;
        let length = u8::try_from(name.len()).map_err(|_| "an extended attribute's name")?;
        let value = u16::try_from(xattr.value.len()).map_err(|_| "an extended attribute")?;
        bytes.extend_from_slice(&[length, index]);
        bytes.extend_from_slice(&value.to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&xattr.value);
        bytes.resize(bytes.len().next_multiple_of(ENTRY), 0);
    }
    Ok(bytes)
}

const USER: u8 = 1;
const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;
const SECURITY: u8 = 6;

/// A name as the number of its prefix (`EROFS_XATTR_INDEX_…`), and what is behind that.
fn split(name: &[u8]) -> Result<(u8, &[u8]), Problem> {
    match name {
        b"system.posix_acl_access" => return Ok((ACL_ACCESS, b"")),
        b"system.posix_acl_default" => return Ok((ACL_DEFAULT, b"")),
        _ => {}
    }
    for (prefix, index) in [(&b"user."[..], USER), (b"security.", SECURITY)] {
        if let Some(rest) = name.strip_prefix(prefix)
            && !rest.is_empty()
        {
            return Ok((index, rest));
        }
    }
    Err("an extended attribute has a name of an unknown kind".into())
}

/// Whether an access control list is one that the kernel would have accepted from a program, and
/// so can use (fs/posix_acl.c, `posix_acl_from_xattr` and `posix_acl_valid`; struct
/// `posix_acl_xattr_entry`). With any other, a file can't be opened, not even by root.
fn is_acl(value: &[u8]) -> bool {
    const VERSION: [u8; 4] = [2, 0, 0, 0];
    const LENGTH: usize = 8;
    const OWNER: u16 = 1;
    const USER: u16 = 2;
    const OWNING_GROUP: u16 = 4;
    const GROUP: u16 = 8;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;

    let Some(entries) = value.strip_prefix(&VERSION) else {
        return false;
    };
    let (mut last, mut needs_mask) = (0, false);
    for entry in entries.chunks(LENGTH) {
        let &[tag0, tag1, permissions0, permissions1, id0, id1, id2, id3] = entry else {
            return false;
        };
        let tag = u16::from_le_bytes([tag0, tag1]);
        let permissions = u16::from_le_bytes([permissions0, permissions1]);
        let id = [id0, id1, id2, id3];
        let follows = match tag {
            OWNER => last == 0,
            USER => matches!(last, OWNER | USER) && id != [0xff; 4],
            OWNING_GROUP => matches!(last, OWNER | USER),
            GROUP => matches!(last, OWNING_GROUP | GROUP) && id != [0xff; 4],
            MASK => matches!(last, OWNING_GROUP | GROUP),
            OTHER => last == MASK || matches!(last, OWNING_GROUP | GROUP) && !needs_mask,
            _ => false,
        };
        if !follows || permissions & !7 != 0 {
            return false;
        }
        needs_mask |= matches!(tag, USER | GROUP);
        last = tag;
    }
    last == OTHER
}

#[cfg(test)]
mod tests {
    use super::{bytes, is_acl, size, units};
    use crate::layer::Xattr;

    fn xattr(name: &str, value: &[u8]) -> Xattr {
        Xattr { name: name.into(), value: value.into() }
    }

    #[test]
    fn what_is_said_is_what_is_written() {
        for length in 0..9 {
            let xattrs = [xattr("user.a", &vec![1; length]), xattr("security.capability", b"x")];
            let bytes = bytes(&xattrs).unwrap();
            assert_eq!(bytes.len() as u64, size(&xattrs).unwrap());
            assert_eq!(usize::from(units(bytes.len() as u64).unwrap()) * 4 + 8, bytes.len());
        }
        assert_eq!((size(&[]).unwrap(), units(0)), (0, Some(0)));
    }

    #[test]
    fn limits_are_those_of_the_inode() {
        let full = || xattr("user.a", &[0; 65535]);
        // Three times 4 + 1 + 65535, and the header, leave 65516 bytes of the limit.
        let more = |length| [full(), full(), full(), xattr("user.a", &vec![0; length])];
        assert_eq!(size(&more(65511)).unwrap(), 262_148);
        assert!(size(&more(65512)).is_err());
        assert!(size(&[full(), full(), full(), full(), xattr("user.a", b"")]).is_err());
        assert!(size(&[xattr("user.a", &[0; 65536])]).is_err());
        assert!(size(&[xattr(&format!("user.{}", "a".repeat(250)), b"")]).is_ok());
        assert!(size(&[xattr(&format!("user.{}", "a".repeat(251)), b"")]).is_err());
        assert!(size(&[xattr("trusted.a", b"")]).is_err());
    }

    #[test]
    fn access_control_lists_are_checked() {
        let entry = |tag: u8, permissions: u8, id: u8| vec![tag, 0, permissions, 0, id, 0, 0, 0];
        let acl = |entries: &[Vec<u8>]| [vec![2, 0, 0, 0], entries.concat()].concat();
        let (owner, group, other) = (entry(1, 7, 0), entry(4, 5, 0), entry(0x20, 0, 0));
        let (user, mask) = (entry(2, 4, 9), entry(0x10, 5, 0));
        let good = [
            acl(&[owner.clone(), group.clone(), other.clone()]),
            acl(&[owner.clone(), user.clone(), group.clone(), mask.clone(), other.clone()]),
        ];
        for good in &good {
            assert!(is_acl(good));
            assert!((0..good.len()).all(|length| !is_acl(&good[..length])));
        }
        for bad in [
            acl(&[owner.clone(), user.clone(), group.clone(), other.clone()]),
            acl(&[user, owner.clone(), group.clone(), mask, other.clone()]),
            acl(&[owner, group, entry(0x20, 8, 0)]),
            acl(&[other]),
        ] {
            assert!(!is_acl(&bad));
        }
    }
}
