//! Trees written as EROFS, and read back by the kernel.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[path = "../common/mod.rs"]
mod common;
mod random;

use common::{
    Found, Header, Tar, assert_same,
    mount::{ImageFile, Mounted, can_mount, fsck},
    walk,
};
use rustix::fs::{SeekFrom, seek};
use sandbox_image::{
    Error, Limit, Limits, Progress, Step, erofs,
    layer::Content,
    tree::{LayerFormat, NodeId, NodeKind, Tree},
    verity::BLOCK,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Cursor, Read as _, Write as _},
    ops::ControlFlow,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _, fs::MetadataExt as _},
    path::Path,
    process::Command,
};

const ACL: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x04\0\x05\0\0\0\x04\0\x05\0\
    \xff\xff\xff\xff\x10\0\x05\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Layers, as archives and as a tree.
struct Image {
    layers: Vec<Vec<u8>>,
    tree: Tree,
}

impl Image {
    fn new(layers: impl IntoIterator<Item = Tar>) -> Self {
        Self::with_limits(layers, &Limits::default())
    }

    fn with_limits(layers: impl IntoIterator<Item = Tar>, limits: &Limits) -> Self {
        let layers: Vec<_> = layers.into_iter().map(Tar::finish).collect();
        let mut tree = Tree::new();
        for layer in &layers {
            tree.apply(Cursor::new(layer), LayerFormat::Changeset, limits).unwrap();
        }
        Self { layers, tree }
    }

    fn try_write(&self) -> Result<ImageFile, Error> {
        let spools = self.layers.iter().map(|layer| {
            let mut spool = tempfile::tempfile().unwrap();
            spool.write_all(layer).unwrap();
            spool
        });
        let spools: Vec<File> = spools.collect();
        let file = ImageFile::new();
        let opened = file.open();
        let size = erofs::write(&self.tree, &spools, &opened, &mut ())?;
        assert_eq!((opened.metadata().unwrap().len(), size % BLOCK), (size, 0));
        Ok(file)
    }

    #[track_caller]
    fn write(&self) -> ImageFile {
        self.try_write().unwrap()
    }

    #[track_caller]
    fn bytes(&self) -> Vec<u8> {
        fs::read(self.write().path()).unwrap()
    }

    fn content(&self, layer: u16, content: &Content) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
        for extent in content.extents() {
            let [to, from, length] = [extent.offset, extent.position, extent.length]
                .map(|number| usize::try_from(number).unwrap());
            let layer = &self.layers[usize::from(layer)];
            bytes[to..to + length].copy_from_slice(&layer[from..from + length]);
        }
        bytes
    }

    /// What the kernel should find, by path.
    fn expected(&self) -> BTreeMap<Vec<u8>, Found> {
        let counts = self.tree.link_counts();
        let mut expected = BTreeMap::new();
        let mut firsts: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
        let mut pending = vec![(Vec::new(), self.tree.root())];
        while let Some((path, id)) = pending.pop() {
            let node = self.tree.node(id);
            let (kind, content) = match &node.kind {
                NodeKind::Directory(_) => ("directory", Vec::new()),
                NodeKind::File { layer, content } => ("file", self.content(*layer, content)),
                NodeKind::Symlink(target) => ("link", target.to_vec()),
                NodeKind::Fifo => ("fifo", Vec::new()),
            };
            if counts.get(&id).is_some_and(|&count| count > 1) {
                let first = firsts.entry(id).or_insert_with(|| path.clone());
                *first = path.clone().min(first.clone());
            }
            let metadata = &node.metadata;
            let may_have_xattrs = matches!(kind, "directory" | "file");
            let xattrs = metadata.xattrs.iter().filter(|_| may_have_xattrs);
            let found = Found {
                kind: kind.to_owned(),
                mode: if kind == "link" { 0 } else { metadata.mode.into() },
                uid: metadata.uid,
                gid: metadata.gid,
                mtime: (metadata.mtime.seconds, metadata.mtime.nanoseconds.into()),
                content,
                same_as: None,
                xattrs: xattrs.map(|it| (it.name.clone(), it.value.clone())).collect(),
            };
            expected.insert(path.clone(), found);
            for (name, child) in self.tree.children(id) {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                pending.push(([&path, slash, name].concat(), child));
            }
        }
        self.name_links(&mut expected, &firsts);
        expected
    }

    fn name_links(
        &self,
        expected: &mut BTreeMap<Vec<u8>, Found>,
        firsts: &BTreeMap<NodeId, Vec<u8>>,
    ) {
        for (path, found) in expected {
            let mut node = self.tree.root();
            for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
                node = self.tree.children(node).find(|(other, _)| *other == name).unwrap().1;
            }
            found.same_as = firsts.get(&node).cloned();
        }
    }

    /// Writes it, and has the kernel and `fsck.erofs` read it.
    #[track_caller]
    fn check(&self) {
        let file = self.write();
        fsck(&file.path());
        if !can_mount() {
            return;
        }
        let mounted = Mounted::new(&file.path());
        assert_same(&walk(mounted.path()), &self.expected());
        self.check_links(mounted.path());
    }

    /// Numbers of links, and that each name is found when it is looked for.
    fn check_links(&self, root: &Path) {
        let counts = self.tree.link_counts();
        let mut pending = vec![(root.to_owned(), self.tree.root())];
        while let Some((path, id)) = pending.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let directories =
                self.tree.children(id).filter(|(_, child)| is_directory(&self.tree, *child));
            let links = if is_directory(&self.tree, id) {
                directories.count() as u64 + 2
            } else {
                u64::from(counts[&id])
            };
            assert_eq!(metadata.nlink(), links, "{}", path.display());
            let names = self.tree.children(id);
            pending.extend(
                names.map(|(name, child)| (path.join(std::ffi::OsStr::from_bytes(name)), child)),
            );
        }
    }
}

