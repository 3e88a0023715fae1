//! A nameserver that knows one address, or takes questions and never answers.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// The nameserver. It stops with the value.
pub(crate) struct Nameserver {
    pub(crate) address: std::net::IpAddr,
    answers: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
}

impl Nameserver {
    /// Starts one that answers. resolv.conf names no port, so it is 53, on an address of loopback that nobody else has.
    pub(crate) fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let [_, high, low, _] = std::process::id().to_le_bytes().map(|byte| byte.max(1));
        let addresses = (1..=254).map(|last| SocketAddr::from(([127, high, low, last], 53)));
        let socket = addresses.skip(number as usize).find_map(|address| UdpSocket::bind(address).ok());
        let socket = socket.expect("an address of loopback is free");
        let address = socket.local_addr().unwrap().ip();
        let (answers, is_over) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (answering, over) = (Arc::clone(&answers), Arc::clone(&is_over));
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while !over.load(Ordering::SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                if answering.load(Ordering::SeqCst) {
                    let _ = socket.send_to(&answer(&buffer[..length]), from);
                }
            }
        });
        Self { address, answers, is_over }
    }

    pub(crate) fn answers(&self, it_does: bool) {
        self.answers.store(it_does, Ordering::SeqCst);
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// 127.0.0.1 for whoever asks for an A record, nothing for others: RFC 1035, 4.1.
fn answer(question: &[u8]) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap() + 5;
    let is_a = question[end - 4..end - 2] == [0, 1];
    // A response without an error; one question, and one answer or none.
    let mut answer = [&question[..2], &[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0], &question[12..end]].concat();
    if is_a {
        // The name of the question, A, IN, no time to live, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    answer
}
