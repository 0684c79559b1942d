//! What the tar reader understands, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod common;

use common::{Header, Tar, pax_record};
use proptest::prelude::*;
use sandbox_image::{
    Limits,
    layer::{Data, Entry, EntryKind, TarError, TarReader, Timestamp},
    tree::{LayerFormat, Tree},
};
use std::{io::Cursor, process::Command};

fn read(archive: &[u8]) -> Result<Vec<Entry>, TarError> {
    let limits = Limits::default();
    let mut reader = TarReader::new(Cursor::new(archive), &limits)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

#[track_caller]
fn only(archive: Tar) -> Entry {
    let mut entries = read(&archive.finish()).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

#[track_caller]
fn check_refused(archive: &[u8], problem: &str) {
    let error = read(archive).unwrap_err().to_string();
    assert!(error.contains(problem), "{error}");
    assert!(!error.chars().any(char::is_control), "{error:?}");
}

/// A file's bytes, with its holes as zeros.
fn content(archive: &[u8], entry: &Entry) -> Vec<u8> {
    let EntryKind::File(content) = &entry.kind else { panic!("not a file: {entry:?}") };
    let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
    for extent in content.extents() {
        let [offset, length, position] =
            [extent.offset, extent.length, extent.position].map(|n| usize::try_from(n).unwrap());
        bytes[offset..offset + length].copy_from_slice(&archive[position..position + length]);
    }
    bytes
}

#[test]
fn a_header_says_what_it_says() {
    let mut header = Header::new(b'0', b"name", 3);
    header
        .mode(0o104_755)
        .id(108, 1000)
        .id(116, 100)
        .mtime(1_700_000_000)
        .text(345, b"some/prefix");
    let entry = only(Tar::new().entry(&header, b"abc"));
    assert_eq!(entry.path, b"some/prefix/name");
    assert_eq!((entry.mode, entry.uid, entry.gid), (0o4755, 1000, 100));
    assert_eq!(entry.mtime, Timestamp { seconds: 1_700_000_000, nanoseconds: 0 });

    // GNU numbers: binary, and negative times.
    let mut header = Header::new(b'0', b"name", 0);
    header.text(108, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]);
    header.text(136, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
    let entry = only(Tar::new().entry(&header, b""));
    assert_eq!(entry.uid, u32::MAX - 1);
    assert_eq!(entry.mtime.seconds, -2);
}

#[test]
fn an_extended_header_goes_before_the_header() {
    let records: &[(&str, &[u8])] = &[
        ("path", b"long/\xff"),
        ("uid", b"3000000000"),
        ("gid", b"7"),
        ("mtime", b"-1.25"),
        ("size", b"3"),
        ("atime", b"1"),
        ("comment", b"x"),
        ("SCHILY.xattr.user.a", b"\n=\0"),
    ];
    let archive = Tar::new().pax(records).entry(&Header::new(b'0', b"short", 0), b"abc");
    let entry = only(archive.clone());
    assert_eq!(entry.path, b"long/\xff");
    assert_eq!((entry.uid, entry.gid), (3_000_000_000, 7));
    assert_eq!(entry.mtime, Timestamp { seconds: -2, nanoseconds: 750_000_000 });
    assert_eq!(entry.xattrs[0].value, b"\n=\0");
    assert_eq!(content(&archive.finish(), &entry), b"abc");
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let file = || Header::new(b'0', b"f", 0);
    let pax = |records: &[(&str, &[u8])]| Tar::new().pax(records).entry(&file(), b"").finish();
    check_refused(&pax(&[("path", b"a"), ("path", b"b")]), "says the same twice");
    check_refused(&pax(&[("uid", b"1"), ("uid", b"1")]), "says the same twice");
    check_refused(&pax(&[("path", b"a\0b")]), "holds a NUL");
    check_refused(&pax(&[("path", b"")]), "a path is empty");
    check_refused(&pax(&[("uid", b"4294967295")]), "below 2^32 - 1");
    check_refused(&pax(&[("uid", b"-1")]), "a number in an extended header");
    check_refused(&pax(&[("mtime", b"soon")]), "in an extended header");
    check_refused(&pax(&[("size", b"99999999999999999999")]), "a number in an extended header");
    check_refused(&pax(&[("SCHILY.xattr.", b"1")]), "without a name");
    let twice = Tar::new().pax(&[("uid", b"1")]).pax(&[("gid", b"1")]).entry(&file(), b"");
    check_refused(&twice.finish(), "the same extended header twice");
    let both = Tar::new()
        .entry(&Header::new(b'L', b"L", 2), b"a\0")
        .pax(&[("path", b"b")])
        .entry(&file(), b"");
    check_refused(&both.finish(), "a path is said twice");
    let without = Tar::new().pax(&[("uid", b"1")]).finish();
    check_refused(&without, "without an entry");
    for long in [&b"a"[..], b"a\0b\0", b""] {
        let archive = Tar::new().entry(&Header::new(b'L', b"L", long.len() as u64), long);
        check_refused(&archive.entry(&file(), b"").finish(), "a long name does not end");
    }
    let global = |records: &[u8]| {
        let header = Header::new(b'g', b"pax_global_header", records.len() as u64);
        Tar::new().entry(&header, records).entry(&file(), b"").finish()
    };
    check_refused(&global(&pax_record("path", b"x")), "a global extended header");
    assert_eq!(read(&global(&pax_record("comment", b"a commit"))).unwrap().len(), 1);
    for record in
        ["5 a=\n7", "0 a=b\n", "99 a=b\n", "6 a=b", "x a=b\n", "6  ab\n", "3 \n", " 6 a=b\n"]
    {
        let header = Header::new(b'x', b"x", record.len() as u64);
        let archive = Tar::new().entry(&header, record.as_bytes()).entry(&file(), b"");
        check_refused(&archive.finish(), "extended header");
    }
}

#[test]
fn headers_that_are_not_headers_are_refused() {
    let header = Header::new(b'0', b"f", 0);
    let with = |at: usize, text: &[u8]| {
        let mut header = header.clone();
        header.text(at, text);
        Tar::new().entry(&header, b"").finish()
    };
    check_refused(&with(257, b"other!"), "not a tar header");
    check_refused(&with(124, b"0000000000x"), "is not a number");
    check_refused(&with(124, b"-0000000001"), "is not a number");
    check_refused(&with(124, b"00 00000001"), "is not a number");
    check_refused(&with(124, &[0xff; 12]), "is not a number");
    check_refused(
        &with(124, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        "truncated",
    );
    check_refused(
        &with(124, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        "truncated",
    );
    check_refused(&with(0, b"\0"), "a path is empty");
    check_refused(&with(156, b"V"), "unknown type of entry");
    check_refused(&with(156, b"\x01"), "unknown type of entry");
    let mut broken = with(0, b"f");
    broken[0] = b'g';
    check_refused(&broken, "checksum");
    for typeflag in [b'1', b'2', b'3', b'5', b'6'] {
        let mut header = Header::new(typeflag, b"x", 3);
        check_refused(&Tar::new().entry(header.link(b"y"), b"abc").finish(), "has content");
    }
    check_refused(&Tar::new().symlink("x", "").finish(), "without a target");
    check_refused(&Tar::new().hard_link("x", "").finish(), "without a target");
    check_refused(&Tar::new().file("x/", b"").finish(), "ends with a slash");
}

#[test]
fn an_archive_has_an_end_and_nothing_after_it() {
    let good = Tar::new().file("a", &[b'a'; 1000]).symlink("b", "c").finish();
    assert_eq!(read(&good).unwrap().len(), 2);
    for length in (0..good.len()).step_by(512) {
        check_refused(&good[..length], "truncated");
    }
    for length in [1, 100, 511, 513, good.len() - 1] {
        check_refused(&good[..length], "truncated");
    }
    // A layer, whose digest was checked, may lack the end marker; nothing else may be missing.
    let limits = Limits::default();
    for (length, whole) in [(0, 0), (512, 9), (1536, 1), (2048, 2), (2560, 9), (2049, 9)] {
        let reader = TarReader::new(Cursor::new(&good[..length]), &limits).unwrap();
        let mut reader = reader.without_end_marker();
        let mut entries = 0;
        let end = loop {
            match reader.next_entry() {
                Ok(Some(_)) => entries += 1,
                Ok(None) => break entries,
                Err(_) => break 9,
            }
        };
        assert_eq!(end, whole, "of the first {length} bytes");
    }
    let padded = [good.clone(), vec![0; 8192]].concat();
    assert_eq!(read(&padded).unwrap().len(), 2);
    check_refused(&[good.clone(), good.clone()].concat(), "after the archive's end");
    check_refused(&[padded, b"x".to_vec()].concat(), "after the archive's end");
    let mut hidden = good;
    let at = hidden.len() - 512;
    hidden[at] = 1;
    check_refused(&hidden, "an empty header");
}

#[test]
fn a_lying_size_costs_no_memory() {
    let huge = |typeflag| {
        let mut header = Header::new(typeflag, b"x", 0);
        header.text(124, b"77777777777");
        Tar::new().entry(&header, b"").finish()
    };
    check_refused(&huge(b'0'), "truncated");
    check_refused(&huge(b'x'), "more than 1 MiB");
    check_refused(&huge(b'g'), "more than 1 MiB");
    check_refused(&huge(b'L'), "--image-limit path=");
    let pax = Tar::new().entry(&Header::new(b'x', b"x", 100_000), b"").finish();
    check_refused(&pax, "truncated");
}

#[test]
fn old_gnu_sparse_files_keep_their_holes() {
    let mut header = Header::new(b'S', b"sparse", 1024);
    header.text(257, b"ustar  \0");
    let piece = |offset: u64, length: u64| format!("{offset:011o}\0{length:011o}\0").into_bytes();
    for (number, piece) in
        [piece(512, 512), piece(4096, 0), piece(8192, 100), piece(9000, 400)].iter().enumerate()
    {
        header.text(386 + 24 * number, piece);
    }
    header.text(482, &[1]).text(483, format!("{:011o}", 10_000).as_bytes());
    let mut more = [0; 512];
    more[..24].copy_from_slice(&piece(9500, 12));
    more[24..48].copy_from_slice(&piece(10_000, 0));
    let data = [[b'a'; 512], [b'b'; 512]].concat();
    let mut tar = Tar::new().entry(&header, &more);
    tar.0.extend_from_slice(&data);
    let tar = tar.file("next", b"n");
    let archive = tar.finish();
    let entries = read(&archive).unwrap();
    let mut expected = vec![0; 10_000];
    expected[512..1024].fill(b'a');
    expected[8192..8292].fill(b'b');
    expected[9000..9400].fill(b'b');
    expected[9500..9512].fill(b'b');
    assert_eq!(content(&archive, &entries[0]), expected);
    assert_eq!(entries[1].path, b"next");
}

#[test]
fn sparse_maps_that_do_not_fit_are_refused() {
    let map = |size: &[u8], map: &[u8]| {
        Tar::new()
            .pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)])
            .file("f", &[b'x'; 10])
            .finish()
    };
    let good = map(b"100", b"0,5,50,5");
    let entry = read(&good).unwrap().remove(0);
    assert_eq!(content(&good, &entry)[48..56], *b"\0\0xxxxx\0");
    check_refused(&map(b"100", b"0,5,50,6"), "does not fit its data");
    check_refused(&map(b"100", b"0,5,50,4"), "does not fit its data");
    check_refused(&map(b"100", b"50,5,0,5"), "out of order");
    check_refused(&map(b"100", b"0,6,5,4"), "out of order");
    check_refused(&map(b"54", b"0,5,50,5"), "beyond its size");
    check_refused(&map(b"100", b"0,5,50"), "not whole");
    check_refused(&map(b"100", b"0,18446744073709551615"), "beyond its size");
    check_refused(&map(b"18446744073709551615", b"0,10"), "beyond any file system");
    check_refused(&map(b"100", b""), "a number in an extended header");
    let pax = |records: &[(&str, &[u8])]| Tar::new().pax(records).file("f", &[0; 512]).finish();
    check_refused(&pax(&[("GNU.sparse.map", b"0,512")]), "without its size");
    check_refused(
        &pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.realsize", b"1")]),
        "unknown version",
    );
    check_refused(&pax(&[("GNU.sparse.other", b"2")]), "out of order");
    let version_1: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"100"),
        ("GNU.sparse.name", b"real"),
    ];
    for (text, problem) in [
        ("1\n0\n", "truncated"),
        ("x\n", "a number"),
        ("999999999999999999999999\n", "a number in its sparse map"),
        ("0\nx", "not padded"),
        ("1\n0\n101\n", "beyond its size"),
    ] {
        let mut data = [if problem == "truncated" { b'\n' } else { 0 }; 512];
        if problem == "truncated" {
            data.fill(b'1');
        }
        data[..text.len()].copy_from_slice(text.as_bytes());
        let archive = Tar::new().pax(version_1).file("f", &data).finish();
        let problem = if problem == "truncated" { "a number" } else { problem };
        check_refused(&archive, problem);
    }
    let directory = Tar::new().pax(&[("GNU.sparse.size", b"1")]).directory("d").finish();
    check_refused(&directory, "is not a file");
}

