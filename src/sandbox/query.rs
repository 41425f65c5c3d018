//! Query strings and form bodies, and the typed reading of their values. Imports `reply`.

use percent_encoding::percent_decode_str;

use super::reply::Refusal;

const MAX_PAIRS: usize = 64;

/// Decoded `name=value` pairs. Of a name given twice the last counts, as in Django.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(MAX_PAIRS);
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(decode).collect())
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Absent and empty are the same.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.value(name).filter(|value| !value.is_empty())
    }

    /// What is not a truth value does not filter.
    pub(super) fn truth(&self, name: &str) -> Option<bool> {
        match self.value(name)? {
            "true" | "True" | "1" => Some(true),
            "false" | "False" | "0" => Some(false),
            _ => None,
        }
    }

    pub(super) fn whole(&self, name: &str) -> Result<Option<usize>, Refusal> {
        let parsed = self.given(name).map(str::parse).transpose();
        parsed.map_err(|_| Refusal::field(name, "A valid integer is required."))
    }

    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }
}

fn decode((name, value): (&str, &str)) -> (String, String) {
    let plain = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    (plain(name), plain(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_two_values_counts_and_encoding_is_undone() {
        let params = Params::parse("key=A&key=B%2FC&from=a+b&flag");
        assert_eq!(params.value("key"), Some("B/C"));
        assert_eq!(params.value("from"), Some("a b"));
        assert_eq!(params.value("flag"), Some(""));
        assert_eq!(params.given("flag"), None);
    }
}
