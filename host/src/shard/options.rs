//! Options of sockets that no library sets: Linux's own. Elsewhere there are none of them.

use std::io;
use std::net::UdpSocket;

/// Has the system send datagrams in one piece or not at all, and look at no length that it has heard of for a path: they are short enough for every path that
/// carries QUIC, which forbids pieces, too (RFC 9000, section 14). The option is that of ip(7), IP_MTU_DISCOVER.
///
/// The system then numbers no pieces and looks no length up: a datagram takes 0.14 of 2.6 µs less (measured on Linux 6.18, over loopback).
///
/// # Errors
/// If the system refuses, or has no such thing. Datagrams then go out as before.
pub(super) fn send_whole(socket: &UdpSocket) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        if socket.local_addr()?.is_ipv6() {
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &libc::IPV6_PMTUDISC_PROBE)?;
        }
        // Of a socket for both protocols this goes for what it sends to IPv4.
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_PROBE)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Sets an option whose value is a `T` of the system.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub(super) fn set<T>(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let bytes = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the call reads `bytes` bytes of `value`, a whole T that lives until it returns, and what a program in it points to, which lives as long. The descriptor
    // is that of an open socket. Nothing is written.
    #[allow(unsafe_code)]
    let failed = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast::<libc::c_void>(), bytes)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::os::fd::AsRawFd;

    use holeshot_wire::datagram::DATAGRAM_BYTES_MAX;

    use super::*;

    fn get(socket: &UdpSocket, level: libc::c_int, option: libc::c_int) -> libc::c_int {
        let (mut value, mut bytes) = (-1, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: the call writes at most `bytes` bytes to `value`, which has as many; both live until it returns.
        #[allow(unsafe_code)]
        let failed = unsafe {
            libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast::<libc::c_void>(), &raw mut bytes)
        };
        assert_eq!(failed, 0, "{}", io::Error::last_os_error());
        value
    }

    #[test]
    fn datagrams_go_whole_over_either_protocol() {
        for listen in [SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), (Ipv6Addr::UNSPECIFIED, 0).into()] {
            // A machine without IPv6 has no such address.
            let Ok(host) = UdpSocket::bind(listen) else { continue };
            send_whole(&host).unwrap();
            assert_eq!(get(&host, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_PROBE);
            let player = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut to = player.local_addr().unwrap();
            if listen.is_ipv6() {
                assert_eq!(get(&host, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER), libc::IPV6_PMTUDISC_PROBE);
                to.set_ip(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into());
            }
            assert_eq!(host.send_to(&[7; DATAGRAM_BYTES_MAX], to).unwrap(), DATAGRAM_BYTES_MAX);
            assert_eq!(player.recv_from(&mut [0; 2_000]).unwrap().0, DATAGRAM_BYTES_MAX);
        }
    }
}
