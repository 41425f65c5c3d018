//! Names that count each on its own, as long as they are few. Found without a lock: a name never goes away again.

use std::sync::OnceLock;

/// What every name counts as that was not admitted.
pub const OTHER: &str = "other";

/// At most `N` names, each of which keeps its place for good.
#[derive(Debug)]
pub struct Names<K, const N: usize> {
    places: [OnceLock<K>; N],
}

impl<K: AsRef<str>, const N: usize> Default for Names<K, N> {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| OnceLock::new()) }
    }
}

impl<K: AsRef<str>, const N: usize> Names<K, N> {
    /// The name's place; `None` if it has none.
    fn find(&self, name: &str) -> Option<usize> {
        for place in probe::<N>(name) {
            if self.places[place].get()?.as_ref() == name {
                return Some(place);
            }
        }
        None
    }

    /// Gives the name a place, unless all are taken.
    fn admit(&self, name: K) -> Option<usize> {
        let mut name = Some(name);
        for place in probe::<N>(name.as_ref()?.as_ref()) {
            // Whoever comes second finds what the first has put there.
            let kept =
                self.places[place].get_or_init(|| name.take().expect("it is taken once, and then kept"));
            match &name {
                None => return Some(place),
                Some(other) if kept.as_ref() == other.as_ref() => return Some(place),
                Some(_) => {}
            }
        }
        None
    }
}

/// Where a name may be: from a place of its own on, all of them once (FNV-1a).
fn probe<const N: usize>(name: &str) -> impl Iterator<Item = usize> + use<N> {
    const START: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let hash = name.bytes().fold(START, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME));
    let first = usize::try_from(hash).unwrap_or_default() % N;
    (0..N).map(move |step| (first + step) % N)
}

/// Something for each name, and one for all others.
#[derive(Debug)]
pub struct Family<K, T, const N: usize> {
    names: Names<K, N>,
    of_names: [T; N],
    of_others: T,
}

impl<K: AsRef<str>, T: Default, const N: usize> Default for Family<K, T, N> {
    fn default() -> Self {
        let of_names = std::array::from_fn(|_| T::default());
        Self { names: Names::default(), of_names, of_others: T::default() }
    }
}

impl<K: AsRef<str>, T, const N: usize> Family<K, T, N> {
    /// What belongs to the name, if it was admitted, else what belongs to all others.
    pub fn at(&self, name: &str) -> &T {
        self.of(self.names.find(name))
    }

    /// Lets a name count on its own from now on, if there is room, and returns what belongs to it.
    pub fn admit(&self, name: K) -> &T {
        self.of(self.names.admit(name))
    }

    /// The name's place, for [`of`](Self::of).
    pub fn place(&self, name: &str) -> Option<usize> {
        self.names.find(name)
    }

    /// What belongs to a place; to all others if it is none.
    pub fn of(&self, place: Option<usize>) -> &T {
        place.and_then(|place| self.of_names.get(place)).unwrap_or(&self.of_others)
    }

    /// The name of a place; that of all others if it is none.
    pub fn name(&self, place: Option<usize>) -> &str {
        self.admitted(place).map_or(OTHER, AsRef::as_ref)
    }

    /// The name of a place, as it was admitted.
    pub fn admitted(&self, place: Option<usize>) -> Option<&K> {
        place.and_then(|place| self.names.places.get(place)?.get())
    }

    /// Whether the name counts on its own.
    pub fn knows(&self, name: &str) -> bool {
        self.names.find(name).is_some()
    }

    /// The admitted names in order, then the others.
    pub fn all(&self) -> Vec<(&str, &T)> {
        let named = self.names.places.iter().zip(&self.of_names);
        let mut all: Vec<_> = named.filter_map(|(name, of)| Some((name.get()?.as_ref(), of))).collect();
        all.sort_by_key(|(name, _)| *name);
        all.push((OTHER, &self.of_others));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::Counter;
    use super::*;

    #[test]
    fn only_admitted_names_count_on_their_own() {
        let family: Family<&str, Counter, 4> = Family::default();
        family.admit("b");
        family.admit("a");
        for name in ["a", "b", "a", "invented", "secret/KEY"] {
            family.at(name).one();
        }
        let all: Vec<_> = family.all().into_iter().map(|(name, counter)| (name, counter.value())).collect();
        assert_eq!(all, [("a", 2), ("b", 1), (OTHER, 2)]);
    }

    #[test]
    fn when_all_places_are_taken_the_next_name_is_one_of_the_others() {
        let family: Family<String, Counter, 64> = Family::default();
        let names: Vec<String> = (0..65).map(|number| format!("role-{number}")).collect();
        names.iter().for_each(|name| family.admit(name.clone()).one());
        // Again: each finds its own place and takes no other.
        names.iter().for_each(|name| family.admit(name.clone()).one());
        assert_eq!(family.all().len(), 65);
        assert_eq!(family.at("role-64").value(), 2);
        assert!(names[..64].iter().all(|name| family.knows(name) && family.at(name).value() == 2));
    }

    #[test]
    fn threads_that_admit_the_same_names_find_the_same_places() {
        let family: Family<String, Counter, 64> = Family::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..60).for_each(|number| family.admit(format!("n{number}")).one()));
            }
        });
        assert!((0..60).all(|number| family.at(&format!("n{number}")).value() == 4));
    }
}
