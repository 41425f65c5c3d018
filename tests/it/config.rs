//! The configuration as its users meet it: texts in, settings or a full list of mistakes out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use ravi_broker::config::{
    self, Bind, Config, ConfigError, Draft, Environment, Form, IdentityRef, MatchConfig, MemoryConfig,
    MemoryTier, Overrides, Problem, Provision, Rate, Source, UseBy, Variable,
};
use ravi_broker::types::Delivery;

const ROLE: &str = "
[role.agent]
identity = \"agent\"
match = { uid = 1000 }
scopes = []
";

fn environment() -> Environment {
    Environment::of(1000, [(Variable::XdgRuntimeDir, "/run/user/1000"), (Variable::Home, "/home/u")])
}

fn draft(text: &str) -> Draft {
    let source = Source::of("/etc/ravi-broker/config.toml", text);
    config::read(&source, &environment(), &Overrides::default()).expect("it is text")
}

fn accepted(text: &str) -> Config {
    draft(text).finish(Vec::new()).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(text: &str) -> Vec<Problem> {
    match draft(text).finish(Vec::new()) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("{other:?}"),
    }
}

/// The one problem of `text`.
fn problem(text: &str) -> (u32, String) {
    let mut all = problems(text);
    assert_eq!(all.len(), 1, "{all:?}");
    let Problem { line, message } = all.remove(0);
    (line, message)
}

fn in_role(setting: &str) -> String {
    format!("version = 1{ROLE}{setting}\n")
}

#[test]
fn the_example_is_accepted_and_shows_the_defaults() {
    let example = accepted(config::example());
    let bare = accepted("version = 1");
    assert_eq!(example.roles.len(), 1);
    assert_eq!(format!("{:?}", example.upstream), format!("{:?}", bare.upstream));
}

#[test]
fn every_key_that_the_example_comments_out_is_accepted_with_its_default() {
    let written: String = config::example()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.split(' ').nth(1) == Some("=") => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .filter(|line| !line.starts_with("group"))
        .collect();
    let source = Source::of("/etc/ravi-broker/config.toml", &written);
    let root = Environment::of(0, [(Variable::Home, "/root")]);
    let read = |source| config::read(source, &root, &Overrides::default()).unwrap();
    let (written, defaults) = (read(&source), read(&Source::of("/x", config::example())));
    let values = |draft: Draft| {
        let origins = draft.origins.clone();
        let config = draft.finish(Vec::new()).unwrap_or_else(|error| panic!("{error}"));
        let shown = config::show(&config, &origins).into_iter();
        let no_default = [
            "upstream.ca_file",
            "upstream.management_key_file",
            "listen.require",
            "memory.require",
            "metrics.listen",
            "telemetry.otlp.endpoint",
            "telemetry.otlp.ca_file",
        ];
        shown
            .filter(|shown| !no_default.contains(&shown.key.as_str()))
            .map(|shown| (shown.key, shown.value))
            .collect()
    };
    let (written, defaults): (Vec<_>, Vec<_>) = (values(written), values(defaults));
    assert_eq!(written, defaults);
}

#[test]
fn a_minimal_file_has_the_documented_defaults() {
    let config = accepted("version = 1");
    assert_eq!(config.upstream.base_url.origin(), "https://api.ravi.id");
    assert_eq!(config.upstream.budget, Rate { count: 300, per: Duration::from_secs(60) });
    assert_eq!(config.listen.agent_socket, Path::new("/run/user/1000/ravi-broker/broker.sock"));
    assert_eq!(config.listen.admin_socket, Path::new("/run/user/1000/ravi-broker/admin.sock"));
    assert_eq!(config.audit.file, Path::new("/home/u/.local/state/ravi-broker/audit.jsonl"));
    assert_eq!(config.audit.max_bytes, 8 << 20);
    assert_eq!(config.vault.fresh_for, Duration::from_secs(300));
    assert!(config.roles.is_empty());
}

