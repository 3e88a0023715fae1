//! The command line: one file or folder for each command.
//!
//! Goes in: arguments and environment. Comes out: text on stdout and stderr, and an exit code. `once`, `status`, `reload` and
//! `check` talk to a running daemon through [`control::ControlClient`](crate::control::ControlClient); `run`, `once` and `dev` start one.
//! What commands share is in `terminal`. Only `main.rs` calls this module, and the tests call its commands.

mod check;
mod dev;
mod generate;
mod once;
pub mod reload;
mod run;
pub mod status;
mod terminal;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Draft;
use crate::environment;
use generate::{completions, man, schema};
use terminal::output_failed;

pub use terminal::{Colour, Exit};

/// Where the config is unless the user says otherwise.
const CONFIG: &str = "/etc/corptokend/config.toml";

/// Keeps the DingTalk access tokens of many organisations fresh, in files and kernel keyrings
#[derive(Debug, Parser)]
#[command(name = "corptokend", version, arg_required_else_help = true)]
struct Cli {
    /// The config's main file; drop-ins lie beside it: for c.toml in c.d/*.toml [default: /etc/corptokend/config.toml]
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
    Run(run::RunArgs),
    Once(once::OnceArgs),
    Check(check::CheckArgs),
    Status(status::StatusArgs),
    Reload(reload::ReloadArgs),
    Dev(dev::DevArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    Schema(schema::SchemaArgs),
}

/// Runs the command that the process was started with, and returns its exit code.
pub fn main() -> u8 {
    let _at_the_end = FlushLog;
    let mut out = io::stdout().lock();
    let exit = match Cli::try_parse() {
        Ok(cli) => execute(&cli, &mut out),
        Err(error) => match error.print() {
            _ if error.use_stderr() => Exit::Usage,
            Ok(()) => Exit::Success,
            Err(error) => output_failed(&error),
        },
    };
    match out.flush() {
        Err(error) if exit == Exit::Success => output_failed(&error),
        _ => exit,
    }
    .into()
}

fn execute(cli: &Cli, out: &mut dyn Write) -> Exit {
    let config = cli.config.clone().unwrap_or_else(|| CONFIG.into());
    let socket = || cli.socket.clone().unwrap_or_else(|| default_socket(cli.config.as_deref()));
    match &cli.command {
        Command::Run(args) => run::run(args, config),
        Command::Once(args) => once::run(args, &config, &socket(), out),
        Command::Check(args) => check::run(args, &config, cli.socket.as_deref(), out),
        Command::Status(args) => {
            status::run(args, &socket(), out, &mut io::stderr().lock(), Colour::for_terminal(&io::stdout()))
        }
        Command::Reload(args) => reload::run(args, &socket(), out, &mut io::stderr().lock()),
        Command::Dev(args) => dev::run(args, out),
        Command::Completions(args) => completions::run(args, Cli::command(), out),
        Command::Man(args) => man::run(args, Cli::command()),
        Command::Schema(_) => schema::run(out),
    }
}

/// The daemon's socket. An operator may be allowed to use it without being allowed to read the config, so the default path comes
/// first, unless a config was named.
fn default_socket(config: Option<&Path>) -> PathBuf {
    let process = environment::process();
    let usual = process.runtime_directory.as_deref().unwrap_or(Path::new("/run/corptokend")).join("control.sock");
    if config.is_none() && usual.exists() {
        return usual;
    }
    let read = environment::read(config.unwrap_or(Path::new(CONFIG))).ok();
    // The socket is found for a config in error too: that is when an operator asks the daemon.
    read.map_or(usual, |sources| Draft::read(&sources, &process).outline().socket)
}

/// Writes out what was logged, whatever ends the process, a panic too.
struct FlushLog;

impl Drop for FlushLog {
    fn drop(&mut self) {
        crate::system::log::flush();
    }
}