fn is_directory(tree: &Tree, id: NodeId) -> bool {
    matches!(tree.node(id).kind, NodeKind::Directory(_))
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251 + at / 4096).to_le_bytes()[0]).collect()
}

fn sparse(tar: Tar, name: &str, size: u64, pieces: &[(u64, u64)]) -> Tar {
    let map: Vec<_> = pieces.iter().map(|(offset, length)| format!("{offset},{length}")).collect();
    let total: u64 = pieces.iter().map(|(_, length)| length).sum();
    let content = pattern(usize::try_from(total).unwrap());
    let (size, count, map) = (size.to_string(), pieces.len().to_string(), map.join(","));
    let mut records = vec![
        ("GNU.sparse.name", name.as_bytes()),
        ("GNU.sparse.size", size.as_bytes()),
        ("GNU.sparse.numblocks", count.as_bytes()),
    ];
    if !pieces.is_empty() {
        records.push(("GNU.sparse.map", map.as_bytes()));
    }
    let length = content.len() as u64;
    tar.pax(&records).entry(&Header::new(b'0', b"sparse", length), &content)
}

#[test]
fn an_empty_image_is_a_file_system() {
    Image::new([]).check();
    Image::new([Tar::new()]).check();
}

#[test]
fn sizes_around_the_borders_of_blocks() {
    let mut tar = Tar::new();
    for blocks in [0, 1, 2, 17] {
        for rest in [0, 1, 31, 32, 33, 63, 64, 65, 2000, 4031, 4032, 4033, 4064, 4095] {
            let size = blocks * 4096 + rest;
            tar = tar.file(&format!("{size:06}"), &pattern(size));
        }
    }
    for size in [1, 59, 60, 2000, 4031, 4032, 4033, 4064, 4095] {
        let (name, target) = (format!("link-{size}"), "x".repeat(size));
        tar = tar.pax(&[("linkpath", target.as_bytes())]).symlink(&name, "y");
    }
    Image::new([tar]).check();
}

#[test]
fn kinds_owners_times_and_modes() {
    let mut tar = Tar::new().file("a", b"1").hard_link("b/c/d", "a").hard_link("z", "b/c/d");
    tar = tar.symlink("link", "a").hard_link("link-too", "link").special(b'6', "fifo");
    tar = tar.directory("empty").hard_link("b/fifo-too", "fifo").file("b/only", b"");
    for (number, mode) in [0, 0o7777, 0o4755, 0o1777, 0o400].into_iter().enumerate() {
        let name = format!("mode-{number}");
        tar = tar.entry(Header::new(b'0', name.as_bytes(), 0).mode(mode), b"");
    }
    for (number, time) in
        ["0", "1.000000001", "-1.5", "4294967296.999999999", "-9999999999", "253402300799"]
            .into_iter()
            .enumerate()
    {
        tar = tar.pax(&[("mtime", time.as_bytes()), ("uid", b"4294967294"), ("gid", b"70000")]);
        tar = tar.directory(&format!("time-{number}"));
    }
    Image::new([tar]).check();
}

