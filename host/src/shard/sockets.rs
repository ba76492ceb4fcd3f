//! The sockets of the shards. Where the system can, each shard has one of its own, all on one port, and each datagram comes to the socket of its session's shard; else
//! all shards read one socket and hand over what is another's ([`super::Shard`]). One shard has one socket and needs neither.
//!
//! That the system steers is a saving and no promise: a shard hands over whatever it got that names another one, in either case. So nothing is lost if the system
//! orders the sockets in another way than it says, or at the end, when they close one by one.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::{options, steer};
use crate::limits::drops::inode;
use crate::limits::receive_buffer::{RECEIVE_BUFFER_BYTES, ask_receive_buffer};

/// The sockets of a host's shards, bound to one address.
#[derive(Debug)]
pub struct Sockets {
    /// One for each shard in their order, or one for all.
    all: Vec<UdpSocket>,
    address: SocketAddr,
    granted_bytes: usize,
}

impl Sockets {
    /// Binds sockets for so many shards. `steer`: one for each, if the system can.
    ///
    /// The first socket is bound as if it were the only one: that fails if anybody has the address, another host of the same user with shared ports included. Only then is
    /// its port shared, with the sockets that follow. So of two hosts that start at the same moment one is refused as well. A program that asks for it
    /// (SO_REUSEPORT) can join later, but only one of the same user, who can read the host's memory anyway.
    ///
    /// # Errors
    /// If the address cannot be had. A system that does not steer is no error.
    pub fn bind(address: SocketAddr, shards: usize, steer: bool) -> io::Result<Self> {
        Self::bind_with(address, shards, steer.then_some(add_steered))
    }

    fn bind_with(address: SocketAddr, shards: usize, add: Option<AddSteered>) -> io::Result<Self> {
        let first = UdpSocket::bind(address)?;
        // Of port 0 the system has made one.
        let address = first.local_addr()?;
        let mut all = vec![first];
        if let Some(add) = add
            && shards > 1
            && let Err(error) = add(&mut all, address, shards)
        {
            tracing::warn!(%error, "the system does not steer datagrams: shards hand over what is another's");
            all.truncate(1);
            // Nobody else is to come in.
            let _was_never_shared = all.first().map(|first| steer::share_port(first, false));
        }
        let mut granted_bytes = RECEIVE_BUFFER_BYTES;
        for socket in &all {
            socket.set_nonblocking(true)?;
            // A saving; without it they go out all the same.
            let _as_before = options::send_whole(socket);
            granted_bytes = granted_bytes.min(ask_receive_buffer(socket, RECEIVE_BUFFER_BYTES).unwrap_or_default());
        }
        Ok(Self { all, address, granted_bytes })
    }

    /// The address of all of them.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the system steers each datagram to its shard.
    #[must_use]
    pub fn are_steered(&self) -> bool {
        self.all.len() > 1
    }

    /// The receive buffer that each of them has been granted, in bytes; the smallest of all, and no more than was asked for.
    #[must_use]
    pub const fn granted_bytes(&self) -> usize {
        self.granted_bytes
    }

    /// Which they are in the system's tables, in their order; none where the system has none.
    #[must_use]
    pub fn inodes(&self) -> Vec<u64> {
        self.all.iter().map(inode).collect::<Option<_>>().unwrap_or_default()
    }

    /// The socket that a shard reads and sends from.
    pub(super) fn of(&self, shard: usize) -> io::Result<UdpSocket> {
        let own = self.all.get(shard).filter(|_| self.are_steered()).or(self.all.first());
        own.ok_or(io::ErrorKind::NotFound)?.try_clone()
    }
}

/// Adds to the socket of the first shard, on that address, those of so many shards in all. If it cannot, it may leave some.
type AddSteered = fn(&mut Vec<UdpSocket>, SocketAddr, usize) -> io::Result<()>;

