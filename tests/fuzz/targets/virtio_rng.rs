//! The entropy device's queue, as a guest fills it.
#![no_main]

mod driver;

use driver::{Chain, Driver, NoLines, kicks, registry};
use libfuzzer_sys::{arbitrary, fuzz_target};
use sandbox_vmm::devices::virtio::rng::Rng;
use sandbox_vmm::devices::virtio::{Device, DeviceError, Interrupt};
use std::sync::Arc;
use vmm_sys_util::epoll::{Epoll, EventSet};

/// Most random bytes for one buffer.
const MOST: u32 = 256;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    steps: Vec<Step<'a>>,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Step<'a> {
    Offer(Chain),
    Kick,
    Reset,
    /// Anything, anywhere in memory.
    Patch(u16, &'a [u8]),
}

fuzz_target!(|input: Input<'_>| {
    let mut driver = Driver::new(1);
    let [kick] = kicks();
    let epoll = Arc::new(Epoll::new().expect("an epoll set"));
    let interrupt = Interrupt::new(Arc::new(NoLines), 1);
    let mut rng = Rng::new(registry(&epoll), interrupt, kick).expect("room in an epoll set");
    rng.activate(driver.activation(1 << 32)).expect("there is nothing to do yet");
    for step in &input.steps {
        let result = match step {
            Step::Offer(chain) => {
                driver.offer_any(0, chain);
                Ok(())
            }
            Step::Kick => rng.event(0, EventSet::IN),
            Step::Reset => {
                rng.reset();
                driver.restart();
                rng.activate(driver.activation(1 << 32))
            }
            Step::Patch(address, bytes) => {
                driver.write((*address).into(), bytes);
                Ok(())
            }
        };
        let tidy = driver.exact();
        for (_, length) in driver.used(0) {
            assert!(!tidy || length <= MOST, "{length} bytes");
        }
        match result {
            Ok(()) => {}
            // The main loop resets such a device.
            Err(DeviceError::Driver(_) | DeviceError::Queue(_)) => rng.reset(),
            Err(error) => panic!("{error}"),
        }
    }
    driver.check_memory();
});
