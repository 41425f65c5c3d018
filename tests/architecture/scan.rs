//! Walks the tokens of the files and applies the rules.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::tokens::{Attribute, group, item_end, parts, path_end, text, trees, word};
use super::{
    ALLOCATOR, BY_NAME_ALONE, CRATES, DENIED_DERIVES, DENIED_IMPLS, LONG_FILE, May, Report, SECRET_TYPES,
    Source, TOO_LONG_FILE, UNITS, UNSAFE_PLACES, Unit, edge,
};

/// Applies every rule to every file.
pub(crate) fn judge(sources: &[Source]) -> Report {
    let parsed: Vec<(&Source, Vec<TokenTree>)> = sources
        .iter()
        .map(|source| {
            let tokens = source.text.parse::<TokenStream>();
            (source, tokens.unwrap_or_else(|_| panic!("{} is not Rust", source.path)).into_iter().collect())
        })
        .collect();
    let mut known = Known::default();
    for (source, tokens) in &parsed {
        known.learn(tokens, &module_path(&source.path), false);
    }
    let mut report = Report::default();
    for (source, tokens) in &parsed {
        let mut scan = Scan::new(source, &known, &mut report);
        scan.tokens(tokens);
        scan.finish(&source.text);
    }
    report
}

/// True for a program that sets the allocator which wipes. Told by its tokens, so a comment does not do.
pub(crate) fn wipes(program: &str) -> bool {
    let tokens = |text: &str| text.parse::<TokenStream>().expect("it is Rust").to_string();
    tokens(program).contains(&tokens(ALLOCATOR))
}

