//! The checks of accounts, certificates and secrets against what was looked up.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::diagnostics::report::{Diagnostic, Severity};
use crate::config::diagnostics::sources::{Sources, TextOrigin};
use crate::config::environment::{Account, CaOutcome, Environment, InputFault, Process, SecretOutcome};
use crate::config::read::reader::{AccountName, AccountRole, AccountUse};
use crate::config::read::{DAEMON, Draft};
use crate::domain::{AppName, Fingerprint};

/// The numbers of accounts that the config names.
pub(crate) struct Accounts<'a> {
    environment: &'a Environment,
    process: &'a Process,
}

impl<'a> Accounts<'a> {
    /// Reports what is wrong with the accounts that the config names.
    pub(crate) fn check(draft: &'a Draft<'_>, environment: &'a Environment) -> Self {
        let accounts = Self { environment, process: &draft.process };
        for account in &draft.accounts {
            accounts.check_one(account, &draft.diagnostics);
        }
        accounts.check_defaults(draft);
        accounts
    }

    /// Reports the default groups that are used, and of which it is not known whether they can be. Without their group the
    /// readers of the standard sink would be locked out; without that of the socket only root gives commands.
    fn check_defaults(&self, draft: &Draft<'_>) {
        let of_sinks = draft.apps.iter().flat_map(|app| app.settings.sinks()).filter_map(|sink| sink.group.as_ref());
        let sinks = (of_sinks.collect(), Severity::Error, "what runs goes on until it can be");
        let socket = "the control socket has the daemon's own group until a restart";
        let socket = (draft.control_group.iter().collect::<Vec<_>>(), Severity::Warning, socket);
        for (groups, severity, help) in [sinks, socket] {
            let default = groups.into_iter().find_map(|group| match group {
                AccountName::Default(name) => Some(*name),
                AccountName::Id(_) | AccountName::Name(_) => None,
            });
            if let Some(message) = default.and_then(|name| self.unanswered_default(name)) {
                let help = format!("see the system's account database; {help}");
                draft.diagnostics.push(Diagnostic::new(severity, message).help(help).that_hangs());
            }
        }
    }

    /// Why it is not known whether a default group can be used.
    fn unanswered_default(&self, group: &str) -> Option<String> {
        let message = |what: &str, why: &str| Some(format!("the {what} cannot be looked up: {why}"));
        match self.environment.groups.get(group)? {
            Account::Unanswered(why) => message(&format!("group {group}"), why),
            Account::Id(id) if !self.process.may_give_to(*id) => match self.environment.users.get(DAEMON)? {
                Account::Unanswered(why) => message(&format!("user {DAEMON}"), why),
                Account::Id(_) | Account::Missing => None,
            },
            Account::Id(_) | Account::Missing => None,
        }
    }

    fn check_one(&self, account: &AccountUse, diagnostics: &Diagnostics<'_>) {
        let AccountUse { role, account: name, at } = account;
        let (key, what) = if *role == AccountRole::Owner { ("owner", "user") } else { ("group", "group") };
        match self.look_up(*role, name) {
            Some(Account::Missing) => drop(
                diagnostics
                    .error(*at, format!("`{key}` names a {what} that does not exist"))
                    .help(format!("make the {what}, or give its number")),
            ),
            Some(Account::Unanswered(why)) => drop(
                diagnostics
                    .error(*at, format!("the {what} that `{key}` names cannot be looked up: {why}"))
                    .help(format!("see the system's account database, or give the {what}'s number"))
                    .hangs(),
            ),
            Some(Account::Id(id))
                if *role == AccountRole::Owner && id != self.process.user && !self.process.may_chown =>
            {
                diagnostics.error(*at, "files cannot be given to another user without CAP_CHOWN").help(
                    "add AmbientCapabilities=CAP_CHOWN and CapabilityBoundingSet=CAP_CHOWN to the unit, or use `group`",
                );
            }
            Some(Account::Id(id)) if *role == AccountRole::Group && !self.process.may_give_to(id) => drop(
                diagnostics
                    .error(*at, "files cannot be given to a group that the daemon's user is not in")
                    .help("add SupplementaryGroups= with that group to the unit (or give it CAP_CHOWN)"),
            ),
            Some(Account::Id(_)) | None => {}
        }
    }

    /// The number of an account, if it has one.
    pub(crate) fn id(&self, role: AccountRole, name: &AccountName) -> Option<u32> {
        match self.look_up(role, name)? {
            Account::Id(id) => Some(id),
            Account::Missing | Account::Unanswered(_) => None,
        }
    }

    fn look_up(&self, role: AccountRole, name: &AccountName) -> Option<Account> {
        match (name, role) {
            (AccountName::Id(id), _) => Some(Account::Id(*id)),
            (AccountName::Name(name), AccountRole::Owner) => self.environment.users.get(name).cloned(),
            (AccountName::Name(name), AccountRole::Group) => self.environment.groups.get(name).cloned(),
            (AccountName::Default(name), _) => self.default_group(name).map(Account::Id),
        }
    }

