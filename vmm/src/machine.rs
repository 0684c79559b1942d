//! The microVM as a whole: how it is put together, its buses, its main loop.

use crate::boot;
use crate::config::{Config, Disk, Share};
use crate::control::{self, Event};
use crate::devices::console::{self, Console};
use crate::devices::ioapic::{self, IoApic};
use crate::devices::virtio::blk::{Backend, Blk};
use crate::devices::virtio::fs::Fs;
use crate::devices::virtio::mmio::{QUEUE_NOTIFY, Registers, Request};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::vsock::Vsock;
use crate::devices::virtio::{Activation, Device, DeviceError, Interrupt, Registry};
use crate::exit::Exit;
use crate::filter::Thread;
use crate::layout;
use crate::memory::{self, Backing, GuestMemory};
use crate::threads::Threads;
use crate::vcpu::Vcpu;
use crate::{VmmError, cores, heap, inherited};
use kvm_bindings::{
    CpuId, KVM_CAP_SPLIT_IRQCHIP, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use rustix::net::SendFlags;
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// How the guest's own doing ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It wrote to the keyboard controller's reset line.
    Reset,
    /// A virtual CPU shut down.
    TripleFault,
}

/// The keyboard controller's command port; writing [`RESET`] to it resets a PC.
const KEYBOARD_PORT: u16 = 0x64;
const RESET: u8 = 0xfe;

/// Interrupt lines begin here: Linux takes line 0 for the timer's.
const FIRST_LINE: u8 = 1;

/// Interrupt lines of the largest microVM.
#[allow(clippy::cast_possible_truncation, reason = "a sum of small constants")]
pub(crate) const MAX_LINES: u8 =
    FIRST_LINE + (ALWAYS + Config::MAX_SHARES + Config::MAX_DISKS) as u8;

const _: () = assert!(MAX_LINES <= ioapic::MAX_LINES);

/// Devices that every microVM has: vsock and rng.
const ALWAYS: usize = 2;

/// What the virtual CPUs share: everything that answers an access.
#[derive(Debug)]
pub struct Bus {
    memory: GuestMemory,
    io_apic: Arc<IoApic>,
    console: Mutex<Console>,
    devices: Vec<Mutex<Registers>>,
    /// There are never more than virtual CPUs and devices: a virtual CPU waits for its last one, but
    /// for the one that activates a device, and that one is active then.
    messages: Mutex<VecDeque<Message>>,
    wake: EventFd,
}

/// What a virtual CPU wants of the main loop.
#[derive(Debug)]
enum Message {
    Device { index: usize, request: Request, done: Option<Arc<Done>> },
    End(Result<End, VmmError>),
}

