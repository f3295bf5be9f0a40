//! Where a redirected connection was going before the rules of [`init`](crate::init) sent it here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{getsockname, sockopt};

/// The destination that the peer of an accepted TCP `stream` dialled.
///
/// `None` when the connection was not redirected: the peer dialled this very listener, or nothing on
/// this machine redirects. An IPv4 destination is an IPv4 address also when the listener is a
/// dual-stack one. Takes tokio's and the standard library's streams. One or two system calls.
pub fn original_destination(stream: &impl AsFd) -> io::Result<Option<SocketAddr>> {
    let local = canonical(getsockname(stream)?.try_into()?);
    let asked = match local {
        SocketAddr::V4(_) => sockopt::ip_original_dst(stream).map(SocketAddr::V4),
        SocketAddr::V6(_) => sockopt::ipv6_original_dst(stream).map(SocketAddr::V6),
    };
    match asked.map(canonical) {
        Ok(original) if same(original, local) => Ok(None),
        Ok(original) => Ok(Some(original)),
        // The connection is not tracked, or nothing in this kernel tracks connections.
        Err(Errno::NOENT | Errno::NOPROTOOPT | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// `::ffff:a.b.c.d` as the IPv4 address it stands for.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The scope of a link-local address is not part of what connection tracking keeps.
fn same(left: SocketAddr, right: SocketAddr) -> bool {
    left.ip() == right.ip() && left.port() == right.port()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_that_nothing_redirected_has_no_original_destination() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = match TcpListener::bind(address) {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => continue, // no IPv6 here
                bound => bound.unwrap(),
            };
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!(original_destination(&accepted).unwrap(), None, "{address}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_it_stands_for() {
        assert_eq!(canonical("[::ffff:10.0.0.1]:80".parse().unwrap()), "10.0.0.1:80".parse().unwrap());
        assert_eq!(canonical("[2001:db8::1]:80".parse().unwrap()), "[2001:db8::1]:80".parse().unwrap());
    }

    #[test]
    fn something_that_is_no_socket_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(original_destination(&file).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }
}
