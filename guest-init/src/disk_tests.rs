use super::{Device, Disk, Disks, decimal, with_serials};
use proptest::prelude::*;

fn disk(serial: &str) -> Disk {
    Disk { serial: serial.into(), device: Device { major: 254, minor: 16 }, sectors: 8 }
}

#[test]
fn a_disk_is_taken_once_by_its_serial() {
    let mut disks = Disks::new(vec![disk("image-0"), disk("image-1"), disk("scratch")]);
    assert_eq!(disks.take("image-1").unwrap().serial, "image-1");
    assert_eq!(disks.take("scratch").unwrap().serial, "scratch");
    for serial in ["image-1", "image-", "image-00", "IMAGE-0"] {
        let error = disks.take(serial).unwrap_err().to_string();
        assert!(error.contains(&format!("no disk with the serial \"{serial}\"")), "{error}");
    }
    assert_eq!(disks.take("image-0").unwrap().serial, "image-0");
}

#[test]
fn serials_that_no_disk_can_have_are_refused() {
    for serial in ["", "123456789012345678901", "a/b", "a b", "ä", "a\n", "."] {
        let error = Disks::new(vec![disk(serial)]).take(serial).unwrap_err().to_string();
        assert!(error.contains("cannot be the serial of a disk"), "{error}");
    }
}

#[test]
fn numbers_are_digits() {
    assert_eq!(decimal::<u32>("4294967295"), Some(u32::MAX));
    for text in ["", "+1", "-1", " 1", "1 ", "1\n", "0x1", "4294967296"] {
        assert_eq!(decimal::<u32>(text), None, "{text}");
    }
    for text in ["", "1", ":", "1:", ":1", "1:2:3", "1:+2", "4294967296:0"] {
        assert!(text.parse::<Device>().is_err(), "{text}");
    }
}

/// Whatever disks this machine has: those with a serial are listed as they are.
#[test]
fn disks_of_this_machine_can_be_listed() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: mounting sysfs takes root");
        return;
    }
    for disk in with_serials().unwrap() {
        let path = format!("/sys/dev/block/{}/size", disk.device);
        let size = std::fs::read_to_string(path).unwrap();
        assert_eq!(size.trim(), disk.sectors.to_string());
    }
}

proptest! {
    #[test]
    fn numbers_of_devices_are_read_as_they_are_written(major: u32, minor: u32) {
        let device = Device { major, minor };
        prop_assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
    }
}
