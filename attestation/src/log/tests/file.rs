use super::{after, log, text};
use crate::{
    log::{File, FileError, Limits, LogError, Parsed},
    record::sample,
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

fn directory() -> (TempDir, PathBuf) {
    let top = TempDir::new().unwrap();
    let directory = top.path().join("attest");
    (top, directory)
}

fn path(directory: &Path) -> PathBuf {
    directory.join("log").join(format!("{}.cel", sample::boot()))
}

fn open(directory: &Path) -> Result<File, FileError> {
    File::open(directory, &sample::boot())
}

fn read(file: &mut File) -> Parsed {
    file.read(&Limits::default()).unwrap()
}

fn insecure(result: Result<File, FileError>) -> &'static str {
    match result {
        Err(FileError::Insecure { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_is_begun_appended_to_and_read() {
    let (_top, directory) = directory();
    let mut file = open(&directory).unwrap();
    assert_eq!(read(&mut file), Parsed { entries: Vec::new(), torn: None });
    let entries = log(2);
    entries[..2].iter().for_each(|entry| file.append(entry).unwrap());
    assert_eq!(read(&mut file).entries, entries[..2]);
    // By another process, as it were.
    let mut file = open(&directory).unwrap();
    entries[2..].iter().for_each(|entry| file.append(entry).unwrap());
    assert_eq!(read(&mut file), Parsed { entries: entries.clone(), torn: None });
    assert_eq!(fs::read(path(&directory)).unwrap(), text(&entries));
}

#[test]
fn nobody_else_may_look() {
    let (_top, directory) = directory();
    open(&directory).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join("log")), 0o700);
    assert_eq!(mode(&path(&directory)), 0o600);
}

#[test]
fn what_others_could_have_written_to_is_refused() {
    let (_top, directory) = directory();
    open(&directory).unwrap();
    let log = path(&directory);
    let others = "others may read or write it";
    for (path, mode) in [(&directory, 0o700), (&directory.join("log"), 0o700), (&log, 0o600)] {
        for more in [0o040, 0o020, 0o004, 0o002] {
            fs::set_permissions(path, Permissions::from_mode(mode | more)).unwrap();
            assert_eq!(insecure(open(&directory)), others, "{path:?} {more:o}");
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    fs::hard_link(&log, directory.join("another")).unwrap();
    assert_eq!(insecure(open(&directory)), "it has another name, too");
    fs::remove_file(directory.join("another")).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&log, Some(1), None).unwrap();
        assert_eq!(insecure(open(&directory)), "it belongs to somebody else");
        std::os::unix::fs::chown(&log, Some(0), None).unwrap();
    }
    open(&directory).unwrap();
}

#[test]
fn links_and_other_kinds_of_files_are_refused() {
    let (top, directory) = directory();
    let other = top.path().join("other");
    open(&other).unwrap();
    let refused = |result: Result<File, FileError>| {
        assert!(matches!(result, Err(FileError::Io { .. })), "{result:?}");
    };
    symlink(&other, &directory).unwrap();
    refused(open(&directory));
    fs::remove_file(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    symlink(other.join("log"), directory.join("log")).unwrap();
    refused(open(&directory));
    fs::remove_file(directory.join("log")).unwrap();
    open(&directory).unwrap();
    let log = path(&directory);
    fs::remove_file(&log).unwrap();
    symlink(path(&other), &log).unwrap();
    refused(open(&directory));
    // Nor is one made where a link leads to nothing.
    fs::remove_file(&log).unwrap();
    symlink(top.path().join("nothing"), &log).unwrap();
    refused(open(&directory));
    assert!(!top.path().join("nothing").exists());
    fs::remove_file(&log).unwrap();
    let made = Command::new("mkfifo").arg("-m600").arg(&log).status().unwrap();
    assert!(made.success());
    assert_eq!(
        insecure(open(&directory)),
        "it is neither a file nor a directory, or the wrong of these"
    );
}

#[test]
fn a_torn_record_is_found_and_cut_off() {
    let (_top, directory) = directory();
    let entries = log(1);
    let whole = text(&entries);
    let settled = text(&entries[..2]).len();
    open(&directory).unwrap();
    for torn in settled + 1..whole.len() {
        fs::write(path(&directory), &whole[..torn]).unwrap();
        let mut file = open(&directory).unwrap();
        let parsed = read(&mut file);
        assert_eq!(parsed.torn, Some(settled));
        file.cut(settled).unwrap();
        assert_eq!(read(&mut file), Parsed { entries: entries[..2].to_vec(), torn: None });
        file.append(&entries[2]).unwrap();
        assert_eq!(fs::read(path(&directory)).unwrap(), whole);
    }
}

#[test]
fn somebody_who_does_not_hold_the_lock_is_noticed() {
    let (_top, directory) = directory();
    let entries = log(1);
    let mut file = open(&directory).unwrap();
    file.append(&entries[0]).unwrap();
    open(&directory).unwrap().append(&entries[1]).unwrap();
    assert!(matches!(file.append(&entries[1]), Err(FileError::Changed { .. })));
    assert_eq!(read(&mut file).entries, entries[..2]);
    file.append(&entries[2]).unwrap();
    assert_eq!(read(&mut file).entries, entries);
}

#[test]
fn what_is_read_of_a_file_is_bounded() {
    let (_top, directory) = directory();
    open(&directory).unwrap();
    let mut limits = Limits { log: 1 << 30, record: 4096 };
    // A disk's worth of nothing.
    let sparse = fs::File::options().write(true).open(path(&directory)).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let problem = |limits: &Limits| match open(&directory).unwrap().read(limits) {
        Err(FileError::Log { error, .. }) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(&limits), LogError::Length { found: 1 << 40, limit: 1 << 30 });
    limits.log = u64::MAX;
    assert_eq!(problem(&limits), LogError::RecordLength { recnum: 0, limit: 4096 });
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    let (_top, directory) = directory();
    let entries = log(1);
    let mut file = open(&directory).unwrap();
    file.append(&entries[0]).unwrap();
    // The disk that is full is a limit on the size of files: a part of the entry can be written. Of
    // a process of its own, as it holds for all of a process.
    let length = fs::metadata(path(&directory)).unwrap().len();
    let script = "ulimit -f 1; trap '' XFSZ; exec \"$0\" --exact --ignored --nocapture \
                  log::tests::file::appends_to_a_disk_that_is_full";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("LOG_DIRECTORY", &directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::metadata(path(&directory)).unwrap().len(), length);
    assert_eq!(read(&mut open(&directory).unwrap()).entries, entries[..1]);
}

/// Run by the test above.
#[test]
#[ignore = "a part of another test"]
fn appends_to_a_disk_that_is_full() {
    let Some(directory) = std::env::var_os("LOG_DIRECTORY") else {
        eprintln!("skip: it is a part of another test");
        return;
    };
    let mut file = open(Path::new(&directory)).unwrap();
    let error = file.append(&log(1)[1]).unwrap_err();
    assert!(error.to_string().starts_with("cannot append to "), "{error}");
}

#[test]
fn the_oldest_logs_are_rotated_out() {
    let (_top, directory) = directory();
    let name = |number: u64| sample::pod(number);
    for number in 0..5 {
        File::open(&directory, &name(number)).unwrap();
        let path = directory.join("log").join(format!("{}.cel", name(number)));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * (10 - number));
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
    fs::write(directory.join("log/notes.cel"), "not a log of ours").unwrap();
    let file = open(&directory).unwrap();
    let left = || {
        let names = fs::read_dir(directory.join("log")).unwrap();
        let mut names: Vec<_> =
            names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(file.rotate(6).unwrap(), 0);
    assert_eq!(file.rotate(3).unwrap(), 3);
    let mut expected =
        [name(0), name(1), sample::boot()].map(|boot| format!("{boot}.cel")).to_vec();
    expected.push("notes.cel".to_owned());
    expected.sort();
    assert_eq!(left(), expected);
    // This boot's own is never among those that go.
    assert_eq!(file.rotate(0).unwrap(), 2);
    assert_eq!(left(), [format!("{}.cel", sample::boot()), "notes.cel".to_owned()]);
}

#[test]
fn a_log_from_a_file_replays() {
    let (_top, directory) = directory();
    let entries = log(3);
    let mut file = open(&directory).unwrap();
    entries.iter().for_each(|entry| file.append(entry).unwrap());
    let entries = read(&mut file).entries;
    assert_eq!(after(&entries, entries.len()), after(&log(3), entries.len()));
}
