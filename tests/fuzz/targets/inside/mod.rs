//! A virtio-fs worker's device with a file server behind it, in this process: on a thread whose
//! root directory holds nothing but two shares, so that not even a mistake reaches this machine.
#![allow(dead_code, reason = "each target needs another part of it")]

use crate::driver::{Driver, MEMORY, SIZE};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use sandbox_fs::device::{Device, REQUEST_QUEUE};
use sandbox_fs::guard::Guard;
use sandbox_fs::worker;
use sandbox_vmm::memory::{self, GuestMemory};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use vhost::vhost_user::VhostUserBackendReqHandlerMut as _;
use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserVringAddrFlags};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// Where the worker's messages say that guest memory is.
const FRONTEND: u64 = 0x7000_0000;
/// Files that a guest may hold.
const GUEST_FILES: u64 = 200;
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 30;

/// What a thread has that is inside.
pub struct Inside {
    files: Guard,
    pub device: Device,
    pub memory: GuestMemory,
    /// The second lowest descriptor that is free when no guest holds files.
    lowest: Option<i32>,
}

/// The thread's name.
const INSIDE: &str = "inside";

type Job = Box<dyn FnOnce(&mut Inside) + Send>;

/// Does something inside, and waits for it.
pub fn inside(job: impl FnOnce(&mut Inside) + Send + 'static) {
    static THREAD: OnceLock<(SyncSender<Job>, std::sync::Mutex<Receiver<()>>)> = OnceLock::new();
    let (jobs, done) = THREAD.get_or_init(|| {
        let (jobs, todo) = sync_channel::<Job>(0);
        let (finished, done) = sync_channel(0);
        let work = move || {
            let mut inside = enter();
            for job in todo {
                job(&mut inside);
                finished.send(()).expect("somebody waits");
            }
        };
        // What fails inside fails where the fuzzer can keep the input: from there it sees no file.
        let fail = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(INSIDE) {
                eprintln!("{panic}")
            } else {
                fail(panic)
            }
        }));
        std::thread::Builder::new().name(INSIDE.into()).spawn(work).expect("a thread");
        (jobs, done.into())
    });
    jobs.send(Box::new(job)).expect("the thread is there");
    done.lock().expect("one at a time").recv().expect("the thread is there");
}

/// Moves this thread to where it sees two shares.
fn enter() -> Inside {
    let proc_self_fd = File::open("/proc/self/fd").expect("/proc");
    // SAFETY: what is unshared is this thread's own: mounts, root and working directory.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
        .expect("this needs root (CAP_SYS_ADMIN)");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).expect("private mounts");
    let tmpfs = |at: &str| {
        let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        rustix::mount::mount("tmpfs", at, "tmpfs", flags, Some(c"size=8m,mode=755"))
            .expect("a tmpfs");
    };
    tmpfs("/tmp");
    std::env::set_current_dir("/tmp").expect("a directory");
    rustix::process::pivot_root(".", ".").expect("a root of its own");
    rustix::mount::unmount(".", UnmountFlags::DETACH).expect("the old root goes");
    std::env::set_current_dir("/").expect("a directory");
    for share in ["/share", "/fixed"] {
        fs::create_dir(share).expect("a directory");
        tmpfs(share);
    }
    fs::write("/fixed/secret", "nobody changes this").expect("a file");
    for path in ["/fixed", "/"] {
        rustix::mount::mount_remount(path, MountFlags::RDONLY, c"").expect("read-only");
    }

    let memory = memory::allocate(MEMORY, memory::Backing::Shared).expect("memory");
    let files = worker::file_server(proc_self_fd, GUEST_FILES).expect("a file server");
    let device = Device::new(files.clone()).expect("a device");
    let mut inside = Inside { files, device, memory, lowest: None };
    inside.start();
    inside
}

impl Inside {
    /// The file that guest memory is.
    pub fn memfd(&self) -> File {
        let region = self.memory.iter().next().expect("there is memory");
        region.file_offset().expect("in a file").file().try_clone().expect("a descriptor")
    }

    /// The file server, which all devices here share.
    pub fn files(&self) -> Guard {
        self.files.clone()
    }

    /// Makes everything new: files, session, queues.
    pub fn restart(&mut self) {
        self.device.reset_device().expect("a reset");
        // What the last input left behind, and this thread's own, which requests change in between.
        assert_eq!(rustix::process::geteuid().as_raw(), 0);
        assert_eq!(rustix::process::getegid().as_raw(), 0);
        for entry in fs::read_dir("/share").expect("the share") {
            remove(&entry.expect("an entry").path());
        }
        fs::set_permissions("/share", fs::Permissions::from_mode(0o755)).expect("the share");
        fs::write("/share/file", "shared").expect("a file");
        fs::create_dir("/share/dir").expect("a directory");
        fs::write("/share/dir/inner", [7; 5000]).expect("a file");
        symlink("../fixed/secret", "/share/link").expect("a link");
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, "/share/pipe", FileType::Fifo, mode, 0).expect("a pipe");
        // Nothing stays open of the last input but one file, guest memory, whose number takes turns
        // with the next one's.
        let (_first, second) = (self.memfd(), self.memfd());
        let lowest = second.as_raw_fd();
        assert_eq!(*self.lowest.get_or_insert(lowest), lowest, "a descriptor stayed open");
    }

    /// As a monitor starts the device; the driver's rings are new.
    pub fn start(&mut self) -> Driver {
        let driver = Driver::on(self.memory.clone(), 2);
        let parts = [0, 1].map(Driver::parts);
        let region = VhostUserMemoryRegion::new(0, MEMORY, FRONTEND, 0);
        let file = self.memfd();
        let kicks = [self.memfd(), self.memfd()];
        let device = &mut self.device;
        device.set_features(FEATURES).expect("features");
        device.set_mem_table(&[region], vec![file]).expect("memory");
        for ((index, [descriptors, available, used]), kick) in (0u32..).zip(parts).zip(kicks) {
            device.set_vring_num(index, SIZE.into()).expect("a size");
            device
                .set_vring_addr(
                    index,
                    VhostUserVringAddrFlags::empty(),
                    FRONTEND + descriptors,
                    FRONTEND + used,
                    FRONTEND + available,
                    0,
                )
                .expect("addresses");
            device.set_vring_base(index, 0).expect("a base");
            device.set_vring_kick(index as u8, Some(kick)).expect("a kick");
            device.set_vring_enable(index, true).expect("a queue");
        }
        driver
    }

    /// Lets the device work until it has nothing to do.
    pub fn process(&mut self, queue: usize) {
        for _ in 0..4 {
            if !self.device.process(queue, false).expect("no kick is read") {
                return;
            }
        }
        assert_eq!(queue, REQUEST_QUEUE, "an end of work");
    }

    /// What is shared read-only is as it was, and there is nothing beside the shares.
    pub fn check(&self) {
        let names = |path: &str| {
            let entries = fs::read_dir(path).expect("a directory");
            let mut names: Vec<_> =
                entries.map(|entry| entry.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("/"), ["fixed", "share"]);
        assert_eq!(names("/fixed"), ["secret"]);
        assert_eq!(fs::read("/fixed/secret").expect("a file"), b"nobody changes this");
        let stat = rustix::fs::stat("/fixed/secret").expect("a file");
        assert_eq!((stat.st_mode & 0o7777, stat.st_uid, stat.st_nlink), (0o644, 0, 1));
    }
}

/// Removes whatever is there.
fn remove(path: &Path) {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|file| file.is_dir());
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.expect("it can be removed");
}
