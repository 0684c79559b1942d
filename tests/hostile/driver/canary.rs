//! The canary among the processes: one of root's that has a secret in its memory, its environment, an
//! open file and its keyring.

use crate::canaries::raw;
use sandbox_hostile::call;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// By which this program is the canary.
pub const ARGUMENT: &str = "canary";

const SECRET: &str = "SANDBOX_CANARY";

/// The canary, as others know it.
#[derive(Debug)]
pub struct Canary {
    child: Child,
    /// Where its secret is.
    pub address: u64,
    /// Where there is room for 64 bytes.
    pub scribble: u64,
    /// Its open file with the secret.
    pub descriptor: i32,
}

impl Canary {
    /// Starts it.
    pub fn start(secret: &str) -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.arg(ARGUMENT).env(SECRET, secret).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.process_group(0).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u64>().unwrap());
        Self {
            child,
            address: numbers.next().unwrap(),
            scribble: numbers.next().unwrap(),
            descriptor: i32::try_from(numbers.next().unwrap()).unwrap(),
        }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lives until it is killed.
pub fn live() -> ! {
    let secret = std::env::var(SECRET).unwrap();
    raw("prctl", call!(SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL));
    let file = raw("memfd_create", call!(SYS_memfd_create, c"canary", 0));
    raw("pwrite", call!(SYS_pwrite64, file, secret.as_bytes(), secret.len(), 0));
    // Into the keyring of the user.
    let key = (c"user", c"sandbox-canary");
    raw("add_key", call!(SYS_add_key, key.0, key.1, secret.as_bytes(), secret.len(), -4));
    let kept: &'static [u8] = secret.into_bytes().leak();
    let scribble: &'static mut [u8] = vec![0; 64].leak();
    println!("{} {} {file}", kept.as_ptr() as u64, scribble.as_ptr() as u64);
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1000));
    }
}
