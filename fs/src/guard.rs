//! The layer between the request parser and the file server: what a guest may ask for at all.
//!
//! `virtiofsd` resolves every name with `RESOLVE_IN_ROOT` or as a single component, opens nothing
//! but regular files and directories, and limits the guest's descriptors. [`Guard`] stands in
//! front of it and refuses what no honest FUSE client sends, so that one mistake in either layer
//! isn't enough. The mount view ([`crate::view`]) is the third.

use std::ffi::CStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse;
use virtiofsd::passthrough::PassthroughFs;
use virtiofsd::soft_idmap::Id;

/// Longest name of a directory entry, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// Longest target of a symbolic link, in bytes (`PATH_MAX` less its NUL).
const LINK_TARGET_MAX: usize = 4095;

/// Flags of open(2) that a guest may pass on. Left out are those that make the call do something
/// else than open what is there: `O_CREAT`, `O_TMPFILE`, `O_PATH`, and `O_ASYNC`, which would
/// have the host signal us.
const OPEN_FLAGS: i32 = libc::O_ACCMODE
    | libc::O_APPEND
    | libc::O_TRUNC
    | libc::O_NONBLOCK
    | libc::O_DSYNC
    | libc::O_SYNC
    | libc::O_NOATIME
    | libc::O_DIRECT
    | libc::O_DIRECTORY
    | libc::O_NOFOLLOW
    | libc::O_EXCL;

/// `inode` of an [`FileSystem`] request: the number the guest knows a file by.
pub type Inode = u64;

/// `handle` of a [`FileSystem`] request: the number the guest knows an open file by.
pub type Handle = u64;

/// A [`PassthroughFs`] that is only reached by requests which passed the checks.
#[derive(Clone)]
pub struct Guard {
    inner: Arc<PassthroughFs>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl Guard {
    /// Puts the checks in front of `inner`.
    #[must_use]
    pub fn new(inner: PassthroughFs) -> Self {
        Self { inner: Arc::new(inner) }
    }
}

fn errno<T>(code: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(code))
}

/// Accepts `name` if it is one component that names a child.
///
/// # Errors
/// `EINVAL` if it is empty, `.`, `..` or holds a slash; `ENAMETOOLONG` if it is too long.
pub fn check_name(name: &CStr) -> io::Result<()> {
    let name = name.to_bytes();
    if name.len() > NAME_MAX {
        return errno(libc::ENAMETOOLONG);
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return errno(libc::EINVAL);
    }
    Ok(())
}

/// Accepts a kind of file that a guest may make: anything but a device node, where the overlay
/// file system's whiteout (character device 0:0) is none.
///
/// # Errors
/// `EPERM` for device nodes, `EINVAL` for what mknod(2) can't make.
pub fn check_node(mode: u32, device: u32) -> io::Result<()> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG | libc::S_IFIFO | libc::S_IFSOCK => Ok(()),
        libc::S_IFCHR if device == 0 => Ok(()),
        libc::S_IFCHR | libc::S_IFBLK => errno(libc::EPERM),
        _ => errno(libc::EINVAL),
    }
}

/// Accepts an extended attribute that a guest may set or remove: `user.*`, and the capabilities of
/// an executable. `trusted.*` and the rest of `security.*` (labels, integrity measurements) are
/// the host's.
///
/// # Errors
/// `EPERM`, or `ENOTSUP` where there is no such name space.
pub fn check_attribute(name: &CStr) -> io::Result<()> {
    let name = name.to_bytes();
    if name.starts_with(b"user.") || name == b"security.capability" {
        Ok(())
    } else if name.starts_with(b"trusted.") || name.starts_with(b"security.") {
        errno(libc::EPERM)
    } else {
        errno(libc::ENOTSUP)
    }
}

/// Accepts a range of a file that the kernel could read or write. The file server takes for granted
/// that offsets are the kernel's, which have a sign.
///
/// # Errors
/// `EINVAL`, as pread(2) and pwrite(2) have it.
pub fn check_range(offset: u64, size: u32) -> io::Result<()> {
    let end = offset.checked_add(size.into()).and_then(|end| i64::try_from(end).ok());
    if end.is_some() { Ok(()) } else { errno(libc::EINVAL) }
}

