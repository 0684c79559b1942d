//! Packet headers (virtio 1.3 §5.10.6).

use vm_memory::{ByteValued, Le16, Le32, Le64};

/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub const TYPE_STREAM: u16 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender will receive no more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender will send no more.
pub const SHUTDOWN_SEND: u32 = 2;

/// The header as it is in guest memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, packed)]
pub struct Header {
    /// Context of the sender.
    pub src_cid: Le64,
    /// Context of the receiver.
    pub dst_cid: Le64,
    /// Port of the sender.
    pub src_port: Le32,
    /// Port of the receiver.
    pub dst_port: Le32,
    /// Bytes of payload.
    pub len: Le32,
    /// [`TYPE_STREAM`].
    pub kind: Le16,
    /// See [`Operation`].
    pub op: Le16,
    /// With [`Operation::Shutdown`], what is shut down.
    pub flags: Le32,
    /// Size of the sender's receive buffer.
    pub buf_alloc: Le32,
    /// Bytes that have left the sender's receive buffer, since the connection began.
    pub fwd_cnt: Le32,
}

// SAFETY: a packed structure of little-endian integers has no padding and no invalid values.
unsafe impl ByteValued for Header {}

/// Size of a header.
pub const HEADER_SIZE: usize = size_of::<Header>();

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Open a connection.
    Request,
    /// It is open.
    Response,
    /// It is closed, or never was.
    Reset,
    /// One side, or both, will send or receive no more.
    Shutdown,
    /// Payload.
    ReadWrite,
    /// Tells the receive buffer's state.
    CreditUpdate,
    /// Asks for it.
    CreditRequest,
}

impl Operation {
    /// The operation of this number.
    pub fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::ReadWrite,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    /// Its number.
    pub fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::ReadWrite => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}
