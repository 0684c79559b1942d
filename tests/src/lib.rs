//! What the end-to-end tests are written in.
//!
//! The tests run on the test host, as root, where the product is installed: `sandbox` is the one in
//! `PATH`. They are sorted by what they promise: `functional/` (what the manual says happens),
//! `images/` (where images come from, and how they are kept), `trust/` (which images may run),
//! `security/` (what an image, a guest or a volume must not reach), `robustness/` (failures,
//! signals and kills, each with nothing left behind) and `monitor/` (sandbox-vmm by itself).
//!
//! A test is a sentence of its own: [`run`] starts a pod, [`Ended`] says what must have come out,
//! and a failure shows the command, its output and the guest's console.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a harness that fails fails the test")]

pub mod aci;
pub mod certificates;
pub mod command;
pub mod data;
pub mod driver;
pub mod host;
pub mod http;
pub mod image;
pub mod machine;
pub mod pty;
pub mod registry;
pub mod sandbox;
pub mod signatures;
pub mod tar;
pub mod tokens;

pub use data::Data;
pub use host::Host;
pub use image::tiny;
pub use sandbox::{Ended, Running, run, sandbox};

use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap};
use kvm_ioctls::Kvm;
use std::mem::forget;
use std::path::PathBuf;
use std::sync::Once;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where the tests keep images and data directories. On the test host everything goes with it.
pub fn home() -> PathBuf {
    static KEPT: Once = Once::new();
    KEPT.call_once(keep_static_keys);
    let home = PathBuf::from("/var/lib/sandbox-tests");
    std::fs::create_dir_all(&home).expect("the tests run as root");
    home
}

/// Makes a virtual CPU that never runs, for as long as this process lives.
///
/// A local APIC that its guest hasn't enabled yet switches a static key of KVM on, and the last one
/// that is enabled switches it off: code is patched that another CPU may just run through. A CPU
/// bears that. QEMU's software emulation of two of them does not, once in some hundred pods, and
/// the test host panics. With one such APIC always there the key stays as it is.
fn keep_static_keys() {
    let kvm = Kvm::new().expect("the test host has KVM");
    let vm = kvm.create_vm().expect("a microVM");
    let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
    split.args[0] = 24;
    vm.enable_cap(&split).expect("local APICs");
    forget(vm.create_vcpu(0).expect("a virtual CPU"));
}

/// A new directory that is removed with its value.
pub fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in(home()).expect("a temporary directory")
}

/// Base64, as JSON has bytes.
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Waits until something is so, at most so long.
pub fn eventually(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}
