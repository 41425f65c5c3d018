//! Sessions below sessions: a child has at most what its parent has, and nothing of it outlives that.

use std::time::Duration;

use futures_util::StreamExt;
use nix::unistd::getppid;
use ravi_broker::client::{
    AgentClient, Binding, BrokerError, ClientError, DelegateSession, ErrorReason, OpenSession, RevokeTarget,
    Session, SessionFile,
};
use ravi_broker::secret::Secret;
use ravi_broker::types::SessionId;

use super::{reason, refusal};
use crate::support::{Shell, Stack, bounded, until};

const KEY: &str = "secret/OPENAI_API_KEY";
const OTHER_KEY: &str = "secret/OPENAI_ORG_ID";
const HOUR: Duration = Duration::from_secs(3600);
/// Exit code of the command line.
const DENIED: i32 = 4;

fn scopes(scopes: &[&str]) -> DelegateSession {
    DelegateSession { scopes: scopes.iter().map(ToString::to_string).collect(), ..DelegateSession::default() }
}

/// A child, and a client that uses it.
async fn child(stack: &Stack, parent: &AgentClient, how: DelegateSession) -> (Session, AgentClient) {
    let (session, token) = parent.delegate_session(how).await.expect("it may delegate");
    (session, stack.holder(&token).await)
}