/// Something that a virtual CPU waits for. Not a channel of the standard library's: those yield the
/// processor when they are contended, which would be one more system call to allow.
#[derive(Debug, Default)]
struct Done {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Done {
    fn set(&self) {
        *lock(&self.done) = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut done = lock(&self.done);
        while !*done {
            done = self.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Bus {
    /// Tells the main loop that a virtual CPU has ended.
    pub fn end(&self, end: Result<End, VmmError>) {
        self.send(Message::End(end));
    }

    fn send(&self, message: Message) {
        lock(&self.messages).push_back(message);
        // An eventfd takes any count of writes.
        let _ = self.wake.write(1);
    }

    /// A read from memory that is no RAM.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        if let Some(offset) = io_apic_offset(address) {
            self.io_apic.read(offset, data);
        } else if let Some((_, device, offset)) = self.device(address) {
            device.read(offset, data);
        } else {
            data.fill(0xff);
        }
    }

    /// A write to memory that is no RAM.
    ///
    /// # Errors
    /// KVM's, from interrupts that are set up.
    pub fn mmio_write(&self, address: u64, data: &[u8]) -> Result<(), VmmError> {
        if let Some(offset) = io_apic_offset(address) {
            return self.io_apic.write(offset, data).map_err(VmmError::kvm("interrupt routing"));
        }
        let Some((index, mut device, offset)) = self.device(address) else { return Ok(()) };
        let request = device.write(offset, data, &self.memory);
        drop(device);
        match request {
            None => {}
            Some(request @ Request::Activate { .. }) => {
                self.send(Message::Device { index, request, done: None });
            }
            Some(Request::Reset) => {
                // The driver may free the queues' memory as soon as the write is done.
                let done = Arc::new(Done::default());
                let message =
                    Message::Device { index, request: Request::Reset, done: Some(done.clone()) };
                self.send(message);
                done.wait();
            }
        }
        Ok(())
    }

    /// A read from an I/O port.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(match port {
            console::PORT.. if port - console::PORT < console::PORTS => {
                lock(&self.console).read(port - console::PORT)
            }
            KEYBOARD_PORT => 0,
            _ => 0xff,
        });
    }

    /// A write to an I/O port; the result is set if it ends the guest.
    pub fn port_write(&self, port: u16, data: &[u8]) -> Option<End> {
        match port {
            console::PORT.. if port - console::PORT < console::PORTS => {
                let mut console = lock(&self.console);
                for byte in data {
                    console.write(port - console::PORT, *byte);
                }
                None
            }
            KEYBOARD_PORT if data == [RESET] => Some(End::Reset),
            _ => None,
        }
    }

    fn device(&self, address: u64) -> Option<(usize, MutexGuard<'_, Registers>, u64)> {
        let offset = address.checked_sub(layout::MMIO_BASE)?;
        let index = usize::try_from(offset / layout::MMIO_STRIDE).ok()?;
        Some((index, lock(self.devices.get(index)?), offset % layout::MMIO_STRIDE))
    }
}

fn io_apic_offset(address: u64) -> Option<u64> {
    address.checked_sub(layout::IO_APIC).filter(|offset| *offset < ioapic::SIZE)
}

/// A panic aborts the process, so no lock is ever poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A microVM that is ready to run.
pub struct Machine {
    bus: Arc<Bus>,
    devices: Vec<Box<dyn Device>>,
    vcpus: Vec<Vcpu>,
    epoll: Arc<Epoll>,
    control: Arc<OwnedFd>,
    /// Keeps the machine's memory slots; dropped after everything that uses them.
    _vm: Arc<VmFd>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Machine({} devices, {} CPUs)", self.devices.len(), self.vcpus.len())
    }
}

/// Event source of the main loop itself.
const MAIN: u32 = u32::MAX;
const SOURCE_WAKE: u32 = 0;
const SOURCE_CONTROL: u32 = 1;

