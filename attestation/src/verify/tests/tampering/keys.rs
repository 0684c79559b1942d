//! The AK and who vouches for it. The EK and its maker.

use super::{
    super::certificates::{Spec, pem},
    *,
};

tampering! {
    key_can_leave_its_tpm {
        Host(|m| m.ak_attributes &= !Attributes::FIXED_TPM),
        AttestationKey, "lacks fixedTPM"
    }
    key_can_leave_its_parent {
        Host(|m| m.ak_attributes &= !Attributes::FIXED_PARENT),
        AttestationKey, "lacks fixedParent"
    }
    key_was_imported {
        Host(|m| m.ak_attributes &= !Attributes::SENSITIVE_DATA_ORIGIN),
        AttestationKey, "lacks sensitiveDataOrigin"
    }
    key_signs_anything {
        Host(|m| m.ak_attributes &= !Attributes::RESTRICTED),
        AttestationKey, "lacks restricted"
    }
    key_is_not_for_signing {
        Host(|m| m.ak_attributes &= !Attributes::SIGN),
        AttestationKey, "lacks sign"
    }
    key_decrypts {
        Host(|m| m.ak_attributes |= Attributes::DECRYPT),
        AttestationKey, "also decrypts"
    }
    key_is_cut_short {
        File(|e| {
            e.attestation_key.pop();
        }),
        AttestationKey, "it ends in"
    }
    key_has_a_byte_behind_it {
        File(|e| e.attestation_key.push(0)),
        AttestationKey, "1 bytes follow"
    }
    key_is_no_longer_there {
        File(|e| e.attestation_key.clear()),
        AttestationKey, "it ends in type"
    }
    another_key_in_the_file {
        File(|e| {
            e.attestation_key = machine::public(&key(77), AK, false, &machine::ECDSA)
        }),
        KeyBinding, "of another attestation key"
    }
    enrolment_removed {
        File(|e| e.enrolment = None),
        KeyBinding, "there is no enrolment"
    }
    enrolled_by_nobody_whom_the_policy_knows {
        Host(|m| m.enroller = key(66)),
        KeyBinding, "no enroller that is trusted"
    }
    enrolment_for_another_tpms_key {
        File(|e| {
            if let Some(it) = &mut e.enrolment {
                it.endorsement_key = Public::parse(&machine::public(
                    &key(9),
                    AK,
                    false,
                    &machine::ECDSA,
                ))
                .unwrap()
                .name()
            }
        }),
        KeyBinding, "no enroller that is trusted"
    }
    enrolments_counters_changed {
        File(|e| {
            if let Some(it) = &mut e.enrolment {
                it.counts = None
            }
        }),
        KeyBinding, "no enroller that is trusted"
    }
    enrolments_time_changed {
        File(|e| {
            if let Some(it) = &mut e.enrolment {
                it.time.push('0')
            }
        }),
        KeyBinding, "no enroller that is trusted"
    }
    enrolments_signature_cut {
        File(|e| {
            if let Some(it) = &mut e.enrolment {
                it.signature.pop();
            }
        }),
        KeyBinding, "no enroller that is trusted"
    }
    enrolment_of_another_version {
        File(|e| {
            if let Some(it) = &mut e.enrolment {
                it.version = 2
            }
        }),
        KeyBinding, "version 2"
    }
    another_key_is_pinned {
        Demand(|p| {
            p.attestation_keys.enrollers.clear();
            p.attestation_keys.pinned.insert("000b00".to_owned());
        }),
        KeyBinding, "does not name the attestation key"
    }
    endorsement_key_removed {
        File(|e| e.endorsement = None),
        EndorsementKey, "does not have the endorsement key"
    }
    another_endorsement_key {
        File(|e| {
            if let Some(it) = &mut e.endorsement {
                let last = it.public.len() - 1;
                it.public[last] ^= 1
            }
        }),
        EndorsementKey, "not the endorsement key that was enrolled"
    }
    certificates_removed {
        File(|e| {
            if let Some(it) = &mut e.endorsement {
                it.certificates.clear()
            }
        }),
        EndorsementKey, "no certificate"
    }
    certificate_of_another_endorsement_key {
        Host(|m| m.leaf_key = key(88)),
        EndorsementKey, "that of another endorsement key"
    }
    certificate_changed {
        File(|e| {
            if let Some(it) = &mut e.endorsement {
                let last = it.certificates[0].len() - 1;
                it.certificates[0][last] ^= 1
            }
        }),
        EndorsementKey, "signature is not its issuer's"
    }
    certificate_malformed {
        File(|e| {
            if let Some(it) = &mut e.endorsement {
                it.certificates[0].push(0)
            }
        }),
        EndorsementKey, "malformed"
    }
    issuers_certificate_removed {
        File(|e| {
            if let Some(it) = &mut e.endorsement {
                it.certificates.pop();
            }
        }),
        EndorsementKey, "none of the 1 makers"
    }
    made_by_nobody_whom_the_policy_knows {
        Host(|m| m.root.1 = key(55)),
        EndorsementKey, "signature is not its issuer's"
    }
    made_by_somebody_of_another_name {
        Host(|m| m.middle.0.issuer = "CN=Other"),
        EndorsementKey, "leads to 'CN=Other'"
    }
    more_authorities_than_the_maker_allows {
        Demand(|p| {
            let (spec, key) = (Spec { authority: Some(Some(0)), ..Spec::root() }, key(4));
            p.endorsement_keys.roots = vec![pem(&spec.make(key.verifying_key(), &key))]
        }),
        EndorsementKey, "so many authorities"
    }
    issuer_is_no_authority {
        Host(|m| m.middle.0.authority = None),
        EndorsementKey, "no authority"
    }
    issuer_may_not_sign_certificates {
        Host(|m| m.middle.0.usage = Some(KeyUsages::DigitalSignature)),
        EndorsementKey, "may not sign certificates"
    }
    certificate_is_that_of_an_authority {
        Host(|m| m.leaf.authority = Some(None)),
        EndorsementKey, "that of an authority"
    }
    certificate_is_for_a_server {
        Host(|m| m.leaf.purpose = Some("1.3.6.1.5.5.7.3.1")),
        EndorsementKey, "not for an endorsement key"
    }
    certificates_key_is_for_signing {
        Host(|m| m.leaf.usage = Some(KeyUsages::DigitalSignature)),
        EndorsementKey, "not for decrypting"
    }
    certificate_has_an_unknown_critical_extension {
        Host(|m| m.leaf.unknown = true),
        EndorsementKey, "1.2.3.4"
    }
    certificate_expired {
        Host(|m| m.leaf.end = NOW - 1),
        EndorsementKey, "not valid any more"
    }
    issuers_certificate_not_valid_yet {
        Host(|m| m.middle.0.begin = NOW + 60),
        EndorsementKey, "not valid yet"
    }
    endorsement_key_signs {
        Host(|m| m.ek_attributes |= Attributes::SIGN),
        EndorsementKey, "by its attributes"
    }
    endorsement_key_can_leave_its_tpm {
        Host(|m| m.ek_attributes &= !Attributes::FIXED_TPM),
        EndorsementKey, "by its attributes"
    }
    policy_knows_no_maker {
        Demand(|p| p.endorsement_keys.roots.clear()),
        EndorsementKey, "nor any maker"
    }
}