/// The flags of an open or create request that are passed on.
fn open_flags(flags: u32) -> u32 {
    flags & OPEN_FLAGS.cast_unsigned()
}

/// For root the file server takes over no supplementary groups for the call, but would leave them
/// set after it.
fn groups_of(ctx: &Context, mut extensions: Extensions) -> Extensions {
    if ctx.uid.is_root() && ctx.gid.is_root() {
        extensions.sup_gids.clear();
    }
    extensions
}

impl FileSystem for Guard {
    type Inode = Inode;
    type Handle = Handle;
    type DirIter = <PassthroughFs as FileSystem>::DirIter;

    /// Requires the client to know submounts: without them files of two shares could not be told
    /// apart.
    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        if !capable.contains(FsOptions::SUBMOUNTS) {
            log::error!("the guest's FUSE client does not support submounts (Linux 5.10)");
            return errno(libc::EPROTO);
        }
        self.inner.init(capable)
    }

    fn destroy(&self) {
        self.inner.destroy();
    }

    fn lookup(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<Entry> {
        check_name(name)?;
        self.inner.lookup(ctx, parent, name)
    }

    fn forget(&self, ctx: Context, inode: Inode, count: u64) {
        self.inner.forget(ctx, inode, count);
    }

    fn batch_forget(&self, ctx: Context, requests: Vec<(Inode, u64)>) {
        self.inner.batch_forget(ctx, requests);
    }

    fn getattr(
        &self,
        ctx: Context,
        inode: Inode,
        handle: Option<Handle>,
    ) -> io::Result<(fuse::Attr, Duration)> {
        self.inner.getattr(ctx, inode, handle)
    }

    fn setattr(
        &self,
        ctx: Context,
        inode: Inode,
        attr: fuse::SetattrIn,
        handle: Option<Handle>,
        valid: SetattrValid,
    ) -> io::Result<(fuse::Attr, Duration)> {
        self.inner.setattr(ctx, inode, attr, handle, valid)
    }

    fn readlink(&self, ctx: Context, inode: Inode) -> io::Result<Vec<u8>> {
        self.inner.readlink(ctx, inode)
    }

    /// The target is the guest's to choose: nothing on the host follows it.
    fn symlink(
        &self,
        ctx: Context,
        target: &CStr,
        parent: Inode,
        name: &CStr,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        check_name(name)?;
        match target.count_bytes() {
            0 => return errno(libc::ENOENT),
            length if length > LINK_TARGET_MAX => return errno(libc::ENAMETOOLONG),
            _ => {}
        }
        self.inner.symlink(ctx, target, parent, name, groups_of(&ctx, extensions))
    }

    fn mknod(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        device: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        check_name(name)?;
        check_node(mode, device)?;
        self.inner.mknod(ctx, parent, name, mode, device, umask, groups_of(&ctx, extensions))
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        check_name(name)?;
        self.inner.mkdir(ctx, parent, name, mode, umask, groups_of(&ctx, extensions))
    }

    fn unlink(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<()> {
        check_name(name)?;
        self.inner.unlink(ctx, parent, name)
    }

    fn rmdir(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<()> {
        check_name(name)?;
        self.inner.rmdir(ctx, parent, name)
    }

    fn rename(
        &self,
        ctx: Context,
        old_parent: Inode,
        old_name: &CStr,
        new_parent: Inode,
        new_name: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        check_name(old_name)?;
        check_name(new_name)?;
        self.inner.rename(ctx, old_parent, old_name, new_parent, new_name, flags)
    }

    fn link(
        &self,
        ctx: Context,
        inode: Inode,
        new_parent: Inode,
        new_name: &CStr,
    ) -> io::Result<Entry> {
        check_name(new_name)?;
        self.inner.link(ctx, inode, new_parent, new_name)
    }

    /// Lets the guest keep its page cache of a file on a read-only share from one open to the next:
    /// a change on the host shows by the file's time or size, which the guest looks at anyway.
    fn open(
        &self,
        ctx: Context,
        inode: Inode,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions)> {
        let (handle, mut options) = self.inner.open(ctx, inode, kill_priv, open_flags(flags))?;
        if self.inner.statfs(ctx, inode).is_ok_and(|stat| stat.f_flag & libc::ST_RDONLY != 0) {
            options |= OpenOptions::KEEP_CACHE;
        }
        Ok((handle, options))
    }

    fn create(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<Handle>, OpenOptions)> {
        check_name(name)?;
        let (flags, extensions) = (open_flags(flags), groups_of(&ctx, extensions));
        self.inner.create(ctx, parent, name, mode, kill_priv, flags, umask, extensions)
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        ctx: Context,
        inode: Inode,
        handle: Handle,
        writer: W,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        check_range(offset, size)?;
        self.inner.read(ctx, inode, handle, writer, size, offset, lock_owner, flags)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        ctx: Context,
        inode: Inode,
        handle: Handle,
        reader: R,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed: bool,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<usize> {
        check_range(offset, size)?;
        self.inner
            .write(ctx, inode, handle, reader, size, offset, lock_owner, delayed, kill_priv, flags)
    }

    fn flush(&self, ctx: Context, inode: Inode, handle: Handle, owner: u64) -> io::Result<()> {
        self.inner.flush(ctx, inode, handle, owner)
    }

    fn fsync(&self, ctx: Context, inode: Inode, data: bool, handle: Handle) -> io::Result<()> {
        self.inner.fsync(ctx, inode, data, handle)
    }

    fn fallocate(
        &self,
        ctx: Context,
        inode: Inode,
        handle: Handle,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.inner.fallocate(ctx, inode, handle, mode, offset, length)
    }

    fn release(
        &self,
        ctx: Context,
        inode: Inode,
        flags: u32,
        handle: Handle,
        flush: bool,
        flock_release: bool,
        lock_owner: Option<u64>,
    ) -> io::Result<()> {
        self.inner.release(ctx, inode, flags, handle, flush, flock_release, lock_owner)
    }

    fn statfs(&self, ctx: Context, inode: Inode) -> io::Result<libc::statvfs64> {
        self.inner.statfs(ctx, inode)
    }

    fn setxattr(
        &self,
        ctx: Context,
        inode: Inode,
        name: &CStr,
        value: &[u8],
        flags: u32,
        extra_flags: SetxattrFlags,
    ) -> io::Result<()> {
        check_attribute(name)?;
        self.inner.setxattr(ctx, inode, name, value, flags, extra_flags)
    }

    fn getxattr(
        &self,
        ctx: Context,
        inode: Inode,
        name: &CStr,
        size: u32,
    ) -> io::Result<GetxattrReply> {
        #[cfg(feature = "hostile")]
        if let Some(answer) = crate::hostile::answer(name) {
            return Ok(GetxattrReply::Value(answer));
        }
        self.inner.getxattr(ctx, inode, name, size)
    }

    fn listxattr(&self, ctx: Context, inode: Inode, size: u32) -> io::Result<ListxattrReply> {
        self.inner.listxattr(ctx, inode, size)
    }

    fn removexattr(&self, ctx: Context, inode: Inode, name: &CStr) -> io::Result<()> {
        check_attribute(name)?;
        self.inner.removexattr(ctx, inode, name)
    }

    fn opendir(
        &self,
        ctx: Context,
        inode: Inode,
        flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.inner.opendir(ctx, inode, open_flags(flags))
    }

    fn readdir(
        &self,
        ctx: Context,
        inode: Inode,
        handle: Handle,
        size: u32,
        offset: u64,
    ) -> io::Result<Self::DirIter> {
        self.inner.readdir(ctx, inode, handle, size, offset)
    }

    fn fsyncdir(&self, ctx: Context, inode: Inode, data: bool, handle: Handle) -> io::Result<()> {
        self.inner.fsyncdir(ctx, inode, data, handle)
    }

    fn releasedir(&self, ctx: Context, inode: Inode, flags: u32, handle: Handle) -> io::Result<()> {
        self.inner.releasedir(ctx, inode, flags, handle)
    }

    fn access(&self, ctx: Context, inode: Inode, mask: u32) -> io::Result<()> {
        self.inner.access(ctx, inode, mask)
    }

    fn lseek(
        &self,
        ctx: Context,
        inode: Inode,
        handle: Handle,
        offset: u64,
        whence: u32,
    ) -> io::Result<u64> {
        self.inner.lseek(ctx, inode, handle, offset, whence)
    }

    fn copyfilerange(
        &self,
        ctx: Context,
        inode_in: Inode,
        handle_in: Handle,
        offset_in: u64,
        inode_out: Inode,
        handle_out: Handle,
        offset_out: u64,
        length: u64,
        flags: u64,
    ) -> io::Result<usize> {
        self.inner.copyfilerange(
            ctx, inode_in, handle_in, offset_in, inode_out, handle_out, offset_out, length, flags,
        )
    }

    fn syncfs(&self, ctx: Context, inode: Inode) -> io::Result<()> {
        self.inner.syncfs(ctx, inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(result: io::Result<()>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn ranges_end_where_the_kernels_offsets_do() {
        let most = i64::MAX.unsigned_abs();
        for (offset, size) in [(0, 0), (0, u32::MAX), (most, 0), (most - 4096, 4096)] {
            assert_eq!(code(check_range(offset, size)), None, "{offset} {size}");
        }
        for (offset, size) in [(most, 1), (most + 1, 0), (u64::MAX, 0), (u64::MAX, u32::MAX)] {
            assert_eq!(code(check_range(offset, size)), Some(libc::EINVAL), "{offset} {size}");
        }
    }

    #[test]
    fn only_names_of_children_pass() {
        for name in [c"a", c"...", c".hidden", c"a b", c"\xff\xfe", c"-", c"a\n"] {
            assert_eq!(code(check_name(name)), None, "{name:?}");
        }
        for name in [c"", c".", c"..", c"/", c"a/b", c"../a", c"a/", c"/etc"] {
            assert_eq!(code(check_name(name)), Some(libc::EINVAL), "{name:?}");
        }
        let long = std::ffi::CString::new(vec![b'a'; 256]).unwrap();
        assert_eq!(code(check_name(&long)), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn device_nodes_are_refused_but_not_whiteouts() {
        assert_eq!(code(check_node(libc::S_IFCHR | 0o600, 0x103)), Some(libc::EPERM));
        assert_eq!(code(check_node(libc::S_IFBLK | 0o600, 0x800)), Some(libc::EPERM));
        assert_eq!(code(check_node(libc::S_IFBLK | 0o600, 0)), Some(libc::EPERM));
        assert_eq!(code(check_node(libc::S_IFDIR | 0o700, 0)), Some(libc::EINVAL));
        assert_eq!(code(check_node(libc::S_IFCHR, 0)), None);
        assert_eq!(code(check_node(libc::S_IFIFO | 0o600, 7)), None);
    }

    #[test]
    fn the_hosts_attributes_are_not_the_guests_to_set() {
        for name in [c"security.selinux", c"security.ima", c"trusted.overlay.opaque"] {
            assert_eq!(code(check_attribute(name)), Some(libc::EPERM), "{name:?}");
        }
        assert_eq!(code(check_attribute(c"system.posix_acl_access")), Some(libc::ENOTSUP));
        assert_eq!(code(check_attribute(c"user.mime")), None);
        assert_eq!(code(check_attribute(c"security.capability")), None);
    }

    #[test]
    fn an_open_can_neither_create_nor_evade_the_check_of_the_file_type() {
        let hostile = libc::O_CREAT | libc::O_TMPFILE | libc::O_PATH | libc::O_ASYNC;
        let left = open_flags((hostile | libc::O_RDWR).cast_unsigned()).cast_signed();
        assert_eq!(left & (libc::O_CREAT | libc::O_PATH | libc::O_ASYNC), 0);
        assert_ne!(left & libc::O_TMPFILE, libc::O_TMPFILE);
        assert_eq!(left & libc::O_ACCMODE, libc::O_RDWR);
    }

    proptest! {
        #[test]
        fn a_name_that_passes_is_one_component(bytes in proptest::collection::vec(1u8.., 0..300)) {
            let name = std::ffi::CString::new(bytes).unwrap();
            if check_name(&name).is_ok() {
                let path = std::path::Path::new("/share");
                let os: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes());
                let joined = path.join(os);
                prop_assert_eq!(joined.parent(), Some(path));
                prop_assert_eq!(joined.file_name(), Some(os));
            }
        }
    }
}