#[test]
fn the_memory_tier_can_be_wanted_and_required() {
    let memory = |text: &str| {
        let MemoryConfig { tier, require } = accepted(&format!("version = 1\n{text}")).memory;
        (tier, require)
    };
    use MemoryTier::{Locked, Secret};
    assert_eq!(memory(""), (Locked, None));
    assert_eq!(memory("memory = \"secret\""), (Secret, None));
    assert_eq!(memory("memory = \"locked\""), (Locked, None));
    assert_eq!(memory("[memory]\ntier = \"secret\"\nrequire = \"locked\""), (Secret, Some(Locked)));
    assert_eq!(memory("memory.require = \"secret\""), (Secret, Some(Secret)), "what is required is wanted");
    let short = draft("version = 1\nmemory = \"secret\"");
    let shown = config::show(&short.config, &short.origins);
    let tier = shown.iter().find(|shown| shown.key == "memory.tier").unwrap();
    assert_eq!((tier.value.as_str(), tier.origin.as_str()), ("secret", "/etc/ravi-broker/config.toml:2"));
    assert!(accepted("version = 1\nmemory = \"secret\"").needs_restart(&accepted("version = 1")));
}

#[test]
fn a_role_is_read_as_it_is_written() {
    let text = r#"version = 1
[role.b]
identity = "6f1c2a34-0b7e-4c3d-9a55-0e8d3f0c1b2a"
match = [{ uid = "root", exe = "/usr/bin/claude" }, { gid = 7 }]
scopes = [
    "secret:read:A",
    "sms:await",
]
session = { ttl = "1h", max_live = 2 }
lease = { default_ttl = "30s", max_ttl = "2m", max_live = 3 }
rate = { read = "5/s", send = "1/d" }
[role.a]
identity = "Agent A"
match.uid = 1
scopes = []
"#;
    let config = accepted(text);
    let [b, a] = &config.roles[..] else { panic!() };
    assert_eq!((b.name.as_str(), b.line, a.name.as_str(), a.line), ("b", 2, "a", 12));
    assert!(matches!(b.identity, IdentityRef::Uuid(_)));
    assert_eq!(a.identity, IdentityRef::Name("Agent A".parse().unwrap()));
    let exe = Some(PathBuf::from("/usr/bin/claude"));
    let expected = [
        MatchConfig { uid: Some(0), exe, ..Default::default() },
        MatchConfig { gid: Some(7), ..Default::default() },
    ];
    assert_eq!(b.matchers, expected);
    let scopes: Vec<_> = b.scopes.iter().map(|scope| (scope.value.as_str(), scope.line)).collect();
    assert_eq!(scopes, [("secret:read:A", 6), ("sms:await", 7)]);
    let ttls = (
        b.bounds.session_ttl.as_secs(),
        b.bounds.lease_default_ttl.as_secs(),
        b.bounds.lease_max_ttl.as_secs(),
    );
    assert_eq!(ttls, (3600, 30, 120));
    assert_eq!((b.bounds.session_max_live, b.bounds.lease_max_live), (2, 3));
    assert_eq!(
        (b.bounds.read_rate.to_string(), b.bounds.send_rate.to_string()),
        ("5/s".into(), "1/d".into())
    );
}

#[test]
fn a_short_maximum_alone_shortens_the_default() {
    let config = accepted(&in_role("lease.max_ttl = \"1m\""));
    assert_eq!(config.roles[0].bounds.lease_default_ttl, Duration::from_secs(60));
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"version = 2
[upstream]
base_ulr = "https://api.ravi.id"
budget = "many"
[listen]
agent_socket = "broker.sock"
group = "no-such-group-here"
[limits]
connections = 0
grace = 5
[role.BAD]
identity = ""
match = {}
scopes = "secret:read:A"
[role.x]
lease = { default_ttl = "2h" }
[[dispatch]]
on = "email"
"#;
    let lines: Vec<u32> = problems(text).iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 3, 4, 6, 7, 9, 10, 11, 12, 13, 14, 15, 15, 15, 16, 17, 17]);
}

