//! What `dev` prints first: what runs, where its files are, and what to try.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::scratch::Scratch;
use crate::sandbox::Sandbox;

pub(super) fn write(scratch: &Scratch, sandbox: &Sandbox, lifetime_s: u32, out: &mut dyn Write) -> io::Result<()> {
    let text = text(scratch, &sandbox.endpoint(), lifetime_s);
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| io::Error::new(error.kind(), format!("cannot write to stdout: {error}")))
}

fn text(scratch: &Scratch, endpoint: &str, lifetime_s: u32) -> String {
    let directory = scratch.directory.display();
    let config = scratch.config();
    let config = config.display();
    let status = format!("{} --socket {}", us(), scratch.socket().display());
    let due_s = lifetime_s * 7 / 10;
    let end = if scratch.is_ours { "Ctrl-C ends it and removes the directory." } else { "Ctrl-C ends it." };
    format!(
        "\
corptokend keeps the access tokens of three tenants fresh, in three files. The endpoint that issues them is simulated,
at {endpoint}: a token lives {lifetime_s} s there (7200 s in earnest), so each is renewed about every {due_s} s.

  config  {config}
  tokens  {directory}/tokens/

Each event is a line below. Try, in another terminal:

  # what a program has to do to get a token: read a file
  cat {directory}/tokens/crm/ding-acme

  # one more tenant: edit the config, and its file appears
  sed -i 's/\"ding-globex\"/\"ding-globex\", \"ding-initech\"/' {config}

  # a mistake changes nothing, and is reported with its line; then it is corrected
  sed -i 's/^corp_ids/corp_idz/' {config}
  sed -i 's/^corp_idz/corp_ids/' {config}

  # what the daemon knows of each tenant
  {status} status

  # an outage: every token stays in place until it expires; then the end of the outage
  curl -k -X POST '{endpoint}/_sandbox/fault?kind=server_error'
  curl -k -X DELETE {endpoint}/_sandbox/fault

  # somebody deletes a token file: it is back within a second
  rm {directory}/tokens/crm/ding-acme

{end}

"
    )
}

/// How to start this program from another terminal: by its name if `PATH` finds it.
fn us() -> String {
    const NAME: &str = "corptokend";
    let Ok(us) = std::env::current_exe() else { return NAME.to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    if found(&path).and_then(|found| found.canonicalize().ok()) == us.canonicalize().ok() {
        return NAME.to_owned();
    }
    us.display().to_string()
}

fn found(path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|directory| directory.join("corptokend")).find(|file| Path::is_file(file))
}
