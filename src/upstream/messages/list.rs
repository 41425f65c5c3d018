//! Lists of mail: windows of a list whose order, shape and size are the server's choice.
//!
//! The newest client of Ravi reads a bare array, newest first; the schema says pages with a `count`, oldest first
//! (docs/ravi-api.md §3.6). So the order is told by the rows, else by the shape, and everything is sorted here. Windows
//! are asked for by `offset`; a `next` link is a sign that there is more, and is followed nowhere.
//! Invariants: at most [`MAX_REQUESTS`] requests and [`MAX_WEIGHT`] bytes of texts for one list. A window that is too
//! large is halved, and a mail that does not fit into one of its own is passed over: no mail keeps others from
//! being read. Long texts are left out on the way (`elide`), so that takes more than a long text. A list of nothing but
//! mail that names another identity is an empty one (`own`).

use std::collections::HashSet;

use jiff::Timestamp;

use super::super::api::HttpUpstream;
use super::super::call::Call;
use super::super::pins::Address;
use super::super::wire::{MALFORMED, Page};
use super::super::{AnswerFault, Mail, Result, UpstreamError};
use super::own::Owner;
use super::wire::MailRow;
use super::{MAILS, ROOM};
use crate::clock::BootInstant;
use crate::types::IdentityUuid;

/// Requests for one list, each tried again as reads are.
const MAX_REQUESTS: usize = 16;
/// Bytes of texts in one list; where the next mail would pass it, the list ends.
const MAX_WEIGHT: usize = 8 * 1024 * 1024;
/// Most rows that Ravi gives at once, and how many it gives unasked.
const MAX_WINDOW: usize = 200;
const USUAL_WINDOW: usize = 50;

const TOO_LARGE: UpstreamError = UpstreamError::Answer(AnswerFault::TooLarge);

impl HttpUpstream {
    /// The oldest mails after a time, oldest first.
    pub(super) async fn oldest_mail(
        &self,
        identity: IdentityUuid,
        after: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<Mail>> {
        let limit = limit.clamp(1, MAX_WINDOW);
        let mut walk = Walk::new(self, identity, after);
        let mut kept = Kept::new(End::Oldest, limit);
        let (mut offset, mut order) = (0, None);
        while let Some(window) = walk.window(Place::From(offset), limit).await? {
            offset += window.passed;
            order = window.order.or(order);
            walk.keep(&mut kept, window.rows).await?;
            // Of a list that begins with the newest, what is asked for stands at its end.
            if window.is_last || order == Some(Order::OldestFirst) && kept.is_full() {
                break;
            }
        }
        walk.done(kept)
    }

    /// The newest mails but `offset`, newest first.
    pub(super) async fn latest_mail(
        &self,
        identity: IdentityUuid,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<Mail>> {
        let limit = limit.clamp(1, MAX_WINDOW);
        let mut walk = Walk::new(self, identity, None);
        let mut kept = Kept::new(End::Newest, limit);
        if let Some(count) = walk.count().await? {
            let mut end = count.saturating_sub(offset);
            while end > 0 && !kept.is_full() {
                let room = limit - kept.rows.len();
                let Some(window) = walk.window(Place::UpTo(end), room).await? else { break };
                if window.order == Some(Order::NewestFirst) {
                    // Pages, and the newest first all the same.
                    kept = Kept::new(End::Newest, limit);
                    return walk.forward(offset, kept).await;
                }
                end -= window.passed.min(end);
                walk.keep(&mut kept, window.rows).await?;
            }
            return walk.done(kept);
        }
        walk.forward(offset, kept).await
    }
}

/// One list being read.
struct Walk<'a> {
    ravi: &'a HttpUpstream,
    identity: IdentityUuid,
    after: Option<Timestamp>,
    end: BootInstant,
    requests_left: usize,
    /// Rows to ask for at once: half after what was too large, twice after what was not.
    width: usize,
    seen: HashSet<i64>,
    named_another: bool,
}

/// Where a window lies, in the order of the list.
#[derive(Clone, Copy)]
enum Place {
    From(usize),
    UpTo(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    OldestFirst,
    NewestFirst,
}

struct Window {
    rows: Vec<MailRow>,
    /// `None`: the one mail in it was too large to be read.
    order: Option<Order>,
    /// Places of the list that it covers.
    passed: usize,
    is_last: bool,
    count: Option<usize>,
}

impl<'a> Walk<'a> {
    fn new(ravi: &'a HttpUpstream, identity: IdentityUuid, after: Option<Timestamp>) -> Self {
        let (end, requests_left, width) = (ravi.http.deadline(), MAX_REQUESTS, MAX_WINDOW);
        Self { ravi, identity, after, end, requests_left, width, seen: HashSet::new(), named_another: false }
    }

