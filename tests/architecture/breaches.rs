//! Shows that each rule can fail: code that breaks it, and code next to it that does not.

use super::{ALLOCATOR, Source, TOO_LONG_FILE, judge, wipes};

fn breaches_of(path: &str, code: &str) -> Vec<String> {
    breaches_among(&[(path, code)])
}

fn breaches_among(files: &[(&str, &str)]) -> Vec<String> {
    let source = |(path, code): &(&str, &str)| Source {
        path: (*path).to_owned(),
        text: format!("//! A fixture.\n{code}"),
    };
    judge(&files.iter().map(source).collect::<Vec<_>>()).breaches
}

#[track_caller]
fn assert_caught(rule: &str, path: &str, code: &str) {
    let breaches = breaches_of(path, code);
    let caught = breaches.iter().any(|breach| breach.contains(&format!(": {rule}: ")));
    assert!(caught, "{rule} was not caught in {path}: {code}\nfound: {breaches:?}");
}

#[track_caller]
fn assert_clean(path: &str, code: &str) {
    assert_eq!(breaches_of(path, code), Vec::<String>::new(), "in {path}: {code}");
}

#[test]
fn an_import_of_a_higher_layer_is_caught_however_it_is_written() {
    let lease = "src/lease/engine.rs";
    for code in [
        "use crate::broker::Broker;",
        "pub use crate::broker;",
        "pub(crate) use crate::broker::Broker as B;",
        "use crate::{clock::Clock, broker::{self, Broker}};",
        "use {crate::{clock::Clock}, crate::{types, broker}};",
        "use super::super::broker;",
        "use super::super::{clock, broker::*};",
        "use self::super::super::broker::Broker;",
        "use ravi_broker::broker;",
        "use ::ravi_broker::broker;",
        "fn f(b: &crate::broker::Broker) {}",
        "fn f() { g::<crate::broker::Broker>() }",
        "fn f() { <crate::broker::Broker as Clone>::clone(&b); }",
        "fn f() { select! { _ = crate::broker::run() => {} } }",
        "macro_rules! m { () => { $crate::broker::run() } }",
        "mod inner { use super::super::super::broker; }",
        "#[serde(with = \"crate::broker::wire\")] struct S;",
        "#[cfg(test)] mod tests { use crate::broker::Broker; }",
        "#[cfg(feature = \"sandbox\")] use crate::daemon;",
    ] {
        assert_caught("layer", lease, code);
    }
}

#[test]
fn a_sibling_is_imported_only_where_the_table_says_so() {
    assert_caught("layer", "src/limit.rs", "use super::lease::Lease;");
    assert_caught("layer", "src/policy/mod.rs", "use crate::session::Session;");
    assert_caught("layer", "src/peer.rs", "use crate::session::Session;");
    assert_caught("layer", "src/upstream/http.rs", "use crate::vault::Vault;");
    assert_caught("layer", "src/types/names.rs", "use crate::clock::Clock;");
    assert_clean("src/policy/mod.rs", "use crate::peer::Peer;");
    assert_clean("src/session/mod.rs", "mod token; use self::token::Presented; use crate::policy::Role;");
    assert_clean("src/vault/mod.rs", "use crate::upstream::{Upstream, UpstreamError};");
    assert_clean("src/limit.rs", "#[cfg(test)] mod tests { use super::*; use crate::policy::Role; }");
}

#[test]
fn the_wire_types_stay_with_the_server_and_the_client() {
    assert_caught("layer", "src/broker.rs", "use crate::pb;");
    assert_caught("layer", "src/daemon/mod.rs", "use crate::pb::Lease;");
    assert_caught("layer", "src/cli/get.rs", "use crate::pb::Lease;");
    assert_caught("layer", "src/bin/ravi-broker.rs", "use ravi_broker::pb;");
    assert_clean("src/grpc/lease.rs", "use crate::pb::lease_service_server::LeaseService;");
    assert_clean("src/client/mod.rs", "use crate::pb::Lease;");
}

