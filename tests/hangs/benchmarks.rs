//! Those who are compared in `benches/compare`: one that hangs is ended with all that it started, and left out.

use std::process::{Command, Stdio};

use crate::support::{finish, has, shown, system_allows};

/// Runs Python with what the benchmarks import.
fn python(script: &str) {
    if !system_allows("running the benchmarks (python3)", has("python3")) {
        return;
    }
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/common");
    let mut command = Command::new("python3");
    command.args(["-B", "-c", script]).env("PYTHONPATH", modules).stdin(Stdio::null());
    let output = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn a_contender_that_hangs_is_ended_with_its_children_and_called_late() {
    // The child holds the output open, which is what made the benchmark wait for ever.
    python(
        "from process import measure\n\
         for command in ('sleep 3000 & exec sleep 3000', 'sleep 3000 & exit 0'):\n    \
             cost = measure(['sh', '-c', command], timeout_s=1)\n    \
             assert cost.ended_by_us and cost.wall_s < 60, cost\n\
         assert not measure(['true']).ended_by_us",
    );
}

#[test]
fn the_simulated_lookup_of_a_token_says_what_an_agent_needs_to_go_on() {
    python(
        "from nginx import SECRETS, VAULT_TOKEN\n\
         data = SECRETS['/v1/auth/token/lookup-self']['data']\n\
         assert data['id'] == VAULT_TOKEN and data['type'] == 'service' and data['ttl'] > 0, data",
    );
}
