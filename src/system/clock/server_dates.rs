//! The time by the `Date` headers of the endpoints. One of them may be wrong or lie, so a majority decides.

use crate::domain::{BootMs, WallMs};

/// Times that differ by less agree, in milliseconds: answers travel, and hosts are not set to the second.
const AGREE_MS: i64 = 60_000;

/// The last date of each host.
#[derive(Debug, Default)]
pub(crate) struct ServerDates(Vec<ServerDate>);

#[derive(Debug)]
struct ServerDate {
    host: Box<str>,
    /// How far its clock is ahead of this machine's boot clock, in milliseconds.
    lead: i64,
}

impl ServerDates {
    /// Drops the dates of all other hosts.
    pub(crate) fn keep(&mut self, hosts: &[&str]) {
        self.0.retain(|known| hosts.contains(&&*known.host));
    }

    /// A host that answered at `at` says that it is `date`.
    pub(crate) fn record(&mut self, host: &str, at: BootMs, date: WallMs) {
        let lead = signed(date.0).saturating_sub(signed(at.0));
        match self.0.iter_mut().find(|known| &*known.host == host) {
            Some(known) => known.lead = lead,
            None => self.0.push(ServerDate { host: host.into(), lead }),
        }
    }

    /// The time by most of the hosts that answered, if there are enough: two at least, unless only one of `hosts` is called.
    pub(crate) fn agreed(&self, at: BootMs, hosts: usize) -> Option<WallMs> {
        let enough = if hosts < 2 { 1 } else { 2 }.max(self.0.len() / 2 + 1);
        // This runs at each answer, and there may be a thousand hosts. In a sorted list, hosts that agree are neighbours.
        let mut leads: Vec<i64> = self.0.iter().map(|known| known.lead).collect();
        leads.sort_unstable();
        let agreeing = |lead: &i64| {
            let (least, most) = (lead.saturating_sub(AGREE_MS), lead.saturating_add(AGREE_MS));
            leads.partition_point(|other| *other <= most) - leads.partition_point(|other| *other < least)
        };
        let (agree, best) = leads.iter().map(|lead| (agreeing(lead), *lead)).max()?;
        let time = signed(at.0).saturating_add(best);
        u64::try_from(time).ok().filter(|_| agree >= enough).map(WallMs)
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const YEARS: u64 = 74 * 366 * 24 * 3600 * 1000;

    fn agreed(words: &[(&str, u64)], hosts: usize) -> Option<u64> {
        let mut server_dates = ServerDates::default();
        words.iter().for_each(|(host, date)| server_dates.record(host, BootMs(5_000), WallMs(*date)));
        server_dates.agreed(BootMs(7_000), hosts).map(|wall| wall.0)
    }

    #[test]
    fn one_host_among_several_cannot_tell_the_time_alone() {
        assert_eq!(agreed(&[], 1), None);
        assert_eq!(agreed(&[("a", NOW)], 1), Some(NOW + 2_000));
        assert_eq!(agreed(&[("a", NOW)], 2), None, "the other has not spoken yet");
        assert_eq!(agreed(&[("a", NOW), ("a", NOW), ("a", NOW)], 2), None, "it stays one, however often it speaks");
        assert_eq!(agreed(&[("a", NOW), ("b", NOW + YEARS)], 2), None);
        assert!(agreed(&[("a", NOW), ("b", NOW + 30_000)], 2).is_some());
        assert!(
            agreed(&[("a", NOW), ("liar", NOW + YEARS), ("b", NOW + 1_000)], 3).is_some_and(|time| time < NOW + 9_000)
        );
        let two_and_two = [("a", NOW), ("b", NOW), ("c", NOW + YEARS), ("d", NOW + YEARS)];
        assert_eq!(agreed(&two_and_two, 4), None, "half is not most");
    }

    /// The processor time of one look at so many hosts.
    fn time_to_ask(hosts: usize) -> Duration {
        let known = |n: usize| ServerDate { host: format!("host-{n}").into(), lead: (n as i64) * 1_000_000 };
        let server_dates = ServerDates((0..hosts).map(known).collect());
        let processor_time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let start = processor_time();
        assert_eq!(server_dates.agreed(BootMs(0), hosts), None);
        processor_time() - start
    }

    #[test]
    fn twice_as_many_hosts_take_about_twice_as_long_to_ask() {
        let (one, two) = (time_to_ask(4_000), time_to_ask(8_000));
        assert!(two < one * 3, "{one:?} for 4,000, and {two:?} for 8,000");
    }

    #[test]
    fn the_date_of_a_host_that_is_called_no_more_is_dropped() {
        let mut server_dates = ServerDates::default();
        server_dates.record("a", BootMs(0), WallMs(NOW));
        server_dates.record("b", BootMs(0), WallMs(NOW + YEARS));
        server_dates.keep(&["a"]);
        assert_eq!(server_dates.agreed(BootMs(0), 1), Some(WallMs(NOW)));
    }
}