#[test]
fn a_problem_names_the_setting_and_what_would_be_right() {
    for (text, line, part) in [
        ("", 0, "version is missing"),
        ("version = \"1\"", 1, "version: expected a whole number, found a text"),
        ("version = 2", 1, "reads version = 1"),
        ("version = 1\n[upstrem]", 2, "unknown key `upstrem`; did you mean `upstream`?"),
        ("version = 1\n[upstream]\nbase_ulr = 1", 3, "in upstream; did you mean `base_url`?"),
        ("version = 1\n[[dispatches]]\non = 1", 2, "unknown key `dispatches`; did you mean `dispatch`?"),
        ("version = 1\nversion = 1", 2, "given twice"),
        ("version = 1\n[vault]\n[audit]\n[vault]", 4, "given twice"),
        ("version = 1\n[vault]\nfresh_for = \"5 min\"", 3, "vault.fresh_for: expected a duration"),
        ("version = 1\n[vault]\nfresh_for = \"9d\"", 3, "expected 1s to 1d"),
        ("version = 1\n[vault]\nmax_entries = -1", 3, "expected a whole number from 1 to"),
        ("version = 1\n[vault]\nmax_entries = 1.5", 3, "expected a whole number, found a number"),
        ("version = 1\nvault = 7", 2, "vault: expected a table, found a number"),
        ("version = 1\n[upstream]\nbase_url = \"http://api.ravi.id\"", 3, "write https"),
        ("version = 1\n[upstream]\nca_file = \"ca.pem\"", 3, "expected an absolute path"),
        ("version = 1\n[upstream]\nca_file = \"/a/../b\"", 3, "plain path"),
        ("version = 1\nmemory = \"secrets\"", 2, "memory: expected \"locked\" or \"secret\""),
        ("version = 1\nmemory = 1", 2, "memory: expected a table, found a number"),
        ("version = 1\n[memory]\ntier = true", 3, "memory.tier: expected a text"),
        ("version = 1\n[memory]\nrequired = \"locked\"", 3, "did you mean `require`"),
        (
            "version = 1\n[memory]\ntier = \"locked\"\nrequire = \"secret\"",
            4,
            "memory.require: expected at most memory.tier, which is locked",
        ),
        ("version = 1\n[audit]\nmax_bytes = 1", 3, "expected a whole number from 65536"),
        ("version = 1\n[listen]\nagent_socket = \"/a\"\nadmin_socket = \"/a\"", 4, "expected another path"),
        ("version = 1\n[role]\nx = 1", 3, "role.x: expected a table"),
    ] {
        let all = problems(text);
        assert_eq!(all[0].line, line, "{text}: {all:?}");
        assert!(all[0].message.contains(part), "{text}: {all:?}");
    }
}

#[test]
fn a_mistake_in_a_role_is_reported_on_its_line() {
    for (setting, part) in [
        ("colour = 1", "unknown key `colour` in role.agent; known here: session"),
        ("provision = 1", "expected true or false"),
        ("provision_phone = true", "expected provision = true beside it"),
        ("lease = { max_tll = \"1h\" }", "did you mean `max_ttl`?"),
        ("lease = { default_ttl = \"2h\" }", "at most lease.max_ttl, which is 1h"),
        ("lease = { max_ttl = \"8d\" }", "expected 1s to 7d"),
        ("rate = { read = \"0/min\" }", "expected a rate"),
        ("rate = { read = 60 }", "expected a text in quotes, found a number"),
        ("session = { max_live = 0 }", "expected a whole number from 1"),
    ] {
        let (line, message) = problem(&in_role(setting));
        assert_eq!(line, 6, "{setting}: {message}");
        assert!(message.contains(part), "{setting}: {message}");
    }
}

