//! A control server whose daemon is made up.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use corptokend::cli::{Colour, reload, status};
use corptokend::control::protocol::{DaemonStatus, Page, ReloadVerdict, SinkRow, SinkState, TenantRow};
use corptokend::control::{AccessPolicy, Query, bind, serve};
use corptokend::domain::TenantState;
use tokio::sync::{mpsc, oneshot};

pub(crate) fn row(n: usize, state: TenantState) -> TenantRow {
    TenantRow {
        tenant: format!("crm/ding{n:05}"),
        app: "crm".into(),
        corp_id: format!("ding{n:05}"),
        name: None,
        state,
        expires_at: Some("2026-01-31T12:00:00Z".into()),
        expires_in_s: Some(if state == TenantState::Expired { -60 } else { 3600 }),
        next_refresh_at: None,
        next_refresh_in_s: Some(5),
        why: "70 % of its life is over".into(),
        last_error: None,
        fingerprint: Some("0a1b2c3d".into()),
        sinks: vec![SinkRow { place: format!("/run/t/{n}"), state: SinkState::Published, error: None }],
    }
}

pub(crate) fn rows(states: &[TenantState]) -> Vec<TenantRow> {
    states.iter().enumerate().map(|(n, state)| row(n, *state)).collect()
}

/// A daemon that knows these tenants and gives this verdict; without a verdict it drops the question.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) rows: Vec<TenantRow>,
    pub(crate) verdict: Option<ReloadVerdict>,
    pub(crate) status: DaemonStatus,
}

pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    pub(crate) pages: Arc<AtomicUsize>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Fake {
    pub(crate) fn with(states: &[TenantState]) -> Self {
        let mut fake = Self { rows: rows(states), ..Self::default() };
        fake.status.config.last_reload_successful = true;
        fake.status.state.healthy = true;
        fake.status.ready = true;
        for state in states {
            fake.status.tenants.add(*state);
        }
        fake
    }

    pub(crate) fn verdict(verdict: ReloadVerdict) -> Self {
        Self { verdict: Some(verdict), ..Self::with(&[]) }
    }

    pub(crate) fn start(self) -> Daemon {
        self.start_with(0o660)
    }

    pub(crate) fn start_with(self, mode: u32) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let socket = dir.path().join("control.sock");
        let pages = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel();
        let (listening, listens) = std::sync::mpsc::channel();
        let (path, counter) = (socket.clone(), Arc::clone(&pages));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = bind(&path, mode, None).unwrap();
                listening.send(()).unwrap();
                let (queries, asked) = mpsc::channel(16);
                let answers = tokio::spawn(self.answer(asked, counter));
                let shutdown = async { drop(stopped.await) };
                serve(listener, queries, AccessPolicy::of_socket(&path).unwrap(), shutdown).await;
                answers.await.unwrap();
            });
        });
        listens.recv().unwrap();
        Daemon { socket, pages, stop: Some(stop), thread: Some(thread), _dir: dir }
    }

    async fn answer(self, mut asked: mpsc::Receiver<Query>, pages: Arc<AtomicUsize>) {
        while let Some(query) = asked.recv().await {
            match query {
                Query::Status(reply) => drop(reply.send(self.status.clone())),
                Query::Page { after, limit, filter, reply } => {
                    pages.fetch_add(1, SeqCst);
                    let begin = after
                        .map_or(0, |id| self.rows.iter().position(|row| row.tenant == id.to_string()).unwrap() + 1);
                    let seen = &self.rows[begin..self.rows.len().min(begin + limit)];
                    let more = begin + seen.len() < self.rows.len();
                    let next = seen.last().filter(|_| more).map(|row| row.tenant.parse().unwrap());
                    let is_wanted = |row: &TenantRow| filter.admits_app(&row.app) && filter.admits_state(row.state);
                    let rows: Vec<_> = seen.iter().filter(|row| is_wanted(row)).cloned().collect();
                    drop(reply.send(Page { rows: Box::new(rows.into_iter()), next }));
                }
                Query::Tenant(id, reply) => {
                    drop(reply.send(self.rows.iter().find(|row| row.tenant == id.to_string()).cloned()));
                }
                Query::Reload { request, reply } => {
                    if let Some(mut verdict) = self.verdict.clone() {
                        if request.allow_mass_removal {
                            verdict.held_back = None;
                        }
                        drop(reply.send(verdict));
                    }
                }
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || ended.is_ok());
    }
}

impl Daemon {
    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    }

    /// What curl would print, with the status line.
    pub(crate) fn http(&self, request: &str, body: &str) -> String {
        let mut stream = self.connect();
        let length = body.len();
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn status(&self, args: status::StatusArgs) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = status::run(&args, &self.socket, &mut out, &mut err, Colour::Off);
        (exit.into(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    pub(crate) fn reload(&self, allow_mass_removal: bool) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = reload::run(&reload::ReloadArgs { allow_mass_removal }, &self.socket, &mut out, &mut err);
        (exit.into(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }
}

pub(crate) fn naming(tenants: &[&str]) -> status::StatusArgs {
    status::StatusArgs { tenants: tenants.iter().map(|id| id.parse().unwrap()).collect(), ..Default::default() }
}

pub(crate) fn json() -> status::StatusArgs {
    status::StatusArgs { json: true, ..Default::default() }
}
