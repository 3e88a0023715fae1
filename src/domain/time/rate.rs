//! How many calls in how long.

use std::fmt;
use std::str::FromStr;

/// A limit on calls: so many in any second, or in any minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    period_ms: u32,
}

/// Why a rate was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a rate is written \"N/s\" or \"N/m\", with N from 1 to 1000000")]
pub struct InvalidRate;

impl Rate {
    /// `count` calls in any second.
    ///
    /// # Panics
    /// If `count` is 0.
    pub const fn per_second(count: u32) -> Self {
        assert!(count > 0);
        Self { count, period_ms: 1000 }
    }

    /// `count` calls in any minute.
    ///
    /// # Panics
    /// If `count` is 0.
    pub const fn per_minute(count: u32) -> Self {
        assert!(count > 0);
        Self { count, period_ms: 60_000 }
    }

    /// How many calls fit into one period.
    pub fn count(self) -> u32 {
        self.count
    }

    /// The period, in milliseconds.
    pub fn period_ms(self) -> u32 {
        self.period_ms
    }

    /// Calls a second, as a fraction.
    pub fn hertz(self) -> f64 {
        f64::from(self.count) * 1000.0 / f64::from(self.period_ms)
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (count, unit) = text.split_once('/').ok_or(InvalidRate)?;
        let count: u32 = count.trim().parse().map_err(|_| InvalidRate)?;
        if !(1..=1_000_000).contains(&count) {
            return Err(InvalidRate);
        }
        match unit.trim() {
            "s" => Ok(Self::per_second(count)),
            "m" => Ok(Self::per_minute(count)),
            _ => Err(InvalidRate),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, if self.period_ms == 1000 { "s" } else { "m" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_or_per_minute() {
        assert_eq!("15/s".parse(), Ok(Rate::per_second(15)));
        assert_eq!("30/m".parse(), Ok(Rate::per_minute(30)));
        assert_eq!(Rate::per_minute(30).hertz(), 0.5);
        for bad in ["", "15", "0/s", "-1/s", "1.5/s", "15/h", "15/s/s", "1000001/s"] {
            assert_eq!(bad.parse::<Rate>(), Err(InvalidRate), "{bad:?}");
        }
    }
}