#[test]
fn a_role_must_say_whom_it_lets_in() {
    for (matchers, part) in [
        ("{}", "would let everybody in"),
        ("[]", "matches nobody"),
        ("[{ uid = 1 }, {}]", "would let everybody in"),
        ("{ exe = \"claude\" }", "expected an absolute path"),
        ("{ uid = \"no-such-user-here\" }", "no such user"),
        ("{ uid = 65534 }", "cannot name"),
        ("{ uid = 4294967295 }", "expected a whole number"),
        ("{ uid = true }", "the number or the name of a user"),
        ("{ exe_sha256 = \"abc\" }", "64 hexadecimal digits"),
        ("{ exe_sha256 = 7 }", "a text in quotes"),
        ("{ parent_exe = \"sh\" }", "expected an absolute path"),
        ("{ unit = \"agents\" }", "ends in .service or .scope"),
        ("{ unit = \"agents.slice\" }", "ends in .service or .scope"),
        ("{ unit = \"agents@.service\" }", "ends in .service or .scope"),
        ("{ unit = \"a b.service\" }", "ends in .service or .scope"),
        ("{ cgroup = \"/\" }", "every process is in the root group"),
        ("{ cgroup = \"agents\" }", "absolute path of a cgroup"),
        ("{ cgroup = \"/a/../b\" }", "absolute path of a cgroup"),
        ("{ cgroup = \"/a\\n\" }", "absolute path of a cgroup"),
        ("{ foreign = true }", "`foreign` alone selects nothing"),
        ("{ foreign = false }", "`foreign` alone selects nothing"),
        ("[{ uid = 1 }, { foreign = true }]", "`foreign` alone selects nothing"),
        ("{ uid = 1, foreign = 1 }", "expected true or false"),
        ("{ uid = 1, units = \"a.service\" }", "did you mean `unit`?"),
        ("\"claude\"", "expected a table"),
    ] {
        let text = in_role("").replace("{ uid = 1000 }", matchers);
        let all = problems(&text);
        assert_eq!(all[0].line, 4, "{matchers}: {all:?}");
        assert!(all.iter().any(|problem| problem.message.contains(part)), "{matchers}: {all:?}");
    }
    let (line, message) = problem(&in_role("").replace("match = { uid = 1000 }", ""));
    assert_eq!((line, message.as_str()), (2, "role.agent.match is missing"));
}

#[test]
fn every_fact_of_a_caller_is_read_in_its_one_form() {
    let hash = "0123456789abcdef".repeat(4);
    let entry = format!(
        "{{ unit = \"agents@1.service\", cgroup = \"/a.slice/b\", parent_exe = \"/bin/sh\", \
         exe_sha256 = \"{}\", foreign = true }}",
        hash.to_uppercase()
    );
    let config = accepted(&in_role("").replace("{ uid = 1000 }", &entry));
    let read = &config.roles[0].matchers[0];
    assert_eq!(read.unit.as_ref().unwrap().as_str(), "agents@1.service");
    assert_eq!(read.cgroup.as_ref().unwrap().as_str(), "/a.slice/b");
    assert_eq!(read.parent_exe.as_deref(), Some(Path::new("/bin/sh")));
    assert_eq!(read.exe_sha256.unwrap().to_string(), hash);
    assert!(read.foreign && !accepted(&in_role("")).roles[0].matchers[0].foreign);
}

#[test]
fn a_role_says_whether_its_identity_is_created() {
    let provision = |setting: &str| accepted(&in_role(setting)).roles.remove(0).provision;
    assert_eq!(provision(""), Provision::Nothing);
    assert_eq!(provision("provision = true"), Provision::Identity);
    assert_eq!(provision("provision = true\nprovision_phone = true"), Provision::WithPhone);
    let by_uuid =
        in_role("provision = true").replace("\"agent\"", "\"6f1c2a34-0b7e-4c3d-9a55-0e8d3f0c1b2a\"");
    assert!(problem(&by_uuid).1.contains("expected an identity by name"));
}

#[test]
fn a_role_says_who_uses_its_sessions_and_how_values_are_delivered() {
    let role = |setting: &str| accepted(&in_role(setting)).roles.remove(0);
    let usual = role("");
    assert_eq!((usual.bind, usual.use_by), (Bind::Subtree, UseBy::Cli));
    assert_eq!(usual.inject, Delivery::INJECTED);
    for (word, bind) in [("process", Bind::Process), ("subtree", Bind::Subtree), ("cgroup", Bind::Cgroup)] {
        assert_eq!(role(&format!("bind = \"{word}\"")).bind, bind);
    }
    assert_eq!(role("use_by = \"any\"").use_by, UseBy::Any);
    assert_eq!(role("inject = [\"env\", \"file\"]").inject, [Delivery::Environment, Delivery::File]);
    assert_eq!(role("inject = []").inject, []);
    for (setting, part) in [
        ("bind = \"tree\"", "expected one of \"process\", \"subtree\", \"cgroup\""),
        ("use_by = true", "expected a text in quotes"),
        ("inject = \"file\"", "expected an array"),
        ("inject = [\"shown\"]", "expected one of \"file\", \"fd\", \"stdin\", \"env\", \"helper\""),
        ("inject = [\"file\", \"file\"]", "each way once"),
    ] {
        let (line, message) = problem(&in_role(setting));
        assert_eq!(line, 6, "{setting}: {message}");
        assert!(message.contains(part), "{setting}: {message}");
    }
}

