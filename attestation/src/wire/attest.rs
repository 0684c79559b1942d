use super::{PcrSelection, Reader, WireError};

/// `TPM_GENERATED_VALUE` (Part 2, 6.2): a restricted key signs nothing that came from outside and
/// begins like this.
pub const MAGIC: u32 = 0xff54_4347;
/// `TPM_ST_ATTEST_QUOTE` (Part 2, 6.9).
pub const TYPE_QUOTE: u16 = 0x8018;

/// `TPMS_CLOCK_INFO` (Part 2, 10.11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds that the TPM has been powered.
    pub clock: u64,
    /// TPM resets, which are restarts of the machine, since the TPM was cleared.
    pub reset_count: u32,
    /// Resumes since the last reset.
    pub restart_count: u32,
    /// The clock has not gone back.
    pub safe: bool,
}

/// `TPMS_ATTEST` (Part 2, 10.12.12) of a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// The signing key's name below its parents'.
    pub qualified_signer: Vec<u8>,
    /// What the asker gave.
    pub extra_data: Vec<u8>,
    /// Clock and counters.
    pub clock_info: ClockInfo,
    /// Of the TPM.
    pub firmware_version: u64,
    /// The registers.
    pub selection: PcrSelection,
    /// Digest of their values.
    pub pcr_digest: Vec<u8>,
}

impl Attest {
    /// Parses the structure that a quote's signature is over.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new("TPMS_ATTEST", bytes);
        let magic = from.u32("magic")?;
        if magic != MAGIC {
            return Err(from.error(format!("magic is {magic:#010x}, so no TPM made it")));
        }
        let kind = from.u16("type")?;
        if kind != TYPE_QUOTE {
            return Err(from.error(format!("type is {kind:#06x}, not a quote")));
        }
        let qualified_signer = from.sized(66, "qualifiedSigner")?.to_vec();
        let extra_data = from.sized(66, "extraData")?.to_vec();
        let clock_info = ClockInfo {
            clock: from.u64("clockInfo.clock")?,
            reset_count: from.u32("clockInfo.resetCount")?,
            restart_count: from.u32("clockInfo.restartCount")?,
            safe: match from.u8("clockInfo.safe")? {
                0 => false,
                1 => true,
                other => return Err(from.error(format!("clockInfo.safe is {other}"))),
            },
        };
        let firmware_version = from.u64("firmwareVersion")?;
        let selection = PcrSelection::read(&mut from)?;
        let pcr_digest = from.sized(64, "pcrDigest")?.to_vec();
        from.finish()?;
        Ok(Self {
            qualified_signer,
            extra_data,
            clock_info,
            firmware_version,
            selection,
            pcr_digest,
        })
    }
}
