//! The sandbox on a thread of its own, for callers without a runtime, such as tests that run the real binary.

use std::io;
use std::ops::Deref;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::{Options, Sandbox};

/// A sandbox on a thread of its own. It stops, and its thread ends, when it is dropped.
pub struct SandboxHandle {
    sandbox: Option<Sandbox>,
    thread: Option<JoinHandle<()>>,
}

impl SandboxHandle {
    pub(super) fn spawn(options: Options) -> io::Result<Self> {
        let (tell, started) = mpsc::channel();
        let thread = std::thread::Builder::new().name("sandbox".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            runtime.block_on(async {
                let mut sandbox = match super::start(options).await {
                    Ok(sandbox) => sandbox,
                    Err(error) => return drop(tell.send(Err(error))),
                };
                let task = sandbox.task.take();
                if tell.send(Ok(sandbox)).is_ok()
                    && let Some(task) = task
                {
                    let _ = task.await;
                }
            });
        })?;
        let sandbox = started.recv().map_err(|_| io::Error::other("the sandbox's thread ended at once"))??;
        Ok(Self { sandbox: Some(sandbox), thread: Some(thread) })
    }
}

impl Deref for SandboxHandle {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        self.sandbox.as_ref().expect("it is taken in drop alone")
    }
}

impl Drop for SandboxHandle {
    fn drop(&mut self) {
        drop(self.sandbox.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