#[test]
fn names_sort_by_their_bytes() {
    let mut tar = Tar::new();
    for name in
        ["!", "-", ".-", ".!x", "..-", "...", "..a", ".a", "/", "0", "a", "aa", "\u{ff}", "~"]
    {
        if name != "/" {
            tar = tar.file(&format!("d/{name}"), name.as_bytes());
        }
    }
    tar = tar.pax(&[("path", b"d/\xff\xfe\x80")]).file("x", b"bytes");
    tar = tar.pax(&[("path", b"d/new\nline\x01")]).file("x", b"bytes");
    Image::new([tar]).check();
}

#[test]
fn long_names_and_deep_paths() {
    let mut tar = Tar::new();
    for number in 0..100 {
        tar = tar.file(&format!("d/{number:0255}"), b"x");
    }
    let mut path = "p".to_owned();
    while path.len() < 4000 {
        path.push_str(&format!("/{}", "q".repeat(14)));
        tar = tar.directory(&path);
    }
    let mut limits = Limits::default();
    limits.set(Limit::Depth, 512).unwrap();
    Image::with_limits([tar], &limits).check();
}

#[test]
fn extended_attributes() {
    let value = |length: usize| pattern(length);
    let mut tar = Tar::new().pax(&[("SCHILY.xattr.user.root", b"is a directory, too")]);
    tar = tar.directory("./");
    for length in [0, 1, 2, 3, 4, 3900, 3948, 3949, 4096, 10_000, 65_000] {
        let large = value(length);
        let records = [
            ("SCHILY.xattr.security.capability", CAPABILITY),
            ("SCHILY.xattr.system.posix_acl_access", ACL),
            ("SCHILY.xattr.user.large", &large),
            ("SCHILY.xattr.user.z", b"after"),
        ];
        for size in [0, 1, 100, 4080, 4096, 4097, 8191] {
            tar = tar.pax(&records).file(&format!("f-{length}-{size}"), &pattern(size));
        }
        let records = [("SCHILY.xattr.system.posix_acl_default", ACL), records[2]];
        tar = tar.pax(&records).directory(&format!("d-{length}"));
        tar = tar.file(&format!("d-{length}/inside"), b"x");
    }
    // What a link or a named pipe can't have is left out.
    tar = tar.pax(&[("SCHILY.xattr.user.a", b"x")]).symlink("link", "x");
    tar = tar.pax(&[("SCHILY.xattr.user.a", b"x")]).special(b'6', "fifo");
    let name = format!("SCHILY.xattr.user.{}", "n".repeat(250));
    tar = tar.pax(&[(&name, b"x")]).file("long-name", b"x");
    Image::new([tar]).check();
}

#[test]
fn what_an_inode_cannot_hold_is_refused() {
    let mut limits = Limits::default();
    limits.set(Limit::Xattr, 1 << 20).unwrap();
    let refused = |records: &[(&str, &[u8])]| {
        let tar = Tar::new().pax(records).file("d/file", b"x");
        let error = Image::with_limits([tar], &limits).try_write().map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Filesystem { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("'/d/file'"), "{message}");
        message
    };
    let message = refused(&[("SCHILY.xattr.user.a", &[0; 65536])]);
    assert!(message.contains("more than 65535 bytes"), "{message}");
    let names = ["a", "b", "c", "d", "e"].map(|name| format!("SCHILY.xattr.user.{name}"));
    let records = names.each_ref().map(|name| (name.as_str(), &[0; 60_000][..]));
    assert!(refused(&records).contains("262148 bytes together"));
    let name = format!("SCHILY.xattr.user.{}", "n".repeat(251));
    assert!(refused(&[(&name, b"x")]).contains("name has more than 255 bytes"));
    assert!(refused(&[("SCHILY.xattr.system.posix_acl_access", b"x")]).contains("malformed"));

    let tar = Tar::new().pax(&[records[0], records[1], records[2], records[3]]).file("f", b"x");
    Image::with_limits([tar], &limits).check();
}

