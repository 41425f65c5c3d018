//! What the `<style>` blocks of a mail hide: rules with one class, name or element for a selector, outside
//! `@media`. Bounded; rules beyond the bound are not read. Imports nothing of this crate.

use std::collections::HashMap;

use super::markup::Tag;
use super::style::{Style, without_comments};

/// Selectors that are kept.
const MOST: usize = 512;

/// Rules that decide whether something is seen.
#[derive(Default)]
pub(super) struct Sheet {
    rules: HashMap<String, Style>,
}

impl Sheet {
    /// Adds the rules of one block.
    pub(super) fn add(&mut self, block: &str) {
        let text = without_comments(block);
        let mut rest = text.as_str();
        while let Some(open) = rest.find('{') {
            let selectors = rest[..open].trim();
            let body = &rest[open + 1..];
            if selectors.starts_with('@') {
                rest = &body[nested_end(body)..];
                continue;
            }
            let end = body.find('}').unwrap_or(body.len());
            self.keep(selectors, &body[..end]);
            rest = body.get(end + 1..).unwrap_or_default();
        }
    }

    /// What the rules say of an element.
    pub(super) fn style(&self, tag: &Tag<'_>, name: &str) -> Style {
        if self.rules.is_empty() {
            return Style::default();
        }
        let rule = |selector: &str| self.rules.get(selector).copied().unwrap_or_default();
        let mut style = rule(name);
        for class in tag.class.unwrap_or_default().split_ascii_whitespace().take(16) {
            style = style.with(rule(&format!(".{class}"))).with(rule(&format!("{name}.{class}")));
        }
        tag.id.map_or(style, |id| style.with(rule(&format!("#{id}"))))
    }

    fn keep(&mut self, selectors: &str, body: &str) {
        let style = Style { color: None, background: None, ..Style::read(body) };
        if style.is_plain() {
            return;
        }
        for selector in selectors.split(',').map(str::trim) {
            let simple = selector.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '#' | '-' | '_'));
            if simple && self.rules.len() < MOST {
                let before = self.rules.get(selector).copied().unwrap_or_default();
                self.rules.insert(selector.to_owned(), before.with(style));
            }
        }
    }
}

/// Bytes up to and with the brace that closes what is already open.
fn nested_end(body: &str) -> usize {
    let mut depth = 1usize;
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    body.len()
}
