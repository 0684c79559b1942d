//! What a microVM is to be made of.
//!
//! Every type here is valid by construction: a [`Config`] that exists can be built, as far as that
//! can be told without looking at the host.

use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;

/// Describes one microVM; `sandbox-vmm --config-fd N` reads it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Unchecked", into = "Unchecked")]
pub struct Config(Unchecked);

/// The fields of a [`Config`] before they were held against each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unchecked {
    /// Open file descriptor: `/dev/kvm`.
    pub kvm_fd: RawFd,
    /// Open file descriptor: the guest kernel, an ELF `vmlinux` or a bzImage.
    pub kernel_fd: RawFd,
    /// Open file descriptor: the initramfs that holds guest-init.
    pub initramfs_fd: RawFd,
    /// Words to add to the kernel's command line.
    #[serde(default)]
    pub command_line: CommandLine,
    /// Number of virtual CPUs.
    pub vcpus: Vcpus,
    /// Size of guest memory.
    pub memory_mib: MemoryMib,
    /// Open file descriptor: this end of the control socket (see [`crate::control`]).
    pub control_fd: RawFd,
    /// Open file descriptor that the guest's console is appended to.
    pub console_fd: RawFd,
    /// virtio-fs devices.
    #[serde(default)]
    pub shares: Vec<Share>,
    /// virtio-blk devices; the guest finds them in this order.
    #[serde(default)]
    pub disks: Vec<Disk>,
}

/// A virtio-fs device whose file server is another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The name by which the guest mounts it.
    pub tag: Tag,
    /// Open file descriptor: a stream socket connected to the vhost-user back end.
    pub fd: RawFd,
}

/// A virtio-blk device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The name by which the guest knows it.
    pub serial: Serial,
    /// Open file descriptor: a regular file in whole sectors of 512 bytes, which keeps its size.
    /// Open for reading only if the disk is read-only, and for both if not.
    pub fd: RawFd,
    /// Whether the guest can only read it.
    pub read_only: bool,
}

/// Why a [`Config`] can't be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// See [`Vcpus`].
    #[error("vcpus: {0} is not in the range of 1 to {max}", max = Vcpus::MAX)]
    Vcpus(u8),
    /// See [`MemoryMib`].
    #[error("memory_mib: {0} is not in the range of {min} to {max}", min = MemoryMib::MIN, max = MemoryMib::MAX)]
    Memory(u32),
    /// See [`Tag`].
    #[error("tag {0:?}: 1 to {max} bytes of [A-Za-z0-9_-] are allowed", max = Tag::MAX)]
    Tag(String),
    /// See [`CommandLine`].
    #[error("command_line: only printable ASCII, at most {max} bytes, and no \" -- \"", max = CommandLine::MAX)]
    CommandLine,
    /// More devices than there are slots.
    #[error("shares: {0} are too many, at most {max} are possible", max = Config::MAX_SHARES)]
    Shares(usize),
    /// Two shares of the same name.
    #[error("tag {0:?} is there twice")]
    SameTag(String),
    /// See [`Serial`].
    #[error("serial {0:?}: 1 to {max} bytes of [A-Za-z0-9_-] are allowed", max = Serial::MAX)]
    Serial(String),
    /// More devices than there are slots.
    #[error("disks: {0} are too many, at most {max} are possible", max = Config::MAX_DISKS)]
    Disks(usize),
    /// Two disks of the same name.
    #[error("serial {0:?} is there twice")]
    SameSerial(String),
    /// A number that can't be an inherited descriptor, or the same one for two uses.
    #[error("file descriptor {0} is one of 0 to 2 or negative, or is there twice")]
    Descriptor(RawFd),
}

impl Config {
    /// Most virtio-fs devices of a microVM.
    pub const MAX_SHARES: usize = 4;
    /// Most virtio-blk devices of a microVM: an image for each of 16 apps, a scratch disk, and some
    /// to spare. More would not fit the kernel's command line.
    pub const MAX_DISKS: usize = 24;

    /// The fields.
    pub fn fields(&self) -> &Unchecked {
        &self.0
    }

    /// All descriptors that the microVM is made of.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.0.descriptors()
    }
}

