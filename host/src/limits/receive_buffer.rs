//! The receive buffer of the socket for datagrams: how much is asked for, and how much the system gives. What it is for is in [`crate::shard`].

use std::net::UdpSocket;

/// Receive buffer asked of the system for datagrams, in bytes: 10,000 small ones, 20 ms of 10,000 players. The usual default holds 256.
pub(crate) const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// What to do where it is not given, on Linux (socket(7)).
pub(crate) fn advice() -> String {
    format!("`sysctl -w net.core.rmem_max={RECEIVE_BUFFER_BYTES}`, and the same in /etc/sysctl.d")
}

/// Asks for a receive buffer of `bytes` and gives what the system granted, in the same measure.
///
/// # Errors
/// If the system does not say. Less than was asked is no error: it is granted silently on some systems and refused on others, and neither stops a host.
pub(crate) fn ask_receive_buffer(socket: &UdpSocket, bytes: usize) -> std::io::Result<usize> {
    let socket = socket2::SockRef::from(socket);
    let _less_is_granted = socket.set_recv_buffer_size(bytes);
    let said = socket.recv_buffer_size()?;
    // Linux doubles what it is asked for, for its own book-keeping, bounds that by `rmem_max` before it doubles it, and says the double (socket(7), SO_RCVBUF).
    Ok(if cfg!(target_os = "linux") { said / 2 } else { said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_told_in_the_measure_in_which_it_is_asked() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Every system grants this much.
        assert_eq!(ask_receive_buffer(&socket, 64 << 10).unwrap(), 64 << 10);
        let granted = ask_receive_buffer(&socket, 1 << 30).unwrap();
        assert!((64 << 10..=1 << 30).contains(&granted), "{granted}");
        #[cfg(target_os = "linux")]
        {
            let most: usize = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse().unwrap();
            assert_eq!(granted, most.min(1 << 30));
        }
    }
}