impl Machine {
    /// Puts a microVM together.
    ///
    /// # Errors
    /// See [`VmmError`].
    pub fn new(config: &Config) -> Result<Self, VmmError> {
        heap::keep_one();
        cores::keep_to_itself().map_err(VmmError::Cores)?;
        let fields = config.fields();
        let vcpus = fields.vcpus.get();
        let count = ALWAYS + fields.shares.len() + fields.disks.len();
        let lines = FIRST_LINE + u8::try_from(count).map_err(|_| VmmError::Devices)?;
        // KVM_CREATE_VM waits for the host kernel for as long as everything else takes here.
        let vm = start_vm(inherited(fields.kvm_fd)?, lines)?;

        let backing = if fields.shares.is_empty() { Backing::Private } else { Backing::Shared };
        let memory = memory::allocate(fields.memory_mib.bytes(), backing)?;
        let line = command_line(count, fields.command_line.as_str())?;
        let kernel = inherited(fields.kernel_fd)?.into();
        let initramfs = inherited(fields.initramfs_fd)?.into();
        let entry = boot::load(&memory, kernel, initramfs, &line, vcpus, lines)?;

        let (vm, mut cpuid) = vm.join().map_err(|_| VmmError::Devices)??;
        let vm = Arc::new(vm);
        set_memory(&vm, &memory)?;

        let control = Arc::new(inherited(fields.control_fd)?);
        let console = Console::new(inherited(fields.console_fd)?.into());
        let io_apic = Arc::new(IoApic::new(vm.clone(), lines));
        let epoll = Arc::new(Epoll::new().map_err(VmmError::Epoll)?);
        let mut builder = Builder {
            vm: &vm,
            epoll: &epoll,
            io_apic: &io_apic,
            devices: vec![],
            registers: vec![],
        };
        builder.vsock(control.clone())?;
        builder.rng()?;
        for share in &fields.shares {
            builder.fs(share)?;
        }
        for disk in &fields.disks {
            builder.blk(disk)?;
        }
        let Builder { devices, registers, .. } = builder;

        boot::cpuid::common(&mut cpuid, vcpus);
        let vcpus = (0..vcpus)
            .map(|index| Vcpu::new(&vm, &cpuid, index, vcpus, entry.address))
            .collect::<Result<_, _>>()?;

        let wake = EventFd::new(NONBLOCK).map_err(VmmError::Epoll)?;
        let watch = |descriptor, events, source| {
            let token = (u64::from(MAIN) << 32) | u64::from(source);
            epoll
                .ctl(ControlOperation::Add, descriptor, EpollEvent::new(events, token))
                .map_err(VmmError::Epoll)
        };
        watch(std::os::fd::AsRawFd::as_raw_fd(&wake), EventSet::IN, SOURCE_WAKE)?;
        watch(fields.control_fd, EventSet::READ_HANG_UP, SOURCE_CONTROL)?;
        let bus = Arc::new(Bus {
            memory,
            io_apic,
            console: Mutex::new(console),
            devices: registers.into_iter().map(Mutex::new).collect(),
            messages: Mutex::default(),
            wake,
        });
        Ok(Self { bus, devices, vcpus, epoll, control, _vm: vm })
    }

    /// Runs the guest until it ends, the supervisor hangs up or something fails.
    ///
    /// # Errors
    /// See [`VmmError`].
    pub fn run(mut self) -> Result<Exit, VmmError> {
        let mut threads = Threads::default();
        for work in self.devices.iter_mut().filter_map(|device| device.work()) {
            threads.spawn(work.name, Thread::Disk, work.run)?;
        }
        for mut vcpu in std::mem::take(&mut self.vcpus) {
            let (bus, name) = (self.bus.clone(), vcpu.name());
            let run = move || {
                bus.end(vcpu.run(&bus));
                // To close it would take system calls that the thread must not make.
                std::mem::forget(vcpu);
            };
            threads.spawn(name, Thread::Vcpu, run)?;
        }
        let first_entry = threads.release(|| clock_gettime(ClockId::Monotonic))?;
        // The clock is never before its epoch.
        self.tell_first_entry(first_entry.try_into().unwrap_or_default());
        let end = self.main_loop();
        lock(&self.bus.console).finish();
        // The process ends now, and with it everything that this would take apart.
        std::mem::forget(self);
        end
    }

