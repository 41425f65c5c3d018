//! Which known word a misspelt one was meant to be.

/// The known word nearest to `word`, if it is near enough to be meant.
pub(super) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let allowed = (word.len() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements of bytes between two words. Long words are far from all.
fn distance(left: &str, right: &str) -> usize {
    const LONGEST: usize = 64;
    if left.len() > LONGEST || right.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, l) in left.bytes().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (at, r) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let known = ["default_ttl", "max_ttl", "max_live"];
        assert_eq!(closest("max_tll", &known), Some("max_ttl"));
        assert_eq!(closest("maxttl", &known), Some("max_ttl"));
        assert_eq!(closest("default-ttl", &known), Some("default_ttl"));
        assert_eq!(closest("colour", &known), None);
        assert_eq!(closest(&"x".repeat(1 << 20), &known), None);
    }
}
