//! The rule of questions and answers, by example and by any sequence of events.

use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_secs(120);
const BOUNDS: Bounds = Bounds { role: 6, session: 3, wait: WAIT };
const START: BootInstant = BootInstant::from_nanos(1_000_000_000);

fn id(number: u8) -> ApprovalId {
    ApprovalId([number; 16])
}

fn ask(book: &mut Book<u32>, name: u8, request: Request, waiter: u32) -> Result<Asking, Full> {
    book.ask(START, id(name), request, BOUNDS, waiter)
}

fn waits(asking: Result<Asking, Full>) -> (ApprovalId, bool) {
    match asking {
        Ok(Asking::Waits { id, is_new, .. }) => (id, is_new),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_thousand_equal_requests_are_one_question_for_so_many_and_the_others_are_refused() {
    let mut book = Book::default();
    let outcomes: Vec<_> =
        (0..1000).map(|waiter| ask(&mut book, 1, Request::imagined(1, "secret/A", None), waiter)).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), MAX_WAITING);
    assert_eq!(book.list(START).len(), 1);
    assert_eq!(book.list(START)[0].waiting, MAX_WAITING);
}

#[test]
fn whatever_differs_is_another_question() {
    let mut book = Book::default();
    let first = Request::imagined(1, "secret/A", Some("deploy"));
    let executable = crate::peer::Executable { device: 1, inode: 2, path: "/usr/bin/other".into() };
    let delivery = Some(crate::types::Delivery::File);
    let others = [
        Request { session: SessionId([2; 16]), ..first.clone() },
        Request { executable: Some(executable), ..first.clone() },
        Request { wish: Wish { about: "secret/B".into(), ..first.wish.clone() }, ..first.clone() },
        Request { wish: Wish { verb: "secret:read", ..first.wish.clone() }, ..first.clone() },
        Request { wish: Wish { delivery, ..first.wish.clone() }, ..first.clone() },
        Request { content: Some(super::super::Fingerprint([1; 32])), ..first.clone() },
        Request { reason: None, ..first.clone() },
    ];
    let wide = Bounds { role: 100, session: 100, wait: WAIT };
    book.ask(START, id(1), first.clone(), wide, 0).unwrap();
    for (at, other) in (2..).zip(others) {
        assert_eq!(waits(book.ask(START, id(at), other, wide, 0)), (id(at), true));
    }
    assert_eq!(waits(book.ask(START, id(99), Request { pid: Some(78), ..first }, wide, 0)), (id(1), false));
}

#[test]
fn one_use_goes_to_one_call_and_the_others_wait_on_under_another_name() {
    let mut book = Book::default();
    for waiter in 0..3 {
        ask(&mut book, 1, Request::imagined(1, "secret/A", None), waiter).unwrap();
    }
    let decided = book.decide(START, id(1), Decision::Once, id(2)).unwrap();
    assert!(decided.goes_on);
    assert!(matches!(&decided.told[..], [(0, Verdict::Allowed(_))]), "{:?}", decided.told);
    // The same click twice allows no second use.
    assert!(book.decide(START, id(1), Decision::Once, id(3)).is_none());
    assert_eq!(book.list(START)[0].id, id(2));
    assert_eq!(book.list(START)[0].waiting, 2);
}

#[test]
fn one_use_that_nobody_waits_for_keeps_until_the_equal_request_comes_back() {
    let mut book = Book::default();
    let request = || Request::imagined(1, "secret/A", Some("deploy"));
    let Ok(Asking::Waits { ticket, .. }) = ask(&mut book, 1, request(), 0) else { panic!() };
    book.leave(ticket);
    assert!(book.decide(START, id(1), Decision::Once, id(2)).unwrap().told.is_empty());
    let other = Request::imagined(1, "secret/A", Some("another"));
    assert_eq!(waits(ask(&mut book, 3, other, 0)), (id(3), true));
    assert!(matches!(ask(&mut book, 4, request(), 0), Ok(Asking::Settled(Verdict::Allowed(_)))));
    assert_eq!(waits(ask(&mut book, 5, request(), 0)), (id(5), true), "it was spent");
    let late = START + WAIT;
    book.decide(START, id(5), Decision::Once, id(6)).unwrap();
    assert!(matches!(book.ask(late, id(7), request(), BOUNDS, 0), Ok(Asking::Waits { is_new: true, .. })));
}