async fn refused(parent: &AgentClient, how: DelegateSession) -> BrokerError {
    refusal(parent.delegate_session(how).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_has_the_scopes_it_was_given_and_no_others() {
    let stack = Stack::start().await;
    let (root, parent) = stack.opened(OpenSession::role("notes")).await;
    let given = ["secret:read:OPENAI_API_KEY", "identity:read"];
    let how = DelegateSession { reason: "a subagent".into(), ..scopes(&given) };
    let (session, agent) = child(&stack, &parent, how).await;
    assert_eq!((session.parent_session_id, session.binding), (Some(root.session_id), Binding::Subtree));
    assert_eq!((root.parent_session_id, session.scopes.as_slice()), (None, &given.map(String::from)[..]));
    assert_eq!(agent.describe_session().await.unwrap().session.scopes, given);
    agent.acquire(KEY, None, "").await.unwrap();
    agent.identity().await.unwrap();
    let calls = stack.control().total_requests();
    for resource in [OTHER_KEY, "password/github.com/notes-agent"] {
        let refused = agent.acquire(resource, None, "").await;
        assert_eq!(reason(refused), ErrorReason::ResourceNotAvailable, "{resource}");
    }
    assert_eq!(reason(agent.list_secrets().await), ErrorReason::ResourceNotAvailable);
    assert_eq!(stack.control().total_requests(), calls);
    parent.acquire(OTHER_KEY, None, "").await.unwrap();
    let record = &stack.audited("session.delegated")[0];
    assert_eq!(record["session"], session.session_id.to_string());
    assert_eq!(record["target"], root.session_id.to_string());
    assert_eq!(record["reason"], "a subagent");
}

/// Neither of the role, nor of its parent, nor of its parent's parent.
#[tokio::test(flavor = "multi_thread")]
async fn no_way_leads_to_more_scopes_than_the_parent_has() {
    let stack = Stack::start().await;
    let parent = stack.agent("notes").await;
    for wider in ["secret:read", "secret:read:*", "secret:use:OPENAI_API_KEY", "secret:write", "sso:mint"] {
        let asked = scopes(&["secret:read:OPENAI_API_KEY", wider]);
        assert_eq!(refused(&parent, asked).await.reason, ErrorReason::ScopeNotGranted, "{wider}");
    }
    for malformed in ["", "secret", "secret:mint", "secret:read:A\0"] {
        let refused = refused(&parent, scopes(&[malformed])).await;
        assert_eq!(refused.reason, ErrorReason::ArgumentInvalid, "{malformed:?}");
    }
    let many = DelegateSession { scopes: vec!["identity:read".into(); 257], ..DelegateSession::default() };
    assert_eq!(refused(&parent, many).await.reason, ErrorReason::ArgumentInvalid);
    let (_, narrow) = child(&stack, &parent, scopes(&["secret:read:OPENAI_API_KEY"])).await;
    for of_the_role in ["secret:read:OPENAI_*", "secret:read:OPENAI_ORG_ID", "identity:read"] {
        let refused = refused(&narrow, scopes(&[of_the_role])).await;
        assert_eq!(refused.reason, ErrorReason::ScopeNotGranted, "{of_the_role}");
    }
    // None named is all of its parent's, and not of the role.
    let (session, agent) = child(&stack, &narrow, DelegateSession::default()).await;
    assert_eq!(session.scopes, ["secret:read:OPENAI_API_KEY"]);
    assert_eq!(reason(agent.acquire(OTHER_KEY, None, "").await), ErrorReason::ResourceNotAvailable);
    // The same for a session that was opened with fewer.
    let fewer = vec!["secret:read:OPENAI_ORG_ID".to_owned()];
    let (_, narrowed) = stack.opened(OpenSession { scopes: fewer, ..OpenSession::role("notes") }).await;
    assert_eq!(
        refused(&narrowed, scopes(&["secret:read:OPENAI_API_KEY"])).await.reason,
        ErrorReason::ScopeNotGranted
    );
    let (_, agent) = child(&stack, &narrowed, DelegateSession::default()).await;
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::ResourceNotAvailable);
    let refusals = stack.audited("request.denied");
    assert!(refusals.iter().any(|record| record["cause"] == "scope_not_granted"), "{refusals:?}");
    assert_eq!(stack.admin().await.status().await.unwrap().sessions, 5);
}

/// What a reload takes from the role is gone from everything below it.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_held_to_the_role_as_it_is_now() {
    let stack = Stack::start().await;
    let parent = stack.agent("notes").await;
    let (_, agent) = child(&stack, &parent, scopes(&["secret:read:OPENAI_*"])).await;
    agent.acquire(KEY, None, "").await.unwrap();
    stack.rewrite(|text| text.replacen("\"secret:read:OPENAI_*\"", "\"secret:read:OPENAI_ORG_*\"", 1));
    stack.admin().await.reload().await.unwrap();
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::ResourceNotAvailable);
    agent.acquire(OTHER_KEY, None, "").await.unwrap();
    assert_eq!(
        refused(&agent, scopes(&["secret:read:OPENAI_API_KEY"])).await.reason,
        ErrorReason::ScopeNotGranted
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_lives_no_longer_than_its_parent() {
    let stack = Stack::start().await;
    let parent = stack.agent_for("notes", Some(HOUR)).await;
    let life = async |ttl| {
        let how = DelegateSession { ttl, ..DelegateSession::default() };
        child(&stack, &parent, how).await.0.expires_in
    };
    let near = |life: Duration, wanted: Duration| life <= wanted && life + Duration::from_secs(60) > wanted;
    for (asked, given) in [(None, HOUR), (Some(24 * HOUR), HOUR), (Some(HOUR / 2), HOUR / 2)] {
        let life = life(asked).await;
        assert!(near(life, given), "{asked:?}: {life:?}");
    }
    let zero = DelegateSession { ttl: Some(Duration::ZERO), ..DelegateSession::default() };
    assert_eq!(refused(&parent, zero).await.reason, ErrorReason::ArgumentInvalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_end_at_the_eighth() {
    let stack = Stack::start().await;
    let (mut session, mut agent) = stack.opened(OpenSession::role("notes")).await;
    for _ in 0..8 {
        let (below, client) = child(&stack, &agent, DelegateSession::default()).await;
        assert_eq!(below.parent_session_id, Some(session.session_id));
        (session, agent) = (below, client);
    }
    agent.acquire(KEY, None, "").await.unwrap();
    assert_eq!(refused(&agent, DelegateSession::default()).await.reason, ErrorReason::CapacityReached);
    assert_eq!(stack.admin().await.sessions().await.unwrap().len(), 9);
}

/// A lease of the parent is not the child's, nor the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn leases_are_not_shared_within_a_tree() {
    let stack = Stack::start().await;
    let parent = stack.agent("notes").await;
    let (_, agent) = child(&stack, &parent, DelegateSession::default()).await;
    let (above, _) = parent.acquire(KEY, None, "").await.unwrap();
    let (below, _) = agent.acquire(KEY, None, "").await.unwrap();
    assert_eq!(reason(agent.read(above.lease_id).await), ErrorReason::LeaseNotAvailable);
    assert_eq!(reason(parent.read(below.lease_id).await), ErrorReason::LeaseNotAvailable);
    agent.close_session().await.unwrap();
    parent.read(above.lease_id).await.unwrap();
    assert_eq!(parent.list_leases().await.unwrap().len(), 1);
}

/// Three generations of one role, and how the lowest hears that it is over.
struct Tree {
    ids: [SessionId; 3],
    agents: [AgentClient; 3],
    /// Of the lowest.
    token: Secret,
}

impl Tree {
    async fn grow(stack: &Stack, ttl: Option<Duration>) -> Self {
        let (root, first) = stack.opened(OpenSession { ttl, ..OpenSession::role("notes") }).await;
        let (middle, second) = child(stack, &first, DelegateSession::default()).await;
        let (lowest, token) = second.delegate_session(DelegateSession::default()).await.unwrap();
        let third = stack.holder(&token).await;
        for agent in [&first, &second, &third] {
            agent.acquire(KEY, None, "").await.unwrap();
        }
        let ids = [root, middle, lowest].map(|session| session.session_id);
        Self { ids, agents: [first, second, third], token }
    }

    /// Ends it, and returns what the lowest heard on its stream and with its next call. That is made on a connection of
    /// its own: a lock retires the one of the stream, and of a call that a client hands to a connection in the moment
    /// that it learns so, it says that the connection ended.
    async fn ended(&self, stack: &Stack, end: impl AsyncFnOnce(&AgentClient)) -> [ErrorReason; 2] {
        let events = self.agents[2].watch_leases().await.unwrap();
        end(&self.agents[0]).await;
        let seen: Vec<Result<_, ClientError>> = bounded(events.collect()).await;
        let last = seen.into_iter().next_back().expect("the end of the stream");
        [reason(last), reason(stack.holder(&self.token).await.acquire(KEY, None, "").await)]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_below_a_session_ends_with_it_and_is_told_so() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let revoked = [ErrorReason::SessionRevoked; 2];

    let tree = Tree::grow(&stack, None).await;
    let heard = tree.ended(&stack, async |root| assert_eq!(root.close_session().await.unwrap(), 3)).await;
    assert_eq!(heard, revoked);
    assert_eq!(reason(tree.agents[1].describe_session().await), ErrorReason::SessionRevoked);
    let causes: Vec<_> = stack
        .audited("session.revoked")
        .into_iter()
        .map(|r| (r["session"].clone(), r["cause"].clone()))
        .collect();
    let below = |id: SessionId| (id.to_string().into(), "session_ended".into());
    assert_eq!(causes, [below(tree.ids[1]), below(tree.ids[2])]);

    let tree = Tree::grow(&stack, None).await;
    let root = tree.ids[0];
    let heard = tree.ended(&stack, async |_| {
        let ended = admin.revoke(RevokeTarget::Session(root), "").await.unwrap();
        assert_eq!((ended.sessions, ended.leases), (3, 3));
    });
    assert_eq!(heard.await, revoked);

    // From the middle: what is above goes on.
    let tree = Tree::grow(&stack, None).await;
    assert_eq!(tree.agents[1].close_session().await.unwrap(), 2);
    assert_eq!(reason(tree.agents[2].describe_session().await), ErrorReason::SessionRevoked);
    tree.agents[0].acquire(KEY, None, "").await.unwrap();
    child(&stack, &tree.agents[0], DelegateSession::default()).await;
    assert_eq!(admin.status().await.unwrap().sessions, 2);
    tree.agents[0].close_session().await.unwrap();

    let tree = Tree::grow(&stack, None).await;
    let heard = tree.ended(&stack, async |_| _ = admin.lock("").await.unwrap()).await;
    assert_eq!(heard, [ErrorReason::BrokerLocked; 2]);
    admin.unlock().await.unwrap();
    let lowest = stack.holder(&tree.token).await;
    assert_eq!(reason(lowest.describe_session().await), ErrorReason::SessionRevoked);

    let tree = Tree::grow(&stack, None).await;
    let heard = tree.ended(&stack, async |_| {
        stack.rewrite(|text| text.replace("[role.notes]", "[role.notebook]"));
        assert_eq!(admin.reload().await.unwrap().sessions_ended, 3);
    });
    assert_eq!(heard.await, revoked);
    assert_eq!(admin.status().await.unwrap().sessions, 0);
}

/// What ran out with its parent's time ran out: it may have been its own as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_below_a_session_ends_with_its_time() {
    let stack = Stack::start().await;
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
    let tree = Tree::grow(&stack, Some(Duration::from_secs(2))).await;
    let heard = tree.ended(&stack, async |_| {}).await;
    assert_eq!(heard, [ErrorReason::SessionExpired; 2]);
    assert_eq!(reason(tree.agents[1].describe_session().await), ErrorReason::SessionExpired);
    let status = stack.admin().await.status().await.unwrap();
    assert_eq!((status.sessions, status.leases), (1, 1), "the other one goes on");
}

/// I3.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_below_a_session_ends_with_its_process() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let mut shell = Shell::start(&stack);
    shell.succeed("ravi-broker session open --role notes --file ./session").await;
    shell.succeed("ravi-broker session delegate --session-file ./session --file ./child").await;
    shell.succeed("ravi-broker session delegate --session-file ./child --file ./grandchild").await;
    shell.succeed("ravi-broker lease acquire secret/OPENAI_API_KEY --session-file ./grandchild").await;
    let sessions = admin.sessions().await.unwrap();
    assert_eq!(sessions.len(), 3);
    assert!(sessions.iter().all(|session| session.binding == format!("subtree of {}", shell.pid())));
    assert_eq!(sessions[1].parent_session_id, Some(sessions[0].session_id));
    assert_eq!(sessions[2].parent_session_id, Some(sessions[1].session_id));
    shell.kill().await;
    until(async || admin.status().await.unwrap().sessions == 0).await;
    assert_eq!(admin.status().await.unwrap().leases, 0);
    until(async || stack.audited("lease.revoked").len() == 1).await;
    let causes: Vec<_> =
        stack.audited("session.revoked").into_iter().map(|record| record["cause"].clone()).collect();
    assert_eq!(causes, ["peer_exited", "session_ended", "session_ended"]);
}

/// The process that holds the child is a shell; this process, which delegated it, is above and outside.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_bound_to_a_process_works_there_and_below_and_ends_with_it() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let (root, parent) = stack.opened(OpenSession::role("notes")).await;
    let (mut shell, mut sibling) = (Shell::start(&stack), Shell::start(&stack));
    let how = DelegateSession { pid: Some(shell.pid()), ..scopes(&["secret:read:OPENAI_*"]) };
    let (session, token) = parent.delegate_session(how).await.unwrap();
    let outside = stack.holder(&token).await;
    let path = stack.setup.directory().join("child");
    SessionFile::new(&stack.setup.agent_socket, &session, token).write(&path).unwrap();
    let get = "ravi-broker get secret/OPENAI_API_KEY --session-file ./child";
    assert_eq!(shell.succeed(get).await, "sandbox-openai-notes-7c1f20\n");
    assert_eq!(shell.succeed(&format!("sh -c '{get}; true'")).await, "sandbox-openai-notes-7c1f20\n");
    assert_eq!(sibling.run(get).await.status, DENIED);
    assert_eq!(reason(outside.acquire(KEY, None, "").await), ErrorReason::SessionInvalid);
    assert_eq!(reason(outside.close_session().await), ErrorReason::SessionInvalid);
    // Below it, a process outside cannot be named any more, not even one of the parent's.
    for pid in [sibling.pid(), std::process::id()] {
        let delegate = format!("ravi-broker session delegate --session-file ./child --pid {pid}");
        assert_eq!(shell.run(&delegate).await.status, 2, "{pid}");
    }
    shell.succeed("ravi-broker lease acquire secret/OPENAI_API_KEY --session-file ./child").await;
    shell.kill().await;
    until(async || admin.sessions().await.unwrap().len() == 1).await;
    assert_eq!(admin.sessions().await.unwrap()[0].session_id, root.session_id);
    until(async || !stack.audited("session.revoked").is_empty()).await;
    let ended = &stack.audited("session.revoked")[0];
    assert_eq!(
        (&ended["cause"], &ended["session"]),
        (&"peer_exited".into(), &session.session_id.to_string().into())
    );
    parent.acquire(KEY, None, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_not_bound_to_a_process_outside_or_dead_or_the_first() {
    let stack = Stack::start().await;
    let parent = stack.agent("notes").await;
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let above = getppid().as_raw().cast_unsigned();
    for pid in [ended.id(), above, 1, u32::MAX] {
        let refused =
            refused(&parent, DelegateSession { pid: Some(pid), ..DelegateSession::default() }).await;
        assert_eq!(refused.reason, ErrorReason::ArgumentInvalid, "{pid}");
        assert!(refused.message.starts_with("pid: "), "{}", refused.message);
    }
    assert_eq!(stack.admin().await.status().await.unwrap().sessions, 1);
}

/// A token of another session opens nothing below that one.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_another_process_is_not_delegated_or_renewed() {
    let stack = Stack::start().await;
    let mut shell = Shell::start(&stack);
    shell.succeed("ravi-broker session open --role notes --file ./session").await;
    let token = SessionFile::read(&stack.setup.directory().join("session")).unwrap().token;
    let foreign = stack.holder(&token).await;
    assert_eq!(refused(&foreign, DelegateSession::default()).await.reason, ErrorReason::SessionInvalid);
    assert_eq!(reason(foreign.renew_session(None).await), ErrorReason::SessionInvalid);
    let without = stack.stranger().await;
    assert_eq!(refused(&without, DelegateSession::default()).await.reason, ErrorReason::SessionRequired);
    assert_eq!(reason(without.renew_session(None).await), ErrorReason::SessionRequired);
    assert_eq!(stack.admin().await.status().await.unwrap().sessions, 1);
}

/// A child does not refill what its tree has used.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_has_the_rate_of_one_session() {
    let rate = "rate = { read = \"60000/min\", send = \"600/min\" }";
    let own = "rate = { read = \"100/h\", session_read = \"6/h\" }";
    let stack = Stack::with(|setup| setup.roles = setup.roles.replace(rate, own)).await;
    let parent = stack.agent("deploy").await;
    let (_, first) = child(&stack, &parent, DelegateSession::default()).await;
    let (_, second) = child(&stack, &first, DelegateSession::default()).await;
    for agent in [&parent, &first, &second] {
        agent.acquire(KEY, None, "").await.unwrap();
    }
    let limits = second.describe_session().await.unwrap().limits;
    let own = limits.iter().find(|limit| limit.name == "session_read").expect("a limit of its own");
    assert_eq!(own.remaining, 0);
    for agent in [&parent, &first, &second] {
        let refused = refusal(agent.acquire(KEY, None, "").await);
        assert_eq!(refused.limit.as_deref(), Some("rate.session_read"));
        let refused = refusal(agent.delegate_session(DelegateSession::default()).await);
        assert_eq!(refused.limit.as_deref(), Some("rate.session_read"));
    }
    // The end of a child gives nothing back; another session has its own.
    second.close_session().await.unwrap();
    assert_eq!(reason(parent.acquire(KEY, None, "").await), ErrorReason::RateLimited);
    stack.agent("deploy").await.acquire(KEY, None, "").await.unwrap();
}

/// I5.
#[tokio::test(flavor = "multi_thread")]
async fn children_count_against_the_sessions_of_the_role() {
    let stack = Stack::with(|setup| setup.roles.push_str("[role.notes.session]\nmax_live = 3\n")).await;
    let parent = stack.agent("notes").await;
    let (_, first) = child(&stack, &parent, DelegateSession::default()).await;
    child(&stack, &parent, DelegateSession::default()).await;
    for agent in [&parent, &first] {
        let refused = refused(agent, DelegateSession::default()).await;
        assert_eq!(
            (refused.reason, refused.limit.as_deref()),
            (ErrorReason::CapacityReached, Some("session.max_live"))
        );
    }
    first.close_session().await.unwrap();
    child(&stack, &parent, DelegateSession::default()).await;
}
