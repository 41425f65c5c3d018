//! What can be made to go wrong.

use super::*;

#[tokio::test]
async fn throttling_says_when_to_come_back_in_body_header_or_neither() {
    let bench = Bench::start().await;
    for (seconds, header) in [(Some(7), None), (None, Some("9")), (Some(1), Some("soon")), (None, None)] {
        let retry_after = header.map(str::to_owned);
        bench
            .fault(Fault::new("/", Answer::Throttled { retry_after_seconds: seconds, retry_after }).times(1));
        let got = bench.get(SECRETS).await;
        assert_eq!((got.status, got.detail().as_str()), (429, "Request was throttled."));
        assert_eq!(got.json().get("retry_after_seconds").and_then(Value::as_u64), seconds);
        assert_eq!(got.headers.get(RETRY_AFTER).map(|value| value.to_str().unwrap()), header);
    }
    assert_eq!(bench.get(SECRETS).await.status, 200, "each served its one turn");
}

#[tokio::test]
async fn answers_are_replaced_by_errors_html_nothing_or_a_redirect() {
    let bench = Bench::start().await;
    let elsewhere = "https://elsewhere.example/api/secrets/";
    for answer in [
        Answer::Status(503),
        Answer::Html(200),
        Answer::Empty(200),
        Answer::Redirect(elsewhere.into()),
        Answer::Oversized(3_000_000),
    ] {
        bench.fault(Fault::new(SECRETS, answer).on("GET").times(1));
    }
    let got = bench.get(SECRETS).await;
    assert_eq!((got.status, keys_of(&got.json())), (503, vec!["detail"]));
    let got = bench.get(SECRETS).await;
    assert!(got.status == 200 && got.headers[CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
    let got = bench.get(SECRETS).await;
    assert_eq!((got.status, got.body.len()), (200, 0));
    let got = bench.get(SECRETS).await;
    assert_eq!((got.status, got.headers[LOCATION].to_str().unwrap()), (302, elsewhere));
    let got = bench.get(SECRETS).await;
    assert!(got.status == 200 && got.body.len() > 3_000_000);
    assert_eq!(bench.post(SECRETS, json!({ "key": "A", "value": "v" })).await.status, 201, "GET alone");
    assert_eq!(bench.get(SECRETS).await.status, 200);
}

#[tokio::test]
async fn a_truncated_or_reset_answer_is_an_error_of_the_connection() {
    let bench = Bench::start().await;
    bench.fault(Fault::new(SECRETS, Answer::Truncated).times(1));
    let request = bench.http.request(Method::GET, SECRETS, Some(&bench.notes), None);
    let answer = bench.http.client.request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let declared: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
    assert!(declared > 100);
    assert!(answer.into_body().collect().await.is_err());

    bench.fault(Fault::new(SECRETS, Answer::Reset).times(1));
    let request = bench.http.request(Method::GET, SECRETS, Some(&bench.notes), None);
    let failed = bench.http.send(request).await.err().unwrap();
    let mut cause: Option<&(dyn Error + 'static)> = Some(failed.as_ref());
    let mut kinds = Vec::new();
    while let Some(error) = cause {
        kinds.extend(error.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
        cause = error.source();
    }
    assert!(kinds.contains(&std::io::ErrorKind::ConnectionReset), "{kinds:?}");
}

#[tokio::test]
async fn rows_of_another_identity_and_encrypted_values_can_be_served() {
    let bench = Bench::start().await;
    let rows = bench.get(SECRETS).await.json();
    let own = format!("{SECRETS}{}/", rows[0]["uuid"].as_str().unwrap());
    bench.fault(Fault::new("/api/", Answer::WrongIdentity));
    for path in [
        "/api/secrets/",
        "/api/secrets/?key=OPENAI_API_KEY",
        "/api/secrets/?key=OPENAI_ORG_ID",
        "/api/passwords/",
    ] {
        let rows = bench.managed("GET", &as_notes(path), None).await.json();
        assert!(!rows.as_array().unwrap().is_empty());
        assert!(rows.as_array().unwrap().iter().all(|row| row["identity"] == DEPLOY_AGENT.id), "{path}");
    }
    let one = bench.get(&own).await;
    assert_eq!((one.status, &one.json()["identity"]), (200, &json!(DEPLOY_AGENT.id)));
    let identity = bench.get(&format!("/api/identities/{}/", NOTES_AGENT.uuid)).await.json();
    assert_eq!(identity["uuid"], json!(DEPLOY_AGENT.uuid.to_string()));
    assert_eq!(bench.get("/api/phone/").await.json()[0]["phone_number"], json!(DEPLOY_AGENT.phone));
    let written = bench.post(SECRETS, json!({ "key": "A", "value": "v" })).await;
    assert_eq!((written.status, &written.json()["identity"]), (201, &json!(DEPLOY_AGENT.id)));
    let body = json!({ "identity_uuid": NOTES_AGENT.uuid.to_string(), "label": "x" });
    let minted = bench.managed("POST", "/api/auth/keys/identity/", Some(body)).await.json();
    assert_eq!(minted["identity_uuid"], json!(DEPLOY_AGENT.uuid.to_string()));

    bench.control.clear_faults();
    assert_eq!(bench.get("/api/secrets/?key=A").await.json()[0]["identity"], json!(NOTES_AGENT.id));
    bench.fault(Fault::new("/api/", Answer::LegacyEncrypted));
    assert!(bench.get(SECRETS).await.json()[0]["value"].as_str().unwrap().starts_with("e2e::"));
    let rows = bench.get("/api/passwords/").await.json();
    assert!(rows[0]["password"].as_str().unwrap().starts_with("e2e::"));
}

#[tokio::test]
async fn a_delay_lasts_as_long_as_told_and_a_hang_until_the_client_goes() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    bench.fault(Fault::new(SECRETS, Answer::Real).times(1).delayed(Duration::from_secs(40)));
    let mut slow = Box::pin(bench.get(SECRETS));
    tokio::select! {
        _ = &mut slow => panic!("answered before its time"),
        () = bench.control.reached("GET", SECRETS, 1) => {}
    }
    clock.advance(Duration::from_secs(40));
    // The deadline may have been set after the first move.
    let got = loop {
        tokio::select! {
            got = &mut slow => break got,
            () = tokio::task::yield_now() => clock.advance(Duration::from_secs(1)),
        }
    };
    assert_eq!(got.status, 200);

    drop(slow);
    bench.fault(Fault::new(SECRETS, Answer::Hang).times(1));
    tokio::select! {
        _ = bench.get(SECRETS) => panic!("answered"),
        () = bench.control.reached("GET", SECRETS, 2) => {}
    }
    assert_eq!(bench.get(SECRETS).await.status, 200);
    bench.sandbox.shutdown().await;
}

#[tokio::test]
async fn held_requests_go_on_when_released() {
    let bench = Bench::start().await;
    bench.fault(Fault::new(SECRETS, Answer::Held));
    let release = async {
        bench.control.reached("GET", SECRETS, 2).await;
        bench.control.release();
    };
    let (one, two, ()) = tokio::join!(bench.get(SECRETS), bench.get(SECRETS), release);
    assert_eq!((one.status, two.status), (200, 200));
}

#[tokio::test]
async fn a_write_can_take_effect_although_its_answer_is_lost() {
    let bench = Bench::start().await;
    bench.fault(Fault::new(SECRETS, Answer::Status(502)).on("POST").times(1));
    assert_eq!(bench.post(SECRETS, json!({ "key": "LOST", "value": "v" })).await.status, 502);
    assert_eq!(bench.get("/api/secrets/?key=LOST").await.json(), json!([]));
    bench.fault(Fault::new(SECRETS, Answer::Status(502)).on("POST").times(1).taking_effect());
    assert_eq!(bench.post(SECRETS, json!({ "key": "LOST", "value": "v" })).await.status, 502);
    assert_eq!(texts(&bench.get("/api/secrets/?key=LOST").await.json(), "value"), ["v"]);
}

#[tokio::test]
async fn a_fault_that_cannot_be_is_refused() {
    let bench = Bench::start().await;
    for fault in [
        Fault::new("api/", Answer::Hang),
        Fault::new("/", Answer::Hang).times(0),
        Fault::new("/", Answer::Status(99)),
        Fault::new("/", Answer::Oversized(usize::MAX)),
        Fault::new("/", Answer::Redirect("a\nb".into())),
        Fault::new("/", Answer::Real).delayed(Duration::MAX),
    ] {
        assert!(bench.control.add_fault(fault).is_err());
    }
    assert!(bench.control.faults().is_empty());
}