#[test]
fn people_and_models_reach_the_daemon_through_the_client_alone() {
    for edge in ["src/cli/mod.rs", "src/mcp/mod.rs"] {
        for inside in ["broker", "vault", "upstream", "session", "grpc", "daemon"] {
            assert_caught("layer", edge, &format!("use crate::{inside}::X;"));
        }
        assert_clean(edge, "use crate::client::Client;");
    }
    assert_clean("src/cli/audit.rs", "use crate::audit::verify;");
    assert_caught("layer", "src/mcp/mod.rs", "use crate::audit::verify;");
    assert_caught("layer", "src/client/mod.rs", "use crate::audit::Event;");
}

#[test]
fn the_sandbox_stands_alone() {
    assert_caught("layer", "src/sandbox/mod.rs", "use crate::upstream::Identity;");
    assert_caught("layer", "src/sandbox/mod.rs", "use crate::types::Domain;");
    assert_caught("layer", "src/daemon/mod.rs", "use crate::sandbox;");
    assert_clean("src/sandbox/mod.rs", "use crate::{clock::Clock, secret::Secret};");
}

#[test]
fn a_program_imports_its_edge_alone() {
    assert_caught("layer", "src/bin/ravi-broker-mcp.rs", "use ravi_broker::vault::Vault;");
    assert_caught("layer", "src/bin/ravi-broker.rs", "fn main() { ravi_broker::daemon::run(); }");
    assert_clean("src/bin/ravi-broker.rs", "use ravi_broker::program; fn main() -> X { crate::inner() }");
}

#[test]
fn nothing_hides_what_it_imports() {
    assert_caught("root", "src/lease/mod.rs", "use crate::*;");
    assert_caught("root", "src/lease/mod.rs", "use crate as root;");
    assert_caught("root", "src/lease/mod.rs", "use crate::{self as root};");
    assert_caught("root", "src/limit.rs", "use super::*;");
    assert_caught("root", "src/limit.rs", "use super as root;");
    assert_caught("path", "src/lease/mod.rs", "#[path = \"../broker.rs\"] mod inner;");
    assert_caught("path", "src/lease/mod.rs", "include!(\"../broker.rs\");");
    assert_caught("path", "src/lease/mod.rs", "extern crate self as other;");
    assert_caught("layer", "src/lease/mod.rs", "use crate::unheard_of::X;");
    assert_caught("layer", "src/unheard_of.rs", "use crate::types::X;");
    assert_clean("src/limit.rs", "pub(crate) struct A(pub(super) u8); pub(in crate::limit) fn f() {}");
    assert_clean("src/limit.rs", "//! See [`crate::broker`].\n/// And [`crate::daemon`].\nfn f() {}");
}

#[test]
fn a_crate_that_belongs_to_one_place_stays_there() {
    assert_caught("crate", "src/cli/mod.rs", "use rmcp::ServiceExt;");
    assert_caught("crate", "src/broker.rs", "fn f() -> tonic::Status {}");
    assert_caught("crate", "src/client/mod.rs", "use ::hyper_rustls::HttpsConnector;");
    assert_clean("src/grpc/status.rs", "use tonic::Status;");
}

#[test]
fn unsafe_code_is_caught_outside_its_places() {
    assert_caught("unsafe", "src/vault/entry.rs", "fn f() { unsafe { g() } }");
    assert_caught("unsafe", "src/lease/mod.rs", "unsafe impl Send for X {}");
    assert_caught("unsafe", "src/lease/mod.rs", "m! { unsafe { g() } }");
    assert_caught("unsafe", "src/lease/mod.rs", "#![allow(unsafe_code)]");
    assert_caught("unsafe", "src/lease/mod.rs", "#[cfg(test)] mod tests { fn f() { unsafe { g() } } }");
    assert_clean("src/sys/process.rs", "#![allow(unsafe_code)] fn f() { unsafe { g() } }");
    assert_clean("src/vault/arena.rs", "fn f() { unsafe { g() } }");
    assert_clean("src/lease/mod.rs", "#![forbid(unsafe_code)] // unsafe\nconst A: &str = \"unsafe\";");
}