impl Unchecked {
    fn descriptors(&self) -> Vec<RawFd> {
        let Self { kvm_fd, kernel_fd, initramfs_fd, control_fd, console_fd, .. } = *self;
        let mut descriptors = vec![kvm_fd, kernel_fd, initramfs_fd, control_fd, console_fd];
        descriptors.extend(self.shares.iter().map(|share| share.fd));
        descriptors.extend(self.disks.iter().map(|disk| disk.fd));
        descriptors
    }
}

impl TryFrom<Unchecked> for Config {
    type Error = ConfigError;

    fn try_from(fields: Unchecked) -> Result<Self, ConfigError> {
        if fields.shares.len() > Self::MAX_SHARES {
            return Err(ConfigError::Shares(fields.shares.len()));
        }
        for (index, share) in fields.shares.iter().enumerate() {
            if fields.shares[..index].iter().any(|other| other.tag == share.tag) {
                return Err(ConfigError::SameTag(share.tag.0.clone()));
            }
        }
        if fields.disks.len() > Self::MAX_DISKS {
            return Err(ConfigError::Disks(fields.disks.len()));
        }
        for (index, disk) in fields.disks.iter().enumerate() {
            if fields.disks[..index].iter().any(|other| other.serial == disk.serial) {
                return Err(ConfigError::SameSerial(disk.serial.0.clone()));
            }
        }
        let descriptors = fields.descriptors();
        for (index, descriptor) in descriptors.iter().enumerate() {
            if *descriptor < 3 || descriptors[..index].contains(descriptor) {
                return Err(ConfigError::Descriptor(*descriptor));
            }
        }
        Ok(Self(fields))
    }
}

impl From<Config> for Unchecked {
    fn from(config: Config) -> Self {
        config.0
    }
}

/// A number of virtual CPUs, from 1 to [`Vcpus::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Vcpus(u8);

impl Vcpus {
    /// The most virtual CPUs of a microVM.
    pub const MAX: u8 = 32;

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Vcpus {
    type Error = ConfigError;

    fn try_from(count: u8) -> Result<Self, ConfigError> {
        if (1..=Self::MAX).contains(&count) {
            Ok(Self(count))
        } else {
            Err(ConfigError::Vcpus(count))
        }
    }
}

impl From<Vcpus> for u8 {
    fn from(vcpus: Vcpus) -> u8 {
        vcpus.0
    }
}

/// A size of guest memory in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct MemoryMib(u32);

impl MemoryMib {
    /// The least that the guest kernel boots with.
    pub const MIN: u32 = 48;
    /// 512 GiB: what fits the address space of every CPU that has virtualisation.
    pub const MAX: u32 = 512 << 10;

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0) << 20
    }
}

impl TryFrom<u32> for MemoryMib {
    type Error = ConfigError;

    fn try_from(mib: u32) -> Result<Self, ConfigError> {
        if (Self::MIN..=Self::MAX).contains(&mib) {
            Ok(Self(mib))
        } else {
            Err(ConfigError::Memory(mib))
        }
    }
}

impl From<MemoryMib> for u32 {
    fn from(memory: MemoryMib) -> u32 {
        memory.0
    }
}

