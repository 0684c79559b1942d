//! A monitor and a guest in one: vhost-user frontend, virtqueues in a memfd, FUSE requests.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use vhost::vhost_user::message::VhostUserVirtioFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtiofsd::filesystem::FsOptions;
use virtiofsd::fuse::{
    Attr, AttrOut, CreateIn, Dirent, EntryOut, ForgetIn, GetattrIn, GetxattrIn, InHeader,
    InitInCompat, InitInExt, LinkIn, MkdirIn, MknodIn, Opcode, OpenIn, OpenOut, OutHeader, ReadIn,
    ReleaseIn, Rename2In, SetattrIn, SetxattrInCompat, WriteIn, WriteOut,
};
use vm_memory::{
    ByteValued, Bytes, FileOffset, GuestAddress, GuestMemory, GuestMemoryMmap, GuestRegionMmap,
    MmapRegion,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What the FUSE client of Linux 6.12 offers, as far as it matters here.
pub const LINUX: FsOptions = FsOptions::SUBMOUNTS
    .union(FsOptions::HANDLE_KILLPRIV_V2)
    .union(FsOptions::CREATE_SUPP_GROUP)
    .union(FsOptions::AUTO_INVAL_DATA);

pub const ROOT: u64 = 1;
pub const REQUESTS: usize = 1;
pub const HIGH_PRIORITY: usize = 0;

const MEMORY: u64 = 16 << 20;
const QUEUE_SIZE: u16 = 128;
const AVAIL: u64 = 0x4000;
const USED: u64 = 0x8000;
const REQUEST: u64 = 0x10_0000;
const REPLY: u64 = 0x40_0000;
const REPLY_MAX: u32 = (1 << 20) + 4096;
/// VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC, and the vhost-user protocol features.
const FEATURES: u64 = (1 << 32) | (1 << 28) | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
const PATIENCE: Duration = Duration::from_secs(20);

pub const DESC_NEXT: u16 = 1;
pub const DESC_WRITE: u16 = 2;
pub const DESC_INDIRECT: u16 = 4;

/// A descriptor of a virtqueue (virtio 1.3 §2.7.5).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub flags: u16,
    pub next: u16,
}
// SAFETY: plain integers without padding.
unsafe impl ByteValued for Descriptor {}

struct Queue {
    base: u64,
    next_avail: u16,
    seen_used: u16,
    kick: EventFd,
    call: EventFd,
}

/// The result of a request: the reply's body, or the errno.
pub type Reply<T> = Result<T, i32>;

/// A worker process and everything on our side of it.
pub struct Guest {
    pub worker: Worker,
    memory: GuestMemoryMmap,
    queues: [Queue; 2],
    /// Whom requests are made by.
    pub uid: u32,
    pub gid: u32,
    unique: u64,
    pub frontend: Frontend,
    _memfd: File,
}

/// The worker under test: the one just built, or the one that `SANDBOX_FS` names.
pub fn program() -> OsString {
    std::env::var_os("SANDBOX_FS").unwrap_or_else(|| env!("CARGO_BIN_EXE_sandbox-fs").into())
}

/// A started worker, ended when dropped.
pub struct Worker(Child);

