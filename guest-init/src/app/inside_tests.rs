use super::{checked, components, directory, file, open, own_directory};
use rustix::fs::{CWD, Mode, OFlags};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;

fn open_root(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// A root with links, beside something that must not be touched.
fn image() -> (TempDir, OwnedFd) {
    let all = tempfile::tempdir().unwrap();
    let root = all.path().join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::create_dir(all.path().join("outside")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    symlink("/usr", root.join("absolute")).unwrap();
    symlink("../outside", root.join("up")).unwrap();
    symlink("../../../../../../../../tmp", root.join("far-up")).unwrap();
    symlink(all.path().join("outside"), root.join("out")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let fd = open_root(&root);
    (all, fd)
}

#[test]
fn missing_directories_are_made_inside_the_root() {
    let (all, root) = image();
    for (path, made) in [
        ("/a/b/c", "a/b/c"),
        ("/bin/x//y/", "usr/bin/x/y"),
        ("/absolute/share", "usr/share"),
        ("/", ""),
        ("//usr//bin", "usr/bin"),
    ] {
        directory(root.as_fd(), path.as_bytes()).unwrap();
        assert!(all.path().join("root").join(made).is_dir(), "{path}");
    }
}

#[test]
fn no_link_leads_out_of_the_root() {
    let (all, root) = image();
    for path in ["/up/x", "/out/x", "/far-up/x", "/loop/x", "/up", "/out", "/loop", "/file/x"] {
        // Links that lead nowhere inside the root cannot be made either.
        assert!(directory(root.as_fd(), path.as_bytes()).is_err(), "{path}");
        assert!(file(root.as_fd(), path.as_bytes()).is_err(), "{path}");
    }
    assert_eq!(fs::read_dir(all.path().join("outside")).unwrap().count(), 0);
}

#[test]
fn a_link_is_followed_as_if_the_root_were_slash() {
    let (all, root) = image();
    fs::create_dir(all.path().join("root/outside")).unwrap();
    directory(root.as_fd(), b"/up/x").unwrap();
    assert!(all.path().join("root/outside/x").is_dir());
    assert!(!all.path().join("outside/x").exists());
}

#[test]
fn missing_files_are_made_with_their_directories() {
    let (all, root) = image();
    file(root.as_fd(), b"/etc/deep/hosts").unwrap();
    assert!(all.path().join("root/etc/deep/hosts").is_file());
    file(root.as_fd(), b"/top").unwrap();
    assert!(all.path().join("root/top").is_file());
    file(root.as_fd(), b"/file").unwrap();
}

#[test]
fn paths_have_to_be_absolute_and_without_dots() {
    let (_all, root) = image();
    for path in ["", "usr", "/..", "/a/../b", "/a/..", "../a"] {
        assert!(directory(root.as_fd(), path.as_bytes()).is_err(), "{path}");
        assert!(file(root.as_fd(), path.as_bytes()).is_err(), "{path}");
    }
    assert!(directory(root.as_fd(), b"/a/...").is_ok());
}

#[test]
fn magic_links_are_not_followed() {
    let root = open_root(Path::new("/"));
    assert!(open(root.as_fd(), b"/proc/self/root/etc", OFlags::PATH).is_err());
}

#[test]
fn directories_for_the_kernels_trees_are_the_images_own() {
    let (all, root) = image();
    own_directory(root.as_fd(), "proc").unwrap();
    assert!(all.path().join("root/proc").is_dir());
    own_directory(root.as_fd(), "usr").unwrap();
    for name in ["bin", "absolute", "out", "up", "loop", "file"] {
        assert!(own_directory(root.as_fd(), name).is_err(), "{name}");
    }
}

#[test]
fn components_come_with_their_ends() {
    let path = b"//a/bc//d";
    let all: Vec<_> = components(path).collect();
    assert_eq!(all, [(3, &b"a"[..]), (6, b"bc"), (9, b"d")]);
    assert_eq!(checked(b"/a//").unwrap(), b"/a");
    assert_eq!(checked(b"///").unwrap(), b"/");
}
