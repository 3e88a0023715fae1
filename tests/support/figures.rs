//! The rows of the table in `docs/reliability.md`, each written by the test that it is about.

use std::path::PathBuf;

/// `measure`: tests leave their figures; `write`: the document is brought up to date with them.
pub const VARIABLE: &str = "CORPTOKEND_RELIABILITY";

/// Leaves a test's row for the document, when that was asked for. `figures` are what this run saw.
pub fn leave(test: &str, fault: &str, expected: &str, figures: &str) {
    eprintln!("{test}: {figures}");
    if std::env::var_os(VARIABLE).is_some_and(|value| value == "measure") {
        std::fs::create_dir_all(directory()).unwrap();
        std::fs::write(directory().join(test), format!("| {fault} | {expected} | `{test}` | {figures} |\n")).unwrap();
    }
}

/// Where the rows lie.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("reliability")
}

/// A number from the environment, so that a long run can be asked for.
pub fn rounds(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("the variable holds a number"))
}

/// Numbers that look random; the same each time.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}
