//! Several sockets on one UDP port, and the system told which datagram goes to which: the calls that are Linux's own, with their fallback elsewhere, which is to
//! say that it cannot be done. What sockets there are is in [`super::sockets`].

use std::io;
use std::net::UdpSocket;

#[cfg(target_os = "linux")]
use self::linux as system;
#[cfg(not(target_os = "linux"))]
use self::none as system;

/// Lets the sockets that have said so be bound to one address, if one user has them all (socket(7), SO_REUSEPORT). Linux takes it also from a socket that is bound
/// already.
///
/// # Errors
/// If the system refuses, or has no such thing.
pub(super) fn share_port(socket: &UdpSocket, is_shared: bool) -> io::Result<()> {
    system::share_port(socket, is_shared)
}

/// A further socket on the address of one that shares its port.
///
/// # Errors
/// If the system refuses, or has no such thing.
pub(super) fn bind_beside(address: std::net::SocketAddr) -> io::Result<UdpSocket> {
    // The standard library binds what it makes at once; what is asked for here has to be said before.
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?.into();
    share_port(&socket, true)?;
    socket2::SockRef::from(&socket).bind(&address.into())?;
    Ok(socket)
}

/// Gives each datagram for the port of this socket to the socket of the shard that its session number names: the first that was bound to shard 0, the next to shard 1.
/// What names no shard goes to any of them. Holds for all sockets on the port.
///
/// # Errors
/// If the system refuses, or has no such thing.
pub(super) fn steer(socket: &UdpSocket) -> io::Result<()> {
    system::steer(socket)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::net::UdpSocket;

    use libc::{SOL_SOCKET, c_int, sock_filter, sock_fprog};

    use crate::shard::options::set;

    /// Where in a datagram its shard is: the lowest byte of the session number, which follows the version, little-endian (`holeshot_wire::datagram`, `SessionId`).
    const SHARD_AT: u32 = 1;
    /// Classic BPF (bpf(4) of FreeBSD, where it comes from; Documentation/networking/filter.rst of Linux): load the byte at an absolute place into the accumulator.
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    /// Return the accumulator: the constant BPF_A of linux/filter.h, which libc leaves out.
    const RETURN_ACCUMULATOR: u16 = libc::BPF_RET as u16 | 0x10;

    pub(super) fn share_port(socket: &UdpSocket, is_shared: bool) -> io::Result<()> {
        set(socket, SOL_SOCKET, libc::SO_REUSEPORT, &c_int::from(is_shared))
    }

    /// The program sees a datagram from its first byte on (of UDP, unlike TCP, the header is taken off), and what it returns is the index of a socket in the order in
    /// which they were bound (socket(7), SO_ATTACH_REUSEPORT_CBPF). An index beyond them is no answer: the system then chooses by addresses and ports. A datagram of one
    /// byte has none at [`SHARD_AT`]: the load ends the program with 0.
    pub(super) fn steer(socket: &UdpSocket) -> io::Result<()> {
        let mut program = [
            sock_filter { code: LOAD_BYTE, jt: 0, jf: 0, k: SHARD_AT },
            sock_filter { code: RETURN_ACCUMULATOR, jt: 0, jf: 0, k: 0 },
        ];
        // The pointer is good until the end of this function; the system copies what it points to.
        let program = sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr() };
        set(socket, SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
    }
}

/// Other systems balance by addresses at best (SO_REUSEPORT_LB of FreeBSD), or give everything to the last socket (macOS): neither knows a session.
#[cfg(not(target_os = "linux"))]
mod none {
    use std::io;
    use std::net::UdpSocket;

    pub(super) fn share_port(_: &UdpSocket, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn steer(_: &UdpSocket) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
