//! The sealing key: where the kernel lets root see its page, its bytes are nowhere else.

use aho_corasick::AhoCorasick;

use crate::frozen::Frozen;
use crate::memory::{mappings, may_look, read_all, skip};
use crate::stage::Stage;

const PAGE: u64 = 4096;
const HALF: usize = 16;

/// What the locked pages of a process hold, in halves of a key, and the addresses of these pages.
pub(crate) struct KeyPages {
    halves: Vec<Vec<u8>>,
    starts: Vec<u64>,
}

impl KeyPages {
    /// `None`: there is none that can be read, as under memfd_secret.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let _frozen = Frozen::new(pid);
        let locked = |flags: &[&str]| {
            let all = mappings(pid);
            let is_one = move |page: &crate::memory::Mapping| {
                page.end - page.start == PAGE && flags.iter().all(|flag| page.has(flag))
            };
            all.into_iter().filter(|page| is_one(page)).map(|page| page.start).collect::<Vec<_>>()
        };
        let starts = locked(&["lo", "dd", "wf"]);
        let mut halves = Vec::new();
        read_all(pid, |mapping, content| {
            if starts.contains(&mapping.start) {
                // Random bytes differ from each other; counters and padding do not.
                let random =
                    |half: &&[u8]| half.iter().collect::<std::collections::BTreeSet<_>>().len() >= HALF / 2;
                halves.extend(content.chunks_exact(HALF).filter(random).map(<[u8]>::to_vec));
            }
        });
        (!halves.is_empty()).then_some(Self { halves, starts })
    }

    /// How often a half occurs in a text.
    pub(crate) fn count_in(&self, text: &[u8]) -> usize {
        AhoCorasick::new(&self.halves).expect("a few halves").find_overlapping_iter(text).count()
    }

    /// Where their halves are besides.
    fn elsewhere(&self, pid: i32) -> Vec<String> {
        let _frozen = Frozen::new(pid);
        let automaton = AhoCorasick::new(&self.halves).expect("a few halves");
        let mut places = Vec::new();
        read_all(pid, |mapping, content| {
            if !self.starts.contains(&mapping.start) {
                let hits = automaton.find_overlapping_iter(content);
                places.extend(
                    hits.map(|hit| format!("{} +{:#x}", mapping.place(hit.start() as u64), hit.start())),
                );
            }
        });
        places
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sealing_key_is_on_its_page_alone_and_gone_after_a_lock() {
    if !may_look() {
        return;
    }
    let mut stage = Stage::set().await;
    stage.plant_secret("CANARY");
    let agent = stage.agent("notes").await;
    for _ in 0..100 {
        agent.acquire("secret/CANARY", None, "").await.unwrap();
    }
    let pid = stage.stack.daemon.pid();
    let Some(key) = KeyPages::find(pid) else {
        skip("no page of a sealing key can be read");
        return;
    };
    let resting = key.elsewhere(pid);
    stage.stack.admin().await.lock("").await.unwrap();
    // The page may be used again, for another key.
    let locked = KeyPages { starts: Vec::new(), ..key }.elsewhere(pid);
    assert!(resting.is_empty() && locked.is_empty(), "resting: {resting:#?}\nlocked: {locked:#?}");
}