/// `src/session/peer.rs` -> `session::peer`. A program is a root of its own: `bin/<name>`.
fn module_path(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    match path {
        "lib" => Vec::new(),
        _ if path.starts_with("bin/") => vec![path.to_owned()],
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

/// What one file has to know of the others.
#[derive(Default)]
struct Known {
    /// Other names of a secret type.
    aliases: BTreeSet<String>,
    /// Types with a secret in a field, each with the module at the top that it is in.
    holders: BTreeSet<(String, String)>,
    /// Modules that are compiled for tests alone and have a file of their own.
    test_modules: BTreeSet<Vec<String>>,
}

impl Known {
    fn learn(&mut self, tokens: &[TokenTree], module: &[String], test: bool) {
        let mut at = 0;
        while at < tokens.len() {
            if let Some(attribute) = Attribute::read(tokens, at) {
                at = attribute.end;
                if attribute.for_tests {
                    let end = item_end(tokens, at);
                    self.learn(&tokens[at..end], module, true);
                    at = end;
                }
                continue;
            }
            let name = text(tokens, at + 1);
            match text(tokens, at).as_str() {
                // An associated type is no name for a secret outside its `impl`.
                "impl" | "trait" => {
                    at = item_end(tokens, at);
                    continue;
                }
                "type" if mentions_secret(&tokens[at..item_end(tokens, at)], &self.aliases) => {
                    self.aliases.insert(name);
                }
                "struct" | "enum" | "union" if holds_secret(tokens, at, &self.aliases) => {
                    self.holders.insert((place(module), name));
                }
                "mod" if test && text(tokens, at + 2) == ";" => {
                    self.test_modules.insert(module.iter().cloned().chain([name]).collect());
                }
                _ => {}
            }
            if let TokenTree::Group(group) = &tokens[at] {
                self.learn(&trees(group), module, test);
            }
            at += 1;
        }
    }
}

/// Walks one file.
struct Scan<'a> {
    path: &'a str,
    known: &'a Known,
    report: &'a mut Report,
    module: Vec<String>,
    test: bool,
    /// Derived by the attributes just before the item that comes next.
    derives: Vec<String>,
    test_lines: usize,
}

impl<'a> Scan<'a> {
    fn new(source: &'a Source, known: &'a Known, report: &'a mut Report) -> Self {
        let module = module_path(&source.path);
        let test = (1..=module.len()).any(|depth| known.test_modules.contains(&module[..depth]));
        Self { path: &source.path, known, report, module, test, derives: Vec::new(), test_lines: 0 }
    }

    fn tokens(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while at < tokens.len() {
            at = match (Attribute::read(tokens, at), &tokens[at]) {
                (Some(attribute), _) => self.attribute(tokens, at, attribute),
                (None, TokenTree::Ident(_)) => self.word(tokens, at),
                (None, TokenTree::Group(group)) => {
                    self.tokens(&trees(group));
                    at + 1
                }
                (None, _) => at + 1,
            };
        }
    }

    fn attribute(&mut self, tokens: &[TokenTree], at: usize, attribute: Attribute) -> usize {
        match attribute.name.as_str() {
            "doc" | "deny" | "forbid" => return attribute.end,
            "path" => self.breach(&tokens[at], "path", "`#[path]` hides where a module is"),
            _ => {}
        }
        self.tokens(&attribute.content);
        self.paths_in_strings(&attribute.content);
        self.derives.extend(attribute.derives());
        if !attribute.for_tests || self.test {
            return attribute.end;
        }
        let end = if attribute.inner { tokens.len() } else { item_end(tokens, attribute.end) };
        self.test = true;
        self.tokens(&tokens[attribute.end..end]);
        self.test = false;
        self.test_lines += tokens[end - 1].span().end().line + 1 - tokens[at].span().start().line;
        end
    }

    /// `#[serde(with = "crate::…")]` imports as well.
    fn paths_in_strings(&mut self, tokens: &[TokenTree]) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.paths_in_strings(&trees(group)),
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    if let Ok(stream) = text.trim_matches('"').parse::<TokenStream>() {
                        self.tokens(&stream.into_iter().collect::<Vec<_>>());
                    }
                }
                _ => {}
            }
        }
    }

    /// Judges the word at `at`; returns where to go on.
    fn word(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let token = &tokens[at];
        let next = text(tokens, at + 1);
        self.judge_unfinished(tokens, at);
        match word(token).as_str() {
            "pub" if tokens.get(at + 1).is_some_and(is_visibility) => return at + 2,
            "mod" => return self.inline_module(tokens, at),
            "use" => return self.import(tokens, at + 1, Vec::new(), true),
            "struct" | "enum" | "union" => self.judge_derives(tokens, at),
            "impl" => self.judge_impl(tokens, at),
            "unsafe" | "unsafe_code" if !UNSAFE_PLACES.iter().any(|place| self.path.starts_with(place)) => {
                self.breach(token, "unsafe", "`unsafe` stands in `src/sys/` and `src/vault/arena.rs` alone");
            }
            "include" if next == "!" => self.breach(token, "path", "`include!` hides code from these rules"),
            "extern" if next == "crate" => {
                self.breach(token, "path", "`extern crate` can rename what it imports")
            }
            _ if next == ":" && text(tokens, at + 2) == ":" => {
                return self.import(tokens, at, Vec::new(), false);
            }
            "crate" => self.breach(token, "root", "import a module, not the root of the crate"),
            _ => {}
        }
        at + 1
    }

    fn inline_module(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let Some(body) = tokens.get(at + 2).and_then(|token| group(token, Delimiter::Brace)) else {
            return at + 1;
        };
        self.module.push(text(tokens, at + 1));
        self.tokens(&trees(body));
        self.module.pop();
        at + 3
    }

    /// Follows a path, or the tree of a `use`, to each of its ends.
    fn import(&mut self, tokens: &[TokenTree], at: usize, mut path: Vec<String>, tree: bool) -> usize {
        let Some(token) = tokens.get(at) else { return at };
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => self.import(tokens, at + 2, path, tree),
            TokenTree::Ident(_) => {
                if !path.is_empty() {
                    self.judge_unfinished(tokens, at);
                }
                path.push(word(token));
                if text(tokens, at + 1) == ":" && text(tokens, at + 2) == ":" {
                    return self.import(tokens, at + 3, path, tree);
                }
                if tree && text(tokens, at + 1) == "as" && SECRET_TYPES.contains(&word(token).as_str()) {
                    self.breach(token, "I6", "a secret type keeps its name, so that it can be searched for");
                }
                self.reach(token, &path);
                at + 1
            }
            TokenTree::Group(group)
                if group.delimiter() == Delimiter::Brace && (tree || !path.is_empty()) =>
            {
                for part in parts(&trees(group)) {
                    self.import(&part, 0, path.clone(), true);
                }
                at + 1
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => {
                path.push("*".to_owned());
                self.reach(token, &path);
                at + 1
            }
            _ => {
                self.reach(token, &path);
                at
            }
        }
    }

    /// Judges the import of `path`.
    fn reach(&mut self, token: &TokenTree, path: &[String]) {
        let Some(from) = unit_of(&self.module) else {
            return if !self.module.is_empty() {
                self.breach(token, "layer", "this module has no place in `UNITS`")
            };
        };
        let Some(target) = self.resolve(path) else { return self.reach_crate(token, from, path) };
        if target.first().is_none_or(|first| first == "*") {
            return self.breach(token, "root", "import a module, not the root of the crate");
        }
        let Some(to) = unit_of(&target) else {
            return self.breach(token, "layer", &format!("`{}` has no place in `UNITS`", target[0]));
        };
        if from.name == to.name {
            return;
        }
        self.report.edges.insert(edge(from.name, to.name));
        if !may_import(from, to, self.test) {
            let what = format!(
                "`{}` (layer {}) may not import `{}` (layer {})",
                from.name, from.layer, to.name, to.layer
            );
            self.breach(token, "layer", &what);
        }
    }

    fn reach_crate(&mut self, token: &TokenTree, from: &Unit, path: &[String]) {
        let Some((name, places)) =
            CRATES.iter().find(|(name, _)| path.first().is_some_and(|first| first == name))
        else {
            return;
        };
        if !self.test && !places.contains(&top(from.name)) {
            self.breach(token, "crate", &format!("`{name}` belongs to {places:?}, not to `{}`", from.name));
        }
    }

    /// The path from the root of the library; `None` if it leads to another crate.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let program = self.module.first().is_some_and(|first| first.starts_with("bin/"));
        let mut target = match path.first()?.as_str() {
            "ravi_broker" => Vec::new(),
            "crate" if program => self.module[..1].to_vec(),
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => parent(self.module.clone()),
            _ => return None,
        };
        for segment in &path[1..] {
            match segment.as_str() {
                "super" => target = parent(target),
                "self" => {}
                _ => target.push(segment.clone()),
            }
        }
        Some(target)
    }

    fn judge_derives(&mut self, tokens: &[TokenTree], at: usize) {
        let derives = std::mem::take(&mut self.derives);
        let denied: Vec<&String> =
            derives.iter().filter(|name| DENIED_DERIVES.contains(&name.as_str())).collect();
        if !denied.is_empty() && holds_secret(tokens, at, &self.known.aliases) {
            let what = format!("`{}` holds a secret and derives {denied:?}", text(tokens, at + 1));
            self.breach(&tokens[at], "I6", &what);
        }
    }

    fn judge_impl(&mut self, tokens: &[TokenTree], at: usize) {
        let header: Vec<String> =
            tokens[at..].iter().take_while(|t| group(t, Delimiter::Brace).is_none()).map(word).collect();
        let Some(middle) = header.iter().position(|word| word == "for") else { return };
        let (Some(what), Some(of)) = (path_end(&header[..middle]), path_end(&header[middle + 1..])) else {
            return;
        };
        if DENIED_IMPLS.contains(&what.as_str())
            && self.known.holders.contains(&(place(&self.module), of.clone()))
        {
            self.breach(&tokens[at], "I6", &format!("`{of}` holds a secret and implements `{what}`"));
        }
    }

    fn judge_unfinished(&mut self, tokens: &[TokenTree], at: usize) {
        let macro_call = text(tokens, at + 1) == "!";
        match text(tokens, at).as_str() {
            _ if self.test => {}
            "unwrap" => self.breach(&tokens[at], "unwrap", "no `unwrap` outside tests"),
            "todo" | "dbg" | "unimplemented" if macro_call => {
                self.breach(&tokens[at], "unfinished", "no unfinished code outside tests");
            }
            _ => {}
        }
    }

    fn finish(&mut self, text: &str) {
        if !text.starts_with("//!") {
            self.report.breaches.push(format!("{}:1: doc: begin with `//!`: what it is for", self.path));
        }
        let lines = if self.test { 0 } else { text.lines().count().saturating_sub(self.test_lines) };
        let size = format!("{}:1: size: {lines} lines without tests; split it", self.path);
        match lines {
            TOO_LONG_FILE.. => self.report.breaches.push(size),
            LONG_FILE.. => self.report.warnings.push(size),
            _ => {}
        }
    }

    fn breach(&mut self, token: &TokenTree, rule: &str, what: &str) {
        let line = token.span().start().line;
        self.report.breaches.push(format!("{}:{line}: {rule}: {what}", self.path));
    }
}