    /// At most `most` rows; `None` when no more requests may be made.
    async fn window(&mut self, place: Place, most: usize) -> Result<Option<Window>> {
        loop {
            let Some(left) = self.requests_left.checked_sub(1) else { return Ok(None) };
            self.requests_left = left;
            // Somebody floods the inbox: there is more to look through than was asked for.
            let most = if self.named_another { MAX_WINDOW } else { most };
            let (offset, asked) = match place {
                Place::From(offset) => (offset, self.width.min(most)),
                Place::UpTo(end) => {
                    let asked = self.width.min(most).min(end);
                    (end - asked, asked)
                }
            };
            match self.fetch(offset, asked).await {
                Ok(page) => {
                    if asked == self.width {
                        self.width = (asked * 2).min(MAX_WINDOW);
                    }
                    return self.read(page, place, asked).map(Some);
                }
                Err(TOO_LARGE) if asked > 1 => self.width = asked / 2,
                Err(TOO_LARGE) => {
                    let rows = Vec::new();
                    return Ok(Some(Window { rows, order: None, passed: 1, is_last: false, count: None }));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn fetch(&self, offset: usize, limit: usize) -> Result<Page<MailRow>> {
        let mut call = Call::get(MAILS).of(self.identity).with_room(ROOM);
        if let Some(after) = self.after {
            call = call.query("created_after", after);
        }
        call = call.query("limit", limit);
        if offset > 0 {
            call = call.query("offset", offset);
        }
        self.ravi.http.fetch_until(&call, self.end).await
    }

    fn read(&mut self, page: Page<MailRow>, place: Place, asked: usize) -> Result<Window> {
        let got = page.rows.len();
        let count = page.count.and_then(|count| usize::try_from(count).ok());
        let is_paged = page.count.is_some() || page.next.is_some();
        if page.rows.iter().any(|row| row.id <= 0) {
            return Err(MALFORMED);
        }
        let order = match (page.rows.first(), page.rows.last()) {
            (Some(first), Some(last)) if first.created_dt > last.created_dt => Order::NewestFirst,
            (Some(first), Some(last)) if first.created_dt < last.created_dt => Order::OldestFirst,
            _ if is_paged => Order::OldestFirst,
            _ => Order::NewestFirst,
        };
        let after = self.after;
        let fresh =
            |row: &MailRow| self.seen.insert(row.id) && after.is_none_or(|after| row.created_dt > after);
        let rows: Vec<MailRow> = page.rows.into_iter().filter(fresh).collect();
        // More than was asked for: `limit` is not heard of, and that was everything.
        let is_short = got < asked.min(USUAL_WINDOW) || got > asked;
        let is_last = got == 0 || if is_paged { page.next.is_none() } else { is_short || rows.is_empty() };
        let passed = match place {
            Place::From(_) => got,
            Place::UpTo(_) => asked,
        };
        Ok(Window { rows, order: Some(order), passed, is_last, count })
    }

    /// How many mails there are, if the list says so: that begins with the oldest then.
    async fn count(&mut self) -> Result<Option<usize>> {
        let mut offset = 0;
        while let Some(window) = self.window(Place::From(offset), 1).await? {
            if window.order.is_some() {
                self.seen.clear();
                self.width = MAX_WINDOW;
                return Ok(window.count);
            }
            offset += 1;
        }
        Err(TOO_LARGE)
    }

    /// The rest of a list that begins with the newest.
    async fn forward(mut self, mut offset: usize, mut kept: Kept) -> Result<Vec<Mail>> {
        self.seen.clear();
        while !kept.is_full() {
            let room = kept.limit - kept.rows.len();
            let Some(window) = self.window(Place::From(offset), room).await? else { break };
            offset += window.passed;
            self.keep(&mut kept, window.rows).await?;
            if window.is_last {
                break;
            }
        }
        self.done(kept)
    }

    /// Keeps what is ours. What another's mail puts in doubt takes no room from what is surely ours.
    async fn keep(&mut self, kept: &mut Kept, rows: Vec<MailRow>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let own = self.ravi.own_address(self.identity, Address::Email, self.end).await?;
        for row in rows {
            let owner = self.ravi.owner(self.identity, &own, &row)?;
            self.named_another |= owner == Owner::Another;
            kept.rows.push((row, owner));
        }
        let named_another = self.named_another;
        kept.rows.retain(|(_, owner)| match owner {
            Owner::Us => true,
            Owner::Unsaid => !named_another,
            Owner::Another => false,
        });
        kept.trim();
        Ok(())
    }

    fn done(self, kept: Kept) -> Result<Vec<Mail>> {
        match kept.rows.is_empty() {
            true if self.requests_left == 0 => Err(TOO_LARGE),
            _ => Ok(kept.rows.into_iter().map(|(row, _)| row.into()).collect()),
        }
    }
}

/// Which rows are kept where not all are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Oldest,
    Newest,
}

/// The rows to be returned, in their order.
struct Kept {
    rows: Vec<(MailRow, Owner)>,
    end: End,
    limit: usize,
    is_heavy: bool,
}

impl Kept {
    fn new(end: End, limit: usize) -> Self {
        Self { rows: Vec::new(), end, limit, is_heavy: false }
    }

    fn is_full(&self) -> bool {
        self.is_heavy || self.rows.len() >= self.limit
    }

    /// Sorts, and drops what is beyond the bounds.
    fn trim(&mut self) {
        self.rows.sort_by_key(|(row, _)| (row.created_dt, row.id));
        if self.end == End::Newest {
            self.rows.reverse();
        }
        self.rows.truncate(self.limit);
        let mut weight = 0;
        let fits = |(row, _): &&(MailRow, Owner)| {
            weight += row.weight();
            weight <= MAX_WEIGHT
        };
        let light = self.rows.iter().take_while(fits).count().max(1);
        self.is_heavy = light < self.rows.len();
        self.rows.truncate(light);
    }
}
