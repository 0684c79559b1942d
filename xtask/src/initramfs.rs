//! The guest's initramfs: a cpio archive, format "newc", that holds `/init` alone and depends on
//! nothing but its content (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).

use anyhow::{Context, Result};

/// A regular file that anyone may execute.
const PROGRAM: u32 = 0o100_755;

/// The archive with this program as `/init`.
pub fn archive(init: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Vec::with_capacity(init.len() + 512);
    entry(&mut archive, "init", PROGRAM, init)?;
    entry(&mut archive, "TRAILER!!!", 0, &[])?;
    Ok(archive)
}

fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    let size = u32::try_from(content.len()).context("init is larger than 4 GiB")?;
    let name_size = u32::try_from(name.len() + 1)?;
    // inode, mode, uid, gid, links, mtime, size, device ×2, special device ×2, name's size, sum
    let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(content);
    pad(archive);
    Ok(())
}

/// Names end, and contents begin and end, at a multiple of four.
fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::archive;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_lists_init_as_the_only_file() {
        let mut cpio = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&archive(b"12345").unwrap()).unwrap();
        let output = cpio.wait_with_output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = listed.split_whitespace().collect();
        assert!(output.status.success());
        assert_eq!(words[..5], ["-rwxr-xr-x", "1", "0", "0", "5"], "{listed}");
        assert_eq!(words.last(), Some(&"init"), "{listed}");
    }

    #[test]
    fn the_same_program_makes_the_same_archive() {
        assert_eq!(archive(b"program").unwrap(), archive(b"program").unwrap());
    }
}
