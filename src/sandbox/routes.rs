//! The paths of Ravi's API that the sandbox has. As in Django, every path ends in a slash: a read
//! without it is redirected, a write without it finds nothing.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use http::{HeaderValue, Method, StatusCode, header};

use super::auth::{self, Call};
use super::reply::{Refusal, no_such_page};
use super::state::Api;
use super::{
    account, attachments, compose, contacts, device, events, identities, mail, passwords, secrets, sms, sso,
};

/// Everything that the storage has.
const OBJECTS: &str = "/storage/{*object}";

/// The API and its storage, without control endpoints and without faults.
pub(super) fn router(api: Api) -> Router {
    let routes: [(&str, MethodRouter<Api>); 38] = [
        ("/api/auth/keys/identity/", get(auth::list).post(auth::mint)),
        ("/api/auth/device/", post(device::start)),
        ("/api/auth/device/token/", post(device::token)),
        ("/api/auth/device/verify/", get(device::page)),
        ("/device/", get(device::page)),
        ("/api/identities/", get(identities::list).post(identities::create)),
        ("/api/identities/{uuid}/", get(identities::read)),
        ("/api/identities/{uuid}/provision-phone/", post(identities::provision_phone)),
        ("/api/phone/", get(account::phones)),
        ("/api/email/", get(account::emails)),
        ("/api/master/", get(account::owner)),
        ("/api/domains/", get(account::domains)),
        ("/api/sms-inbox/", get(sms::conversations)),
        ("/api/sms-inbox/{id}/", get(sms::conversation)),
        ("/api/messages/", get(sms::messages)),
        ("/api/messages/send/", post(sms::send)),
        ("/api/messages/{id}/", get(sms::message)),
        ("/api/email-inbox/", get(mail::threads)),
        ("/api/email-inbox/{id}/", get(mail::thread)),
        ("/api/email-messages/", get(mail::messages)),
        ("/api/email-messages/compose/", post(compose::compose)),
        ("/api/email-messages/{id}/", get(mail::message)),
        ("/api/email-messages/{id}/reply/", post(compose::reply)),
        ("/api/email-messages/{id}/reply-all/", post(compose::reply_all)),
        ("/api/email-messages/{id}/forward/", post(compose::forward)),
        ("/api/email-attachments/presign/", post(attachments::presign)),
        ("/api/contacts/", get(contacts::list).post(contacts::create)),
        ("/api/contacts/find/", get(contacts::find)),
        ("/api/contacts/search/", get(contacts::search)),
        ("/api/contacts/{uuid}/", get(contacts::read).patch(contacts::update).delete(contacts::delete)),
        ("/api/events/stream/", get(events::stream)),
        ("/api/passwords/", get(passwords::list).post(passwords::create)),
        ("/api/passwords/generate-password/", get(passwords::generate_password)),
        ("/api/passwords/{uuid}/", get(passwords::read).patch(passwords::update).delete(passwords::delete)),
        ("/api/secrets/", get(secrets::list).post(secrets::create)),
        ("/api/secrets/{uuid}/", get(secrets::read).patch(secrets::update).delete(secrets::delete)),
        ("/api/sso/token/", post(sso::token)),
        ("/api/sso/verify/", post(sso::verify)),
    ];
    let add = |router: Router<Api>, (path, methods): (&str, MethodRouter<Api>)| {
        router.route(path, methods).route(path.trim_end_matches('/'), any(without_slash))
    };
    let router = routes.into_iter().fold(Router::new(), add).route(OBJECTS, any(attachments::storage));
    router.method_not_allowed_fallback(not_allowed).fallback(async || no_such_page()).with_state(api)
}

/// The storage alone, for its own listener.
pub(super) fn storage(api: Api) -> Router {
    Router::new().fallback(attachments::storage).with_state(api)
}

async fn without_slash(request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return no_such_page();
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = StatusCode::MOVED_PERMANENTLY.into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", request.uri().path())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Django looks at the key before it looks at the method.
async fn not_allowed(State(_): State<Api>, _: Call) -> Refusal {
    Refusal::detail(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.")
}