    /// A default group is used by the user that the packages made it for, and by users who can give files to it. A user who only
    /// tries the daemon is not in the group, and must not fail because of that.
    fn default_group(&self, name: &str) -> Option<u32> {
        let Some(Account::Id(group)) = self.environment.groups.get(name) else { return None };
        let made_for_us = self.environment.users.get(DAEMON) == Some(&Account::Id(self.process.user));
        (self.process.may_give_to(*group) || made_for_us).then_some(*group)
    }
}

/// Refuses secrets that stand in the config itself, with the command that moves each into a file.
pub(crate) fn check_inline_secrets(draft: &Draft<'_>, environment: &Environment) {
    let has_group = matches!(environment.groups.get(DAEMON), Some(Account::Id(_)));
    let who = if has_group { "-m 0640 -g corptokend" } else { "-m 0600" };
    for (at, path) in &draft.inline_secrets {
        let path = path.display();
        draft.diagnostics.error(*at, "a secret does not belong into the config").help(format!(
            "run `install {who} /dev/stdin {path}`, paste the secret, press Enter and Ctrl-D; then write \
             client_secret = {{ file = \"{path}\" }}"
        ));
    }
}

/// Reports what is wrong with the certificates to trust and with the apps' secrets. Returns the fingerprints of the
/// secrets.
pub(crate) fn check_files(draft: &Draft<'_>, environment: &Environment) -> BTreeMap<AppName, Fingerprint> {
    let mut dangers = Dangers::new(draft.sources);
    if let (Some(at), Some(ca_file)) = (draft.ca_file_at, &environment.ca_file) {
        check_ca_file(&ca_file.outcome, at, &draft.diagnostics);
        dangers.report(&ca_file.dangers, &draft.diagnostics);
    }
    let mut found = BTreeMap::new();
    let secrets = draft.apps.iter().filter_map(|app| Some((&app.name, app.secret.as_ref()?.at)));
    for ((name, at), secret) in secrets.zip(&environment.secrets) {
        dangers.report(&secret.dangers, &draft.diagnostics);
        found.extend(secret.outcome.fingerprint().map(|fingerprint| (name.clone(), fingerprint)));
        check_secret(&secret.outcome, at, draft.sources.origin, &draft.diagnostics);
    }
    found
}

fn check_ca_file(outcome: &CaOutcome, at: Span, diagnostics: &Diagnostics<'_>) {
    match outcome {
        CaOutcome::Readable => {}
        CaOutcome::Unreadable(why) => drop(
            diagnostics
                .error(at, format!("`ca_file` cannot be read: {why}"))
                .help("put the certificates there, in PEM, readable by the daemon's user"),
        ),
        // Apps that have a client already go on, and tokens stay where they are.
        CaOutcome::Unanswered(why) => drop(
            diagnostics
                .warning(at, format!("`ca_file` cannot be read: {why}"))
                .help("look at the file system that it lies on; until it can be read, nobody new is called")
                .hangs(),
        ),
    }
}

fn check_secret(outcome: &SecretOutcome, at: Span, origin: TextOrigin, diagnostics: &Diagnostics<'_>) {
    let report = |severity, InputFault { message, remedy }: &InputFault| {
        diagnostics.report(severity, at, message.clone()).help(remedy.clone())
    };
    match outcome {
        SecretOutcome::Good(_) => {}
        SecretOutcome::Loose(_, fault) => drop(report(Severity::Warning, fault)),
        // It concerns its app alone, and is found out again where it is used.
        SecretOutcome::Unanswered(fault) => drop(report(Severity::Warning, fault).hangs()),
        SecretOutcome::Unusable(fault) if origin == TextOrigin::State => drop(report(Severity::Warning, fault)),
        SecretOutcome::Unusable(fault) => drop(report(Severity::Error, fault)),
    }
}

/// Reports who else could change files that the config names. The ways to them have directories in common, and each is
/// reported once.
struct Dangers {
    origin: TextOrigin,
    reported: HashSet<Arc<Path>>,
}

impl Dangers {
    /// What is wrong with the config's own way was reported already.
    fn new(sources: &Sources) -> Self {
        let reported = sources.diagnostics.iter().filter_map(|known| Some(Arc::clone(&known.at.as_ref()?.file)));
        Self { origin: sources.origin, reported: reported.collect() }
    }

    /// What a config that was applied before names is worth a warning.
    fn report(&mut self, found: &[Diagnostic], diagnostics: &Diagnostics<'_>) {
        for danger in found {
            let is_new = danger.at.as_ref().is_none_or(|at| self.reported.insert(Arc::clone(&at.file)));
            if is_new {
                let severity = match self.origin {
                    TextOrigin::Disk => danger.severity,
                    TextOrigin::State => Severity::Warning,
                };
                diagnostics.push(Diagnostic { severity, ..danger.clone() });
            }
        }
    }
}
