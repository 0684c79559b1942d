//! The quote. Registers.

use super::*;

tampering! {
    signature_changed {
        File(|e| {
            let last = e.quote.signature.len() - 1;
            e.quote.signature[last] ^= 1
        }),
        QuoteSignature, "not the key's signature"
    }
    signature_cut {
        File(|e| {
            e.quote.signature.pop();
        }),
        QuoteSignature, "it ends in signatureS"
    }
    signature_of_zeros {
        File(|e| e.quote.signature[6..38].fill(0)),
        QuoteSignature, "not the key's signature"
    }
    signature_of_another_quote {
        File(|e| {
            e.quote.signature = Machine { nonce: Nonce::new([1; 16]).unwrap(), ..Machine::new() }
                .evidence()
                .quote
                .signature
        }),
        QuoteSignature, "not the key's signature"
    }
    quote_changed {
        File(|e| {
            let last = e.quote.attest.len() - 1;
            e.quote.attest[last] ^= 1
        }),
        QuoteSignature, "not the key's signature"
    }
    quotes_clock_changed {
        File(|e| e.quote.attest[80] ^= 1),
        QuoteSignature, "not the key's signature"
    }
    quote_signed_by_another_key {
        File(|e| {
            e.quote.signature = Machine { ak: key(99), ..Machine::new() }.sign(&e.quote.attest)
        }),
        QuoteSignature, "not the key's signature"
    }
    quote_signed_with_another_hash_function {
        Host(|m| m.signature_hash = Bank::Sha384),
        QuoteAlgorithm, "the key is for"
    }
    quote_signed_with_sha_1 {
        Host(|m| {
            m.signature_hash = Bank::Sha1;
            m.ak_scheme = vec![0, 0x18, 0, 0x04]
        }),
        QuoteAlgorithm, "SHA-1"
    }
    key_without_a_scheme {
        Host(|m| m.ak_scheme = vec![0, 0x10]),
        QuoteAlgorithm, "the key is for None"
    }
    not_made_by_a_tpm {
        Host(|m| m.magic = 0x1234_5678),
        QuoteForm, "no TPM made it"
    }
    not_a_quote_but_a_certified_key {
        Host(|m| m.kind = 0x8017),
        QuoteForm, "not a quote"
    }
    quote_for_another_nonce {
        Host(|m| m.nonce = Nonce::new([0x77; 32]).unwrap()),
        Nonce, "was asked with"
    }
    old_quote_with_the_new_nonce_beside_it {
        File(|e| {
            *e = Machine { nonce: Nonce::new([0x77; 32]).unwrap(), ..Machine::new() }.evidence();
            e.nonce = nonce()
        }),
        Nonce, "another nonce"
    }
    quote_of_another_pod {
        Host(|m| m.quoted_pod = OTHER.to_owned()),
        Nonce, "another pod"
    }
    quote_for_another_guests_key {
        Host(|m| m.quoted_guest_key = Some(vec![0xe8; 32])),
        Nonce, "guest's key"
    }
    quote_without_the_guests_key {
        Host(|m| m.quoted_guest_key = None),
        Nonce, "guest's key"
    }
    clock_went_back {
        Host(|m| m.safe = 0),
        Clock, "may have gone back"
    }
    fewer_registers_than_asked_for {
        Host(|m| m.selection = BTreeMap::from([(Bank::Sha256, BTreeSet::from([7, 15]))])),
        PcrSelection, "sha256:7,15"
    }
    more_registers_than_asked_for {
        Host(|m| m.selection = BTreeMap::from([(Bank::Sha256, BTreeSet::from([0, 1, 7, 15]))])),
        PcrSelection, "sha256:0,1,7,15"
    }
    registers_of_a_weak_bank {
        Host(|m| m.selection = BTreeMap::from([(Bank::Sha1, BTreeSet::from([0, 7, 15]))])),
        PcrSelection, "sha1:0,7,15"
    }
    no_registers {
        Host(|m| m.selection = BTreeMap::new()),
        PcrSelection, "the quote is of nothing"
    }
    value_of_a_register_changed {
        File(|e| value(e, 7)[0] ^= 1),
        PcrValues, "not those that the quote is of"
    }
    value_of_the_logs_register_changed {
        File(|e| value(e, 15)[31] ^= 1),
        PcrValues, "not those that the quote is of"
    }
    value_of_a_register_removed {
        File(|e| {
            registers(e).remove(&0);
        }),
        PcrValues, "PCR 0 of sha256 is missing"
    }
    value_of_a_register_added {
        File(|e| {
            registers(e).insert(3, PcrValue(vec![0; 32]));
        }),
        PcrValues, "registers that the quote is not of"
    }
    values_of_two_registers_exchanged {
        File(|e| {
            let other = value(e, 0).clone();
            let own = std::mem::replace(value(e, 7), other);
            *value(e, 0) = own
        }),
        PcrValues, "not those that the quote is of"
    }
    host_booted_something_else {
        Host(|m| {
            m.host.insert(7, 0x18);
        }),
        PcrReference, "PCR 7 of sha256"
    }
}
