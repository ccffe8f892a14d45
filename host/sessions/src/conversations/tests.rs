use std::{sync::Arc, time::Duration};

use llambo_inference::{Message, Role, Usage};
use proptest::prelude::*;

use super::*;
use crate::WhenFull;

const LIMITS: Limits =
    Limits { ttl_ms: 100, max_ttl_ms: 1000, max_sessions: 6, max_sessions_per_tenant: 4, max_bytes: 9000, max_messages: 8 };

fn new(ttl_ms: Option<u64>, texts: &[String]) -> NewSession {
    NewSession {
        model: "m".into(),
        node_type: None,
        tier: None,
        options: Arc::default(),
        labels: Arc::default(),
        ttl: ttl_ms.map(Duration::from_millis),
        token_budget: None,
        when_full: WhenFull::Refuse,
        messages: texts.iter().map(|text| Message { role: Role::User, content: text.clone() }).collect(),
    }
}

fn said(texts: &[&str], now_ms: u64) -> Said {
    let message = |text: &&str| Arc::new(Message { role: Role::User, content: (*text).to_owned() });
    let usage = Usage { input_tokens: 3, cached_tokens: 1, output_tokens: 2 };
    Said { messages: texts.iter().map(message).collect(), n_forget: 0, usage, is_turn: true, at_ms: now_ms }
}

fn tenant(n: u8) -> TenantName {
    format!("tenant-{n}").into()
}

/// What a session is, told without indices, places or bytes.
#[derive(Clone, Debug)]
struct Plain {
    id: SessionId,
    tenant: u8,
    ttl_ms: u64,
    used_ms: u64,
    texts: Vec<String>,
    turn: Option<u64>,
    n_turns: u64,
    is_made: bool,
}

impl Plain {
    fn is_there(&self, now_ms: u64) -> bool {
        self.is_made && (self.turn.is_some() || now_ms < self.used_ms + self.ttl_ms)
    }

    fn n_bytes(&self) -> u64 {
        1024 + self.texts.iter().map(|text| 64 + text.len() as u64).sum::<u64>()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Create { tenant: u8, ttl_ms: Option<u64>, n_texts: usize },
    Made { which: usize, is_kept: bool },
    Fork { which: usize, tenant: u8, n: usize },
    Begin { which: usize, tenant: u8 },
    End { which: usize, text: Option<String> },
    Remove { which: usize },
    Wait { ms: u64 },
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let (tenant, which) = (0..2_u8, 0..8_usize);
    prop_oneof![
        3 => (tenant.clone(), prop::option::of(0..1200_u64), 0..10_usize).prop_map(|(tenant, ttl_ms, n_texts)| Step::Create { tenant, ttl_ms, n_texts }),
        3 => (which.clone(), prop::bool::weighted(0.8)).prop_map(|(which, is_kept)| Step::Made { which, is_kept }),
        2 => (which.clone(), tenant.clone(), 0..4_usize).prop_map(|(which, tenant, n)| Step::Fork { which, tenant, n }),
        4 => (which.clone(), tenant).prop_map(|(which, tenant)| Step::Begin { which, tenant }),
        4 => (which.clone(), prop::option::of("[a-z]{0,900}")).prop_map(|(which, text)| Step::End { which, text }),
        1 => which.prop_map(|which| Step::Remove { which }),
        3 => (0..150_u64).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Expire),
    ]
}

/// What is refused is refused for the reason that the plain sessions have.
fn may_make(plain: &[Plain], of: u8, ttl_ms: u64, texts: &[String]) -> Result<(), &'static str> {
    let own = plain.iter().filter(|session| session.tenant == of).count();
    let n_bytes: u64 = plain.iter().map(Plain::n_bytes).sum();
    let more = 1024 + texts.iter().map(|text| 64 + text.len() as u64).sum::<u64>();
    match () {
        () if ttl_ms == 0 || ttl_ms > LIMITS.max_ttl_ms => Err("INVALID_REQUEST"),
        () if texts.len() > LIMITS.max_messages => Err("SESSION_FULL"),
        () if plain.len() >= LIMITS.max_sessions || own >= LIMITS.max_sessions_per_tenant => Err("TOO_MANY_SESSIONS"),
        () if n_bytes + more > LIMITS.max_bytes => Err("TOO_MANY_SESSIONS"),
        () => Ok(()),
    }
}

fn check(all: &Conversations, plain: &[Plain], now_ms: u64) {
    assert_eq!(all.n_sessions(), plain.len());
    assert_eq!(all.n_bytes(), plain.iter().map(Plain::n_bytes).sum::<u64>());
    for of in 0..2 {
        let listed: BTreeSet<SessionId> =
            all.page(&tenant(of), None, 100, now_ms).into_iter().map(|session| session.id).collect();
        let there = plain.iter().filter(|session| session.tenant == of && session.is_there(now_ms));
        assert_eq!(listed, there.map(|session| session.id.clone()).collect());
    }
    for session in plain {
        let found = all.get(&tenant(session.tenant), session.id.as_str(), now_ms);
        assert_eq!(found.is_ok(), session.is_there(now_ms), "{session:?}");
        assert_eq!(all.get(&tenant(1 - session.tenant), session.id.as_str(), now_ms).unwrap_err().reason(), "UNKNOWN_SESSION");
        if let Ok(found) = found {
            let texts: Vec<String> = found.messages.iter().map(|message| message.content.clone()).collect();
            assert_eq!((texts, found.n_turns), (session.texts.clone(), session.n_turns));
            assert_eq!(all.is_in_turn(&found.id), session.turn.is_some());
        }
    }
}

