//! Passwords and secrets, §3.7 and §3.8 of the contract sheet.

use super::*;

// ---------------------------------------------------------------- passwords, 3.7

/// The whole structure, as Ravi's command line posts it.
fn cli_password(domain: &str) -> Value {
    json!({
        "uuid": "", "identity": 0, "domain": domain, "username": "u", "password": "p", "notes": "",
        "created_dt": "", "updated_dt": "",
    })
}

#[tokio::test]
async fn a_password_is_created_read_changed_and_deleted() {
    let bench = Bench::start().await;
    let got = bench.post("/api/passwords/", cli_password("https://mail.google.com/inbox")).await;
    assert_eq!(got.status, 201);
    let row = got.json();
    assert_eq!(
        keys_of(&row),
        ["created_dt", "domain", "identity", "notes", "password", "updated_dt", "username", "uuid"]
    );
    assert_eq!((&row["domain"], &row["identity"]), (&json!("google.com"), &json!(NOTES_AGENT.id)));
    let path = format!("/api/passwords/{}/", row["uuid"].as_str().unwrap());
    assert_eq!(bench.get(&path).await.json(), row);
    let patched = bench.call("PATCH", &path, &bench.notes, Some(json!({ "password": "q" }))).await;
    assert_eq!((patched.status, &patched.json()["password"]), (200, &json!("q")));
    assert_eq!(patched.json()["username"], json!("u"));
    let other = bench.managed("GET", &format!("{path}?identity={}", DEPLOY_AGENT.uuid), None).await;
    assert_eq!(other.status, 404);
    let gone = bench.call("DELETE", &path, &bench.notes, None).await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    let got = bench.get(&path).await;
    assert_eq!((got.status, got.detail().as_str()), (404, "No PasswordEntry matches the given query."));
}

#[tokio::test]
async fn a_list_of_passwords_carries_the_values_and_may_repeat_a_domain() {
    let bench = Bench::start().await;
    let rows = bench.get("/api/passwords/").await.json();
    assert_eq!(texts(&rows, "domain"), ["github.com", "github.com", "example.com"]);
    assert_eq!(texts(&rows, "username")[..2], ["notes-agent", "notes-agent-ci"]);
    assert_eq!(rows[0]["password"], json!("sandbox-github-notes-a81c"));
    bench.switch(|behaviour| behaviour.list_values = ListValues::Omitted);
    assert!(bench.get("/api/passwords/").await.json()[0].get("password").is_none());
}

#[tokio::test]
async fn a_password_not_given_is_generated_and_bad_fields_are_all_named() {
    let bench = Bench::start().await;
    let got = bench.post("/api/passwords/", json!({ "domain": "example.org" })).await.json();
    assert_eq!(got["password"].as_str().unwrap().len(), 16);
    let got = bench.post("/api/passwords/", json!({ "username": 5, "notes": null })).await;
    assert_eq!(got.status, 400);
    assert_eq!(
        got.json(),
        json!({
            "domain": ["This field is required."],
            "username": ["Not a valid string."],
            "notes": ["This field may not be null."],
        })
    );
    for domain in ["", "two words", "https:///"] {
        assert_eq!(bench.post("/api/passwords/", json!({ "domain": domain })).await.status, 400);
    }
}

#[tokio::test]
async fn a_password_is_generated_to_order() {
    let bench = Bench::start().await;
    let path = "/api/passwords/generate-password/";
    let got = bench.get(path).await.json();
    assert_eq!((keys_of(&got), got["password"].as_str().unwrap().len()), (vec!["password"], 16));
    let plain =
        bench.get(&format!("{path}?length=40&special=false&uppercase=false&exclude_chars=abc")).await.json();
    let plain = plain["password"].as_str().unwrap();
    assert!(plain.len() == 40 && plain.chars().all(|c| c.is_ascii_digit() || ('d'..='z').contains(&c)));
    for query in ["?length=7", "?length=129", "?length=many"] {
        assert_eq!(bench.get(&format!("{path}{query}")).await.status, 400);
    }
}