#[test]
fn an_allowance_for_a_while_ends_with_it() {
    let mut book = Book::default();
    let request = || Request::imagined(1, "secret/A", None);
    for waiter in 0..3 {
        ask(&mut book, 1, request(), waiter).unwrap();
    }
    let decided = book.decide(START, id(1), Decision::For(10 * WAIT), id(2)).unwrap();
    assert_eq!((decided.told.len(), decided.goes_on), (3, false));
    for at in 0..10 {
        let now = START + at * WAIT;
        assert!(matches!(
            book.ask(now, id(9), request(), BOUNDS, 0),
            Ok(Asking::Settled(Verdict::Allowed(_)))
        ));
    }
    let asking = book.ask(START + 10 * WAIT, id(9), request(), BOUNDS, 0);
    assert!(matches!(asking, Ok(Asking::Waits { is_new: true, .. })));
}

#[test]
fn a_refusal_stays_one_on_any_pretext() {
    let mut book = Book::default();
    ask(&mut book, 1, Request::imagined(1, "secret/A", None), 0).unwrap();
    let decided = book.decide(START, id(1), Decision::Deny, id(2)).unwrap();
    assert_eq!(decided.told, [(0, Verdict::Denied)]);
    for number in 0..1000 {
        let again = Request::imagined(1, "secret/A", Some(&format!("urgent {number}")));
        assert!(matches!(ask(&mut book, 3, again, 0), Ok(Asking::Settled(Verdict::Denied))));
    }
    assert_eq!(book.len(), 0);
    assert_eq!(waits(ask(&mut book, 3, Request::imagined(1, "secret/B", None), 0)), (id(3), true));
    let later = START + DENIED_FOR;
    let again = book.ask(later, id(4), Request::imagined(1, "secret/A", None), BOUNDS, 0);
    assert!(matches!(again, Ok(Asking::Waits { is_new: true, .. })));
}

#[test]
fn questions_are_bounded_for_a_session_for_a_role_and_in_all() {
    let mut book = Book::default();
    let name = |number: usize| format!("secret/A{number}");
    let mut open = |session: u8, number: usize, role: &str| {
        let request =
            Request { role: role.parse().unwrap(), ..Request::imagined(session, &name(number), None) };
        book.ask(START, id(1), request, BOUNDS, 0).map(drop)
    };
    (0..3).for_each(|number| open(1, number, "notes").unwrap());
    assert_eq!(open(1, 3, "notes"), Err(Full("approval.session_pending")));
    (0..3).for_each(|number| open(2, number, "notes").unwrap());
    assert_eq!(open(3, 0, "notes"), Err(Full("approval.max_pending")));
    let left = MAX_OPEN - 6;
    for number in 0..left {
        let session = u8::try_from(10 + number / 3).unwrap();
        open(session, number, &format!("role-{}", number / 6)).unwrap();
    }
    assert_eq!(open(250, 0, "last"), Err(Full("approvals that wait")));
}

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    Ask { session: u8, about: u8, reason: u8 },
    Decide { which: usize, decision: u8 },
    Leave { which: usize },
    EndSession(u8),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4_u8, 0..3_u8, 0..2_u8)
            .prop_map(|(session, about, reason)| Step::Ask { session, about, reason }),
        3 => (0..8_usize, 0..3_u8).prop_map(|(which, decision)| Step::Decide { which, decision }),
        2 => (0..32_usize).prop_map(|which| Step::Leave { which }),
        1 => (0..4_u8).prop_map(Step::EndSession),
        2 => (0..150_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..200)
}

/// What the world outside of the book knows: who waits for what, and what was allowed.
#[derive(Default)]
struct World {
    now: u64,
    names: u8,
    /// Waiter, ticket, and what it asked.
    waiting: Vec<(u32, u64, (u8, u8, u8))>,
    waiters: u32,
    once_decided: usize,
    once_used: usize,
}