    fn main_loop(&mut self) -> Result<Exit, VmmError> {
        let mut events = [EpollEvent::default(); 16];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(VmmError::Epoll(error)),
            };
            for event in &events[..count] {
                let exit = match Registry::split(event.data()) {
                    (MAIN, SOURCE_WAKE) => self.take_messages()?,
                    (MAIN, _) => Some(Exit::HangUp),
                    (device, source) => {
                        let index = device as usize;
                        let result = match self.devices.get_mut(index) {
                            Some(device) => device.event(source, event.event_set()),
                            None => Ok(()),
                        };
                        self.settle(index, result)?
                    }
                };
                if let Some(exit) = exit {
                    return Ok(exit);
                }
            }
        }
    }

    /// Tells the supervisor when the guest began.
    fn tell_first_entry(&self, time: Duration) {
        // Only of interest to who measures: a supervisor that does not listen misses nothing.
        let _ = control::send(&*self.control, &Event::FirstEntry { time }, SendFlags::DONTWAIT);
    }

    fn take_messages(&mut self) -> Result<Option<Exit>, VmmError> {
        let _ = self.bus.wake.read();
        loop {
            let Some(message) = lock(&self.bus.messages).pop_front() else { return Ok(None) };
            match message {
                Message::End(end) => {
                    let panicked = lock(&self.bus.console).panicked();
                    return Ok(Some(match end? {
                        End::TripleFault => Exit::TripleFault,
                        End::Reset if panicked => Exit::Panic,
                        End::Reset => Exit::Reset,
                    }));
                }
                Message::Device { index, request, done } => {
                    let Some(device) = self.devices.get_mut(index) else { continue };
                    let result = match request {
                        Request::Reset => {
                            device.reset();
                            Ok(())
                        }
                        Request::Activate { queues, features } => {
                            let memory = self.bus.memory.clone();
                            device.activate(Activation { memory, queues, features })
                        }
                    };
                    if let Some(done) = done {
                        done.set();
                    }
                    if let Some(exit) = self.settle(index, result)? {
                        return Ok(Some(exit));
                    }
                }
            }
        }
    }

    /// What follows from a device's error: a driver that broke the protocol loses the device, the
    /// host's trouble ends the microVM.
    fn settle(
        &mut self,
        index: usize,
        result: Result<(), DeviceError>,
    ) -> Result<Option<Exit>, VmmError> {
        match result {
            Ok(()) => Ok(None),
            Err(DeviceError::WorkerGone) => Ok(Some(Exit::WorkerGone)),
            Err(error @ DeviceError::Host(_)) => Err(VmmError::Device(error)),
            Err(DeviceError::Driver(_) | DeviceError::Queue(_)) => {
                if let (Some(device), Some(registers)) =
                    (self.devices.get_mut(index), self.bus.devices.get(index))
                {
                    device.reset();
                    lock(registers).set_needs_reset().map_err(VmmError::Device)?;
                }
                Ok(None)
            }
        }
    }
}

const NONBLOCK: i32 = rustix::event::EventfdFlags::NONBLOCK.bits().cast_signed();

/// Registers and interrupt line of the device of this number.
fn place(index: usize) -> Result<(u64, u8), VmmError> {
    let line = u8::try_from(index).map_err(|_| VmmError::Devices)? + FIRST_LINE;
    Ok((layout::MMIO_BASE + layout::MMIO_STRIDE * index as u64, line))
}

/// Tells the kernel where so many devices are, and what else there is to tell it.
fn command_line(devices: usize, more: &str) -> Result<String, VmmError> {
    let mut line = String::new();
    for index in 0..devices {
        let (address, irq) = place(index)?;
        // 4K@address:irq, as Linux' virtio_mmio.device= wants it.
        let _ = write!(line, "virtio_mmio.device=4K@{address:#x}:{irq} ");
    }
    line.push_str(more);
    line.truncate(line.trim_end().len());
    Ok(line)
}

type NewVm = Result<(VmFd, CpuId), VmmError>;

/// Begins to make the virtual machine, on a thread of its own.
fn start_vm(kvm: OwnedFd, lines: u8) -> Result<JoinHandle<NewVm>, VmmError> {
    let make = move || {
        // SAFETY: the descriptor is this function's own; if it is not KVM's, the next call says so.
        let kvm = unsafe { Kvm::from_raw_fd(kvm.into_raw_fd()) };
        let vm = kvm.create_vm().map_err(VmmError::kvm("KVM_CREATE_VM"))?;
        vm.set_tss_address(layout::KVM_TSS).map_err(VmmError::kvm("KVM_SET_TSS_ADDR"))?;
        let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
        // Lines that KVM keeps for the IO-APIC outside.
        split.args[0] = lines.into();
        vm.enable_cap(&split).map_err(VmmError::kvm("KVM_CAP_SPLIT_IRQCHIP"))?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(VmmError::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        Ok((vm, cpuid))
    };
    std::thread::Builder::new().name("create-vm".into()).spawn(make).map_err(VmmError::Thread)
}

fn set_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), VmmError> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is a mapping of that size which stays until the process ends, and
        // nothing else of the process is in it.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(VmmError::kvm("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

/// Gives devices their places, in order.
struct Builder<'a> {
    vm: &'a VmFd,
    epoll: &'a Arc<Epoll>,
    io_apic: &'a Arc<IoApic>,
    devices: Vec<Box<dyn Device>>,
    registers: Vec<Registers>,
}