#[test]
fn unfinished_code_and_unwrap_are_caught_outside_tests() {
    let path = "src/lease/mod.rs";
    assert_caught("unwrap", path, "fn f() { g().unwrap(); }");
    assert_caught("unwrap", path, "fn f() { g().map(Option::unwrap); }");
    assert_caught("unwrap", path, "#[cfg(not(test))] fn f() { g().unwrap(); }");
    assert_caught("unwrap", path, "#[cfg(any(test, feature = \"sandbox\"))] fn f() { g().unwrap(); }");
    assert_caught("unwrap", path, "#[cfg(test)] fn f<A, B>() {} fn g() { h().unwrap(); }");
    assert_caught("unfinished", path, "fn f() { todo!() }");
    assert_caught("unfinished", path, "fn f() { std::todo!() }");
    assert_caught("unfinished", path, "fn f() { dbg!(1); }");
    assert_caught("unfinished", path, "fn f() { unimplemented!() }");
    assert_clean(path, "fn f() { g().unwrap_or_default(); }");
    assert_clean(path, "#[cfg(test)] mod tests { #[test] fn f() { g().unwrap(); } }");
    assert_clean(path, "#[cfg(all(test, unix))] fn f<A, B>() { g().unwrap(); }");
    assert_clean(path, "#[tokio::test] async fn f() { g().unwrap(); }");
}

#[test]
fn a_test_module_with_a_file_of_its_own_counts_as_a_test() {
    let tests = ("src/lease/tests.rs", "fn f() { g().unwrap(); }");
    assert_eq!(
        breaches_among(&[("src/lease/mod.rs", "#[cfg(test)] mod tests;"), tests]),
        Vec::<String>::new()
    );
    assert_eq!(breaches_among(&[("src/lease/mod.rs", "mod tests;"), tests]).len(), 1);
}

#[test]
fn a_type_that_holds_a_secret_neither_derives_nor_implements_what_copies_or_shows_it() {
    let path = "src/vault/entry.rs";
    for code in [
        "#[derive(Debug)] struct A { value: Secret }",
        "#[derive(Clone)] pub(crate) struct A(Option<Secret>);",
        "#[derive(Debug)] struct A { values: [Secret; 4] }",
        "#[derive(Default, serde::Serialize)] struct A<T> where T: X { inner: Vec<crate::secret::Secret> }",
        "#[derive(PartialEq)] enum A { None, Some { value: Secret } }",
        "#[cfg_attr(test, derive(Debug))] enum A { B(u8, Secret) }",
        "#[derive(Debug)] #[non_exhaustive] struct A { value: Zeroizing<String> }",
        "type Token = Arc<Secret>; #[derive(Clone)] struct A { token: Token }",
        "use crate::secret::Secret as S;",
        "struct A { value: Secret } impl Clone for A { }",
        "struct A<T>(Secret, T); impl<T: X<u8>> std::fmt::Display for A<T> { }",
    ] {
        assert_caught("I6", path, code);
    }
    assert_clean(path, "#[derive(Debug, Clone)] enum Kind { Secret, Password(SecretKey) }");
    assert_clean(
        path,
        "#[derive(Default)] struct A { value: Secret } #[derive(Debug)] struct B { length: usize }",
    );
    assert_clean(path, "struct A { value: Secret } impl std::fmt::Debug for A { } impl Drop for A { }");
}

#[test]
fn a_file_that_grows_too_long_is_caught_and_its_tests_do_not_count() {
    let lines = "fn f() {}\n".repeat(TOO_LONG_FILE);
    assert_caught("size", "src/lease/mod.rs", &lines);
    assert_clean("src/lease/mod.rs", &format!("fn g() {{}}\n#[cfg(test)]\nmod tests {{\n{lines}}}\n"));
}

#[test]
fn a_module_without_a_purpose_is_caught() {
    let source = Source { path: "src/limit.rs".to_owned(), text: "fn f() {}".to_owned() };
    assert!(judge(&[source]).breaches[0].contains(": doc: "));
}

#[test]
fn a_program_without_the_allocator_that_wipes_is_caught() {
    let setting = ALLOCATOR.trim_start_matches("; ");
    assert!(wipes(&format!("use x;\n\n{setting}\n")));
    for program in [
        "use x; fn main() {}".to_owned(),
        format!("use x; // {setting}"),
        format!("use x; #[cfg(test)] {setting}"),
        format!("use x; {}", setting.replace("#[global_allocator]", "")),
        format!("use x; {}", setting.replace("= WIPING", "= System")),
    ] {
        assert!(!wipes(&program), "{program}");
    }
}
