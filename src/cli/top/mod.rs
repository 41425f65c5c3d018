//! `top`: the daemon live, on the whole screen, and keys that act on it.
//!
//! `state` and `rows` are what is shown, `view` how it is drawn, `keys` what a key means: all pure. `term` is the
//! terminal. Here is the loop: one task asks the daemon every second, one thread reads keys, and acts are done one at
//! a time. The client connects again by itself, so a daemon that is restarted comes back on the screen. May import
//! `client` and `clock`.

#[cfg(test)]
mod fixture;
mod keys;
mod rows;
mod state;
mod term;
mod view;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use self::state::{Act, Event, Model, Picture};
use self::term::Screen;
use super::args::Top;
use super::context::Context;
use super::error::CliError;
use super::output::{coloured, count};
use super::status;
use crate::client::{AdminClient, ClientError};
use crate::clock::{Clock, SystemClock};

/// Between two pictures.
const EVERY: Duration = Duration::from_secs(1);
/// A picture that takes longer is given up.
const LONGEST: Duration = Duration::from_secs(5);
/// Records of the trail in a picture.
const RECORDS: u32 = 100;
/// What may wait to be shown.
const EVENTS: usize = 16;
/// What is noted in the trail as the purpose.
const REASON: &str = "top";

pub(super) async fn run(context: &mut Context, args: &Top) -> Result<(), CliError> {
    if context.out.is_json() {
        return status::run(context).await;
    }
    let client = context.admin().await?;
    let picture = look(&client, context.clock).await?;
    let mut model = Model::default();
    model.apply(Event::Picture(Box::new(picture)));
    if args.once || !context.out.is_terminal() {
        return context.out.page(|page| view::print(&model, page)).map_err(CliError::Output);
    }
    let colour = coloured(context.global.color, io::stdout().is_terminal());
    let screen = Screen::take(colour).map_err(CliError::Output)?;
    live(Arc::new(client), context.clock, model, screen).await.map_err(CliError::Output)
}

/// Shows what comes, and does what is asked for, until the person or a signal ends it.
async fn live(
    client: Arc<AdminClient>,
    clock: SystemClock,
    mut model: Model,
    mut screen: Screen,
) -> io::Result<()> {
    let (tell, mut events) = mpsc::channel(EVENTS);
    let again = Arc::new(Notify::new());
    let polling = tokio::spawn(poll(client.clone(), clock, tell.clone(), again.clone()));
    term::tell_keys(tell.clone());
    let [mut terminate, mut hangup, mut interrupt] =
        [signal(SignalKind::terminate())?, signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?];
    loop {
        screen.draw(&model)?;
        let event = tokio::select! {
            Some(event) = events.recv() => event,
            _ = terminate.recv() => Event::End,
            _ = hangup.recv() => Event::End,
            _ = interrupt.recv() => Event::End,
        };
        match model.apply(event) {
            Some(Act::Quit) => break,
            Some(act) => {
                let done = tokio::time::timeout(LONGEST, perform(&client, act)).await;
                let done = done.unwrap_or_else(|_| {
                    Err("the daemon does not answer; whether it was done is not known".into())
                });
                model.apply(Event::Done(done));
                again.notify_one();
            }
            None => {}
        }
    }
    polling.abort();
    Ok(())
}

/// Asks the daemon every second, and at once after an act.
async fn poll(client: Arc<AdminClient>, clock: SystemClock, tell: mpsc::Sender<Event>, again: Arc<Notify>) {
    loop {
        let _ = tokio::time::timeout(EVERY, again.notified()).await;
        let event = match tokio::time::timeout(LONGEST, look(&client, clock)).await {
            Ok(Ok(picture)) => Event::Picture(Box::new(picture)),
            Ok(Err(_)) | Err(_) => Event::Lost,
        };
        if tell.send(event).await.is_err() {
            return;
        }
    }
}

async fn look(client: &AdminClient, clock: SystemClock) -> Result<Picture, ClientError> {
    let status = client.status().await?;
    let sessions = client.sessions().await?;
    let leases = client.leases(None).await?;
    let attention = client.approvals().await?;
    let records = client.tail_audit(RECORDS, false).await?;
    let audit: Vec<Result<String, ClientError>> = records.collect().await;
    let audit = audit.into_iter().collect::<Result<_, _>>()?;
    Ok(Picture { status, sessions, leases, attention, audit, at: clock.now() })
}

/// What the person is told of it.
async fn perform(client: &AdminClient, act: Act) -> Result<String, String> {
    let done = match act {
        Act::Revoke(target) => client.revoke(target, REASON).await.map(|revoked| {
            let [sessions, leases] = [(revoked.sessions, "session"), (revoked.leases, "lease")]
                .map(|(number, thing)| count(number.into(), thing));
            let shown = revoked.exposed_resources.join(", ");
            let rotate =
                if shown.is_empty() { String::new() } else { format!("; rotate what was shown: {shown}") };
            format!("ended: {sessions}, {leases}{rotate}")
        }),
        Act::Lock => client.lock(REASON).await.map(|_| "locked; the broker holds no secret".into()),
        Act::Unlock => client.unlock().await.map(|unlocked| match unlocked.management_key_held {
            true => "the broker serves again".into(),
            false => "the broker serves again, and holds no key: run `ravi-broker login`".into(),
        }),
        Act::Decide(id, said) => client.decide_approval(id, said).await.map(|()| "decided".into()),
        Act::Quit => return Ok(String::new()),
    };
    done.map_err(|error| {
        let text = error.to_string();
        super::page::harmless(text.lines().next().unwrap_or_default())
    })
}
