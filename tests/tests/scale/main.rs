//! Ten thousand isolates in this process. What is counted here does not depend on how busy the machine is; times are
//! measured by `cargo xtask scale`.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

use std::{fs, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};
use llambo_inference::{AnswerEvent, GenerateRequest, Models, Node, Priority, Prompt, Sampling, Share, fake::FakeEngine};
use llambo_isolate::{Isolate, Layout, Limits, Module, Sandbox, TypeSettings};

const N: u32 = 10_000;
/// The promise: what an isolate takes beyond the guest memory it touched; where memories and stacks are mapped one by one, more.
const MOST_BYTES_EACH: u64 = 20 << 10;
const MOST_BYTES_EACH_MAPPED: u64 = 32 << 10;
const PAGE_BYTES: u64 = 4096;

/// Resident bytes of this process.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * PAGE_BYTES
}

/// Resident bytes of guests' memories: of the one mapping that holds them all, or else of all mappings of `slot_bytes` or parts of them, whose unused
/// rest is never readable.
fn touched_guest_bytes(slot_bytes: u64) -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut sizes = smaps.split_inclusive("VmFlags:").filter_map(|mapping| Some((kib(mapping, "Size:")?, kib(mapping, "Rss:")?)));
    if let Some((_, resident)) = sizes.find(|(size, _)| *size >= slot_bytes * u64::from(N)) {
        return resident;
    }
    let (mut touched, mut is_guest, mut before) = (0, false, None);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-')
            && let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            let rights = words.next().unwrap_or_default();
            // a guest's memory ends where the unreadable rest of its slot begins; seen from there, the mapping before it
            if rights.starts_with("---") && end - start < slot_bytes && end - start > slot_bytes / 2 {
                touched += before.unwrap_or(0);
            }
            is_guest = rights == "rw-p" && end - start < slot_bytes / 2;
            before = None;
        } else if first == "Rss:" && is_guest {
            before = words.next().and_then(|kib| kib.parse::<u64>().ok()).map(|kib| kib << 10);
        }
    }
    touched
}

/// A line of a mapping, in bytes.
fn kib(mapping: &str, key: &str) -> Option<u64> {
    let line = mapping.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

async fn answer(isolate: &Arc<Isolate>) -> Result<String, llambo_inference::InferenceError> {
    let request = GenerateRequest {
        id: "r".into(),
        model: "fake".into(),
        node_type: None,
        prompt: Prompt::Text("hello".into()),
        sampling: Sampling { max_tokens: Some(2), ..Sampling::default() },
        share: Share::default(),
        deadline: None,
        routing: llambo_inference::Routing::default(),
        priority: Priority::default(),
        journal: None,
        log: None,
    };
    let events = isolate.generate(request).await?;
    let text = events.try_fold(String::new(), async |text, event| match event {
        AnswerEvent::Piece { text: piece, .. } => Ok(text + &piece),
        AnswerEvent::Finished(_) => Ok(text),
    });
    text.await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_isolates_live_and_answer_and_cost_little() {
    let models = Models::default();
    models.insert(Arc::new(FakeEngine::new("fake", 64)));
    let limits = Limits::default();
    let slot_bytes = limits.memory_bytes;
    let settings = TypeSettings { limits, expected: N, ..TypeSettings::new("tiny", "fake") };
    let node_type = Sandbox::new(models, None).unwrap().node_type(settings, Module::default_engine()).unwrap();
    let before = resident_bytes();
    let isolates = node_type.spawn(N).await.unwrap().isolates;
    let each = |total: u64, guests: u64| total.saturating_sub(before + guests) / u64::from(N);
    let (total, guests) = (resident_bytes(), touched_guest_bytes(slot_bytes));
    assert!(guests > u64::from(N) * PAGE_BYTES / 2, "every guest touched its memory: {guests} bytes");
    let idle = each(total, guests);
    println!("{idle} bytes beyond {} touched by each new guest", guests / u64::from(N));
    let most = if Layout::detect() == Layout::Slab { MOST_BYTES_EACH } else { MOST_BYTES_EACH_MAPPED };
    assert!(idle <= most, "{idle} bytes each");

    let answers: Vec<String> = stream::iter(&isolates).map(answer).buffer_unordered(64).try_collect().await.unwrap();
    assert!(answers.len() == N as usize && answers.iter().all(|text| text == "word1 word2"));
    let guests = touched_guest_bytes(slot_bytes);
    let served = each(resident_bytes(), guests);
    println!("{served} bytes beyond {} touched by each that has answered", guests / u64::from(N));
    assert!(served <= most, "{served} bytes each after an answer");
}
