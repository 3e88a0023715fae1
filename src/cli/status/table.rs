//! The text of `status`: a summary, notes, and a table of tenants.

use std::fmt::{self, Write as _};

use crate::cli::terminal::{Colour, counted, padded, printable, width};
use crate::control::protocol::{DaemonStatus, SinkState, TenantRow};
use crate::domain::{TenantCounts, TenantState};

/// The text of `status`.
pub(super) struct StatusTable<'a> {
    pub(super) status: &'a DaemonStatus,
    /// Worst first.
    pub(super) rows: &'a [TenantRow],
    /// Whether the tenants were named on the command line. Then there is no summary.
    pub(super) named: bool,
    pub(super) colour: Colour,
}

impl fmt::Display for StatusTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.named {
            self.summary(f)?;
            self.notes(f)?;
        }
        self.tenants(f)?;
        let shown = self.rows.len() as u64;
        let total = self.status.tenants.total();
        if !self.named && shown < total {
            let of = if shown == 0 { String::new() } else { format!("the worst {shown} are shown; ") };
            writeln!(f, "{of}{} more with --all or --json", total - shown)?;
        }
        Ok(())
    }
}

impl StatusTable<'_> {
    fn summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        let total = status.tenants.total();
        write!(f, "{}{}", counted(total, "tenant"), self.counts(&status.tenants))?;
        let readiness = if status.ready { "" } else { ", not ready yet" };
        let (version, since) = (printable(&status.version), printable(&status.started_at));
        writeln!(f, " - corptokend {version}, pid {}, since {since}{readiness}", status.pid)
    }

    /// `: 2 expired, 5 fresh`
    fn counts(&self, counts: &TenantCounts) -> String {
        let mut text = String::new();
        for state in TenantState::WORST_FIRST {
            let count = counts.of(state);
            if count > 0 {
                text.push_str(if text.is_empty() { ": " } else { ", " });
                text.push_str(&self.colour.paint(colour_of(state), &format!("{count} {state}")));
            }
        }
        text
    }

    fn notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        let error = self.colour.paint("31", "error");
        let warning = self.colour.paint("33", "warning");
        if !status.config.last_reload_successful {
            let at = printable(status.config.last_reload_at.as_deref().unwrap_or("the start"));
            let path = printable(&status.config.path);
            writeln!(f, "{error}: the config {path} was rejected at {at}; the last good one runs")?;
        }
        for problem in &status.config.problems {
            writeln!(f, "  {}", printable(problem))?;
        }
        if let Some(held) = status.config.held_back {
            let removed = counted(held.removed, "tenant");
            writeln!(f, "{warning}: the removal of {removed} is held back (`corptokend reload --allow-mass-removal`)")?;
        }
        if !status.state.healthy {
            let reason = status.state.reason.as_deref().unwrap_or("no reason is known");
            writeln!(f, "{error}: tokens cannot be kept over a restart: {}", printable(reason))?;
        }
        if let Some(until) = &status.api_paused_until {
            writeln!(f, "{warning}: the endpoint banned this address; nobody is called until {}", printable(until))?;
        }
        for hold in &status.holds {
            let next = hold.next_probe_at.as_ref().map_or(String::new(), |at| format!("; next probe at {at}"));
            writeln!(f, "{warning}: {}, since {}{next}", printable(&hold.reason), hold.since)?;
        }
        for text in &status.warnings {
            writeln!(f, "{warning}: {}", printable(text))?;
        }
        Ok(())
    }

    fn tenants(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        let cells: Vec<[String; 4]> = self.rows.iter().map(cells).collect();
        let head = ["TENANT", "STATE", "EXPIRES", "NEXT CALL"];
        let columns: [usize; 4] = std::array::from_fn(|column| {
            let widths = cells.iter().map(|row| width(&row[column]));
            widths.chain([head[column].len()]).max().unwrap_or(0)
        });
        if !self.named {
            writeln!(f)?;
        }
        let line =
            |row: [&str; 4]| -> [String; 4] { std::array::from_fn(|column| padded(row[column], columns[column])) };
        writeln!(f, "{}  WHY", line(head).join("  "))?;
        for (row, cells) in self.rows.iter().zip(&cells) {
            let [tenant, state, expires, next] = line(cells.each_ref().map(String::as_str));
            let state = self.colour.paint(colour_of(row.state), &state);
            let text = format!("{tenant}  {state}  {expires}  {next}  {}", printable(&row.why));
            writeln!(f, "{}", text.trim_end())?;
            f.write_str(&details(row, self.named))?;
        }
        Ok(())
    }
}

fn cells(row: &TenantRow) -> [String; 4] {
    let tenant = match &row.name {
        Some(name) => format!("{} ({})", printable(&row.tenant), printable(name)),
        None => printable(&row.tenant),
    };
    let moment = |seconds: Option<i64>| seconds.map_or("-".to_owned(), distance);
    [tenant, row.state.to_string(), moment(row.expires_in_s), moment(row.next_refresh_in_s)]
}

/// The lines under a tenant: its last error, and its failing sinks, or all of its sinks if it was named.
fn details(row: &TenantRow, named: bool) -> String {
    let mut text = String::new();
    if let Some(error) = &row.last_error {
        let _ = write!(text, "    {}: {}", printable(&error.kind), printable(&error.detail));
        for (what, value) in [("code", &error.code), ("requestid", &error.requestid), ("at", &error.at)] {
            if let Some(value) = value {
                let _ = write!(text, ", {what} {}", printable(value));
            }
        }
        text.push('\n');
    }
    for sink in row.sinks.iter().filter(|sink| named || sink.state == SinkState::Failing) {
        let state = match sink.state {
            SinkState::Published => "published",
            SinkState::Pending => "pending",
            SinkState::Failing => "failing",
        };
        let error = sink.error.as_ref().map_or(String::new(), |error| format!(": {}", printable(error)));
        let _ = writeln!(text, "    {} {state}{error}", printable(&sink.place));
    }
    text
}

/// `in 1h 3m`, `now`, `5s ago`: the two largest units.
fn distance(seconds: i64) -> String {
    let ago = seconds < 0;
    let mut rest = seconds.unsigned_abs();
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if rest >= length && parts.len() < 2 {
            parts.push(format!("{}{unit}", rest / length));
            rest %= length;
        } else if !parts.is_empty() {
            break;
        }
    }
    match (parts.is_empty(), ago) {
        (true, _) => "now".into(),
        (false, true) => format!("{} ago", parts.join(" ")),
        (false, false) => format!("in {}", parts.join(" ")),
    }
}

fn colour_of(state: TenantState) -> &'static str {
    match state {
        TenantState::Expired | TenantState::Refused => "31",
        TenantState::Unpublished | TenantState::Failing | TenantState::Pending | TenantState::Due => "33",
        TenantState::Fresh => "32",
        TenantState::Disabled => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_names_the_two_largest_units() {
        for (seconds, text) in [
            (0, "now"),
            (5, "in 5s"),
            (-5, "5s ago"),
            (60, "in 1m"),
            (3_601, "in 1h"),
            (3_780, "in 1h 3m"),
            (100_000, "in 1d 3h"),
        ] {
            assert_eq!(distance(seconds), text);
        }
    }
}
