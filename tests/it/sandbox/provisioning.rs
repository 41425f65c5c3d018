//! How long a phone takes and what may come instead, §3.1 of the contract sheet.

use std::time::Duration;

use ravi_broker::clock::Clock;
use serde_json::json;

use super::{Bench, Got, StillClock, with_clock};

async fn without_phone(bench: &Bench) -> String {
    let made = bench.managed("POST", "/api/identities/", Some(json!({}))).await.json();
    format!("/api/identities/{}/", made["uuid"].as_str().unwrap())
}

async fn provision(bench: &Bench, identity: &str) -> Got {
    bench.managed("POST", &format!("{identity}provision-phone/"), Some(json!({ "country_code": "US" }))).await
}

#[tokio::test]
async fn a_phone_is_there_before_its_slow_answer() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    bench.switch(|behaviour| behaviour.provision_seconds = 8);
    let identity = without_phone(&bench).await;
    let path = format!("{identity}provision-phone/");
    let look_then_pass_time = async {
        bench.control.reached("POST", &path, 1).await;
        while bench.managed("GET", &identity, None).await.json()["phone"].is_null() {}
        let before = clock.now();
        loop {
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
            assert!(clock.now().since(before) < Duration::from_secs(1_000_000), "no answer");
        }
    };
    let before = clock.now();
    let got = tokio::select! { got = provision(&bench, &identity) => got, () = look_then_pass_time => unreachable!() };
    assert_eq!((got.status, got.json()["phone"].is_string()), (201, true));
    assert!(clock.now().since(before) >= Duration::from_secs(8));
    assert_eq!(provision(&bench, &identity).await.status, 409);
}

#[tokio::test]
async fn a_phone_needs_a_plan_and_a_number_to_be_had() {
    let bench = Bench::start().await;
    let identity = without_phone(&bench).await;
    bench.switch(|behaviour| behaviour.phones_available = false);
    let got = provision(&bench, &identity).await;
    assert_eq!((got.status, got.detail().is_empty()), (503, false));
    bench.switch(|behaviour| behaviour.paid_plan = false);
    let got = provision(&bench, &identity).await;
    assert_eq!((got.status, got.detail().as_str()), (402, "Active paid subscription required."));
    assert!(bench.managed("GET", &identity, None).await.json()["phone"].is_null());
}

#[tokio::test]
async fn every_identity_gets_a_number_of_its_own() {
    let bench = Bench::start().await;
    for _ in 0..40 {
        let body = json!({ "provision_phone": true });
        assert_eq!(bench.managed("POST", "/api/identities/", Some(body)).await.status, 201);
    }
    let phones = bench.managed("GET", "/api/phone/", None).await.json();
    let mut numbers = super::texts(&phones, "phone_number");
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 42);
}
