//! Sending mail (docs/ravi-api.md §3.6): compose, reply, reply to all, forward. The text is made from the
//! HTML. Invented: whose text and attachments a forward carries along (the original's), and that bodies have
//! the bounds of every other text here.

use axum::extract::{Path, State};
use http::StatusCode;

use super::address::is_email;
use super::attachments;
use super::auth::{Call, mismatch};
use super::body::{Fields, MAX_ITEMS, MAX_TEXT};
use super::mail::detail_json;
use super::outbox::{Letter, post_mail};
use super::reply::{Refusal, Reply, with_status};
use super::state::{Api, Direction, Mail, World};

/// A forward of forwards does not grow for ever.
const MAX_FORWARD: usize = 4 * MAX_TEXT;

/// `POST /api/email-messages/compose/?inbox=`.
pub(super) async fn compose(State(api): State<Api>, call: Call, mut fields: Fields) -> Reply {
    let mut world = api.world();
    let (identity, _) = call.writer(&world)?;
    check_inbox(&call, &world, identity)?;
    let to = recipient(&mut fields);
    let subject = fields.required("subject");
    if subject.contains(['\r', '\n']) {
        fields.wrong("subject", "Line breaks are not allowed.");
    }
    let letter = Letter { to, subject, ..draft(&mut fields, &world, identity) };
    send(&api, &mut world, identity, fields, letter)
}

/// `POST /api/email-messages/{id}/reply/`.
pub(super) async fn reply(
    State(api): State<Api>,
    call: Call,
    Path(id): Path<String>,
    mut fields: Fields,
) -> Reply {
    let mut world = api.world();
    let (identity, original) = original(&call, &world, &id)?;
    let letter = answer(&mut fields, &world, identity, original);
    send(&api, &mut world, identity, fields, letter)
}

/// `POST /api/email-messages/{id}/reply-all/`: those who got the original get the answer too.
pub(super) async fn reply_all(
    State(api): State<Api>,
    call: Call,
    Path(id): Path<String>,
    mut fields: Fields,
) -> Reply {
    let mut world = api.world();
    let (identity, original) = original(&call, &world, &id)?;
    let own = world.identity(identity).and_then(|own| own.inbox.as_ref()).map(|inbox| &inbox.address);
    let mut letter = answer(&mut fields, &world, identity, original);
    for other in original.to.split(',').map(str::trim).chain(original.cc.iter().map(String::as_str)) {
        let is_known = |known: &String| known.eq_ignore_ascii_case(other);
        if is_email(other)
            && !own.is_some_and(is_known)
            && !is_known(&letter.to)
            && !letter.cc.iter().any(is_known)
        {
            letter.cc.push(other.to_owned());
        }
    }
    send(&api, &mut world, identity, fields, letter)
}

/// `POST /api/email-messages/{id}/forward/`.
pub(super) async fn forward(
    State(api): State<Api>,
    call: Call,
    Path(id): Path<String>,
    mut fields: Fields,
) -> Reply {
    let mut world = api.world();
    let (identity, original) = original(&call, &world, &id)?;
    let to = recipient(&mut fields);
    let mut letter = Letter {
        to,
        subject: prefixed("Fwd: ", &original.subject),
        thread_id: Some(original.thread_id.clone()),
        ..draft(&mut fields, &world, identity)
    };
    letter.html.push_str(&format!("<blockquote>{}</blockquote>", original.html));
    letter.text.push_str(&format!("\n\n{}", original.text));
    letter.attachments.extend(&original.attachments);
    if letter.html.len() > MAX_FORWARD || letter.attachments.len() > MAX_ITEMS {
        fields.wrong("content", "This message is too large to be forwarded.");
    }
    send(&api, &mut world, identity, fields, letter)
}

/// Whose mail it is, and the mail that the path names.
fn original<'a>(call: &Call, world: &'a World, id: &str) -> Result<(i64, &'a Mail), Refusal> {
    let (identity, scope) = call.writer(world)?;
    let id: i64 = id.parse().map_err(|_| Refusal::not_found())?;
    let found = world.mails.iter().find(|mail| mail.id == id && scope.sees(mail.identity));
    Ok((identity, found.ok_or_else(Refusal::not_found)?))
}