// ---------------------------------------------------------------- secrets, 3.8

#[tokio::test]
async fn a_secret_is_created_read_changed_and_deleted() {
    let bench = Bench::start().await;
    let cli = json!({
        "uuid": "", "identity": 0, "key": "npm_token", "value": "v1", "notes": "n", "created_dt": "", "updated_dt": "",
    });
    let got = bench.post("/api/secrets/", cli).await;
    assert_eq!(got.status, 201);
    let row = got.json();
    assert_eq!(keys_of(&row), ["created_dt", "identity", "key", "notes", "updated_dt", "uuid", "value"]);
    assert_eq!((&row["key"], &row["value"]), (&json!("NPM_TOKEN"), &json!("v1")));
    let path = format!("/api/secrets/{}/", row["uuid"].as_str().unwrap());
    assert_eq!(bench.get(&path).await.json(), row);
    assert_eq!(bench.get("/api/secrets/?key=NPM_TOKEN").await.json(), json!([row]));
    let patched = bench.call("PATCH", &path, &bench.notes, Some(json!({ "value": "v2" }))).await.json();
    assert_eq!(
        (&patched["value"], &patched["key"], &patched["notes"]),
        (&json!("v2"), &json!("NPM_TOKEN"), &json!("n"))
    );
    assert_eq!(bench.call("DELETE", &path, &bench.notes, None).await.status, 204);
    let got = bench.call("DELETE", &path, &bench.notes, None).await;
    assert_eq!((got.status, got.detail().as_str()), (404, "No SecretEntry matches the given query."));
    assert_eq!(bench.get("/api/secrets/?key=NPM_TOKEN").await.json(), json!([]));
}

#[tokio::test]
async fn a_secret_key_is_unique_within_its_identity() {
    let bench = Bench::start().await;
    let duplicate = bench.post("/api/secrets/", json!({ "key": "openai_api_key", "value": "v" })).await;
    assert_eq!((duplicate.status, keys_of(&duplicate.json())), (400, vec!["key"]));
    let other = format!("/api/secrets/?identity={}", DEPLOY_AGENT.uuid);
    let body = json!({ "key": "OPENAI_ORG_ID", "value": "v" });
    assert_eq!(bench.managed("POST", &other, Some(body)).await.status, 201);
    let rows = bench.get("/api/secrets/?key=STRIPE_API_KEY").await.json();
    let path = format!("/api/secrets/{}/", rows[0]["uuid"].as_str().unwrap());
    for (key, status) in [("OPENAI_API_KEY", 400), ("stripe_api_key", 200), ("1ST", 400)] {
        let got = bench.call("PATCH", &path, &bench.notes, Some(json!({ "key": key }))).await;
        assert_eq!(got.status, status, "{key}");
    }
    assert_eq!(bench.get("/api/secrets/?key=openai_api_key").await.json(), json!([]), "exact");
    bench.switch(|behaviour| behaviour.secret_lookup = SecretLookup::AnyCase);
    assert_eq!(bench.get("/api/secrets/?key=openai_api_key").await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_secret_value_has_up_to_64_kib() {
    let bench = Bench::start().await;
    let largest = "x".repeat(65_536);
    let got = bench.post("/api/secrets/", json!({ "key": "BIG", "value": largest })).await;
    assert_eq!(got.status, 201);
    let got = bench.post("/api/secrets/", json!({ "key": "BIGGER", "value": format!("{largest}x") })).await;
    assert_eq!((got.status, keys_of(&got.json())), (400, vec!["value"]));
    let got = bench.post("/api/secrets/", json!({ "key": "HUGE", "value": "x".repeat(300_000) })).await;
    assert_eq!(got.status, 413);
    for key in ["", "9A", "A-B", "A B", "É"] {
        assert_eq!(
            bench.post("/api/secrets/", json!({ "key": key, "value": "v" })).await.status,
            400,
            "{key}"
        );
    }
    assert_eq!(bench.post("/api/secrets/", json!({ "key": "NO_VALUE" })).await.status, 400);
}
