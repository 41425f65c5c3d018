//! Finds the id of a request that is too long to be kept, while it is thrown away: hosts write the id first
//! or last, and wait for an answer to it. Pure; keeps a few bytes whatever goes by. Imports nothing of this crate.

use serde_json::Value;

/// Longest id that is answered to, quotes included.
const MAX_ID_BYTES: usize = 256;

/// Where in the text it is, and what of the outermost object it keeps.
#[derive(Default)]
pub(super) struct Skim {
    /// How many objects and arrays are open.
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The name or the plain value of the outermost object that is being read; cut a byte above the limit.
    token: Vec<u8>,
    /// What follows belongs to the name `id`.
    is_id: bool,
    id: Option<Vec<u8>>,
}

impl Skim {
    /// Looks at the next bytes.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.step(byte));
    }

    /// The id, as far as there was one that a request may have.
    pub(super) fn id(self) -> Value {
        let id = self.id.and_then(|id| serde_json::from_slice::<Value>(&id).ok());
        id.filter(|id| id.is_string() || id.is_i64()).unwrap_or(Value::Null)
    }

    fn step(&mut self, byte: u8) {
        if self.in_text {
            self.keep(byte);
            self.in_text = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return;
        }
        match byte {
            b'"' => {
                self.in_text = true;
                self.keep(byte);
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.end_member();
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => self.end_member(),
            b':' if self.depth == 1 => {
                self.is_id = self.token == b"\"id\"";
                self.token.clear();
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            other => self.keep(other),
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.depth == 1 && self.token.len() <= MAX_ID_BYTES {
            self.token.push(byte);
        }
    }

    fn end_member(&mut self) {
        if self.depth != 1 {
            return;
        }
        let token = std::mem::take(&mut self.token);
        if std::mem::take(&mut self.is_id) && token.len() <= MAX_ID_BYTES {
            self.id = Some(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(text: &str) -> Value {
        let mut skim = Skim::default();
        // In pieces, as it comes.
        text.as_bytes().chunks(3).for_each(|piece| skim.read(piece));
        skim.id()
    }

    #[test]
    fn an_id_is_found_wherever_the_host_writes_it() {
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"a":"#), json!(5));
        assert_eq!(
            id(r#"{"method":"m","params":{"id":1,"a":["id",{"id":2}]},"id": "x\"}y" }"#),
            json!("x\"}y")
        );
        assert_eq!(id(r#"{"params":"\\","id":-7}"#), json!(-7));
    }

    #[test]
    fn what_is_no_id_of_a_request_is_none() {
        for text in [
            r#"{"a":"\"id\":5"}"#,
            r#"{"params":{"id":5}}"#,
            r#"{"id":{"id":5}}"#,
            r#"{"id":1.5}"#,
            r#"{"id":null}"#,
            r#"[{"id":5}]"#,
            r#"{"id":5"#,
            "}}}}]]]",
            "",
        ] {
            assert_eq!(id(text), Value::Null, "{text}");
        }
        assert_eq!(id(&format!(r#"{{"id":"{}"}}"#, "x".repeat(10_000))), Value::Null);
    }
}
