//! Lists of text messages. Ravi has no pages for them: a list is all of them, or, where that is too large, what the
//! conversations with the latest messages hold.

use super::super::api::HttpUpstream;
use super::super::call::Call;
use super::super::pins::{Address, FOREIGN};
use super::super::wire::MALFORMED;
use super::super::{AnswerFault, Direction, Result, Text, UpstreamError};
use super::wire::{Talk, TalkRow, TextRow};
use super::{ROOM, TEXTS};
use crate::clock::BootInstant;
use crate::types::IdentityUuid;

const TALKS: &str = "/api/sms-inbox/";
const TALK: &str = "/api/sms-inbox/{id}/";
/// Conversations that are read for one list.
const MAX_TALKS: usize = 14;
/// Bytes of texts that are kept of them.
const MAX_WEIGHT: usize = 8 * 1024 * 1024;

impl HttpUpstream {
    /// Newest first, those up to the number `after` left out.
    pub(super) async fn texts_after(&self, identity: IdentityUuid, after: Option<i64>) -> Result<Vec<Text>> {
        let end = self.http.deadline();
        let all = self.http.list(Call::get(TEXTS).of(identity).with_room(ROOM), end).await;
        let rows = match all {
            Err(UpstreamError::Answer(AnswerFault::TooLarge)) => {
                self.latest_talks(identity, after, end).await?
            }
            rows => rows?,
        };
        if rows.iter().any(|row: &TextRow| row.id <= 0) {
            return Err(MALFORMED);
        }
        self.check_texts(identity, &rows, end).await?;
        let mut texts: Vec<Text> = rows.into_iter().map(Text::from).collect();
        texts.retain(|text| after.is_none_or(|after| text.id > after));
        texts.sort_by_key(|text| std::cmp::Reverse((text.created, text.id)));
        Ok(texts)
    }

    /// The messages of the latest conversations, until one holds nothing new. One that is too large is passed over.
    async fn latest_talks(
        &self,
        identity: IdentityUuid,
        after: Option<i64>,
        end: BootInstant,
    ) -> Result<Vec<TextRow>> {
        let own = self.own_address(identity, Address::Phone, end).await?;
        let talks = Call::get(TALKS).of(identity).with_room(ROOM);
        let mut talks: Vec<TalkRow> = self.http.list(talks, end).await?;
        if talks.iter().any(|talk| talk.phone_number.0 != own) {
            return Err(FOREIGN);
        }
        talks.sort_by_key(|talk| std::cmp::Reverse(talk.latest_message_dt));
        let (mut rows, mut weight) = (Vec::new(), 0);
        for talk in talks.iter().take(MAX_TALKS) {
            let call = Call::get(TALK).object(&talk.conversation_id)?.of(identity).with_room(ROOM);
            let read: Talk = match self.http.fetch_until(&call, end).await {
                // Too large, or gone since.
                Err(UpstreamError::Answer(AnswerFault::TooLarge) | UpstreamError::NotFound) => continue,
                read => read?,
            };
            if read.conversation_id != talk.conversation_id {
                return Err(FOREIGN);
            }
            let is_new = read.messages.iter().any(|row| after.is_none_or(|after| row.id > after));
            weight += read.messages.iter().map(TextRow::weight).sum::<usize>();
            if !is_new || weight > MAX_WEIGHT {
                break;
            }
            rows.extend(read.messages.into_iter().map(|row| row.between(&talk.from_number.0, &own)));
        }
        Ok(rows)
    }
}

impl TextRow {
    /// A row of a conversation says its direction alone.
    fn between(mut self, other: &str, own: &str) -> Self {
        let (from, to) = match self.direction.0 {
            Some(Direction::Incoming) => (other, own),
            _ => (own, other),
        };
        (self.from_number.0, self.to_number.0) = (from.to_owned(), to.to_owned());
        self
    }
}
