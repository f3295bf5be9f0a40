//! Listening: what a worker accepts from, and what a connection accepted there means.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use leno_core::names::ServiceId;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

use crate::connection;
use crate::io::prepare;
use crate::worker::Context;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long accepting pauses when the process has run out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A bound listener and what its connections mean.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens. Several workers bind the same address with `SO_REUSEPORT`.
    pub listener: std::net::TcpListener,
    /// What its connections mean.
    pub accept: Accept,
}

/// What connections to one listener mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accept {
    /// What the app dials, redirected here: the original destination says which service is meant.
    OutboundTransparent,
    /// What the app sends here on purpose, as to an HTTP proxy: `Host`, an absolute target or `CONNECT` says which service is meant.
    OutboundExplicit,
    /// An address that stands for one port of one service.
    OutboundService {
        /// The service.
        service: ServiceId,
        /// Its port.
        port: u16,
    },
    /// What others dial, redirected here: the original destination says which port of the app is meant.
    InboundTransparent,
    /// An address that stands for one port of the app.
    InboundApp {
        /// Where the app listens.
        app: SocketAddr,
        /// The workload's port it stands for.
        port: u16,
    },
}

/// A listener that a runtime drives.
pub(crate) struct Started {
    listener: TcpListener,
    accept: Rc<Accept>,
}

/// How many connections a worker carries.
#[derive(Default)]
pub(crate) struct Open(Cell<usize>);

/// One of them, until it is dropped.
pub(crate) struct Counted(Rc<Open>);

impl Open {
    pub(crate) fn count(&self) -> usize {
        self.0.get()
    }

    /// One more.
    pub(crate) fn count_one(self: &Rc<Self>) -> Counted {
        self.0.set(self.0.get() + 1);
        Counted(Rc::clone(self))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// Binds one address, for one of several workers.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // One socket for both families.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    // Before anybody can connect: what is accepted has it from here.
    prepare(&SockRef::from(&socket))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listener {
    pub(crate) fn start(self) -> io::Result<Started> {
        self.listener.set_nonblocking(true)?;
        Ok(Started { listener: TcpListener::from_std(self.listener)?, accept: Rc::new(self.accept) })
    }
}

/// Accepts for as long as the worker runs.
pub(crate) async fn accept(started: Started, context: Rc<Context>) {
    loop {
        match started.listener.accept().await {
            Ok((stream, peer)) => {
                let counted = context.open.count_one();
                let carried = connection::carry(Rc::clone(&started.accept), stream, peer, Rc::clone(&context));
                tokio::task::spawn_local(async move {
                    let _counted = counted;
                    carried.await;
                });
            }
            // The client was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, accept = ?started.accept, "cannot accept; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