impl Builder<'_> {
    fn vsock(&mut self, control: Arc<OwnedFd>) -> Result<(), VmmError> {
        let (registry, interrupt, kicks) = self.resources::<{ Vsock::QUEUES }>(NONBLOCK)?;
        let device = Vsock::new(registry, interrupt.clone(), kicks.clone(), control);
        self.add(device.map_err(VmmError::Device)?, interrupt, kicks);
        Ok(())
    }

    fn rng(&mut self) -> Result<(), VmmError> {
        let (registry, interrupt, kicks) = self.resources::<{ Rng::QUEUES }>(NONBLOCK)?;
        let [kick] = kicks.clone();
        let device = Rng::new(registry, interrupt.clone(), kick);
        self.add(device.map_err(VmmError::Device)?, interrupt, kicks);
        Ok(())
    }

    fn fs(&mut self, share: &Share) -> Result<(), VmmError> {
        let (registry, interrupt, kicks) = self.resources::<{ Fs::QUEUES }>(NONBLOCK)?;
        let socket = inherited(share.fd)?;
        let device = Fs::new(registry, &interrupt, kicks.clone(), socket, share.tag.clone());
        self.add(device.map_err(VmmError::Device)?, interrupt, kicks);
        Ok(())
    }

    fn blk(&mut self, disk: &Disk) -> Result<(), VmmError> {
        // Its thread waits for the kick by reading it.
        let (registry, interrupt, kicks) = self.resources::<{ Blk::QUEUES }>(0)?;
        let backend = Backend::new(inherited(disk.fd)?, disk.serial.clone(), disk.read_only)?;
        let [kick] = kicks.clone();
        let device = Blk::new(registry, interrupt.clone(), kick, backend);
        self.add(device.map_err(VmmError::Device)?, interrupt, kicks);
        Ok(())
    }

    /// What the next device needs: its kicks, events with these flags, are wired to its registers
    /// by KVM.
    fn resources<const QUEUES: usize>(
        &self,
        flags: i32,
    ) -> Result<(Registry, Interrupt, [Arc<EventFd>; QUEUES]), VmmError> {
        let index = self.devices.len();
        let (address, line) = place(index)?;
        let kicks: Vec<_> = (0..QUEUES)
            .map(|_| EventFd::new(flags).map(Arc::new).map_err(VmmError::Epoll))
            .collect::<Result<_, _>>()?;
        for (queue, kick) in (0u32..).zip(&kicks) {
            let notify = IoEventAddress::Mmio(address + QUEUE_NOTIFY);
            self.vm
                .register_ioevent(kick, &notify, queue)
                .map_err(VmmError::kvm("KVM_IOEVENTFD"))?;
        }
        let kicks = kicks.try_into().map_err(|_| VmmError::Devices)?;
        let number = u32::try_from(index).map_err(|_| VmmError::Devices)?;
        let registry = Registry::new(self.epoll.clone(), number);
        Ok((registry, Interrupt::new(self.io_apic.clone(), line), kicks))
    }

    fn add<const QUEUES: usize>(
        &mut self,
        device: impl Device + 'static,
        interrupt: Interrupt,
        kicks: [Arc<EventFd>; QUEUES],
    ) {
        self.registers.push(Registers::new(device.identity(), interrupt, kicks.into()));
        self.devices.push(Box::new(device));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CommandLine;

    #[test]
    fn the_kernel_can_be_told_of_all_devices_and_as_much_more_as_is_allowed() {
        let devices = usize::from(MAX_LINES - FIRST_LINE);
        let line = command_line(devices, &"x".repeat(CommandLine::MAX)).unwrap();
        assert!(line.len() <= boot::COMMAND_LINE_ROOM, "{}", line.len());
        assert!(line.contains("virtio_mmio.device=4K@0xd0000000:1 "), "{line}");
        let last = layout::MMIO_BASE + layout::MMIO_STRIDE * devices as u64;
        assert!(last <= layout::IO_APIC, "{last:#x}");
    }
}