impl World {
    fn at(&self) -> BootInstant {
        START + Duration::from_secs(self.now)
    }

    fn told(&mut self, waiter: u32, verdict: &Verdict) {
        let at = self.waiting.iter().position(|(waiting, ..)| *waiting == waiter);
        let (_, _, (session, about, _)) = self.waiting.remove(at.expect("nobody is told twice"));
        if let Verdict::Allowed(approval) = verdict {
            assert_eq!(approval.request.session, SessionId([session; 16]));
            assert_eq!(approval.wish().about, format!("secret/A{about}"));
            self.once_used += usize::from(approval.once.is_some());
        }
    }

    fn step(&mut self, book: &mut Book<u32>, step: Step) {
        match step {
            Step::Ask { session, about, reason } => self.ask(book, (session, about, reason)),
            Step::Decide { which, decision } => self.decide(book, which, decision),
            Step::Leave { which } => {
                if which < self.waiting.len() {
                    let (_, ticket, _) = self.waiting.remove(which);
                    book.leave(ticket);
                }
            }
            Step::EndSession(session) => {
                for over in book.end_session(SessionId([session; 16])) {
                    over.waiting.into_iter().for_each(|waiter| self.told(waiter, &Verdict::Expired));
                }
                assert!(self.waiting.iter().all(|(_, _, asked)| asked.0 != session), "nobody is forgotten");
            }
            Step::Pass(seconds) => {
                self.now += seconds;
                for over in book.expire(self.at()) {
                    over.waiting.into_iter().for_each(|waiter| self.told(waiter, &Verdict::Expired));
                }
            }
        }
    }

    fn ask(&mut self, book: &mut Book<u32>, asked: (u8, u8, u8)) {
        let (session, about, reason) = asked;
        let request =
            Request::imagined(session, &format!("secret/A{about}"), Some(&format!("reason {reason}")));
        self.names = self.names.wrapping_add(1);
        self.waiters += 1;
        match book.ask(self.at(), id(self.names), request, BOUNDS, self.waiters) {
            Ok(Asking::Settled(Verdict::Allowed(approval))) => {
                self.once_used += usize::from(approval.once.is_some());
            }
            Ok(Asking::Waits { ticket, ends_at, .. }) => {
                assert!(
                    self.at() < ends_at && ends_at <= self.at() + WAIT,
                    "it is decided in the time stated"
                );
                self.waiting.push((self.waiters, ticket, asked));
            }
            Ok(Asking::Settled(_)) | Err(_) => {}
        }
    }

    fn decide(&mut self, book: &mut Book<u32>, which: usize, decision: u8) {
        let listed = book.list(self.at());
        let Some(pending) = listed.get(which) else { return };
        let decision = match decision {
            0 => Decision::Once,
            1 => Decision::For(Duration::from_secs(60)),
            _ => Decision::Deny,
        };
        self.once_decided += usize::from(decision == Decision::Once);
        self.names = self.names.wrapping_add(1);
        let decided = book.decide(self.at(), pending.id, decision, id(self.names)).expect("it waits");
        decided.told.iter().for_each(|(waiter, verdict)| self.told(*waiter, verdict));
    }

    fn check(&self, book: &Book<u32>) {
        let open = &book.open;
        for (at, question) in open.iter().enumerate() {
            assert!(
                open[..at].iter().all(|other| !other.request.is(&question.request)),
                "one question twice"
            );
            let of_session = open.iter().filter(|other| other.request.session == question.request.session);
            assert!(of_session.count() <= BOUNDS.session);
        }
        assert!(open.len() <= BOUNDS.role, "all are of one role");
        let waiting: usize = open.iter().map(|question| question.waiting.len()).sum();
        assert_eq!(waiting, self.waiting.len(), "whoever waits is known");
        assert!(self.once_used <= self.once_decided, "one use is one use");
    }
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_the_rule(steps in steps()) {
        let (mut book, mut world) = (Book::default(), World::default());
        for step in steps {
            world.step(&mut book, step);
            world.check(&book);
        }
    }
}
