//! Datagrams that the system dropped at a socket because nobody read them in time: what Linux tells in `/proc/net/udp` and `/proc/net/udp6`. Elsewhere nothing is known.
//!
//! The tables have a line for each socket of the network namespace, with the number of the socket's inode and, in the last column, `drops`: datagrams that came for it and
//! found its buffer full, or had a wrong checksum (`sk_drops`, net/ipv4/udp.c of Linux).

use std::net::UdpSocket;

/// Columns before the inode, counted from the first blank: the local and the other address, the state, both queues, the timer, what was sent again, the user, the timeout.
const COLUMNS_BEFORE_INODE: usize = 9;

/// Which socket it is, in the system's tables. None where the system has none.
pub(crate) fn inode(socket: &UdpSocket) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _has_none = socket;
        None
    }
}

/// How many datagrams were dropped at each of these sockets of this process, since it was opened. None if that is not known of one of them. Reads two files of the system,
/// which takes a millisecond.
pub(crate) fn dropped(inodes: &[u64]) -> Option<Vec<u64>> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    let (v4, v6) = (read("udp"), read("udp6"));
    inodes.iter().map(|inode| in_table(&v4, *inode).or_else(|| in_table(&v6, *inode))).collect()
}

/// What the table says of a socket.
fn in_table(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let found: u64 = columns.nth(COLUMNS_BEFORE_INODE)?.parse().ok()?;
        (found == inode).then(|| columns.next_back()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  273: 0100007F:9C41 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4242 2 0000000000000000 0
 1023: 00000000:1E15 0100007F:9C41 01 00000000:00000300 00:00000000 00000000  1000        0 77 2 0000000000000000 348
";

    #[test]
    fn a_socket_is_found_by_its_inode() {
        assert_eq!((in_table(TABLE, 77), in_table(TABLE, 4242), in_table(TABLE, 7)), (Some(348), Some(0), None));
        for broken in ["", "sl\n", "sl\n 1: a b c d e f g h 77", "sl\n 1: a b c d e f g h 77 2 p -1", "sl\n\u{0}\n\n"] {
            assert_eq!(in_table(broken, 77), None);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_finds_a_full_buffer_is_counted() {
        // More than any buffer that the system gives to who asks for the least.
        const DATAGRAMS: usize = 500;
        let (from, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let _least = socket2::SockRef::from(&to).set_recv_buffer_size(1);
        let inode = inode(&to).unwrap();
        assert_eq!(dropped(&[inode]), Some(vec![0]));
        for _ in 0..DATAGRAMS {
            from.send_to(&[7; 100], to.local_addr().unwrap()).unwrap();
        }
        to.set_nonblocking(true).unwrap();
        let mut came = 0;
        while to.recv(&mut [0; 200]).is_ok() {
            came += 1;
        }
        let dropped = dropped(&[inode]).unwrap();
        assert!(dropped[0] > 0);
        assert_eq!(came + dropped[0] as usize, DATAGRAMS, "what did not come was dropped here");
        assert_eq!(super::dropped(&[inode, 0]), None, "no socket has this number");
    }
}