#[test]
fn too_many_of_anything_is_refused() {
    let scopes: String = (0..257).map(|at| format!("\"sms:{at}\",")).collect();
    assert!(
        problem(&in_role("").replace("scopes = []", &format!("scopes = [{scopes}]")))
            .1
            .contains("at most 256")
    );
    let long = format!("scopes = [\"{}\"]", "a".repeat(513));
    assert!(problem(&in_role("").replace("scopes = []", &long)).1.contains("1 to 512 bytes"));
    let roles: String = (0..1025).map(|at| ROLE.replace("agent]", &format!("agent-{at}]"))).collect();
    assert!(problem(&format!("version = 1{roles}")).1.contains("at most 1024 roles"));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_fall(pieces in proptest::collection::vec(0usize..24, 0..40)) {
        const PIECES: [&str; 24] = [
            "[", "]", "[[", "]]", "{", "}", ",", ".", "=", " = ", "\n", "\"", "'", "#", "\r", "\u{feff}",
            "version = 1\n", "role", "a", "match", "1", "-1e9", "\"x\"", "1979-05-27",
        ];
        let text: String = pieces.iter().map(|&at| PIECES[at]).collect();
        if let Ok(config) = draft(&text).finish(Vec::new()) {
            prop_assert!(config.roles.iter().all(|role| !role.matchers.is_empty()));
        }
    }
}

#[test]
fn a_hostile_file_costs_little() {
    for text in ["[", "a=1\n", "a.", "[a]\n", "{", "x = [", "\"", "a={b=", "[role.a.b]\n", "\n="] {
        let text = text.repeat((1 << 18) / text.len());
        let problems = problems(&text);
        assert!((1..=200).contains(&problems.len()));
    }
}

#[test]
fn a_truncated_file_is_never_accepted_with_less_than_it_says() {
    let text = in_role("lease = { max_ttl = \"2h\" }");
    let whole = format!("{:?}", accepted(&text));
    for cut in 0..text.trim_end().len() {
        if let Ok(config) = draft(&text[..cut]).finish(Vec::new()) {
            // What ends before the role, or between its keys, may read as a smaller file; a role never does.
            assert!(config.roles.iter().all(|role| !role.matchers.is_empty()), "cut at {cut}");
            assert_ne!(format!("{config:?}"), whole, "cut at {cut}");
        }
    }
}

#[test]
fn a_line_that_is_not_toml_does_not_hide_the_others() {
    let text = "version = 1\n[vault]\nfresh_for = = 5m\nmax_entries = 0\nabsent_for =\n[audit\nfile = 1";
    let lines: Vec<u32> = problems(text).iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7], "each once: what is left of a broken line is not judged");
}

#[test]
fn a_value_in_the_wrong_place_is_never_quoted() {
    let canary = "ravi_mgmt_c4n4ry";
    for text in [
        format!("version = 1\n[upstream]\nmanagement_key = \"{canary}\""),
        format!("version = 1\n[upstream]\nbase_url = \"{canary}\""),
        format!("version = 1\n[upstream]\nca_file = \"{canary}\""),
        format!("version = 1\n[upstream]\nbudget = \"{canary}\""),
        format!("version = 1\n{canary} = 1"),
        format!("version = 1\n{canary}"),
        format!("version = 1\n[{canary}]"),
        format!("version = \"{canary}\""),
        format!("version = 1\n[vault]\nfresh_for = {canary}"),
        format!("version = 1\n[listen]\ngroup = \"{canary}\""),
        in_role("").replace("\"agent\"", &format!("[\"{canary}\"]")),
        in_role("").replace("1000", &format!("\"{canary}\"")),
        format!("version = 1\n[role.{canary}.{canary}]"),
        format!("version = 1\n[role.\"{canary} \"]"),
    ] {
        let error = draft(&text).finish(Vec::new()).unwrap_err();
        let shown = format!("{error} {error:?}").replace("role.ravi_mgmt_c4n4ry", "");
        assert!(!shown.contains("c4n4ry"), "{text}\n{shown}");
    }
}

