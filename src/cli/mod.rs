//! The commands, one file each, and what they share: the arguments that all understand.

mod check;
mod dev;
mod once;
pub mod reload;
mod run;
pub mod status;
mod terminal;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::{self, Process};
use crate::daemon;

/// The exit codes that more than one command gives, after sysexits.h.
mod code {
    /// Something failed.
    pub(super) const FAILED: u8 = 1;
    /// The command line is wrong.
    pub(super) const USAGE: u8 = 64;
    /// Not now, but perhaps shortly: `EX_TEMPFAIL`.
    pub(super) const BUSY: u8 = 75;
    /// The config is wrong.
    pub(super) const CONFIG: u8 = 78;
}

/// Where the config is when nobody says otherwise.
const CONFIG: &str = "/etc/corptokend/config.toml";

/// Keeps the DingTalk access tokens of many organisations fresh, in files and kernel keyrings
#[derive(Debug, Parser)]
#[command(name = "corptokend", version, arg_required_else_help = true)]
struct Cli {
    /// The config's main file; drop-ins lie beside it, in config.d/*.toml [default: /etc/corptokend/config.toml]
    #[arg(long, global = true, value_name = "PATH", env = "CORPTOKEND_CONFIG")]
    config: Option<PathBuf>,
    /// The daemon's control socket [default: as the config says]
    #[arg(long, global = true, value_name = "PATH", env = "CORPTOKEND_SOCKET")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Once(once::Args),
    Check(check::Args),
    Status(status::Args),
    Reload(reload::Args),
    Dev(dev::Args),
}

/// Runs the command that the process was started with, and returns its exit code.
pub fn main() -> u8 {
    let _at_the_end = FlushLog;
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print();
            return match printed {
                _ if error.use_stderr() => code::USAGE,
                Ok(()) => 0,
                Err(error) => unread(&error),
            };
        }
    };
    let mut out = io::stdout().lock();
    let done = obey(&cli, &mut out);
    match out.flush() {
        Ok(()) => done,
        Err(error) if done == 0 => unread(&error),
        Err(_) => done,
    }
}

fn obey(cli: &Cli, out: &mut dyn Write) -> u8 {
    let config = cli.config.clone().unwrap_or_else(|| CONFIG.into());
    let socket = || cli.socket.clone().unwrap_or_else(|| socket(cli.config.as_deref()));
    match &cli.command {
        Command::Run(args) => run::run(args, config),
        Command::Once(args) => once::run(args, &config, &socket(), out),
        Command::Check(args) => check::run(args, &config, cli.socket.as_deref(), out),
        Command::Status(args) => {
            let colour = status::Colour::for_terminal(&io::stdout());
            status::run(args, &socket(), out, &mut io::stderr().lock(), colour)
        }
        Command::Reload(args) => reload::run(args, &socket(), out, &mut io::stderr().lock()),
        Command::Dev(args) => dev::run(args, out),
    }
}

/// The daemon's socket. An operator may be allowed to use it without being allowed to read the config, so the usual place
/// comes first, unless a config was named.
fn socket(config: Option<&Path>) -> PathBuf {
    let process = Process::from_env();
    let usual = process.runtime_directory.as_deref().unwrap_or(Path::new("/run/corptokend")).join("control.sock");
    if config.is_none() && usual.exists() {
        return usual;
    }
    let read = config::read(config.unwrap_or(Path::new(CONFIG))).ok();
    // A config in error is what one asks the daemon about above all.
    read.map_or(usual, |sources| config::check(&sources, &process).outline.socket)
}

/// Whether what goes there may be coloured: it is a terminal, and nobody said `NO_COLOR`.
fn wants_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Runs a command's future on a runtime of its own, with one thread, since the engine has one mind. A name look-up that
/// hangs in the resolver is left behind at the end, or it would hold up the exit.
fn block_on<T, E: From<io::Error>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_background();
    outcome
}

/// Whatever ends the process, a panic too, what was logged gets out.
struct FlushLog;

impl Drop for FlushLog {
    fn drop(&mut self) {
        daemon::log::flush();
    }
}

/// Tells what went wrong: the cause in one line first.
fn complain(error: &dyn fmt::Display) {
    say(format_args!("error: {error}"));
}

/// Writes a line to stderr, after what was logged. When that is gone, nobody is left to tell.
fn say(line: impl fmt::Display) {
    daemon::log::flush();
    let _ = writeln!(io::stderr(), "{line}");
}

/// What a command says could not be written; returns the exit code.
fn unread(error: &io::Error) -> u8 {
    // Whoever closed the pipe (`| head`) has read enough.
    if error.kind() != io::ErrorKind::BrokenPipe {
        complain(&format!("cannot write to stdout: {error}"));
    }
    code::FAILED
}
