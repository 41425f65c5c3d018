//! Device logins, §2.3 of the contract sheet.

use super::*;

pub(super) async fn start_login(bench: &Bench) -> Value {
    let got = bench.call("POST", "/api/auth/device/", "", None).await;
    assert_eq!(got.status, 200);
    got.json()
}

async fn poll(bench: &Bench, login: &Value, wait: bool) -> Got {
    let body = json!({ "device_code": login["device_code"], "wait": wait });
    bench.anonymous("/api/auth/device/token/", body).await
}

async fn poll_error(bench: &Bench, login: &Value) -> String {
    let got = poll(bench, login, false).await;
    assert_eq!(got.status, 400);
    assert_eq!(keys_of(&got.json()), ["error", "error_description"]);
    got.json()["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_device_login_is_pending_then_pays_out_once() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let login = start_login(&bench).await;
    assert_eq!(keys_of(&login), ["device_code", "expires_in", "interval", "user_code", "verification_uri"]);
    assert_eq!((&login["expires_in"], &login["interval"]), (&json!(900), &json!(5)));
    let verification = format!("{}/api/auth/device/verify/", bench.sandbox.base_url());
    assert_eq!(login["verification_uri"], json!(verification));
    let user_code = login["user_code"].as_str().unwrap();
    assert_eq!((user_code.len(), &user_code[4..5]), (9, "-"));

    assert_eq!(poll_error(&bench, &login).await, "authorization_pending");
    assert_eq!(poll_error(&bench, &login).await, "slow_down");
    clock.advance(Duration::from_secs(9));
    assert_eq!(poll_error(&bench, &login).await, "slow_down", "each slow_down adds five seconds");
    clock.advance(Duration::from_secs(15));
    assert_eq!(poll_error(&bench, &login).await, "authorization_pending");

    assert_eq!(bench.control.pending_logins(), [user_code]);
    assert_eq!(bench.control.approve_login(Some("WRNG-2222")), 0);
    assert_eq!(bench.control.approve_login(Some(user_code)), 1);
    let got = poll(&bench, &login, false).await;
    assert_eq!(got.status, 200);
    let paid = got.json();
    assert_eq!(keys_of(&paid), ["identities", "management_key", "user"]);
    assert_eq!(keys_of(&paid["user"]), ["email", "first_name", "id", "last_name"]);
    assert_eq!(paid["management_key"], json!(bench.management));
    assert_eq!(texts(&paid["identities"], "name"), [NOTES_AGENT.name, DEPLOY_AGENT.name]);
    assert_eq!(poll_error(&bench, &login).await, "invalid_grant", "the code is used up");
}

#[tokio::test]
async fn a_device_login_ends_by_denial_expiry_or_a_wrong_code() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let denied = start_login(&bench).await;
    assert_eq!(bench.control.deny_login(None), 1);
    assert_eq!(poll_error(&bench, &denied).await, "access_denied");
    let expired = start_login(&bench).await;
    clock.advance(Duration::from_secs(900));
    assert_eq!(bench.control.approve_login(None), 0, "too late");
    assert_eq!(poll_error(&bench, &expired).await, "expired_token");
    assert_eq!(poll_error(&bench, &json!({ "device_code": "made-up" })).await, "invalid_grant");
    let got = bench.anonymous("/api/auth/device/token/", json!({})).await;
    assert_eq!((got.status, &got.json()["device_code"]), (400, &json!(["This field is required."])));
}

#[tokio::test]
async fn a_waiting_poll_is_answered_by_the_approval_or_after_the_hold() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let login = start_login(&bench).await;
    let decide = async {
        bench.control.reached("POST", "/api/auth/device/token/", 1).await;
        bench.control.approve_login(None)
    };
    let (got, approved) = tokio::join!(poll(&bench, &login, true), decide);
    assert_eq!((got.status, approved), (200, 1));

    let login = start_login(&bench).await;
    let pass_time = async {
        bench.control.reached("POST", "/api/auth/device/token/", 2).await;
        // The deadline is set some moment after the arrival: move time until the answer is there.
        loop {
            clock.advance(Duration::from_secs(5));
            tokio::task::yield_now().await;
        }
    };
    let before = clock.now();
    let got = tokio::select! { got = poll(&bench, &login, true) => got, () = pass_time => unreachable!() };
    assert_eq!((got.status, &got.json()["error"]), (400, &json!("authorization_pending")));
    assert!(clock.now().since(before) >= Duration::from_secs(25));
}

#[tokio::test]
async fn a_device_token_is_asked_for_in_json_form_or_multipart() {
    let bench = Bench::with(SandboxConfig {
        behaviour: Behaviour { auto_approve: true, ..Behaviour::default() },
        ..SandboxConfig::default()
    })
    .await;
    let multipart = "--q\r\nContent-Disposition: form-data; name=\"device_code\"\r\n\r\nCODE\r\n--q--\r\n";
    for (content_type, body) in [
        ("application/json", "{\"device_code\":\"CODE\",\"wait\":false}"),
        ("application/x-www-form-urlencoded", "device_code=CODE&wait=true"),
        ("multipart/form-data; boundary=q", multipart),
    ] {
        let login = start_login(&bench).await;
        let body = body.replace("CODE", login["device_code"].as_str().unwrap());
        let mut request = bench.http.request(Method::POST, "/api/auth/device/token/", None, None);
        request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        *request.body_mut() = Full::new(Bytes::from(body));
        assert_eq!(bench.http.send(request).await.unwrap().status, 200, "{content_type}");
    }
}

#[tokio::test]
async fn a_person_decides_on_the_page_behind_the_verification_address() {
    let bench = Bench::start().await;
    let login = start_login(&bench).await;
    let user_code = login["user_code"].as_str().unwrap();
    for path in ["/api/auth/device/verify/", "/device/"] {
        let page = bench.call("GET", &format!("{path}?user_code={user_code}"), "", None).await;
        assert_eq!(page.status, 200);
        assert!(String::from_utf8_lossy(&page.body).contains(user_code));
        let hostile = bench.call("GET", &format!("{path}?user_code=%22%3E%3Cscript"), "", None).await;
        assert!(!String::from_utf8_lossy(&hostile.body).contains("<script"));
    }
    let body = format!("user_code={user_code}");
    let mut request = bench.http.request(Method::POST, "/__sandbox__/device/approve/", None, None);
    request.headers_mut().insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
    *request.body_mut() = Full::new(Bytes::from(body));
    assert_eq!(bench.http.send(request).await.unwrap().json(), json!({ "approved": 1 }));
    assert_eq!(poll(&bench, &login, false).await.status, 200);
}