#[test]
fn problems_of_the_policy_join_the_same_report_in_order() {
    let draft = draft("version = 1\n[vault]\nmax_entries = 0\n[audit]\nfile = 1");
    let more =
        vec![Problem { line: 4, message: "scope".into() }, Problem { line: 0, message: "first".into() }];
    let error = draft.finish(more).unwrap_err();
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "/etc/ravi-broker/config.toml: 4 mistakes, nothing of it is in force");
    assert_eq!(lines[1], "  first");
    assert!(lines[2].starts_with("  line 3: vault.max_entries: "), "{text}");
    assert_eq!(lines[3], "  line 4: scope");
    assert!(lines[4].starts_with("  line 5: audit.file: "), "{text}");
    assert!(lines[5].starts_with("correct the file"), "{text}");
}

#[test]
fn a_problem_of_the_policy_alone_keeps_the_file_out_of_force() {
    let more = vec![Problem { line: 1, message: "scope".into() }];
    assert!(draft("version = 1").finish(more).is_err());
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let text = "version = 1\n[upstream]\nbase_url = \"https://file.example\"\n[audit]\nfile = \"/file\"";
    let source = Source::of("/c.toml", text);
    let env = Environment::of(0, [(Variable::RaviApiUrl, "https://env.example/")]);
    let flags = Overrides {
        base_url: Some("https://flag.example".into()),
        audit_file: Some("/flag".into()),
        ..Overrides::default()
    };
    let url = |env: &Environment, flags: &Overrides| {
        let draft = config::read(&source, env, flags).unwrap();
        let origins = draft.origins.clone();
        let shown = config::show(&draft.finish(Vec::new()).unwrap(), &origins);
        let pick = |key: &str| shown.iter().find(|shown| shown.key == key).cloned().unwrap();
        let (url, file) = (pick("upstream.base_url"), pick("audit.file"));
        (url.value, url.origin, file.value, file.origin)
    };
    let text = |a: &str, b: &str, c: &str, d: &str| (a.into(), b.into(), c.into(), d.into());
    let bare = Environment::of(0, [(Variable::Home, "/root")]);
    let none = Overrides::default();
    assert_eq!(
        url(&env, &flags),
        text("https://flag.example", "flag --base-url", "/flag", "flag --audit-file")
    );
    assert_eq!(
        url(&env, &none),
        text("https://env.example", "environment RAVI_API_URL", "/file", "/c.toml:5")
    );
    assert_eq!(url(&bare, &none), text("https://file.example", "/c.toml:3", "/file", "/c.toml:5"));
}

