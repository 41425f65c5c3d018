//! `inject`: templates with references become files with values, or nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::{PROGRAM, on_terminal};
use crate::support::Stack;

const ROLE: &str = r#"
[role.files]
identity = "deploy-agent"
match = { uid = UID }
scopes = ["secret:use:STRIPE_*", "secret:use:ABSENT", "password:use:github.com"]
inject = ["file"]
"#;

const TEMPLATE: &str = "key = {{ ravi://secret/STRIPE_API_KEY }}\n\
                        user = {{ ravi://password/github.com#username }}:{{ravi://password/github.com}}\n\
                        again = {{ ravi://secret/STRIPE_API_KEY }}\n";
const FILLED: &str = "key = sandbox-stripe-deploy-58f0d1\n\
                      user = deploy-agent:sandbox-github-deploy-6f98\n\
                      again = sandbox-stripe-deploy-58f0d1\n";

async fn stack() -> Stack {
    Stack::with(|setup| setup.roles.push_str(ROLE)).await
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// What lies in the directory of the test that the program could have left.
fn left_over(stack: &Stack) -> usize {
    let names = fs::read_dir(stack.setup.directory()).unwrap().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with(".ravi-broker-")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_filled_with_one_lease_for_each_credential() {
    let stack = stack().await;
    assert_eq!(stack.run_with("inject --role files", TEMPLATE).good(), FILLED);
    assert_eq!(stack.audited("lease.acquired").len(), 2);
    let [source, made] = ["in", "out"].map(|name| stack.setup.directory().join(name));
    fs::write(&source, TEMPLATE).unwrap();
    let line = format!("inject --role files -i {} -o {}", source.display(), made.display());
    assert_eq!(stack.run(&line).good(), "");
    assert_eq!((fs::read_to_string(&made).unwrap().as_str(), mode(&made)), (FILLED, 0o600));
    assert_eq!(left_over(&stack), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_replaced_at_once_and_a_link_is_not_followed() {
    let stack = stack().await;
    let home = stack.setup.directory();
    let [open, victim, link, directory] = ["open", "victim", "link", "directory"].map(|name| home.join(name));
    fs::write(&open, "before").unwrap();
    fs::set_permissions(&open, PermissionsExt::from_mode(0o666)).unwrap();
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, &link).unwrap();
    fs::create_dir(&directory).unwrap();
    let inject =
        |path: &Path| stack.run_with(&format!("inject --role files -o {}", path.display()), TEMPLATE);
    let reader = fs::File::open(&open).unwrap();
    inject(&open).good();
    assert_eq!((fs::read_to_string(&open).unwrap().as_str(), mode(&open)), (FILLED, 0o600));
    assert_eq!(std::io::read_to_string(reader).unwrap(), "before", "who had it open sees the old one");
    inject(&link).good();
    assert!(fs::symlink_metadata(&link).unwrap().is_file() && mode(&link) == 0o600);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    inject(&directory).failed(1);
    inject(&home.join("absent/file")).failed(1);
    assert_eq!(left_over(&stack), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn if_one_value_is_not_to_be_had_nothing_is_written() {
    let stack = stack().await;
    let made = stack.setup.directory().join("out");
    fs::write(&made, "before").unwrap();
    for (more, code) in [
        ("{{ ravi://secret/ABSENT }}", 4),
        ("{{ ravi://secret/REGISTRY_TOKEN }}", 4),
        ("{{ ravi://secret/STRIPE_API_KEY#username }}", 2),
        ("{{ secret/STRIPE_API_KEY }}", 2),
        ("{{ HOME }}", 2),
        ("{{ ravi://secret/STRIPE_API_KEY", 2),
    ] {
        let template = format!("{TEMPLATE}{more}\n");
        for line in [format!("inject --role files -o {}", made.display()), "inject --role files".into()] {
            let (what, hint) = stack.run_with(&line, &template).failed(code);
            assert!(code == 4 || what.starts_with("line 4: "), "{what}");
            assert!(!what.contains("HOME") && !hint.contains("HOME"), "{what}");
        }
    }
    assert_eq!(fs::read_to_string(&made).unwrap(), "before");
    assert_eq!(left_over(&stack), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_has_a_longest_length() {
    let stack = stack().await;
    let line = "inject --role files";
    let full = "x".repeat(1024 * 1024);
    assert_eq!(stack.run_with(line, &full).good(), full);
    let (what, _) = stack.run_with(line, &format!("{full}x")).failed(2);
    assert!(what.contains("longer"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_no_result_unless_that_is_forced() {
    let stack = stack().await;
    let template = stack.setup.directory().join("in");
    fs::write(&template, TEMPLATE).unwrap();
    let inject = |more: &[&str]| {
        let mut command = stack.surrounded(PROGRAM);
        command.args(["inject", "--role", "files", "-i"]).arg(&template).args(more);
        on_terminal(command, "", "")
    };
    let (shown, code) = inject(&[]);
    assert!(code == Some(2) && shown.contains("--force") && !shown.contains("sandbox-"), "{shown}");
    assert!(stack.audited("session.opened").is_empty());
    let (shown, code) = inject(&["--force"]);
    assert!(code == Some(0) && shown.contains("sandbox-stripe"), "{shown}");
}
