//! What is to happen when: a ring with a cell for each millisecond, so that a completion costs the same whether ten or ten
//! thousand are under way, and nothing is allocated once the pool has grown.

/// How far ahead a completion can lie, in milliseconds.
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

pub(crate) struct EventQueue<T> {
    cells: Vec<Cell>,
    occupied: Vec<u64>,
    nodes: Vec<Node<T>>,
    free: u32,
    /// Nothing lies before this moment.
    begin: u64,
    len: usize,
}

impl<T> EventQueue<T> {
    pub(crate) fn new(now: u64) -> Self {
        let (cells, occupied) = (vec![EMPTY; CELLS], vec![0; CELLS / 64]);
        Self { cells, occupied, nodes: Vec::new(), free: NONE, begin: now, len: 0 }
    }

    /// Enters a completion, after those already entered for the same moment.
    pub(crate) fn add(&mut self, at: u64, what: T) {
        assert!(at >= self.begin && at - self.begin < CELLS as u64, "{at} is not within reach of {}", self.begin);
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

    /// When the next completion is.
    pub(crate) fn next_at(&self) -> Option<u64> {
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

    /// Takes out the next completion, if it is not after `now`.
    pub(crate) fn take(&mut self, now: u64) -> Option<T> {
        let Some(at) = self.next_at().filter(|at| *at <= now) else {
            self.begin = self.begin.max(now);
            return None;
        };
        self.begin = at;
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
fn happenings_come_in_order_and_none_is_lost() {
    let mut queue = EventQueue::new(123_456);
    let mut rng = crate::rng::Rng::new(5);
    let (mut now, mut entered, mut seen) = (123_456, 0_u64, 0_u64);
    for _ in 0..2_000 {
        for _ in 0..rng.below(4) {
            let at = now + rng.below(60_000);
            queue.add(at, at);
            entered += 1;
        }
        now += rng.below(3_000);
        let mut last = 0;
        while let Some(at) = queue.take(now) {
            assert!(at <= now && at >= last, "{at} after {last} at {now}");
            (last, seen) = (at, seen + 1);
        }
        assert!(queue.next_at().is_none_or(|next| next > now));
    }
    while queue.take(now + 60_000).is_some() {
        seen += 1;
    }
    assert_eq!(entered, seen);
}
