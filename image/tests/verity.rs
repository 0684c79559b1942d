//! dm-verity hash trees, held against those of veritysetup.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

use proptest::prelude::*;
use sandbox_image::{
    Progress, Step,
    verity::{self, BLOCK, Verity, VerityError},
};
use std::{
    fs::File,
    io::Read as _,
    ops::ControlFlow,
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Output},
};
use tempfile::NamedTempFile;

/// A file of so many blocks, each different.
fn data(blocks: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(blocks * BLOCK).unwrap();
    for block in 0..blocks {
        file.as_file().write_all_at(&(block + 1).to_le_bytes(), block * BLOCK + 7).unwrap();
    }
    file
}

fn with_tree(blocks: u64) -> (NamedTempFile, Verity) {
    let file = data(blocks);
    let verity = verity::append(file.as_file(), blocks, &mut ()).unwrap();
    (file, verity)
}

fn check(file: &NamedTempFile, verity: &Verity) -> Result<(), VerityError> {
    verity::check(file.as_file(), verity, &mut ())
}

fn flip(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Runs veritysetup on a file; `None` if it isn't there.
fn veritysetup(action: &str, file: &Path, blocks: u64, more: &[&str]) -> Option<Output> {
    let mut command = Command::new("veritysetup");
    command.args([action, "--no-superblock", "--salt=-", "--hash=sha256"]);
    command.arg(format!("--data-blocks={blocks}"));
    command.arg(format!("--hash-offset={}", blocks * BLOCK));
    match command.arg(file).arg(file).args(more).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skip: veritysetup: {error}");
            None
        }
    }
}

#[test]
fn trees_are_those_of_veritysetup() {
    for blocks in [1, 2, 127, 128, 129, 300, 128 * 128, 128 * 128 + 1] {
        let (ours, verity) = with_tree(blocks);
        assert_eq!((verity.data_blocks, verity.hash_start), (blocks, blocks));
        check(&ours, &verity).unwrap();

        let theirs = data(blocks);
        let Some(output) = veritysetup("format", theirs.path(), blocks, &[]) else {
            return;
        };
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{blocks}: {}", String::from_utf8_lossy(&output.stderr));
        let root = said.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim();
        assert_eq!(root, verity.root_hash_hex(), "{blocks} blocks");
        let (mut our_bytes, mut their_bytes) = (Vec::new(), Vec::new());
        ours.reopen().unwrap().read_to_end(&mut our_bytes).unwrap();
        theirs.reopen().unwrap().read_to_end(&mut their_bytes).unwrap();
        assert!(our_bytes == their_bytes, "{blocks} blocks: other trees");

        let output = veritysetup("verify", ours.path(), blocks, &[root]).unwrap();
        assert!(output.status.success(), "{blocks}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_first_changed_block_is_named() {
    let (file, verity) = with_tree(20_000);
    // Two levels of 157 and 2 blocks below the root.
    let (root, middle, leaves) = (20_000, 20_001, 20_003);
    let broken = |blocks: &[u64]| {
        blocks.iter().for_each(|block| flip(file.as_file(), block * BLOCK + 100));
        let found = check(&file, &verity).unwrap_err();
        blocks.iter().for_each(|block| flip(file.as_file(), block * BLOCK + 100));
        found
    };
    assert!(matches!(broken(&[0]), VerityError::Data(0)));
    assert!(matches!(broken(&[19_999, 12_345, 12_346]), VerityError::Data(12_345)));
    assert!(matches!(broken(&[3, leaves + 100, leaves + 99]), VerityError::Tree(20_102)));
    assert!(matches!(broken(&[leaves, middle + 1]), VerityError::Tree(20_002)));
    assert!(matches!(broken(&[root, middle, 0]), VerityError::Tree(20_000)));
    check(&file, &verity).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_byte_can_be_changed(blocks in 1_u64..300, at in any::<prop::sample::Index>()) {
        let (file, verity) = with_tree(blocks);
        let size = file.as_file().metadata().unwrap().len();
        let at = at.index(usize::try_from(size).unwrap()) as u64;
        flip(file.as_file(), at);
        let found = match check(&file, &verity) {
            Err(VerityError::Data(block) | VerityError::Tree(block)) => block,
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(found, at / BLOCK);
        flip(file.as_file(), at);
        check(&file, &verity).unwrap();
    }
}

#[test]
fn another_root_hash_is_refused() {
    for blocks in [1, 5] {
        let (file, mut verity) = with_tree(blocks);
        verity.root_hash[31] ^= 1;
        assert!(check(&file, &verity).is_err());
    }
}

#[test]
fn files_of_another_length_are_refused() {
    let (file, verity) = with_tree(200);
    let size = file.as_file().metadata().unwrap().len();
    for wrong in [size - 1, size + 1, size + BLOCK, 0] {
        file.as_file().set_len(wrong).unwrap();
        let error = check(&file, &verity).unwrap_err();
        assert!(matches!(error, VerityError::Size { found, .. } if found == wrong), "{error}");
        let error = verity::append(file.as_file(), 200, &mut ()).unwrap_err();
        assert!(matches!(error, VerityError::Size { .. }), "{error}");
    }
    for (data_blocks, hash_start) in [(0, 0), (u64::MAX, u64::MAX), (200, 201), (200, 0)] {
        let verity = Verity { data_blocks, hash_start, root_hash: [0; 32] };
        assert!(matches!(check(&file, &verity), Err(VerityError::Geometry { .. })));
    }
}

#[test]
fn it_is_one_document_in_json() {
    let verity = Verity { data_blocks: 3, hash_start: 3, root_hash: [0xa5; 32] };
    let json = serde_json::to_string(&verity).unwrap();
    let hex = "a5".repeat(32);
    assert_eq!(json, format!(r#"{{"data-blocks":3,"hash-start":3,"root-hash":"{hex}"}}"#));
    assert_eq!(serde_json::from_str::<Verity>(&json).unwrap(), verity);
    for wrong in [hex.to_uppercase(), hex[2..].to_owned(), format!("{hex}0"), "é".repeat(32)] {
        assert!(serde_json::from_str::<Verity>(&json.replace(&hex, &wrong)).is_err(), "{wrong}");
    }
}

/// Remembers, and breaks off at the first step.
#[derive(Default)]
struct Record(Vec<Step>, bool);

impl Progress for Record {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        self.0.push(step);
        if self.1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn progress_is_reported_and_can_be_cancelled() {
    let file = data(1000);
    let mut record = Record(Vec::new(), true);
    let error = verity::append(file.as_file(), 1000, &mut record).unwrap_err();
    assert!(matches!(error, VerityError::Cancelled));

    file.as_file().set_len(1000 * BLOCK).unwrap();
    let mut record = Record::default();
    let verity = verity::append(file.as_file(), 1000, &mut record).unwrap();
    let total = 1000 * BLOCK;
    assert_eq!(record.0.last(), Some(&Step::Verity { done: total, total }));
    let mut record = Record(Vec::new(), true);
    let error = verity::check(file.as_file(), &verity, &mut record).unwrap_err();
    assert!(matches!(error, VerityError::Cancelled));
}
