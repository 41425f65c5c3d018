//! The password vault (docs/ravi-api.md §3.7).

use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use crate::secret::Secret;

use super::auth::Call;
use super::behaviour::ListValues;
use super::body::Fields;
use super::domain;
use super::generate;
use super::random;
use super::reply::{Refusal, Reply, no_content, ok, with_status};
use super::state::{Api, MAX_ENTRIES, PasswordRow, stamp};

/// `GET /api/passwords/`: values included.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Reply {
    let world = api.world();
    let shown = world.behaviour.list_values == ListValues::Shown;
    let rows = call.scope(&world)?.rows(&world.passwords);
    ok(&rows.into_iter().map(|row| Wire::new(row, shown)).collect::<Vec<_>>())
}

/// `GET /api/passwords/{uuid}/`.
pub(super) async fn read(State(api): State<Api>, call: Call, Path(uuid): Path<String>) -> Reply {
    let world = api.world();
    let index = call.scope(&world)?.row(&world.passwords, &uuid).ok_or_else(no_entry)?;
    ok(&Wire::new(&world.passwords[index], true))
}

/// `POST /api/passwords/`. A password that is not given is generated.
pub(super) async fn create(State(api): State<Api>, call: Call, mut fields: Fields) -> Reply {
    let mut world = api.world();
    let (identity, _) = call.writer(&world)?;
    let given = fields.required("domain");
    let domain = normalised(&mut fields, &given);
    let username = fields.text("username").unwrap_or_default();
    let password = fields.secret("password").filter(|password| !password.is_empty());
    let notes = fields.secret("notes");
    fields.finish()?;
    if world.passwords.len() >= MAX_ENTRIES {
        return Err(Refusal::bad_request("The vault is full."));
    }
    let password = password.map_or_else(generate::default_password, Ok)?;
    let now = api.wall();
    let notes = notes.unwrap_or_else(|| Secret::copy_of(""));
    let uuid = random::uuid()?;
    let row = PasswordRow { uuid, identity, domain, username, password, notes, created: now, updated: now };
    let reply = with_status(StatusCode::CREATED, &Wire::new(&row, true));
    world.passwords.push(row);
    reply
}

/// The empty text was reported as such already.
fn normalised(fields: &mut Fields, domain: &str) -> String {
    let normal = domain::normalise(domain);
    if normal.is_none() {
        fields.wrong("domain", "Enter a valid domain.");
    }
    normal.unwrap_or_default()
}

/// `PATCH /api/passwords/{uuid}/`.
pub(super) async fn update(
    State(api): State<Api>,
    call: Call,
    Path(uuid): Path<String>,
    mut fields: Fields,
) -> Reply {
    let mut world = api.world();
    let (_, scope) = call.writer(&world)?;
    let index = scope.row(&world.passwords, &uuid).ok_or_else(no_entry)?;
    let given = fields.text("domain");
    let domain = given.map(|domain| normalised(&mut fields, &domain));
    let username = fields.text("username");
    let password = fields.secret("password");
    let notes = fields.secret("notes");
    fields.finish()?;
    let now = api.wall();
    let row = &mut world.passwords[index];
    row.domain = domain.unwrap_or_else(|| std::mem::take(&mut row.domain));
    row.username = username.unwrap_or_else(|| std::mem::take(&mut row.username));
    if let Some(password) = password {
        row.password = password;
    }
    if let Some(notes) = notes {
        row.notes = notes;
    }
    row.updated = now;
    ok(&Wire::new(row, true))
}

/// `DELETE /api/passwords/{uuid}/`.
pub(super) async fn delete(State(api): State<Api>, call: Call, Path(uuid): Path<String>) -> Reply {
    let mut world = api.world();
    let (_, scope) = call.writer(&world)?;
    let index = scope.row(&world.passwords, &uuid).ok_or_else(no_entry)?;
    world.passwords.remove(index);
    no_content()
}

fn no_entry() -> Refusal {
    Refusal::detail(StatusCode::NOT_FOUND, "No PasswordEntry matches the given query.")
}

/// `GET /api/passwords/generate-password/`.
pub(super) async fn generate_password(call: Call) -> Reply {
    let password = generate::from_options(&call.params)?;
    ok(&json!({ "password": password.expose() }))
}

#[derive(Serialize)]
struct Wire<'a> {
    uuid: String,
    identity: i64,
    domain: &'a str,
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    notes: &'a str,
    created_dt: String,
    updated_dt: String,
}

impl<'a> Wire<'a> {
    fn new(row: &'a PasswordRow, with_value: bool) -> Self {
        Self {
            uuid: row.uuid.to_string(),
            identity: row.identity,
            domain: &row.domain,
            username: &row.username,
            password: with_value.then(|| row.password.expose()),
            notes: row.notes.expose(),
            created_dt: stamp(row.created),
            updated_dt: stamp(row.updated),
        }
    }
}
