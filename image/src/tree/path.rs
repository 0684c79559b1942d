use super::merge::Problem;
use crate::{Limit, Limits};

/// NAME_MAX of Linux.
const MAX_NAME: usize = 255;

/// The components of an entry's path, from the image's root: `./a//b/` and `/a/b` are `a`, `b`. The
/// root has none.
pub(super) fn components<'a>(path: &'a [u8], limits: &Limits) -> Result<Vec<&'a [u8]>, Problem> {
    let mut components = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err("its path leaves the image through '..'".into()),
            _ => check_name(component)?,
        }
        components.push(component);
    }
    limits.check(Limit::Depth, components.len() as u64)?;
    Ok(components)
}

/// Refuses what no file can be called.
pub(super) fn check_name(name: &[u8]) -> Result<(), Problem> {
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
        return Err("it has a name that no file can have".into());
    }
    if name.len() > MAX_NAME {
        return Err("it has a name of more than 255 bytes".into());
    }
    Ok(())
}
