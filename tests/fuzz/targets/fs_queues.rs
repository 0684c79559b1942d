//! The queues of a virtio-fs worker, as a guest fills them: chains of any kind, with requests that
//! are none as a rule.
#![no_main]

mod driver;
mod inside;

use driver::Chain;
use inside::{Inside, inside};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Step {
    Offer(bool, Chain),
    /// A header that names an operation, with as much memory behind it as its chain has.
    Header {
        offset: u16,
        operation: u8,
        length: u32,
        node: u8,
    },
    Process(bool),
    Patch(u16, Vec<u8>),
}

fn run(inside: &mut Inside, steps: &[Step]) {
    inside.restart();
    let mut driver = inside.start();
    for step in steps.iter().take(40) {
        match step {
            Step::Offer(queue, chain) => driver.offer_any((*queue).into(), chain),
            Step::Header { offset, operation, length, node } => {
                let mut header = length.to_le_bytes().to_vec();
                header.extend(u32::from(operation % 54).to_le_bytes());
                header.extend(9u64.to_le_bytes());
                header.extend(u64::from(node % 8).to_le_bytes());
                header.extend([0; 16]);
                driver.write(driver::BUFFERS + u64::from(*offset), &header);
            }
            Step::Process(queue) => {
                inside.process((*queue).into());
                driver.used((*queue).into());
            }
            Step::Patch(address, bytes) => {
                driver.write((*address).into(), bytes);
            }
        }
    }
    driver.check_memory();
    inside.check();
}

fuzz_target!(|input: &[u8]| {
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(input)) else { return };
    inside(move |inside| run(inside, &steps));
});
