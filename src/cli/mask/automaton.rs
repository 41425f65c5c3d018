//! Finds many patterns at once in one pass (Aho and Corasick, 1975).
//!
//! Written here because the mask must know, after every byte, how much of the text could still begin a
//! match; libraries keep that to themselves. States near the root, where ordinary text stays, and states
//! with several children have a full row of transitions; the others, nearly all of a long pattern, know
//! their one child and where to fall back to. Every symbol costs amortised constant time whatever the
//! text is. The tables spell the secrets: the allocator wipes them when they are freed. Imports nothing.

use std::mem;

/// The class of whatever no pattern contains.
pub(super) const OTHER: u8 = 0;
/// The class of what may stand anywhere inside a match without being part of it.
pub(super) const BREAK: u8 = 1;
/// The class of what may stand in some places inside a match.
pub(super) const SEPARATOR: u8 = 2;
/// The first class that stands for a symbol of a pattern.
pub(super) const FIRST_SYMBOL: u8 = 3;

/// The state in which no pattern has begun.
pub(super) const ROOT: u32 = 0;
/// Set in a transition that [`Automaton::look`] has to be asked about, or that the cursor decides.
pub(super) const EVENT: u32 = 1 << 31;

/// The transitions of a set of patterns.
pub(super) struct Automaton {
    /// Rows of one entry per class. A state below the length of this is the place of its row.
    rows: Vec<u32>,
    /// States with one child at most, from `rows.len()` on.
    links: Vec<Link>,
    facts: Vec<Facts>,
    classes: usize,
    /// Where [`OTHER`], [`BREAK`] and [`SEPARATOR`] lead from a state that has begun a pattern.
    away: [u32; FIRST_SYMBOL as usize],
}

struct Link {
    symbol: u8,
    next: u32,
    fall: u32,
}

/// What is known of a state.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    /// Symbols of the longest beginning of a pattern that the text ends with.
    pub(super) depth: u32,
    /// Symbols of the longest pattern that the text ends with; 0 for none.
    pub(super) longest: u32,
    /// The state for the next shorter beginning.
    pub(super) fall: u32,
    /// Where to go on from: this state, or a shorter one if no pattern goes on here.
    pub(super) onward: u32,
}

impl Automaton {
    /// Builds the tables. The symbols of `patterns` lie from [`FIRST_SYMBOL`] to below `classes`.
    pub(super) fn new(patterns: &[Vec<u8>], classes: usize, separators: bool) -> Self {
        let mut trie = Trie::new(patterns);
        let order = trie.link();
        Self::number(&trie, &order, classes, separators)
    }

    /// The state after one more symbol, with [`EVENT`] set if there is something to look at.
    #[inline(always)]
    pub(super) fn step(&self, mut state: u32, class: u8) -> u32 {
        loop {
            if let Some(&next) = self.rows.get(state as usize + usize::from(class)) {
                return next;
            }
            if class < FIRST_SYMBOL {
                return self.away[usize::from(class)];
            }
            let link = &self.links[state as usize - self.rows.len()];
            if link.symbol == class {
                return link.next;
            }
            state = link.fall;
        }
    }

    /// What is known of a state.
    pub(super) fn look(&self, state: u32) -> &Facts {
        let state = (state & !EVENT) as usize;
        let rows = self.rows.len();
        let number = if state < rows { state / self.classes } else { rows / self.classes + state - rows };
        &self.facts[number]
    }

    /// The longest match that has begun which a separator may interrupt: one of whole pairs of symbols.
    pub(super) fn before_separator(&self, mut state: u32) -> u32 {
        if self.away[usize::from(SEPARATOR)] == ROOT {
            return ROOT;
        }
        while self.look(state).depth % 2 == 1 {
            state = self.look(state).fall;
        }
        state
    }

    /// Numbers the states, those with a row first, and fills the tables.
    fn number(trie: &Trie, order: &[u32], classes: usize, separators: bool) -> Self {
        let (with_row, with_link): (Vec<u32>, Vec<u32>) = order.iter().partition(|&&n| trie.earns_row(n));
        let rows = with_row.len() * classes;
        let mut state = vec![ROOT; trie.nodes.len()];
        with_row.iter().enumerate().for_each(|(i, &n)| state[n as usize] = narrow(i * classes));
        with_link.iter().enumerate().for_each(|(i, &n)| state[n as usize] = narrow(rows + i));

        let away = [ROOT, EVENT, if separators { EVENT } else { ROOT }];
        let mut automaton =
            Self { rows: vec![ROOT; rows], links: Vec::new(), facts: Vec::new(), classes, away };
        let entry = |n: u32| {
            let event = if trie.nodes[n as usize].longest > 0 { EVENT } else { 0 };
            state[n as usize] | event
        };
        automaton.links.extend(with_link.iter().map(|&n| {
            let node = &trie.nodes[n as usize];
            let (symbol, next) = match node.child {
                NONE => (OTHER, ROOT),
                child => (trie.nodes[child as usize].symbol, entry(child)),
            };
            Link { symbol, next, fall: state[node.fall as usize] }
        }));
        automaton.facts.extend(with_row.iter().chain(&with_link).map(|&n| {
            let node = &trie.nodes[n as usize];
            let (fall, onward) = (state[node.fall as usize], state[trie.onward(n) as usize]);
            Facts { depth: node.depth, longest: node.longest, fall, onward }
        }));
        for &n in &with_row {
            automaton.fill_row(trie, n, state[n as usize] as usize, &state, entry);
        }
        automaton
    }

