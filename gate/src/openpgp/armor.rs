//! Armor: OpenPGP as text.

use super::OpenPgpError;
use pgp::armor::{BlockType, Dearmor, DearmorOptions};
use std::io::Read as _;

/// The most bytes of a keyring, a message or a signature.
const MAX: usize = 4 * 1024 * 1024;
/// What any armor begins with.
const BEGIN: &[u8] = b"-----BEGIN PGP ";
/// What the last line of any armor begins with.
const END: &[u8] = b"-----END PGP ";
/// What the first and the last line end with.
const DASHES: &[u8] = b"-----";

/// Takes the armor off, if there is any: there may be several blocks, all of that kind. Other text
/// around them is passed over.
pub(super) fn blocks(
    bytes: &[u8],
    kind: BlockType,
    what: &str,
) -> Result<Vec<Vec<u8>>, OpenPgpError> {
    if bytes.len() > MAX {
        return Err(OpenPgpError::new(format!("{what} has more than {MAX} bytes")));
    }
    // Each packet begins with this bit. A text may as well: with a byte order mark.
    let is_odd = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    if is_odd && std::str::from_utf8(bytes).is_err() {
        return Ok(vec![bytes.to_vec()]);
    }
    let starts: Vec<usize> = places(bytes, BEGIN).collect();
    if starts.is_empty() {
        return Err(OpenPgpError::new(format!("{what} is no OpenPGP, armored or binary")));
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let texts = starts.iter().zip(ends).map(|(&start, end)| &bytes[start..end]);
    texts.map(|text| block(text, kind, what)).collect()
}

/// Takes the armor off what is one block.
pub(super) fn single(bytes: &[u8], kind: BlockType, what: &str) -> Result<Vec<u8>, OpenPgpError> {
    let mut blocks = blocks(bytes, kind, what)?;
    match (blocks.pop(), blocks.is_empty()) {
        (Some(block), true) => Ok(block),
        _ => Err(OpenPgpError::new(format!("{what} is more than one armored text"))),
    }
}

/// One block, which begins the text. rPGP gets to see that alone: it takes all up to the next `: `,
/// even if that is far behind the end, for a header, and what comes after that for the content.
fn block(text: &[u8], kind: BlockType, what: &str) -> Result<Vec<u8>, OpenPgpError> {
    let line = places(text, END).next().map(|place| place + END.len());
    let end = line.and_then(|line| Some(line + places(&text[line..], DASHES).next()?));
    let Some(end) = end else {
        return Err(OpenPgpError::new(format!("{what} is cut off: its armor has no end")));
    };
    let malformed = |error: &dyn std::fmt::Display| OpenPgpError::malformed(what, error);
    let options = DearmorOptions::new().set_limit(MAX);
    let mut dearmor = Dearmor::with_options(&text[..end + DASHES.len()], options);
    dearmor.read_header().map_err(|error| malformed(&error))?;
    if dearmor.typ != Some(kind) {
        return Err(OpenPgpError::new(format!("{what} is an armored text of another kind")));
    }
    let mut binary = Vec::new();
    dearmor.read_to_end(&mut binary).map_err(|error| malformed(&error))?;
    Ok(binary)
}

fn places<'a>(bytes: &'a [u8], word: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let windows = bytes.windows(word.len()).enumerate();
    windows.filter(move |(_, window)| *window == word).map(|(place, _)| place)
}