#[test]
fn a_bad_flag_or_variable_is_a_problem_and_not_passed_over() {
    let source = Source::of("/c.toml", "version = 1");
    let refused = |env: &Environment, flags: Overrides, name: &str| {
        let error = config::read(&source, env, &flags).unwrap().finish(Vec::new()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    };
    let bare = Environment::of(0, [(Variable::Home, "/root")]);
    let env = Environment::of(0, [(Variable::RaviApiUrl, "http://api.ravi.id")]);
    refused(&env, Overrides::default(), "RAVI_API_URL: http:// is for loopback addresses");
    refused(
        &bare,
        Overrides { base_url: Some("ravi".into()), ..Overrides::default() },
        "--base-url: expected",
    );
    let long = PathBuf::from(format!("/{}", "a".repeat(200)));
    refused(
        &bare,
        Overrides { agent_socket: Some(long), ..Overrides::default() },
        "--agent-socket: a socket's path",
    );
}

#[test]
fn every_setting_is_shown_with_its_line() {
    let draft = draft(
        "version = 1\n[role.a]\nidentity = \"a\"\nmatch = { uid = 5, exe = \"/x\" }\nscopes = [\"sms:await\"]\nlease.max_ttl = \"2m\"\n\
         inject = [\"file\"]\n[role.b]\nidentity = \"a\"\nmatch = { unit = \"a.service\", cgroup = \"/a\", foreign = true }\nscopes = []\nbind = \"process\"",
    );
    let origins = draft.origins.clone();
    let shown = config::show(&draft.finish(Vec::new()).unwrap(), &origins);
    let text: Vec<_> =
        shown.iter().map(|shown| format!("{} = {} ({})", shown.key, shown.value, shown.origin)).collect();
    for expected in [
        "upstream.base_url = https://api.ravi.id (default)",
        "listen.group = - (default)",
        "role.a.identity = a (/etc/ravi-broker/config.toml:3)",
        "role.a.match[0] = uid 5, exe /x (/etc/ravi-broker/config.toml:4)",
        "role.a.bind = subtree (default)",
        "role.a.use_by = cli (default)",
        "role.a.inject = file (/etc/ravi-broker/config.toml:7)",
        "role.b.match[0] = unit a.service, cgroup /a, foreign (/etc/ravi-broker/config.toml:10)",
        "role.b.bind = process (/etc/ravi-broker/config.toml:12)",
        "role.b.inject = file, fd, stdin, env, helper (default)",
        "role.a.scopes[0] = sms:await (/etc/ravi-broker/config.toml:5)",
        "role.a.lease.default_ttl = 2m (default)",
        "role.a.lease.max_ttl = 2m (/etc/ravi-broker/config.toml:6)",
    ] {
        assert!(text.iter().any(|line| line == expected), "{expected}\n{text:#?}");
    }
}

#[test]
fn without_a_runtime_directory_the_sockets_must_be_named() {
    let env = Environment::of(1000, [(Variable::Home, "/home/u")]);
    let read =
        |text| config::read(&Source::of("/c", text), &env, &Overrides::default()).unwrap().finish(Vec::new());
    let error = read("version = 1").unwrap_err().to_string();
    assert!(error.contains("no runtime directory") && !error.contains("/tmp"), "{error}");
    assert!(read("version = 1\n[listen]\nagent_socket = \"/a\"\nadmin_socket = \"/b\"").is_ok());
}

#[test]
fn what_is_not_text_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, b"version = 1\n# \xff\n").unwrap();
    let env = Environment::capture();
    let source = Source::find(Some(&path), &env).unwrap();
    let error = config::read(&source, &env, &Overrides::default()).unwrap_err().to_string();
    assert!(error.contains("line 2: not UTF-8"), "{error}");
}

const DISPATCH: &str = "version = 1
[[dispatch]]
identity = \"agent\"
on = \"email\"
to = \"http://127.0.0.1:3000/external/sessions/notes/messages\"
";

#[test]
fn a_dispatch_has_the_documented_defaults_and_shows_where_it_came_from() {
    let read = draft(DISPATCH);
    let rule = &read.config.dispatches[0];
    assert_eq!((rule.name.as_str(), rule.max_attempts), ("dispatch-1", 12));
    assert_eq!(rule.form, Form::Assistant { token_file: None });
    assert!(!rule.trusted && !rule.reveal && !rule.allow_remote && rule.from.is_empty());
    let shown = config::show(&read.config, &read.origins);
    let of = |key: &str| {
        let shown = shown.iter().find(|shown| shown.key == format!("dispatch.dispatch-1.{key}")).unwrap();
        (shown.value.as_str(), shown.origin.as_str())
    };
    assert_eq!(of("on"), ("email", "/etc/ravi-broker/config.toml:4"));
    assert_eq!(of("from"), ("anybody", "default"));
    assert_eq!(of("form"), ("assistant", "default"));
    assert_eq!(of("token_file"), ("-", "default"));
    let turn =
        DISPATCH.replace("external/sessions/notes/messages", "api/plugins/sessions/operations/message");
    let turn = accepted(&(turn + "session = \"notes\"\n"));
    assert!(matches!(&turn.dispatches[0].form, Form::AssistantTurn { session, .. } if session == "notes"));
    assert!(!accepted(DISPATCH).needs_restart(&accepted("version = 1")));
}