    /// A row is the one of the fallback state with the children written over it.
    fn fill_row(&mut self, trie: &Trie, n: u32, row: usize, state: &[u32], entry: impl Fn(u32) -> u32) {
        if n != 0 {
            let fall = state[trie.nodes[n as usize].fall as usize];
            self.rows[row..row + self.away.len()].copy_from_slice(&self.away);
            for class in FIRST_SYMBOL..=narrow_class(self.classes - 1) {
                self.rows[row + usize::from(class)] = self.step(fall, class);
            }
        }
        for child in trie.children(n) {
            self.rows[row + usize::from(trie.nodes[child as usize].symbol)] = entry(child);
        }
    }
}

/// States up to this depth have a row: ordinary text rarely comes further.
const DEEPEST_ROW: u32 = 3;

const NONE: u32 = u32::MAX;

/// The patterns as a tree; node 0 is the root.
struct Trie {
    nodes: Vec<Node>,
}

struct Node {
    symbol: u8,
    child: u32,
    sibling: u32,
    depth: u32,
    longest: u32,
    fall: u32,
}

impl Trie {
    fn new(patterns: &[Vec<u8>]) -> Self {
        let root = Node { symbol: OTHER, child: NONE, sibling: NONE, depth: 0, longest: 0, fall: 0 };
        let mut trie = Self { nodes: vec![root] };
        for pattern in patterns.iter().filter(|pattern| !pattern.is_empty()) {
            let end = pattern.iter().fold(0, |node, &symbol| trie.grow(node, symbol));
            let end = &mut trie.nodes[end as usize];
            end.longest = end.depth;
        }
        trie
    }

    fn grow(&mut self, parent: u32, symbol: u8) -> u32 {
        if let Some(child) = self.child(parent, symbol) {
            return child;
        }
        let number = narrow(self.nodes.len());
        let depth = self.nodes[parent as usize].depth + 1;
        let sibling = mem::replace(&mut self.nodes[parent as usize].child, number);
        self.nodes.push(Node { symbol, child: NONE, sibling, depth, longest: 0, fall: 0 });
        number
    }

    fn children(&self, parent: u32) -> impl Iterator<Item = u32> {
        let some = |n: u32| (n != NONE).then_some(n);
        std::iter::successors(some(self.nodes[parent as usize].child), move |&n| {
            some(self.nodes[n as usize].sibling)
        })
    }

    fn child(&self, parent: u32, symbol: u8) -> Option<u32> {
        self.children(parent).find(|&child| self.nodes[child as usize].symbol == symbol)
    }

    /// Sets every node's fallback; returns the nodes by depth.
    fn link(&mut self) -> Vec<u32> {
        let mut order = vec![0];
        let mut done = 0;
        while let Some(&parent) = order.get(done) {
            done += 1;
            let children: Vec<u32> = self.children(parent).collect();
            for &child in &children {
                let symbol = self.nodes[child as usize].symbol;
                let fall = if parent == 0 { 0 } else { self.fallback(parent, symbol) };
                let inherited = self.nodes[fall as usize].longest;
                let node = &mut self.nodes[child as usize];
                node.fall = fall;
                node.longest = node.longest.max(inherited);
            }
            order.extend(children);
        }
        order
    }

    fn fallback(&self, parent: u32, symbol: u8) -> u32 {
        let mut node = parent;
        while node != 0 {
            node = self.nodes[node as usize].fall;
            if let Some(child) = self.child(node, symbol) {
                return child;
            }
        }
        0
    }

    fn onward(&self, mut node: u32) -> u32 {
        while node != 0 && self.nodes[node as usize].child == NONE {
            node = self.nodes[node as usize].fall;
        }
        node
    }

    fn earns_row(&self, node: u32) -> bool {
        let grows = self.children(node).nth(1).is_some();
        node == 0
            || grows
            || (self.nodes[node as usize].depth <= DEEPEST_ROW && self.children(node).next().is_some())
    }
}

/// The number of patterns' bytes is bounded far below the range of a state.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).ok().filter(|n| n & EVENT == 0).unwrap_or(ROOT)
}

fn narrow_class(class: usize) -> u8 {
    u8::try_from(class).unwrap_or(u8::MAX)
}
