use crate::devices::virtio::DeviceError;
use crate::memory::GuestMemory;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use vhost::vhost_user::message::VhostUserVirtioFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend, message::VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

/// The worker's end of the vhost-user protocol.
pub(super) struct Backend {
    frontend: Frontend,
    features: u64,
}

impl Backend {
    /// Negotiates with the worker behind `socket`.
    pub(super) fn connect(socket: OwnedFd, queues: usize) -> Result<Self, DeviceError> {
        let stream = UnixStream::from(socket);
        let mut frontend = Frontend::from_stream(stream, queues as u64);
        frontend.set_owner().map_err(refused)?;
        let features = frontend.get_features().map_err(refused)?;
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0 {
            let offered = frontend.get_protocol_features().map_err(refused)?;
            // So that a refused request is an error here and not a puzzle later.
            let wanted = offered & VhostUserProtocolFeatures::REPLY_ACK;
            frontend.set_protocol_features(wanted).map_err(refused)?;
        }
        Ok(Self { frontend, features })
    }

    /// Features that the worker offers to the driver.
    pub(super) fn features(&self) -> u64 {
        self.features & !VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    /// Shows the worker memory and queues and lets it begin.
    pub(super) fn start<'a>(
        &mut self,
        memory: &GuestMemory,
        features: u64,
        queues: impl Iterator<Item = (&'a Queue, &'a EventFd)>,
        call: &EventFd,
    ) -> Result<(), DeviceError> {
        let protocol = self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        self.frontend.set_features(features | protocol).map_err(refused)?;
        let regions: Vec<_> = memory
            .iter()
            .map(VhostUserMemoryRegionInfo::from_guest_region)
            .collect::<Result<_, _>>()
            .map_err(refused)?;
        self.frontend.set_mem_table(&regions).map_err(refused)?;
        for (index, (queue, kick)) in queues.enumerate() {
            let address = |address| {
                memory
                    .get_host_address(GuestAddress(address))
                    .map(|pointer| pointer as u64)
                    .map_err(|_| DeviceError::Driver("queue outside of memory"))
            };
            self.frontend.set_vring_num(index, queue.size()).map_err(refused)?;
            self.frontend
                .set_vring_addr(
                    index,
                    &VringConfigData {
                        queue_max_size: queue.max_size(),
                        queue_size: queue.size(),
                        flags: 0,
                        desc_table_addr: address(queue.desc_table())?,
                        used_ring_addr: address(queue.used_ring())?,
                        avail_ring_addr: address(queue.avail_ring())?,
                        log_addr: None,
                    },
                )
                .map_err(refused)?;
            self.frontend.set_vring_base(index, 0).map_err(refused)?;
            self.frontend.set_vring_call(index, call).map_err(refused)?;
            self.frontend.set_vring_kick(index, kick).map_err(refused)?;
            if protocol != 0 {
                self.frontend.set_vring_enable(index, true).map_err(refused)?;
            }
        }
        Ok(())
    }

    /// Takes the queues back.
    pub(super) fn stop(&mut self, queues: usize) -> Result<(), DeviceError> {
        (0..queues)
            .try_for_each(|queue| self.frontend.get_vring_base(queue).map(|_| ()).map_err(refused))
    }
}

impl AsRawFd for Backend {
    fn as_raw_fd(&self) -> RawFd {
        self.frontend.as_raw_fd()
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Backend(features {:#x})", self.features)
    }
}

fn refused(error: impl std::fmt::Display) -> DeviceError {
    DeviceError::Host(format!("virtio-fs worker: {error}"))
}