#[test]
fn every_mistake_of_a_dispatch_is_reported_with_its_line() {
    let with = |more: &str| problem(&format!("{DISPATCH}{more}\n"));
    for (more, message) in [
        ("on_email = true", "unknown key `on_email`"),
        ("name = \"Notes Mail\"", "small letters"),
        ("max_attempts = 0", "from 1 to 100"),
        ("secret_file = \"/etc/key\"", "is of no use to this form"),
        ("session = \"x\"", "is of no use to this form"),
        ("form = \"yaml\"", "expected one of"),
        ("trusted = \"yes\"", "expected true or false"),
    ] {
        let (line, said) = with(more);
        assert!(line == 6 && said.contains(message), "{more}: line {line}: {said}");
    }
    let at =
        |to: &str| problem(&DISPATCH.replace("http://127.0.0.1:3000/external/sessions/notes/messages", to));
    for (to, message) in [
        ("http://example.com/external/sessions/a/messages", "loopback"),
        ("https://192.0.2.1/external/sessions/a/messages", "allow_remote"),
        ("http://127.0.0.1:3000/hook", "form: is missing"),
        ("http://127.0.0.1:3000/api/plugins/sessions/operations/message", "session: is missing"),
        ("ftp://127.0.0.1/x", "expected https://"),
    ] {
        let (line, said) = at(to);
        assert!((line == 5 || line == 2) && said.contains(message), "{to}: line {line}: {said}");
    }
    let unsigned = DISPATCH.replace("external/sessions/notes/messages", "hook") + "form = \"json\"\n";
    assert!(problem(&unsigned).1.contains("secret_file: is missing"));
    let twice = format!("{DISPATCH}name = \"a\"\n{}name = \"a\"\n", &DISPATCH["version = 1\n".len()..]);
    assert_eq!(problem(&twice).0, 7);
    let many = format!("version = 1\n{}", DISPATCH["version = 1\n".len()..].repeat(65));
    assert!(problem(&many).1.contains("at most 64"));
}

#[test]
fn what_is_told_to_others_goes_to_this_machine_or_is_encrypted() {
    let read = |text: &str| problems(&format!("version = 1\n{text}"));
    for (text, expected) in [
        ("[metrics]\nlisten = \"0.0.0.0:9464\"", "expected a loopback address"),
        ("[metrics]\nlisten = \"[::]:9464\"", "expected a loopback address"),
        ("[metrics]\nlisten = \"192.168.1.2:9464\"", "expected a loopback address"),
        ("[metrics]\nlisten = \"localhost:9464\"", "expected an address and a port"),
        ("[metrics]\nlisten = 9464", "expected a text"),
        ("[metrics]\nport = 9464", "unknown key `port` in metrics"),
        ("[telemetry]\nfile = 9464", "unknown key `file` in telemetry"),
        ("[telemetry.otlp]\nendpoint = \"http://collector.example:4317\"", "http:// is for loopback"),
        ("[telemetry.otlp]\nendpoint = \"127.0.0.1:4317\"", "expected https://"),
        ("[telemetry.otlp]\nendpoint = \"http://127.0.0.1:4317/v1/metrics\"", "only scheme, host and port"),
        ("[telemetry.otlp]\ninterval = \"0s\"", "expected 1s to"),
        ("[telemetry.otlp]\ntraces = \"all\"", "expected one of \"off\", \"calls\""),
        ("[telemetry.otlp]\ntraces = \"calls\"", "expected an endpoint beside it"),
        ("[telemetry.otlp]\nheaders = \"x\"", "unknown key `headers` in telemetry.otlp"),
    ] {
        let problems = read(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert_eq!(problems[0].line, 3, "{text}");
        assert!(problems[0].message.contains(expected), "{text}: {problems:?}");
    }
    let good = accepted(
        "version = 1\n[metrics]\nlisten = \"[::1]:9464\"\n[telemetry.otlp]\nendpoint = \"https://otlp.example\"",
    );
    assert_eq!(good.metrics.listen, Some("[::1]:9464".parse().unwrap()));
    assert_eq!((good.otlp.port(), good.otlp.interval), (Some(443), Duration::from_secs(30)));
    assert!(good.needs_restart(&accepted("version = 1")));
}
