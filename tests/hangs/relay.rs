//! A way to an endpoint that can be made to hang at its beginning: connections are not accepted, or are accepted and
//! nothing more is said. What was under way hangs too. Open, it carries bytes, straight or as a proxy.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

/// What the relay is to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The endpoint itself; shut, it accepts nobody: `connect` hangs.
    Unaccepting,
    /// The endpoint itself; shut, it accepts and says nothing: TLS hangs.
    Silent,
    /// A proxy (`CONNECT`); shut, it accepts and says nothing.
    Proxy,
}

/// The relay. It stops with the value.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    manner: Manner,
    shared: Arc<Shared>,
    /// Connections that fill the queue of those who wait to be accepted.
    queue: Mutex<Vec<TcpStream>>,
}

struct Shared {
    to: SocketAddr,
    is_shut: AtomicBool,
    is_over: AtomicBool,
}

impl Relay {
    /// An open relay to this address.
    pub(crate) fn to(to: SocketAddr, manner: Manner) -> Self {
        let listener = listen_to_few();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { to, is_shut: AtomicBool::new(false), is_over: AtomicBool::new(false) });
        let ours = Arc::clone(&shared);
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || ours.accept(&listener, manner));
        Self { address, manner, shared, queue: Mutex::default() }
    }

    pub(crate) fn shut(&self) {
        self.shared.is_shut.store(true, Ordering::SeqCst);
        if self.manner != Manner::Unaccepting {
            return;
        }
        // Until the queue is full, the kernel accepts in our place.
        let mut queue = self.queue.lock().unwrap();
        while let Ok(stream) = TcpStream::connect_timeout(&self.address, Duration::from_millis(300)) {
            queue.push(stream);
            assert!(queue.len() < 1000, "the queue never fills");
        }
    }

    pub(crate) fn open(&self) {
        self.queue.lock().unwrap().clear();
        self.shared.is_shut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
    }
}

/// A listener on a free port of loopback with the shortest queue that there is.
fn listen_to_few() -> TcpListener {
    let listener: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 0).unwrap();
    listener.into()
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener, manner: Manner) {
        while !self.is_over.load(Ordering::SeqCst) {
            let accepts = manner != Manner::Unaccepting || !self.is_shut.load(Ordering::SeqCst);
            match accepts.then(|| listener.accept()) {
                Some(Ok((client, _))) => {
                    let shared = Arc::clone(&self);
                    std::thread::spawn(move || shared.serve(client, manner));
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Carries bytes both ways until one side ends.
    fn serve(self: Arc<Self>, mut client: TcpStream, manner: Manner) {
        client.set_nonblocking(false).unwrap();
        if !self.wait_until_open() || (manner == Manner::Proxy && greet(&mut client).is_err()) {
            return;
        }
        let Ok(server) = TcpStream::connect(self.to) else { return };
        let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let other_way = Arc::clone(&self);
        std::thread::spawn(move || other_way.carry(server_too, client_too));
        self.carry(client, server);
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        let _ = from.set_read_timeout(Some(Duration::from_millis(200)));
        while !self.is_over.load(Ordering::SeqCst) {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    if !self.wait_until_open() || to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    /// False when the relay ends instead.
    fn wait_until_open(&self) -> bool {
        while self.is_shut.load(Ordering::SeqCst) && !self.is_over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        !self.is_over.load(Ordering::SeqCst)
    }
}

/// Reads a `CONNECT` and agrees, whatever it is to.
fn greet(client: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")
}
