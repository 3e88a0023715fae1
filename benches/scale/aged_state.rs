//! Writes the state of a daemon that has run for weeks: tokens that live two hours, asked for at moments that are spread
//! evenly over the time from a token's issue to its refresh.
//!
//! `cargo bench --bench aged_state -- DATABASE REFRESH_S`, with the tenants on stdin, one `app/corp_id` a line.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use corptokend::domain::{Record, Slot, TenantId, Ticket, Token};
use corptokend::store::{self, Kept, StoreRequest};
use corptokend::system::clock;
use zeroize::Zeroizing;

const LIFETIME_MS: u64 = 7_200_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // cargo adds `--bench`; that is all when it runs every benchmark.
    let [database, refresh_s, ..] = arguments.as_slice() else {
        eprintln!("nothing to do: DATABASE and REFRESH_S are missing");
        return Ok(());
    };
    let refresh_ms = refresh_s.parse::<u64>()? * 1000;
    let ids: Vec<TenantId> =
        std::io::stdin().lines().map(|line| Ok(line?.parse()?)).collect::<Result<_, Box<dyn Error>>>()?;
    let now = clock::wall();
    let count = ids.len() as u64;
    let aged = ids.into_iter().zip(0..).map(|(id, n): (TenantId, u32)| {
        let requested_at = now - refresh_ms * u64::from(n) / count;
        let token = Token::new(Zeroizing::new(format!("aged{n:033}")))?;
        let record = Record { requested_at, expires_at: requested_at + LIFETIME_MS, fingerprint: token.fingerprint() };
        Ok(Kept { ticket: Ticket { slot: Slot(n), seq: 1 }, id, record, token })
    });
    let aged = aged.collect::<Result<_, Box<dyn Error>>>()?;
    let opened = store::open(Path::new(database), drop, clock::now)?;
    if let Some(reason) = opened.unusable {
        return Err(reason.into());
    }
    opened.store.send(StoreRequest::Keep(aged));
    opened.store.stop(Duration::from_secs(300));
    Ok(())
}
