//! The constants that files may name.

/// An argument that is this is compared in all its 64 bits.
pub const NULL: &str = "NULL";

/// The value of a constant.
pub fn value(name: &str) -> Option<u32> {
    LIBC.iter().chain(KVM).find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// The names are those of constants of libc's, which say `int` where the kernel reads 32 bits.
macro_rules! from_libc {
    ($($name:ident)*) => {
        &[$((stringify!($name), {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "32 bits")]
            { libc::$name as u32 }
        })),*]
    };
}

const LIBC: &[(&str, u32)] = from_libc! {
    AF_UNIX SOCK_STREAM SOCK_CLOEXEC SHUT_RD SHUT_WR MSG_DONTWAIT MSG_NOSIGNAL
    EPOLL_CTL_ADD EPOLL_CTL_DEL
    FUTEX_WAIT FUTEX_WAIT_BITSET FUTEX_WAKE FUTEX_PRIVATE_FLAG
    F_GETFD O_CREAT PROT_EXEC
    PR_CAPBSET_READ PR_CAP_AMBIENT PR_CAP_AMBIENT_IS_SET
    S_IFMT S_IFREG S_IFIFO S_IFSOCK S_IFCHR
    SIGABRT RWF_DSYNC
};

/// KVM's calls (linux/kvm.h).
const KVM: &[(&str, u32)] = &[
    ("KVM_RUN", ioctl(NONE, 0x80, 0)),
    // struct kvm_regs: 18 registers.
    ("KVM_GET_REGS", ioctl(READ, 0x81, 18 * 8)),
    // struct kvm_irq_routing, without its entries.
    ("KVM_SET_GSI_ROUTING", ioctl(WRITE, 0x6a, 8)),
    // struct kvm_msi.
    ("KVM_SIGNAL_MSI", ioctl(WRITE, 0xa5, 32)),
];

const NONE: u32 = 0;
const WRITE: u32 = 1;
const READ: u32 = 2;
const KVMIO: u32 = 0xae;

/// The number of a call with arguments of this direction and size (asm-generic/ioctl.h).
const fn ioctl(direction: u32, number: u32, size: u32) -> u32 {
    (direction << 30) | (size << 16) | (KVMIO << 8) | number
}
