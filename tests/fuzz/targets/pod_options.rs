//! The values of `sandbox run`'s options: volumes, mounts, quantities, durations, names.
#![no_main]
#![allow(dead_code, reason = "the command has more of it than is tried here")]

use libfuzzer_sys::fuzz_target;
use options::{
    AcName, Cpu, Duration, InsecureOptions, Memory, Mount, ScratchSize, SecretOption, Variable,
    Volume, VolumeKind, clean,
};

#[path = "../../../sandbox/src/options/mod.rs"]
#[allow(unused_imports, reason = "as above")]
mod options;

/// A path of a mount is absolute and leads nowhere else.
fn check_path(path: &str) {
    assert!(path.starts_with('/') && !path.ends_with('/') && !path.contains("//"));
    assert!(path.split('/').all(|part| part != "." && part != ".."));
}

fn check_name(name: &AcName) {
    let name = name.as_str();
    assert!(!name.is_empty() && name.len() <= AcName::MAX);
    assert!(!name.contains(['/', '.', '\0']) && !name.starts_with('-'));
    assert_eq!(name.parse::<AcName>().as_ref().map(AcName::as_str), Ok(name));
}

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse() {
        check_name(&name);
    }
    if let Ok(volume) = text.parse::<Volume>() {
        check_name(&volume.name);
        match volume.kind {
            VolumeKind::Host { source, .. } => assert!(source.is_absolute()),
            VolumeKind::Empty { mode, .. } => assert!(mode <= 0o7777),
        }
    }
    if let Ok(mount) = text.parse::<Mount>() {
        check_name(&mount.volume);
        check_path(&mount.target);
    }
    if let Ok(path) = clean(text) {
        check_path(&path);
        assert_eq!(clean(&path), Ok(path.clone()), "clean is clean");
    }
    if let Ok(memory) = text.parse::<Memory>() {
        assert!((4096..1 << 63).contains(&memory.bytes()));
        assert_eq!(memory.to_string().parse::<Memory>(), Ok(memory));
    }
    if let Ok(cpu) = text.parse::<Cpu>() {
        assert!(cpu.millis() > 0);
        assert_eq!(cpu.to_string().parse::<Cpu>(), Ok(cpu));
    }
    if let Ok(size) = text.parse::<ScratchSize>() {
        assert!(size.bytes() % 4096 == 0 && (4 << 20..=16 << 40).contains(&size.bytes()));
    }
    if let Ok(options) = text.parse::<InsecureOptions>() {
        assert_eq!(options.to_string().parse(), Ok(options));
    }
    if let Ok(variable) = text.parse::<Variable>() {
        assert_eq!(format!("{}={}", variable.name, variable.value), text);
    }
    if let Ok(secret) = text.parse::<SecretOption>() {
        assert!(sandbox_attestation::secret::is_name(&secret.name));
    }
    let _ = text.parse::<Duration>();
    let _ = options::boolean(text);
});
