//! What is to happen when: a ring with a cell for each millisecond, so that an event costs the same whether ten or ten
//! thousand are pending, and nothing is allocated once the pool has grown. The few that lie further ahead are kept apart.

use std::collections::BTreeMap;

/// How far the ring reaches, in milliseconds.
const CELLS: usize = 1 << 16;
const NONE: u32 = u32::MAX;

struct Node<T> {
    next: u32,
    what: Option<T>,
}

#[derive(Clone, Copy)]
struct Cell {
    first: u32,
    last: u32,
}

const EMPTY: Cell = Cell { first: NONE, last: NONE };

pub struct EventQueue<T> {
    cells: Vec<Cell>,
    occupied: Vec<u64>,
    nodes: Vec<Node<T>>,
    free: u32,
    /// Nothing lies before this moment.
    begin: u64,
    /// How many are in the ring.
    len: usize,
    /// Those that were beyond the ring's reach when they were added.
    far: BTreeMap<(u64, u64), T>,
    added: u64,
}

impl<T> EventQueue<T> {
    pub fn new(now: u64) -> Self {
        let (cells, occupied) = (vec![EMPTY; CELLS], vec![0; CELLS / 64]);
        Self { cells, occupied, nodes: Vec::new(), free: NONE, begin: now, len: 0, far: BTreeMap::new(), added: 0 }
    }

    /// Adds an event, after those already added for the same moment.
    pub fn add(&mut self, at: u64, what: T) {
        assert!(at >= self.begin, "{at} is before {}", self.begin);
        if at - self.begin >= CELLS as u64 {
            self.added += 1;
            self.far.insert((at, self.added), what);
            return;
        }
        let number = match self.free {
            NONE => {
                self.nodes.push(Node { next: NONE, what: Some(what) });
                self.nodes.len() as u32 - 1
            }
            free => {
                self.free = self.nodes[free as usize].next;
                self.nodes[free as usize] = Node { next: NONE, what: Some(what) };
                free
            }
        };
        let index = at as usize % CELLS;
        let cell = &mut self.cells[index];
        match cell.last {
            NONE => cell.first = number,
            last => self.nodes[last as usize].next = number,
        }
        cell.last = number;
        self.occupied[index / 64] |= 1 << (index % 64);
        self.len += 1;
    }

    /// When the next event is.
    pub fn next_at(&self) -> Option<u64> {
        let far = self.far.first_key_value().map(|((at, _), _)| *at);
        [self.next_in_ring(), far].into_iter().flatten().min()
    }

    fn next_in_ring(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let (start, words) = (self.begin as usize % CELLS, self.occupied.len());
        (0..=words).find_map(|step| {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            }
            let found = word * 64 + bits.trailing_zeros() as usize;
            (bits != 0).then(|| self.begin + ((found + CELLS - start) % CELLS) as u64)
        })
    }

    /// Takes out the next event, if it is not after `now`.
    pub fn take(&mut self, now: u64) -> Option<T> {
        let Some(at) = self.next_at().filter(|at| *at <= now) else {
            self.begin = self.begin.max(now);
            return None;
        };
        self.begin = at;
        // What lies there since it was far ahead was added first.
        if let Some(far) = self.far.first_entry().filter(|far| far.key().0 == at) {
            return Some(far.remove());
        }
        let index = at as usize % CELLS;
        let cell = &mut self.cells[index];
        let number = cell.first;
        let node = &mut self.nodes[number as usize];
        cell.first = std::mem::replace(&mut node.next, self.free);
        self.free = number;
        if cell.first == NONE {
            *cell = EMPTY;
            self.occupied[index / 64] &= !(1 << (index % 64));
        }
        self.len -= 1;
        node.what.take()
    }
}

#[test]
fn events_come_in_order_and_none_is_lost() {
    let mut queue = EventQueue::new(123_456);
    let mut rng = super::Rng::new(5);
    let (mut now, mut added, mut seen) = (123_456, 0_u64, 0_u64);
    for _ in 0..2_000 {
        for _ in 0..rng.below(4) {
            let reach = if rng.per_mille(100) { 600_000 } else { 60_000 };
            let at = now + rng.below(reach);
            queue.add(at, at);
            added += 1;
        }
        now += rng.below(3_000);
        let mut last = 0;
        while let Some(at) = queue.take(now) {
            assert!(at <= now && at >= last, "{at} after {last} at {now}");
            (last, seen) = (at, seen + 1);
        }
        assert!(queue.next_at().is_none_or(|next| next > now));
    }
    while queue.take(now + 600_000).is_some() {
        seen += 1;
    }
    assert_eq!(added, seen);
}
