//! The program's inside. One request, start to end:
//!
//! | step | module |
//! |---|---|
//! | gives up what it does not need | [`confine`] |
//! | hears settings and request | [`service`] |
//! | from here on, somebody watches the time | [`watch`] |
//! | waits for its turn: one process of the host at a time uses log and TPM | [`store`] |
//! | opens the TPM, asks which banks are active | [`tpm`], [`banks`] |
//! | brings log and register to agree, if another process was killed | [`journal`] |
//! | appends, syncs, extends | [`journal`] |
//! | makes or loads the keys, quotes, opens a credential | [`keys`], [`quote`] |
//! | keeps keys for secrets, and gives them out | [`seal`] |
//! | answers | [`watch`] |
//!
//! Commands go to the TPM in the clear, but for what [`seal`] does: whoever sits on the wire between processor and chip can
//! change them. A quote over what the caller made up shows such changes; nothing on this host can.

mod banks;
mod confine;
mod fault;
mod host;
mod journal;
mod keys;
mod quote;
mod seal;
mod service;
mod store;
mod tpm;
mod watch;

pub(crate) use service::main;
