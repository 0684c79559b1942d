use std::fmt;

/// Bytes are not the TPM structure that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{structure}: {problem}")]
pub struct WireError {
    /// As the specification names it: `TPMT_PUBLIC`.
    structure: &'static str,
    problem: String,
}

impl WireError {
    pub(crate) fn new(structure: &'static str, problem: impl fmt::Display) -> Self {
        Self { structure, problem: problem.to_string() }
    }
}

/// Takes fields off the front of a structure.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    structure: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` as `structure`, which errors name.
    pub(crate) fn new(structure: &'static str, bytes: &'a [u8]) -> Self {
        Self { structure, rest: bytes }
    }

    pub(crate) fn error(&self, problem: impl fmt::Display) -> WireError {
        WireError::new(self.structure, problem)
    }

    pub(crate) fn take(&mut self, count: usize, field: &str) -> Result<&'a [u8], WireError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            let left = self.rest.len();
            return Err(self.error(format!("it ends in {field}: {count} bytes, and {left} left")));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], WireError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, field)?);
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self, field: &str) -> Result<u8, WireError> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self, field: &str) -> Result<u16, WireError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &str) -> Result<u32, WireError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &str) -> Result<u64, WireError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A `TPM2B` of at most `most` bytes.
    pub(crate) fn sized(&mut self, most: usize, field: &str) -> Result<&'a [u8], WireError> {
        let length = usize::from(self.u16(field)?);
        if length > most {
            return Err(self.error(format!("{field} has {length} bytes, more than {most}")));
        }
        self.take(length, field)
    }

    /// Refuses bytes after the structure.
    pub(crate) fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(self.error(format!("{left} bytes follow it"))),
        }
    }
}