fn run(steps: Vec<Step>) {
    let mut all = Conversations::new(LIMITS);
    let mut plain: Vec<Plain> = Vec::new();
    let mut now_ms = 1000;
    for step in steps {
        match step {
            Step::Create { tenant: of, ttl_ms, n_texts } => {
                let texts: Vec<String> = (0..n_texts).map(|n| format!("text {n}")).collect();
                let made = all.make(&tenant(of), new(ttl_ms, &texts), None, now_ms);
                let ttl_ms = ttl_ms.unwrap_or(LIMITS.ttl_ms);
                let may = may_make(&plain, of, ttl_ms, &texts);
                assert_eq!(made.as_ref().map(|_| ()).map_err(SessionError::reason), may);
                if let Ok(Session { id, .. }) = made {
                    plain.push(Plain { id, tenant: of, ttl_ms, used_ms: now_ms, texts, turn: None, n_turns: 0, is_made: false });
                }
            }
            Step::Made { which, is_kept } => {
                let Some(n) = plain.iter().position(|session| !session.is_made) else { continue };
                let _ = which;
                all.made(&plain[n].id, is_kept);
                if is_kept {
                    plain[n].is_made = true;
                } else {
                    plain.remove(n);
                }
            }
            Step::Fork { which, tenant: of, n } => {
                let Some(parent) = plain.get(which).cloned() else { continue };
                let Ok(found) = all.get(&tenant(of), parent.id.as_str(), now_ms).cloned() else {
                    assert!(of != parent.tenant || !parent.is_there(now_ms));
                    continue;
                };
                let texts = parent.texts[..n.min(parent.texts.len())].to_vec();
                let made = all.make(&tenant(of), new(Some(parent.ttl_ms), &texts), Some(&found), now_ms);
                assert_eq!(made.as_ref().map(|_| ()).map_err(SessionError::reason), may_make(&plain, of, parent.ttl_ms, &texts));
                if let Ok(Session { id, .. }) = made {
                    plain.push(Plain { id, texts, used_ms: now_ms, turn: None, n_turns: 0, is_made: false, ..parent });
                }
            }
            Step::Begin { which, tenant: of } => {
                let Some(session) = plain.get_mut(which) else { continue };
                let begun = all.begin(&tenant(of), session.id.as_str(), now_ms);
                let expected = match session.is_there(now_ms) && session.tenant == of {
                    false => Err("UNKNOWN_SESSION"),
                    true if session.turn.is_some() => Err("SESSION_BUSY"),
                    true => Ok(()),
                };
                assert_eq!(begun.as_ref().map(|_| ()).map_err(SessionError::reason), expected);
                session.turn = begun.ok().map(|(_, turn)| turn).or(session.turn);
            }
            Step::End { which, text } => {
                let Some(session) = plain.get_mut(which) else { continue };
                let said = text.as_deref().map(|text| said(&[text], now_ms));
                // a turn that is not under way any more ends nobody's
                assert!(all.end(&session.id, session.turn.map_or(0, |turn| turn + 1000), said.as_ref(), now_ms).is_err());
                let Some(turn) = session.turn.take() else { continue };
                assert!(all.end(&session.id, turn, said.as_ref(), now_ms).is_ok());
                session.used_ms = now_ms;
                session.n_turns += u64::from(text.is_some());
                session.texts.extend(text);
            }
            Step::Remove { which } => {
                if which < plain.len() {
                    assert!(all.remove(&plain.remove(which).id));
                }
            }
            Step::Wait { ms } => now_ms += ms,
            Step::Expire => {
                let gone: BTreeSet<SessionId> = all.expire(now_ms).into_iter().collect();
                let (stay, go): (Vec<_>, Vec<_>) =
                    plain.into_iter().partition(|session| !session.is_made || session.is_there(now_ms));
                plain = stay;
                assert_eq!(gone, go.into_iter().map(|session| session.id).collect());
            }
        }
        check(&all, &plain, now_ms);
    }
}

proptest! {
    #[test]
    fn they_are_what_plain_sessions_would_be(steps in prop::collection::vec(step(), 0..80)) {
        run(steps);
    }
}

#[test]
fn pages_lead_through_all_of_them_the_newest_first() {
    let mut all = Conversations::new(Limits { max_sessions: 100, max_sessions_per_tenant: 100, max_bytes: u64::MAX, ..LIMITS });
    let mut made = Vec::new();
    for n in 0..7 {
        // two of each time
        let session = all.make(&tenant(0), new(None, &[]), None, n / 2).unwrap();
        all.made(&session.id, true);
        made.push((session.created_ms, session.id));
    }
    made.sort();
    made.reverse();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = all.page(&tenant(0), after.as_ref(), 3, 10);
        let Some(last) = page.last() else { break };
        after = Some((last.created_ms, last.id.clone()));
        seen.extend(page.into_iter().map(|session| (session.created_ms, session.id)));
    }
    assert_eq!(seen, made);
}
