//! Who an app runs as. Names are the image's own: its `/etc/passwd` and `/etc/group` decide, which
//! are read leniently (a line that makes no sense is no entry) and within bounds.

use super::inside;
use crate::error::{Error, Tried};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Longest passwd or group file that is read, in bytes.
const MAX_FILE: usize = 4 << 20;

/// Most supplementary groups of a process (`NGROUPS_MAX` of Linux).
const MAX_GROUPS: usize = 65_536;

/// Who an app runs as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, sorted.
    pub(crate) groups: Vec<u32>,
    /// Home directory, if the image's passwd names one.
    pub(crate) home: Option<Vec<u8>>,
}

/// Resolves user and group as appc's `aci.md` says: a name of the image, else a number, else an
/// absolute path whose owner is taken.
pub(crate) fn resolve(
    root: BorrowedFd<'_>,
    user: &str,
    group: &str,
    supplementary: &[u32],
) -> Result<Identity, Error> {
    let passwd = read(root, "/etc/passwd")?;
    let group_file = read(root, "/etc/group")?;
    identity(&passwd, &group_file, user, group, supplementary, |path| owner(root, path))
}

fn identity(
    passwd: &[u8],
    group_file: &[u8],
    user: &str,
    group: &str,
    supplementary: &[u32],
    owner: impl Fn(&str) -> Result<(u32, u32), Error>,
) -> Result<Identity, Error> {
    let by_name = users(passwd).find(|entry| entry.name == user.as_bytes());
    let uid = match (&by_name, number(user.as_bytes())) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) if user.starts_with('/') => owner(user)?.0,
        (None, None) => {
            return Err(Error::Refused(format!(
                "user \"{user}\" is neither a name in the image's /etc/passwd, nor a number, nor \
                 an absolute path"
            )));
        }
    };
    let entry = by_name.or_else(|| users(passwd).find(|entry| entry.uid == uid));
    let gid = match groups(group_file).find(|entry| entry.name == group.as_bytes()) {
        _ if group.is_empty() => entry.as_ref().map_or(0, |entry| entry.gid),
        Some(entry) => entry.gid,
        None => match number(group.as_bytes()) {
            Some(gid) => gid,
            None if group.starts_with('/') => owner(group)?.1,
            None => {
                return Err(Error::Refused(format!(
                    "group \"{group}\" is neither a name in the image's /etc/group, nor a number, \
                     nor an absolute path"
                )));
            }
        },
    };
    let mut all = supplementary.to_vec();
    if entry.as_ref().is_some_and(|entry| entry.name == user.as_bytes()) {
        let member = |entry: &Group<'_>| {
            entry.members.split(|byte| *byte == b',').any(|name| name == user.as_bytes())
        };
        all.extend(groups(group_file).filter(member).map(|entry| entry.gid));
    }
    all.sort_unstable();
    all.dedup();
    all.truncate(MAX_GROUPS);
    let home = entry.map(|entry| entry.home.to_vec()).filter(|home| home.starts_with(b"/"));
    Ok(Identity { uid, gid, groups: all, home })
}

struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// `name:password:uid:gid:comment:home:shell`, passwd(5).
fn users(file: &[u8]) -> impl Iterator<Item = User<'_>> {
    file.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(User { name, uid, gid, home })
    })
}

struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

/// `name:password:gid:members`, group(5).
fn groups(file: &[u8]) -> impl Iterator<Item = Group<'_>> {
    file.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?)?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// A decimal user or group number. The largest one stands for "none" in Linux and is not one.
fn number(text: &[u8]) -> Option<u32> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|number| *number != u32::MAX)
}

/// Owner and group of a file of the image.
fn owner(root: BorrowedFd<'_>, path: &str) -> Result<(u32, u32), Error> {
    inside::open(root, path.as_bytes(), OFlags::PATH)
        .and_then(rustix::fs::fstat)
        .map(|stat| (stat.st_uid, stat.st_gid))
        .tried(format_args!("the owner of {path} in the image"))
}

/// A whole file of the image; empty if there is none.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<Vec<u8>, Error> {
    let what = format_args!("reading {path} of the image");
    // A named pipe must not hold us up, so it is opened without blocking and then refused.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: OwnedFd = match inside::open(root, path.as_bytes(), flags) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
        result => result.tried(what)?,
    };
    let stat = rustix::fs::fstat(&file).tried(what)?;
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if !FileType::from_raw_mode(stat.st_mode).is_file() || size > MAX_FILE {
        return Err(Error::Refused(format!(
            "{path} of the image has to be a file of at most {MAX_FILE} bytes"
        )));
    }
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut content)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .tried(what)?;
    Ok(content)
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