/// Adds sockets until each shard has one, and has the system steer.
fn add_steered(all: &mut Vec<UdpSocket>, address: SocketAddr, shards: usize) -> io::Result<()> {
    for first in all.iter() {
        steer::share_port(first, true)?;
    }
    while all.len() < shards {
        all.push(steer::bind_beside(address)?);
    }
    all.first().map_or(Ok(()), steer::steer)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::{Duration, Instant};

    use super::*;

    /// Datagrams that wait at a socket, until there are `least` of them.
    fn take(socket: &UdpSocket, least: usize) -> Vec<Vec<u8>> {
        let (mut taken, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(20));
        let mut buffer = [0; 64];
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((bytes, _)) => taken.push(buffer[..bytes].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock && taken.len() >= least => return taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "{} of {least} came", taken.len());
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// From many ports, as players come: for each shard, for shards that there are not, and garbage.
    fn send(to: SocketAddr, shards: u8) -> usize {
        let from: SocketAddr =
            if to.is_ipv4() { (Ipv4Addr::LOCALHOST, 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() };
        for _ in 0..20 {
            let socket = UdpSocket::bind(from).unwrap();
            for shard in 0..shards + 2 {
                socket.send_to(&[1, shard, 0, 0, 0, 9], to).unwrap();
            }
            socket.send_to(&[255, 255], to).unwrap();
            socket.send_to(&[7], to).unwrap();
        }
        20 * (usize::from(shards) + 4)
    }

    fn loopbacks() -> Vec<SocketAddr> {
        let mut all = vec![(Ipv4Addr::LOCALHOST, 0).into()];
        // A machine may be without IPv6.
        all.extend(UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).map(|_| SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).ok());
        all
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn every_datagram_comes_to_the_socket_of_its_shard_and_garbage_to_any() {
        for address in loopbacks() {
            let sockets = Sockets::bind(address, 3, true).unwrap();
            assert!(sockets.are_steered() && sockets.address().port() != 0);
            let sent = send(sockets.address(), 3);
            let mut rest = sent;
            for shard in 0..3 {
                let socket = sockets.of(shard).unwrap();
                assert_eq!(socket.local_addr().unwrap(), sockets.address());
                let taken = take(&socket, 20);
                rest -= taken.len();
                let own = taken.iter().filter(|datagram| datagram[..] == [1, shard as u8, 0, 0, 0, 9]).count();
                let others = taken.iter().filter(|datagram| datagram.len() > 2 && datagram[1] < 3).count();
                assert_eq!((own, others), (20, 20), "shard {shard} of {address}");
            }
            assert_eq!(rest, 0, "nothing is lost");
        }
    }

    #[test]
    fn without_steering_all_shards_read_one_socket() {
        for address in loopbacks() {
            let sockets = Sockets::bind(address, 3, false).unwrap();
            assert!(!sockets.are_steered());
            let sent = send(sockets.address(), 3);
            // The last shard reads them all: there is nothing that the others alone could see.
            assert_eq!(take(&sockets.of(2).unwrap(), sent).len(), sent);
            assert!(take(&sockets.of(0).unwrap(), 0).is_empty());
        }
        // One shard is never steered, whatever is wished.
        let sockets = Sockets::bind((Ipv4Addr::LOCALHOST, 0).into(), 1, true).unwrap();
        assert!(!sockets.are_steered() && sockets.granted_bytes() > 0);
    }

    #[test]
    fn a_system_that_does_not_steer_leaves_one_socket_that_nobody_joins() {
        // Refused at once; after the port was shared; and at the very end, by a system that has no such programs.
        let refusals: [AddSteered; 3] = [
            |_, _, _| Err(ErrorKind::Unsupported.into()),
            |all, _, _| {
                all.iter().try_for_each(|first| steer::share_port(first, true))?;
                Err(ErrorKind::AddrInUse.into())
            },
            |all, address, shards| {
                add_steered(all, address, shards)?;
                Err(ErrorKind::PermissionDenied.into())
            },
        ];
        for refusal in refusals {
            let sockets = Sockets::bind_with((Ipv4Addr::LOCALHOST, 0).into(), 3, Some(refusal)).unwrap();
            assert!(!sockets.are_steered());
            let sent = send(sockets.address(), 3);
            assert_eq!(take(&sockets.of(1).unwrap(), sent).len(), sent);
            assert!(steer::bind_beside(sockets.address()).is_err(), "the port is shared no more");
        }
    }

    #[test]
    fn an_address_in_use_is_refused_whoever_has_it() {
        for steer in [false, true] {
            for shards in [1, 2, 3] {
                let sockets = Sockets::bind((Ipv4Addr::LOCALHOST, 0).into(), shards, steer).unwrap();
                // Another host of this user, with and without shared ports, and any other program.
                for (others, steer) in [(1, true), (3, true), (3, false)] {
                    let again = Sockets::bind(sockets.address(), others, steer);
                    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse, "{shards} and {others} shards");
                }
                assert_eq!(UdpSocket::bind(sockets.address()).unwrap_err().kind(), ErrorKind::AddrInUse);
                // And all of it is free again when the host ends.
                let address = sockets.address();
                drop(sockets);
                assert!(Sockets::bind(address, 2, true).is_ok());
            }
        }
        // Not even who asks to share can join a host that does not.
        #[cfg(target_os = "linux")]
        {
            let alone = Sockets::bind((Ipv4Addr::LOCALHOST, 0).into(), 3, false).unwrap();
            assert!(steer::bind_beside(alone.address()).is_err());
        }
    }
}