impl Worker {
    /// Starts a worker with `shares` as its arguments; `environment` can set what it inherits.
    pub fn start(shares: &[String]) -> (Self, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        rustix::io::fcntl_setfd(&listener, FdFlags::empty()).unwrap();
        let mut command = Command::new(program());
        command.args(["--fd", &listener.as_raw_fd().to_string()]);
        for share in shares {
            command.args(["--share", share]);
        }
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        (Self(command.spawn().unwrap()), stream)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for the end; panics if it doesn't come. Returns the status and standard error.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the worker does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut text = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
        }
        (status, text)
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest {
    /// Starts a worker for `shares`, connects, and mounts.
    pub fn mount(shares: &[String]) -> Self {
        let mut guest = Self::connect(shares);
        guest.init(LINUX).unwrap();
        guest
    }

    /// One read-write share called `share`.
    pub fn of(path: &Path) -> (Self, u64) {
        let mut guest = Self::mount(&[format!("share={}", path.display())]);
        let share = guest.lookup(ROOT, "share").unwrap().nodeid;
        (guest, share)
    }

    /// Starts a worker for `shares` and sets up the device.
    pub fn connect(shares: &[String]) -> Self {
        let (worker, stream) = Worker::start(shares);
        let memfd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memfd, MEMORY).unwrap();
        let memfd = File::from(memfd);
        let mapping =
            MmapRegion::from_file(FileOffset::new(memfd.try_clone().unwrap(), 0), MEMORY as usize)
                .unwrap();
        let region = GuestRegionMmap::new(mapping, GuestAddress(0)).unwrap();
        let memory = GuestMemoryMmap::from_regions(vec![region]).unwrap();
        let host = memory.get_host_address(GuestAddress(0)).unwrap() as u64;

        let mut frontend = Frontend::from_stream(stream, 2);
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        assert_eq!(features & FEATURES, FEATURES);
        let protocol = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol).unwrap();
        assert_eq!(frontend.get_queue_num().unwrap(), 2);
        frontend
            .set_mem_table(&[VhostUserMemoryRegionInfo {
                guest_phys_addr: 0,
                memory_size: MEMORY,
                userspace_addr: host,
                mmap_offset: 0,
                mmap_handle: memfd.as_raw_fd(),
            }])
            .unwrap();
        let queues = [0u64, 1].map(|index| Queue {
            base: index * 0x1_0000,
            next_avail: 0,
            seen_used: 0,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
        });
        let mut guest =
            Self { worker, memory, queues, uid: 0, gid: 0, unique: 0, frontend, _memfd: memfd };
        guest.set_up();
        guest
    }

    /// Hangs up and returns how the worker ended.
    pub fn hang_up(self) -> (ExitStatus, String) {
        let Self { mut worker, frontend, .. } = self;
        drop(frontend);
        worker.wait()
    }

    /// What the driver does at a reset, and sets up again after it.
    pub fn reset(&mut self) {
        for index in 0..2 {
            self.frontend.get_vring_base(index).unwrap();
        }
        self.frontend.reset_device().unwrap();
        self.set_up();
    }

    fn set_up(&mut self) {
        self.frontend.set_features(FEATURES).unwrap();
        let host = self.memory.get_host_address(GuestAddress(0)).unwrap() as u64;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            (queue.next_avail, queue.seen_used) = (0, 0);
            for ring in [AVAIL, USED] {
                self.memory.write_obj(0u32, GuestAddress(queue.base + ring)).unwrap();
            }
            self.frontend.set_vring_num(index, QUEUE_SIZE).unwrap();
            let addresses = VringConfigData {
                queue_max_size: QUEUE_SIZE,
                queue_size: QUEUE_SIZE,
                flags: 0,
                desc_table_addr: host + queue.base,
                used_ring_addr: host + queue.base + USED,
                avail_ring_addr: host + queue.base + AVAIL,
                log_addr: None,
            };
            self.frontend.set_vring_addr(index, &addresses).unwrap();
            self.frontend.set_vring_base(index, 0).unwrap();
            self.frontend.set_vring_call(index, &queue.call).unwrap();
            self.frontend.set_vring_kick(index, &queue.kick).unwrap();
            self.frontend.set_vring_enable(index, true).unwrap();
        }
    }

    pub fn write_memory(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub fn write_descriptor(&self, queue: usize, index: u16, descriptor: Descriptor) {
        let address = self.queues[queue].base + u64::from(index) * 16;
        self.memory.write_obj(descriptor, GuestAddress(address)).unwrap();
    }

    /// Makes the chain that starts at descriptor `head` available and waits until it is used.
    /// Returns the number of bytes written, or nothing if the worker stopped the queue or ended.
    pub fn offer(&mut self, queue: usize, head: u16) -> Option<u32> {
        let slot = &mut self.queues[queue];
        let (base, entry) = (slot.base, u64::from(slot.next_avail % QUEUE_SIZE));
        slot.next_avail = slot.next_avail.wrapping_add(1);
        let avail = GuestAddress(base + AVAIL + 4 + entry * 2);
        self.memory.write_obj(head, avail).unwrap();
        self.memory.write_obj(slot.next_avail, GuestAddress(base + AVAIL + 2)).unwrap();
        slot.kick.write(1).unwrap();

        let deadline = Instant::now() + PATIENCE;
        loop {
            let used: u16 = self.memory.read_obj(GuestAddress(base + USED + 2)).unwrap();
            if used != slot.seen_used {
                let entry = u64::from(slot.seen_used % QUEUE_SIZE);
                slot.seen_used = slot.seen_used.wrapping_add(1);
                let length = GuestAddress(base + USED + 4 + entry * 8 + 4);
                return Some(self.memory.read_obj(length).unwrap());
            }
            if !self.worker.is_running() {
                return None;
            }
            assert!(Instant::now() < deadline, "the worker does not answer");
            // SAFETY: the descriptor is open as long as the queue, which outlives the loop.
            let call = unsafe { BorrowedFd::borrow_raw(slot.call.as_raw_fd()) };
            let mut descriptors = [PollFd::from_borrowed_fd(call, PollFlags::IN)];
            let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            if poll(&mut descriptors, Some(&pause)).unwrap() == 1 {
                slot.call.read().unwrap();
            }
        }
    }

    /// Sends header and body, each in a descriptor of its own, and returns the body of the reply.
    pub fn call(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Reply<Vec<u8>> {
        self.call_for(opcode, node, body, REPLY_MAX)
    }

    fn call_for(&mut self, opcode: Opcode, node: u64, body: &[u8], room: u32) -> Reply<Vec<u8>> {
        self.unique += 1;
        let header = InHeader {
            len: (size_of::<InHeader>() + body.len()) as u32,
            opcode: opcode as u32,
            unique: self.unique,
            nodeid: node,
            uid: self.uid.into(),
            gid: self.gid.into(),
            pid: 7,
            ..InHeader::default()
        };
        let body_at = REQUEST + size_of::<InHeader>() as u64;
        self.write_memory(REQUEST, header.as_slice());
        self.write_memory(body_at, body);
        let lengths = [
            (REQUEST, size_of::<InHeader>() as u32, DESC_NEXT),
            (body_at, body.len() as u32, DESC_NEXT),
            (REPLY, room, DESC_WRITE),
        ];
        for (index, (address, length, flags)) in (0u16..).zip(lengths) {
            let next = index + 1;
            self.write_descriptor(REQUESTS, index, Descriptor { address, length, flags, next });
        }
        let used = self.offer(REQUESTS, 0).expect("the worker ended");
        assert!(used as usize >= size_of::<OutHeader>(), "{opcode:?}: no reply ({used} bytes)");
        let out: OutHeader = self.memory.read_obj(GuestAddress(REPLY)).unwrap();
        assert_eq!(out.unique, self.unique);
        assert_eq!(out.len, used);
        if out.error != 0 {
            return Err(-out.error);
        }
        let mut reply = vec![0; used as usize - size_of::<OutHeader>()];
        let start = GuestAddress(REPLY + size_of::<OutHeader>() as u64);
        self.memory.read_slice(&mut reply, start).unwrap();
        Ok(reply)
    }

    pub fn init(&mut self, capable: FsOptions) -> Reply<FsOptions> {
        let flags = (capable | FsOptions::INIT_EXT).bits();
        let body = InitInCompat { major: 7, minor: 38, max_readahead: 0, flags: flags as u32 };
        let extension = InitInExt { flags2: (flags >> 32) as u32, ..InitInExt::default() };
        let reply = self.call(Opcode::Init, 0, &join(&body, extension.as_slice()))?;
        let out: virtiofsd::fuse::InitOut = object(&reply);
        Ok(FsOptions::from_bits_truncate(u64::from(out.flags) | (u64::from(out.flags2) << 32)))
    }

    pub fn lookup(&mut self, parent: u64, name: impl AsRef<OsStr>) -> Reply<EntryOut> {
        self.call(Opcode::Lookup, parent, &text(name)).map(|reply| object(&reply))
    }

    pub fn forget(&mut self, node: u64, count: u64) {
        let header = InHeader {
            len: 48,
            opcode: Opcode::Forget as u32,
            nodeid: node,
            ..InHeader::default()
        };
        let request = join(&header, ForgetIn { nlookup: count }.as_slice());
        self.write_memory(REQUEST, &request);
        let descriptor =
            Descriptor { address: REQUEST, length: request.len() as u32, flags: 0, next: 0 };
        self.write_descriptor(HIGH_PRIORITY, 0, descriptor);
        assert_eq!(self.offer(HIGH_PRIORITY, 0), Some(0));
    }

    pub fn getattr(&mut self, node: u64) -> Reply<Attr> {
        let reply = self.call(Opcode::Getattr, node, GetattrIn::default().as_slice())?;
        Ok(object::<AttrOut>(&reply).attr)
    }

    pub fn setattr(&mut self, node: u64, change: SetattrIn) -> Reply<Attr> {
        let reply = self.call(Opcode::Setattr, node, change.as_slice())?;
        Ok(object::<AttrOut>(&reply).attr)
    }

    pub fn open(&mut self, node: u64, flags: i32) -> Reply<OpenOut> {
        let body = OpenIn { flags: flags as u32, ..OpenIn::default() };
        self.call(Opcode::Open, node, body.as_slice()).map(|reply| object(&reply))
    }

    pub fn opendir(&mut self, node: u64) -> Reply<OpenOut> {
        self.call(Opcode::Opendir, node, OpenIn::default().as_slice()).map(|reply| object(&reply))
    }

    pub fn release(&mut self, node: u64, handle: u64) -> Reply<()> {
        let body = ReleaseIn { fh: handle, ..ReleaseIn::default() };
        self.call(Opcode::Release, node, body.as_slice()).map(drop)
    }

    pub fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Reply<Vec<u8>> {
        let body = ReadIn { fh: handle, offset, size, ..ReadIn::default() };
        self.call_for(Opcode::Read, node, body.as_slice(), size + 16)
    }

    pub fn write(&mut self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Reply<u32> {
        let body = WriteIn { fh: handle, offset, size: data.len() as u32, ..WriteIn::default() };
        let reply = self.call(Opcode::Write, node, &join(&body, data))?;
        Ok(object::<WriteOut>(&reply).size)
    }

    pub fn create(
        &mut self,
        parent: u64,
        name: impl AsRef<OsStr>,
        flags: i32,
        mode: u32,
    ) -> Reply<(EntryOut, OpenOut)> {
        let body = CreateIn { flags: flags as u32, mode, ..CreateIn::default() };
        let reply = self.call(Opcode::Create, parent, &join(&body, &text(name)))?;
        Ok((object(&reply), object(&reply[size_of::<EntryOut>()..])))
    }

    pub fn mkdir(&mut self, parent: u64, name: impl AsRef<OsStr>, mode: u32) -> Reply<EntryOut> {
        let body = MkdirIn { mode, umask: 0 };
        self.call(Opcode::Mkdir, parent, &join(&body, &text(name))).map(|reply| object(&reply))
    }

    /// mkdir by a user who is also a member of `group`.
    pub fn mkdir_in_group(&mut self, parent: u64, name: &str, group: u32) -> Reply<EntryOut> {
        const EXT_GROUPS: u32 = 32;
        let mut body = join(&MkdirIn { mode: 0o755, umask: 0 }, &text(name));
        for number in [16, EXT_GROUPS, 1, group] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        self.call(Opcode::Mkdir, parent, &body).map(|reply| object(&reply))
    }

    pub fn mknod(
        &mut self,
        parent: u64,
        name: impl AsRef<OsStr>,
        mode: u32,
        rdev: u32,
    ) -> Reply<EntryOut> {
        let body = MknodIn { mode, rdev, ..MknodIn::default() };
        self.call(Opcode::Mknod, parent, &join(&body, &text(name))).map(|reply| object(&reply))
    }

    pub fn symlink(
        &mut self,
        parent: u64,
        name: impl AsRef<OsStr>,
        target: impl AsRef<OsStr>,
    ) -> Reply<EntryOut> {
        let body = [text(name), text(target)].concat();
        self.call(Opcode::Symlink, parent, &body).map(|reply| object(&reply))
    }

    pub fn readlink(&mut self, node: u64) -> Reply<Vec<u8>> {
        self.call(Opcode::Readlink, node, &[])
    }

    pub fn link(&mut self, node: u64, parent: u64, name: impl AsRef<OsStr>) -> Reply<EntryOut> {
        let body = LinkIn { oldnodeid: node };
        self.call(Opcode::Link, parent, &join(&body, &text(name))).map(|reply| object(&reply))
    }

    pub fn rename(
        &mut self,
        old_parent: u64,
        old: impl AsRef<OsStr>,
        new_parent: u64,
        new: impl AsRef<OsStr>,
        flags: u32,
    ) -> Reply<()> {
        let body = Rename2In { newdir: new_parent, flags, padding: 0 };
        let names = [text(old), text(new)].concat();
        self.call(Opcode::Rename2, old_parent, &join(&body, &names)).map(drop)
    }

    pub fn unlink(&mut self, parent: u64, name: impl AsRef<OsStr>) -> Reply<()> {
        self.call(Opcode::Unlink, parent, &text(name)).map(drop)
    }

    pub fn rmdir(&mut self, parent: u64, name: impl AsRef<OsStr>) -> Reply<()> {
        self.call(Opcode::Rmdir, parent, &text(name)).map(drop)
    }

    pub fn setxattr(&mut self, node: u64, name: &str, value: &[u8]) -> Reply<()> {
        let body = SetxattrInCompat { size: value.len() as u32, flags: 0 };
        let rest = [&text(name), value].concat();
        self.call(Opcode::Setxattr, node, &join(&body, &rest)).map(drop)
    }

    pub fn getxattr(&mut self, node: u64, name: &str) -> Reply<Vec<u8>> {
        let body = GetxattrIn { size: 4096, padding: 0 };
        self.call(Opcode::Getxattr, node, &join(&body, &text(name)))
    }

    /// All names in a directory but `.` and `..`, read as a guest does: until nothing comes.
    pub fn names(&mut self, node: u64) -> Reply<Vec<Vec<u8>>> {
        let handle = self.opendir(node)?.fh;
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let body = ReadIn { fh: handle, offset, size: 1 << 16, ..ReadIn::default() };
            let reply = self.call(Opcode::Readdir, node, body.as_slice())?;
            if reply.is_empty() {
                let body = ReleaseIn { fh: handle, ..ReleaseIn::default() };
                self.call(Opcode::Releasedir, node, body.as_slice())?;
                return Ok(names);
            }
            let mut rest = &reply[..];
            while !rest.is_empty() {
                let entry: Dirent = object(rest);
                let name = &rest[24..24 + entry.namelen as usize];
                if name != b"." && name != b".." {
                    names.push(name.to_vec());
                }
                offset = entry.off;
                rest = &rest[(24 + name.len()).next_multiple_of(8)..];
            }
        }
    }
}

/// The start of `bytes` as an object.
pub fn object<T: ByteValued>(bytes: &[u8]) -> T {
    let mut object = T::zeroed();
    object.as_mut_slice().copy_from_slice(&bytes[..size_of::<T>()]);
    object
}

pub fn join<T: ByteValued>(object: &T, rest: &[u8]) -> Vec<u8> {
    [object.as_slice(), rest].concat()
}

/// A string argument: NUL-terminated.
pub fn text(name: impl AsRef<OsStr>) -> Vec<u8> {
    [name.as_ref().as_bytes(), b"\0"].concat()
}
