//! How fast output passes the mask of `ravi-broker run`: MB/s, and the share of a plain copy of the same
//! output in the same run, which says the same on a slow host. `cargo bench --bench mask`.

use std::hint::black_box;
use std::time::Duration;

use ravi_broker::cli::mask::Mask;
use ravi_broker::secret::Secret;

/// Output of one run.
const BYTES: usize = 1 << 20;
/// What a reader of a pipe usually gets at once.
const CHUNK: usize = 64 * 1024;
/// Runs of which the fastest counts: short and many, so that some are left alone by other programs.
const RUNS: usize = 100;

#[expect(clippy::print_stdout, reason = "the result is the output")]
fn main() {
    let values: Vec<Secret> = (0..10).map(value).collect();
    let Ok(mask) = Mask::new(values.iter()) else { return };
    let prose =
        include_str!("../ARCHITECTURE.md").repeat(1 + BYTES / include_str!("../ARCHITECTURE.md").len());
    let code = include_str!("mask.rs").repeat(1 + BYTES / include_str!("mask.rs").len());
    let json = record().repeat(1 + BYTES / record().len());
    let base64 = noise(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    let near: String = values.iter().map(near_miss).collect();
    let near = near.repeat(1 + BYTES / near.len());
    println!("{:<12}{:>10}{:>12}{:>10}", "output", "MB/s", "copy MB/s", "share");
    for (name, text) in
        [("prose", &prose), ("code", &code), ("json", &json), ("base64", &base64), ("near misses", &near)]
    {
        report(name, &mask, &text.as_bytes()[..BYTES]);
    }
}

#[expect(clippy::print_stdout, reason = "the result is the output")]
fn report(name: &str, mask: &Mask, output: &[u8]) {
    let mut out = Vec::with_capacity(2 * CHUNK);
    let masked = fastest(|| {
        let mut stream = mask.stream();
        for chunk in output.chunks(CHUNK) {
            out.clear();
            stream.feed(chunk, &mut out);
            black_box(&out);
        }
        stream.finish(&mut out);
    });
    let copied = fastest(|| {
        for chunk in output.chunks(CHUNK) {
            out.clear();
            out.extend_from_slice(chunk);
            black_box(&out);
        }
    });
    let speed = |time: Duration| output.len() as f64 / 1e6 / time.as_secs_f64();
    let (masked, copied) = (speed(masked), speed(copied));
    println!("{name:<12}{masked:>10.0}{copied:>12.0}{:>10.4}", masked / copied);
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures the time that passes")]
fn fastest(mut run: impl FnMut()) -> Duration {
    let times = (0..RUNS).map(|_| {
        let start = std::time::Instant::now();
        run();
        start.elapsed()
    });
    times.min().unwrap_or_default()
}

/// The kinds of value that agents get: tokens, passwords, a URL.
fn value(n: u64) -> Secret {
    let random: String =
        letters(n, b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789").take(36).collect();
    Secret::new(match n {
        0 => format!("ghp_{random}"),
        1 => format!("sk-proj-{random}{random}"),
        2 => format!("postgres://app:{}@db.internal:5432/app", &random[..16]),
        3 => format!("{} {}", &random[..7], &random[9..15]),
        _ => random,
    })
}

/// All of a value but its last letter, as it is and in hexadecimal.
fn near_miss(value: &Secret) -> String {
    let text = &value.expose()[..value.len() - 1];
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{text}|{hex}|")
}

fn record() -> &'static str {
    concat!(
        r#"{"time":"2026-01-15T10:11:12.131415Z","level":"info","message":"request \"GET /api/v1/items?"#,
        r#"page=2&size=50\" done\n","status":200,"took_ms":12.7,"path":"C:\\srv\\app","id":"7d4f-12"}"#,
        "\n"
    )
}

fn noise(alphabet: &[u8]) -> String {
    letters(99, alphabet).take(BYTES).collect()
}

/// Letters from a xorshift generator (Marsaglia, 2003).
fn letters(seed: u64, alphabet: &[u8]) -> impl Iterator<Item = char> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(alphabet[(state >> 33) as usize % alphabet.len()])
    })
}
