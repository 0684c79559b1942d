//! Tar archives written by hand, so that every part of them can lie (POSIX.1-2024, pax).

/// An archive that is being written.
#[derive(Clone, Debug, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// An entry of any type, with owner and group, content or the target of a link.
    pub fn entry(
        mut self,
        kind: u8,
        path: &str,
        mode: u32,
        (uid, gid): (u32, u32),
        content: &[u8],
        link: &str,
    ) -> Self {
        let mut header = [0; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, format!("{uid:07o}").as_bytes());
        put(116, format!("{gid:07o}").as_bytes());
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(136, b"00000000000");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        put(148, b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        header[154] = 0;
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A file of root's.
    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(b'0', path, mode, (0, 0), content.as_ref(), "")
    }

    /// A directory of root's.
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(b'5', path, mode, (0, 0), b"", "")
    }

    /// A symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, 0o777, (0, 0), b"", target)
    }

    /// Another name of a file.
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, 0o644, (0, 0), b"", target)
    }

    /// An extended attribute of the next entry.
    pub fn xattr(self, name: &str, value: &str) -> Self {
        let record = format!(" SCHILY.xattr.{name}={value}\n");
        // The length counts its own digits.
        let mut length = record.len() + 1;
        while length != record.len() + length.to_string().len() {
            length = record.len() + length.to_string().len();
        }
        let record = format!("{length}{record}");
        self.entry(b'x', "pax", 0o644, (0, 0), record.as_bytes(), "")
    }

    /// The archive with its end marker.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
