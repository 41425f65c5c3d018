//! Leaves long texts out of JSON while it comes in, so that one large mail takes no more room than a small one. Pure.
//!
//! Invariant: what comes out is valid JSON if what went in was, but where a name of a field was too long. A text
//! above the bound becomes `false`, which stands for no text in any documented answer.

/// What stands in the place of a text that was left out.
const LEFT_OUT: &[u8] = b"false";

/// Fed with an answer piece by piece.
pub(super) struct Elider {
    most: usize,
    at: At,
}

#[derive(Clone, Copy)]
enum At {
    Outside,
    /// In a text that begins there in the output, its quotation mark included.
    Inside {
        start: usize,
        escaped: bool,
    },
    /// In a text that is left out.
    Dropping {
        escaped: bool,
    },
}

impl Elider {
    /// Texts of at most so many bytes pass, escapes counted as they are written.
    pub(super) fn new(most: usize) -> Self {
        Self { most, at: At::Outside }
    }

    /// Appends to `out` what is kept of the next piece.
    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for byte in piece {
            self.at = self.step(*byte, out);
        }
    }

    fn step(&self, byte: u8, out: &mut Vec<u8>) -> At {
        match self.at {
            At::Outside => {
                out.push(byte);
                let start = out.len() - 1;
                if byte == b'"' { At::Inside { start, escaped: false } } else { At::Outside }
            }
            At::Inside { escaped, .. } | At::Dropping { escaped } if byte == b'"' && !escaped => {
                if let At::Inside { .. } = self.at {
                    out.push(byte);
                }
                At::Outside
            }
            At::Inside { start, escaped } => {
                let escaped = byte == b'\\' && !escaped;
                // One more for the quotation mark.
                if out.len() - start <= self.most {
                    out.push(byte);
                    return At::Inside { start, escaped };
                }
                out.truncate(start);
                out.extend_from_slice(LEFT_OUT);
                At::Dropping { escaped }
            }
            At::Dropping { escaped } => At::Dropping { escaped: byte == b'\\' && !escaped },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn elided(text: &str, most: usize, piece: usize) -> String {
        let (mut elider, mut out) = (Elider::new(most), Vec::new());
        text.as_bytes().chunks(piece).for_each(|piece| elider.push(piece, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_long_text_becomes_false_and_the_rest_stays() {
        let row = r#"[{"id":1,"a":"1234","b":"12345","c":"","d":[true,"12\\\"7"],"e":"\"\"","f":"x\\"}]"#;
        let kept = r#"[{"id":1,"a":"1234","b":false,"c":"","d":[true,false],"e":"\"\"","f":"x\\"}]"#;
        for piece in 1..20 {
            assert_eq!(elided(row, 4, piece), kept);
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            Just(json!("\\\"")),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn without_long(value: Value, most: usize) -> Value {
        match value {
            Value::String(text) if serde_json::to_string(&text).unwrap().len() - 2 > most => {
                Value::Bool(false)
            }
            Value::Array(items) => items.into_iter().map(|item| without_long(item, most)).collect(),
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(k, v)| (k, without_long(v, most))).collect())
            }
            other => other,
        }
    }

    proptest! {
        #[test]
        fn whatever_the_pieces_only_long_texts_are_replaced(value in values(), piece in 1_usize..9) {
            let out = elided(&value.to_string(), 6, piece);
            prop_assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), without_long(value, 6));
        }
    }
}