/// The most specific unit that `path` lies in.
fn unit_of(path: &[String]) -> Option<&'static Unit> {
    let inside = |unit: &&Unit| {
        let name: Vec<&str> = unit.name.split("::").collect();
        path.len() >= name.len() && path.iter().zip(name).all(|(a, b)| a == b)
    };
    UNITS.iter().filter(inside).max_by_key(|unit| unit.name.len())
}

/// In tests the siblings are free: a test may set the scene with its neighbours.
fn may_import(from: &Unit, to: &Unit, test: bool) -> bool {
    let named = |names: &[&str]| names.iter().any(|name| *name == to.name || *name == top(to.name));
    let own_part = top(to.name) == from.name;
    let below = to.layer < from.layer || test && to.layer == from.layer;
    own_part
        || match from.may {
            May::Below(names) => named(names) || below && to.name != BY_NAME_ALONE,
            May::Only(names) => named(names),
        }
}

fn top(name: &str) -> &str {
    name.split("::").next().unwrap_or(name)
}

/// The module at the top that `module` is in.
fn place(module: &[String]) -> String {
    module.first().cloned().unwrap_or_default()
}

fn parent(mut path: Vec<String>) -> Vec<String> {
    path.pop();
    path
}

/// `pub(crate)` names no dependency.
fn is_visibility(token: &TokenTree) -> bool {
    let Some(group) = group(token, Delimiter::Parenthesis) else { return false };
    let content = trees(group);
    matches!(text(&content, 0).as_str(), "crate" | "super" | "self") && content.len() == 1
        || text(&content, 0) == "in"
}

/// True if a field of the `struct`, `enum` or `union` at `at` is of a secret type.
fn holds_secret(tokens: &[TokenTree], at: usize, aliases: &BTreeSet<String>) -> bool {
    let body = &tokens[(at + 2).min(tokens.len())..item_end(tokens, at)];
    if text(tokens, at) != "enum" {
        return mentions_secret(body, aliases);
    }
    // The words at the top of an enum's body are the names of its variants, not types.
    let variants = body.iter().filter_map(|token| group(token, Delimiter::Brace)).flat_map(trees);
    variants
        .into_iter()
        .any(|token| matches!(token, TokenTree::Group(_)) && mentions_secret(&[token], aliases))
}

fn mentions_secret(tokens: &[TokenTree], aliases: &BTreeSet<String>) -> bool {
    let secret = |name: &str| SECRET_TYPES.contains(&name) || aliases.contains(name);
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Group(group) => {
            !(at > 0 && text(tokens, at - 1) == "#") && mentions_secret(&trees(group), aliases)
        }
        TokenTree::Ident(_) => secret(&word(token)),
        _ => false,
    })
}
