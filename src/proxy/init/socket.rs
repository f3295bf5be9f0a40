//! The one place of `init` that talks to the kernel.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::InitError;
use super::netlink::{Answers, Request};

/// The kernel answers while it takes the batch, so this is only ever waited for when an answer is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for the answers to the longest batch that [`Redirect::from_env`](super::Redirect::from_env) allows.
const ANSWERS_BYTES: usize = 1 << 20;
/// An answer repeats the message it refuses, which is below one KiB.
const DATAGRAM_BYTES: usize = 16 << 10;
/// The kernel's own netlink address.
const KERNEL: SocketAddrNetlink = SocketAddrNetlink::new(0, 0);

/// Sends the batch and reads the answer to every step.
pub(super) fn transact(request: &Request) -> Result<(), InitError> {
    let socket = open()?;
    net::send(&socket, &request.bytes, SendFlags::empty()).map_err(failed("sending the redirect rules"))?;
    let mut answers = Answers::to(request);
    let mut buffer = vec![0; DATAGRAM_BYTES];
    while !answers.complete() {
        match net::recv(&socket, &mut buffer, RecvFlags::empty()) {
            Ok((len, _)) => answers.take(&buffer[..len])?,
            // NOBUFS: some answers were dropped. Those that are left still tell what was refused.
            Err(Errno::INTR | Errno::NOBUFS) => (),
            Err(Errno::AGAIN) => break,
            Err(errno) => return Err(failed("reading the kernel's answers")(errno)),
        }
    }
    answers.outcome()
}

/// Whether this kernel knows IPv6 at all (it may still have no IPv6 address).
pub(super) fn kernel_has_ipv6() -> bool {
    net::socket(AddressFamily::INET6, SocketType::DGRAM, None).err() != Some(Errno::AFNOSUPPORT)
}

/// A socket that talks to nobody but the kernel: a connected one drops what other processes send.
fn open() -> Result<OwnedFd, InitError> {
    let opening = "opening a netlink socket";
    let protocol = Some(netlink::NETFILTER);
    let socket = match net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol) {
        Err(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) => return Err(InitError::NoNfTables),
        result => result.map_err(failed(opening))?,
    };
    net::connect(&socket, &KERNEL).map_err(failed(opening))?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT)).map_err(failed(opening))?;
    // Beyond the node's limit only with NET_ADMIN; without it the batch is refused in words below.
    if sockopt::set_socket_recv_buffer_size_force(&socket, ANSWERS_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, ANSWERS_BYTES).map_err(failed(opening))?;
    }
    Ok(socket)
}

fn failed(doing: &'static str) -> impl Fn(Errno) -> InitError {
    move |errno| InitError::Socket { doing, source: io::Error::from(errno) }
}
