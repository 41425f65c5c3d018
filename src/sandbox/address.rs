//! The form of mail addresses and telephone numbers. Imports nothing.

const MAX_ADDRESS: usize = 254;

/// A bare address: no display name, no list, an ASCII domain of at least two labels.
pub(super) fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let in_local = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~.-".contains(&byte);
    text.len() <= MAX_ADDRESS
        && (1..=64).contains(&local.len())
        && local.bytes().all(in_local)
        && domain.contains('.')
        && domain.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// E.164: a plus sign, then 7 to 15 digits, the first of them not 0.
pub(super) fn is_e164(text: &str) -> bool {
    let Some(digits) = text.strip_prefix('+') else { return false };
    (7..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_bare_mailbox() {
        for good in ["a@b.example", "first.last+tag@mail.example.org"] {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@example.org", "a".repeat(65));
        for bad in ["", "a", "a@b", "@b.c", "a@.c", "A <a@b.c>", "a@b.c,d@e.f", "a@b.c\r\nBcc: d@e.f", &long]
        {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn a_number_is_international() {
        assert!(is_e164("+12025550111"));
        for bad in ["12025550111", "+02025550111", "+1 2025550111", "+", "+1234567890123456", "+1202555011a"]
        {
            assert!(!is_e164(bad), "{bad}");
        }
    }
}
