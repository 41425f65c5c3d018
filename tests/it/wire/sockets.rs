//! Which service answers on which socket: all of them, by the `.proto` files, so that a new method is
//! tested on the day it is written.

use std::fs;

use tonic::Code;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::Victim;
use super::raw::{Wire, framed};
use crate::support::bounded;

const AGENT: [&str; 5] =
    ["SessionService", "LeaseService", "VaultService", "InboxService", "IdentityService"];

/// Path of every method, and whether it belongs to the admin socket.
pub(super) fn methods() -> Vec<(String, bool)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/ravi/broker/v1");
    let mut methods = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let mut service = None;
        for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            let word = |line: &str| line.split([' ', '(']).next().unwrap().to_owned();
            if let Some(rest) = line.strip_prefix("service ") {
                service = Some(word(rest));
            } else if let (Some(service), Some(rest)) = (&service, line.strip_prefix("  rpc ")) {
                let path = format!("/ravi.broker.v1.{service}/{}", word(rest));
                methods.push((path, service == "AdminService"));
            }
        }
    }
    methods
}

#[tokio::test(flavor = "multi_thread")]
async fn each_method_answers_on_its_own_socket_and_on_no_other() {
    let victim = Victim::start().await;
    let agent = Wire::connect(&victim.stack.setup.agent_socket).await;
    let admin = Wire::connect(&victim.stack.setup.admin_socket).await;
    let methods = methods();
    assert!(methods.len() >= 25, "the methods were found: {methods:?}");
    for (path, operator) in methods {
        let (own, other) = if operator { (&admin, &agent) } else { (&agent, &admin) };
        let absent = (Code::Unimplemented, "METHOD_UNKNOWN".to_owned());
        assert_eq!(other.post(&path, framed(b"")).await.refusal(), absent, "{path}");
        // No protobuf, so that the method is found and nothing is done. Who sends a stream is let in, or not, before
        // its first message is read.
        let found = match path.ends_with("/AttachFile") {
            true => (Code::Unauthenticated, "SESSION_REQUIRED".to_owned()),
            false => (Code::Internal, "ARGUMENT_INVALID".to_owned()),
        };
        assert_eq!(own.post(&path, framed(&[7])).await.refusal(), found, "{path}");
    }
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sockets_say_that_they_serve() {
    let victim = Victim::start().await;
    let setup = &victim.stack.setup;
    let agents = AGENT.map(|name| format!("ravi.broker.v1.{name}"));
    let admin = ["ravi.broker.v1.AdminService".to_owned()];
    for (socket, own, other) in
        [(&setup.agent_socket, &agents[..], &admin[..]), (&setup.admin_socket, &admin[..], &agents[..])]
    {
        let mut health = HealthClient::new(Wire::connect(socket).await.channel());
        for service in own.iter().chain([&String::new()]) {
            let request = HealthCheckRequest { service: service.clone() };
            let answer = health.check(request).await.expect(service).into_inner();
            assert_eq!(answer.status, ServingStatus::Serving as i32, "{service}");
        }
        for service in other {
            let request = HealthCheckRequest { service: service.clone() };
            assert_eq!(health.check(request).await.unwrap_err().code(), Code::NotFound, "{service}");
        }
    }
}

/// A load balancer or a service manager must not be told that a locked broker serves.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_broker_says_that_it_does_not_serve() {
    let victim = Victim::start().await;
    let mut health = HealthClient::new(Wire::connect(&victim.stack.setup.agent_socket).await.channel());
    let mut told = health.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(bounded(told.message()).await.unwrap().unwrap().status, ServingStatus::Serving as i32);
    let admin = victim.stack.admin().await;
    admin.lock("").await.unwrap();
    assert_eq!(bounded(told.message()).await.unwrap().unwrap().status, ServingStatus::NotServing as i32);
    admin.unlock().await.unwrap();
    assert_eq!(bounded(told.message()).await.unwrap().unwrap().status, ServingStatus::Serving as i32);
}
