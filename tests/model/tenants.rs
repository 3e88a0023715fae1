//! Tenants by number: their corp_ids end with it.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use corptokend::domain::{AppName, CorpId, TenantId};

/// A tenant: its app, and which of the app's it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantNo {
    pub app: u16,
    pub n: u32,
}

/// The numbers of all apps and tenants that were ever named.
#[derive(Default)]
pub struct Names {
    apps: Vec<AppName>,
    numbers: BTreeMap<AppName, u16>,
    /// How every corp_id begins.
    prefix: String,
}

impl Names {
    pub fn app(&mut self, name: &AppName) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return usize::from(*number);
        }
        self.apps.push(name.clone());
        self.numbers.insert(name.clone(), self.apps.len() as u16 - 1);
        self.apps.len() - 1
    }

    /// The number of an app that was named before.
    pub fn known_app(&self, name: &AppName) -> usize {
        usize::from(self.numbers[name])
    }

    pub fn app_name(&self, app: usize) -> &AppName {
        &self.apps[app]
    }

    pub fn number(&mut self, id: &TenantId) -> TenantNo {
        let text = id.corp_id.as_str();
        let begin = text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        if self.prefix != text[..begin] {
            assert!(self.prefix.is_empty(), "{id}: all corp_ids of a model begin alike");
            self.prefix = text[..begin].to_owned();
        }
        let n = text[begin..].parse().unwrap_or_else(|_| panic!("{id} does not end with a number"));
        TenantNo { app: self.app(&id.app) as u16, n }
    }

    pub fn id(&self, no: TenantNo) -> TenantId {
        let corp_id = CorpId::new(&format!("{}{}", self.prefix, no.n)).expect("a corp_id");
        TenantId { app: self.apps[usize::from(no.app)].clone(), corp_id }
    }
}

/// Something that there is for each tenant.
pub struct PerTenant<T> {
    apps: Vec<Vec<T>>,
    default: T,
}

impl<T: Default> Default for PerTenant<T> {
    fn default() -> Self {
        Self { apps: Vec::new(), default: T::default() }
    }
}

impl<T> PerTenant<T> {
    pub fn iter(&self) -> impl Iterator<Item = (TenantNo, &T)> {
        let apps = self.apps.iter().enumerate();
        apps.flat_map(|(app, all)| (0..).zip(all).map(move |(n, each)| (TenantNo { app: app as u16, n }, each)))
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.apps.iter_mut().flatten()
    }

    pub fn of_app_mut(&mut self, app: usize) -> impl Iterator<Item = &mut T> {
        self.apps.get_mut(app).into_iter().flatten()
    }
}

impl<T> Index<TenantNo> for PerTenant<T> {
    type Output = T;
    fn index(&self, no: TenantNo) -> &T {
        self.apps.get(usize::from(no.app)).and_then(|app| app.get(no.n as usize)).unwrap_or(&self.default)
    }
}

impl<T: Default> IndexMut<TenantNo> for PerTenant<T> {
    fn index_mut(&mut self, no: TenantNo) -> &mut T {
        let (app, n) = (usize::from(no.app), no.n as usize);
        if app >= self.apps.len() {
            self.apps.resize_with(app + 1, Vec::new);
        }
        if n >= self.apps[app].len() {
            self.apps[app].resize_with(n + 1, T::default);
        }
        &mut self.apps[app][n]
    }
}
