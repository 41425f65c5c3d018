//! Batches of JSON-RPC: the answers to one batch go out together. Bounded by the calls under way. Pure;
//! imports nothing of this crate.

use rmcp::model::RequestId;

/// The batches that wait for answers.
#[derive(Default)]
pub(super) struct Batches(Vec<Batch>);

/// One batch.
#[derive(Default)]
pub(super) struct Batch {
    waiting: Vec<RequestId>,
    answers: Vec<Vec<u8>>,
}

/// What became of an answer.
pub(super) enum Collected {
    /// It belongs to no batch.
    Alone(Vec<u8>),
    /// Others of its batch are still to come.
    Kept,
    /// It was the last one: the whole array.
    Complete(Vec<u8>),
}

impl Batch {
    pub(super) fn expect(&mut self, id: RequestId) {
        self.waiting.push(id);
    }

    pub(super) fn answer(&mut self, answer: Vec<u8>) {
        self.answers.push(answer);
    }

    /// The array, once nothing is waited for. `None` where there is nothing to say.
    fn whole(self) -> Option<Vec<u8>> {
        (!self.answers.is_empty()).then(|| [b"[".as_slice(), &self.answers.join(&b','), b"]"].concat())
    }
}

impl Batches {
    /// Begins to wait for a batch. Returns its answer if none of it has to be waited for.
    pub(super) fn add(&mut self, batch: Batch) -> Option<Vec<u8>> {
        if batch.waiting.is_empty() {
            return batch.whole();
        }
        self.0.push(batch);
        None
    }

    /// An answer is there.
    pub(super) fn collect(&mut self, id: &RequestId, answer: Vec<u8>) -> Collected {
        let Some(at) = self.settle(id) else { return Collected::Alone(answer) };
        self.0[at].answer(answer);
        self.completed(at).map_or(Collected::Kept, Collected::Complete)
    }

    /// There will be no answer: the request was cancelled. Returns the batch if it was waiting for it alone.
    pub(super) fn give_up(&mut self, id: &RequestId) -> Option<Vec<u8>> {
        let at = self.settle(id)?;
        self.completed(at)
    }

    /// Finds the batch that waits for the request, which it does no longer.
    fn settle(&mut self, id: &RequestId) -> Option<usize> {
        let at = self.0.iter().position(|batch| batch.waiting.contains(id))?;
        let waiting = &mut self.0[at].waiting;
        let found = waiting.iter().position(|other| other == id)?;
        waiting.swap_remove(found);
        Some(at)
    }

    fn completed(&mut self, at: usize) -> Option<Vec<u8>> {
        if !self.0[at].waiting.is_empty() {
            return None;
        }
        self.0.swap_remove(at).whole()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(ids: &[i64]) -> Batch {
        let mut batch = Batch::default();
        ids.iter().for_each(|id| batch.expect(RequestId::Number(*id)));
        batch
    }

    #[test]
    fn the_answers_to_a_batch_go_out_together_and_without_those_given_up() {
        let mut batches = Batches::default();
        assert!(batches.add(batch(&[1, 2, 3])).is_none());
        assert!(batches.add(batch(&[4])).is_none());
        let id = RequestId::Number;
        assert!(matches!(batches.collect(&id(9), b"9".to_vec()), Collected::Alone(_)));
        assert!(matches!(batches.collect(&id(2), b"2".to_vec()), Collected::Kept));
        assert!(batches.give_up(&id(1)).is_none());
        assert!(
            matches!(batches.collect(&id(3), b"3".to_vec()), Collected::Complete(all) if all == b"[2,3]")
        );
        assert!(batches.give_up(&id(4)).is_none(), "there is nothing to answer");
        assert!(batches.0.is_empty());
    }
}