#[test]
fn holes_read_as_zeros_and_cost_little() {
    const MIB: u64 = 1 << 20;
    let mut tar = sparse(Tar::new(), "none", 5 * MIB, &[]);
    tar = sparse(tar, "start", MIB, &[(0, 10)]);
    tar = sparse(tar, "end", MIB + 1, &[(MIB, 1)]);
    tar = sparse(tar, "many", MIB, &[(1, 1), (5000, 5000), (10_000, 1), (500_000, 70_000)]);
    tar = sparse(tar, "full", 9000, &[(0, 5000), (5000, 4000)]);
    tar = sparse(tar, "small", 100, &[(50, 10)]);
    tar = sparse(tar, "tiny-hole", 9000, &[(0, 5000), (5001, 3999)]);
    let image = Image::new([tar]);
    image.check();
    let size = fs::metadata(image.write().path()).unwrap().len();
    assert!(size < 200_000, "{size}");
}

#[test]
fn a_hole_of_terabytes_costs_next_to_nothing() {
    let tib = 1_u64 << 40;
    let mut tar = sparse(Tar::new(), "hole", tib, &[]);
    tar = sparse(tar, "data", tib, &[(4096, 5000), (tib - 3, 3)]);
    tar = sparse(tar, "huge", i64::MAX.unsigned_abs() - 4095, &[]);
    let file = Image::new([tar]).write();
    let size = fs::metadata(file.path()).unwrap().len();
    assert!(size < 16 << 20, "{size}");
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new(&file.path());
    let open = |name| File::open(mounted.path().join(name)).unwrap();
    for (name, size) in [("hole", tib), ("data", tib), ("huge", i64::MAX.unsigned_abs() - 4095)] {
        assert_eq!(open(name).metadata().unwrap().len(), size);
    }
    let read = |name, at, length| {
        let mut bytes = vec![7; length];
        open(name).read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    let zeros = vec![0; 10_000];
    assert_eq!(read("hole", tib / 2, 10_000), zeros);
    assert_eq!(read("huge", 1 << 62, 10_000), zeros);
    assert_eq!(read("data", 0, 4096), vec![0; 4096]);
    let data = pattern(5003);
    assert_eq!(read("data", 4096, 5000), data[..5000]);
    assert_eq!(read("data", 9096, 10_000), zeros);
    assert_eq!(read("data", tib - 10, 10), [&[0; 7][..], &data[5000..]].concat());
    // The kernel's EROFS does not say where holes are; it may one day.
    assert!(seek(open("hole"), SeekFrom::Hole(0)).unwrap() <= tib);

    let error = Image::new([sparse(Tar::new(), "x", i64::MAX.unsigned_abs(), &[])]).try_write();
    assert!(error.map(|_| ()).unwrap_err().to_string().contains("beyond that of any file"));
}

#[test]
fn holes_that_would_fill_the_disk_are_refused() {
    let pieces: Vec<_> = (0..20_000).map(|piece| (piece << 36, 1)).collect();
    let image = Image::new([sparse(Tar::new(), "d/bomb", 1 << 60, &pieces)]);
    let error = image.try_write().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("'/d/bomb'") && error.contains("1 GiB"), "{error}");
}

#[test]
fn fifty_thousand_files() {
    let mut tar = Tar::new();
    for number in 0..50_000_u32 {
        let size = usize::try_from(number % 50).unwrap();
        tar = tar.file(&format!("{}/{}/{number}", number % 7, number % 501), &pattern(size));
    }
    let image = Image::new([tar]);
    let file = image.write();
    fsck(&file.path());
    if can_mount() {
        let mounted = Mounted::new(&file.path());
        let found = walk(mounted.path());
        assert_eq!(found.len(), 1 + 7 + 7 * 501 + 50_000);
        for number in 0..50_000_u32 {
            let path = format!("{}/{}/{number}", number % 7, number % 501);
            let content = pattern(usize::try_from(number % 50).unwrap());
            assert_eq!(found[path.as_bytes()].content, content, "{path}");
        }
    }
}

