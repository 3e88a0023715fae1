//! The output of `check`, as text and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{CheckFindings, Details, OnlineCall};
use crate::cli::terminal::{Colour, counted, print_line, report};
use crate::config::{Figures, Severity};
use crate::control::protocol::ReloadVerdict;

/// Problems go to stderr, the rest to `out`.
pub(super) fn text(findings: &CheckFindings, out: &mut dyn Write) -> io::Result<()> {
    let rendered = findings.report.render(&findings.sources, Colour::for_terminal(&io::stderr()) == Colour::On);
    if !rendered.trim().is_empty() {
        print_line(rendered.trim_end());
    }
    let Some(details) = &findings.details else { return Ok(()) };
    let (errors, warnings) = (findings.report.count(Severity::Error), findings.report.count(Severity::Warning));
    let verdict = match (errors, warnings) {
        (0, 0) => "valid".to_owned(),
        (0, n) => format!("valid, with {}", counted(n as u64, "warning")),
        (n, _) => counted(n as u64, "error"),
    };
    let (apps, tenants) = (counted(details.apps as u64, "app"), counted(details.tenants as u64, "tenant"));
    writeln!(out, "{}: {verdict}; {apps}, {tenants}", findings.sources.main.display())?;
    capacity(details, out)?;
    if let Some(verdict) = &details.reload {
        reload(verdict, out)?;
    }
    match &details.online {
        Some(call) => online(call, out),
        None => Ok(()),
    }
}

fn capacity(details: &Details, out: &mut dyn Write) -> io::Result<()> {
    for app in &details.capacity.apps {
        writeln!(out, "  {}: {}", app.app, figures(&app.figures))?;
    }
    if details.capacity.apps.len() > 1 {
        writeln!(out, "  in all: {}", figures(&details.capacity.total))?;
    }
    Ok(())
}

fn figures(figures: &Figures) -> String {
    let Figures { tenants, rate, capacity, slip_s, expired_s } = figures;
    let tenants = counted(*tenants as u64, "tenant");
    let mut text = format!("{tenants}; {rate} keeps {capacity} fresh");
    if *slip_s > 0 {
        text.push_str(&format!(", so renewals come up to {slip_s} s late"));
    }
    if *expired_s > 0 {
        text.push_str(&format!(", and a token is missing for up to {expired_s} s"));
    }
    text
}

fn reload(verdict: &ReloadVerdict, out: &mut dyn Write) -> io::Result<()> {
    let ReloadVerdict { added, removed, changed, fetched, .. } = verdict;
    if added + removed + changed + fetched == 0 && verdict.held_back.is_none() {
        return writeln!(out, "the running daemon has nothing to reload");
    }
    writeln!(out, "a reload would add {added}, remove {removed}, change {changed} and fetch {fetched} tenants")?;
    match verdict.held_back {
        Some(held) => writeln!(
            out,
            "  and hold back the removal of {}, until `corptokend reload --allow-mass-removal`",
            counted(held.removed, "tenant")
        ),
        None => Ok(()),
    }
}

fn online(call: &OnlineCall, out: &mut dyn Write) -> io::Result<()> {
    let whose = call.tenant.as_ref().map(|id| format!("{id}: ")).unwrap_or_default();
    match &call.outcome {
        Ok(answered) => writeln!(
            out,
            "{whose}{} answers with a token, good for {} s (fingerprint {}); nothing was published, and \
             the token that was in use may have ended",
            answered.endpoint, answered.lifetime_s, answered.fingerprint
        ),
        Err(refused) => {
            report(format_args!("{whose}{}", refused.detail));
            Ok(())
        }
    }
}

/// The object of `docs/json.md`.
pub(super) fn json(findings: &CheckFindings, out: &mut dyn Write) -> io::Result<()> {
    let details = findings.details.as_ref();
    let reload = details.and_then(|d| d.reload.as_ref()).map(|verdict| {
        let held_back = verdict.held_back.map_or(0, |held| held.removed);
        json!({ "add": verdict.added, "remove": verdict.removed, "change": verdict.changed, "fetch": verdict.fetched, "held_back": held_back })
    });
    let value = json!({
        "valid": !findings.report.has_errors(),
        "problems": findings.report.to_json(),
        "apps": details.map(|d| d.apps),
        "tenants": details.map(|d| d.tenants),
        "capacity": details.map(|d| &d.capacity),
        "reload": reload,
        "online": details.and_then(|d| d.online.as_ref()).map(online_json),
    });
    writeln!(out, "{value:#}")
}

fn online_json(call: &OnlineCall) -> Value {
    let tenant = call.tenant.as_ref().map(ToString::to_string);
    match &call.outcome {
        Ok(answered) => json!({
            "ok": true, "tenant": tenant, "lifetime_s": answered.lifetime_s, "fingerprint": answered.fingerprint,
            "kind": null, "code": null, "requestid": null, "detail": null,
        }),
        Err(refused) => {
            let failure = refused.failure.as_ref();
            json!({
                "ok": false, "tenant": tenant, "lifetime_s": null, "fingerprint": null,
                "kind": failure.map(|f| f.kind.as_str()), "code": failure.and_then(|f| f.code.as_deref()),
                "requestid": failure.and_then(|f| f.request_id.as_deref()), "detail": refused.detail,
            })
        }
    }
}
