//! `/etc/passwd` and `/etc/group` of an image, which say who an app runs as.
#![no_main]
#![allow(dead_code, reason = "guest-init has more of it than is tried here")]

use libfuzzer_sys::{arbitrary, fuzz_target};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::OnceLock;

#[path = "../../../guest-init/src/error.rs"]
mod error;
#[path = "../../../guest-init/src/app/inside.rs"]
mod inside;
#[path = "../../../guest-init/src/app/user.rs"]
mod user;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    user: Who<'a>,
    group: Who<'a>,
    supplementary: Vec<u32>,
    passwd: &'a [u8],
    group_file: &'a [u8],
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Who<'a> {
    Root,
    Nobody,
    Number(u32),
    Path,
    Text(&'a str),
}

impl Who<'_> {
    fn text(&self) -> String {
        match self {
            Self::Root => "root".into(),
            Self::Nobody => "nobody".into(),
            Self::Number(number) => number.to_string(),
            Self::Path => "/etc/passwd".into(),
            Self::Text(text) => (*text).to_owned(),
        }
    }
}

/// An image's root directory, in memory.
fn root() -> &'static (PathBuf, File) {
    static ROOT: OnceLock<(PathBuf, File)> = OnceLock::new();
    ROOT.get_or_init(|| {
        let path = PathBuf::from(format!("/dev/shm/guest_users-{}", std::process::id()));
        fs::create_dir_all(path.join("etc")).expect("a directory");
        let root = File::open(&path).expect("it is there");
        (path, root)
    })
}

fuzz_target!(|input: Input<'_>| {
    let (path, root) = root();
    fs::write(path.join("etc/passwd"), input.passwd).expect("a file");
    fs::write(path.join("etc/group"), input.group_file).expect("a file");
    let (user, group) = (input.user.text(), input.group.text());
    let Ok(identity) = user::resolve(root.as_fd(), &user, &group, &input.supplementary) else {
        return;
    };
    // "None" of Linux is nobody's number.
    assert!(identity.uid != u32::MAX && identity.gid != u32::MAX);
    assert!(identity.groups.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
    assert!(identity.groups.len() <= 65_536);
    let home = |home: &Vec<u8>| home.starts_with(b"/") && !home.contains(&b'\n');
    assert!(identity.home.as_ref().is_none_or(home));
    for number in &input.supplementary {
        assert!(identity.groups.contains(number));
    }
});