#[test]
fn a_directory_of_a_hundred_thousand() {
    let mut tar = Tar::new();
    for number in 0..100_000_u32 {
        tar = tar.hard_link(&format!("d/{:x}", number.wrapping_mul(0x9e37_79b9)), "a");
        if number == 0 {
            tar = Tar::new().file("a", b"x");
        }
    }
    let image = Image::new([tar]);
    let file = image.write();
    fsck(&file.path());
    if can_mount() {
        let mounted = Mounted::new(&file.path());
        let listed = fs::read_dir(mounted.path().join("d")).unwrap();
        let listed: BTreeSet<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(listed.len(), 99_999);
        for name in listed {
            let metadata = fs::metadata(mounted.path().join("d").join(name)).unwrap();
            assert_eq!(metadata.nlink(), 100_000);
        }
        assert!(!mounted.path().join("d/no such file").exists());
    }
}

#[test]
fn dump_erofs_agrees() {
    let tar = Tar::new().directory("d").file("d/a", &pattern(5000)).file("b", b"x");
    let file = Image::new([tar]).write();
    let output = match Command::new("dump.erofs").arg("-s").arg(file.path()).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skip: dump.erofs: {error}");
            return;
        }
    };
    let said = String::from_utf8(output.stdout).unwrap();
    let value = |key: &str| {
        let line =
            said.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{said}"));
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    assert_eq!(value("Filesystem magic number"), "0xE0F5E1E2");
    assert_eq!(value("Filesystem blocks"), "2");
    assert_eq!(value("Filesystem inode count"), "4");
    assert_eq!(value("Filesystem root nid"), "36");
    assert_eq!(value("Filesystem features"), "sb_csum mtime");
    assert_eq!(value("Filesystem UUID"), "00000000-0000-0000-0000-000000000000");
}

#[test]
fn a_changed_superblock_is_noticed() {
    if !can_mount() {
        return;
    }
    let file = Image::new([Tar::new().file("a", b"x")]).write();
    drop(Mounted::new(&file.path()));
    let mut byte = [0];
    file.open().read_exact_at(&mut byte, 1300).unwrap();
    file.open().write_all_at(&[byte[0] ^ 1], 1300).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    let mount = mount.args(["-t", "erofs", "-o", "loop,ro"]).arg(file.path());
    assert!(!mount.arg(directory.path()).output().unwrap().status.success());
}

/// Cancels at the step that it is told.
struct CancelAt(u64);

impl Progress for CancelAt {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        match step {
            Step::Write { done, .. } if done >= self.0 => ControlFlow::Break(()),
            Step::Write { .. } => ControlFlow::Continue(()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn progress_is_reported_and_can_be_cancelled() {
    let image = Image::new([Tar::new().file("a", &pattern(3 << 20))]);
    let mut spool = tempfile::tempfile().unwrap();
    spool.write_all(&image.layers[0]).unwrap();
    let to = tempfile::tempfile().unwrap();
    for at in [0, (3 << 20) + 4096] {
        let error = erofs::write(&image.tree, &[&spool], &to, &mut CancelAt(at)).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
    }
    erofs::write(&image.tree, &[&spool], &to, &mut CancelAt(u64::MAX)).unwrap();
}

#[test]
fn a_short_layer_or_a_missing_one_is_an_error() {
    let image = Image::new([Tar::new().file("d/a", &pattern(10_000))]);
    let (spool, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    for spools in [&[&spool][..], &[]] {
        let error = erofs::write(&image.tree, spools, &to, &mut ()).unwrap_err();
        assert!(matches!(error, Error::Unpack { .. }), "{error}");
        assert!(error.to_string().contains("/d/a"), "{error}");
    }
}

#[test]
fn what_was_in_the_file_before_is_gone() {
    let image = Image::new([sparse(Tar::new(), "a", 8 << 20, &[(0, 3 << 20), (7 << 20, 1)])]);
    let expected = image.bytes();
    let mut spool = tempfile::tempfile().unwrap();
    spool.write_all(&image.layers[0]).unwrap();
    let mut to = tempfile::tempfile().unwrap();
    to.write_all(&vec![0xff; 20 << 20]).unwrap();
    erofs::write(&image.tree, &[&spool], &to, &mut ()).unwrap();
    let mut found = Vec::new();
    std::io::Seek::rewind(&mut to).unwrap();
    to.read_to_end(&mut found).unwrap();
    assert!(found == expected);
}
