//! `kill -9`, again and again.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use corptokend::sandbox::{Options, sequence_of};

use crate::ends_when_told_to;
use crate::support::{Machine, corp_ids};

const TENANTS: usize = 50;
const KILLS: u64 = 50;

/// What a reader finds. Returns the sequence number of each tenant's token.
fn read_all(machine: &Machine, corp_ids: &[String]) -> HashMap<String, u32> {
    let mut sequences = HashMap::new();
    for corp_id in corp_ids {
        if let Ok(bytes) = fs::read(machine.path(&format!("tokens/crm/{corp_id}"))) {
            let text = String::from_utf8(bytes).expect("a token is ASCII");
            let sequence = sequence_of(&text).unwrap_or_else(|| panic!("{corp_id}: torn or empty: {text:?}"));
            sequences.insert(corp_id.clone(), sequence);
        }
    }
    sequences
}

#[test]
fn fifty_kills_tear_no_file_lose_no_token_and_leave_no_temporary_files() {
    let corp_ids = corp_ids(TENANTS);
    let options = Options { lifetime_s: 2, ..Options::default() };
    let retry = "retry = { min = \"1s\", max = \"1s\" }\nrefresh = { at = 0.3, jitter = 0.25 }";
    let mut machine = Machine::with(options).app("crm", &corp_ids, retry);
    let mut seen: HashMap<String, u32> = HashMap::new();
    // Moments that look random and are the same each time.
    let mut moment = 88_172_645_463_325_252_u64;
    // A busy machine takes longer to come to where things happen.
    let began = std::time::Instant::now();
    machine.start();
    let pace = u64::try_from(began.elapsed().as_millis() / 300).unwrap().clamp(1, 10);
    machine.kill();
    for _ in 0..KILLS {
        machine.launch();
        moment ^= moment << 13;
        moment ^= moment >> 7;
        moment ^= moment << 17;
        let until = std::time::Instant::now() + Duration::from_millis((60 + moment % 340) * pace);
        while std::time::Instant::now() < until {
            for (corp_id, sequence) in read_all(&machine, &corp_ids) {
                let newest = seen.entry(corp_id.clone()).or_default();
                assert!(sequence >= *newest, "{corp_id}: {sequence} after {newest}: an older token came back");
                *newest = sequence;
            }
            let missing = seen.keys().find(|corp_id| !machine.path(&format!("tokens/crm/{corp_id}")).exists());
            assert_eq!(missing, None, "a file that was there is missing");
            std::thread::sleep(Duration::from_millis(2));
        }
        machine.kill();
    }
    let rotations: u32 = seen.values().map(|sequence| sequence - 1).sum();
    assert!(rotations > 0, "no rotation was seen: the daemons did not live long enough");
    machine.start();
    machine.wait_until("all are served", |machine| machine.token_files().len() == TENANTS);
    let expected: Vec<String> = corp_ids.iter().map(|corp_id| format!("crm/{corp_id}")).collect();
    assert_eq!(machine.token_files(), expected, "no litter");
    assert_eq!(fs::read_dir(machine.path("run")).unwrap().count(), 1, "the socket alone");
    assert_eq!(machine.events("state_set_aside").len(), 0, "the state was whole each time");
    ends_when_told_to(&mut machine);
}
