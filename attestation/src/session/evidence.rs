//! From a quote to the file that a verifier reads.

use super::{Bytes, Quoted};
use crate::{
    evidence::{
        Endorsement, Enrolment, Evidence, EvidenceLog, LoggedRecord, Nonce, PcrValue, Quote,
        qualifying_data,
    },
    record::Uuid,
    verify::instant,
};
use std::time::SystemTime;

/// What the program said is not what evidence is made of.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Its log is none.
    #[error("the log that came with the quote can't be used: {0}")]
    Log(#[from] serde_json::Error),
}

/// What evidence says besides the quote.
#[derive(Debug, Clone)]
pub struct About {
    /// The pod.
    pub pod: Uuid,
    /// What the verifier gave.
    pub nonce: Nonce,
    /// The key that the pod's guest made, if it made one.
    pub guest_key: Option<Vec<u8>>,
    /// Now, as RFC 3339 has it.
    pub time: String,
    /// An enroller's word, if the host has one.
    pub enrolment: Option<Enrolment>,
}

impl About {
    /// What evidence that is made now is about.
    pub fn now(
        pod: Uuid,
        nonce: Nonce,
        guest_key: Option<Vec<u8>>,
        enrolment: Option<Enrolment>,
        now: SystemTime,
    ) -> Self {
        Self { pod, nonce, guest_key, time: instant::format(instant::seconds(now)), enrolment }
    }

    /// What the TPM has to sign along, see [`super::Ask::qualifying_data`].
    pub fn qualifying_data(&self) -> Bytes {
        let key = self.guest_key.as_deref();
        qualifying_data(&self.nonce, self.pod.as_str(), key).to_vec().into()
    }
}

impl Quoted {
    /// The evidence that this quote is part of.
    ///
    /// # Errors
    /// See [`AssembleError`].
    pub fn into_evidence(self, about: About) -> Result<Evidence, AssembleError> {
        // What is in these is for the verifier to check.
        let lines = self.log.split_terminator('\n').map(|line| line.trim_start_matches('\x1e'));
        let records = lines.map(serde_json::from_str::<LoggedRecord>).collect::<Result<_, _>>()?;
        let pcrs = self.pcrs.into_iter().map(|(bank, values)| {
            let values = values.into_iter().map(|(pcr, value)| (pcr, PcrValue(value.0)));
            (bank, values.collect())
        });
        Ok(Evidence {
            version: Evidence::VERSION,
            pod: about.pod.to_string(),
            nonce: about.nonce,
            guest_key: about.guest_key,
            time: about.time,
            quote: Quote {
                attest: self.attest.0,
                signature: self.signature.0,
                pcrs: pcrs.collect(),
            },
            attestation_key: self.identity.ak_public.0,
            endorsement: Some(Endorsement {
                public: self.identity.ek_public.0,
                certificates: self.identity.ek_certificate.into_iter().map(|it| it.0).collect(),
            }),
            enrolment: about.enrolment,
            firmware_log: self.firmware_log.map(|log| log.0),
            log: EvidenceLog { pcr: self.pcr.into(), records },
        })
    }
}
