use super::{AcName, boolean};
use std::path::PathBuf;
use std::str::FromStr;

/// A volume of the pod, as `--volume` describes it:
/// `NAME,kind=host,source=/PATH[,readOnly=BOOL][,recursive=BOOL]` or
/// `NAME,kind=empty[,readOnly=BOOL][,mode=0755][,uid=0][,gid=0]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// By this name mount points refer to it.
    pub name: AcName,
    /// Where its files are.
    pub kind: VolumeKind,
    /// Whether apps may only read it.
    pub read_only: bool,
}

/// Where a volume's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeKind {
    /// A directory or a file of the host.
    Host {
        /// Its path, absolute.
        source: PathBuf,
        /// Whether what is mounted below it is visible, too.
        recursive: bool,
    },
    /// A directory that is as old as the pod and goes with it.
    Empty {
        /// Permission bits of the directory.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Splits `key=value,key=value`; no key may come twice.
fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("{pair:?} is not of the form KEY=VALUE"))?;
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(format!("{key} is given more than once"));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn number(key: &str, value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| format!("{key}={value}: not a number"))
}

fn mode(value: &str) -> Result<u32, String> {
    match u32::from_str_radix(value, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!("mode={value}: not an octal mode such as 0755")),
    }
}

impl FromStr for Volume {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(',').unwrap_or((text, ""));
        let name = name.parse()?;
        let mut kind = None;
        let mut source = None;
        let mut read_only = false;
        let mut recursive = None;
        let mut permissions = None;
        let mut owner = (None, None);
        for (key, value) in pairs(rest)? {
            match key {
                "kind" => kind = Some(value),
                "source" => source = Some(value),
                "readOnly" => read_only = boolean(value)?,
                "recursive" => recursive = Some(boolean(value)?),
                "mode" => permissions = Some(mode(value)?),
                "uid" => owner.0 = Some(number(key, value)?),
                "gid" => owner.1 = Some(number(key, value)?),
                _ => return Err(format!("unknown volume parameter {key:?}")),
            }
        }
        let kind = match kind {
            Some("host") => {
                for (key, given) in [
                    ("mode", permissions.is_some()),
                    ("uid", owner.0.is_some()),
                    ("gid", owner.1.is_some()),
                ] {
                    if given {
                        return Err(format!("{key} for host volume cannot be set"));
                    }
                }
                let source = match source {
                    None | Some("") => return Err("source for host volume cannot be empty".into()),
                    Some(source) => PathBuf::from(source),
                };
                if !source.is_absolute() {
                    return Err("source for host volume must be absolute path".into());
                }
                VolumeKind::Host { source, recursive: recursive.unwrap_or(true) }
            }
            Some("empty") if source.is_some() => {
                return Err("source for empty volume must be empty".into());
            }
            Some("empty") => VolumeKind::Empty {
                mode: permissions.unwrap_or(0o755),
                uid: owner.0.unwrap_or(0),
                gid: owner.1.unwrap_or(0),
            },
            _ => {
                return Err(
                    "unrecognized volume kind: should be one of \"empty\", \"host\"".to_owned()
                );
            }
        };
        Ok(Self { name, kind, read_only })
    }
}

/// A place for a volume in an app, as `--mount` describes it: `volume=NAME,target=/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name.
    pub volume: AcName,
    /// Absolute path in the app, without `.`, `..` and repeated slashes.
    pub target: String,
}

impl FromStr for Mount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut volume = None;
        let mut target = None;
        for (key, value) in pairs(text)? {
            match key {
                "volume" => volume = Some(value.parse()?),
                "target" => target = Some(clean(value)?),
                _ => return Err(format!("unknown mount parameter {key:?}")),
            }
        }
        match (volume, target) {
            (Some(volume), Some(target)) => Ok(Self { volume, target }),
            (None, _) => Err("volume=NAME is missing".into()),
            (_, None) => Err("target=/PATH is missing".into()),
        }
    }
}

/// An absolute path inside an app in its shortest form. `..` is refused: what it means depends on
/// the image's symbolic links.
///
/// # Errors
/// A line that says what is wrong.
pub fn clean(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} is not an absolute path"));
    }
    let mut cleaned = String::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return Err(format!("{path:?} has \"..\" in it"));
        }
        cleaned.push('/');
        cleaned.push_str(part);
    }
    if cleaned.is_empty() {
        return Err("\"/\" can't be a mount point: it is the app's root".into());
    }
    Ok(cleaned)
}