/// The name of a virtio-fs device (virtio 1.3 §5.11.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// Length of the field in the device's configuration space, in bytes.
    pub const MAX: usize = 36;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Tag {
    type Error = ConfigError;

    fn try_from(tag: String) -> Result<Self, ConfigError> {
        if is_name(&tag, Self::MAX) { Ok(Self(tag)) } else { Err(ConfigError::Tag(tag)) }
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> String {
        tag.0
    }
}

/// The name of a virtio-blk device, its serial number (virtio 1.3 §5.2.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(String);

impl Serial {
    /// Length of the field in the device's answer, in bytes.
    pub const MAX: usize = 20;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Serial {
    type Error = ConfigError;

    fn try_from(serial: String) -> Result<Self, ConfigError> {
        if is_name(&serial, Self::MAX) {
            Ok(Self(serial))
        } else {
            Err(ConfigError::Serial(serial))
        }
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        serial.0
    }
}

/// Whether a device may be called that.
fn is_name(name: &str, max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=max).contains(&name.len()) && name.bytes().all(allowed)
}

/// Words for the kernel's command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandLine(String);

impl CommandLine {
    /// Leaves room for the monitor's own words in the kernel's 2,048 bytes, with every device that
    /// there can be.
    pub const MAX: usize = 768;

    /// The words, separated by spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CommandLine {
    type Error = ConfigError;

    fn try_from(words: String) -> Result<Self, ConfigError> {
        let printable = words.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        // What follows a lone "--" would become arguments of guest-init.
        if printable && words.len() <= Self::MAX && !words.split(' ').any(|word| word == "--") {
            Ok(Self(words))
        } else {
            Err(ConfigError::CommandLine)
        }
    }
}

impl From<CommandLine> for String {
    fn from(words: CommandLine) -> String {
        words.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    fn with(field: &str, value: &str) -> Result<Config, String> {
        let mut json: serde_json::Value = serde_json::from_str(
            r#"{"kvm_fd":90,"kernel_fd":91,"initramfs_fd":92,"vcpus":1,"memory_mib":256,
                "control_fd":3,"console_fd":4,"shares":[{"tag":"pod","fd":5}],
                "disks":[{"serial":"image-0","fd":6,"read_only":true}]}"#,
        )
        .unwrap();
        json[field] = serde_json::from_str(value).unwrap();
        parse(&json.to_string())
    }

    #[test]
    fn a_valid_configuration_survives_a_round_trip() {
        let config = with("vcpus", "32").unwrap();
        assert_eq!(parse(&serde_json::to_string(&config).unwrap()), Ok(config));
    }

    #[test]
    fn there_are_as_many_disks_as_is_said() {
        let disks = |count: usize| {
            let disks: Vec<_> = (0..count)
                .map(|n| {
                    format!(
                        r#"{{"serial":"a-serial-of-20-by{n:03}","fd":{},"read_only":true}}"#,
                        10 + n
                    )
                })
                .collect();
            with("disks", &format!("[{}]", disks.join(",")))
        };
        assert_eq!(disks(Config::MAX_DISKS).unwrap().fields().disks.len(), Config::MAX_DISKS);
        assert!(disks(Config::MAX_DISKS + 1).unwrap_err().contains("too many"));
    }

    #[test]
    fn what_cannot_be_built_cannot_be_read() {
        for (field, value, complaint) in [
            ("vcpus", "0", "vcpus: 0 is not in the range"),
            ("vcpus", "33", "vcpus: 33 is not in the range"),
            ("memory_mib", "1", "memory_mib: 1 is not in the range"),
            ("control_fd", "2", "file descriptor 2"),
            ("control_fd", "5", "file descriptor 5"),
            ("kvm_fd", "0", "file descriptor 0"),
            ("kernel_fd", "92", "file descriptor 92"),
            ("initramfs_fd", "-1", "file descriptor -1"),
            ("kernel", "\"/vmlinux\"", "unknown field `kernel`"),
            ("shares", r#"[{"tag":"a/b","fd":5}]"#, "tag \"a/b\""),
            ("shares", r#"[{"tag":"a","fd":5},{"tag":"a","fd":6}]"#, "twice"),
            ("disks", r#"[{"serial":"a b","fd":6,"read_only":true}]"#, "serial \"a b\""),
            ("disks", r#"[{"serial":"","fd":6,"read_only":true}]"#, "serial \"\""),
            ("disks", r#"[{"serial":"a","fd":6}]"#, "missing field `read_only`"),
            ("disks", r#"[{"serial":"a","fd":5,"read_only":true}]"#, "file descriptor 5"),
            (
                "disks",
                r#"[{"serial":"a","fd":6,"read_only":true},{"serial":"a","fd":7,"read_only":true}]"#,
                "serial \"a\" is there twice",
            ),
            ("command_line", r#""quiet -- sh""#, "command_line"),
            ("command_line", r#""a\nb""#, "command_line"),
            ("unknown", "1", "unknown field"),
        ] {
            let error = with(field, value).unwrap_err();
            assert!(error.contains(complaint), "{field} {value}: {error}");
        }
    }
}
