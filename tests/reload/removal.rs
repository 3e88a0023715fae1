//! What becomes of the places of a tenant that leaves the config.

use crate::fixture::{applies, list, ready, settle};
use crate::support::Machine;
use crate::support::machine::sinks::{KINDS, holding, sinks};
use crate::support::system::keyring::TestKeyring;

#[test]
fn every_kind_of_sink_is_emptied_or_kept_as_on_remove_says() {
    let ring = TestKeyring::named("removal");
    let ring = ring.as_ref();
    let all = if ring.is_some() { &KINDS[..] } else { &KINDS[..5] };
    // What is said, and where the token of a tenant that left stays.
    let apps: [(&str, &str, &[&str]); 3] =
        [("keep", "on_remove = \"keep\"", all), ("drop", "on_remove = \"delete\"", &[]), ("silent", "", &[])];
    let mut machine = Machine::new();
    for (app, on_remove, _) in apps {
        let text = format!("{on_remove}\n{}", sinks(&machine, app, ring));
        machine = machine.app(app, &["ding1", "ding2"], &text);
    }
    let machine = ready(machine);
    let token = |app: &str, corp_id: &str| {
        let issued = machine.sandbox.issued(corp_id);
        issued.iter().rfind(|issued| *issued.client_id == *format!("client-{app}")).unwrap().token.clone()
    };
    for (app, ..) in apps {
        assert_eq!(holding(&machine, app, "ding1", &token(app, "ding1"), ring), all, "{app}: while it is there");
    }
    applies(&machine, || machine.save(&machine.config_text().replace(&list(&["ding1", "ding2"]), &list(&["ding2"]))));
    for (app, _, stays) in apps {
        machine.wait_until(&format!("{app}: only {stays:?} are left"), |machine| {
            holding(machine, app, "ding1", &token(app, "ding1"), ring) == stays
        });
    }
    settle();
    for (app, _, stays) in apps {
        assert_eq!(holding(&machine, app, "ding1", &token(app, "ding1"), ring), stays, "{app}: what left");
        assert_eq!(holding(&machine, app, "ding2", &token(app, "ding2"), ring), all, "{app}: what stays");
    }
}
