//! The monitor's configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_vmm::config::{CommandLine, Config, MemoryMib, Serial, Tag, Vcpus};

fuzz_target!(|document: &[u8]| {
    let Ok(config) = serde_json::from_slice::<Config>(document) else { return };
    let fields = config.fields();
    assert!((1..=Vcpus::MAX).contains(&fields.vcpus.get()));
    let mib = fields.memory_mib.bytes() >> 20;
    assert!((MemoryMib::MIN.into()..=MemoryMib::MAX.into()).contains(&mib));
    assert!(fields.command_line.as_str().len() <= CommandLine::MAX);
    assert!(fields.command_line.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    assert!(fields.shares.len() <= Config::MAX_SHARES);
    assert!(fields.disks.len() <= Config::MAX_DISKS);
    assert!(fields.shares.iter().all(|share| share.tag.as_str().len() <= Tag::MAX));
    assert!(fields.disks.iter().all(|disk| disk.serial.as_str().len() <= Serial::MAX));
    // No descriptor has two owners.
    let mut descriptors = config.descriptors();
    let all = 5 + fields.shares.len() + fields.disks.len();
    let count = descriptors.len();
    descriptors.sort_unstable();
    descriptors.dedup();
    assert!(descriptors.len() == count && count == all && descriptors[0] > 2);
    let written = serde_json::to_vec(&config).expect("it can be written");
    let again: Config = serde_json::from_slice(&written).expect("and read again");
    assert_eq!(again, config);
});
