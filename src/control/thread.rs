//! The control socket's thread. It turns answers into JSON, so that a listing of all tenants costs the daemon's own thread only
//! the lookup of the rows.

use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::{AccessPolicy, Query, serve, unbind};

/// Serves the control socket.
pub struct ServerThread {
    stop: oneshot::Sender<()>,
    /// Comes to its end when the thread does.
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
    socket: PathBuf,
}

impl ServerThread {
    /// Begins to serve `listener`, which lies at `socket`; queries go to `ask`.
    pub fn start(
        listener: UnixListener,
        socket: PathBuf,
        ask: mpsc::Sender<Query>,
        access: AccessPolicy,
    ) -> io::Result<Self> {
        let listener = listener.into_std()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (alive, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
            let _alive = alive;
            runtime.block_on(async {
                match UnixListener::from_std(listener) {
                    Ok(listener) => serve(listener, ask, access, async { drop(stopped.await) }).await,
                    Err(error) => {
                        tracing::error!(event = "control_failed", "the control socket is not served: {error}")
                    }
                }
            });
        })?;
        Ok(Self { stop, ended, thread, socket })
    }

    /// Ends when the thread does, which it must not before it is told to.
    pub async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }

    /// Lets answers that are under way end, for a second at most, and takes the socket away.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.ended.await;
        if self.thread.join().is_err() {
            tracing::error!(event = "control_failed", "the control socket's thread had panicked, see above");
        }
        unbind(&self.socket);
    }
}
