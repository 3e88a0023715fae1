//! `corptokend dev`: a simulated endpoint and the real daemon against it, in one process, to see what it is about.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::run::failed_to_start;
use super::{block_on, complain};
use crate::daemon::{self, StartError, Startup, Until};
use crate::sandbox::{self, Options, Sandbox, TokenMode};

/// Try it: a simulated endpoint and the daemon against it, with a small config to play with
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long a token lives, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=7200))]
    lifetime: u32,
    /// Where config, tokens and state go [default: a new directory below $TMPDIR]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> u8 {
    match block_on(play(args)) {
        Ok(()) => 0,
        Err(error) => failed_to_start(&error),
    }
}

async fn play(args: &Args) -> Result<(), StartError> {
    let directory = args.dir.clone().unwrap_or_else(scratch);
    let sandbox = sandbox::start(options(args)).await?;
    let config = lay_out(&directory, &sandbox)?;
    introduce(&directory, &sandbox, args.lifetime);
    let startup = Startup { config, strict: false, attended: true };
    let daemon = daemon::start(startup).await?;
    daemon.run(Until::Stopped).await?;
    sandbox.stop().await;
    if args.dir.is_none() {
        fs::remove_dir_all(&directory)
            .unwrap_or_else(|error| complain(&format!("{} stays: {error}", directory.display())));
    }
    Ok(())
}

/// DingTalk's limits, with lives short enough that something happens.
fn options(args: &Args) -> Options {
    Options {
        lifetime_s: args.lifetime,
        mode: TokenMode::New,
        per_app_limit: Some(20),
        apps: [("ding-crm", "crm-secret"), ("ding-hr", "hr-secret")]
            .map(|(id, s)| (id.to_owned(), s.to_owned()))
            .into(),
        known_corps: Some(["ding-acme", "ding-globex", "ding-initech", "ding-umbrella"].map(str::to_owned).into()),
        ..Options::default()
    }
}

fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("corptokend-dev-{}", std::process::id()))
}

/// Writes the config and what belongs to it.
fn lay_out(directory: &Path, sandbox: &Sandbox) -> io::Result<PathBuf> {
    let etc = directory.join("etc");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&etc)?;
    for place in ["tokens", "state"] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory.join(place))?;
    }
    write(&etc.join("crm.secret"), 0o600, "crm-secret\n")?;
    write(&etc.join("hr.secret"), 0o600, "hr-secret\n")?;
    write(&etc.join("ca.pem"), 0o644, &sandbox.ca_pem())?;
    let config = etc.join("config.toml");
    write(&config, 0o644, &config_text(directory, &sandbox.endpoint()))?;
    Ok(config)
}

fn config_text(directory: &Path, endpoint: &str) -> String {
    let directory = directory.display();
    format!(
        r#"# Edit and save this file while the daemon runs, and watch what it does.

[api]
ca_file = "ca.pem"

[state]
path = "{directory}/state/state.redb"

[control]
socket = "{directory}/control.sock"

[defaults]
endpoint = "{endpoint}"
[[defaults.sink]]
file = "{directory}/tokens/{{app}}/{{corp_id}}"

[app.crm]
client_id     = "ding-crm"
client_secret = {{ file = "crm.secret" }}
corp_ids      = ["ding-acme", "ding-globex"]     # add "ding-initech", or try one that does not exist

[app.hr]
client_id     = "ding-hr"
client_secret = {{ file = "hr.secret" }}
corp_ids      = ["ding-acme"]
[[app.hr.sink]]
file   = "{directory}/tokens/hr-{{corp_id}}.json"
format = "json"
"#
    )
}

fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

fn introduce(directory: &Path, sandbox: &Sandbox, lifetime: u32) {
    let directory = directory.display();
    let endpoint = sandbox.endpoint();
    println!(
        "\
A simulated token endpoint runs at {endpoint}, and corptokend against it.
Tokens live {lifetime} s here (DingTalk's: 7200), so that something happens; each new one is a line below.

  config   {directory}/etc/config.toml
  tokens   {directory}/tokens/

Try, in another terminal:
  cat {directory}/tokens/crm/ding-acme                       # what a program has to do
  sed -i 's/\"ding-globex\"/\"ding-globex\", \"ding-initech\"/' {directory}/etc/config.toml    # one more tenant
  corptokend --socket {directory}/control.sock status        # what the daemon knows
  curl -k -X POST '{endpoint}/_sandbox/fault?kind=server_error'  # an outage; curl -k -X DELETE ends it
Ctrl-C ends it.
"
    );
}