/// An address is not taken for the number that it belongs to.
fn check_inbox(call: &Call, world: &World, identity: i64) -> Result<(), Refusal> {
    let Some(asked) = call.params.given("inbox") else {
        return Err(Refusal::field("inbox", "This field is required."));
    };
    let wrong = |_| Refusal::field("inbox", "A valid integer is required.");
    let asked: i64 = asked.parse().map_err(wrong)?;
    let is_it = |inbox: i64| inbox == asked;
    let inbox_of = |id| world.identity(id)?.inbox.as_ref().map(|inbox| inbox.id);
    if inbox_of(identity).is_some_and(is_it) {
        return Ok(());
    }
    let is_foreign = world.identities.iter().any(|other| inbox_of(other.id).is_some_and(is_it));
    Err(if is_foreign { mismatch(world) } else { Refusal::not_found() })
}

fn answer(fields: &mut Fields, world: &World, identity: i64, original: &Mail) -> Letter {
    let to = match original.direction {
        Direction::Incoming => &original.from,
        Direction::Outgoing => &original.to,
    };
    Letter {
        to: to.clone(),
        subject: prefixed("Re: ", &original.subject),
        thread_id: Some(original.thread_id.clone()),
        ..draft(fields, world, identity)
    }
}

fn prefixed(prefix: &str, subject: &str) -> String {
    let has_it = subject.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if has_it { subject.to_owned() } else { format!("{prefix}{subject}") }
}

fn recipient(fields: &mut Fields) -> String {
    let to = fields.required("to_email");
    if !is_email(&to) {
        fields.wrong("to_email", "Enter a valid email address.");
    }
    to
}

/// What all four have in common.
fn draft(fields: &mut Fields, world: &World, identity: i64) -> Letter {
    let html = fields.required("content");
    Letter {
        to: String::new(),
        cc: addresses(fields, "cc"),
        bcc: addresses(fields, "bcc"),
        subject: String::new(),
        text: plain(&html),
        html,
        thread_id: None,
        attachments: attachments::named(fields, world, identity),
    }
}

fn addresses(fields: &mut Fields, name: &str) -> Vec<String> {
    let list = fields.list(name);
    if !list.iter().all(|address| is_email(address)) {
        fields.wrong(name, "Enter a valid email address.");
    }
    list
}

fn send(api: &Api, world: &mut World, identity: i64, mut fields: Fields, letter: Letter) -> Reply {
    fields.finish()?;
    let id = post_mail(api, world, identity, letter)?;
    let mail = world.mails.iter().find(|mail| mail.id == id).ok_or_else(Refusal::broken)?;
    with_status(StatusCode::CREATED, &detail_json(api, world, mail))
}

/// The text of HTML: tags left out, lines kept apart.
fn plain(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('<') {
        text.push_str(before);
        let (tag, after) = after.split_once('>').unwrap_or((after, ""));
        let name = tag.trim_start_matches('/').to_ascii_lowercase();
        if ["br", "p", "div", "li"].iter().any(|line| name.starts_with(line)) && !text.is_empty() {
            text.push('\n');
        }
        rest = after;
    }
    text.push_str(rest);
    let entities =
        [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    let text = entities.iter().fold(text, |text, (entity, character)| text.replace(entity, character));
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_html_has_no_tags() {
        assert_eq!(plain("<p>One &amp; <b>two</b></p><p>three<br/>four</p>"), "One & two\n\nthree\nfour");
        assert_eq!(plain("no tags, 1 &lt; 2"), "no tags, 1 < 2");
        assert_eq!(plain("cut <b"), "cut");
    }

    #[test]
    fn a_prefix_is_not_repeated() {
        assert_eq!(prefixed("Re: ", "Plan"), "Re: Plan");
        assert_eq!(prefixed("Re: ", "RE: Plan"), "RE: Plan");
        assert_eq!(prefixed("Fwd: ", "Re: Plan"), "Fwd: Re: Plan");
        assert_eq!(prefixed("Re: ", "日本"), "Re: 日本");
    }
}
