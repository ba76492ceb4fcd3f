//! Datagrams on their way out. They leave together, some dozens at a time: the code of a step and the system's code behind a send are each about as large as the
//! processor's cache for instructions, so that one after the other for each room would load both each time.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use holeshot_wire::datagram::DATAGRAM_BYTES_MAX;

use super::meter::Operation;
use super::{ShardCounters, count};

/// Datagrams that wait to be sent together, at most: those of a turn of rooms for two players twice, or half of those to a room for sixty-four.
const OUTGOING_MAX: usize = 32;
/// How long they wait for the steps of other rooms, in microseconds, and for the end of the one that is under way. Eight races take 0.1 ms; rooms with dear rules do not
/// wait for each other.
pub(super) const OUTGOING_WAIT_US: u64 = 500;

/// Where a shard's datagrams leave it.
pub(super) struct Outgoing {
    socket: UdpSocket,
    places: Vec<(SocketAddr, Vec<u8>)>,
    /// How many of the places are taken.
    taken: usize,
}

impl Outgoing {
    pub(super) fn new(socket: UdpSocket) -> Self {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let place = || (nobody, Vec::with_capacity(DATAGRAM_BYTES_MAX));
        Self { socket, places: std::iter::repeat_with(place).take(OUTGOING_MAX).collect(), taken: 0 }
    }

    /// The socket, to receive from.
    pub(super) const fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Puts a datagram among those that leave next, if `write` makes one in the place of an older one.
    pub(super) fn put(&mut self, to: SocketAddr, counters: &ShardCounters, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        if let Some((address, datagram)) = self.places.get_mut(self.taken)
            && write(datagram)
        {
            *address = to;
            self.taken += 1;
        }
        if self.taken >= self.places.len() {
            self.send(counters);
        }
    }

    /// A buffer for what does not leave as a datagram.
    pub(super) fn buffer(&mut self) -> Option<&mut Vec<u8>> {
        self.places.get_mut(self.taken).map(|(_, buffer)| buffer)
    }

    /// Sends all that wait. What the system does not take is lost, as it may be on the way.
    pub(super) fn send(&mut self, counters: &ShardCounters) {
        let taken = std::mem::take(&mut self.taken);
        for (to, datagram) in self.places.iter().take(taken) {
            let begun = counters.meter.begin();
            match self.socket.send_to(datagram, *to) {
                Ok(bytes) => {
                    count(&counters.datagrams_sent, 1);
                    count(&counters.bytes_sent, bytes as u64);
                }
                Err(error) => {
                    count(&counters.datagrams_unsent, 1);
                    if error.kind() != ErrorKind::WouldBlock {
                        tracing::trace!(%to, %error, "a datagram was not sent");
                    }
                }
            }
            counters.meter.end(Operation::Send, begun);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_waits_leaves_in_order_and_at_the_latest_when_no_more_can_wait() {
        let player = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        player.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let to = player.local_addr().unwrap();
        let mut outgoing = Outgoing::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let counters = ShardCounters::default();
        let sent = |counters: &ShardCounters| counters.datagrams_sent.load(std::sync::atomic::Ordering::Relaxed);
        for number in 0..=OUTGOING_MAX as u8 {
            outgoing.put(to, &counters, |datagram| {
                datagram.clear();
                datagram.push(number);
                true
            });
            // What cannot be written takes no place, and leaves nothing behind.
            outgoing.put(to, &counters, |datagram| {
                datagram.extend_from_slice(b"half");
                false
            });
            let left = if usize::from(number) + 1 < OUTGOING_MAX { 0 } else { OUTGOING_MAX as u64 };
            assert_eq!(sent(&counters), left);
        }
        outgoing.send(&counters);
        outgoing.send(&counters);
        assert_eq!(sent(&counters), OUTGOING_MAX as u64 + 1);
        let mut bytes = [0; 8];
        for number in 0..=OUTGOING_MAX as u8 {
            let len = player.recv(&mut bytes).unwrap();
            assert_eq!(bytes[..len], [number]);
        }
    }
}
