//! Which parts of a region are free. Pure: offsets and lengths in ordinary memory, nothing of what lies
//! there.
//!
//! The smallest free extent that fits is taken (best fit), and what is given back joins its neighbours.
//! Both take logarithmic time. There are never more free extents than taken ones and one more.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Lengths are rounded up to this, so that odd ones leave no crumbs.
const GRAIN: usize = 16;

/// The free extents of a region.
pub(super) struct Extents {
    by_start: BTreeMap<usize, usize>,
    /// Length first, then start: the first at or after `(length, 0)` is the best fit.
    by_length: BTreeSet<(usize, usize)>,
    total: usize,
}

impl Extents {
    /// All of `total` bytes, a multiple of 16, are free.
    pub(super) fn new(total: usize) -> Self {
        let mut extents = Self { by_start: BTreeMap::new(), by_length: BTreeSet::new(), total };
        extents.insert(0, total);
        extents
    }

    /// Whether so many bytes would fit if all were free.
    pub(super) fn could_hold(&self, length: usize) -> bool {
        length <= self.total
    }

    /// Takes `length` bytes, rounded up to the grain. `None`: no free extent is long enough.
    pub(super) fn take(&mut self, length: usize) -> Option<Range<usize>> {
        let length = length.max(1).checked_next_multiple_of(GRAIN)?;
        let (found, start) = *self.by_length.range((length, 0)..).next()?;
        self.remove(start, found);
        if found > length {
            self.insert(start + length, found - length);
        }
        Some(start..start + length)
    }

    /// Gives back what [`Extents::take`] returned.
    pub(super) fn give_back(&mut self, taken: Range<usize>) {
        let Range { mut start, mut end } = taken;
        if let Some((&before, &length)) = self.by_start.range(..start).next_back()
            && before + length == start
        {
            self.remove(before, length);
            start = before;
        }
        if let Some(&length) = self.by_start.get(&end) {
            self.remove(end, length);
            end += length;
        }
        self.insert(start, end - start);
    }

    fn insert(&mut self, start: usize, length: usize) {
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn remove(&mut self, start: usize, length: usize) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
impl Extents {
    /// Whether nothing is taken.
    pub(super) fn is_whole(&self) -> bool {
        self.by_start.len() == 1 && self.by_start.get(&0) == Some(&self.total)
    }

    /// How many free extents there are.
    fn count(&self) -> usize {
        assert_eq!(self.by_start.len(), self.by_length.len());
        self.by_start.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOTAL: usize = 4096;

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        GiveBack(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0usize..700).prop_map(Step::Take),
            2 => any::<usize>().prop_map(Step::GiveBack),
        ];
        proptest::collection::vec(step, 0..200)
    }

    fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
        one.start < other.end && other.start < one.end
    }

    proptest! {
        #[test]
        fn no_two_taken_extents_overlap_and_all_come_back(steps in steps()) {
            let mut extents = Extents::new(TOTAL);
            let mut taken: Vec<Range<usize>> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(length) => if let Some(new) = extents.take(length) {
                        prop_assert!(new.len() >= length && new.len() < length + 2 * GRAIN);
                        prop_assert!(new.end <= TOTAL);
                        prop_assert!(!taken.iter().any(|other| overlap(&new, other)));
                        taken.push(new);
                    },
                    Step::GiveBack(at) if !taken.is_empty() => {
                        extents.give_back(taken.swap_remove(at % taken.len()));
                    }
                    Step::GiveBack(_) => {}
                }
                prop_assert!(extents.count() <= taken.len() + 1);
            }
            taken.into_iter().for_each(|range| extents.give_back(range));
            prop_assert!(extents.is_whole());
        }
    }

    #[test]
    fn the_smallest_extent_that_fits_is_taken() {
        let mut extents = Extents::new(TOTAL);
        let [large, _, small, _] = [512, 16, 64, 16].map(|length| extents.take(length).unwrap());
        extents.give_back(large);
        extents.give_back(small.clone());
        assert_eq!(extents.take(60), Some(small));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut extents = Extents::new(TOTAL);
        for length in [TOTAL + 1, usize::MAX] {
            assert!(extents.take(length).is_none() && !extents.could_hold(length));
        }
        assert_eq!(extents.take(TOTAL), Some(0..TOTAL));
        assert!(extents.take(0).is_none() && extents.could_hold(1));
    }
}
