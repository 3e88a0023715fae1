//! What stands between a client and a server: a proxy, and a wire that can go dead.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// A proxy that knows `CONNECT`, and leads everything to one server.
pub(crate) struct ConnectProxy {
    pub(crate) address: SocketAddr,
    /// The first line of each request that brought credentials, or needed none.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// `without_credentials`: what it answers to those that bring none.
    pub(crate) async fn to(server: SocketAddr, without_credentials: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(tunnel(BufReader::new(stream), server, without_credentials, Arc::clone(&record)));
            }
        });
        Self { address, seen }
    }
}

async fn tunnel(
    mut client: BufReader<TcpStream>,
    server: SocketAddr,
    without_credentials: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        client.read_line(&mut line).await?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let welcome = head.iter().any(|line| line.to_ascii_lowercase().starts_with("proxy-authorization: basic "));
    let status = if welcome { "200 OK" } else { without_credentials };
    client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await?;
    if status.starts_with("200") {
        seen.lock().unwrap().push(head.swap_remove(0));
        copy_bidirectional(&mut client, &mut TcpStream::connect(server).await?).await?;
    }
    Ok(())
}

/// A wire that can go dead without anybody being told.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: tokio::sync::watch::Sender<bool>,
}

impl Relay {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, frozen) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut frozen = frozen.clone();
                tokio::spawn(async move {
                    let mut upstream = TcpStream::connect(server).await.unwrap();
                    let frozen = async { drop(frozen.wait_for(|&frozen| frozen).await) };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut upstream) => {}
                        // Both ends stay open, and nothing comes through any more.
                        () = frozen => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, state }
    }

    pub(crate) fn freeze(&self) {
        self.state.send_replace(true);
    }

    pub(crate) fn thaw_for_new_connections(&self) {
        self.state.send_replace(false);
    }
}
