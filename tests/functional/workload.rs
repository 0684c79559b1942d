//! Real work in a real image.

use sandbox_tests::image::debian;
use sandbox_tests::{run, temporary};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

const MAKEFILE: &str = "\
check: primes
\tpython3 check.py
primes: primes.c
\tgcc -O1 -Wall -Werror -o $@ $<
";

const PRIMES: &str = r#"
#include <stdio.h>
int main(void) {
    for (int n = 2; n < 100; n++) {
        int divisor = 2;
        while (n % divisor) divisor++;
        if (divisor == n) printf("%d\n", n);
    }
}
"#;

const CHECK: &str = r#"
import json, subprocess
primes = [int(line) for line in subprocess.check_output("./primes").split()]
assert primes == [n for n in range(2, 100) if all(n % d for d in range(2, n))], primes
with open("result.json", "w") as file:
    json.dump({"primes": len(primes)}, file)
print("passed")
"#;

/// Python and a compiler inside the Debian image build and test a small C program on a read-write
/// volume; the files are there afterwards with the right owners.
#[test]
fn a_c_program_is_built_and_tested_on_a_volume() {
    let source = temporary();
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for (name, content) in [("Makefile", MAKEFILE), ("primes.c", PRIMES), ("check.py", CHECK)] {
        fs::write(source.path().join(name), content).unwrap();
    }
    run(debian("oci:", "debian"))
        .volume("src", source.path(), "", "/src")
        .with("--memory=512M")
        .with("--cpu=2")
        .with("--working-dir=/src")
        .with("--user=1000")
        .with("--group=1000")
        .exec("make", ["--silent", "check"])
        .end()
        .exits(0)
        .prints("passed\n");
    let result = fs::read_to_string(source.path().join("result.json")).unwrap();
    assert_eq!(result, r#"{"primes": 25}"#);
    for (name, mode) in [("primes", 0o755), ("result.json", 0o644)] {
        let found = fs::metadata(source.path().join(name)).unwrap();
        let found = (found.uid(), found.gid(), found.mode() & 0o7777);
        assert_eq!(found, (1000, 1000, mode), "{name}");
    }
}
