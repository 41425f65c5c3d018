//! `GET /api/passwords/generate-password/` (docs/ravi-api.md §3.7): default length 16, 8 to 128 (§8 no. 20).

use crate::secret::Secret;

use super::query::Params;
use super::random;
use super::reply::Refusal;

const DEFAULT_LENGTH: usize = 16;
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=128;

const CLASSES: [(&str, &str); 4] = [
    ("uppercase", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    ("lowercase", "abcdefghijklmnopqrstuvwxyz"),
    ("digits", "0123456789"),
    ("special", "!@#$%^&*()-_=+[]{};:,.?"),
];

/// With the options of the query.
pub(super) fn from_options(params: &Params) -> Result<Secret, Refusal> {
    let length = params.whole("length")?.unwrap_or(DEFAULT_LENGTH);
    if !LENGTHS.contains(&length) {
        return Err(Refusal::field("length", "Ensure this value is between 8 and 128."));
    }
    let excluded = params.value("exclude_chars").unwrap_or("");
    let enabled = CLASSES.iter().filter(|(name, _)| params.truth(name) != Some(false));
    let classes: Vec<Vec<char>> = enabled
        .map(|(_, letters)| letters.chars().filter(|letter| !excluded.contains(*letter)).collect())
        .filter(|letters: &Vec<char>| !letters.is_empty())
        .collect();
    if classes.is_empty() {
        return Err(Refusal::bad_request("At least one character type must be enabled."));
    }
    draw(length, &classes)
}

/// Of the default form.
pub(super) fn default_password() -> Result<Secret, Refusal> {
    from_options(&Params::parse(""))
}

/// At least one character of each class, in random order.
fn draw(length: usize, classes: &[Vec<char>]) -> Result<Secret, Refusal> {
    let all: Vec<char> = classes.concat();
    let mut letters = Vec::with_capacity(length);
    for index in 0..length {
        let pool = classes.get(index).unwrap_or(&all);
        letters.push(pool[random::below(pool.len())?]);
    }
    for index in (1..letters.len()).rev() {
        letters.swap(index, random::below(index + 1)?);
    }
    Ok(Secret::new(letters.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(query: &str) -> Option<String> {
        from_options(&Params::parse(query)).ok().map(|password| password.expose().to_owned())
    }

    #[test]
    fn every_enabled_class_occurs_and_no_other() {
        let password = generated("length=8&special=false&exclude_chars=ABC0").unwrap();
        assert_eq!(password.len(), 8);
        assert!(password.chars().any(|c| c.is_ascii_uppercase()));
        assert!(password.chars().any(|c| c.is_ascii_lowercase()));
        assert!(password.chars().any(|c| c.is_ascii_digit()));
        assert!(password.chars().all(|c| c.is_ascii_alphanumeric() && !"ABC0".contains(c)));
    }

    #[test]
    fn length_has_a_default_and_bounds() {
        assert_eq!(generated("").unwrap().len(), 16);
        assert_eq!(generated("length=128").unwrap().len(), 128);
        for query in ["length=7", "length=129", "length=x", "length=-9"] {
            assert!(generated(query).is_none(), "{query}");
        }
    }

    #[test]
    fn without_any_class_there_is_no_password() {
        assert!(generated("uppercase=false&lowercase=false&digits=false&special=false").is_none());
    }
}