#[test]
fn sparse_files_of_gnu_tar_are_understood_in_all_its_formats() {
    if Command::new("tar").arg("--version").output().is_err() {
        eprintln!("skip: tar is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("holes");
    let file = std::fs::File::create(&path).unwrap();
    let mut expected = vec![0; 5 << 20];
    for number in 0..40_usize {
        let at = number * (128 << 10) + 4096;
        expected[at..at + 4096].fill(b'a' + u8::try_from(number % 26).unwrap());
        std::os::unix::fs::FileExt::write_all_at(&file, &expected[at..at + 4096], at as u64)
            .unwrap();
    }
    file.set_len(expected.len() as u64).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let output = Command::new("tar")
            .args(format)
            .args(["-c", "-S", "-C"])
            .arg(directory.path())
            .arg("holes")
            .output()
            .unwrap();
        assert!(output.status.success());
        let entry = read(&output.stdout).unwrap().remove(0);
        assert_eq!(entry.path, b"holes");
        let EntryKind::File(found) = &entry.kind else { panic!() };
        assert!(matches!(&found.data, Data::Sparse(pieces) if pieces.len() >= 40), "{format:?}");
        assert!(content(&output.stdout, &entry) == expected, "{format:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever is done to an archive, it is read or refused, and what is read lies inside it.
    #[test]
    fn damaged_archives_are_read_or_refused(
        changes in prop::collection::vec((0_usize..6000, any::<u8>()), 0..12),
        fix in any::<bool>(),
    ) {
        let mut archive = Tar::new()
            .directory("d")
            .pax(&[("path", b"d/file"), ("SCHILY.xattr.user.a", b"1")])
            .file("short", &[b'x'; 600])
            .file("n/".repeat(80).trim_end_matches('/'), b"long")
            .hard_link("link", "d/file")
            .pax(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"0,5,50,5")])
            .file("sparse", &[b'x'; 10])
            .finish();
        for (at, byte) in changes {
            let at = at % archive.len();
            archive[at] = byte;
            if fix {
                // With a checksum that fits, so that the change gets further.
                let block = at / 512 * 512;
                let header = Header(archive[block..block + 512].try_into().unwrap());
                archive[block..block + 512].copy_from_slice(&header.finish());
            }
        }
        if let Ok(entries) = read(&archive) {
            for entry in entries {
                if let EntryKind::File(content) = entry.kind {
                    for extent in content.extents() {
                        prop_assert!(extent.position + extent.length <= archive.len() as u64);
                        prop_assert!(extent.offset + extent.length <= content.size);
                    }
                }
            }
        }
        let _ = Tree::new().apply(Cursor::new(&archive), LayerFormat::Changeset, &Limits::default());
    }
}
