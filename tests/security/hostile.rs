//! The build that attacks itself (`tests/hostile`) is another one than the product.

use std::fs;
use std::path::Path;

/// `cargo xtask dist` never builds attacks, nor what leaves layers of the isolation out.
#[test]
fn the_product_has_nothing_of_the_hostile_build() {
    const SWITCH: &[u8] = b"SANDBOX_HOSTILE";
    for program in ["bin/sandbox", "libexec/sandbox/sandbox-vmm", "libexec/sandbox/sandbox-fs"] {
        let program = Path::new("/usr").join(program);
        let content = fs::read(&program).unwrap();
        let found = content.windows(SWITCH.len()).any(|window| window == SWITCH);
        assert!(!found, "{} is of the hostile build", program.display());
    }
}
