use super::host::{
    cgroup_controllers, cni_plugins, landlock_version, namespace_limit, selinux_mode,
    shmem_huge_pages,
};
use super::parts::kernel;
use super::sharing::{hardware_threads, merging, swap_spaces, vulnerabilities};
use super::*;
use crate::options::InsecureOptions;
use crate::settings::Directories;
use std::fs;

#[test]
fn a_line_says_state_name_detail_and_what_to_do() {
    let check = Check::new("tpm", State::Missing, "/dev/tpmrm0: no such file", "switch it on");
    assert_eq!(check.to_string(), "missing  tpm        /dev/tpmrm0: no such file; switch it on");
    let check = Check::new("tpm", State::Ok, "/dev/tpmrm0", "");
    assert_eq!(check.to_string(), "ok       tpm        /dev/tpmrm0");
}

#[test]
fn json_has_the_fields_that_programs_read() {
    let mut check = Check::new("kvm", State::Warning, "d", "a").required();
    assert_eq!(
        serde_json::to_string(&check).unwrap(),
        r#"{"name":"kvm","state":"warning","detail":"d","advice":"a"}"#
    );
    check.speed = Some(Speed { hardware: true, instructions_per_second: 2e9 });
    assert_eq!(
        serde_json::to_string(&check).unwrap(),
        r#"{"name":"kvm","state":"warning","detail":"d","advice":"a","hardware":true,"instructions_per_second":2000000000.0}"#
    );
}

#[test]
fn every_check_has_a_name_of_its_own_and_kvm_has_its_speed() {
    let installation = Installation::find().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = |name| directory.path().join(name);
    let settings = ImageSettings {
        data_dir: place("data"),
        directories: Directories { system: place("system"), local: place("local"), user: None },
        policy: place("policy.json"),
        insecure: InsecureOptions::default(),
        trust_keys_from_https: false,
    };
    let checks = examine(&installation, &settings);
    let names: std::collections::BTreeSet<_> = checks.iter().map(|check| check.name).collect();
    assert_eq!(names.len(), checks.len());
    assert!(checks.iter().all(|check| (check.state == State::Ok) == check.advice.is_empty()));
    let kvm = checks.iter().find(|check| check.name == "kvm").unwrap();
    assert_eq!(kvm.speed.unwrap().hardware, kvm.state == State::Ok);
}

#[test]
fn the_hosts_files_are_read_as_the_kernel_writes_them() {
    for (content, state) in [
        (Some("always within_size [advise] never deny force\n"), State::Ok),
        (Some("always within_size advise [never] deny force\n"), State::Warning),
        (Some("garbage"), State::Warning),
        (None, State::Warning),
    ] {
        assert_eq!(shmem_huge_pages(content).state, state, "{content:?}");
    }
    for (content, state) in
        [(Some("1"), State::Ok), (Some("0"), State::Warning), (None, State::Missing)]
    {
        assert_eq!(selinux_mode(content).state, state, "{content:?}");
    }
    for (content, state) in [
        (Some("63425\n"), State::Ok),
        (Some("0\n"), State::Missing),
        (Some("many"), State::Missing),
        (None, State::Missing),
    ] {
        assert_eq!(namespace_limit(content).state, state, "{content:?}");
    }
    assert_eq!([0, 6].map(|it| landlock_version(it).state), [State::Warning, State::Ok]);
    for (content, state) in [
        (Some("cpuset cpu io memory pids\n"), State::Ok),
        (Some("cpuset io\n"), State::Warning),
        (Some(""), State::Warning),
        (None, State::Missing),
    ] {
        assert_eq!(cgroup_controllers(content).state, state, "{content:?}");
    }
}

#[test]
fn what_pods_could_tell_each_other_without_wanting_to_is_a_warning() {
    let bugs = |state: &str| {
        let known = ("meltdown".to_owned(), "Not affected\n".to_owned());
        vulnerabilities(&[known, ("mds".to_owned(), state.to_owned())])
    };
    for (text, state) in [
        ("Mitigation: Clear CPU buffers; SMT vulnerable\n", State::Ok),
        ("Not affected\n", State::Ok),
        ("Vulnerable: Clear CPU buffers attempted, no microcode\n", State::Warning),
        ("Vulnerable\n", State::Warning),
        ("KVM: Vulnerable\n", State::Warning),
        ("Unknown: No mitigations\n", State::Warning),
    ] {
        let check = bugs(text);
        assert_eq!(check.state, state, "{check}");
        assert_eq!(check.detail.contains("mds"), state == State::Warning, "{check}");
    }
    assert_eq!(vulnerabilities(&[]).state, State::Warning);

    use rustix::io::Errno;
    for (active, cores, state) in [
        (Some("1\n"), Ok(()), State::Ok),
        (Some("1\n"), Err(Errno::INVAL), State::Warning),
        (Some("0\n"), Err(Errno::NODEV), State::Ok),
        (None, Err(Errno::INVAL), State::Ok),
    ] {
        assert_eq!(hardware_threads(active, cores).state, state, "{active:?} {cores:?}");
    }
    for (run, state) in [
        (Some("0\n"), State::Ok),
        (Some("1\n"), State::Warning),
        (Some("2\n"), State::Ok),
        (None, State::Ok),
    ] {
        assert_eq!(merging(run).state, state, "{run:?}");
    }
    let header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    for (spaces, state) in [
        ("", State::Ok),
        ("/dev/zram0 partition 1 0 100\n", State::Ok),
        ("/dev/dm-1 partition 1 0 -2\n", State::Ok),
        ("/dev/sda2 partition 1 0 -2\n", State::Warning),
        ("/swapfile file 1 0 -2\n", State::Warning),
    ] {
        let check = swap_spaces(&format!("{header}{spaces}"), |device| device == "dm-1");
        assert_eq!(check.state, state, "{check}");
    }
}

#[test]
fn plugins_are_found_where_there_are_some() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    let full = directory.path().join("full");
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&full).unwrap();
    fs::write(full.join("bridge"), "").unwrap();
    assert_eq!(cni_plugins(&[&empty, &full]).state, State::Ok);
    assert_eq!(cni_plugins(&[&empty, &directory.path().join("none")]).state, State::Missing);
}

#[test]
fn a_kernel_is_held_against_its_record() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("vmlinux");
    let record = directory.path().join("kernel.json");
    assert_eq!(kernel(&image, &record, "build it").state, State::Missing);
    fs::write(&image, "abc").unwrap();
    assert_eq!(kernel(&image, &record, "").state, State::Warning);
    // The digest of "abc" in FIPS 180-2, appendix B.1.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    fs::write(&record, format!(r#"{{"vmlinux":{{"sha256":"{abc}"}}}}"#)).unwrap();
    let check = kernel(&image, &record, "");
    assert_eq!(check.state, State::Ok, "{check}");
    fs::write(&image, "abd").unwrap();
    assert_eq!(kernel(&image, &record, "").state, State::Warning);
}
